"""Is this file a whole JPEG? (ITU-T T.81, annex B: segments, scans, markers)

Segments are stepped over by their lengths, so a thumbnail in one ends nothing; scans are searched for the marker that
ends them. A file that is cut is always found; a changed bit inside a scan is not, as a JPEG has no checksum.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from runner.errors import ResultError

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))
"""Markers that stand for themselves and have no place between segments."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Any marker but a stuffed FF 00, a restart (RST0 to RST7) and a fill byte."""
_BLOCK = 1024 * 1024


def check(file: BinaryIO, size_bytes: int) -> None:
    """Raise ResultError unless segments and scans lead from SOI over a frame and its scan to EOI, the file's end."""
    if file.read(2) != bytes((0xFF, _START)):
        raise ResultError("JPEG: expected FF D8 at its start")
    offset = 2
    seen = set()
    while True:
        marker, offset = _marker(file, offset)
        if marker == _END:
            break
        seen.add(marker)
        offset = _behind_segment(file, offset, size_bytes)
        if marker == _SCAN:
            offset = _behind_scan(file, offset)
    if not seen & _FRAMES or _SCAN not in seen:
        raise ResultError("JPEG: it has no image data")
    if offset != size_bytes:
        raise ResultError(f"JPEG: {size_bytes - offset} bytes too many: it ends at {offset}")


def _marker(file: BinaryIO, offset: int) -> tuple[int, int]:
    """Return the marker at ``offset`` and the offset behind it; any number of FF may precede it."""
    file.seek(offset)
    if file.read(1) != b"\xff":
        raise ResultError(f"JPEG: cut or damaged at byte {offset}: expected a marker")
    found = b"\xff"
    while found == b"\xff":
        found = file.read(1)
    if not found:
        raise ResultError(f"JPEG: cut at byte {file.tell()}: no EOI")
    if found[0] in _ALONE:
        raise ResultError(f"JPEG: damaged at byte {offset}: the marker {found[0]:02X} outside a scan")
    return found[0], file.tell()


def _behind_segment(file: BinaryIO, offset: int, size_bytes: int) -> int:
    length = int.from_bytes(file.read(2), "big")
    if length < 2 or offset + length > size_bytes:
        raise ResultError(f"JPEG: a segment of {length} bytes at {offset}; the file ends at {size_bytes}")
    return offset + length


def _behind_scan(file: BinaryIO, offset: int) -> int:
    """Return the offset of the marker that ends the scan whose data begins at ``offset``."""
    file.seek(offset)
    rest = b""
    while block := file.read(_BLOCK):
        block = rest + block
        if found := _SCAN_END.search(block):
            return offset + found.start()
        rest = block[-1:]
        offset += len(block) - 1
    raise ResultError(f"JPEG: cut in a scan at byte {offset + len(rest)}: no EOI")
