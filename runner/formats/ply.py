"""Is this file a whole PLY? (G. Turk, "The PLY Polygon File Format", 1994; splats: Kerbl et al., 2023)

Every ascii line must end in a newline, or a cut in the last number would go unseen. Without list properties the
size of a binary file is known from the header. With lists (a mesh's faces) the rows are walked; runs
of rows with equal counts, such as all triangles, are checked a block at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, Literal

from runner.errors import ResultError

_SIZES = {
    "char": 1, "int8": 1, "uchar": 1, "uint8": 1, "short": 2, "int16": 2, "ushort": 2, "uint16": 2,
    "int": 4, "int32": 4, "uint": 4, "uint32": 4, "float": 4, "float32": 4, "double": 8, "float64": 8,
}  # fmt: skip
_COUNT_TYPES = {name for name in _SIZES if "float" not in name and name != "double"}
_SIGNED = {"char", "int8", "short", "int16", "int", "int32"}
_HEADER_MAX = 256 * 1024
_LINE_MAX = 16 * 1024 * 1024
_BLOCK = 1024 * 1024
_DIGITS_MAX = 18
_SPLAT = frozenset(
    ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")
    + ("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")
)

_Order = Literal["little", "big"]
_ORDERS: dict[bytes, _Order | None] = {
    b"ascii": None,
    b"binary_little_endian": "little",
    b"binary_big_endian": "big",
}
_Read = Callable[[int, int], bytes]
"""(offset in the row, size) → bytes"""


@dataclass(slots=True)
class _Property:
    """A value of ``size`` bytes, or a list of such values behind a count of ``count_size`` bytes."""

    name: str
    size: int
    count_size: int = 0
    signed: bool = False


@dataclass(slots=True)
class _Element:
    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)

    @property
    def lists(self) -> int:
        return sum(1 for one in self.properties if one.count_size)


def check(file: BinaryIO, size_bytes: int) -> None:
    """Raise ResultError unless the header parses and the data fills the file exactly."""
    order, elements = _header(file)
    vertex = next((element for element in elements if element.name == "vertex"), None)
    if vertex is None or vertex.count == 0:
        raise ResultError("PLY: it has no vertices")
    names = {one.name for one in vertex.properties}
    if "f_dc_0" in names and not names >= _SPLAT:
        raise ResultError(f"PLY: a splat without {', '.join(sorted(_SPLAT - names))}")
    if order is None:
        _check_ascii(file, elements)
    else:
        _check_binary(file, size_bytes, elements, order)


def _header(file: BinaryIO) -> tuple[_Order | None, list[_Element]]:
    """Return the byte order (None for ascii) and the elements; leave ``file`` at the first data byte."""
    encoding = b""
    elements: list[_Element] = []
    if file.readline(_HEADER_MAX).strip() != b"ply":
        raise ResultError("PLY: expected 'ply' as the first line")
    while file.tell() < _HEADER_MAX:
        line = file.readline(_HEADER_MAX)
        if not line.endswith(b"\n"):
            raise ResultError("PLY: cut in its header")
        tokens = line.split()
        match tokens:
            case [b"end_header"]:
                if not encoding:
                    raise ResultError("PLY: its header names no format")
                return _ORDERS[encoding], elements
            case [b"format", kind, b"1.0"] if kind in _ORDERS:
                encoding = kind
            case [b"element", name, count] if count.isdigit() and len(count) <= _DIGITS_MAX:
                elements.append(_Element(name.decode(errors="replace"), int(count)))
            case [b"property", *rest] if elements:
                elements[-1].properties.append(_property(rest, line))
            case [] | [b"comment", *_] | [b"obj_info", *_]:
                pass
            case _:
                raise ResultError(f"PLY: its header has the line {line[:80]!r}")
    raise ResultError(f"PLY: no end_header in its first {_HEADER_MAX} bytes")


def _property(tokens: list[bytes], line: bytes) -> _Property:
    match [token.decode(errors="replace") for token in tokens]:
        case [kind, name] if kind in _SIZES:
            return _Property(name, _SIZES[kind])
        case ["list", count_kind, kind, name] if count_kind in _COUNT_TYPES and kind in _SIZES:
            return _Property(name, _SIZES[kind], _SIZES[count_kind], count_kind in _SIGNED)
    raise ResultError(f"PLY: its header has the property {line[:80]!r}")


def _check_binary(file: BinaryIO, size_bytes: int, elements: list[_Element], order: _Order) -> None:
    offset = file.tell()
    for element in elements:
        if element.lists:
            offset = _walk(file, offset, size_bytes, element, order)
        else:
            offset += element.count * sum(one.size for one in element.properties)
        if offset > size_bytes:
            raise ResultError(f"PLY: cut: its {element.name} data ends at byte {offset}, the file at {size_bytes}")
    if offset != size_bytes:
        raise ResultError(f"PLY: {size_bytes - offset} bytes too many: expected {offset}, got {size_bytes}")


def _walk(file: BinaryIO, offset: int, size_bytes: int, element: _Element, order: _Order) -> int:
    """Return the offset behind an element with lists, reading every count."""
    rows = element.count
    while rows:
        file.seek(offset)
        block = file.read(_BLOCK)
        done, used = _rows_in(block, rows, element, order)
        if not done:  # one row longer than a block, or the end of the file
            done, used = 1, _row(partial(_read_at, file, offset), element, order)
        rows -= done
        offset += used
        if offset > size_bytes:
            raise ResultError(f"PLY: cut: {rows + 1} of its {element.count} {element.name} rows are missing")
    return offset


def _rows_in(block: bytes, rows: int, element: _Element, order: _Order) -> tuple[int, int]:
    """Return how many whole rows stand at the start of ``block``, and their bytes."""
    done = used = 0
    window = 1
    while done < rows:
        try:
            row = _row(partial(_slice, block, used), element, order)
        except EOFError:
            break
        if used + row > len(block):
            break
        same = _equal_rows(block[used : used + window * row], row, element)
        same = min(same, rows - done)
        window = window * 4 if same == window else 1
        done += same
        used += same * row
    return done, used


def _row(read: _Read, element: _Element, order: _Order) -> int:
    """Return the size of one row; ``read(at, size)`` gives bytes of it or raises EOFError."""
    at = 0
    for one in element.properties:
        if one.count_size:
            count = int.from_bytes(read(at, one.count_size), order, signed=one.signed)
            if count < 0:
                raise ResultError(f"PLY: a list of {count} values in its {element.name} rows")
            at += one.count_size + count * one.size
        else:
            at += one.size
    return at


def _equal_rows(block: bytes, row: int, element: _Element) -> int:
    """Return how many rows at the start of ``block`` have the first one's counts, comparing bytes as columns."""
    same = len(block) // row
    at = 0
    for one in element.properties:
        if one.count_size and element.lists > 1:
            return 1
        for byte in range(at, at + one.count_size):
            column = block[byte : same * row : row]
            same = len(column) - len(column.lstrip(column[:1]))
        at += one.size
    return same


