"""What the servers under test make: a whole GLB of a picture's bytes and a seed."""

from __future__ import annotations

import hashlib
import json
import struct
import time
import zlib

SLOW_S = 3.0
"""How long a picture that says "slow" takes."""


def make(picture: bytes, seed: int) -> bytes:
    """Return the GLB of this picture and seed, slowly if the picture says "slow"; raise if it says "fails"."""
    if b"slow" in picture:
        time.sleep(SLOW_S)
    if b"fails" in picture:
        raise RuntimeError("this picture has no shape")
    return glb(picture, seed)


def glb(picture: bytes, seed: int) -> bytes:
    """Return a whole GLB that belongs to this picture and seed and to no other."""
    binary = hashlib.sha256(picture + str(int(seed)).encode()).digest()
    document = json.dumps({"asset": {"version": "2.0"}, "buffers": [{"byteLength": len(binary)}]}).encode()
    document += b" " * (-len(document) % 4)
    chunks = struct.pack("<II", len(document), 0x4E4F534A) + document
    chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def picture(words: str) -> bytes:
    """Return a real PNG of one pixel that says these words in a comment."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + hashlib.sha256(words.encode()).digest()[:3])
    parts = [(b"IHDR", header), (b"tEXt", b"Comment\0" + words.encode()), (b"IDAT", pixel), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
