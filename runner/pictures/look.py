"""Look at one result: what it is, what it looks like, its model for a 3D view, and whether it is damaged or blank."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from runner.errors import ResultError
from runner.pictures import glb, images, models, ply, spz
from runner.pictures.looks import SIDE, drawn
from runner.pictures.records import BLANK, EXPLODED, UNREADABLE
from runner.pictures.shapes import Floats, Mesh, Points, Splats, UndrawnError, UnreadableError, finite
from runner.pictures.view import box, middle

MODEL_MAX_BYTES = 400_000
"""A GLB up to this size is its own model."""

_WORDS = 300
_TEXT_MAX_BYTES = 1_000_000
_DAMAGE = (
    OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, SyntaxError, MemoryError,
    RecursionError, BufferError, struct.error, zlib.error, ResultError,
)  # fmt: skip
"""What numpy, Pillow, json and struct raise about a file that is not what it says."""

_SHARE_LOST = 0.01
_FAR = 50
_COVERED = 0.005
"""Splats that cover less of the largest side of their box are too small or too faint to be seen."""

_PAINTED, _OPAQUE = 0.001, 0.1

Flags = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen. ``model``: its format and bytes. ``why``: why there is no picture of a whole file."""

    kind: str
    count: int = 0
    thumbnail: bytes = b""
    model: tuple[str, bytes] | None = None
    box: tuple[float, float, float] | None = None
    words: str = ""
    flags: Flags = ()
    why: str = ""


def look(path: Path, format_: str) -> Look:
    """Return what a result looks like; whatever is wrong with it becomes a part of that."""
    try:
        with (
            np.errstate(all="ignore"),
            open(path, "rb") as file,
        ):  # damaged files are full of numbers beyond all bounds
            return _LOOKS.get(format_, _other)(file)
    except UndrawnError as error:
        return Look("other", why=str(error))
    except UnreadableError as error:
        return Look("other", flags=((UNREADABLE, f"it is unreadable: {error}"),))
    except FileNotFoundError:
        return Look("other", flags=((UNREADABLE, "it is not there"),))
    except _DAMAGE as error:
        return Look("other", flags=((UNREADABLE, f"it is unreadable: {_said(error)}"),))


def prompt_thumbnail(image: Path | BinaryIO) -> bytes:
    """Return the thumbnail of a prompt's image; b"" if there can be none."""
    try:
        with open(image, "rb") if isinstance(image, Path) else image as file:
            return _webp(images.opened(file, SIDE))
    except (UndrawnError, *_DAMAGE):
        return b""


def _said(error: Exception) -> str:
    """Say what a library says, without the path that some of them name."""
    if isinstance(error, UnidentifiedImageError):
        return "it does not begin as an image does"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:160] or type(error).__name__


def _ply(file: BinaryIO) -> Look:
    return _shape(ply.read(file), file)


def _spz(file: BinaryIO) -> Look:
    return _shape(spz.read(file), file)


def _glb(file: BinaryIO) -> Look:
    return _shape(glb.read(file), file)


def _shape(shape: Splats | Mesh | Points, file: BinaryIO) -> Look:
    kind = {Splats: "splats", Mesh: "mesh", Points: "points"}[type(shape)]
    fine = finite(shape.position)
    if not fine.any():
        return Look(kind, shape.total, flags=((BLANK, f"none of its {len(fine):,} positions is a number"),))
    if blank := _unseen(shape):
        return Look(kind, shape.total, box=box(shape.position[fine]), flags=((BLANK, blank),))
    image = drawn(shape)
    shown = fine & shape.visible() if isinstance(shape, Splats) else fine
    flags = _scattered(kind, fine, shape.position[shown]) or _faint(shape) or _blank_picture(image)
    return Look(
        kind,
        shape.total,
        thumbnail=_webp(image),
        model=_model(shape, file),
        box=box(shape.position[shown]),
        flags=flags,
    )


