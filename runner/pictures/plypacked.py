"""Read splats of a compressed PLY: numbers of 8 to 11 bits between a least and a most for each 256 splats.

PlayCanvas, https://developer.playcanvas.com/user-manual/gaussian-splatting/formats/compressed-ply/, which SuperSplat
writes: from the highest bit, position 11, 10, 11, rotation 2, 10, 10, 10, scale 11, 10, 11, colour, opacity 8 each.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from runner.pictures.plyheader import Element, Header
from runner.pictures.shapes import Floats, Splats, UndrawnError, UnreadableError, thinned

NAMES = ("packed_position", "packed_rotation", "packed_scale", "packed_color")

_CHUNK = 256
_SCALE_MAX = 20.0
_WORDS = npt.NDArray[np.uint32]


def splats_of(file: BinaryIO, header: Header, vertex: Element, most: int) -> Splats:
    """Return at most ``most`` splats, spread evenly. Raises UnreadableError, UndrawnError."""
    chunk = header.elements[0]
    if chunk.name != "chunk" or header.elements[1:2] != [vertex] or chunk.lists or vertex.lists or not header.order:
        raise UndrawnError("a compressed PLY of an unusual layout")
    if chunk.count * _CHUNK < vertex.count:
        raise UnreadableError(f"it has {chunk.count} chunks for {vertex.count} splats")
    chunk_rows, vertex_rows = chunk.dtype(header.order), vertex.dtype(header.order)
    begin = header.begin + chunk.count * chunk_rows.itemsize
    end = begin + vertex.count * vertex_rows.itemsize
    if end > header.size_bytes:
        raise UnreadableError(f"it is cut: its vertices end at byte {end}, the file at {header.size_bytes}")
    place = thinned(vertex.count, most)
    chunks = np.memmap(file, chunk_rows, "r", header.begin, (chunk.count,))[place // _CHUNK]
    rows = np.memmap(file, vertex_rows, "r", begin, (vertex.count,))[place]
    position, rotation, scale, colour = (rows[name].astype(np.uint32) for name in NAMES)
    rgba = np.stack([colour >> shift & 255 for shift in (24, 16, 8, 0)], axis=1).astype(np.float32) / np.float32(255)
    return Splats(
        position=_between(chunks, "", "xyz", _three(position)),
        colour=_between(chunks, "", "rgb", rgba[:, :3]) if "min_r" in (chunk_rows.names or ()) else rgba[:, :3],
        opacity=rgba[:, 3],
        scale=np.exp(_between(chunks, "scale_", "xyz", _three(scale)).clip(-_SCALE_MAX, _SCALE_MAX)),
        rotation=_rotation(rotation),
        total=vertex.count,
    )


def _between(chunks: npt.NDArray[np.void], prefix: str, axes: str, share: Floats) -> Floats:
    """Return what stands for shares, 0 to 1, of the way from the least to the most of a chunk."""
    least, most = (
        np.stack([chunks[f"{end}_{prefix}{axis}"] for axis in axes], axis=1).astype(np.float32)
        for end in ("min", "max")
    )
    return np.asarray(least + (most - least) * share, dtype=np.float32)


def _three(packed: _WORDS) -> Floats:
    parts = [(packed >> 21) / 2047, (packed >> 11 & 1023) / 1023, (packed & 2047) / 2047]
    return np.stack(parts, axis=1).astype(np.float32)


def _rotation(packed: _WORDS) -> Floats:
    """Read 2 bits that say which of w, x, y, z is the largest, and 10 bits of each other one."""
    largest = (packed >> 30).astype(np.int64)
    others = np.stack([packed >> shift & 1023 for shift in (20, 10, 0)], axis=1)
    rest = ((others / 1023 - 0.5) * np.sqrt(2)).astype(np.float32)
    found = np.empty((len(packed), 4), dtype=np.float32)
    is_largest = np.arange(4) == largest[:, None]
    found[~is_largest] = rest.reshape(-1)
    found[is_largest] = np.sqrt(np.maximum(0, 1 - (rest * rest).sum(axis=1)))
    return found
