"""Read an image as small as it is needed, whatever its header claims."""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from runner.pictures.shapes import UndrawnError

_PIXELS_MAX = 80_000_000
"""Of more pixels an image is not unpacked; a JPEG is read at an eighth of its size."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "TGA")
_FLAT = 3
"""So much may the levels of an image of one colour differ, of 255."""


def opened(file: BinaryIO, side: int) -> Image.Image:
    """Return an image (RGB or RGBA), its longer side at most ``side`` pixels.

    Raises UndrawnError for one that is too large; OSError, SyntaxError and ValueError for a damaged one.
    """
    image = _begun(file)
    try:
        image.draft("RGB", (side, side))
        if image.width * image.height > _PIXELS_MAX:
            raise UndrawnError(f"an image of more than {_PIXELS_MAX // 1_000_000} megapixels")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that is damaged
            image.load()
            turned = ImageOps.exif_transpose(image)
    except Image.DecompressionBombError as error:
        raise UndrawnError("an image that claims to be too large") from error
    coloured = _coloured(turned)
    coloured.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    return coloured


def pixels(file: BinaryIO) -> int:
    """Return how many pixels an image has. Raises as ``opened`` does."""
    image = _begun(file)
    file.seek(0)
    return image.width * image.height


def of_one_colour(image: Image.Image) -> bool:
    """Tell whether there is nothing to see: all is transparent, or has the same colour."""
    levels = np.asarray(image.convert("RGBA")).reshape(-1, 4).astype(np.int16)
    seen = levels[levels[:, 3] > _FLAT]
    if not len(seen):
        return True
    opaque = len(seen) == len(levels)
    return opaque and bool((np.ptp(seen, axis=0) <= _FLAT).all())


def _begun(file: BinaryIO) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the size: it is looked at here
        try:
            return Image.open(file, formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise UndrawnError("an image that claims to be too large") from error


def _coloured(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        levels = np.asarray(image).astype(np.float32)
        most = 65535.0 if image.mode != "F" else max(float(levels.max(initial=0)), 1.0)
        return Image.fromarray((levels / most * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
    clear = "A" in image.getbands() or "transparency" in image.info
    return image.convert("RGBA" if clear else "RGB")
