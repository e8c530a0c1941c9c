"""What a surface of a glTF looks like: its colour, its texture, and what of it is not there. (Khronos glTF 2.0, 3.9)

Of what it consists, only colours count: base colour, or what shines by itself where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runner.pictures.nodes import Find, Thing
from runner.pictures.shapes import GREY, Beyond, Floats, Wrap

_CUTOFF = 0.5
_WRAPS: dict[Any, Beyond] = {10497: "repeat", 33071: "clamp", 33648: "mirror"}


@dataclass(frozen=True, slots=True)
class Texture:
    """``image``: its place in the document. ``wrap``: along u and v."""

    image: int
    wrap: Wrap = ("repeat", "repeat")


@dataclass(frozen=True, slots=True)
class Surface:
    """``colour``: linear. ``place``: the matrix that leads (u, v, 1) to where its texture is looked up.

    ``cutoff``: None for a surface that hides what is behind it; else what has less ``alpha`` is not there at all, and
    with 0 each place hides as much as its alpha says.
    """

    colour: Floats
    alpha: float = 1.0
    cutoff: float | None = None
    texture: Texture | None = None
    coordinates: str = ""
    place: npt.NDArray[np.float64] | None = None


def surface_of(primitive: Thing, find: Find) -> Surface:
    if "material" not in primitive:
        grey = np.array(GREY, dtype=np.float32)
        return Surface(np.ones(3, dtype=np.float32) if "COLOR_0" in primitive["attributes"] else decoded(grey))
    material = find("materials", primitive["material"])
    base = material.get("pbrMetallicRoughness", {})
    glossy = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
    factor = [*(base.get("baseColorFactor") or glossy.get("diffuseFactor") or [1, 1, 1, 1])]
    texture = base.get("baseColorTexture") or glossy.get("diffuseTexture")
    shine, shining = material.get("emissiveFactor", [0, 0, 0]), material.get("emissiveTexture")
    if not texture and shining and not any(factor[:3]):
        texture, factor[:3] = shining, shine
    elif not texture and not shining:
        factor[:3] = [min(1.0, one + more) for one, more in zip(factor[:3], shine, strict=True)]
    colour, alpha = np.array(factor[:3], dtype=np.float32), float((*factor, 1)[3])
    mode = material.get("alphaMode", "OPAQUE")
    cutoff = {"MASK": float(material.get("alphaCutoff", _CUTOFF)), "BLEND": 0.0}.get(mode)
    if not texture:
        return Surface(colour, alpha, cutoff)
    moved = texture.get("extensions", {}).get("KHR_texture_transform", {})
    coordinates = f"TEXCOORD_{moved.get('texCoord', texture.get('texCoord', 0))}"
    return Surface(colour, alpha, cutoff, _texture(texture["index"], find), coordinates, _place(moved))


def _texture(number: Any, find: Find) -> Texture | None:
    texture = find("textures", number)
    webp = texture.get("extensions", {}).get("EXT_texture_webp", {})
    source = webp.get("source", texture.get("source"))
    sampler = find("samplers", texture["sampler"]) if "sampler" in texture else {}
    wrap = _WRAPS.get(sampler.get("wrapS"), "repeat"), _WRAPS.get(sampler.get("wrapT"), "repeat")
    return Texture(source, wrap) if isinstance(source, int) else None


def _place(moved: Thing) -> npt.NDArray[np.float64]:
    """Return the matrix of KHR_texture_transform: scaled, then turned, then shifted."""
    turn, (right, down), (wide, tall) = (
        moved.get("rotation", 0),
        moved.get("offset", (0, 0)),
        moved.get("scale", (1, 1)),
    )
    cos, sin = np.cos(turn), np.sin(turn)
    return np.array([[wide * cos, tall * sin, right], [-wide * sin, tall * cos, down]])


def encoded(linear: Floats) -> Floats:
    """Return what stands for a linear colour in sRGB (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def decoded(srgb: Floats) -> Floats:
    """Return the linear colour that a colour in sRGB stands for."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)
