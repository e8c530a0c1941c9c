"""Inflate a part of a file block by block: deflate and gzip with zlib, zstd with zstandard (RFC 1951, 1952, 8878).

What is yielded at a time is bounded, however well it was compressed; how much of it to take is the caller's choice.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from runner.errors import ResultError

RAW_DEFLATE = -15
GZIP = 31

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

_BLOCK = 256 * 1024
_FRAME_SIZES = (0, 2, 4, 8)
_DICTIONARY_SIZES = (0, 1, 2, 4)
_RLE = 1


def inflated(file: BinaryIO, size_bytes: int, kind: int, name: str) -> Iterator[bytes]:
    """Yield what the next ``size_bytes`` of ``file`` inflate to.

    They must be exactly one stream of ``kind`` (``GZIP`` with its checksum, or ``RAW_DEFLATE``); else ResultError,
    which begins with ``name``.
    """
    stream = zlib.decompressobj(kind)
    left = size_bytes
    while not stream.eof:
        block = stream.unconsumed_tail
        if not block:
            block = file.read(min(left, _BLOCK))
            left -= len(block)
        try:
            found = stream.decompress(block, _BLOCK)
        except zlib.error as error:
            raise ResultError(f"{name}: its compressed data is damaged: {error}") from error
        if found:
            yield found
        elif not block and not stream.eof:
            raise ResultError(f"{name}: its compressed data is cut")
    if behind := left + len(stream.unused_data):
        raise ResultError(f"{name}: {behind} bytes behind the end of its compressed data")


def unpacked(file: BinaryIO, size_bytes: int, name: str) -> Iterator[bytes]:
    """Yield what the next ``size_bytes`` of ``file``, exactly one zstd frame, decompress to.

    The frame's blocks are walked here and handed over one at a time: each gives 128 KiB at the most. zstd itself says
    nothing of a frame that is cut, and can make gigabytes of a few kilobytes at once.
    """
    import zstandard

    frame = zstandard.ZstdDecompressor().decompressobj()
    left = size_bytes
    try:
        for block in _zstd_blocks(file, size_bytes, name):
            left -= len(block)
            if found := frame.decompress(block):
                yield found
    except zstandard.ZstdError as error:
        raise ResultError(f"{name}: its zstd data is damaged: {error}") from error
    if not frame.eof:
        raise ResultError(f"{name}: its zstd data is cut")
    if left:
        raise ResultError(f"{name}: {left} bytes behind the end of its zstd data")


def _zstd_blocks(file: BinaryIO, size_bytes: int, name: str) -> Iterator[bytes]:
    """Yield the frame's header, each block with the header of its own, and the checksum."""
    left = size_bytes

    def take(count: int) -> bytes:
        nonlocal left
        found = file.read(count) if count <= left else b""
        if len(found) < count:
            raise ResultError(f"{name}: its zstd data is cut")
        left -= count
        return found

    start = take(5)
    if start[:4] != ZSTD_MAGIC:
        raise ResultError(f"{name}: expected zstd data, got {start[:4]!r}")
    one_segment, has_checksum = start[4] & 0x20, start[4] & 0x04
    content_size = _FRAME_SIZES[start[4] >> 6] or (1 if one_segment else 0)
    yield start + take((0 if one_segment else 1) + _DICTIONARY_SIZES[start[4] & 3] + content_size)
    last = 0
    while not last:
        head = take(3)
        bits = int.from_bytes(head, "little")
        last, kind, length = bits & 1, bits >> 1 & 3, bits >> 3
        yield head + take(1 if kind == _RLE else length)
    if has_checksum:
        yield take(4)
