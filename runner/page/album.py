"""Which pictures and models stand in the page itself: as many as fit; the others are asked for from the disk."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from runner.chronicle import STATES, Chronicle
from runner.pictures.records import Gallery

THUMBNAILS_BYTES = 8 * 1024 * 1024
MODELS_BYTES = 8 * 1024 * 1024
"""What base64 of each may take in the page."""

_MODEL = re.compile(rb'^runnerModel\("[0-9a-f]*","([a-z0-9]+)","([A-Za-z0-9+/=]*)"\);\s*$')
_SEEN_FIRST = 48
"""So many cards may be in sight before anyone scrolls."""

_FULL_AFTER = 50
"""So many that don't fit, one after the other, and nothing else is tried."""


@dataclass(slots=True)
class Shelf:
    """Base64 of files, end to end, and where each begins and ends; ``formats`` are those of models."""

    most_bytes: int
    text: list[str] = field(default_factory=list)
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    formats: dict[Path, str] = field(default_factory=dict)
    size_bytes: int = 0
    _refused: int = 0

    def full(self) -> bool:
        """Tell whether nothing more is likely to fit."""
        return self._refused >= _FULL_AFTER

    def fits(self, many: int) -> bool:
        """Tell whether so many characters more fit, and remember if they don't."""
        if self.size_bytes + many > self.most_bytes:
            self._refused += 1
            return False
        self._refused = 0
        return True

    def add(self, path: Path, coded: str) -> None:
        """Take in a file that fits."""
        self.places[path] = (self.size_bytes, self.size_bytes + len(coded))
        self.text.append(coded)
        self.size_bytes += len(coded)


def album(told: Chronicle, gallery: Gallery) -> tuple[Shelf, Shelf]:
    """Return the thumbnails and the models that are to stand in the page: of what is odd first, then evenly.

    A file that can't be read is left out: the page then shows that there is none.
    """
    thumbnails, models = Shelf(THUMBNAILS_BYTES), Shelf(MODELS_BYTES)
    for row in _order(told, gallery):
        picture = gallery.pictures[row]
        for path in (picture.thumbnail, picture.prompt):
            if path and path not in thumbnails.places and not thumbnails.full():
                _add_image(thumbnails, path)
        if picture.model and picture.model not in models.places and not models.full():
            _add_model(models, picture.model)
        if thumbnails.full() and models.full():
            break
    return thumbnails, models


def _order(told: Chronicle, gallery: Gallery) -> Iterator[int]:
    """Yield rows that have a picture: failed, flagged or missing ones, those that are seen first, the others evenly.

    Some come twice.
    """
    failed = STATES.index("failed")
    states, missing = told.rows.state, told.rows.missing
    odd: list[int] = []
    others: list[int] = []
    for row in sorted(row for row in gallery.pictures if row < len(told.rows)):
        is_odd = states[row] == failed or missing[row] or gallery.pictures[row].flags
        (odd if is_odd else others).append(row)
    yield from odd
    yield from others[:_SEEN_FIRST]
    yield from (others[place] for place in evenly(len(others)))


def evenly(count: int) -> Iterable[int]:
    """Yield every place below ``count`` so that those yielded so far are always spread evenly.

    >>> list(evenly(10))
    [0, 8, 4, 2, 6, 1, 3, 5, 7, 9]
    """
    step = 1
    while step * 2 < count:
        step *= 2
    yield from range(0, count, step)
    while step > 1:
        yield from range(step // 2, count, step)
        step //= 2


def _add_image(shelf: Shelf, path: Path) -> None:
    try:
        if shelf.fits((path.stat().st_size + 2) // 3 * 4):
            shelf.add(path, base64.b64encode(path.read_bytes()).decode())
    except OSError:
        return


def _add_model(shelf: Shelf, path: Path) -> None:
    try:
        if not shelf.fits(path.stat().st_size):
            return
        found = _MODEL.match(path.read_bytes())
    except OSError:
        return
    if found:
        shelf.formats[path] = found[1].decode()
        shelf.add(path, found[2].decode())
