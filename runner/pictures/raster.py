"""Draw a mesh on the CPU: a depth buffer in numpy, then the light on what is nearest in each pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from runner.pictures.shapes import Floats, Ints, Mesh
from runner.pictures.view import View

_LIGHT = np.array([-0.42, -0.68, -0.6], dtype=np.float32) / np.float32(np.sqrt(0.42**2 + 0.68**2 + 0.6**2))
"""Where the light is: right, down, away."""

_AMBIENT, _DIFFUSE, _SKY = 0.56, 0.5, 0.1
_BLOCK = 1_000_000
_PIXELS_MAX = 60_000_000
"""Looked at in all; triangles beyond that are left out."""

_DEPTH_BITS, _FACE_BITS = 30, 24
_FACES = (1 << _FACE_BITS) - 1
_NOTHING = np.int64(2**62)
_EDGE = -1e-5
_LAYERS = 5
"""So many faces that do not hide all may be one behind the other."""


def rasterised(mesh: Mesh, view: View) -> Floats:
    """Return ``view.side``² pixels of red, green, blue (each multiplied by alpha) and alpha, 0 to 1."""
    at = view.project(mesh.position)
    picture = np.zeros((view.side * view.side, 4), dtype=np.float32)
    behind = np.full(view.side * view.side, -1, dtype=np.int64)
    for _ in range(1 if mesh.alpha is None else _LAYERS):
        nearest = _nearest(at, mesh.faces, view.side, behind)
        pixel = np.flatnonzero(nearest < _NOTHING)
        face = nearest[pixel] & _FACES
        weight = _weights(at[mesh.faces[face]], pixel, view.side)
        colour = surface_colour(mesh, face, weight) * _light(mesh, view, face, weight)[:, None]
        alpha = _alpha(mesh, face, weight)
        shown = (1 - picture[pixel, 3]) * alpha
        picture[pixel, :3] += colour.clip(0, 1) * shown[:, None]
        picture[pixel, 3] += shown
        if (alpha == 1).all():
            break
        behind[:] = _NOTHING
        behind[pixel] = np.where(alpha < 1, nearest[pixel], _NOTHING)
    return picture.reshape(view.side, view.side, 4)


def surface_colour(mesh: Mesh, face: Ints, weight: Floats) -> Floats:
    """Return the colour in sRGB at places on faces, given by the weights of their corners."""
    corners = mesh.faces[face]
    colour: Floats = (mesh.colour[corners] * weight[:, :, None]).sum(axis=1)
    return colour * _texels(mesh, face, weight)[:, :3]


def _alpha(mesh: Mesh, face: Ints, weight: Floats) -> Floats:
    """Return how much of what is behind them places on faces hide, 0 to 1."""
    if mesh.alpha is None or mesh.cutoff is None:
        return np.ones(len(face), dtype=np.float32)
    alpha, cutoff = mesh.alpha[face] * _texels(mesh, face, weight)[:, 3], mesh.cutoff[face]
    return np.where(cutoff == 0, alpha, alpha >= cutoff).astype(np.float32)


def _texels(mesh: Mesh, face: Ints, weight: Floats) -> Floats:
    """Return what textures have at places on faces, 0 to 1; 1 where there is none."""
    found = np.ones((len(face), 4), dtype=np.float32)
    if mesh.texture is None or mesh.uv is None:
        return found
    uv = (mesh.uv[mesh.faces[face]] * weight[:, :, None]).sum(axis=1)
    uv = np.where(np.isfinite(uv), uv, 0)
    for number, (texture, wrap) in enumerate(zip(mesh.textures, mesh.wraps, strict=True)):
        here = np.flatnonzero(mesh.texture[face] == number)
        height, width = texture.shape[:2]
        column, row = (
            (_WRAPS[beyond](uv[here, axis]) * size).astype(np.int64).clip(0, size - 1)
            for axis, (beyond, size) in enumerate(zip(wrap, (width, height), strict=True))
        )
        found[here] = texture[row, column].astype(np.float32) / 255
    return found


_WRAPS: dict[str, Callable[[Floats], Floats]] = {
    "repeat": lambda at: at % 1,
    "clamp": lambda at: at.clip(0, 1),
    "mirror": lambda at: 1 - np.abs(at % 2 - 1),
}


def _nearest(at: Floats, faces: Ints, side: int, behind: Ints) -> Ints:
    """Return for every pixel the depth and number of the nearest face there behind another, both in one number."""
    nearest = np.full(side * side, _NOTHING)
    depth = at[:, 2]
    low, high = float(depth.min(initial=0)), float(depth.max(initial=1))
    level = ((depth - low) / max(high - low, 1e-9) * ((1 << _DEPTH_BITS) - 1)).astype(np.float64)
    for chosen, left, top, wide, tall in _blocks(at, faces, side):
        triangles = at[faces[chosen]]
        column = left[:, None] + np.arange(wide)
        row = top[:, None] + np.arange(tall)
        x = column.astype(np.float32)[:, None, :] + np.float32(0.5)
        y = row.astype(np.float32)[:, :, None] + np.float32(0.5)
        (ax, ay), (bx, by), (cx, cy) = (
            (triangles[:, k, 0, None, None], triangles[:, k, 1, None, None]) for k in range(3)
        )
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        first = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
        second = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
        third = 1 - first - second
        inside = (first >= _EDGE) & (second >= _EDGE) & (third >= _EDGE)
        inside &= ((column >= 0) & (column < side))[:, None, :] & ((row >= 0) & (row < side))[:, :, None]
        one, down, across = np.nonzero(inside)
        levels = level[faces[chosen[one]]]
        here = sum(part[one, down, across] * levels[:, k] for k, part in enumerate((first, second, third)))
        key = (np.clip(here, 0, (1 << _DEPTH_BITS) - 1).astype(np.int64) << _FACE_BITS) | chosen[one]
        pixel = row[one, down] * side + column[one, across]
        closer = (key < nearest[pixel]) & (key > behind[pixel])
        np.minimum.at(nearest, pixel[closer], key[closer])
    return nearest


def _blocks(at: Floats, faces: Ints, side: int) -> Iterator[tuple[Ints, Ints, Ints, int, int]]:
    """Yield faces whose boxes are about as wide and as tall, and where each box begins and how large it is."""
    a, b, c = (at[faces[:, corner], :2] for corner in range(3))
    low = np.floor(np.minimum(np.minimum(a, b), c)).clip(-1, side).astype(np.int64)
    size = np.ceil(np.maximum(np.maximum(a, b), c)).clip(-1, side).astype(np.int64) - low
    area = np.abs((b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]))
    seen = np.flatnonzero((area > 1e-9) & (size > 0).all(axis=1))
    steps = np.ceil(np.log2(size[seen])).astype(np.int64)  # 1, 2, 4, 8 … pixels
    kind = steps[:, 0] * 32 + steps[:, 1]
    spent = 0
    for one in np.unique(kind):
        members = seen[kind == one]
        wide, tall = 1 << int(one) // 32, 1 << int(one) % 32
        run = max(1, _BLOCK // (wide * tall))
        for begin in range(0, len(members), run):
            chosen = members[begin : begin + run]
            spent += len(chosen) * wide * tall
            if spent > _PIXELS_MAX:
                return
            yield chosen, low[chosen, 0], low[chosen, 1], wide, tall


def _weights(triangles: Floats, pixel: Ints, side: int) -> Floats:
    """Return the weights of the corners of triangles at the middle of pixels."""
    x = (pixel % side).astype(np.float32) + np.float32(0.5)
    y = (pixel // side).astype(np.float32) + np.float32(0.5)
    (ax, ay), (bx, by), (cx, cy) = ((triangles[:, k, 0], triangles[:, k, 1]) for k in range(3))
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    first = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
    second = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
    return np.stack([first, second, 1 - first - second], axis=1).clip(0, 1)


def _light(mesh: Mesh, view: View, face: Ints, weight: Floats) -> Floats:
    """Return how bright places on faces are; both sides of a face are lit alike."""
    a, b, c = (mesh.position[mesh.faces[face, k]] for k in range(3))
    flat = _unit(np.cross(b - a, c - a) @ view.turn.T)
    normal = flat
    if mesh.normal is not None:
        smooth = (mesh.normal[mesh.faces[face]] * weight[:, :, None]).sum(axis=1) @ view.turn.T
        length = np.linalg.norm(smooth, axis=1, keepdims=True)
        normal = np.where(length > 1e-3, smooth / np.maximum(length, 1e-3), flat)
    normal = np.where(flat[:, 2:] > 0, -normal * np.sign((normal * flat).sum(axis=1, keepdims=True)),
                      normal * np.sign((normal * flat).sum(axis=1, keepdims=True)))  # fmt: skip
    lit = _AMBIENT + _DIFFUSE * np.maximum(normal @ _LIGHT, 0) + _SKY * np.maximum(-normal[:, 1], 0)
    return np.asarray(lit, dtype=np.float32)


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-20), dtype=np.float32)
