"""Where pictures are: on a shelf in the page, or beside it, by names that take little room."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.page.album import Shelf
from runner.page.links import link
from runner.page.words import visible
from runner.pictures.records import Picture
from runner.report import plain

_DIGEST = re.compile(r"([0-9a-f]{64})(\.[a-z.]+)")
"""What most pictures are called. Digests don't pack, and several files share one: each stands once, as bytes."""


@dataclass(slots=True)
class _Digests:
    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, digest: str) -> int:
        """Return the number of a digest, from 1."""
        return self.numbers.setdefault(digest, len(self.numbers) + 1)

    def column(self) -> array[int]:
        return array("B", b"".join(map(bytes.fromhex, self.numbers)))


def places(pictures: dict[int, Picture], folder: Path, thumbnails: Shelf, models: Shelf) -> dict[str, Any]:
    """Return pictures in columns, and where each is; names are as seen from ``folder``."""
    rows = sorted(pictures)
    shown = [pictures[row] for row in rows]
    kinds = sorted({one.kind for one in shown})
    number = {kind: place for place, kind in enumerate(kinds)}
    digests = _Digests()
    return {
        "kinds": kinds,
        "row": array("I", rows),
        "kind": array("B", (number[one.kind] for one in shown)),
        "count": array("d", (one.count for one in shown)),
        "box": array("f", (side for one in shown for side in one.box or (0.0, 0.0, 0.0))),
        "words": {row: visible(one.words) for row, one in zip(rows, shown, strict=True) if one.words},
        "flags": {row: _flags(one) for row, one in zip(rows, shown, strict=True) if one.flags},
        "thumbnail": _placed([one.thumbnail for one in shown], folder, thumbnails, digests),
        "prompt": _placed([one.prompt for one in shown], folder, thumbnails, digests),
        "model": _placed([one.model for one in shown], folder, models, digests),
        "digests": digests.column(),
    }


def _flags(picture: Picture) -> list[list[str]]:
    return [[plain(word), visible(why)] for word, why in picture.flags]


def _placed(paths: Sequence[Path | None], folder: Path, shelf: Shelf, digests: _Digests) -> dict[str, Any]:
    """Return where files are: from and until where on their shelf, else (both 0) what they are called, and where.

    ``digest`` is the number of each one's digest, to which ``ending`` is added; ``names`` are those of others.
    """
    known = [shelf.places.get(path, (0, 0)) if path else (0, 0) for path in paths]
    beside = [None if place[1] else path for path, place in zip(paths, known, strict=True)]
    parents = {path.parent for path in beside if path}
    common = os.path.commonpath(parents) if parents else ""
    names = ["" if path is None else str(path).removeprefix(common).lstrip(os.sep) for path in beside]
    matches = [_DIGEST.fullmatch(name) for name in names]
    ending = next((match[2] for match in matches if match), "")
    called = [digests.number(match[1]) if match and match[2] == ending else 0 for match in matches]
    formats = sorted(set(shelf.formats.values()))
    return {
        "from": array("I", (place[0] for place in known)),
        "until": array("I", (place[1] for place in known)),
        "format": array("B", (formats.index(shelf.formats[path]) if path in shelf.formats else 0 for path in paths)),
        "formats": formats,
        "folder": link(os.path.relpath(common, folder)) + "/" if common else "",
        "ending": ending,
        "digest": array("I", called),
        "names": {place: link(name) for place, name in enumerate(names) if name and not called[place]},
    }
