"""Draw the demo's prompt images: twelve small objects, some on transparent, some on plain backgrounds.

python scripts/draw_prompts.py [FOLDER]        default: configs/images
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

SIZE = 256
_FINE = 4  # drawn four times as large, then scaled down: smooth edges


class Pen:
    """Draws shapes in a unit square, shaded from the upper left so that they look round."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (SIZE * _FINE, SIZE * _FINE), (0, 0, 0, 0))

    def shape(self, colour: str, draw: Callable[[ImageDraw.ImageDraw, Callable[..., list[float]]], None]) -> None:
        side = SIZE * _FINE
        mask = Image.new("L", (side, side), 0)
        draw(ImageDraw.Draw(mask), lambda *unit: [value * side for value in unit])
        light = Image.linear_gradient("L").rotate(45, expand=False).resize((side, side))
        flat = Image.new("RGB", (side, side), colour)
        dark = Image.blend(flat, Image.new("RGB", (side, side), "black"), 0.35)
        bright = Image.blend(flat, Image.new("RGB", (side, side), "white"), 0.18)
        self.image.paste(Image.composite(dark, bright, light.filter(ImageFilter.GaussianBlur(20))), (0, 0), mask)

    def oval(self, colour: str, *box: float) -> None:
        self.shape(colour, lambda draw, at: draw.ellipse(at(*box), fill=255))

    def block(self, colour: str, *box: float, radius: float = 0.02) -> None:
        self.shape(colour, lambda draw, at: draw.rounded_rectangle(at(*box), radius * SIZE * _FINE, fill=255))

    def polygon(self, colour: str, *points: float) -> None:
        self.shape(colour, lambda draw, at: draw.polygon(at(*points), fill=255))

    def arc(self, colour: str, *box: float, start: float, end: float, width: float) -> None:
        self.shape(
            colour, lambda draw, at: draw.arc(at(*box), start, end, fill=255, width=round(width * SIZE * _FINE))
        )


def apple(pen: Pen) -> None:
    pen.block("#6b4423", 0.48, 0.14, 0.52, 0.34)
    pen.oval("#3f9b3a", 0.51, 0.16, 0.70, 0.26)
    pen.oval("#c62828", 0.16, 0.27, 0.60, 0.84)
    pen.oval("#c62828", 0.40, 0.27, 0.84, 0.84)
    pen.oval("#c62828", 0.24, 0.34, 0.76, 0.90)


def mushroom(pen: Pen) -> None:
    pen.block("#efe3cf", 0.40, 0.45, 0.60, 0.88, radius=0.08)
    pen.shape("#d32f2f", lambda draw, at: draw.pieslice(at(0.14, 0.14, 0.86, 0.88), 180, 360, fill=255))
    for x, y, r in ((0.33, 0.36, 0.06), (0.52, 0.26, 0.05), (0.66, 0.40, 0.06), (0.48, 0.43, 0.04)):
        pen.oval("#fff3e0", x - r, y - r, x + r, y + r)


def rocket(pen: Pen) -> None:
    pen.polygon("#ff8f00", 0.42, 0.78, 0.58, 0.78, 0.50, 0.95)
    pen.polygon("#1565c0", 0.38, 0.56, 0.20, 0.82, 0.40, 0.76)
    pen.polygon("#1565c0", 0.62, 0.56, 0.80, 0.82, 0.60, 0.76)
    pen.oval("#cfd8dc", 0.35, 0.10, 0.65, 0.94)
    pen.polygon("#c62828", 0.37, 0.34, 0.42, 0.19, 0.50, 0.07, 0.58, 0.19, 0.63, 0.34)
    pen.oval("#0d47a1", 0.42, 0.40, 0.58, 0.56)


def fish(pen: Pen) -> None:
    pen.polygon("#ef6c00", 0.72, 0.50, 0.94, 0.28, 0.88, 0.50, 0.94, 0.72)
    pen.polygon("#ef6c00", 0.40, 0.34, 0.52, 0.16, 0.62, 0.36)
    pen.oval("#fb8c00", 0.08, 0.28, 0.78, 0.74)
    pen.block("#fff8e1", 0.38, 0.30, 0.44, 0.72)
    pen.oval("#fffde7", 0.18, 0.41, 0.27, 0.50)
    pen.oval("#212121", 0.20, 0.43, 0.25, 0.48)


def chair(pen: Pen) -> None:
    pen.block("#8d5524", 0.28, 0.10, 0.35, 0.90)
    pen.block("#8d5524", 0.65, 0.10, 0.72, 0.90)
    for y in (0.14, 0.26, 0.38):
        pen.block("#a86b32", 0.30, y, 0.70, y + 0.07)
    pen.block("#c0392b", 0.22, 0.52, 0.78, 0.63, radius=0.04)
    pen.block("#8d5524", 0.22, 0.60, 0.29, 0.92)
    pen.block("#8d5524", 0.71, 0.60, 0.78, 0.92)


