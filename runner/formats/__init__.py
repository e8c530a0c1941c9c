"""Is this file a whole result? One file a format; the checks are byte arithmetic, and never trust a header.

No check holds a whole file in memory (JSON apart, which has a cap), and none inflates more than a header implies.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from runner.errors import ResultError
from runner.formats import archive, document, glb, jpeg, ply, png, spz, text, webp
from runner.formats.answers import starts_error, text_kind, words
from runner.formats.inflate import GZIP_MAGIC, ZSTD_MAGIC

__all__ = ["FORMATS", "UNKNOWN_EXTENSION", "Format", "describe", "satisfies", "text_kind", "verify", "words"]

_HEAD = 512


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of result: its name (also the file extension), its completeness check and how it begins.

    ``magic`` matches its first bytes; None for text, which begins with anything.
    """

    name: str
    check: Callable[[BinaryIO, int], None]
    magic: re.Pattern[bytes] | None = None


FORMATS = {
    known.name: known
    for known in (
        Format("ply", ply.check, re.compile(rb"ply")),
        Format("glb", glb.check, re.compile(rb"glTF")),
        Format("spz", spz.check, re.compile(rb"NGSP|\x1f\x8b|\x28\xb5\x2f\xfd")),
        Format("png", png.check, re.compile(rb"\x89PNG\r\n\x1a\n")),
        Format("jpg", jpeg.check, re.compile(rb"\xff\xd8\xff")),
        Format("webp", webp.check, re.compile(rb"RIFF....WEBP", re.DOTALL)),
        Format("zip", archive.check, re.compile(rb"PK(?:\x03\x04|\x05\x06)")),
        Format("json", document.check),
        Format("js", text.check_script),
        Format("txt", text.check),
    )
}

UNKNOWN_EXTENSION = "bin"
"""The extension of a result that ``verify: none`` let through, and nothing else would have."""


def verify(file: BinaryIO, expected: str) -> str:
    """Check that ``file``, from its start to its end, is one whole result, and return its format's name.

    ``expected`` is ``auto`` (any known format but text, which is how servers tell of errors), a format's name, or
    ``none`` (anything but nothing or an error answer; what is no whole file of a known format is called ``bin``).
    Raises ResultError saying what the file is instead.
    """
    head = file.read(_HEAD)
    size_bytes = file.seek(0, 2)
    file.seek(0)
    known = _known(head)
    if expected == "none":
        if not size_bytes or text_kind(head) == "an HTML page" or starts_error(head):
            raise ResultError(f"expected a result, got {describe(head, size_bytes)}")
        return known.name if known and _is_whole(file, known, size_bytes) else UNKNOWN_EXTENSION
    if size_bytes and expected in FORMATS and FORMATS[expected].magic is None:
        known = FORMATS[expected]
    elif known is None or expected not in ("auto", known.name):
        raise ResultError(f"expected a {_wanted(expected)} file, got {describe(head, size_bytes)}")
    known.check(file, size_bytes)
    return known.name


def satisfies(recorded: str | None, expected: str) -> bool:
    """Tell whether a result that was recorded as of this format passed what ``expected`` asks for.

    Under ``auto`` text passes too: it was recorded as such only where the run knew that text is what it gets.

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
    for magic, packed in ((GZIP_MAGIC, "gzip"), (ZSTD_MAGIC, "zstd")):
        if head.startswith(magic):
            return f"{packed} data of {size_bytes} bytes"
    if known := _known(head):
        return f"a {known.name.upper()} file of {size_bytes} bytes"
    page = text_kind(head)
    return f"{page}: {words(head)}" if page else f"{size_bytes} bytes that start with {head[:16]!r}"


def _is_whole(file: BinaryIO, known: Format, size_bytes: int) -> bool:
    try:
        known.check(file, size_bytes)
    except ResultError:
        return False
    return True


def _known(head: bytes) -> Format | None:
    return next((one for one in FORMATS.values() if one.magic and one.magic.match(head)), None)


def _wanted(expected: str) -> str:
    """Name what was asked for: one format, or every one that ``auto`` takes."""
    if expected != "auto":
        return expected.upper()
    *others, last = (one.name.upper() for one in FORMATS.values() if one.magic)
    return f"{', '.join(others)} or {last}"
