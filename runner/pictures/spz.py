"""Read and write SPZ: some splats of one, in whichever container.

Niantic, https://github.com/nianticlabs/spz: README, "File Format", and ``src/cc/load-spz.cc`` for how numbers are
packed; 404-Repo/spz for the zstd container. By Niantic's word y points up in an SPZ, and z to the viewer; 404's
files are PLYs that were packed as they were.
"""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from runner.formats.inflate import GZIP, GZIP_MAGIC, inflated, unpacked
from runner.pictures.ply import SPLATS_MAX
from runner.pictures.shapes import Bytes, Floats, Ints, Splats, UndrawnError, UnreadableError, Up, thinned

_MAGIC = b"NGSP"
_HEADER = struct.Struct("<4sIIBBBB")
_STREAMS_HEADER = struct.Struct("<4sIIBBBBI12x")
_ENTRY = struct.Struct("<QQ")
_POINTS_MAX = 12_000_000
"""Of more points even the positions alone are too much to unpack."""

_COLOUR_SCALE = 0.15
_SH_C0 = 0.28209479177387814
_BITS = 14
"""Of positions in what is written, behind the point: models reach from about -1 to 1, and are not drawn finer."""

_LEVEL = 9


class _Take(Protocol):
    """Returns the next so many bytes of an attribute."""

    def __call__(self, size_bytes: int) -> bytes: ...


def read(file: BinaryIO) -> Splats:
    """Return some splats, spread evenly. Raises UnreadableError, UndrawnError, ResultError."""
    start = file.read(_STREAMS_HEADER.size)
    size_bytes = os.fstat(file.fileno()).st_size
    file.seek(0)
    if start.startswith(_MAGIC):
        return _of_streams(file, start)
    packed = start.startswith(GZIP_MAGIC)
    blocks = inflated(file, size_bytes, GZIP, "SPZ") if packed else unpacked(file, size_bytes, "SPZ")
    take = _taker(blocks)
    magic, version, count, _, bits, _, _ = _HEADER.unpack(take(_HEADER.size))
    if magic != _MAGIC or not 1 <= version <= 3:
        raise UnreadableError("it holds no SPZ of version 1 to 3")
    return _splats([take] * 5, version, count, bits, "y" if packed else "-y")


def _of_streams(file: BinaryIO, start: bytes) -> Splats:
    """Read version 4: a table, then one zstd frame an attribute."""
    _, version, count, _, bits, _, streams, table = _STREAMS_HEADER.unpack(start)
    if version != 4 or streams < 5:
        raise UnreadableError(f"it is of version {version} with {streams} streams")
    file.seek(table)
    lengths = [packed for packed, _ in _ENTRY.iter_unpack(file.read(streams * _ENTRY.size))]
    begin = table + streams * _ENTRY.size
    takes = []
    for length in lengths[:5]:
        takes.append(_taker(_stream(file, begin, length)))
        begin += length
    return _splats(takes, version, count, bits, "y")


def _stream(file: BinaryIO, begin: int, length: int) -> Iterator[bytes]:
    file.seek(begin)
    yield from unpacked(file, length, "SPZ")


def _taker(blocks: Iterator[bytes]) -> _Take:
    spare = b""

    def take(size_bytes: int) -> bytes:
        nonlocal spare
        parts, got = [spare], len(spare)
        while got < size_bytes:
            block = next(blocks, b"")
            if not block:
                raise UnreadableError("it is cut")
            parts.append(block)
            got += len(block)
        whole = b"".join(parts)
        spare = whole[size_bytes:]
        return whole[:size_bytes]

    return take


def _splats(takes: list[_Take], version: int, count: int, bits: int, up: Up) -> Splats:
    """Return splats of the attributes in their order; each is unpacked, and most of it dropped, before the next."""
    if not count:
        raise UnreadableError("it has no points")
    if count > _POINTS_MAX:
        raise UndrawnError(f"an SPZ of more than {_POINTS_MAX // 1_000_000} million points")
    if bits > 30:
        raise UnreadableError(f"its positions have {bits} fractional bits")
    chosen = thinned(count, SPLATS_MAX)
    widths = (6 if version == 1 else 9, 1, 3, 3, 4 if version >= 3 else 3)
    position, alpha, colour, scale, rotation = (
        np.frombuffer(take(count * width), dtype=np.uint8).reshape(count, width)[chosen]
        for take, width in zip(takes, widths, strict=True)
    )
    base = (colour.astype(np.float32) / 255 - 0.5) / _COLOUR_SCALE
    return Splats(
        position=_halves(position) if version == 1 else _fixed(position, bits),
        colour=(0.5 + _SH_C0 * base).astype(np.float32),
        opacity=alpha[:, 0].astype(np.float32) / np.float32(255),
        scale=np.exp(scale.astype(np.float32) / 16 - 10),
        rotation=_smallest_three(rotation) if version >= 3 else _first_three(rotation),
        total=count,
        up=up,
    )