def _slice(block: bytes, row: int, at: int, size: int) -> bytes:
    if row + at + size > len(block):
        raise EOFError
    return block[row + at : row + at + size]


def _read_at(file: BinaryIO, row: int, at: int, size: int) -> bytes:
    file.seek(row + at)
    found = file.read(size)
    if len(found) < size:
        raise ResultError("PLY: cut in its list data")
    return found


def _check_ascii(file: BinaryIO, elements: list[_Element]) -> None:
    for element in elements:
        for number in range(1, element.count + 1):
            line = file.readline(_LINE_MAX)
            if not line:
                raise ResultError(f"PLY: cut: {number - 1} of its {element.count} {element.name} lines")
            if not line.endswith(b"\n") or not _fits(line.split(), element):
                raise ResultError(f"PLY: {element.name} line {number} of {element.count} is not whole: {line[:80]!r}")
    if rest := file.read(1024).strip():
        raise ResultError(f"PLY: more data than its header says: {rest[:40]!r}")


def _fits(tokens: list[bytes], element: _Element) -> bool:
    at = 0
    for one in element.properties:
        if one.count_size:
            if at >= len(tokens) or not tokens[at].isdigit() or len(tokens[at]) > _DIGITS_MAX:
                return False
            at += int(tokens[at])
        at += 1
    return at == len(tokens)
