"""Read an image as small as it is needed, whatever its header claims."""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

from runner.pictures.shapes import UndrawnError

_PIXELS_MAX = 80_000_000
"""Of more pixels an image is not unpacked; a JPEG is read at an eighth of its size."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "TGA")
_AVERAGED = ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr")
_SPARE = 3
"""An image is first made smaller quickly, to so many times the side that is needed, then well."""

_BAND_PIXELS = 1_000_000
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What an orientation in EXIF asks for."""

_DEEP_SIDE = 2048
"""Of larger images of more than 8 bits only some pixels are looked at."""

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
            turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Image.DecompressionBombError as error:
        raise UndrawnError("an image that claims to be too large") from error
    small = _coloured(_reduced(image, side))
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    return small if turn is None else small.transpose(turn)


def _reduced(image: Image.Image, side: int) -> Image.Image:
    """Return an image a whole number of times smaller, still larger than is needed; made in bands, to copy little."""
    times = max(image.size) // (_SPARE * side)
    if times < 2 or image.mode not in _AVERAGED or "transparency" in image.info:
        return image
    size = -(-image.width // times), -(-image.height // times)
    small = Image.new(image.mode, size)
    rows = max(1, _BAND_PIXELS // (image.width * times)) * times
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        small.paste(band.reduce(times), (0, top // times))
    return small


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
        times = max(1, max(image.size) // _DEEP_SIDE)
        levels = np.asarray(image)[::times, ::times].astype(np.float32)
        most = 65535.0 if image.mode != "F" else max(float(levels.max(initial=0)), 1.0)
        return Image.fromarray((levels / most * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
    clear = "A" in image.getbands() or "transparency" in image.info
    return image.convert("RGBA" if clear else "RGB")
