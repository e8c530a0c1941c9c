"""Is this file a whole WebP? (RFC 9649: RIFF, chunks padded to even lengths, frames of an animation)

Lengths must agree down to each frame, and image data begin as such. A changed bit inside it is not found: a WebP has
no checksum.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from runner.errors import ResultError

_RIFF = struct.Struct("<4sI4s")
_HEAD = struct.Struct("<4sI")
_FRAME_HEADER = 16
_KEY_FRAME = b"\x9d\x01\x2a"
_LOSSY_HEADER = 10
_LOSSLESS_SIGNATURE = b"\x2f"
_LOSSLESS_HEADER = 5


def check(file: BinaryIO, size_bytes: int) -> None:
    """Raise ResultError unless the RIFF length is the file's and chunks with at least one image fill it."""
    start = file.read(_RIFF.size)
    if len(start) < _RIFF.size:
        raise ResultError("WebP: cut in its header")
    riff, length, kind = _RIFF.unpack(start)
    if riff != b"RIFF" or kind != b"WEBP":
        raise ResultError(f"WebP: expected RIFF and WEBP, got {riff!r} and {kind!r}")
    if length + 8 != size_bytes:
        raise ResultError(f"WebP: its header says {length + 8} bytes, the file has {size_bytes}")
    images = 0
    for number, (kind, offset, size) in enumerate(_chunks(file, _RIFF.size, size_bytes)):
        if number == 0 and kind not in (b"VP8 ", b"VP8L", b"VP8X"):
            raise ResultError(f"WebP: its first chunk is {kind!r}")
        if kind == b"ANMF":
            images += _frame(file, offset, size)
        else:
            images += _image(file, kind, offset, size)
    if not images:
        raise ResultError("WebP: it has no image data")


def _frame(file: BinaryIO, offset: int, size: int) -> int:
    """Return 1 for a frame of an animation that holds its image."""
    if size < _FRAME_HEADER:
        raise ResultError(f"WebP: a frame of {size} bytes at {offset}")
    found = [_image(file, *chunk) for chunk in _chunks(file, offset + _FRAME_HEADER, offset + size)]
    if sum(found) != 1:
        raise ResultError(f"WebP: the frame at {offset} has {sum(found)} images")
    return 1


def _image(file: BinaryIO, kind: bytes, offset: int, size: int) -> int:
    """Return 1 if this chunk is an image, which must begin as one, and 0 for any other chunk."""
    if kind == b"VP8 ":
        file.seek(offset)
        head = file.read(min(size, _LOSSY_HEADER))
        first_part = int.from_bytes(head[:3], "little") >> 5
        if head[3:6] != _KEY_FRAME or len(head) < _LOSSY_HEADER or first_part + _LOSSY_HEADER > size:
            raise ResultError(f"WebP: damaged lossy image data at byte {offset}")
        return 1
    if kind == b"VP8L":
        file.seek(offset)
        if file.read(1) != _LOSSLESS_SIGNATURE or size < _LOSSLESS_HEADER:
            raise ResultError(f"WebP: damaged lossless image data at byte {offset}")
        return 1
    return 0


def _chunks(file: BinaryIO, offset: int, end: int) -> list[tuple[bytes, int, int]]:
    """Return (kind, offset, size) of the chunks that fill ``offset`` to ``end``; the last may lack its padding."""
    chunks = []
    while offset < end:
        file.seek(offset)
        head = file.read(_HEAD.size)
        offset += _HEAD.size
        if len(head) < _HEAD.size or offset > end:
            raise ResultError(f"WebP: cut in a chunk header at byte {offset - _HEAD.size}")
        kind, size = _HEAD.unpack(head)
        if offset + size > end:
            raise ResultError(f"WebP: a chunk of {size} bytes at {offset} passes its end at {end}")
        chunks.append((kind, offset, size))
        offset += size + size % 2
    return chunks
