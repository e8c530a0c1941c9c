"""Is this file a whole binary glTF 2.0? (Khronos glTF 2.0 specification, section 4.4, "GLB File Format")"""

from __future__ import annotations

import json
import struct
from typing import BinaryIO

from runner.errors import ResultError

_HEADER = struct.Struct("<4sII")
_CHUNK = struct.Struct("<I4s")
_JSON_MAX = 256 * 1024 * 1024


def check(file: BinaryIO, size_bytes: int) -> None:
    """Raise ResultError unless header, chunk lengths, JSON and binary buffer agree with ``size_bytes``."""
    start = file.read(_HEADER.size)
    if len(start) < _HEADER.size:
        raise ResultError(f"GLB: expected a header of {_HEADER.size} bytes, got {len(start)}")
    magic, version, length = _HEADER.unpack(start)
    if magic != b"glTF" or version != 2:
        raise ResultError(f"GLB: expected glTF version 2, got {magic!r} version {version}")
    if length != size_bytes:
        raise ResultError(f"GLB: its header says {length} bytes, the file has {size_bytes}")
    chunks = _chunks(file, size_bytes)
    if not chunks or chunks[0][0] != b"JSON":
        raise ResultError("GLB: expected JSON as the first chunk")
    _check_buffer(_document(file, *chunks[0][1:]), chunks)


def _chunks(file: BinaryIO, size_bytes: int) -> list[tuple[bytes, int, int]]:
    """Return (kind, offset, length) of every chunk; they must fill the file exactly."""
    chunks = []
    offset = _HEADER.size
    while offset < size_bytes:
        file.seek(offset)
        head = file.read(_CHUNK.size)
        if len(head) < _CHUNK.size:
            raise ResultError(f"GLB: cut in a chunk header at byte {offset}")
        length, kind = _CHUNK.unpack(head)
        offset += _CHUNK.size
        if offset + length > size_bytes:
            raise ResultError(f"GLB: a chunk of {length} bytes at {offset} passes the end at {size_bytes}")
        chunks.append((kind, offset, length))
        offset += length
    return chunks


def _document(file: BinaryIO, offset: int, length: int) -> dict[str, object]:
    if length > _JSON_MAX:
        raise ResultError(f"GLB: its JSON chunk claims {length} bytes")
    file.seek(offset)
    try:
        document = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise ResultError(f"GLB: its JSON chunk does not parse: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("asset"), dict):
        raise ResultError("GLB: its JSON chunk is no glTF document (no asset)")
    return document


def _check_buffer(document: dict[str, object], chunks: list[tuple[bytes, int, int]]) -> None:
    buffers = document.get("buffers", [])
    if not isinstance(buffers, list) or not all(isinstance(buffer, dict) for buffer in buffers):
        raise ResultError("GLB: expected a list of buffers")
    if not buffers or "uri" in buffers[0]:
        return
    needed = buffers[0].get("byteLength")
    held = next((length for kind, _, length in chunks[1:2] if kind == b"BIN\0"), 0)
    if not isinstance(needed, int) or isinstance(needed, bool) or held < needed:
        raise ResultError(f"GLB: its binary chunk has {held} bytes, buffers[0] needs {needed}")
