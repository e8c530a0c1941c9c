"""Find the object in an image: its pixels, its silhouette, and how far each pixel stands above the plane."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, UnidentifiedImageError

Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]

GRID = 160
"""The longer side of the image, in cells, when it is turned into splats."""

_MAX_PIXELS = 50_000_000
_BORDER_DISTANCE = 0.12
"""How far (RGB, 0 to 1 a channel, Euclidean) a pixel must be from the border's colour to be the object's."""

_AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]


class BadImage(ValueError):
    """The bytes are no image, or an image without an object."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The object on a grid: ``colour`` (h, w, 3) in 0 to 1, ``mask`` (h, w), ``height`` (h, w) in cells, ≥ 0.

    The image has one empty cell around it.
    """

    colour: Floats
    mask: Mask
    height: Floats


def read_subject(content: bytes) -> Subject:
    """Decode an image and cut its object out of the background. Raises BadImage saying why it can't."""
    rgba = _decode(content)
    pixels = np.asarray(rgba, dtype=np.float32) / 255
    colour, alpha = pixels[..., :3], pixels[..., 3]
    mask = alpha > 0.5 if alpha.min() < 0.5 else _differs_from_border(colour)
    if mask.sum() < 16:
        raise BadImage("the image shows no object: it is transparent or of one colour")
    mask = np.pad(mask, 1)  # so that every object has an outline, and the thinnest image two cells
    colour = np.pad(colour, ((1, 1), (1, 1), (0, 0)))
    return Subject(_bleed(colour, mask), mask, _inflate(mask))


def _decode(content: bytes) -> Image.Image:
    if not content:
        raise BadImage("the image is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as opened:
                if opened.width * opened.height > _MAX_PIXELS:
                    raise BadImage(f"the image has {opened.width} × {opened.height} pixels; at most {_MAX_PIXELS}")
                rgba = opened.convert("RGBA")
    except UnidentifiedImageError as error:
        raise BadImage("the file is no image in a known format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"the image can't be decoded: {error}") from error
    scale = GRID / max(rgba.size)
    size = (max(1, round(rgba.width * scale)), max(1, round(rgba.height * scale)))
    return rgba.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)


def _differs_from_border(colour: Floats) -> Mask:
    """Take the border's median as the background, and only what hangs together with the border as such."""
    border = np.concatenate([colour[0], colour[-1], colour[:, 0], colour[:, -1]])
    background = np.median(border, axis=0)
    close = np.linalg.norm(colour - background, axis=2) < _BORDER_DISTANCE
    outside = np.zeros_like(close)
    outside[[0, -1]] = close[[0, -1]]
    outside[:, [0, -1]] |= close[:, [0, -1]]
    while True:
        grown = outside.copy()
        grown[1:] |= outside[:-1]
        grown[:-1] |= outside[1:]
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown &= close
        if grown.sum() == outside.sum():
            break
        outside = grown
    mask = Image.fromarray(~outside).convert("L").filter(ImageFilter.MedianFilter(3))
    return np.asarray(mask) > 127


def _bleed(colour: Floats, mask: Mask) -> Floats:
    """Paint the object's outermost two cells, which are mixed with the background, in the colours next to them."""
    weight = _eroded(_eroded(mask)).astype(np.float32)
    painted = colour * weight[..., None]
    for _ in range(2):
        near = np.pad(weight, 1)
        near_colour = np.pad(painted, ((1, 1), (1, 1), (0, 0)))
        total = sum(near[1 + y : near.shape[0] - 1 + y, 1 + x : near.shape[1] - 1 + x] for y, x in _AROUND)
        mixed = sum(near_colour[1 + y : near.shape[0] - 1 + y, 1 + x : near.shape[1] - 1 + x] for y, x in _AROUND)
        new = (weight == 0) & (total > 0)
        painted = np.where(new[..., None], mixed / np.maximum(total, 1)[..., None], painted)
        weight = np.where(new, 1, weight)
    return np.where((weight > 0)[..., None], painted, colour)


def _eroded(mask: Mask) -> Mask:
    padded = np.pad(mask, 1)
    return padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _inflate(mask: Mask) -> Floats:
    """Blow the silhouette up: the square root of the solution of ∇²u = −4 inside it, u = 0 outside.

    For a disc of radius r this is a half sphere of height r. Solved coarse to fine with Jacobi iterations.
    """
    levels = [mask]
    while min(levels[-1].shape) > 16:
        rows, columns = levels[-1].shape
        cut = levels[-1][: rows // 2 * 2, : columns // 2 * 2]
        levels.append(cut[::2, ::2] & cut[1::2, ::2] & cut[::2, 1::2] & cut[1::2, 1::2])
    u = np.zeros(levels[-1].shape, dtype=np.float32)
    for level in reversed(levels):
        if u.shape != level.shape:
            rows, columns = level.shape
            u = np.pad(u.repeat(2, axis=0).repeat(2, axis=1) * 4, ((0, 1), (0, 1)))[:rows, :columns]
        for _ in range(60):
            padded = np.pad(u, 1)
            around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
            u = np.where(level, (around + 4) / 4, 0).astype(np.float32)
    return np.sqrt(u)
