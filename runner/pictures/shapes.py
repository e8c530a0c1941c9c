"""What a 3D result is made of once it is read: splats, a mesh, or points; all as numpy arrays of float32.

``up``: ``-y`` where y points down (splats, in COLMAP's frame: x right, z away from who sees the front), ``y`` where
it points up and z towards the viewer (glTF).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Chosen = npt.NDArray[np.int64] | npt.NDArray[np.bool_]
Up = Literal["y", "-y"]
Beyond = Literal["repeat", "clamp", "mirror"]
"""How a texture goes on beyond its edges."""

Wrap = tuple[Beyond, Beyond]

FACES_MAX = 5_000_000
"""A mesh of more triangles is not drawn."""

GREY = (0.72, 0.74, 0.78)
"""The colour of a shape that has none."""

OPAQUE = -1.0
"""The cutoff of a face that hides what is behind it, whatever its texture's alpha."""

_VISIBLE = 0.04
_TINY = 1e-30


class UnreadableError(Exception):
    """A file that no picture can be made of because it is damaged; the text goes on after "it is unreadable: "."""


class UndrawnError(Exception):
    """A whole file that no picture is made of; the text goes on after "no picture of "."""


@dataclass(frozen=True, slots=True)
class Splats:
    """Some of ``total`` splats, spread evenly over the file.

    ``colour`` and ``opacity``: 0 to 1. ``scale``: standard deviations. ``rotation``: unit quaternions w, x, y, z.
    """

    position: Floats
    colour: Floats
    opacity: Floats
    scale: Floats
    rotation: Floats
    total: int
    up: Up = "-y"

    def __getitem__(self, chosen: Chosen) -> Splats:
        return replace(
            self,
            position=self.position[chosen],
            colour=self.colour[chosen],
            opacity=self.opacity[chosen],
            scale=self.scale[chosen],
            rotation=self.rotation[chosen],
        )

    def visible(self) -> npt.NDArray[np.bool_]:
        """Tell of each whether it is somewhere, and opaque and large enough to be seen."""
        seen: Chosen = (self.opacity > _VISIBLE) & (self.scale.max(axis=1, initial=0) > _TINY)
        return np.logical_and(seen, finite(self.position))

    def with_(self, others: Splats) -> Splats:
        """Return both, as all that there are."""
        return replace(
            self,
            position=np.concatenate([self.position, others.position]),
            colour=np.concatenate([self.colour, others.colour]),
            opacity=np.concatenate([self.opacity, others.opacity]),
            scale=np.concatenate([self.scale, others.scale]),
            rotation=np.concatenate([self.rotation, others.rotation]),
            total=len(self.position) + len(others.position),
        )

    def larger(self, factor: float) -> Splats:
        return replace(self, scale=self.scale * np.float32(factor))


@dataclass(frozen=True, slots=True)
class Mesh:
    """Triangles. ``colour``: of each vertex, 0 to 1 in sRGB; it is multiplied with a face's texture, if it has one.

    ``texture``: of each face its place in ``textures`` (rows of RGBA bytes) and ``wraps`` (along u and v), -1 for
    none. ``normal``: of each vertex, zero where the file has none: the face's own is used. ``alpha`` and ``cutoff``:
    of each face; where it has less alpha, it is not there; with 0 it hides what alpha says; with ``OPAQUE`` all.
    None where all hide all.
    """

    position: Floats
    faces: Ints
    colour: Floats
    total: int
    normal: Floats | None = None
    uv: Floats | None = None
    texture: Ints | None = None
    textures: tuple[Bytes, ...] = field(default=())
    wraps: tuple[Wrap, ...] = field(default=())
    alpha: Floats | None = None
    cutoff: Floats | None = None
    up: Up = "y"

    def only(self, chosen: Chosen) -> Mesh:
        """Return it with some of its faces."""
        return replace(
            self,
            faces=self.faces[chosen],
            texture=None if self.texture is None else self.texture[chosen],
            alpha=None if self.alpha is None else self.alpha[chosen],
            cutoff=None if self.cutoff is None else self.cutoff[chosen],
        )


@dataclass(frozen=True, slots=True)
class Points:
    """Some of ``total`` points."""

    position: Floats
    colour: Floats
    total: int
    up: Up = "y"


def finite(position: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell of each position whether it is somewhere; what is beyond 10^15 is not."""
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(position) < 1e15).all(axis=1), dtype=np.bool_)


def thinned(count: int, most: int) -> Ints:
    """Return ``most`` places of ``count``, spread evenly; all if there are fewer."""
    return np.arange(count) if count <= most else np.arange(most) * count // most
