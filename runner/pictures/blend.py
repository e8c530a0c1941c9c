"""Draw splats on the CPU: Gaussians, projected and blended from front to back (Kerbl et al., 2023; Zwicker, 2001).

The splats' fragments (one a pixel that a Gaussian reaches) are sorted by pixel and depth, a block at a time. What is
behind pixels that are full already costs nothing, so it is the picture that bounds the work, not the splats.
"""

from __future__ import annotations

import numpy as np

from runner.pictures.shapes import Floats, Ints, Splats
from runner.pictures.view import View

_LOW_PASS = 0.2
"""Pixels² added to every variance, so that none falls between the pixels."""

_REACH = 2.6
"""Standard deviations to which a Gaussian is drawn."""

_FAINTEST = 1 / 255
_HIDDEN = 0.01
"""A pixel that lets through less than this is full."""

_BLOCK = 500_000
"""Fragments that are drawn at once, about."""

_WINDOW = 30_000
"""Splats that are looked at for a block, at the most."""


def blended(splats: Splats, view: View) -> Floats:
    """Return ``view.side``² pixels of red, green, blue (each multiplied by alpha) and alpha, 0 to 1."""
    flat = _flat(splats, view)
    colour = np.zeros((view.side * view.side, 3), dtype=np.float32)
    passing = np.ones(view.side * view.side, dtype=np.float32)
    begin = 0
    while begin < len(flat.at) and passing.max() > _HIDDEN:
        open_ = _open(passing, view.side)
        chosen, end = _next(flat, begin, open_)
        pixel, place, alpha = _fragments(flat, chosen, begin, passing, open_)
        begin = end
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
    picture = np.concatenate([colour, 1 - passing[:, None]], axis=1)
    return picture.reshape(view.side, view.side, 4).clip(0, 1)


class _Flat:
    """Splats as ellipses on the picture, from near to far. ``conic``: xx, xy, yy of the inverse of the covariance.

    ``sigmas``: how far each is drawn. ``low``, ``high``: the first column and row of its box, and those behind it.
    """

    def __init__(self, at: Floats, conic: Floats, sigmas: Floats, reach: Floats, side: int) -> None:
        self.at = at
        self.conic = conic
        self.sigmas = sigmas
        self.low: Ints = np.floor(at[:, :2] - reach).clip(0, side).astype(np.int64)
        self.high: Ints = (np.floor(at[:, :2] + reach) + 1).clip(0, side).astype(np.int64)
        self.opacity: Floats = np.empty(0, dtype=np.float32)
        self.colour: Floats = np.empty(0, dtype=np.float32)


def _flat(splats: Splats, view: View) -> _Flat:
    at = view.project(splats.position)
    axes = view.turn[:2] @ (_matrices(splats.rotation) * (splats.scale * view.pixels_per_unit)[:, None, :])
    axes = axes.clip(-view.side, view.side)  # larger ones fill the picture all the same
    xx = (axes[:, 0] ** 2).sum(axis=1) + _LOW_PASS
    yy = (axes[:, 1] ** 2).sum(axis=1) + _LOW_PASS
    xy = (axes[:, 0] * axes[:, 1]).sum(axis=1)
    area = np.maximum(xx * yy - xy * xy, _LOW_PASS**2)
    sigmas = np.minimum(np.sqrt(2 * np.log(np.maximum(splats.opacity / _FAINTEST, 1.001))), _REACH)
    reach = sigmas[:, None] * np.sqrt(np.stack([xx, yy], axis=1))
    near = (np.abs(at[:, :2] - view.side / 2) < view.side / 2 + reach).all(axis=1)
    order = np.flatnonzero(near & (splats.opacity > _FAINTEST))
    order = order[np.argsort(at[order, 2], kind="stable")]
    conic = np.stack([yy, -xy, xx], axis=1) / area[:, None]
    flat = _Flat(at[order], conic[order], sigmas[order], reach[order], view.side)
    flat.opacity = splats.opacity[order].clip(0, 0.995)
    flat.colour = splats.colour[order].clip(0, 1)
    return flat


def _matrices(rotation: Floats) -> Floats:
    """Return the rotation matrices of unit quaternions."""
    w, x, y, z = rotation.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows, dtype=np.float32), 2, 0)


def _open(passing: Floats, side: int) -> Ints:
    """Return how many pixels above and left of each corner of a pixel are not full (a summed-area table)."""
    table = np.zeros((side + 1, side + 1), dtype=np.int64)
    table[1:, 1:] = (passing > _HIDDEN).reshape(side, side).cumsum(axis=0).cumsum(axis=1)
    return table


def _next(flat: _Flat, begin: int, open_: Ints) -> tuple[Ints, int]:
    """Return the splats of the next block, those that a pixel is open for, and where the block behind it begins."""
    window = slice(begin, begin + _WINDOW)
    (left, top), (right, bottom) = flat.low[window].T, flat.high[window].T
    free = open_[bottom, right] - open_[top, right] - open_[bottom, left] + open_[top, left]
    chosen = np.flatnonzero(free > 0)
    total = np.cumsum(free[chosen])
    most = max(1, int(np.searchsorted(total, _BLOCK, side="right")))
    end = len(free) if most >= len(chosen) else int(chosen[most])
    return chosen[:most] + begin, begin + end


def _fragments(flat: _Flat, chosen: Ints, begin: int, passing: Floats, open_: Ints) -> tuple[Ints, Ints, Floats]:
    """Return pixel, splat and alpha of the fragments that are to be seen, by pixel and from near to far."""
    side = len(open_) - 1
    place, row = _counted(chosen, flat.low[chosen, 1], flat.high[chosen, 1])
    xx, xy, yy = flat.conic[place].T
    down = row.astype(np.float32) + np.float32(0.5) - flat.at[place, 1]
    middle = flat.at[place, 0] - xy / xx * down
    half = np.sqrt(np.maximum(flat.sigmas[place] ** 2 - (yy - xy * xy / xx) * down**2, 0) / xx) + np.float32(0.5)
    left = np.floor(middle - half).clip(flat.low[place, 0], flat.high[place, 0]).astype(np.int64)
    right = (np.floor(middle + half) + 1).clip(left, flat.high[place, 0]).astype(np.int64)
    free = open_[row + 1, right] - open_[row, right] - open_[row + 1, left] + open_[row, left]
    run = np.flatnonzero(free)
    line, column = _counted(run, left[run], right[run])
    pixel = row[line] * side + column
    seen = np.flatnonzero(passing[pixel] > _HIDDEN)
    line, column, pixel = line[seen], column[seen], pixel[seen]
    across, down = column.astype(np.float32) + np.float32(0.5) - flat.at[place[line], 0], down[line]
    power = -0.5 * (xx[line] * across**2 + yy[line] * down**2) - xy[line] * across * down
    alpha = flat.opacity[place[line]] * np.exp(np.minimum(power, 0))
    faint = alpha > _FAINTEST
    level = (alpha[faint] * 0xFFFF).astype(np.int64)
    key = pixel[faint] << 40 | (place[line[faint]] - begin) << 16 | level  # one number sorts fastest
    key.sort()
    return key >> 40, (key >> 16 & 0xFF_FFFF) + begin, (key & 0xFFFF).astype(np.float32) / np.float32(0xFFFF)


def _counted(of: Ints, low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """Return every number from ``low`` to below ``high`` of each, behind what it is of."""
    count = high - low
    ends = np.cumsum(count)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - count, count)
    return np.repeat(of, count), within + np.repeat(low, count)
