"""Is this file a whole result? One file a format; the checks are byte arithmetic, and never trust a header."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from runner.errors import ResultError
from runner.formats import glb, ply

_WORDS = 200


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of result: its name (also the file extension), first bytes and completeness check."""

    name: str
    magic: bytes
    check: Callable[[BinaryIO, int], None]


FORMATS = {known.name: known for known in (Format("ply", b"ply", ply.check), Format("glb", b"glTF", glb.check))}

UNKNOWN_EXTENSION = "bin"
"""The extension of a result whose format nobody checked (``verify: none``)."""


def verify(file: BinaryIO, expected: str) -> str:
    """Check that ``file``, from its start to its end, is one whole result, and return its format's name.

    ``expected`` is ``auto`` (any known format), a format's name, or ``none`` (anything but nothing or an error
    answer). Raises ResultError saying what the file is instead.
    """
    head = file.read(512)
    size_bytes = file.seek(0, 2)
    file.seek(0)
    known = next((one for one in FORMATS.values() if head.startswith(one.magic)), None)
    if expected == "none":
        _refuse_errors(head, size_bytes)
        return known.name if known else UNKNOWN_EXTENSION
    if known is None or expected not in ("auto", known.name):
        wanted = " or ".join(name.upper() for name in FORMATS) if expected == "auto" else expected.upper()
        raise ResultError(f"expected a {wanted} file, got {describe(head, size_bytes)}")
    known.check(file, size_bytes)
    return known.name


def satisfies(recorded: str | None, expected: str) -> bool:
    """Tell whether a result that was recorded as of this format passed what ``expected`` asks for.

    >>> satisfies("ply", "auto"), satisfies("ply", "glb"), satisfies("bin", "auto"), satisfies("bin", "none")
    (True, False, False, True)
    """
    return expected == "none" or (recorded in FORMATS and expected in ("auto", recorded))


def describe(head: bytes, size_bytes: int) -> str:
    """Say in a few words what a body is, from its first bytes.

    >>> describe(b'{"detail": "out of memory"}', 27)
    'JSON: {"detail": "out of memory"}'
    >>> describe(b"", 0)
    'an empty body'
    """
    if not size_bytes:
        return "an empty body"
    for known in FORMATS.values():
        if head.startswith(known.magic):
            return f"a {known.name.upper()} file of {size_bytes} bytes"
    page = text_kind(head)
    return f"{page}: {words(head)}" if page else f"{size_bytes} bytes that start with {head[:16]!r}"


def text_kind(head: bytes) -> str | None:
    """Name the kind of text that servers send instead of a file, if this is the start of one.

    >>> [text_kind(head) for head in (b"<!DOCTYPE html>", b'{"error": 1}', b"GIF89a", b"<?xml?><svg/>")]
    ['an HTML page', 'JSON', None, None]
    """
    start = head.lstrip()[:512].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")) and b"<svg" not in start:
        return "an HTML page"
    return "JSON" if start.startswith((b"{", b"[")) else None


def words(head: bytes) -> str:
    """Return the start of a text body on one line, for an error message."""
    text = " ".join(head.decode("utf-8", errors="replace").split())
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _WORDS else text[: _WORDS - 1] + "…"


def _refuse_errors(head: bytes, size_bytes: int) -> None:
    described = describe(head, size_bytes)
    is_error = not size_bytes or described.startswith("an HTML page")
    if described.startswith("JSON"):
        try:
            body = json.loads(head)
            is_error = isinstance(body, dict) and any(key == "detail" or key.startswith("error") for key in body)
        except ValueError:
            is_error = head.lstrip()[:64].replace(b" ", b"").startswith((b'{"detail"', b'{"error'))
    if is_error:
        raise ResultError(f"expected a result, got {described}")
