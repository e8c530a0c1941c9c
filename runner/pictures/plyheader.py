"""The header of a PLY: its elements and their properties. (G. Turk, "The PLY Polygon File Format", 1994)"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from runner.pictures.shapes import UnreadableError

_HEADER_MAX = 256 * 1024
_DIGITS_MAX = 18
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip


@dataclass(slots=True)
class Element:
    """``lists``: the types of count and value of each property that is a list, by its name."""

    name: str
    count: int
    fields: list[tuple[str, str]] = field(default_factory=list)
    lists: dict[str, tuple[str, str]] = field(default_factory=dict)

    def dtype(self, order: str) -> np.dtype[np.void]:
        return np.dtype([(name, order + kind) for name, kind in self.fields])


@dataclass(slots=True)
class Header:
    """``order``: ``<`` or ``>``, "" for ascii. ``begin``: the first byte of data."""

    order: str
    elements: list[Element]
    begin: int
    size_bytes: int


def header_of(file: BinaryIO) -> Header:
    """Read a header; leave ``file`` at the first byte of data. Raises UnreadableError."""
    size_bytes = os.fstat(file.fileno()).st_size
    order: str | None = None
    elements: list[Element] = []
    if file.readline(_HEADER_MAX).strip() != b"ply":
        raise UnreadableError("it does not begin as a PLY does")
    while file.tell() < _HEADER_MAX and (line := file.readline(_HEADER_MAX)):
        match line.decode("ascii", "replace").split():
            case ["end_header"] if order is not None:
                return Header(order, elements, file.tell(), size_bytes)
            case ["format", kind, _]:
                order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}.get(kind)
            case ["element", name, count] if count.isdigit() and len(count) <= _DIGITS_MAX:
                elements.append(Element(name, int(count)))
            case ["property", "list", count, kind, name] if elements and count in _TYPES and kind in _TYPES:
                elements[-1].lists[name] = _TYPES[count], _TYPES[kind]
                elements[-1].fields.append((name, ""))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].fields.append((name, _TYPES[kind]))
            case ["property" | "element", *_]:
                raise UnreadableError(f"its header has the line {line[:80]!r}")
    raise UnreadableError("its header is cut")