def lamp(pen: Pen) -> None:
    pen.block("#5d4037", 0.47, 0.42, 0.53, 0.86)
    pen.oval("#5d4037", 0.30, 0.80, 0.70, 0.92)
    pen.polygon("#fbc02d", 0.36, 0.10, 0.64, 0.10, 0.84, 0.50, 0.16, 0.50)


def cactus(pen: Pen) -> None:
    pen.block("#2e7d32", 0.18, 0.52, 0.44, 0.62, radius=0.05)
    pen.block("#2e7d32", 0.18, 0.32, 0.29, 0.62, radius=0.05)
    pen.block("#2e7d32", 0.56, 0.40, 0.82, 0.50, radius=0.05)
    pen.block("#2e7d32", 0.71, 0.22, 0.82, 0.50, radius=0.05)
    pen.block("#388e3c", 0.40, 0.10, 0.60, 0.76, radius=0.10)
    pen.oval("#ec407a", 0.44, 0.06, 0.56, 0.16)
    pen.polygon("#bf6036", 0.28, 0.68, 0.72, 0.68, 0.66, 0.92, 0.34, 0.92)
    pen.block("#a5522d", 0.25, 0.66, 0.75, 0.74)


def mug(pen: Pen) -> None:
    pen.arc("#1e88e5", 0.52, 0.32, 0.90, 0.72, start=-100, end=100, width=0.08)
    pen.block("#1e88e5", 0.16, 0.22, 0.72, 0.86, radius=0.08)
    pen.oval("#0d47a1", 0.16, 0.16, 0.72, 0.30)
    pen.oval("#4e342e", 0.20, 0.18, 0.68, 0.28)


def duck(pen: Pen) -> None:
    pen.oval("#fdd835", 0.14, 0.44, 0.84, 0.88)
    pen.polygon("#fdd835", 0.70, 0.56, 0.93, 0.42, 0.84, 0.72)
    pen.oval("#fdd835", 0.18, 0.14, 0.56, 0.54)
    pen.polygon("#f57c00", 0.24, 0.32, 0.06, 0.38, 0.24, 0.44)
    pen.oval("#212121", 0.28, 0.26, 0.34, 0.32)
    pen.oval("#f9a825", 0.44, 0.56, 0.74, 0.76)


def heart(pen: Pen) -> None:
    points = []
    for step in range(120):
        t = 2 * math.pi * step / 120
        points += [
            0.5 + 0.0235 * 16 * math.sin(t) ** 3,
            0.46 - 0.0235 * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)),
        ]
    pen.polygon("#d81b60", *points)


def tree(pen: Pen) -> None:
    pen.block("#6d4c41", 0.44, 0.72, 0.56, 0.94)
    for top, wide, bottom in ((0.34, 0.40, 0.80), (0.20, 0.32, 0.60), (0.06, 0.24, 0.40)):
        pen.polygon("#2e7d32", 0.5, top, 0.5 + wide, bottom, 0.5 - wide, bottom)
    pen.polygon("#fdd835", 0.5, 0.02, 0.54, 0.10, 0.46, 0.10)


def house(pen: Pen) -> None:
    pen.block("#8d6e63", 0.64, 0.14, 0.74, 0.40)
    pen.block("#f5deb3", 0.18, 0.42, 0.82, 0.90)
    pen.polygon("#b71c1c", 0.50, 0.10, 0.92, 0.46, 0.08, 0.46)
    pen.block("#5d4037", 0.43, 0.62, 0.57, 0.90)
    for x in (0.24, 0.63):
        pen.block("#4fc3f7", x, 0.54, x + 0.13, 0.68)


OBJECTS: dict[str, tuple[Callable[[Pen], None], str | None]] = {
    "apple": (apple, None),
    "cactus": (cactus, "#f3f0e8"),
    "chair": (chair, "white"),
    "duck": (duck, "#b3e5fc"),
    "fish": (fish, None),
    "heart": (heart, "white"),
    "house": (house, None),
    "lamp": (lamp, "#263238"),
    "mug": (mug, "white"),
    "mushroom": (mushroom, None),
    "rocket": (rocket, "#0b1026"),
    "tree": (tree, None),
}


def draw(name: str) -> Image.Image:
    """Return one prompt image of SIZE × SIZE pixels."""
    pen = Pen()
    paint, background = OBJECTS[name]
    paint(pen)
    image = pen.image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    if background is None:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, background), image).convert("RGB")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "configs" / "images")
    folder.mkdir(parents=True, exist_ok=True)
    for name in OBJECTS:
        draw(name).save(folder / f"{name}.png", optimize=True)
    print(f"{len(OBJECTS)} images in {folder}")


if __name__ == "__main__":
    main()
