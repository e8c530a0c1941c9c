"""Files are written whole or not at all; what the system refuses becomes one sentence."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from runner.errors import StorageError

FILE_MODE = 0o664
"""Results and state are never world-writable; the umask takes away more."""

_BLOCK = 1024 * 1024

_PART_NAME = 48
"""So much of a name stands in that of its temp file, which would be too long with all of it."""


def write_whole(path: Path, content: Iterable[str] | Iterable[bytes], *, mode: int = FILE_MODE) -> int:
    """Write a file whole or not at all, on the disk before it gets its name; return its size in bytes.

    ``mode`` is cut by the umask. Raises OSError; then nothing is left of it. A device or a pipe is written into as it
    is.
    """
    if _is_no_file(path):
        with open(path, "wb") as stream:
            return sum(stream.write(_bytes(piece)) for piece in content)
    part = path.with_name(f".{path.name[:_PART_NAME]}.{secrets.token_hex(4)}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            for piece in content:
                file.write(_bytes(piece))
            file.flush()
            os.fsync(file.fileno())
            size_bytes = file.tell()
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    return size_bytes


def _is_no_file(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return not stat.S_ISREG(os.stat(path).st_mode)
    return False


def _bytes(piece: str | bytes) -> bytes:
    return piece if isinstance(piece, bytes) else piece.encode(errors="backslashreplace")


def not_for_all(path: str, flags: int) -> int:
    """Open a file, as an ``opener``; a new one may not be written by everybody, whatever the umask."""
    return os.open(path, flags, FILE_MODE)


def sha256_of(file: IO[bytes]) -> str:
    """Return the SHA-256 of what is left of a file, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def seen_as(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells the file that was looked at from another of its name."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    """Open a folder to look names up in, whatever its path leads to by then; a path would be walked anew each time.

    Raises StorageError.
    """
    with refusals(f"the folder {folder} can't be read"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn an OSError into a StorageError that begins with ``what``."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}: {error.strerror or error}") from error
