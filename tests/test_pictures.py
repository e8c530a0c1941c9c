"""How results are read, drawn and thinned out, beside gsply and trimesh; and what damaged ones do."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gsply
import numpy as np
import pytest
import trimesh
import zstandard
from PIL import Image, ImageOps
from shapes import BLUE, GREEN, RED, SH_C0, SPLAT, ball, image, logit, sphere, splat_ply, textured

from runner.formats import verify
from runner.pictures import BLANK, EXPLODED, UNREADABLE, glb, images, models, ply, spz
from runner.pictures.blend import blended
from runner.pictures.look import Look, look
from runner.pictures.looks import SIDE, drawn
from runner.pictures.raster import surface_colour
from runner.pictures.shapes import Mesh, Splats
from runner.pictures.view import View, turned, view_of

REST = tuple(f"f_rest_{number}" for number in range(9))


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes a file; returns its path."""

    def write(content: bytes) -> Path:
        (tmp_path / "result").write_bytes(content)
        return tmp_path / "result"

    return write


@pytest.fixture
def seen(keep: Callable[[bytes], Path]) -> Callable[[bytes, str], Look]:
    return lambda content, kind: look(keep(content), kind)


def splats_of(path: Path, kind: Any = ply) -> Splats:
    with open(path, "rb") as file:
        found = kind.read(file)
    assert isinstance(found, Splats)
    return found


def mesh_of(path: Path, kind: Any = glb) -> Mesh:
    with open(path, "rb") as file:
        found = kind.read(file)
    assert isinstance(found, Mesh)
    return found


def pixels(content: bytes) -> np.ndarray:
    """Return a thumbnail as numbers from 0 to 1: red, green, blue, alpha."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA")) / 255


def middle_of(found: np.ndarray, colour: tuple[float, float, float]) -> tuple[float, float]:
    """Return in which row and column, 0 to 1, the pixels are that are of about this hue."""
    hue = np.array(colour) / np.linalg.norm(colour)
    length = np.maximum(np.linalg.norm(found[:, :, :3], axis=2), 1e-6)
    row, column = np.nonzero((found[:, :, :3] @ hue / length > 0.93) & (found[:, :, 3] > 0.5))
    assert len(row) > 50
    return row.mean() / SIDE, column.mean() / SIDE


# reading


@pytest.mark.parametrize("encoding", ["binary_little_endian", "binary_big_endian", "ascii"])
@pytest.mark.parametrize("names", [SPLAT, (*SPLAT[3:], *REST, *SPLAT[2::-1], "nx")], ids=["usual", "shuffled"])
def test_splats_are_read_from_any_encoding_and_order(
    encoding: str, names: tuple[str, ...], keep: Callable[[bytes], Path]
) -> None:
    rows = ball(200)
    found = splats_of(keep(splat_ply(rows, encoding=encoding, names=names)))
    assert found.total == 200
    assert np.allclose(found.position, rows[:, :3], atol=1e-6)
    assert np.allclose(found.colour, 0.5 + SH_C0 * rows[:, 3:6], atol=1e-6)
    assert np.allclose(found.opacity, 0.95, atol=1e-6)
    assert np.allclose(found.scale, np.exp(rows[:, 7:10]), rtol=1e-5)
    assert np.allclose(found.rotation, rows[:, 10:] / np.linalg.norm(rows[:, 10:], axis=1)[:, None], atol=1e-6)


def by_gsply(rows: np.ndarray, version: int, folder: Path) -> bytes:
    flat = rows.astype("f4")
    splat = gsply.GSData(
        means=flat[:, :3].copy(), scales=flat[:, 7:10].copy(), opacities=flat[:, 6].copy(), sh0=flat[:, 3:6].copy(),
        quats=flat[:, 10:] / np.linalg.norm(flat[:, 10:], axis=1)[:, None], shN=np.zeros((len(rows), 3, 3), "f4"),
    )  # fmt: skip
    gsply.write_spz(folder / "by_gsply.spz", splat, version=version)
    return (folder / "by_gsply.spz").read_bytes()


def halves(rows: np.ndarray) -> bytes:
    """Return version 1: positions are numbers of 16 bits."""
    count = len(rows)
    start = struct.pack("<4sIIBBBB", b"NGSP", 1, count, 0, 0, 0, 0)
    parts = [rows[:, :3].astype("<f2").tobytes(), bytes([242]) * count]
    colour = ((rows[:, 3:6] * 0.15 + 0.5) * 255).round().clip(0, 255)
    for part in (colour, ((rows[:, 7:10] + 10) * 16).round()):
        parts.append(part.astype("u1").tobytes())
    turn = rows[:, 10:] / np.linalg.norm(rows[:, 10:], axis=1)[:, None] * np.where(rows[:, 10:11] < 0, -1, 1)
    parts.append((turn[:, 1:] * 127.5 + 127.5).round().clip(0, 255).astype("u1").tobytes())
    return gzip.compress(start + b"".join(parts))


CONTAINERS: dict[str, Callable[[np.ndarray, Path], bytes]] = {
    "version 1": lambda rows, _: halves(rows),
    "version 3": lambda rows, folder: by_gsply(rows, 3, folder),
    "version 4": lambda rows, folder: by_gsply(rows, 4, folder),
    "zstd": lambda rows, folder: zstandard.compress(gzip.decompress(by_gsply(rows, 3, folder))),
}


def turned_apart(some: np.ndarray, others: np.ndarray) -> float:
    """Return how far apart rotations are on average: what they make of an axis (a quaternion's sign is arbitrary)."""
    axes = []
    for rotation in (some, others):
        w, x, y, z = (rotation / np.linalg.norm(rotation, axis=1)[:, None]).T
        axes.append(np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], axis=1))
    return float(np.abs(axes[0] - axes[1]).mean())


