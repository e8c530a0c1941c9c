"""Splats, meshes and images to draw, as the bytes of files; written without the code under test."""

from __future__ import annotations

import io

import numpy as np
import trimesh
from PIL import Image

SPLAT = (
    ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")
    + ("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")
)  # fmt: skip
SH_C0 = 0.28209479177387814
RED, GREEN, BLUE = (0.9, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.9)


def logit(opacity: float) -> float:
    return float(np.log(opacity / (1 - opacity)))


def ball(count: int = 1500, *, size: float = 1.0, opacity: float = 0.95, scale: float | None = None) -> np.ndarray:
    """Return rows of ``SPLAT``: a grey sphere, red on top and blue in front, in COLMAP's frame."""
    rng = np.random.default_rng(1)
    position = rng.normal(size=(count, 3))
    position *= size / np.linalg.norm(position, axis=1, keepdims=True)
    colour = np.full((count, 3), 0.5)
    colour[position[:, 1] < -0.5 * size] = RED  # y points down
    colour[(position[:, 2] < -0.6 * size) & (position[:, 1] > -0.5 * size)] = BLUE  # z points away
    rows = np.zeros((count, len(SPLAT)))
    rows[:, :3] = position
    rows[:, 3:6] = (colour - 0.5) / SH_C0
    rows[:, 6] = logit(opacity)
    rows[:, 7:10] = np.log(scale if scale is not None else 2.5 * size / np.sqrt(count))
    rows[:, 10:] = rng.normal(size=(count, 4))
    return rows


def splat_ply(rows: np.ndarray, *, encoding: str = "binary_little_endian", names: tuple[str, ...] = SPLAT) -> bytes:
    """Return a PLY of rows; properties that ``SPLAT`` lacks are 0, in an order of their own."""
    columns = np.zeros((len(rows), len(names)))
    for number, name in enumerate(names):
        if name in SPLAT:
            columns[:, number] = rows[:, SPLAT.index(name)]
    header = f"ply\nformat {encoding} 1.0\ncomment a test\nelement vertex {len(rows)}\n"
    header += "".join(f"property float {name}\n" for name in names) + "end_header\n"
    if encoding == "ascii":
        return header.encode() + "".join(" ".join(f"{one:.7g}" for one in row) + "\n" for row in columns).encode()
    order = "<" if encoding == "binary_little_endian" else ">"
    return header.encode() + columns.astype(order + "f4").tobytes()


def sphere(subdivisions: int = 3, colour: tuple[float, float, float] = GREEN) -> trimesh.Trimesh:
    found = trimesh.creation.icosphere(subdivisions)
    found.visual.vertex_colors = [*(round(255 * one) for one in colour), 255]
    return found


def textured(texture: Image.Image) -> trimesh.Trimesh:
    """Return a sheet of two triangles that faces +z, with a texture."""
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=texture)
    return trimesh.Trimesh(
        [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]],
        [[0, 1, 2], [0, 2, 3]],
        visual=trimesh.visual.TextureVisuals(uv=[[0, 0], [1, 0], [1, 1], [0, 1]], material=material),
        process=False,
    )


def image(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (300, 200)) -> bytes:
    content = io.BytesIO()
    noise = Image.effect_noise(size, 90)
    coloured = Image.merge("RGB", (noise, noise.rotate(90).resize(size), noise))
    deep = Image.fromarray(np.asarray(noise).astype("u2") * 257)
    (deep if mode == "I;16" else coloured.convert(mode)).save(content, kind)
    return content.getvalue()