def _halves(packed: Bytes) -> Floats:
    return np.ascontiguousarray(packed).view("<f2").astype(np.float32)


def _fixed(packed: Bytes, bits: int) -> Floats:
    """Read numbers of 24 bits with a sign, of which ``bits`` are behind the point."""
    part = packed.reshape(-1, 3, 3).astype(np.int32)
    whole = part[:, :, 0] | part[:, :, 1] << 8 | part[:, :, 2] << 16
    fixed: Floats = ((whole ^ 0x80_0000) - 0x80_0000).astype(np.float32) / np.float32(1 << bits)
    return fixed


def _first_three(packed: Bytes) -> Floats:
    xyz = packed.astype(np.float32) / np.float32(127.5) - 1
    w = np.sqrt(np.maximum(0, 1 - (xyz * xyz).sum(axis=1, keepdims=True)))
    return np.concatenate([w, xyz], axis=1).astype(np.float32)


def _smallest_three(packed: Bytes) -> Floats:
    """Read 2 bits that say which of x, y, z, w is the largest, and a sign and 9 bits of each other one."""
    bits = np.ascontiguousarray(packed).view("<u4")[:, 0].astype(np.int64)
    largest = bits >> 30
    xyzw = np.zeros((len(bits), 4), dtype=np.float32)
    for part in (3, 2, 1, 0):
        size = (bits & 511) / 511 * np.sqrt(0.5)
        value = np.where(bits >> 9 & 1, -size, size)
        other = largest != part
        xyzw[:, part] = np.where(other, value, 0)
        bits = np.where(other, bits >> 10, bits)
    rest = np.sqrt(np.maximum(0, 1 - (xyzw * xyzw).sum(axis=1)))
    xyzw[np.arange(len(xyzw)), largest] = rest
    return xyzw[:, [3, 0, 1, 2]]


def packed(splats: Splats) -> bytes:
    """Return an SPZ of version 2 without higher harmonics, in the frame that these splats have."""
    extent = float(np.abs(splats.position).max(initial=1e-6))
    bits = int(np.clip(22 - np.ceil(np.log2(extent)), 0, _BITS))
    if extent * (1 << bits) >= 1 << 23:
        raise UndrawnError("splats that are too far apart for an SPZ")
    position = np.rint(splats.position.astype(np.float64) * (1 << bits)).astype("<i4")
    rotation = np.where(splats.rotation[:, :1] < 0, -splats.rotation, splats.rotation)[:, 1:]
    base = (splats.colour - 0.5) / _SH_C0
    scale = np.log(np.maximum(splats.scale, 1e-9))
    parts = [
        np.ascontiguousarray(position).view(np.uint8).reshape(-1, 3, 4)[:, :, :3],
        _byte(splats.opacity * 255),
        _byte((base * _COLOUR_SCALE + 0.5) * 255),
        _byte((scale + 10) * 16),
        _byte(rotation * 127.5 + 127.5),
    ]
    header = _HEADER.pack(_MAGIC, 2, len(splats.position), 0, bits, 0, 0)
    return gzip.compress(header + b"".join(np.ascontiguousarray(part).tobytes() for part in parts), _LEVEL, mtime=0)


def _byte(value: npt.NDArray[np.floating[Any]]) -> Bytes:
    rounded: Bytes = np.rint(value).clip(0, 255).astype(np.uint8)
    return rounded


def order_of(position: Floats) -> Ints:
    """Return the order in which neighbours stand together (Z-order): their bytes are alike, and pack better."""
    low, high = position.min(axis=0), position.max(axis=0)
    cell = ((position - low) / np.maximum(high - low, 1e-20) * 1023).astype(np.int64)
    code = np.zeros(len(position), dtype=np.int64)
    for bit in range(10):
        for axis in range(3):
            code |= (cell[:, axis] >> bit & 1) << 3 * bit + axis
    return np.argsort(code, kind="stable")