@pytest.mark.parametrize("name", CONTAINERS)
def test_an_spz_in_any_container_gives_the_splats_that_it_was_made_of(
    name: str, keep: Callable[[bytes], Path], tmp_path: Path
) -> None:
    rows = ball(300)
    found = splats_of(keep(CONTAINERS[name](rows, tmp_path)), spz)
    assert found.total == 300
    assert found.up == ("-y" if name == "zstd" else "y")
    assert np.allclose(found.position, rows[:, :3], atol=1e-3)
    assert np.allclose(found.colour, 0.5 + SH_C0 * rows[:, 3:6], atol=0.01)
    assert np.allclose(found.opacity, 0.95, atol=0.005)
    assert np.allclose(np.log(found.scale), rows[:, 7:10], atol=0.04)
    assert turned_apart(found.rotation, rows[:, 10:]) < 0.015


def compressed(rows: np.ndarray) -> bytes:
    """Return a PLY as SuperSplat writes it: words between the least and the most of each 256 splats."""
    limits, words = [], []
    for begin in range(0, len(rows), 256):
        some = rows[begin : begin + 256]
        word = np.zeros((len(some), 4), np.uint64)
        values = some[:, :3], some[:, 7:10], 0.5 + SH_C0 * some[:, 3:6]
        for column, value, bits in zip((0, 2, 3), values, ((11, 10, 11), (11, 10, 11), (8, 8, 8)), strict=True):
            low, high = value.min(axis=0), value.max(axis=0)
            limits.append([*low, *high])
            for axis in range(3):
                share = (value[:, axis] - low[axis]) / max(high[axis] - low[axis], 1e-9)
                most = (1 << bits[axis]) - 1
                word[:, column] = word[:, column] << np.uint64(bits[axis]) | (share * most).round().astype(np.uint64)
        word[:, 3] = word[:, 3] << np.uint64(8) | (255 / (1 + np.exp(-some[:, 6]))).round().astype(np.uint64)
        for number, row in enumerate(some[:, 10:] / np.linalg.norm(some[:, 10:], axis=1)[:, None]):
            largest = int(np.abs(row).argmax())
            packed = largest
            for part in np.delete(row * np.sign(row[largest]), largest):
                packed = packed << 10 | round((part / np.sqrt(2) + 0.5) * 1023)
            word[number, 1] = packed
        words.append(word)
    chunk = [f"{end}_{prefix}{axis}" for prefix, axes in (("", "xyz"), ("scale_", "xyz"), ("", "rgb"))
             for end in ("min", "max") for axis in axes]  # fmt: skip
    names = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
    header = f"ply\nformat binary_little_endian 1.0\nelement chunk {len(words)}\n"
    header += "".join(f"property float {name}\n" for name in chunk) + f"element vertex {len(rows)}\n"
    header += "".join(f"property uint {name}\n" for name in names) + "end_header\n"
    return header.encode() + np.array(limits).astype("<f4").tobytes() + np.concatenate(words).astype("<u4").tobytes()


def test_a_compressed_ply_gives_the_splats_that_it_was_made_of(keep: Callable[[bytes], Path]) -> None:
    rows = ball(600)
    rows[:, 7:10] += np.random.default_rng(3).normal(0, 0.5, (600, 3))
    content = compressed(rows)
    found = splats_of(keep(content))
    assert (found.total, found.up) == (600, "-y")
    assert np.allclose(found.position, rows[:, :3], atol=1.1e-3)
    assert np.allclose(found.colour, 0.5 + SH_C0 * rows[:, 3:6], atol=0.004)
    assert np.allclose(found.opacity, 0.95, atol=0.003)
    assert np.allclose(np.log(found.scale), rows[:, 7:10], atol=0.004)
    assert turned_apart(found.rotation, rows[:, 10:]) < 0.002
    assert look(keep(content[:-5]), "ply").flags[0][1].startswith("it is unreadable: it is cut")
    assert look(keep(content.replace(b"chunk 3", b"chunk 2")), "ply").flags[0][0] == UNREADABLE
    assert look(keep(content.replace(b"chunk", b"block")), "ply").why == "a compressed PLY of an unusual layout"


def test_of_a_large_file_only_blocks_are_read(keep: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    names = (*SPLAT, *(f"f_rest_{number}" for number in range(45)))
    path = keep(splat_ply(ball(100), names=names).replace(b"vertex 100", b"vertex 3000000"))
    os.truncate(path, path.read_bytes().index(b"end_header\n") + 11 + 3_000_000 * len(names) * 4)
    read, plain = [], os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, at: read.append(size) or plain(file, size, at))
    found = splats_of(path)
    assert found.total == 3_000_000
    assert 150_000 < len(found.position) <= ply.SPLATS_MAX
    assert sum(read) < 60_000_000 < path.stat().st_size / 10


def test_a_mesh_is_read_as_trimesh_reads_it(keep: Callable[[bytes], Path], tmp_path: Path) -> None:
    scene = trimesh.Scene()
    turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])
    scene.add_geometry(trimesh.creation.box(), transform=turn)
    scene.add_geometry(sphere(2), transform=trimesh.transformations.scale_and_translate(2, [5, 0, 1]))
    found = mesh_of(keep(scene.export(file_type="glb")))
    there = scene.to_mesh()
    assert found.total == len(there.faces)
    triangles = np.sort(found.position[found.faces].reshape(len(found.faces), -1), axis=0)
    assert np.allclose(triangles, np.sort(there.triangles.reshape(len(there.faces), -1), axis=0), atol=1e-5)


