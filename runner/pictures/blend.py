"""Draw splats on the CPU: Gaussians, projected and blended from front to back (Kerbl et al., 2023; Zwicker, 2001).

The splats' fragments (one a pixel that a Gaussian reaches) are sorted by pixel and depth, a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from runner.pictures.shapes import Floats, Ints, Splats
from runner.pictures.view import View

_LOW_PASS = 0.2
"""Pixels² added to every variance, so that none falls between the pixels."""

_REACH = 2.6
"""Standard deviations to which a Gaussian is drawn."""

_FAINTEST = 1 / 255
_HIDDEN = 0.01
"""A pixel that lets through less than this is full."""

_SMALL = 6
"""A splat that reaches no further is passed over if the pixel in its middle is full."""

_BLOCK = 500_000
_FRAGMENTS_MAX = 40_000_000
"""Looked at in all; what is behind those is left out."""

_SIZES = np.array([1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256])


def blended(splats: Splats, view: View) -> Floats:
    """Return ``view.side``² pixels of red, green, blue (each multiplied by alpha) and alpha, 0 to 1."""
    flat = _flat(splats, view)
    colour = np.zeros((view.side * view.side, 3), dtype=np.float32)
    passing = np.ones(view.side * view.side, dtype=np.float32)
    for block in _blocks(flat.reach):
        pixel, place, alpha = _sorted(flat, block, passing, view.side)
        if not len(pixel):
            continue
        first = np.flatnonzero(np.diff(pixel, prepend=-1))
        fading = np.log1p(-alpha.astype(np.float64))
        before = np.cumsum(fading) - fading
        runs = np.diff(first, append=len(pixel))
        weight = alpha * np.exp(before - np.repeat(before[first], runs)) * passing[pixel]
        painted = flat.colour[place] * weight[:, None]
        colour[pixel[first]] += np.add.reduceat(painted, first, axis=0)
        passing[pixel[first]] *= np.exp(np.add.reduceat(fading, first)).astype(np.float32)
        if passing.max() < _HIDDEN:
            break
    picture = np.concatenate([colour, 1 - passing[:, None]], axis=1)
    return picture.reshape(view.side, view.side, 4).clip(0, 1)


class _Flat:
    """Splats as ellipses on the picture, from near to far. ``conic``: xx, xy, yy of the inverse of the covariance."""

    def __init__(self, at: Floats, conic: Floats, reach: Ints, opacity: Floats, colour: Floats) -> None:
        self.at = at
        self.conic = conic
        self.reach = reach
        self.opacity = opacity
        self.colour = colour


def _flat(splats: Splats, view: View) -> _Flat:
    at = view.project(splats.position)
    axes = view.turn[:2] @ (_matrices(splats.rotation) * (splats.scale * view.pixels_per_unit)[:, None, :])
    axes = axes.clip(-view.side, view.side)  # larger ones fill the picture all the same
    xx = (axes[:, 0] ** 2).sum(axis=1) + _LOW_PASS
    yy = (axes[:, 1] ** 2).sum(axis=1) + _LOW_PASS
    xy = (axes[:, 0] * axes[:, 1]).sum(axis=1)
    area = np.maximum(xx * yy - xy * xy, _LOW_PASS**2)
    sigmas = np.minimum(np.sqrt(2 * np.log(np.maximum(splats.opacity / _FAINTEST, 1.001))), _REACH)
    reach = np.ceil(sigmas * np.sqrt(np.maximum(xx, yy))).astype(np.int64)
    reach = _SIZES[np.searchsorted(_SIZES, reach).clip(0, len(_SIZES) - 1)]
    near = (np.abs(at[:, :2] - view.side / 2) < view.side / 2 + reach[:, None]).all(axis=1)
    order = np.flatnonzero(near & (splats.opacity > _FAINTEST))
    order = order[np.argsort(at[order, 2], kind="stable")]
    conic = np.stack([yy, -xy, xx], axis=1) / area[:, None]
    opacity = splats.opacity[order].clip(0, 0.995)
    return _Flat(at[order], conic[order], reach[order], opacity, splats.colour[order].clip(0, 1))


def _matrices(rotation: Floats) -> Floats:
    """Return the rotation matrices of unit quaternions."""
    w, x, y, z = rotation.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows, dtype=np.float32), 2, 0)


def _blocks(reach: Ints) -> Iterator[slice]:
    """Yield runs of splats that reach about so many pixels together."""
    total = np.cumsum((2 * reach + 1) ** 2)
    last = int(np.searchsorted(total, _FRAGMENTS_MAX, side="right"))
    begin = 0
    while begin < last:
        done = int(total[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, done + _BLOCK, side="right")))
        yield slice(begin, min(end, last))
        begin = end


def _sorted(flat: _Flat, block: slice, passing: Floats, side: int) -> tuple[Ints, Ints, Floats]:
    """Return pixel, splat and alpha of a block's fragments, by pixel and from near to far."""
    reaches = flat.reach[block]
    column, row = flat.at[block, :2].astype(np.int64).clip(0, side - 1).T
    open_ = (passing[row * side + column] > _HIDDEN) | (reaches > _SMALL)
    groups = [(int(reach), np.flatnonzero(open_ & (reaches == reach))) for reach in np.unique(reaches)]
    keys = [_fragments(flat, block.start + group, reach, block.start, passing, side) for reach, group in groups]
    key = np.sort(np.concatenate(keys))
    alpha: Floats = (key & 0xFFFF).astype(np.float32) / np.float32(0xFFFF)
    pixel: Ints = key >> 40
    return pixel, (key >> 16 & 0xFF_FFFF) + block.start, alpha


def _fragments(
    flat: _Flat, places: Ints, reach: int, start: int, passing: Floats, side: int
) -> npt.NDArray[np.int64]:
    """Return (pixel, place, alpha) of each fragment in one number, which sorts faster than anything else."""
    steps = np.arange(-reach, reach + 1, dtype=np.int64)
    centre = np.floor(flat.at[places, :2]).astype(np.int64)
    offset = flat.at[places, :2] - centre - np.float32(0.5)
    dx = steps[None, :].astype(np.float32) - offset[:, :1]
    dy = steps[None, :].astype(np.float32) - offset[:, 1:]
    xx, xy, yy = (flat.conic[places, part, None, None] for part in range(3))
    dx, dy = dx[:, None, :], dy[:, :, None]
    alpha = flat.opacity[places, None, None] * np.exp(-0.5 * (xx * dx * dx + yy * dy * dy) - xy * dx * dy)
    column = centre[:, 0, None] + steps
    row = centre[:, 1, None] + steps
    inside = ((column >= 0) & (column < side))[:, None, :] & ((row >= 0) & (row < side))[:, :, None]
    pixel = row.clip(0, side - 1)[:, :, None] * side + column.clip(0, side - 1)[:, None, :]
    one, _, _ = found = np.nonzero((alpha > _FAINTEST) & inside & (passing[pixel] > _HIDDEN))
    level = (alpha[found] * 0xFFFF).astype(np.int64)
    key: Ints = pixel[found] << 40 | (places[one] - start) << 16 | level
    return key
