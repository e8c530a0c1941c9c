"""A glTF document: its nodes in their places, its numbers, materials and images. (Khronos glTF 2.0, 3 and 5)

Of colours only the base colour counts: factor, texture and vertex colours. Skins and morph targets are left out.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runner.pictures.images import opened
from runner.pictures.shapes import FACES_MAX, GREY, Bytes, Floats, Ints, UndrawnError, UnreadableError

POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6
"""Modes of primitives."""

_LINES = (1, 2, 3)

TEXTURE_SIDE = 1024
"""Textures are scaled down to this."""

_NODES_MAX = 100_000
_KINDS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_COMPRESSIONS = {
    "KHR_draco_mesh_compression": "Draco",
    "EXT_meshopt_compression": "meshopt",
    "KHR_meshopt_compression": "meshopt",
}

Thing = dict[str, Any]


@dataclass(slots=True)
class Part:
    """A primitive in the scene. ``texture`` is the place of its image in the document, None for none."""

    position: Floats
    faces: Ints
    colour: Floats
    normal: Floats
    uv: Floats
    texture: int | None


class Document:
    """The JSON of a GLB and its binary buffer. ``has_lines``: whether ``parts`` left out some."""

    def __init__(self, json_: Thing, binary: memoryview) -> None:
        self._json = json_
        self._binary = binary
        self._faces = 0
        self.has_lines = False

    def compression(self) -> str | None:
        used = self._json.get("extensionsRequired", [])
        return next((_COMPRESSIONS[one] for one in used if one in _COMPRESSIONS), None)

    def parts(self) -> list[Part]:
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

    def _part(self, primitive: Thing, matrix: npt.NDArray[np.float64]) -> Part | None:
        attributes, mode = primitive["attributes"], primitive.get("mode", TRIANGLES)
        self.has_lines |= mode in _LINES
        if mode not in (POINTS, TRIANGLES, STRIP, FAN) or "POSITION" not in attributes:
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
        return Part(position, faces, encoded(colour), normal, uv.astype(np.float32), image)

    def _corners(self, primitive: Thing, mode: int, count: int) -> Ints:
        """Return the triangles of a primitive; none for points."""
        if mode == POINTS:
            return np.empty((0, 3), dtype=np.int64)
        index = np.arange(count)
        if "indices" in primitive:
            index = self._numbers(primitive["indices"], 1)[:, 0].astype(np.int64)
        if mode == TRIANGLES:
            faces = index[: len(index) // 3 * 3].reshape(-1, 3)
        elif mode == STRIP:
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
        """Return an image scaled down; None for one that is elsewhere, too large, or that Pillow can't read."""
        found = self._thing("images", number)
        if "bufferView" not in found:
            return None
        try:
            picture = opened(io.BytesIO(self._view(found["bufferView"])), TEXTURE_SIDE)
        except (OSError, SyntaxError, UndrawnError):
            return None
        return np.asarray(picture.convert("RGB"))


def encoded(linear: Floats) -> Floats:
    """Return what stands for a linear colour in sRGB (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def decoded(srgb: Floats) -> Floats:
    """Return the linear colour that a colour in sRGB stands for."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


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
