"""Draw what a shape looks like: a small picture with a transparent background."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from runner.pictures.blend import blended
from runner.pictures.raster import rasterised
from runner.pictures.shapes import Floats, Mesh, Points, Splats, finite, thinned
from runner.pictures.view import middle, view_of

SIDE = 192
"""Pixels of a thumbnail's longer side."""

_SPLATS_SIDE, _MESH_SIDE = 256, 384
"""Drawn larger, then scaled down: edges become smooth."""

_SAMPLE = 60_000
"""Faces that a view is chosen by."""

_FEW = 1000
"""Of fewer splats the size of each counts for the view; of more, the usual one."""

_COVER = 0.9
_POINT_MIN, _POINT_MAX = 0.45, 2.5
"""Standard deviations of a point, in pixels."""


def drawn(shape: Splats | Mesh | Points) -> Image.Image:
    """Return the picture, ``SIDE`` pixels wide and tall; wholly transparent if nothing is to be seen."""
    if isinstance(shape, Mesh):
        return _picture(_mesh(shape))
    return _picture(_splats(shape) if isinstance(shape, Splats) else _points(shape))


def _splats(splats: Splats) -> Floats:
    seen = splats[splats.visible()]
    if not len(seen.position):
        return _nothing(_SPLATS_SIDE)
    if splats.total > len(splats.position):
        seen = seen.larger(float((splats.total / len(splats.position)) ** 0.5 * _COVER))
    inside = middle(seen.position)
    position, reach = seen.position[inside], 2 * seen.scale[inside].max(axis=1, keepdims=True)
    if len(position) >= _FEW:
        reach = np.median(reach)
    position = np.concatenate([position - reach, position + reach])
    view = view_of(position, seen.up, _SPLATS_SIDE)
    if not inside.all():  # what is before it would hide it
        depth = seen.position @ view.turn[2]
        seen = seen[depth >= depth[inside].min()]
    return blended(seen, view)


def _mesh(mesh: Mesh) -> Floats:
    """Draw the faces whose corners are somewhere."""
    fine = finite(mesh.position)
    if not fine.all():
        mesh = mesh.only(np.flatnonzero(fine[mesh.faces].all(axis=1)))
    faces = mesh.faces
    if not len(faces):
        return _nothing(_MESH_SIDE)
    view = view_of(mesh.position[faces[thinned(len(faces), _SAMPLE)].reshape(-1)], mesh.up, _MESH_SIDE)
    whole = np.where(fine[:, None], mesh.position, 0)
    return rasterised(replace(mesh, position=whole), view)


def _points(points: Points) -> Floats:
    """Draw points as small balls, so large that they cover what lies between them."""
    fine = finite(points.position)
    position, colour = points.position[fine], points.colour[fine]
    if not len(position):
        return _nothing(_SPLATS_SIDE)
    view = view_of(position, points.up, _SPLATS_SIDE)
    cells = np.unique((view.project(position)[:, :2] / 8).astype(np.int32), axis=0)
    spacing = (64 * len(cells) / len(position)) ** 0.5
    size = np.clip(spacing * 1.5, _POINT_MIN, _POINT_MAX) / view.pixels_per_unit
    return blended(
        Splats(
            position,
            colour,
            np.full(len(position), 0.95, dtype=np.float32),
            np.full((len(position), 3), size, dtype=np.float32),
            np.tile(np.array([1, 0, 0, 0], dtype=np.float32), (len(position), 1)),
            total=points.total,
            up=points.up,
        ),
        view,
    )


def _nothing(side: int) -> Floats:
    return np.zeros((side, side, 4), dtype=np.float32)


def _picture(pixels: Floats) -> Image.Image:
    alpha = pixels[:, :, 3:]
    straight = np.where(alpha > 0, pixels[:, :, :3] / np.maximum(alpha, 1e-6), 0)
    levels = np.concatenate([straight, alpha], axis=2).clip(0, 1) * 255
    image = Image.fromarray(levels.round().astype(np.uint8))
    return image.resize((SIDE, SIDE), Image.Resampling.BOX if len(pixels) == 2 * SIDE else Image.Resampling.LANCZOS)
