"""Small whole files whose bytes tell which prompt and seed they are of."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib

SPLAT_FIELDS = "x y z f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3".split()


def glb(label: str) -> bytes:
    """Return a whole binary glTF with a buffer of numbers made of the label."""
    numbers = _numbers(label, 240)
    document = {"asset": {"version": "2.0", "extras": {"label": label}}, "buffers": [{"byteLength": len(numbers)}]}
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(numbers), b"BIN\0") + numbers
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def ply(label: str) -> bytes:
    """Return a whole binary splat PLY of 16 points."""
    header = ["ply", "format binary_little_endian 1.0", f"comment {label}", "element vertex 16"]
    header += [f"property float {name}" for name in SPLAT_FIELDS]
    value = zlib.crc32(label.encode()) / 2**32
    rows = struct.pack(f"<{len(SPLAT_FIELDS)}f", *[value] * len(SPLAT_FIELDS)) * 16
    return "\n".join([*header, "end_header", ""]).encode() + rows


def named_png(label: str) -> bytes:
    """Return a whole PNG of one pixel with the label as its title."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
        (b"tEXt", b"Title\0" + label.encode("latin-1")),
        (b"IDAT", zlib.compress(b"\0" + _numbers(label, 3))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def js(label: str) -> bytes:
    """Return an ES module as the 404 batch API's results are."""
    return (
        f"export default function generate(THREE) {{\n  const group = new THREE.Group();\n"
        f"  group.name = {json.dumps(label)};\n  return group;\n}}\n"
    ).encode()


def prompt_image(name: str) -> bytes:
    """Return a prompt image that says whose it is."""
    return named_png(f"prompt {name}")


def name_in(image: bytes) -> str:
    """Return the name that ``prompt_image`` wrote.

    Raises ValueError for anything else, as a server's image library would.
    """
    title = image.find(b"tEXtTitle\0prompt ")
    if not image.startswith(b"\x89PNG") or not image.endswith(b"IEND\xaeB`\x82") or title < 0:
        raise ValueError("cannot identify image file")
    (length,) = struct.unpack(">I", image[title - 4 : title])
    return image[title + 4 : title + 4 + length].partition(b"\0prompt ")[2].decode("latin-1")


def name_in_data_url(url: str) -> str:
    """Return the name in the image of a data URL; ValueError as above."""
    head, comma, content = url.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64") or not comma:
        raise ValueError("not a data URL of an image")
    return name_in(base64.b64decode(content, validate=True))


def half(content: bytes) -> bytes:
    """Return a file as it is while it is still being written."""
    return content[: len(content) // 2]


def _numbers(label: str, count: int) -> bytes:
    return hashlib.shake_128(label.encode()).digest(count)
