"""What a file's content sums up to, here and there: size, SHA-256, and what stores keep of an object."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from runner.remote.refusals import LocalFileError

_BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sums:
    """A whole content: ``md5`` and ``sha256`` are digests as bytes; ``etag`` is what S3 calls it, without quotes."""

    size_bytes: int
    md5: bytes
    sha256: bytes
    etag: str


def md5_of(content: bytes) -> bytes:
    """Return the MD5 of some bytes; it tells damage, and guards nothing."""
    return hashlib.md5(content, usedforsecurity=False).digest()


def etag_of(parts: list[bytes]) -> str:
    """Return what S3 calls an object that came in parts with these MD5s.

    >>> etag_of([md5_of(b"a"), md5_of(b"b")])[-2:]
    '-2'
    """
    return f"{md5_of(b''.join(parts)).hex()}-{len(parts)}"


def etag_in(said: Mapping[str, Any]) -> str:
    """Return what S3 calls an object in one of its answers; "" if it does not say."""
    return str(said.get("ETag") or "").strip('"').lower()


def sums_of(file: BinaryIO) -> Sums:
    """Sum up the rest of a file, block by block."""
    size, md5, sha256 = 0, hashlib.md5(usedforsecurity=False), hashlib.sha256()
    while block := file.read(_BLOCK):
        size += len(block)
        md5.update(block)
        sha256.update(block)
    return Sums(size, md5.digest(), sha256.digest(), md5.hexdigest())


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open a local file to upload it. Raises LocalFileError."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - what is raised while it is open is no error of opening it
    except OSError as error:
        raise LocalFileError(
            f"{path} can't be read: {error.strerror or error}; nothing of it was uploaded"
        ) from error
    with file:
        yield file


def size_of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def check_unchanged(path: str, size_bytes: int, found: Sums, sha256: str | None) -> None:
    """Raise LocalFileError if a local file is not what was verified, or grew while it was read."""
    if found.size_bytes == size_bytes and (sha256 is None or found.sha256.hex() == sha256.lower()):
        return
    raise LocalFileError(
        f"{path} has changed since it was verified; it was not uploaded: make it again, or upload it by hand"
    )


def is_known_same(said: Mapping[str, Any], sums: Sums) -> bool | None:
    """Compare what a store says of an object with what was sent; None if it says nothing that can be compared."""
    if (size := said.get("size")) is not None and size != sums.size_bytes:
        return False
    if md5 := _md5_in(said):
        return md5 == sums.md5
    return None


def _md5_in(said: Mapping[str, Any]) -> bytes | None:
    """Return the MD5 that Google (``md5Hash``) or Azure (``content_md5``) tell of an object; others tell none."""
    settings = said.get("content_settings")
    found = said.get("md5Hash") or said.get("content_md5")
    found = found or (settings.get("content_md5") if isinstance(settings, Mapping) else None)
    if isinstance(found, bytes | bytearray):
        return bytes(found)
    if isinstance(found, str):
        try:
            return base64.b64decode(found, validate=True)
        except (ValueError, binascii.Error):
            return None
    return None