def _unseen(shape: Splats | Mesh | Points) -> str:
    """Say why nothing of a shape is to be seen; "" if something may be."""
    if isinstance(shape, Mesh) and not len(shape.faces):
        return "it has no triangles"
    if not isinstance(shape, Splats):
        return ""
    if shape.visible().any():
        return ""
    most = float(shape.opacity.max())
    return f"none of its {shape.total:,} splats is to be seen: the most opaque one has {most:.1%} opacity"


def _faint(shape: Splats | Mesh | Points) -> Flags:
    """Tell of splats that cover next to nothing of their box, or of that of the middle of a scene."""
    if not isinstance(shape, Splats):
        return ()
    seen = shape[shape.visible()]
    seen = seen[middle(seen.position)]
    sides = np.sort(box(seen.position))
    area = float(sides[1] * sides[2])
    discs = np.sort(seen.scale.astype(np.float64), axis=1)[:, 1:].prod(axis=1) * 2 * np.pi
    covered = float((discs * seen.opacity).sum()) * shape.total / len(shape.position)
    if covered >= _COVERED * area:
        return ()
    return ((BLANK, f"its splats are so small or faint that they cover {covered / area:.2%} of its box"),)


def _blank_picture(image: Image.Image) -> Flags:
    alpha = np.asarray(image)[:, :, 3] / 255
    if alpha.mean() < _PAINTED or alpha.max() < _OPAQUE:
        return ((BLANK, f"its picture shows next to nothing: {alpha.mean():.2%} of it is painted"),)
    return ()


def _scattered(kind: str, fine: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], position: Floats) -> Flags:
    """Tell of positions that are no numbers, and of a middle that is scattered. What is around it may be anywhere."""
    what = {"mesh": "vertices"}.get(kind, kind)
    lost = 1 - float(fine.mean())
    if lost > _SHARE_LOST:
        return ((EXPLODED, f"{lost:.1%} of its {what} are at no place: not finite"),)
    away = np.linalg.norm(position.astype(np.float64) - np.median(position, axis=0), axis=1)
    near, far = (float(one) for one in np.percentile(away, [25, 75]))
    if far > _FAR * near > 0:
        return (
            (EXPLODED, f"a quarter of its {what} are {far / near:,.0f} × as far out as another quarter, or more"),
        )
    return ()


def _model(shape: Splats | Mesh | Points, file: BinaryIO) -> tuple[str, bytes] | None:
    try:
        if isinstance(shape, Splats):
            return "spz", spz.packed(models.thinned_splats(shape))
        if file.seek(0, os.SEEK_END) <= MODEL_MAX_BYTES and _begins_as_glb(file):
            file.seek(0)
            return "glb", file.read()
        if isinstance(shape, Points):
            return "glb", glb.packed(*models.thinned_points(shape))
        return "glb", glb.packed(*models.thinned_mesh(shape))
    except UndrawnError:
        return None


def _begins_as_glb(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(4) == b"glTF"


def _image(file: BinaryIO) -> Look:
    count = images.pixels(file)
    image = images.opened(file, SIDE)
    flags = ((BLANK, "it is of one colour"),) if images.of_one_colour(image) else ()
    return Look("image", count, thumbnail=_webp(image), flags=flags)


def _text(file: BinaryIO) -> Look:
    size_bytes = os.fstat(file.fileno()).st_size
    text = file.read(_TEXT_MAX_BYTES).decode("utf-8", "replace")
    whole = size_bytes <= _TEXT_MAX_BYTES
    words = "".join(one if one.isprintable() or one == "\n" else " " for one in text.strip()[:_WORDS])
    flags = ((BLANK, "it holds nothing but white space"),) if whole and not text.strip() else ()
    return Look("text", len(text) if whole else size_bytes, words=words, flags=flags)


def _other(_: BinaryIO) -> Look:
    return Look("other")


def _webp(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "WEBP", quality=80, alpha_quality=70, method=6)
    return content.getvalue()


_LOOKS: dict[str, Callable[[BinaryIO], Look]] = {
    "ply": _ply, "spz": _spz, "glb": _glb, "png": _image, "jpg": _image, "webp": _image,
    "txt": _text, "json": _text, "js": _text,
}  # fmt: skip
