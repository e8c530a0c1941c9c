"""Read a GLB for its picture: its scene in one mesh, with textures, or its points. (Khronos glTF 2.0, 3 and 4)

Of colours only the base colour counts: factor, texture and vertex colours. Skins and morph targets are left out.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from runner.pictures.images import opened
from runner.pictures.shapes import GREY, Bytes, Floats, Ints, Mesh, Points, UndrawnError, UnreadableError, thinned

FILE_MAX_BYTES = 300_000_000
FACES_MAX = 5_000_000
TEXTURE_SIDE = 1024
"""Textures are scaled down to this."""

_HEADER = struct.Struct("<4sII")
_CHUNK = struct.Struct("<I4s")
_JSON_MAX = 64 * 1024 * 1024
_NODES_MAX = 100_000
_KINDS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_POINTS, _TRIANGLES, _STRIP, _FAN = 0, 4, 5, 6
_COMPRESSIONS = {
    "KHR_draco_mesh_compression": "Draco",
    "EXT_meshopt_compression": "meshopt",
    "KHR_meshopt_compression": "meshopt",
}
_POINTS_MAX = 200_000

Thing = dict[str, Any]


@dataclass(slots=True)
class _Part:
    """A primitive in the scene. ``texture`` is the place of its image in the document, None for none."""

    position: Floats
    faces: Ints
    colour: Floats
    normal: Floats
    uv: Floats
    texture: int | None


def read(file: BinaryIO) -> Mesh | Points:
    """Return its scene. Raises UnreadableError, UndrawnError; ValueError and its like for what numpy refuses."""
    size_bytes = os.fstat(file.fileno()).st_size
    if size_bytes > FILE_MAX_BYTES:
        raise UndrawnError(f"a GLB of more than {FILE_MAX_BYTES // 1_000_000} MB")
    content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    document = _Document(*_chunks(content))
    if compression := document.compression():
        raise UndrawnError(f"a GLB that is compressed with {compression}")
    parts = document.parts()
    if meshes := [part for part in parts if len(part.faces)]:
        return _joined(meshes, document)
    if not parts:
        raise UnreadableError("there is nothing in its scene")
    position, colour = (
        np.concatenate(one) for one in zip(*((part.position, part.colour) for part in parts), strict=True)
    )
    chosen = thinned(len(position), _POINTS_MAX)
    return Points(position[chosen], colour[chosen], len(position))


def encoded(linear: Floats) -> Floats:
    """Return what stands for a linear colour in sRGB (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def decoded(srgb: Floats) -> Floats:
    """Return the linear colour that a colour in sRGB stands for."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


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


class _Document:
    """The JSON of a GLB and its binary buffer."""

    def __init__(self, json_: Thing, binary: memoryview) -> None:
        self._json = json_
        self._binary = binary
        self._faces = 0

    def compression(self) -> str | None:
        used = self._json.get("extensionsRequired", [])
        return next((_COMPRESSIONS[one] for one in used if one in _COMPRESSIONS), None)

    def parts(self) -> list[_Part]:
        found = []
        for node, matrix in self._placed():
            if "mesh" in node:
                for primitive in self._thing("meshes", node["mesh"]).get("primitives", []):
                    if part := self._part(primitive, matrix):
                        found.append(part)
        return found

    def _thing(self, kind: str, number: Any) -> Thing:
        things = self._json.get(kind)
        if not isinstance(things, list) or not isinstance(number, int) or not 0 <= number < len(things):
            raise UnreadableError(f"it names number {number!r} of its {kind}, and there is none")
        thing = things[number]
        if not isinstance(thing, dict):
            raise UnreadableError(f"number {number} of its {kind} is no object")
        return thing

    def _placed(self) -> list[tuple[Thing, npt.NDArray[np.float64]]]:
        """Return the nodes of the scene, each with the matrix that places it."""
        nodes = self._json.get("nodes", [])
        scenes = self._json.get("scenes")
        roots = self._thing("scenes", self._json.get("scene", 0)).get("nodes", []) if scenes else _roots(nodes)
        open_ = [(number, np.eye(4)) for number in roots]
        seen: set[int] = set()
        placed = []
        while open_:
            number, around = open_.pop()
            node = self._thing("nodes", number)
            if number in seen or len(seen) > _NODES_MAX:
                continue
            seen.add(number)
            matrix = around @ _matrix(node)
            placed.append((node, matrix))
            open_ += [(child, matrix) for child in node.get("children", [])]
        return placed

    def _part(self, primitive: Thing, matrix: npt.NDArray[np.float64]) -> _Part | None:
        attributes, mode = primitive["attributes"], primitive.get("mode", _TRIANGLES)
        if mode not in (_POINTS, _TRIANGLES, _STRIP, _FAN) or "POSITION" not in attributes:
            return None
        local = self._numbers(attributes["POSITION"], 3)
        count = len(local)
        position = (local @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)
        normal = np.zeros((count, 3), dtype=np.float32)
        if "NORMAL" in attributes:
            normal = _turned(_shaped(self._numbers(attributes["NORMAL"], 3), count), matrix)
        faces = self._corners(primitive, mode, count)
        self._faces += len(faces)
        if self._faces > FACES_MAX:
            raise UndrawnError(f"a GLB of more than {FACES_MAX // 1_000_000} million triangles")
        factor, image, coordinates, place = self._material(primitive)
        colour = np.broadcast_to(factor, (count, 3))
        if "COLOR_0" in attributes:
            colour = colour * _shaped(self._numbers(attributes["COLOR_0"], None, normalized=True), count)[:, :3]
        uv: npt.NDArray[Any] = np.zeros((count, 2), dtype=np.float32)
        if image is not None and coordinates in attributes:
            uv = _shaped(self._numbers(attributes[coordinates], 2, normalized=True), count) * place[1] + place[0]
        else:
            image = None
        return _Part(position, faces, encoded(colour), normal, uv.astype(np.float32), image)

    def _corners(self, primitive: Thing, mode: int, count: int) -> Ints:
        """Return the triangles of a primitive; none for points."""
        if mode == _POINTS:
            return np.empty((0, 3), dtype=np.int64)
        index = np.arange(count)
        if "indices" in primitive:
            index = self._numbers(primitive["indices"], 1)[:, 0].astype(np.int64)
        if mode == _TRIANGLES:
            faces = index[: len(index) // 3 * 3].reshape(-1, 3)
        elif mode == _STRIP:
            faces = np.stack([index[:-2], index[1:-1], index[2:]], axis=1)
        else:
            faces = np.stack([np.full(max(0, len(index) - 2), index[0]), index[1:-1], index[2:]], axis=1)
        return faces[(faces < count).all(axis=1)]

    def _numbers(self, accessor: Any, width: int | None, *, normalized: bool = False) -> npt.NDArray[Any]:
        """Return the rows of an accessor; of ``normalized`` ones whole numbers stand for 0 to 1."""
        found = self._thing("accessors", accessor)
        kind, columns = np.dtype(_KINDS[found["componentType"]]), _WIDTHS[found["type"]]
        count = found["count"]
        if "sparse" in found or "bufferView" not in found:
            raise UndrawnError("a GLB with sparse accessors")
        if (width and columns != width) or not isinstance(count, int):
            raise UnreadableError(f"an accessor of {columns} columns where {width} are needed")
        view = self._view(found["bufferView"])
        stride = self._thing("bufferViews", found["bufferView"]).get("byteStride") or columns * kind.itemsize
        rows: npt.NDArray[Any] = np.ndarray(
            (count, columns), kind, view, found.get("byteOffset", 0), (stride, kind.itemsize)
        )
        if (normalized or found.get("normalized")) and kind.kind in "iu":
            rows = rows.astype(np.float32) / np.float32(np.iinfo(kind).max)
        return rows

    def _view(self, number: Any) -> memoryview:
        view = self._thing("bufferViews", number)
        if any(name in _COMPRESSIONS for name in view.get("extensions", {})):
            raise UndrawnError("a GLB that is compressed with meshopt")
        if view.get("buffer", 0) != 0 or "uri" in self._thing("buffers", 0):
            raise UndrawnError("a GLB whose data is in other files")
        begin, length = view.get("byteOffset", 0), view["byteLength"]
        if begin < 0 or length < 0 or begin + length > len(self._binary):
            raise UnreadableError(f"a buffer view ends at byte {begin + length} of {len(self._binary)}")
        return self._binary[begin : begin + length]

    def _material(self, primitive: Thing) -> tuple[Floats, int | None, str, tuple[list[float], list[float]]]:
        """Return the linear base colour, the image, its coordinates' name, and their offset and scale."""
        grey, nowhere = decoded(np.array(GREY, dtype=np.float32)), ([0.0, 0.0], [1.0, 1.0])
        if "material" not in primitive:
            return (np.ones(3, dtype=np.float32) if "COLOR_0" in primitive["attributes"] else grey), None, "", nowhere
        material = self._thing("materials", primitive["material"])
        base = material.get("pbrMetallicRoughness", {})
        glossy = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
        factor = base.get("baseColorFactor") or glossy.get("diffuseFactor") or [1, 1, 1, 1]
        texture = base.get("baseColorTexture") or glossy.get("diffuseTexture")
        if not texture:
            return np.array(factor[:3], dtype=np.float32), None, "", nowhere
        moved = texture.get("extensions", {}).get("KHR_texture_transform", {})
        place = moved.get("offset", [0.0, 0.0]), moved.get("scale", [1.0, 1.0])
        coordinates = f"TEXCOORD_{moved.get('texCoord', texture.get('texCoord', 0))}"
        return np.array(factor[:3], dtype=np.float32), self._source(texture["index"]), coordinates, place

    def _source(self, number: Any) -> int | None:
        texture = self._thing("textures", number)
        webp = texture.get("extensions", {}).get("EXT_texture_webp", {})
        source = webp.get("source", texture.get("source"))
        return source if isinstance(source, int) else None

    def image(self, number: int) -> Bytes | None:
        """Return an image scaled down; None for one that is elsewhere, or that Pillow can't read."""
        found = self._thing("images", number)
        if "bufferView" not in found:
            return None
        try:
            picture = opened(io.BytesIO(self._view(found["bufferView"])), TEXTURE_SIDE)
        except (OSError, SyntaxError):
            return None
        return np.asarray(picture.convert("RGB"))


def _roots(nodes: list[Thing]) -> list[int]:
    children = {child for node in nodes for child in node.get("children", [])}
    return [number for number in range(len(nodes)) if number not in children]


def _matrix(node: Thing) -> npt.NDArray[np.float64]:
    if "matrix" in node:
        given: npt.NDArray[np.float64] = np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
        return given
    x, y, z, w = (float(part) for part in node.get("rotation", (0, 0, 0, 1)))
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), dtype=np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _turned(normal: npt.NDArray[Any], matrix: npt.NDArray[np.float64]) -> Floats:
    """Return unit normals as a node places them: by the inverse of its matrix, transposed."""
    turn = np.linalg.pinv(matrix[:3, :3]) if np.isfinite(matrix).all() else np.eye(3)
    placed = normal @ turn
    length = np.maximum(np.linalg.norm(placed, axis=1, keepdims=True), 1e-20)
    return np.asarray(placed / length, dtype=np.float32)


