"""Where a shape is looked at from: its front turned a little aside, from a bit above; orthographic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runner.pictures.shapes import Floats, Up, thinned

_TURN_DEGREES = 35.0
_ABOVE_DEGREES = 18.0
_OUTERMOST = 0.5
"""Percent at each end that may stand outside."""

_SPARE = 0.3
"""So much of the extent is added, if that holds all that the percentiles leave out: a thin tip is no outlier."""

_MARGIN = 0.04

_AROUND = 5.0
"""So many times as long as its middle half: along two axes that is no object, but one with what is around it."""

_REACH = 3.0
"""The middle of such a scene reaches so many times as far as half of it."""

_SAMPLE = 100_000
_FLIP = {"-y": (1.0, 1.0, 1.0), "y": (1.0, -1.0, -1.0)}


@dataclass(frozen=True, slots=True)
class View:
    """Turns positions into pixels of a square: ``turn`` into (right, down, away), then shifted and scaled."""

    turn: Floats
    centre: Floats
    pixels_per_unit: float
    side: int

    def project(self, position: Floats) -> Floats:
        """Return x and y in pixels from the upper left corner, and the depth in pixels."""
        at: Floats = (position @ self.turn.T - self.centre) * self.pixels_per_unit + self.side / 2
        return at.astype(np.float32)


def turned(up: Up) -> Floats:
    """Return the matrix that turns positions into right, down, away, as they are seen."""
    turn, above = np.radians(_TURN_DEGREES), np.radians(_ABOVE_DEGREES)
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(above), -np.sin(above)], [0, np.sin(above), np.cos(above)]])
    turn_: Floats = (about_x @ about_y @ np.diag(_FLIP[up])).astype(np.float32)
    return turn_


def view_of(position: Floats, up: Up, side: int) -> View:
    """Return the view that shows these positions, all of them finite; outliers may stand outside."""
    turn = turned(up)
    low, high = bounds(position @ turn.T)
    low, high = low - _MARGIN * (high - low).max(), high + _MARGIN * (high - low).max()
    extent = float((high - low)[:2].max())
    return View(turn, ((low + high) / 2).astype(np.float32), side / extent if extent > 0 else 1.0, side)


def bounds(position: Floats) -> tuple[Floats, Floats]:
    """Return the corners of the box that holds them all but outliers."""
    low, high = np.percentile(position, [_OUTERMOST, 100 - _OUTERMOST], axis=0)
    spare = _SPARE * (high - low)
    least, most = position.min(axis=0), position.max(axis=0)
    low = np.where(least > low - spare, least, low)
    return low.astype(np.float32), np.where(most < high + spare, most, high).astype(np.float32)


def middle(position: Floats) -> npt.NDArray[np.bool_]:
    """Tell of each whether it belongs to what a scene is about: all of an object, but not sky, trees and floaters.

    A long thin part of an object is not cut off: it is long along one axis only.
    """
    some = position[thinned(len(position), _SAMPLE)].astype(np.float64)
    low, first, third, high = np.percentile(some, [_OUTERMOST, 25, 75, 100 - _OUTERMOST], axis=0)
    if np.sort(high - low)[1] <= _AROUND * (third - first).max():
        return np.ones(len(position), dtype=np.bool_)
    centre = np.median(some, axis=0)
    half = float(np.median(np.linalg.norm(some - centre, axis=1)))
    return np.asarray(np.linalg.norm(position - centre, axis=1) <= _REACH * half)


def box(position: Floats) -> tuple[float, float, float]:
    """Return how large they are along x, y and z, without the outermost hundredth."""
    low, high = np.percentile(position, [_OUTERMOST, 100 - _OUTERMOST], axis=0)
    x, y, z = (float(size) for size in high - low)
    return x, y, z
