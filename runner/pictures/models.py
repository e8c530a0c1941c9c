"""Thin a shape out for a view in 3D: fewer splats, each a little larger; fewer triangles, corners with colours.

Positions keep the frame they had, but those of splats always are in COLMAP's (``Splats.up`` is ``-y``), around 0 and
of a usual size: an SPZ has numbers for nothing else.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from runner.pictures.raster import surface_colour
from runner.pictures.shapes import Floats, Ints, Mesh, Points, Splats, finite, thinned
from runner.pictures.spz import order_of
from runner.pictures.view import bounds, middle

SPLATS = 27_000
"""In a model at the most: 270 KB, up to 400 KB where nothing is alike."""

TRIANGLES = 20_000
POINTS = 25_000
"""In a model at the most: about 300 and 400 KB."""

_CELLS = 110
"""Along the longest side, to begin with."""

_INNER = 2 / 3
"""So many of them show what a scene is about, if it has as many: what is around that is larger, but matters less."""

_FARTHEST = 50.0
"""What is so many times as far out as an object is large is left out: it would take bits that the object needs."""

_SAMPLE = 100_000
_INSIDE = 0.8
_COVER = 0.9
"""Enlarged until they cover as much as all did, but for this: edges must not swell."""


def thinned_splats(splats: Splats) -> Splats:
    """Return at most ``SPLATS`` visible ones, in COLMAP's frame; what is opaque and large is kept more likely.

    What they show reaches from about -1 to 1.
    """
    seen = _of_usual_size(splats[splats.visible()])
    if seen.up == "y":
        flip = np.array([1, -1, -1], dtype=np.float32)
        turned = seen.rotation * np.array([1, 1, -1, -1], dtype=np.float32)
        seen = replace(seen, position=seen.position * flip, rotation=turned, up="-y")
    inside = middle(seen.position)
    count = int(inside.sum())
    most = min(count, max(round(SPLATS * _INNER), SPLATS - (len(inside) - count)))
    share = splats.total / max(1, len(splats.position))
    first, second = _thinned(seen[inside], most, share), _thinned(seen[~inside], SPLATS - most, share)
    kept = first.with_(second)
    return kept[order_of(kept.position)] if len(kept.position) else kept


def _thinned(splats: Splats, most: int, share: float) -> Splats:
    """Return at most so many of splats, as large as all were together; each already stands for ``share`` of them."""
    cover = _cover(splats)
    before = float(cover.sum()) * share
    if len(cover) > most:
        chance = np.random.default_rng(0).exponential(size=len(cover)) / np.maximum(np.sqrt(cover), 1e-12)
        splats = splats[np.sort(np.argsort(chance)[:most])]
    after = float(_cover(splats).sum())
    return splats.larger(max(1.0, (before / after) ** 0.5 * _COVER)) if before > after > 0 else splats


def _of_usual_size(splats: Splats) -> Splats:
    if not len(splats.position):
        return splats
    low, high = bounds(splats.position[middle(splats.position)])
    half = float((high - low).max()) / 2 or max(float(np.median(splats.scale.max(axis=1))), 1e-30)
    position = (splats.position.astype(np.float64) - (low.astype(np.float64) + high) / 2) / half
    near = np.linalg.norm(position, axis=1) < _FARTHEST
    sized = replace(splats, position=position.astype(np.float32), scale=(splats.scale / half).astype(np.float32))
    return sized[near]


def _cover(splats: Splats) -> npt.NDArray[np.float64]:
    """Return how much each covers: its two larger sides and its opacity."""
    sides = np.sort(splats.scale.astype(np.float64), axis=1)[:, 1:]
    return np.asarray(sides.prod(axis=1) * splats.opacity)


def thinned_mesh(mesh: Mesh) -> tuple[Floats, Floats, Ints]:
    """Return positions, colours and triangles, at most about ``TRIANGLES``: corners in one cell become one."""
    mesh = _finer(mesh)
    if mesh.uv is None:
        used, corner = _numbered(mesh.faces.reshape(-1), len(mesh.position))
        position, colour = mesh.position[used], mesh.colour[used]
    else:
        corner = np.arange(mesh.faces.size)
        position, colour = mesh.position[mesh.faces.reshape(-1)], _corner_colours(mesh)
    if len(mesh.faces) <= TRIANGLES:
        _, member = np.unique(position, axis=0, return_inverse=True)
        faces = member.reshape(-1)[corner].reshape(-1, 3)
    else:
        member, faces = _clustered(position, corner)
    member = member.reshape(-1)
    return _means(position, member), _means(colour, member).clip(0, 1), faces


def _clustered(position: Floats, corner: Ints) -> tuple[Ints, Ints]:
    """Return which new corner each position becomes a part of, and the triangles that are left."""
    low, high = bounds(position[thinned(len(position), _SAMPLE)])
    cells = _CELLS
    while True:
        cell = ((position - low) / max(float((high - low).max()), 1e-20) * cells).clip(-1, cells + 1).astype(
            np.int64
        ) + 1
        _, member = _numbered((cell[:, 0] * (cells + 3) + cell[:, 1]) * (cells + 3) + cell[:, 2], (cells + 3) ** 3)
        faces = member[corner].reshape(-1, 3)
        faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
        low_, mid, high_ = np.sort(faces, axis=1).T
        _, kept = np.unique(low_ << 42 | mid << 21 | high_, return_index=True)
        if len(kept) <= TRIANGLES * 1.05 or cells == 1:
            return member, faces[np.sort(kept)]
        cells = max(1, int(cells * min(0.9, (TRIANGLES / len(kept)) ** 0.5)))


def _numbered(numbers: Ints, size: int) -> tuple[Ints, Ints]:
    """Return the different numbers there are, all less than ``size``, and the place of each among them."""
    there = np.zeros(size, dtype=np.bool_)
    there[numbers] = True
    place = np.cumsum(there) - 1
    return np.flatnonzero(there), place[numbers]


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
        faces = np.concatenate(
            [np.stack(one, axis=1) for one in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
        )
        texture = None if mesh.texture is None else np.tile(mesh.texture, 4)
        mesh = replace(
            mesh, position=halves[0], colour=halves[1], uv=halves[2], faces=faces, texture=texture, normal=None
        )
    return mesh


def _means(values: Floats, member: Ints) -> Floats:
    count = np.bincount(member)
    sums = [np.bincount(member, weights=column) for column in values.T]
    return np.stack([total / count for total in sums], axis=1).astype(np.float32)


def thinned_points(points: Points) -> tuple[Floats, Floats]:
    """Return positions and colours of at most ``POINTS`` points."""
    chosen = np.flatnonzero(finite(points.position))
    chosen = chosen[thinned(len(chosen), POINTS)]
    return points.position[chosen], points.colour[chosen]
