"""A glTF document: its nodes in their places, its numbers, materials and images. (Khronos glTF 2.0, 3 and 5)

Morph targets are left out.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runner.pictures import nodes
from runner.pictures.images import opened
from runner.pictures.materials import Texture, encoded, surface_of
from runner.pictures.nodes import Matrix, Thing
from runner.pictures.shapes import FACES_MAX, Bytes, Floats, Ints, UndrawnError, UnreadableError

POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6
"""Modes of primitives."""

_LINES = (1, 2, 3)

TEXTURE_SIDE = 1024
"""Textures are scaled down to this."""

_KINDS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_COMPRESSIONS = {
    "KHR_draco_mesh_compression": "Draco",
    "EXT_meshopt_compression": "meshopt",
    "KHR_meshopt_compression": "meshopt",
}


@dataclass(slots=True)
class Part:
    """A primitive in the scene. ``alpha`` and ``cutoff``: as a ``Surface`` has them."""

    position: Floats
    faces: Ints
    colour: Floats
    normal: Floats
    uv: Floats
    texture: Texture | None
    alpha: float
    cutoff: float | None


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
        places = nodes.placed(self._roots(), self._thing)
        found = []
        for number, matrix in places.items():
            node = self._thing("nodes", number)
            if "mesh" not in node:
                continue
            moves = (
                nodes.joints(self._thing("skins", node["skin"]), places, self._numbers) if "skin" in node else None
            )
            for primitive in self._thing("meshes", node["mesh"]).get("primitives", []):
                for one in nodes.instances(node, matrix, self._numbers):
                    if part := self._part(primitive, one, moves):
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

    def _roots(self) -> list[int]:
        found = self._json.get("nodes", [])
        if not self._json.get("scenes"):
            return nodes.roots_of(found)
        roots: list[int] = self._thing("scenes", self._json.get("scene", 0)).get("nodes", [])
        return roots

    def _part(self, primitive: Thing, matrix: Matrix, moves: Matrix | None) -> Part | None:
        attributes, mode = primitive["attributes"], primitive.get("mode", TRIANGLES)
        self.has_lines |= mode in _LINES
        if mode not in (POINTS, TRIANGLES, STRIP, FAN) or "POSITION" not in attributes:
            return None
        position, normal = self._placed(attributes, matrix, moves)
        count = len(position)
        faces = self._corners(primitive, mode, count)
        self._faces += len(faces)
        if self._faces > FACES_MAX:
            raise UndrawnError(f"a GLB of more than {FACES_MAX // 1_000_000} million triangles")
        surface = surface_of(primitive, self._thing)
        colour = np.broadcast_to(surface.colour, (count, 3))
        if "COLOR_0" in attributes:
            colour = colour * _shaped(self._numbers(attributes["COLOR_0"], None, normalized=True), count)[:, :3]
        texture, uv = surface.texture, np.zeros((count, 2), dtype=np.float32)
        if texture and surface.coordinates in attributes and surface.place is not None:
            given = self._numbers(attributes[surface.coordinates], 2, normalized=not self._is_quantized())
            uv = (_shaped(given, count) @ surface.place[:, :2].T + surface.place[:, 2]).astype(np.float32)
        else:
            texture = None
        return Part(position, faces, encoded(colour), normal, uv, texture, surface.alpha, surface.cutoff)

    def _placed(self, attributes: Thing, matrix: Matrix, moves: Matrix | None) -> tuple[Floats, Floats]:
        """Return positions and normals; what hangs on joints is placed by them alone."""
        local = self._numbers(attributes["POSITION"], 3)
        count = len(local)
        normal = np.zeros((count, 3), dtype=np.float32)
        if "NORMAL" in attributes:
            normal = _shaped(self._numbers(attributes["NORMAL"], 3), count)
        if moves is None or not {"JOINTS_0", "WEIGHTS_0"} <= {*attributes}:
            return (local @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32), nodes.turned(normal, matrix)
        of = _shaped(self._numbers(attributes["JOINTS_0"], 4), count)
        weight = _shaped(self._numbers(attributes["WEIGHTS_0"], 4, normalized=True), count)
        position = nodes.skinned(local, 1, moves, of, weight).astype(np.float32)
        return position, nodes.unit(nodes.skinned(normal, 0, moves, of, weight))

    def _is_quantized(self) -> bool:
        """Tell whether whole numbers may stand for themselves; elsewhere they stand for 0 to 1."""
        return "KHR_mesh_quantization" in self._json.get("extensionsUsed", [])

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

    def image(self, number: int) -> Bytes | None:
        """Return an image scaled down; None for one that is elsewhere, too large, or that Pillow can't read."""
        found = self._thing("images", number)
        if "bufferView" not in found:
            return None
        try:
            picture = opened(io.BytesIO(self._view(found["bufferView"])), TEXTURE_SIDE)
        except (OSError, SyntaxError, UndrawnError):
            return None
        return np.asarray(picture.convert("RGBA"))


def _shaped(rows: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    if len(rows) != count:
        raise UnreadableError(f"{len(rows)} rows of an attribute for {count} vertices")
    return rows
