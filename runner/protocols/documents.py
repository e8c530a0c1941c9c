"""A JSON answer, however long: what is long in it stays in its file, and is decoded from there block by block.

A mesh of 100 MB comes as 133 MB of base64 in a JSON string. Parsed as usual that would be several copies of it in
memory, for each endpoint.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from runner.errors import NoDocumentError, ResultError
from runner.formats import words

_LONG_BYTES = 64 * 1024
_SMALL_BYTES = 1024 * 1024
_REST_MAX = 16 * 1024 * 1024
_ESCAPE_BYTES = 6
_BLOCK = 768 * 1024
_MARK = f"long {secrets.token_hex(16)} "
"""Nobody who made a document can have known it."""

_TO_PLAIN = bytes.maketrans(b"-_", b"+/")


class Long(NamedTuple):
    """A long string of the document; it stands in the file from ``start`` to ``end``, without its quotes."""

    start: int
    end: int


class _Next:
    """Where a byte stands next in a block. Places only grow, and each is looked for once."""

    def __init__(self, block: bytes, byte: bytes) -> None:
        self._block = block
        self._byte = byte
        self._at = -1

    def after(self, place: int) -> int:
        """Return the first place from ``place`` on; the block's length if there is none."""
        if self._at < place:
            found = self._block.find(self._byte, place)
            self._at = len(self._block) if found < 0 else found
        return self._at


