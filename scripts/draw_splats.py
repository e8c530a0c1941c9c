"""Draw splat PLY files seen from the front, beside their prompt images, into one PNG.

    python scripts/draw_splats.py OUT.png RESULTS_FOLDER [PROMPT_IMAGES_FOLDER]

A plain point renderer on the CPU, to look at results without a viewer: every splat becomes a round dot.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

CELL = 220
_FINE = 3  # drawn three times as large, then scaled down
_REACH_MAX = 8
_SH_C0 = 0.28209479177387814


def draw_front(ply: Path, size: int = CELL, turn_degrees: float = 0.0) -> Image.Image:
    """Return the splats as seen along +z (x right, y down), first turned about the vertical axis; RGBA."""
    rows = read_splats(ply)
    fine = size * _FINE
    angle = np.radians(turn_degrees)
    x = rows["x"] * np.cos(angle) + rows["z"] * np.sin(angle)
    z = rows["z"] * np.cos(angle) - rows["x"] * np.sin(angle)
    colour = np.clip(0.5 + _SH_C0 * np.stack([rows["f_dc_0"], rows["f_dc_1"], rows["f_dc_2"]], axis=1), 0, 1)
    far_to_near = np.argsort(-z)
    column = ((x + 0.5) * fine).astype(int)[far_to_near]
    row = ((rows["y"] + 0.5) * fine).astype(int)[far_to_near]
    radius = np.exp(np.maximum(rows["scale_0"], rows["scale_1"]))[far_to_near] * fine
    canvas = np.zeros((fine, fine, 4), dtype=np.uint8)
    reach = min(max(1, round(1.25 * float(np.median(radius)))), _REACH_MAX)  # a Gaussian, to 1.25 sigma
    offsets = [(dy, dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
    at = np.stack(
        [np.stack([row + dy, column + dx]) for dy, dx in offsets if dy * dy + dx * dx <= reach * reach], axis=2
    )
    at = at.reshape(2, -1).clip(0, fine - 1)  # splat after splat, so that a near one is painted over a far one
    paint = np.concatenate([(colour * 255).round(), np.full((len(colour), 1), 255)], axis=1)[far_to_near]
    canvas[at[0], at[1]] = np.repeat(paint, at.shape[1] // len(paint), axis=0)
    return Image.fromarray(canvas).resize((size, size), Image.Resampling.BOX)


def read_splats(ply: Path) -> npt.NDArray[np.void]:
    """Return the vertices of a binary little-endian splat PLY as a structured array of float32."""
    content = ply.read_bytes()
    header, _, data = content.partition(b"end_header\n")
    names = [line.split()[2].decode() for line in header.splitlines() if line.startswith(b"property float")]
    return np.frombuffer(data, dtype=[(name, "<f4") for name in names])


def contact_sheet(results: Path, prompts: Path | None) -> Image.Image:
    """Return all splats of a folder: the prompt, the front, and a view from 40 degrees to the side."""
    files = sorted(results.glob("*.ply"))
    across = 2
    sheet = Image.new("RGB", (across * 3 * CELL, -(-len(files) // across) * (CELL + 18)), "#e8e8e8")
    text = ImageDraw.Draw(sheet)
    for number, ply in enumerate(files):
        left, top = number % across * 3 * CELL, number // across * (CELL + 18)
        text.text((left + 6, top + 3), ply.stem, fill="black")
        shown = [draw_front(ply), draw_front(ply, turn_degrees=40)]
        image = prompts / f"{ply.stem}.png" if prompts else None
        if image and image.exists():
            shown.insert(0, Image.open(image).convert("RGBA").resize((CELL, CELL)))
        for column, picture in enumerate(shown):
            sheet.paste(picture, (left + column * CELL, top + 18), picture)
    return sheet


def main() -> None:
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    contact_sheet(Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) == 4 else None).save(sys.argv[1])
    print(f"Drew {sys.argv[1]}")


if __name__ == "__main__":
    main()
