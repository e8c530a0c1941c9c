"""Is this file a whole PNG? (W3C PNG specification, third edition, section 5: signature, chunks, CRC)

Every byte behind the signature is under a CRC or says how far one reaches, so a changed bit anywhere is found. The
image data is not inflated.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from runner.errors import ResultError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_HEAD = struct.Struct(">I4s")
_SIZE = struct.Struct(">II")
_HEADER_LENGTH = 13
_CRC_SIZE = 4
_BLOCK = 1024 * 1024


def check(file: BinaryIO, size_bytes: int) -> None:
    """Raise ResultError unless chunks with right CRCs lead from IHDR over IDAT to IEND, the end of the file."""
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise ResultError("PNG: expected its signature")
    offset = len(SIGNATURE)
    kind, has_image = b"", False
    while kind != b"IEND":
        previous = kind
        kind, length = _chunk(file, offset, size_bytes)
        if (kind == b"IHDR") != (not previous):
            raise ResultError(f"PNG: expected IHDR as its first chunk and no other, got {kind!r} at byte {offset}")
        has_image = has_image or kind == b"IDAT"
        offset += _HEAD.size + length + _CRC_SIZE
    if not has_image:
        raise ResultError("PNG: it has no image data")
    if offset != size_bytes:
        raise ResultError(f"PNG: {size_bytes - offset} bytes too many: it ends at {offset}")


def _chunk(file: BinaryIO, offset: int, size_bytes: int) -> tuple[bytes, int]:
    """Return the kind and length of the chunk at ``offset``, which must be whole; leave ``file`` behind it."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise ResultError(f"PNG: cut at byte {offset}: no IEND")
    length, kind = _HEAD.unpack(head)
    if offset + _HEAD.size + length + _CRC_SIZE > size_bytes:
        raise ResultError(f"PNG: a chunk of {length} bytes at {offset} passes the end at {size_bytes}")
    crc, left = zlib.crc32(kind), length
    start = b""
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            raise ResultError(f"PNG: cut at byte {offset}")
        start = start or block
        crc = zlib.crc32(block, crc)
        left -= len(block)
    if int.from_bytes(file.read(_CRC_SIZE), "big") != crc:
        raise ResultError(f"PNG: the chunk {kind!r} at byte {offset} is damaged: its CRC differs")
    if kind == b"IHDR" and (length != _HEADER_LENGTH or 0 in _SIZE.unpack_from(start)):
        raise ResultError("PNG: its header gives no width and height")
    return kind, length
