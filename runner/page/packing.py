"""What the page's scripts draw from, packed, within a budget."""

from __future__ import annotations

import base64
import gzip
import json
import sys
from array import array
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runner.chronicle import Chronicle
from runner.page.album import Shelf
from runner.page.columns import columns
from runner.page.placing import places
from runner.page.words import several
from runner.pictures.records import Gallery, Picture

PACKED_BYTES = 8 * 1024 * 1024
"""What the data may take in the page, in base64."""

_WORDS_SHORT = 60
"""So many characters of a text stand in the page if there are too many texts."""

_BITS = {"B": "u8", "H": "u16", "I": "u32", "L": "u32", "f": "f32", "d": "f64"}


@dataclass(frozen=True, slots=True)
class Packed:
    """``text`` is base64 of gzip of JSON; ``notes`` say what had to be left out."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Draft:
    """What is to be packed, and what was left out of it, in words, by what it is."""

    told: Chronicle
    pictures: dict[int, Picture]
    shelves: tuple[Shelf, Shelf]
    content: dict[str, Any]
    notes: dict[str, str] = field(default_factory=dict)
    without: int = 0
    wordless: int = 0

    def place(self) -> None:
        """Say where the pictures are."""
        self.content["pictures"] = places(self.pictures, Path(self.told.folder), *self.shelves)


def packed(told: Chronicle, gallery: Gallery, thumbnails: Shelf, models: Shelf, root: str) -> Packed:
    """Return all that the scripts draw from; ``root`` is the folder's URL as seen from the page.

    What does not fit is left out in this order: the attempts of the oldest runs, pictures and texts of results that
    are as they should be, what prompts said, and what is wrong with the others but for a word.
    """
    draft = _Draft(told, dict(gallery.pictures), (thumbnails, models), columns(told, root))
    draft.place()
    text = _pack(draft.content)
    for left_out in (
        *(_old_attempts_left_out, _pictures_left_out, _words_shortened, _words_left_out),
        *(_prompts_left_out, _sentences_left_out),
    ):
        while len(text) > PACKED_BYTES and left_out(draft):
            text = _pack(draft.content)
    return Packed(text, tuple(draft.notes.values()))


def _pack(content: dict[str, Any]) -> str:
    raw = json.dumps(content, separators=(",", ":"), default=_column).encode("ascii")
    return base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode()


def _column(column: Any) -> dict[str, str]:
    """Return a column as JSON: its type, and its bytes in base64, the lowest first."""
    if not isinstance(column, array):
        raise TypeError(f"{type(column).__name__} is no column")
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return {"t": _BITS[column.typecode], "b": base64.b64encode(column.tobytes()).decode()}


def _old_attempts_left_out(draft: _Draft) -> bool:
    """Drop the attempts of half of those older runs that still have theirs; never those of the run that is shown."""
    content = draft.content
    runs: array[int] = content["attempts"]["run"]
    last = draft.told.shown if draft.told.shown is not None else len(draft.told.runs)
    present = sorted({run for run in runs if run < last})
    if not present:
        return False
    first = present[len(present) // 2] + 1
    content["first_run"] = first
    content["attempts"] = _from_run(content["attempts"], first)
    content["idle"] = _from_run(content["idle"], first)
    content["outages"] = [one for one in content["outages"] if one[0] >= first]
    draft.notes["attempts"] = (
        f"The attempts of the {several(first, 'oldest run')} are not in this page: it would be too large."
    )
    return True


def _from_run(columns: dict[str, array[Any]], first: int) -> dict[str, array[Any]]:
    kept = [place for place, run in enumerate(columns["run"]) if run >= first]
    return {name: array(column.typecode, (column[place] for place in kept)) for name, column in columns.items()}


def _pictures_left_out(draft: _Draft) -> bool:
    """Drop where pictures are that do not stand in the page, of the later half of the rows; not of what is odd."""
    there = [row for row in sorted(draft.pictures) if not draft.pictures[row].flags and _beside(draft, row)]
    dropped = there[len(there) // 2 :]
    if not dropped:
        return False
    draft.pictures.update((row, _bare(draft, row)) for row in dropped)
    draft.place()
    draft.without += len(dropped)
    draft.notes["pictures"] = (
        f"{several(draft.without, 'result')} stand here without a picture: there are too many for one page."
    )
    return True


def _beside(draft: _Draft, row: int) -> bool:
    return draft.pictures[row] != _bare(draft, row)


def _bare(draft: _Draft, row: int) -> Picture:
    """Return a picture without what does not stand in the page."""
    picture, (thumbnails, models) = draft.pictures[row], draft.shelves
    return replace(
        picture,
        thumbnail=picture.thumbnail if picture.thumbnail in thumbnails.places else None,
        prompt=picture.prompt if picture.prompt in thumbnails.places else None,
        model=picture.model if picture.model in models.places else None,
    )


def _words_shortened(draft: _Draft) -> bool:
    """Keep but the beginning of texts that are as they should be."""
    long = [row for row in _with_words(draft) if len(draft.pictures[row].words) > _WORDS_SHORT]
    for row in long:
        _retell(draft, row, words=draft.pictures[row].words[: _WORDS_SHORT - 1] + "…")
    if not long:
        return False
    draft.place()
    draft.notes["words"] = "Of texts only the beginning stands in this page: it would be too large."
    return True


def _words_left_out(draft: _Draft) -> bool:
    """Drop what stands in the later half of the texts that are as they should be."""
    there = _with_words(draft)
    dropped = there[len(there) // 2 :]
    for row in dropped:
        _retell(draft, row, words="")
    if not dropped:
        return False
    draft.place()
    draft.wordless += len(dropped)
    draft.notes["words"] = (
        f"{several(draft.wordless, 'text')} can't be read in this page, of others only the beginning: "
        "there are too many for one page."
    )
    return True


def _with_words(draft: _Draft) -> list[int]:
    return [row for row in sorted(draft.pictures) if draft.pictures[row].words and not draft.pictures[row].flags]


def _sentences_left_out(draft: _Draft) -> bool:
    """Drop why results are flagged and what is said in them, of the later half of those of which that is told."""
    told = [row for row, one in sorted(draft.pictures.items()) if one.words or any(why for _, why in one.flags)]
    dropped = told[len(told) // 2 :]
    for row in dropped:
        _retell(draft, row, words="", flags=tuple((word, "") for word, _ in draft.pictures[row].flags))
    if not dropped:
        return False
    draft.place()
    draft.notes["flags"] = "Of some results only a word says here what is wrong with them: there are too many."
    return True


def _retell(draft: _Draft, row: int, **told: Any) -> None:
    draft.pictures[row] = replace(draft.pictures[row], **told)


def _prompts_left_out(draft: _Draft) -> bool:
    """Drop what prompts said."""
    rows = draft.content["rows"]
    if not any(rows["prompts"]):
        return False
    rows["prompts"] = [""] * len(draft.told.rows)
    draft.notes["texts"] = "What was asked is not in this page, only by which key: it would be too large."
    return True
