"""Read a PLY for its picture: some splats or points of it, or a whole mesh. (G. Turk, 1994; Kerbl et al., 2023)

Of a large file only blocks of rows are read, spread evenly over it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from runner.pictures.shapes import GREY, Floats, Ints, Mesh, Points, Splats, UndrawnError, UnreadableError, thinned

SPLATS_MAX = 200_000
"""So many splats or points are read at the most."""

MESH_MAX_BYTES = 300_000_000
_ASCII_MAX_BYTES = 40_000_000
_HEADER_MAX = 256 * 1024
_DIGITS_MAX = 18
_ROWS = 64
"""Rows in a block: with the 62 properties of most splats, 16 KB."""

_UNEQUAL_MAX = 300_000
"""Faces that are read one by one, as they have more than one number of corners."""

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_SH_C0 = 0.28209479177387814
_XYZ = ("x", "y", "z")
_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALE = ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_COLOURS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_NORMAL = ("nx", "ny", "nz")

Rows = npt.NDArray[np.void]


@dataclass(slots=True)
class _Element:
    """``lists``: the types of count and value of each property that is a list, by its name."""

    name: str
    count: int
    fields: list[tuple[str, str]] = field(default_factory=list)
    lists: dict[str, tuple[str, str]] = field(default_factory=dict)

    def dtype(self, order: str) -> np.dtype[np.void]:
        return np.dtype([(name, order + kind) for name, kind in self.fields])


@dataclass(slots=True)
class _Header:
    """``order``: ``<`` or ``>``, "" for ascii. ``begin``: the first byte of data."""

    order: str
    elements: list[_Element]
    begin: int
    size_bytes: int


def read(file: BinaryIO) -> Splats | Mesh | Points:
    """Return what there is to draw. Raises UnreadableError, UndrawnError; ValueError for what numpy refuses."""
    header = _header(file)
    names = [element.name for element in header.elements]
    if "vertex" not in names:
        raise UnreadableError("it has no vertices")
    vertex = header.elements[names.index("vertex")]
    if not vertex.count or vertex.lists or not {*_XYZ} <= {name for name, _ in vertex.fields}:
        raise UnreadableError("it has no vertices" if not vertex.count else "its vertices have no positions")
    has_faces = any(one.name == "face" and one.count and one.lists for one in header.elements)
    most = header.size_bytes if has_faces else SPLATS_MAX
    if has_faces and header.size_bytes > MESH_MAX_BYTES:
        raise UndrawnError(f"a mesh of more than {MESH_MAX_BYTES // 1_000_000} MB")
    rows, end = _vertices(file, header, vertex, most)
    if {*_DC, "opacity", *_SCALE, *_ROTATION} <= {name for name, _ in vertex.fields}:
        return _splats(rows, vertex.count)
    position, colour = _columns(rows, _XYZ), _colour(rows)
    if not has_faces:
        return Points(position, colour, vertex.count)
    faces, total = _faces(file, header, end)
    faces = faces[((faces >= 0) & (faces < len(position))).all(axis=1)]
    normal = _columns(rows, _NORMAL) if {*_NORMAL} <= {*(rows.dtype.names or ())} else None
    return Mesh(position, faces, colour, total, normal=normal)


def _header(file: BinaryIO) -> _Header:
    size_bytes = os.fstat(file.fileno()).st_size
    order: str | None = None
    elements: list[_Element] = []
    if file.readline(_HEADER_MAX).strip() != b"ply":
        raise UnreadableError("it does not begin as a PLY does")
    while file.tell() < _HEADER_MAX and (line := file.readline(_HEADER_MAX)):
        match line.decode("ascii", "replace").split():
            case ["end_header"] if order is not None:
                return _Header(order, elements, file.tell(), size_bytes)
            case ["format", kind, _]:
                order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}.get(kind)
            case ["element", name, count] if count.isdigit() and len(count) <= _DIGITS_MAX:
                elements.append(_Element(name, int(count)))
            case ["property", "list", count, kind, name] if elements and count in _TYPES and kind in _TYPES:
                elements[-1].lists[name] = _TYPES[count], _TYPES[kind]
                elements[-1].fields.append((name, ""))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].fields.append((name, _TYPES[kind]))
            case ["property" | "element", *_]:
                raise UnreadableError(f"its header has the line {line[:80]!r}")
    raise UnreadableError("its header is cut")


def _vertices(file: BinaryIO, header: _Header, vertex: _Element, most: int) -> tuple[Rows, int]:
    """Return ``most`` rows of the vertices, spread evenly, and where the element behind them begins."""
    if not header.order:
        return _ascii_vertices(file, header, vertex, most)
    begin = header.begin
    for element in header.elements[: header.elements.index(vertex)]:
        if element.lists:
            raise UndrawnError("a PLY with lists before its vertices")
        begin += element.count * element.dtype(header.order).itemsize
    dtype = vertex.dtype(header.order)
    end = begin + vertex.count * dtype.itemsize
    if end > header.size_bytes:
        raise UnreadableError(f"it is cut: its vertices end at byte {end}, the file at {header.size_bytes}")
    if vertex.count <= most:
        file.seek(begin)
        return np.frombuffer(file.read(vertex.count * dtype.itemsize), dtype=dtype), end
    blocks = [_block(file, begin, dtype, int(first)) for first in _firsts(vertex.count, most)]
    return np.concatenate(blocks), end


def _firsts(count: int, most: int) -> Ints:
    return thinned(count - _ROWS, most // _ROWS)


def _block(file: BinaryIO, begin: int, dtype: np.dtype[np.void], first: int) -> Rows:
    return np.frombuffer(os.pread(file.fileno(), _ROWS * dtype.itemsize, begin + first * dtype.itemsize), dtype=dtype)


def _ascii_vertices(file: BinaryIO, header: _Header, vertex: _Element, most: int) -> tuple[Rows, int]:
    if header.size_bytes > _ASCII_MAX_BYTES:
        raise UndrawnError(f"an ascii PLY of more than {_ASCII_MAX_BYTES // 1_000_000} MB")
    if header.elements[0] is not vertex:
        raise UndrawnError("an ascii PLY whose vertices are not its first element")
    file.seek(header.begin)
    lines = [file.readline() for _ in range(min(vertex.count, header.size_bytes))]
    if lines[-1:] == [b""]:
        raise UnreadableError("it is cut in its vertices")
    end = file.tell()
    chosen = [lines[place] for place in thinned(len(lines), most)]
    values = np.loadtxt(
        (line.decode("ascii", "replace") for line in chosen), dtype=np.float64, comments=None, ndmin=2
    )
    if values.shape[1] != len(vertex.fields):
        raise UnreadableError(f"its first vertex has {values.shape[1]} values, not {len(vertex.fields)}")
    rows = np.empty(len(values), dtype=vertex.dtype("<"))
    with np.errstate(invalid="ignore", over="ignore"):
        for number, (name, _) in enumerate(vertex.fields):
            rows[name] = values[:, number]
    return rows, end


def _splats(rows: Rows, total: int) -> Splats:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        rotation = _columns(rows, _ROTATION)
        length = np.linalg.norm(rotation, axis=1, keepdims=True)
        upright = np.array([1, 0, 0, 0], dtype=np.float32)
        rotation = np.where((length > 1e-12) & np.isfinite(length), rotation / np.maximum(length, 1e-12), upright)
        opacity = 1 / (1 + np.exp(-_columns(rows, ("opacity",))[:, 0]))
        scale = np.exp(_columns(rows, _SCALE))
        colour = np.nan_to_num(0.5 + _SH_C0 * _columns(rows, _DC), posinf=1, neginf=0)
    scale = np.nan_to_num(scale, nan=0, posinf=1e15).clip(0, 1e15)
    return Splats(_columns(rows, _XYZ), colour, np.nan_to_num(opacity), scale, rotation.astype(np.float32), total)


def _columns(rows: Rows, names: tuple[str, ...]) -> Floats:
    columns = np.empty((len(rows), len(names)), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for number, name in enumerate(names):
            columns[:, number] = rows[name]
    return columns


def _colour(rows: Rows) -> Floats:
    has = {*(rows.dtype.names or ())}
    for names in _COLOURS:
        if {*names} <= has:
            whole = rows.dtype[names[0]].kind in "iu"
            full = np.iinfo(rows.dtype[names[0]]).max if whole else 1
            colour: Floats = np.nan_to_num(_columns(rows, names) / np.float32(full)).clip(0, 1)
            return colour
    return np.full((len(rows), 3), GREY, dtype=np.float32)


def _faces(file: BinaryIO, header: _Header, begin: int) -> tuple[Ints, int]:
    """Return the corners of all triangles; faces of more corners are cut into fans."""
    names = [element.name for element in header.elements]
    place = names.index("face")
    face = header.elements[place]
    between = header.elements[names.index("vertex") + 1 : place]
    if between or (len(face.lists) > 1 and not header.order):
        raise UndrawnError("a PLY of an unusual layout")
    key = next((name for name in face.lists if name.startswith("vertex_ind")), next(iter(face.lists)))
    file.seek(begin)
    if not header.order:
        rows = [
            [int(float(word)) for word in file.readline().split()] for _ in range(min(face.count, header.size_bytes))
        ]
        return _fans([row[1 : 1 + row[0]] for row in rows if row])
    content = file.read(MESH_MAX_BYTES)
    return _equal(content, face, header.order, key) or _fans(_walked(content, face, header.order, key))


def _equal(content: bytes, face: _Element, order: str, key: str) -> tuple[Ints, int] | None:
    """Return the triangles if all faces have as many corners as the first; None if not."""
    counts = _counts(content, face, order)
    if counts is None:
        return None
    parts = []
    for name, kind in face.fields:
        if name in face.lists:
            count_kind, value_kind = face.lists[name]
            parts += [(f"{name} count", order + count_kind), (name, order + value_kind, (counts[name],))]
        else:
            parts.append((name, order + kind))
    dtype = np.dtype(parts)
    if face.count * dtype.itemsize > len(content):
        return None
    rows = np.frombuffer(content, dtype=dtype, count=face.count)
    if any((rows[f"{name} count"] != counts[name]).any() for name in face.lists):
        return None
    corners = rows[key].astype(np.int64)
    fans = [corners[:, [0, second, second + 1]] for second in range(1, counts[key] - 1)]
    return (np.concatenate(fans) if fans else np.empty((0, 3), dtype=np.int64)), face.count * max(0, counts[key] - 2)


def _counts(content: bytes, face: _Element, order: str) -> dict[str, int] | None:
    """Return how long each list of the first face is; None if it is cut."""
    at, counts = 0, {}
    for name, kind in face.fields:
        if name not in face.lists:
            at += np.dtype(kind).itemsize
            continue
        count_kind, value_kind = (np.dtype(order + one) for one in face.lists[name])
        if at + count_kind.itemsize > len(content):
            return None
        counts[name] = int(np.frombuffer(content, count_kind, 1, at)[0])
        at += count_kind.itemsize + max(0, counts[name]) * value_kind.itemsize
        if not 0 <= counts[name] <= len(content):
            return None
    return counts


def _walked(content: bytes, face: _Element, order: str, key: str) -> list[list[int]]:
    if face.count > _UNEQUAL_MAX:
        raise UndrawnError(f"a PLY of more than {_UNEQUAL_MAX} unequal faces")
    at, found = 0, []
    for _ in range(face.count):
        for name, kind in face.fields:
            if name not in face.lists:
                at += np.dtype(kind).itemsize
                continue
            count_kind, value_kind = (np.dtype(order + one) for one in face.lists[name])
            count = int(np.frombuffer(content, count_kind, 1, at)[0])
            at += count_kind.itemsize
            if name == key:
                found.append(np.frombuffer(content, value_kind, count, at).tolist())
            at += count * value_kind.itemsize
    return found


def _fans(faces: list[list[int]]) -> tuple[Ints, int]:
    triangles = [[one[0], one[k], one[k + 1]] for one in faces for k in range(1, len(one) - 1)]
    return np.array(triangles, dtype=np.int64).reshape(-1, 3), len(triangles)
