"""Read a GLB for its picture, its scene in one mesh or its points; write one. (Khronos glTF 2.0, section 4)"""

from __future__ import annotations

import json
import mmap
import os
import struct
from typing import BinaryIO

import numpy as np

from runner.pictures.gltf import POINTS, TRIANGLES, Document, Part
from runner.pictures.materials import Texture, decoded
from runner.pictures.nodes import Thing
from runner.pictures.shapes import OPAQUE, Bytes, Floats, Ints, Mesh, Points, UndrawnError, UnreadableError, thinned

FILE_MAX_BYTES = 300_000_000

_HEADER = struct.Struct("<4sII")
_CHUNK = struct.Struct("<I4s")
_JSON_MAX = 64 * 1024 * 1024
_POINTS_MAX = 200_000


def read(file: BinaryIO) -> Mesh | Points:
    """Return its scene. Raises UnreadableError, UndrawnError; ValueError and its like for what numpy refuses."""
    size_bytes = os.fstat(file.fileno()).st_size
    if size_bytes > FILE_MAX_BYTES:
        raise UndrawnError(f"a GLB of more than {FILE_MAX_BYTES // 1_000_000} MB")
    content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    document = Document(*_chunks(content))
    if compression := document.compression():
        raise UndrawnError(f"a GLB that is compressed with {compression}")
    parts = document.parts()
    if meshes := [part for part in parts if len(part.faces)]:
        return _joined(meshes, document)
    if not parts and document.has_lines:
        raise UndrawnError("a GLB of lines only")
    if not parts:
        raise UnreadableError("there is nothing in its scene")
    position, colour = (
        np.concatenate(one) for one in zip(*((part.position, part.colour) for part in parts), strict=True)
    )
    chosen = thinned(len(position), _POINTS_MAX)
    return Points(position[chosen], colour[chosen], len(position))


def _chunks(content: memoryview) -> tuple[Thing, memoryview]:
    magic, version, _ = _HEADER.unpack_from(content)
    length, kind = _CHUNK.unpack_from(content, _HEADER.size)
    begin = _HEADER.size + _CHUNK.size
    if magic != b"glTF" or version != 2 or kind != b"JSON" or begin + length > len(content):
        raise UnreadableError("it does not begin as a GLB does")
    if length > _JSON_MAX:
        raise UndrawnError(f"a GLB whose JSON has more than {_JSON_MAX} bytes")
    document = json.loads(bytes(content[begin : begin + length]))
    if not isinstance(document, dict):
        raise UnreadableError("its JSON is no glTF document")
    rest = begin + length
    if rest + _CHUNK.size > len(content):
        return document, content[:0]
    length, kind = _CHUNK.unpack_from(content, rest)
    return document, content[rest + _CHUNK.size :][:length] if kind == b"BIN\0" else content[:0]


def _joined(parts: list[Part], document: Document) -> Mesh:
    textures: list[Bytes] = []
    places: dict[Texture, int] = {}
    images = {one.image: document.image(one.image) for one in {part.texture for part in parts} if one}
    for one in {part.texture for part in parts}:
        if one and (image := images[one.image]) is not None:
            places[one] = len(textures)
            textures.append(image)
    begins = np.cumsum([0, *(len(part.position) for part in parts)])
    faces = np.concatenate([part.faces + begin for part, begin in zip(parts, begins, strict=False)])
    texture = [
        np.full(len(part.faces), -1 if part.texture is None else places.get(part.texture, -1)) for part in parts
    ]
    opaque = all(part.cutoff is None for part in parts)
    lengths = [len(part.faces) for part in parts]
    alpha = [1.0 if part.cutoff is None else part.alpha for part in parts]
    cutoff = [OPAQUE if part.cutoff is None else part.cutoff for part in parts]
    return Mesh(
        position=np.concatenate([part.position for part in parts]),
        faces=faces,
        colour=np.concatenate([part.colour for part in parts]),
        total=len(faces),
        normal=np.concatenate([part.normal for part in parts]),
        uv=np.concatenate([part.uv for part in parts]) if textures else None,
        texture=np.concatenate(texture) if textures else None,
        textures=tuple(textures),
        wraps=tuple(one.wrap for one in places),
        alpha=None if opaque else np.repeat(alpha, lengths).astype(np.float32),
        cutoff=None if opaque else np.repeat(cutoff, lengths).astype(np.float32),
    )


def packed(position: Floats, colour: Floats, faces: Ints | None = None) -> bytes:
    """Return a GLB of triangles with colours (in sRGB) at their corners; of points if there are no faces."""
    linear = np.ones((len(position), 4), dtype=np.float32)
    linear[:, :3] = decoded(colour)
    blobs = [position.astype("<f4").tobytes(), (linear * 255).round().astype(np.uint8).tobytes()]
    accessors: list[Thing] = [
        {"bufferView": 0, "componentType": 5126, "count": len(position), "type": "VEC3",
         "min": position.min(axis=0).tolist(), "max": position.max(axis=0).tolist()},
        {"bufferView": 1, "componentType": 5121, "normalized": True, "count": len(position), "type": "VEC4"},
    ]  # fmt: skip
    primitive: Thing = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "material": 0, "mode": POINTS}
    if faces is not None:
        short = len(position) < 0xFFFF
        blobs.append(faces.astype("<u2" if short else "<u4").tobytes())
        accessors.append(
            {"bufferView": 2, "componentType": 5123 if short else 5125, "count": faces.size, "type": "SCALAR"}
        )
        primitive |= {"indices": 2, "mode": TRIANGLES}
    blobs = [blob + bytes(-len(blob) % 4) for blob in blobs]
    begins = np.cumsum([0, *map(len, blobs)]).tolist()
    views = [
        {"buffer": 0, "byteOffset": at, "byteLength": len(blob)} for at, blob in zip(begins, blobs, strict=False)
    ]
    matt = {"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}, "doubleSided": True}
    document = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}], "materials": [matt], "accessors": accessors, "bufferViews": views,
        "buffers": [{"byteLength": begins[-1]}],
    }  # fmt: skip
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = _CHUNK.pack(len(text), b"JSON") + text + _CHUNK.pack(begins[-1], b"BIN\0") + b"".join(blobs)
    return _HEADER.pack(b"glTF", 2, _HEADER.size + len(chunks)) + chunks
