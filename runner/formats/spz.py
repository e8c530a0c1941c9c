"""Is this file a whole SPZ? (Niantic, https://github.com/nianticlabs/spz, "File Format"; 404-Repo/spz)

Three containers hold the same attributes, of which each point takes a fixed number of bytes: one gzip member
(versions 1 to 3), a header and one zstd frame an attribute (version 4), or, of 404's own make, the gzip's content
in one zstd frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from runner.errors import ResultError
from runner.formats.answers import words
from runner.formats.inflate import GZIP, GZIP_MAGIC, inflated, unpacked

MAGIC = b"NGSP"

_HEADER = struct.Struct("<4sIIBBBB")
_STREAMS_HEADER = struct.Struct("<4sIIBBBBI12x")
_ENTRY = struct.Struct("<QQ")
_RECORD = struct.Struct("<II")
_STREAMS_VERSION = 4
_EXTENDED, _LEVELS = 0x02, 0x80
_LEVELS_SIZE = 6
"""Bytes a point of the tree that Spark (sparkjs.dev) writes behind the attributes."""
_HARMONICS = (0, 3, 8, 15, 24)
_UNPACKED_MAX = 4 * 1024**3
_EXTENSIONS_MAX = 16 * 1024**2


def check(file: BinaryIO, size_bytes: int) -> None:
    """Raise ResultError unless the file unpacks to its end, to exactly what its header says."""
    start = file.read(_STREAMS_HEADER.size)
    file.seek(0)
    if start.startswith(MAGIC):
        _check_streams(file, size_bytes, start)
    elif start.startswith(GZIP_MAGIC):
        _check_packed(inflated(file, size_bytes, GZIP, "SPZ"), "gzip")
    else:
        _check_packed(unpacked(file, size_bytes, "SPZ"), "zstd")


def _start(blocks: Iterator[bytes]) -> bytes:
    """Return the first blocks, together as long as a header if there is so much."""
    start = b""
    for block in blocks:
        start += block
        if len(start) >= _HEADER.size:
            break
    return start


def _check_packed(blocks: Iterator[bytes], container: str) -> None:
    start = _start(blocks)
    if not start.startswith(MAGIC):
        raise ResultError(f"expected an SPZ, got {container} data of something else: {_shown(start)}")
    if len(start) < _HEADER.size:
        raise ResultError("SPZ: cut in its header")
    _, version, points, degree, _, flags, _ = _HEADER.unpack_from(start)
    if not 1 <= version < _STREAMS_VERSION:
        raise ResultError(f"SPZ: expected version 1 to 3 in {container} data, got {version}")
    wanted = _HEADER.size + sum(_sizes(version, points, degree))
    if flags & _LEVELS:
        wanted += points * _LEVELS_SIZE
    got, behind = _counted(blocks, start, wanted, _EXTENSIONS_MAX if flags & _EXTENDED else 0)
    if got < wanted:
        raise ResultError(f"SPZ: {points} points need {wanted} bytes, it unpacks to {got}")
    _check_records(behind)


def _counted(blocks: Iterator[bytes], start: bytes, wanted: int, spare: int) -> tuple[int, bytes]:
    """Return how many bytes there are, and those behind the first ``wanted``: ``spare`` at the most."""
    got, behind = len(start), start[wanted:]
    for block in blocks:
        behind += block[max(0, wanted - got) :]
        got += len(block)
        if len(behind) > spare:
            break
    if len(behind) > spare:
        raise ResultError(f"SPZ: it unpacks to more than the {wanted + spare} bytes that its header implies")
    return got, behind


def _check_streams(file: BinaryIO, size_bytes: int, start: bytes) -> None:
    if len(start) < _STREAMS_HEADER.size:
        raise ResultError("SPZ: cut in its header")
    _, version, points, degree, _, flags, count, table = _STREAMS_HEADER.unpack(start)
    if version != _STREAMS_VERSION:
        raise ResultError(f"SPZ: expected version {_STREAMS_VERSION} without gzip, got {version}")
    sizes = [size for size in _sizes(version, points, degree) if size]
    if count != len(sizes):
        raise ResultError(f"SPZ: expected {len(sizes)} streams, its header says {count}")
    file.seek(_STREAMS_HEADER.size)
    _check_extensions(file, table - _STREAMS_HEADER.size, bool(flags & _EXTENDED))
    entries = file.read(count * _ENTRY.size)
    if len(entries) < count * _ENTRY.size:
        raise ResultError("SPZ: cut in its table of streams")
    lengths = [packed for packed, _ in _ENTRY.iter_unpack(entries)]
    end = table + len(entries) + sum(lengths)
    if end != size_bytes:
        raise ResultError(f"SPZ: its streams end at byte {end}, the file at {size_bytes}")
    if [size for _, size in _ENTRY.iter_unpack(entries)] != sizes:
        raise ResultError(f"SPZ: its table of streams does not fit {points} points of degree {degree}")
    for length, size in zip(lengths, sizes, strict=True):
        got, _ = _counted(unpacked(file, length, "SPZ"), b"", size, 0)
        if got != size:
            raise ResultError(f"SPZ: a stream unpacks to {got} bytes, expected {size}")


def _sizes(version: int, points: int, degree: int) -> list[int]:
    """Return the bytes of positions, alphas, colors, scales, rotations and spherical harmonics."""
    if not points:
        raise ResultError("SPZ: it has no points")
    if degree >= len(_HARMONICS):
        raise ResultError(f"SPZ: spherical harmonics of degree {degree}")
    position, rotation = 6 if version == 1 else 9, 4 if version >= 3 else 3
    sizes = [points * each for each in (position, 1, 3, 3, rotation, 3 * _HARMONICS[degree])]
    if sum(sizes) > _UNPACKED_MAX:
        raise ResultError(f"SPZ: its header claims {points} points, more than {_UNPACKED_MAX} bytes unpacked")
    return sizes


def _check_extensions(file: BinaryIO, size_bytes: int, extended: bool) -> None:
    if size_bytes < 0 or size_bytes > (_EXTENSIONS_MAX if extended else 0):
        raise ResultError(f"SPZ: {size_bytes} bytes between its header and its table of streams")
    records = file.read(size_bytes)
    if len(records) < size_bytes:
        raise ResultError("SPZ: cut in its extensions")
    _check_records(records)


def _check_records(records: bytes) -> None:
    """Raise ResultError unless these extensions (type, length, content) end where the last one does."""
    at = 0
    while at < len(records):
        if at + _RECORD.size > len(records):
            raise ResultError("SPZ: cut in its extensions")
        _, length = _RECORD.unpack_from(records, at)
        at += _RECORD.size + length
    if at != len(records):
        raise ResultError(f"SPZ: an extension ends at byte {at} of {len(records)}")


def _shown(start: bytes) -> str:
    return words(start[:200]) if start[:64].isascii() and b"\0" not in start[:64] else repr(start[:16])