def test_a_glb_may_be_quantized_interleaved_and_in_strips(keep: Callable[[bytes], Path]) -> None:
    corners = b"".join(
        struct.pack("<hhhxxHH", 100 * x, 100 * y, 0, 65535 * x, 32768 * y)
        for x, y in ((0, 0), (1, 0), (0, 1), (1, 1))
    )
    binary = corners + bytes([0, 1, 2, 3])
    accessor = {"bufferView": 0, "count": 4}
    document = {
        "asset": {"version": "2.0"}, "scenes": [{"nodes": [0]}], "buffers": [{"byteLength": len(binary)}],
        "nodes": [{"children": [1], "translation": [0, 0, 5]}, {"mesh": 0, "scale": [0.01, 0.02, 1]}],
        "meshes": [{"primitives": [
            {"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "mode": 5, "material": 0}
        ]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": [0.5, 0, 1, 1]}}],
        "accessors": [
            accessor | {"componentType": 5122, "type": "VEC3"},
            accessor | {"componentType": 5123, "type": "VEC2", "byteOffset": 8, "normalized": True},
            accessor | {"componentType": 5121, "type": "SCALAR", "bufferView": 1},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": 48, "byteStride": 12}, {"buffer": 0, "byteOffset": 48, "byteLength": 4},
        ],
    }  # fmt: skip
    found = mesh_of(keep(glb_of(document, binary)))
    assert found.faces.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert np.allclose(found.position, [[0, 0, 5], [1, 0, 5], [0, 2, 5], [1, 2, 5]])
    assert np.allclose(found.colour, [0.7354, 0, 1], atol=1e-3)  # of a half, in sRGB


def sheet(material: dict[str, Any], texture: Image.Image | None = None, **more: Any) -> bytes:
    """Return a GLB of a square from -1 to 1 that faces +z; number 3 of its nodes is free for anything."""
    corners = np.array([[-1, 1, 0], [1, 1, 0], [-1, -1, 0], [1, -1, 0]], "<f4")
    content = io.BytesIO()
    if texture:
        texture.save(content, "PNG")
    blobs = [corners.tobytes(), np.array([[0, 0], [1, 0], [0, 1], [1, 1]], "<f4").tobytes(),
             bytes([0, 2, 1, 1, 2, 3, 0, 0]), content.getvalue(), bytes(16),
             np.array([[1, 0, 0, 0]] * 4, "<f4").tobytes(), struct.pack("<6f", 0, 0, 0, 3, 0, 0)]  # fmt: skip
    begins = np.cumsum([0, *map(len, blobs)]).tolist()
    kinds = [(5126, "VEC3", 4), (5126, "VEC2", 4), (5121, "SCALAR", 6), None, (5121, "VEC4", 4), (5126, "VEC4", 4),
             (5126, "VEC3", 2)]  # fmt: skip
    document = {
        "asset": {"version": "2.0"}, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}], "materials": [material],
        "buffers": [{"byteLength": begins[-1]}], "images": [{"bufferView": 3}], "textures": [{"source": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}]}],
        "accessors": [{"bufferView": number, "componentType": kind[0], "type": kind[1], "count": kind[2]}
                      if kind else {} for number, kind in enumerate(kinds)],
        "bufferViews": [{"buffer": 0, "byteOffset": at, "byteLength": len(blob)}
                        for at, blob in zip(begins, blobs, strict=False)],
    }  # fmt: skip
    return glb_of(document | more, b"".join(blobs))


def quarters(clear: bool = False) -> Image.Image:
    texture = Image.new("RGBA", (16, 16), "red")
    for colour, at in (("#0000" if clear else "red", (0, 0)), ("lime", (8, 0)), ("blue", (0, 8)), ("white", (8, 8))):
        texture.paste(colour, (*at, at[0] + 8, at[1] + 8))
    return texture


def hues(found: Mesh) -> str:
    """Return the first letters of the colours near its corners: above left, above right, below left, below right."""
    names = {(1, 0, 0): "r", (0, 1, 0): "g", (0, 0, 1): "b", (1, 1, 1): "w", (0, 0, 0): "-"}
    weight = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], "f4")
    colours = surface_colour(found, np.array([0, 0, 0, 1]), weight)
    return "".join(names[tuple(colour)] for colour in colours.round().astype(int).tolist())


def with_texture(**moved: Any) -> dict[str, Any]:
    texture = {"index": 0, "extensions": {"KHR_texture_transform": moved}}
    return {"pbrMetallicRoughness": {"baseColorTexture": texture}}


@pytest.mark.parametrize(
    ("moved", "wrap", "expected"),
    [({}, 10497, "rgbw"), ({"rotation": np.pi / 2, "offset": [0, 1]}, 10497, "brwg"),
     ({"offset": [1, 1]}, 10497, "rgbw"), ({"offset": [1, 1]}, 33071, "wwww"), ({"offset": [1, 1]}, 33648, "wbgr"),
     ({"scale": [0.5, 0.5], "offset": [0.5, 0]}, 10497, "gggg")],
)  # fmt: skip
def test_textures_are_moved_turned_and_go_on_as_they_shall(
    moved: dict[str, Any], wrap: int, expected: str, keep: Callable[[bytes], Path]
) -> None:
    samplers = [{"wrapS": wrap, "wrapT": wrap}]
    content = sheet(with_texture(**moved), quarters(), samplers=samplers, textures=[{"source": 0, "sampler": 0}])
    assert hues(mesh_of(keep(content))) == expected


def test_coordinates_of_textures_may_be_whole_numbers(keep: Callable[[bytes], Path]) -> None:
    def change(document: dict[str, Any]) -> None:
        document["accessors"][1] = {"bufferView": 2, "componentType": 5121, "type": "VEC2", "count": 4}
        del document["meshes"][0]["primitives"][0]["indices"]
        document["extensionsUsed"] = ["KHR_mesh_quantization"]

    whole = with_json(sheet(with_texture(scale=[0.25, 0.25]), quarters()), change)
    uv = mesh_of(keep(whole)).uv
    assert uv is not None and uv.tolist() == [[0, 0.5], [0.25, 0.25], [0.5, 0.75], [0, 0]]