def _shaped(rows: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    if len(rows) != count:
        raise UnreadableError(f"{len(rows)} rows of an attribute for {count} vertices")
    return rows


def _joined(parts: list[_Part], document: _Document) -> Mesh:
    textures: list[Bytes] = []
    places: dict[int, int] = {}
    for number in {part.texture for part in parts} - {None}:
        assert number is not None
        image = document.image(number)
        if image is not None:
            places[number] = len(textures)
            textures.append(image)
    begins = np.cumsum([0, *(len(part.position) for part in parts)])
    faces = np.concatenate([part.faces + begin for part, begin in zip(parts, begins, strict=False)])
    texture = [
        np.full(len(part.faces), -1 if part.texture is None else places.get(part.texture, -1)) for part in parts
    ]
    return Mesh(
        position=np.concatenate([part.position for part in parts]),
        faces=faces,
        colour=np.concatenate([part.colour for part in parts]),
        total=len(faces),
        normal=np.concatenate([part.normal for part in parts]),
        uv=np.concatenate([part.uv for part in parts]) if textures else None,
        texture=np.concatenate(texture) if textures else None,
        textures=tuple(textures),
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
    primitive: Thing = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "material": 0, "mode": _POINTS}
    if faces is not None:
        short = len(position) < 0xFFFF
        blobs.append(faces.astype("<u2" if short else "<u4").tobytes())
        accessors.append(
            {"bufferView": 2, "componentType": 5123 if short else 5125, "count": faces.size, "type": "SCALAR"}
        )
        primitive |= {"indices": 2, "mode": _TRIANGLES}
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
