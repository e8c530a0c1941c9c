"""Read a PLY for its picture: some splats or points of it, or a whole mesh. (G. Turk, 1994; Kerbl et al., 2023)

Of a large file only blocks of rows are read, spread evenly over it.
"""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from runner.pictures import plypacked
from runner.pictures.plyfaces import faces_of
from runner.pictures.plyheader import Element, Header, header_of
from runner.pictures.shapes import (
    GREY,
    Floats,
    Ints,
    Mesh,
    Points,
    Splats,
    UndrawnError,
    UnreadableError,
    thinned,
)

SPLATS_MAX = 200_000
"""So many splats or points are read at the most."""

MESH_MAX_BYTES = 300_000_000
_ASCII_MAX_BYTES = 40_000_000
_ROWS = 64
"""Rows in a block: with the 62 properties of most splats, 16 KB."""

_FAR = 1000
"""A shape so many times as far from the origin as it is large loses what makes it up in float32."""

_SH_C0 = 0.28209479177387814
_XYZ = ("x", "y", "z")
_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALE = ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_COLOURS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_NORMAL = ("nx", "ny", "nz")

Rows = npt.NDArray[np.void]


def read(file: BinaryIO) -> Splats | Mesh | Points:
    """Return what there is to draw. Raises UnreadableError, UndrawnError; ValueError for what numpy refuses."""
    header = header_of(file)
    names = [element.name for element in header.elements]
    if "vertex" not in names:
        raise UnreadableError("it has no vertices")
    vertex = header.elements[names.index("vertex")]
    if vertex.count and {*plypacked.NAMES} <= {name for name, _ in vertex.fields}:
        return plypacked.splats_of(file, header, vertex, SPLATS_MAX)
    if not vertex.count or vertex.lists or not {*_XYZ} <= {name for name, _ in vertex.fields}:
        raise UnreadableError("it has no vertices" if not vertex.count else "its vertices have no positions")
    has_faces = any(one.name == "face" and one.count and one.lists for one in header.elements)
    most = header.size_bytes if has_faces else SPLATS_MAX
    if has_faces and header.size_bytes > MESH_MAX_BYTES:
        raise UndrawnError(f"a mesh of more than {MESH_MAX_BYTES // 1_000_000} MB")
    rows, end = _vertices(file, header, vertex, most)
    if {*_DC, "opacity", *_SCALE[:2], *_ROTATION} <= {name for name, _ in vertex.fields}:
        return _splats(rows, vertex.count)
    position, colour = _positions(rows), _colour(rows)
    if not has_faces:
        return Points(position, colour, vertex.count)
    faces, total = faces_of(file, header, end)
    faces = faces[((faces >= 0) & (faces < len(position))).all(axis=1)]
    normal = _columns(rows, _NORMAL) if {*_NORMAL} <= {*(rows.dtype.names or ())} else None
    return Mesh(position, faces, colour, total, normal=normal)


def _vertices(file: BinaryIO, header: Header, vertex: Element, most: int) -> tuple[Rows, int]:
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


def _ascii_vertices(file: BinaryIO, header: Header, vertex: Element, most: int) -> tuple[Rows, int]:
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
        scale = np.exp(_columns(rows, tuple(name for name in _SCALE if name in (rows.dtype.names or ()))))
        colour = np.nan_to_num(0.5 + _SH_C0 * _columns(rows, _DC), posinf=1, neginf=0)
    scale = np.nan_to_num(scale, nan=0, posinf=1e15).clip(0, 1e15)
    scale = np.pad(scale, ((0, 0), (0, 3 - scale.shape[1])))  # flat ones have two (Huang et al., 2024)
    return Splats(_positions(rows), colour, np.nan_to_num(opacity), scale, rotation.astype(np.float32), total)


def _positions(rows: Rows) -> Floats:
    """Return positions; those far from the origin, as coordinates on a map are, from about their middle on."""
    exact = np.stack([rows[name].astype(np.float64) for name in _XYZ], axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        fine = exact[np.isfinite(exact).all(axis=1)]
        if not len(fine):
            return exact.astype(np.float32)
        middle = np.median(fine, axis=0)
        extent = float(np.median(np.abs(fine - middle), axis=0).max())
        far = np.abs(middle).max() > _FAR * extent > 0
        return (exact - middle if far else exact).astype(np.float32)


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