def test_what_shines_by_itself_has_a_colour(keep: Callable[[bytes], Path]) -> None:
    black = {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}}
    assert hues(mesh_of(keep(sheet(black)))) == "----"
    assert hues(mesh_of(keep(sheet(black | {"emissiveFactor": [0, 1, 0]})))) == "gggg"
    shining = black | {"emissiveFactor": [1, 1, 1], "emissiveTexture": {"index": 0}}
    assert hues(mesh_of(keep(sheet(shining, quarters())))) == "rgbw"


def test_what_is_not_there_hides_nothing(keep: Callable[[bytes], Path]) -> None:
    def shown(material: dict[str, Any], clear: bool = True, **more: Any) -> np.ndarray:
        content = sheet(material, quarters(clear), **more)
        return np.asarray(drawn(mesh_of(keep(content))))[SIDE // 4, SIDE // 3] / 255

    assert shown(with_texture())[3] == 1
    for mode in ("MASK", "BLEND"):
        assert shown(with_texture() | {"alphaMode": mode})[3] == 0
        assert shown(with_texture() | {"alphaMode": mode}, clear=False)[3] == 1
    half = {"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 0.5]}, "alphaMode": "BLEND"}
    assert shown(half)[3] == pytest.approx(0.5, abs=0.02)
    assert shown(half, nodes=[{"mesh": 0, "children": [1]}, {"mesh": 0}])[3] == pytest.approx(0.75, abs=0.02)


def test_what_hangs_on_joints_is_where_they_are(keep: Callable[[bytes], Path]) -> None:
    def change(document: dict[str, Any]) -> None:
        document["meshes"][0]["primitives"][0]["attributes"] |= {"JOINTS_0": 4, "WEIGHTS_0": 5}

    nodes = [{"mesh": 0, "skin": 0, "translation": [50, 0, 0]}, {"scale": [1, 2, 1]}]
    more = {"nodes": nodes, "skins": [{"joints": [1]}], "scenes": [{"nodes": [0, 1]}]}
    found = mesh_of(keep(with_json(sheet({}, **more), change)))
    assert found.position.tolist() == [[-1, 2, 0], [1, 2, 0], [-1, -2, 0], [1, -2, 0]]


def test_every_instance_is_drawn(keep: Callable[[bytes], Path]) -> None:
    where = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 6}}}
    found = mesh_of(keep(sheet({}, nodes=[{"mesh": 0, "scale": [2, 1, 1], "extensions": where}])))
    assert len(found.faces) == 4
    assert found.position[:, 0].tolist() == [-2, 2, -2, 2, 4, 8, 4, 8]


@pytest.mark.parametrize("encoding", ["binary", "ascii"])
def test_a_mesh_ply_gives_its_triangles_and_colours(encoding: str, keep: Callable[[bytes], Path]) -> None:
    ball_ = sphere(2)
    found = mesh_of(keep(ball_.export(file_type="ply", encoding=encoding)), ply)
    assert (found.faces == ball_.faces).all()
    assert np.allclose(found.colour, GREEN, atol=0.01)


def test_faces_of_any_number_of_corners_become_triangles(keep: Callable[[bytes], Path]) -> None:
    header = "ply\nformat binary_big_endian 1.0\nelement vertex 5\n" + "".join(
        f"property double {axis}\n" for axis in "xyz"
    )
    header += "element face 2\nproperty uchar flag\nproperty list uint8 int vertex_indices\nend_header\n"
    corners = np.arange(15).reshape(5, 3).astype(">f8").tobytes()
    faces = struct.pack(">BB4i", 7, 4, 0, 1, 2, 3) + struct.pack(">BB3i", 7, 3, 2, 3, 4)
    found = mesh_of(keep(header.encode() + corners + faces), ply)
    assert found.faces.tolist() == [[0, 1, 2], [0, 2, 3], [2, 3, 4]]
    quads = faces[:18] + struct.pack(">BB4i", 7, 4, 1, 2, 3, 4)
    found = mesh_of(keep(header.encode() + corners + quads), ply)
    assert sorted(found.faces.tolist()) == [[0, 1, 2], [0, 2, 3], [1, 2, 3], [1, 3, 4]]
    assert found.total == 4


# drawing


