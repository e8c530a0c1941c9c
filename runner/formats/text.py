"""Is this file text, or JavaScript? UTF-8 without a NUL, something in it, and no error of the server.

Text has no end of its own: that it was cut is seen only in the middle of a character.
"""

from __future__ import annotations

import codecs
from typing import BinaryIO

from runner.errors import ResultError
from runner.formats.answers import starts_error, text_kind, words

_BLOCK = 1024 * 1024


def check(file: BinaryIO, size_bytes: int) -> None:
    """Raise ResultError unless ``file`` is UTF-8 to its end, with more in it than blanks, and no JSON error."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    empty, offset = True, 0
    head = file.read(_BLOCK)
    block = head
    while block:
        try:
            text = decoder.decode(block)
        except UnicodeDecodeError as error:
            raise ResultError(f"text: not UTF-8 near byte {offset + error.start}: {error.reason}") from error
        if b"\0" in block:
            raise ResultError(f"text: a NUL at byte {offset + block.index(0)}")
        empty = empty and not text.lstrip("\ufeff").strip()
        offset += len(block)
        block = file.read(_BLOCK)
    if decoder.getstate()[0]:
        raise ResultError("text: cut in the middle of a character")
    if empty:
        raise ResultError("text: it is empty")
    if starts_error(head):
        raise ResultError(f"expected a result, got JSON: {words(head[:512])}")


def check_script(file: BinaryIO, size_bytes: int) -> None:
    """Raise ResultError unless ``file`` is text and no HTML page."""
    head = file.read(512)
    file.seek(0)
    if text_kind(head.removeprefix(codecs.BOM_UTF8)) == "an HTML page":
        raise ResultError(f"expected a script, got an HTML page: {words(head)}")
    check(file, size_bytes)
