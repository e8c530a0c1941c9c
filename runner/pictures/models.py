"""Thin a shape out for a view in 3D: fewer splats, each a little larger; fewer triangles, corners with colours.

Positions keep the frame they had, but those of splats always are in COLMAP's (``Splats.up`` is ``-y``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from runner.pictures.raster import surface_colour
from runner.pictures.shapes import Floats, Ints, Mesh, Points, Splats, finite, thinned
from runner.pictures.spz import order_of
from runner.pictures.view import bounds

SPLATS = 32_000
"""In a model at the most: 320 KB, up to 400 KB where nothing is alike."""

TRIANGLES = 20_000
POINTS = 25_000
"""In a model at the most: about 300 and 400 KB."""

_CELLS = 110
"""Along the longest side, to begin with."""

_INSIDE = 0.8
_COVER = 0.9
"""Thinned to a quarter, splats twice as large would cover as much; but their edges must not swell."""


def thinned_splats(splats: Splats) -> Splats:
    """Return at most ``SPLATS`` visible ones, in COLMAP's frame; what is opaque and large is kept more likely."""
    seen = splats[splats.visible()]
    if seen.up == "y":
        flip = np.array([1, -1, -1], dtype=np.float32)
        turned = seen.rotation * np.array([1, 1, -1, -1], dtype=np.float32)
        seen = replace(seen, position=seen.position * flip, rotation=turned, up="-y")
    count = len(seen.position)
    if count > SPLATS:
        size = np.sort(seen.scale, axis=1)[:, 1:].prod(axis=1) ** 0.5
        weight = np.maximum(seen.opacity * size, 1e-12)
        chance = np.random.default_rng(0).exponential(size=count) / weight
        chosen = np.argpartition(chance, SPLATS)[:SPLATS]
        seen = seen[np.sort(chosen)].larger(float((count / SPLATS) ** 0.5 * _COVER))
    return seen[order_of(seen.position)] if len(seen.position) else seen


def thinned_mesh(mesh: Mesh) -> tuple[Floats, Floats, Ints]:
    """Return positions, colours and triangles, at most about ``TRIANGLES``: corners in one cell become one."""
    mesh = _finer(mesh)
    colour = _corner_colours(mesh)
    corner = mesh.faces.reshape(-1)
    low, high = bounds(mesh.position[corner])
    cells = _CELLS if len(mesh.faces) > TRIANGLES else 0
    while True:
        place = _places(mesh.position, corner, low, float((high - low).max()), cells)
        found, first, member = np.unique(place, return_index=True, return_inverse=True)
        faces = member.reshape(-1, 3)
        faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
        if cells:
            _, kept = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
            faces = faces[np.sort(kept)]
        if len(faces) <= TRIANGLES * 1.05 or cells == 1:
            break
        cells = max(1, int(cells * min(0.9, (TRIANGLES / len(faces)) ** 0.5)))
    count = np.bincount(member, minlength=len(found))[:, None]
    position = _sums(mesh.position[corner], member, len(found)) / count
    mixed = _sums(colour, member, len(found)) / count
    return position.astype(np.float32), mixed.astype(np.float32).clip(0, 1), faces


def _places(position: Floats, corner: Ints, low: Floats, extent: float, cells: int) -> Ints:
    """Return a number for each corner, equal for those that are to become one."""
    if not cells:  # those that are at the same place already
        _, same = np.unique(position, axis=0, return_inverse=True)
        return same.reshape(-1)[corner].astype(np.int64)
    cell = ((position - low) / max(extent, 1e-20) * cells).clip(-1, cells + 1).astype(np.int64) + 1
    number = (cell[:, 0] * (cells + 3) + cell[:, 1]) * (cells + 3) + cell[:, 2]
    return np.asarray(number[corner])


def _corner_colours(mesh: Mesh) -> Floats:
    """Return the colour near each corner of each face, a little inside it."""
    number = np.arange(len(mesh.faces))
    near = np.full((len(mesh.faces), 3, 3), (1 - _INSIDE) / 2, dtype=np.float32)
    near[:, [0, 1, 2], [0, 1, 2]] = _INSIDE
    return np.stack([surface_colour(mesh, number, near[:, k]) for k in range(3)], axis=1).reshape(-1, 3)


def _finer(mesh: Mesh) -> Mesh:
    """Cut triangles with a texture into four each, as often as there is room: colours are only at corners."""
    while mesh.uv is not None and 0 < len(mesh.faces) * 4 <= TRIANGLES:
        a, b, c = mesh.faces.T
        count, size = len(mesh.position), len(mesh.faces)
        ab, bc, ca = (count + size * k + np.arange(size) for k in range(3))
        halves = [np.concatenate([all_, *((all_[p] + all_[q]) / 2 for p, q in ((a, b), (b, c), (c, a)))])
                  for all_ in (mesh.position, mesh.colour, mesh.uv)]  # fmt: skip
        faces = np.concatenate([np.stack(one, axis=1) for one in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
        texture = None if mesh.texture is None else np.tile(mesh.texture, 4)
        mesh = replace(
            mesh, position=halves[0], colour=halves[1], uv=halves[2], faces=faces, texture=texture, normal=None
        )
    return mesh


def _sums(values: Floats, member: Ints, count: int) -> Floats:
    return np.stack([np.bincount(member, weights=column, minlength=count) for column in values.T], axis=1)


def thinned_points(points: Points) -> tuple[Floats, Floats]:
    """Return positions and colours of at most ``POINTS`` points."""
    chosen = np.flatnonzero(finite(points.position))
    chosen = chosen[thinned(len(chosen), POINTS)]
    return points.position[chosen], points.colour[chosen]