def test_a_splat_stands_upright_and_shows_its_front(seen: Callable[[bytes, str], Look]) -> None:
    found = seen(splat_ply(ball()), "ply")
    assert (found.kind, found.count, found.flags) == ("splats", 1500, ())
    assert found.box == pytest.approx((2, 2, 2), abs=0.05)
    shown = pixels(found.thumbnail)
    assert shown.shape == (SIDE, SIDE, 4)
    assert shown[0, 0, 3] == 0 and shown[SIDE // 2, SIDE // 2, 3] > 0.95
    assert middle_of(shown, RED)[0] < 0.3
    row, column = middle_of(shown, BLUE)
    assert row > 0.5 and column < 0.45  # seen from above, and turned aside


@pytest.mark.parametrize("name", ["version 3", "zstd"])
def test_an_spz_stands_upright_whichever_way_its_kind_points(
    name: str, seen: Callable[[bytes, str], Look], tmp_path: Path
) -> None:
    rows = ball()
    if name == "version 3":  # by its specification y is up, and z towards the viewer
        rows[:, 1:3] *= -1
    shown = pixels(seen(CONTAINERS[name](rows, tmp_path), "spz").thumbnail)
    assert middle_of(shown, RED)[0] < 0.3 and middle_of(shown, BLUE)[1] < 0.45


def test_a_mesh_stands_upright_and_shows_its_front(seen: Callable[[bytes, str], Look]) -> None:
    boxes = trimesh.Scene()
    for colour, place in ((RED, [0, 1, 0]), (BLUE, [0, 0, 1]), (GREEN, [0, 0, 0])):
        one = trimesh.creation.box(extents=(0.9, 0.9, 0.9))
        one.visual.vertex_colors = [*(round(255 * part) for part in colour), 255]
        boxes.add_geometry(one, transform=trimesh.transformations.translation_matrix(place))
    found = seen(boxes.export(file_type="glb"), "glb")
    assert (found.kind, found.count, found.flags) == ("mesh", 36, ())
    shown = pixels(found.thumbnail)
    assert middle_of(shown, RED)[0] < 0.35
    assert middle_of(shown, BLUE)[0] > 0.5 and middle_of(shown, BLUE)[1] < 0.5


def two_discs(near_opacity: float) -> Splats:
    """Return a green splat behind a red one, as seen by ``view_of``."""
    behind = view_of(np.eye(3, dtype="f4"), "-y", 64).turn[2]
    return Splats(
        position=np.array([behind, -behind], "f4"), colour=np.array([GREEN, RED], "f4"),
        opacity=np.array([0.99, near_opacity], "f4"), scale=np.full((2, 3), 0.5, "f4"),
        rotation=np.array([[1, 0, 0, 0]] * 2, "f4"), total=2,
    )  # fmt: skip


def test_what_is_near_hides_what_is_behind_as_far_as_it_is_opaque() -> None:
    for opacity, share in ((0.99, 0.99), (0.5, 0.5), (0.1, 0.1)):
        splats = two_discs(opacity)
        red, green, _, alpha = blended(splats, view_of(splats.position * 2, "-y", 64))[32, 32]
        assert alpha == pytest.approx(1 - 0.01 * (1 - opacity), abs=0.02)
        assert red == pytest.approx(RED[0] * share + GREEN[0] * (1 - share), abs=0.04)
        assert green == pytest.approx(RED[1] * share + GREEN[1] * (1 - share), abs=0.04)


def test_however_many_splats_are_near_what_they_do_not_hide_is_drawn() -> None:
    view = View(turned("-y"), np.zeros(3, "f4"), 128, 256)  # from -1 to 1
    count = 2000
    seen = np.random.default_rng(1).uniform(-0.2, 0.2, (2 * count, 3)) + [0, -0.6, -2]  # right, down, away
    seen[count:] += [0, 1.2, 4]
    splats = Splats(
        position=(seen @ view.turn).astype("f4"),
        colour=np.repeat(np.array([GREEN, RED], "f4"), count, axis=0), opacity=np.full(2 * count, 0.9, "f4"),
        scale=np.repeat(np.array([[0.25] * 3, [0.03] * 3], "f4"), count, axis=0),
        rotation=np.tile(np.array([1, 0, 0, 0], "f4"), (2 * count, 1)), total=2 * count,
    )  # fmt: skip
    assert blended(splats, view)[205, 128] == pytest.approx([*RED, 1], abs=0.02)


def test_a_texture_is_drawn_where_it_belongs(seen: Callable[[bytes, str], Look]) -> None:
    texture = Image.new("RGB", (64, 64), tuple(round(255 * one) for one in BLUE))
    texture.paste(tuple(round(255 * one) for one in RED), (0, 0, 64, 16))
    shown = pixels(seen(textured(texture).export(file_type="glb"), "glb").thumbnail)
    assert middle_of(shown, RED)[0] < 0.35 and middle_of(shown, BLUE)[0] > 0.5


def test_points_are_drawn_so_that_they_close_up(seen: Callable[[bytes, str], Look]) -> None:
    cloud = trimesh.PointCloud(ball(6000)[:, :3], colors=[[20, 200, 20, 255]] * 6000)
    for kind in ("ply", "glb"):
        found = seen(cloud.export(file_type=kind), kind)
        assert (found.kind, found.count, found.flags) == ("points", 6000, ())
        shown = pixels(found.thumbnail)
        assert shown[60:130, 60:130, 3].mean() > 0.9
        assert found.model and found.model[0] == "glb"


def test_thinned_splats_look_like_all_of_them(keep: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "SPLATS", 7000)
    whole = splats_of(keep(splat_ply(ball(20_000))))
    fewer = models.thinned_splats(whole)
    assert len(fewer.position) == 7000
    one, other = (np.asarray(drawn(splats).convert("RGBa"), "f4") / 255 for splats in (whole, fewer))
    assert np.abs(one - other).mean() < 0.04


# models


def test_coordinates_on_a_map_lose_nothing(keep: Callable[[bytes], Path]) -> None:
    rows = ball(2000)[:, :3]
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 2000\n"
    header += "".join(f"property double {axis}\n" for axis in "xyz") + "end_header\n"
    with open(keep(header.encode() + (rows + [500_000, 5_400_000, 120]).astype("<f8").tobytes()), "rb") as file:
        found = ply.read(file).position
    assert np.allclose(found - found.mean(axis=0), rows - rows.mean(axis=0), atol=1e-5)


def moved(rows: np.ndarray, by: float, times: float) -> np.ndarray:
    """Return rows of ``SPLAT`` somewhere else, in another size."""
    rows = rows.copy()
    rows[:, :3] = rows[:, :3] * times + by
    rows[:, 7:10] += np.log(times)
    return rows


@pytest.mark.parametrize("places", [0, 90_000])
def test_a_model_of_splats_is_an_spz_that_gsply_reads(
    places: float, seen: Callable[[bytes, str], Look], tmp_path: Path
) -> None:
    rows = ball(400)
    found = seen(splat_ply(moved(rows, places, 300)), "ply")
    assert found.model
    assert found.box == pytest.approx((600, 600, 600), rel=0.02)  # of the result
    assert found.model[0] == verify(io.BytesIO(found.model[1]), "spz") == "spz"
    (tmp_path / "model.spz").write_bytes(found.model[1])
    splat = gsply.read_spz(tmp_path / "model.spz")
    order, expected = np.lexsort(splat.means.T), np.lexsort(rows[:, :3].T)
    assert np.allclose(
        np.sort(splat.means, axis=0), np.sort(rows[:, :3], axis=0), atol=0.015
    )  # around 0, from -1 to 1
    assert np.allclose(splat.sh0[order].mean(axis=0), rows[expected, 3:6].mean(axis=0), atol=0.03)
    assert np.allclose(splat.opacities, logit(0.95), atol=0.1)
    assert np.allclose(splat.scales, rows[0, 7], atol=0.04)
    nearest = np.argmin(np.linalg.norm(splat.means[:, None] - rows[None, :, :3], axis=2), axis=1)
    assert turned_apart(splat.quats, rows[nearest, 10:]) < 0.015


@pytest.mark.parametrize("times", [1e-6, 1.0, 1e6])
def test_a_model_is_as_fine_as_its_object_whatever_is_around_it(
    times: float, keep: Callable[[bytes], Path], seen: Callable[[bytes, str], Look]
) -> None:
    rows = np.concatenate([ball(2000), ball(40, size=40), ball(40, size=5000)])
    found = seen(splat_ply(moved(rows, 0, times)), "ply")
    assert found.model
    there = splats_of(keep(found.model[1]), spz)
    near = np.linalg.norm(there.position, axis=1) < 2
    assert 40 <= near.sum() < len(there.position)  # some of what is around it is there too
    assert np.allclose(np.linalg.norm(there.position[near], axis=1), 1, atol=0.02)
    assert len(np.unique(there.position[near, 0])) > 0.8 * near.sum()
    assert np.abs(there.position).max() < 50
    assert np.allclose(there.scale[near] / there.scale[near].mean(), 1, atol=0.1)


def test_a_thinned_scene_still_shows_what_it_is_about(
    keep: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "SPLATS", 900)
    rows = np.concatenate([ball(4000), ball(1000, size=20, scale=2)])
    fewer = models.thinned_splats(splats_of(keep(splat_ply(rows))))
    near = np.linalg.norm(fewer.position, axis=1) < 2
    assert (near.sum(), len(near), fewer.total) == (600, 900, 900)
    assert fewer.scale[near].mean() == pytest.approx(np.exp(rows[0, 7]) * (4000 / 600) ** 0.5 * 0.9, rel=0.05)


def test_a_model_of_splats_is_in_the_frame_of_a_ply(seen: Callable[[bytes, str], Look], tmp_path: Path) -> None:
    up = ball(400)
    up[:, 1:3] *= -1
    found = seen(by_gsply(up, 3, tmp_path), "spz")
    assert found.model
    (tmp_path / "model.spz").write_bytes(found.model[1])
    splat = gsply.read_spz(tmp_path / "model.spz")
    red = splat.sh0[:, 0] > 1
    assert splat.means[red, 1].max() < 0


def test_a_large_mesh_becomes_a_small_one_of_the_same_shape_and_colours(seen: Callable[[bytes, str], Look]) -> None:
    found = seen(sphere(6).export(file_type="ply"), "ply")
    assert found.count == 81920 and found.model
    assert found.model[0] == verify(io.BytesIO(found.model[1]), "glb") == "glb"
    assert len(found.model[1]) < 400_000
    (there,) = trimesh.load(io.BytesIO(found.model[1]), file_type="glb", process=False).geometry.values()
    assert 5_000 < len(there.faces) <= models.TRIANGLES * 1.05
    assert np.allclose(np.linalg.norm(there.vertices, axis=1), 1, atol=0.03)
    linear = ((np.array(GREEN) + 0.055) / 1.055) ** 2.4
    assert np.allclose(there.visual.vertex_attributes["color"][:, :3] / 255, linear, atol=0.02)


def test_a_small_glb_is_its_own_model(seen: Callable[[bytes, str], Look]) -> None:
    content = sphere(2).export(file_type="glb")
    assert seen(content, "glb").model == ("glb", content)


def test_a_mesh_with_few_triangles_and_a_large_texture_keeps_its_colours(keep: Callable[[bytes], Path]) -> None:
    texture = Image.new("RGB", (64, 64), tuple(round(255 * one) for one in BLUE))
    texture.paste(tuple(round(255 * one) for one in RED), (0, 0, 64, 16))
    position, colour, faces = models.thinned_mesh(mesh_of(keep(textured(texture).export(file_type="glb"))))
    assert 1000 < len(faces) <= models.TRIANGLES
    assert np.allclose(colour[position[:, 1] > 0.55], RED, atol=0.02)
    assert np.allclose(colour[position[:, 1] < 0.45], BLUE, atol=0.02)


# images and texts


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_an_image_becomes_a_small_one(kind: str, seen: Callable[[bytes, str], Look]) -> None:
    found = seen(image({"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[kind]), kind)
    assert (found.kind, found.count, found.flags, found.model) == ("image", 60_000, (), None)
    assert pixels(found.thumbnail).shape == (128, 192, 4)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_images_of_all_modes_are_drawn(mode: str, seen: Callable[[bytes, str], Look]) -> None:
    found = seen(image(mode=mode), "png")
    assert found.flags == ()
    assert 0.1 < pixels(found.thumbnail)[:, :, :3].mean() < 0.9


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(40, 20), (1500, 777)])
def test_an_image_is_turned_as_its_exif_says(orientation: int, size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, "blue")
    picture.paste("red", (0, 0, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    exif[0x112] = orientation
    content = io.BytesIO()
    picture.save(content, "PNG", exif=exif)
    turned = ImageOps.exif_transpose(picture_of(content)).resize((20, 20), Image.Resampling.BOX)
    found = images.opened(content, SIDE)
    assert max(found.size) == min(max(size), SIDE)
    assert np.abs(np.asarray(found.resize((20, 20)), "f4") - np.asarray(turned, "f4")).mean() < 6


def picture_of(content: io.BytesIO) -> Image.Image:
    content.seek(0)
    return Image.open(content)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "CMYK", "P"])
def test_a_large_image_is_made_smaller_without_another_copy_of_it(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.effect_noise((1600, 1000), 90).convert("RGB" if mode == "P" else mode).convert(mode)
    exact = picture.convert("RGBA").resize((192, 120), Image.Resampling.BOX)
    content = io.BytesIO()
    picture.save(content, "TIFF")
    found = images.opened(content, SIDE)
    assert found.size == (192, 120)
    assert np.abs(np.asarray(found.convert("RGBA"), "f4") - np.asarray(exact, "f4")).mean() < 8
    sizes = []
    plain_copy = Image.Image.convert
    monkeypatch.setattr(Image.Image, "convert", lambda one, *as_: sizes.append(one.size) or plain_copy(one, *as_))
    images.opened(content, SIDE)
    assert max(sizes) < (1600, 1000) or mode == "P"


def plain(colour: str, mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    Image.new(mode, (40, 40), colour).save(content, "PNG")
    return content.getvalue()


def test_an_image_of_one_colour_is_blank(seen: Callable[[bytes, str], Look]) -> None:
    for content in (plain("white"), plain("black"), plain("#12345600", "RGBA")):
        assert seen(content, "png").flags == ((BLANK, "it is of one colour"),)


def test_of_a_text_its_beginning_is_kept(seen: Callable[[bytes, str], Look]) -> None:
    found = seen("  A tale\n\x1b[31mof \N{SNOWMAN}\n".encode() + b"x" * 1000, "txt")
    assert found.words.startswith("A tale\n [31mof \N{SNOWMAN}\nxxx")
    assert (found.kind, found.count, len(found.words)) == ("text", 1019, 300)
    assert seen(b" \n\t", "txt").flags == ((BLANK, "it holds nothing but white space"),)
    assert seen(b'{"a": 1}', "json").words == '{"a": 1}'


def test_what_can_not_be_drawn_is_other(seen: Callable[[bytes, str], Look]) -> None:
    assert seen(b"PK\3\4", "zip") == seen(b"\0\1", "bin") == Look("other")


# what is odd


def flagged(found: Look) -> tuple[str, str]:
    (flag,) = found.flags
    return flag


def test_splats_that_are_not_to_be_seen_are_blank(seen: Callable[[bytes, str], Look]) -> None:
    word, sentence = flagged(seen(splat_ply(ball(opacity=0.01)), "ply"))
    assert (word, sentence) == (BLANK, "none of its 1,500 splats is to be seen: the most opaque one has 1.0% opacity")
    word, sentence = flagged(seen(splat_ply(ball(scale=1e-5)), "ply"))
    assert word == BLANK and "so small or faint that they cover 0.00% of its box" in sentence
    nowhere = ball(300)
    nowhere[:, 0] = np.nan
    assert flagged(seen(splat_ply(nowhere), "ply")) == (BLANK, "none of its 300 positions is a number")


def test_splats_whose_middle_is_scattered_are_exploded(seen: Callable[[bytes, str], Look]) -> None:
    rows = ball(2000)
    rows[:, :3] *= np.exp(np.random.default_rng(2).normal(0, 4, (2000, 1)))
    word, sentence = flagged(seen(splat_ply(rows), "ply"))
    assert word == EXPLODED
    assert sentence == "a quarter of its splats are 211 × as far out as another quarter, or more"


def test_splats_at_no_place_are_exploded_but_not_for_a_few(seen: Callable[[bytes, str], Look]) -> None:
    rows = ball(2000)
    rows[:10, 0] = np.inf
    assert seen(splat_ply(rows), "ply").flags == ()
    rows[:40, 0] = np.inf
    assert flagged(seen(splat_ply(rows), "ply")) == (EXPLODED, "2.0% of its splats are at no place: not finite")


@pytest.mark.parametrize(("share", "distance"), [(0.02, 20), (0.02, 300), (0.3, 60)])
def test_what_is_around_an_object_neither_hides_it_nor_makes_it_odd(
    share: float, distance: float, seen: Callable[[bytes, str], Look]
) -> None:
    rows = np.concatenate([ball(3000), ball(round(3000 * share), size=distance, scale=distance / 10)])
    found = seen(splat_ply(rows), "ply")
    assert found.flags == ()
    shown = pixels(found.thumbnail)
    assert middle_of(shown, RED)[0] < 0.3 and middle_of(shown, BLUE)[1] < 0.45
    assert found.box and min(found.box) > distance / 2  # as it is measured, whatever is shown


def test_flat_splats_have_two_sizes(keep: Callable[[bytes], Path]) -> None:
    found = splats_of(keep(splat_ply(ball(50), names=tuple(name for name in SPLAT if name != "scale_2"))))
    assert np.allclose(found.scale, np.exp(ball(50)[:, 7:10]) * [1, 1, 0], rtol=1e-5)


def glb_of(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    size = 28 + len(text) + len(binary)
    start = struct.pack("<4sIII4s", b"glTF", 2, size, len(text), b"JSON")
    return start + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary


def with_json(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """Return a GLB with its JSON changed."""
    length = struct.unpack_from("<I", content, 12)[0]
    document = json.loads(content[20 : 20 + length])
    change(document)
    return glb_of(document, content[28 + length :])


def test_a_compressed_glb_is_not_drawn_and_says_why(seen: Callable[[bytes, str], Look]) -> None:
    for extension, name in (("KHR_draco_mesh_compression", "Draco"), ("EXT_meshopt_compression", "meshopt")):
        content = with_json(sphere(1).export(file_type="glb"), lambda one: one.update(extensionsRequired=[extension]))  # noqa: B023
        assert seen(content, "glb") == Look("other", why=f"a GLB that is compressed with {name}")


def test_a_glb_of_lines_only_is_not_drawn_and_says_why(seen: Callable[[bytes, str], Look]) -> None:
    lines = with_json(SPHERE, lambda one: one["meshes"][0]["primitives"][0].update(mode=1))
    assert seen(lines, "glb") == Look("other", why="a GLB of lines only")


def bomb() -> bytes:
    """Return a PNG that claims a hundred thousand pixels each way."""
    content = bytearray(plain("white"))
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return bytes(content)


SPHERE = sphere(1).export(file_type="glb")
HOSTILE: dict[str, tuple[str, bytes]] = {
    "an empty file": ("ply", b""),
    "a header only": ("ply", b"ply\nformat ascii 1.0\n"),
    "no vertices": ("ply", splat_ply(ball(9)[:0])),
    "more vertices than the world": ("ply", splat_ply(ball(9)).replace(b"vertex 9", b"vertex 1" + b"0" * 15)),
    "a cut ascii PLY": ("ply", splat_ply(ball(9), encoding="ascii")[:-300]),
    "words for numbers": ("ply", splat_ply(ball(9), encoding="ascii").replace(b"0.", b"zero")),
    "no positions": ("ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float q\nend_header\n1\n"),
    "a face of less than no corners": (
        "ply",
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty int x\nproperty int y\nproperty int z\nelement face 2\n"
        b"property list char int vertex_index\nend_header\n".replace(b"ascii", b"binary_little_endian")
        + bytes(12)
        + b"\1"
        + bytes(4)
        + b"\xff"
        + bytes(9),
    ),
    "an empty GLB": ("glb", b""),
    "a cut GLB": ("glb", SPHERE[: len(SPHERE) // 2]),
    "no scene": ("glb", with_json(SPHERE, lambda one: one.update(scenes=[{"nodes": []}]))),
    "a node that is not there": ("glb", with_json(SPHERE, lambda one: one.update(scenes=[{"nodes": [10**9]}]))),
    "text for an accessor": ("glb", with_json(SPHERE, lambda one: one.update(accessors="x" * 9))),
    "a negative count": ("glb", with_json(SPHERE, lambda one: one["accessors"][0].update(count=-5))),
    "a count beyond all": ("glb", with_json(SPHERE, lambda one: one["accessors"][0].update(count=10**15))),
    "a view beyond the end": ("glb", with_json(SPHERE, lambda one: one["bufferViews"][0].update(byteLength=10**9))),
    "an empty SPZ": ("spz", b""),
    "gzip of something else": ("spz", gzip.compress(b"a tar, maybe, with more than sixteen bytes")),
    "a cut SPZ": ("spz", halves(ball(300))[:-900]),
    "a cut PNG": ("png", image()[:-900]),
    "no image": ("jpg", b"no image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_result_is_unreadable_and_says_why(name: str, seen: Callable[[bytes, str], Look]) -> None:
    kind, content = HOSTILE[name]
    word, sentence = flagged(seen(content, kind))
    assert word == UNREADABLE and sentence.startswith("it is unreadable: ")
    assert "/" not in sentence and "0x" not in sentence


def test_a_bomb_is_not_unpacked(seen: Callable[[bytes, str], Look]) -> None:
    assert seen(bomb(), "png") == Look("other", why="an image that claims to be too large")


def test_an_image_of_too_many_pixels_is_not_unpacked(
    seen: Callable[[bytes, str], Look], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_PIXELS_MAX", 1_000_000)
    assert seen(image(size=(1000, 1001)), "png") == Look("other", why="an image of more than 1 megapixels")
    assert seen(image("JPEG", size=(1000, 1001)), "jpg").count == 1_001_000  # it is read at an eighth of its size


def test_a_cycle_of_nodes_ends(seen: Callable[[bytes, str], Look]) -> None:
    def change(document: dict[str, Any]) -> None:
        for node in document["nodes"]:
            node["children"] = list(range(len(document["nodes"])))

    assert seen(with_json(SPHERE, change), "glb").count == 80


def test_one_splat_is_drawn(seen: Callable[[bytes, str], Look]) -> None:
    found = seen(splat_ply(ball(1, scale=0.1)), "ply")
    assert (found.kind, found.count, found.flags, found.box) == ("splats", 1, (), (0, 0, 0))
    assert pixels(found.thumbnail)[:, :, 3].max() > 0.9


def test_damage_of_any_kind_raises_nothing(keep: Callable[[bytes], Path], tmp_path: Path) -> None:
    wholes = {
        "ply": splat_ply(ball(60)), "glb": textured(Image.new("RGB", (8, 8), "red")).export(file_type="glb"),
        "spz": halves(ball(60)), "png": image(size=(20, 20)),
    }  # fmt: skip
    chance = random.Random(7)
    for number in range(100):
        kind = [*wholes][number % len(wholes)]
        content = bytearray(wholes[kind])
        for _ in range(chance.choice([1, 3, 20])):
            at = chance.randrange(min(len(content), chance.choice([400, 10**9])))
            content[at] = chance.choice([0, 255, 57, 45])
        assert look(keep(bytes(content)), kind).kind