class Document:
    """A parsed JSON answer: ``value`` holds a Long where a string is long. Its file stays open while it is used."""

    def __init__(self, file: IO[bytes], size_bytes: int) -> None:
        """Parse a file from its start. Raises ResultError if it is no JSON."""
        self._file = file
        self._longs: dict[str, Long] = {}
        self.value = self._parsed(size_bytes)

    def __enter__(self) -> Document:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()

    def text(self, value: Any) -> str:
        """Return a string of the document whole, a long one too. Raises ResultError if it is no string."""
        if isinstance(value, Long):
            return str(json.loads(b'"' + self._read(value.start, value.end) + b'"'))
        if not isinstance(value, str):
            raise ResultError(f"expected a text in the answer, got {shown(value)}")
        return value

    def decoded(self, value: Any) -> Iterator[bytes]:
        """Yield the bytes that a base64 text, or a data URL, stands for. Raises ResultError."""
        if not isinstance(value, str | Long):
            raise ResultError(f"expected base64 in the answer, got {shown(value)}")
        head = self._head(value)
        if not head.startswith(b"data:"):
            yield from self._base64(value, 0)
            return
        declared, comma, _ = head.partition(b",")
        if not comma:
            raise ResultError(f"expected a data URL in the answer, got {words(head)}")
        if declared.endswith(b";base64"):
            yield from self._base64(value, len(declared) + 1)
        else:
            yield unquote_to_bytes(self.text(value).partition(",")[2])

    def plain(self, value: Any) -> Any:
        """Return a part of the document as JSON has it, long strings filled in."""
        if isinstance(value, Long):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.plain(one) for key, one in value.items()}
        return [self.plain(one) for one in value] if isinstance(value, list) else value

    def _parsed(self, size_bytes: int) -> Any:
        if size_bytes <= _SMALL_BYTES:
            self._file.seek(0)
            return _json(self._file.read())
        short = b"".join(self._without_long_strings(size_bytes))
        try:
            return _replaced(_json(short), self._longs)
        except RecursionError as error:
            raise NoDocumentError(f"expected JSON, got too deep a one: {words(short[:512])}") from error

    def _without_long_strings(self, size_bytes: int) -> Iterator[bytes]:
        """Yield the document with a mark in the place of each long string. Raises ResultError."""
        at = rest = 0
        for long in [*self._long_strings(), Long(size_bytes, size_bytes)]:
            rest += long.start - at
            if rest > _REST_MAX:
                raise ResultError(f"expected JSON with at most {_REST_MAX} bytes beside its long texts, got more")
            yield self._read(at, long.start)
            at = long.end
            if at < size_bytes:
                mark = f"{_MARK}{len(self._longs)}"
                self._longs[mark] = long
                yield mark.encode()

    def _long_strings(self) -> list[Long]:
        """Find the long strings, in one pass over the file; a quote outside of a string begins one."""
        found: list[Long] = []
        start, at, place = -1, 0, 0
        self._file.seek(0)
        while block := self._file.read(_BLOCK):
            quotes, escapes = _Next(block, b'"'), _Next(block, b"\\")
            while (quote := quotes.after(place)) < len(block):
                if start < 0:
                    start, place = at + quote + 1, quote + 1
                elif (escape := escapes.after(place)) < quote:
                    place = escape + 2  # what follows it stands for itself, in the next block too
                else:
                    if at + quote - start > _LONG_BYTES:
                        found.append(Long(start, at + quote))
                    start, place = -1, quote + 1
            while start >= 0 and (escape := escapes.after(place)) < len(block):
                place = escape + 2
            at += len(block)
            place = max(0, place - len(block))
        return found

    def _head(self, value: str | Long) -> bytes:
        """Return the first bytes of a text; JSON may have escaped its slashes."""
        if isinstance(value, str):
            return value[:256].encode(errors="replace")
        return self._read(value.start, min(value.end, value.start + 256)).replace(b"\\/", b"/")

    def _base64(self, value: str | Long, skip: int) -> Iterator[bytes]:
        left = b""
        for block in self._blocks(value):
            left += _plain_base64(block)
            if skip:
                skip, left = max(0, skip - len(left)), left[skip:]
            if skip:
                continue
            whole = len(left) // 4 * 4
            if left.find(b"=", 0, whole - 4) >= 0:
                raise ResultError("expected base64 in the answer, got padding within it")
            yield _decoded(left[: whole - 4])
            left = left[max(0, whole - 4) :]
        yield _decoded(left + b"=" * (-len(left) % 4))

    def _blocks(self, value: str | Long) -> Iterator[bytes]:
        """Yield a text as JSON has it, without white space and escapes that base64 may be written with."""
        if isinstance(value, str):
            yield value.encode(errors="replace")
            return
        at, torn = value.start, b""
        while at < value.end:
            block = torn + self._read(at, min(at + _BLOCK, value.end))
            at = min(at + _BLOCK, value.end)
            last = block.rfind(b"\\", len(block) - _ESCAPE_BYTES)
            cut = last if last >= 0 and at < value.end else len(block)
            torn = block[cut:]
            yield _unescaped(block[:cut])

    def _read(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        return self._file.read(end - start)


def shown(value: Any) -> str:
    """Return a JSON value for an error message."""
    text = "a long text" if isinstance(value, Long) else json.dumps(value, default=str, ensure_ascii=False)
    return words(text.encode(errors="replace"))


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        said = words(text[:512]) if text else "an empty body"
        raise NoDocumentError(f"expected JSON, got {said}") from error


def _replaced(value: Any, longs: Mapping[str, Long]) -> Any:
    """Put each Long in the place of its mark."""
    if isinstance(value, dict):
        return {key: _replaced(one, longs) for key, one in value.items()}
    if isinstance(value, list):
        return [_replaced(one, longs) for one in value]
    return longs.get(value, value) if isinstance(value, str) else value


def _unescaped(block: bytes) -> bytes:
    """Return a part of a JSON string as it reads. Raises ResultError."""
    if b"\\" not in block:
        return block
    try:
        return str(json.loads(b'"' + block + b'"', strict=False)).encode(errors="replace")
    except ValueError as error:
        raise ResultError(f"expected base64 in the answer, got {words(block[:60])}") from error


def _plain_base64(block: bytes) -> bytes:
    return block.translate(_TO_PLAIN, b" \t\r\n")


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ResultError(f"expected base64 in the answer: {error}") from error
