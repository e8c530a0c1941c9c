"""What the page's scripts draw from: a chronicle and its pictures in columns, packed, within a budget."""

from __future__ import annotations

import base64
import gzip
import json
import os
import sys
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from runner.chronicle import CHANGES, ENDS, REASONS, STATES, Attempts, Chronicle, Rows, Run
from runner.page.album import Shelf
from runner.page.links import link
from runner.page.words import several, visible
from runner.pictures.records import Gallery, Picture
from runner.report import plain

PACKED_BYTES = 8 * 1024 * 1024
"""What the data may take in the page, in base64."""

_OTHERWISE = ("keys", "prompts", "images", "files", "formats", "sha256")
"""Columns of the rows that don't stand in the page as they are; ``images`` have secrets and don't stand in it."""

_HALF, _KEPT = 0x400, 0xFFFF_F800
"""Of the 32 bits of a number those that round it to 12 digits in base 2, and those that are left then."""

_BITS = {"B": "u8", "H": "u16", "I": "u32", "L": "u32", "f": "f32", "d": "f64"}


@dataclass(frozen=True, slots=True)
class Packed:
    """``text`` is base64 of gzip of JSON; ``notes`` say what had to be left out."""

    text: str
    notes: tuple[str, ...] = ()


def packed(told: Chronicle, gallery: Gallery, thumbnails: Shelf, models: Shelf, root: str) -> Packed:
    """Return all that the scripts draw from; ``root`` is the folder's URL as seen from the page.

    What does not fit is left out in this order: the attempts of the oldest runs, pictures of results that are as they
    should be, and what prompts said.
    """
    content = _content(told, root)
    content["pictures"] = _pictures(gallery.pictures, Path(told.folder), thumbnails, models)
    notes: list[str] = []
    text = _pack(content)
    for leave_out in (_without_old_attempts, _without_pictures, _without_texts):
        while len(text) > PACKED_BYTES and (note := leave_out(content, told, gallery)):
            notes = [one for one in notes if one.split(":")[0] != note.split(":")[0]] + [note]
            text = _pack(content)
    return Packed(text, tuple(notes))


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


def _content(told: Chronicle, root: str) -> dict[str, Any]:
    return {
        "root": root,
        "made_at": told.made_at,
        "shown": told.shown,
        "before": told.before,
        "ends": ENDS,
        "states": STATES,
        "changes": CHANGES,
        "reasons": REASONS,
        "endpoints": [{"name": plain(one.name), "slots": one.slots} for one in told.endpoints],
        "runs": [_run(one) for one in told.runs],
        "errors": [visible(one) for one in told.errors],
        "attempts": {name: _lighter(name, getattr(told.attempts, name)) for name in _columns(Attempts)},
        "first_run": 0,
        "outages": [[one.run, one.endpoint, one.from_s, one.until_s, visible(one.why)] for one in told.outages],
        "idle": _idle(told),
        "rows": _rows(told.rows),
    }


def _columns(kind: type[Attempts | Rows]) -> list[str]:
    return [one.name for one in fields(kind)]


def _lighter(name: str, column: array[Any]) -> array[Any]:
    """Return a column; how long things took to four digits: more takes much room packed, and nobody reads it.

    >>> _lighter("wait_s", array("f", [12.345678])), _lighter("start_s", array("f", [12.5]))
    (array('f', [12.345703125]), array('f', [12.5]))
    """
    if column.typecode != "f" or name == "start_s":
        return column
    bits = array("I", column.tobytes())
    rounded = array("I", ((one + _HALF) & _KEPT for one in bits))
    return array("f", rounded.tobytes())


def _run(run: Run) -> dict[str, Any]:
    return {
        "name": plain(run.name),
        "began_at": run.began_at,
        "seconds": run.seconds,
        "ended": run.ended,
        "saved": run.saved,
        "failed": run.failed,
        "attempts": run.attempts,
        "turns": [
            {
                "endpoint": one.endpoint,
                "share": one.share,
                "median_s": one.median_s,
                "slow": one.slow,
                "idle": dict(one.idle),
            }
            for one in run.turns
        ],
    }


def _idle(told: Chronicle) -> dict[str, array[Any]]:
    why = {name: place for place, name in enumerate(REASONS)}
    return {
        "run": array("H", (one.run for one in told.idle)),
        "endpoint": array("H", (one.endpoint for one in told.idle)),
        "slot": array("B", (one.slot for one in told.idle)),
        "from_s": array("f", (one.from_s for one in told.idle)),
        "until_s": array("f", (one.until_s for one in told.idle)),
        "why": array("B", (why.get(one.why, 255) for one in told.idle)),
    }


def _rows(rows: Rows) -> dict[str, Any]:
    names = sorted(set(rows.formats))
    place = {name: number for number, name in enumerate(names)}
    keys = [plain(key) for key in rows.keys]
    return {
        **{name: _lighter(name, getattr(rows, name)) for name in _columns(Rows) if name not in _OTHERWISE},
        "keys": keys,
        "prompts": [plain(prompt) for prompt in rows.prompts],
        "formats": [plain(name) for name in names],
        "format": array("H", (place[name] for name in rows.formats)),
        "has_file": array("B", (bool(name) for name in rows.files)),
        "files": {
            row: link(name)
            for row, (name, key, form) in enumerate(zip(rows.files, keys, rows.formats, strict=True))
            if name and name != f"{key}.{form}"
        },
    }


def _pictures(pictures: dict[int, Picture], folder: Path, thumbnails: Shelf, models: Shelf) -> dict[str, Any]:
    rows = sorted(pictures)
    shown = [pictures[row] for row in rows]
    kinds = sorted({one.kind for one in shown})
    return {
        "kinds": kinds,
        "row": array("I", rows),
        "kind": array("B", (kinds.index(one.kind) for one in shown)),
        "count": array("d", (one.count for one in shown)),
        "box": array("f", (side for one in shown for side in one.box or (0.0, 0.0, 0.0))),
        "words": {row: visible(one.words) for row, one in zip(rows, shown, strict=True) if one.words},
        "flags": {
            row: [[plain(word), visible(why)] for word, why in one.flags]
            for row, one in zip(rows, shown, strict=True)
            if one.flags
        },
        "thumbnail": _placed([one.thumbnail for one in shown], folder, thumbnails),
        "prompt": _placed([one.prompt for one in shown], folder, thumbnails),
        "model": _placed([one.model for one in shown], folder, models),
    }


def _placed(paths: Sequence[Path | None], folder: Path, shelf: Shelf) -> dict[str, Any]:
    """Return where files are: from and until where on their shelf, else (both 0) their names in a folder."""
    places = [shelf.places.get(path, (0, 0)) if path else (0, 0) for path in paths]
    absent = [path for path, place in zip(paths, places, strict=True) if path and not place[1]]
    parents = {path.parent for path in absent}
    common = os.path.commonpath(parents) if parents else ""
    way = link(os.path.relpath(common, folder)) + "/" if common else ""
    names = [
        "" if path is None or place[1] else link(os.path.relpath(path, common))
        for path, place in zip(paths, places, strict=True)
    ]
    formats = sorted(set(shelf.formats.values()))
    return {
        "from": array("I", (place[0] for place in places)),
        "until": array("I", (place[1] for place in places)),
        "folder": way,
        "names": names if any(names) else [],
        "formats": formats,
        "format": array("B", (formats.index(shelf.formats[path]) if path in shelf.formats else 0 for path in paths))
        if formats
        else array("B"),
    }


_LeaveOut = Callable[[dict[str, Any], Chronicle, Gallery], str | None]


def _without_old_attempts(content: dict[str, Any], told: Chronicle, gallery: Gallery) -> str | None:
    """Drop the attempts of half of those older runs that still have theirs; never those of the run that is shown."""
    first = content["first_run"]
    runs: array[int] = content["attempts"]["run"]
    last = told.shown if told.shown is not None else len(told.runs)
    present = sorted({run for run in runs if run < last})
    if not present:
        return None
    first = present[len(present) // 2] + 1 if len(present) > 1 else present[0] + 1
    cut = next((place for place, run in enumerate(runs) if run >= first), len(runs))
    content["attempts"] = {name: column[cut:] for name, column in content["attempts"].items()}
    content["first_run"] = first
    content["outages"] = [one for one in content["outages"] if one[0] >= first]
    content["idle"] = _from_run(content["idle"], first)
    return f"Too much for one page: the attempts of the {several(first, 'oldest run')} are not in it"


def _from_run(columns: dict[str, array[Any]], first: int) -> dict[str, array[Any]]:
    kept = [place for place, run in enumerate(columns["run"]) if run >= first]
    return {name: array(column.typecode, (column[place] for place in kept)) for name, column in columns.items()}


def _without_pictures(content: dict[str, Any], told: Chronicle, gallery: Gallery) -> str | None:
    """Drop where pictures are that do not stand in the page, of the later half of the rows; not of what is odd."""
    named = [content["pictures"][name] for name in ("thumbnail", "prompt", "model")]
    odd = {row for row, one in gallery.pictures.items() if one.flags}
    rows = content["pictures"]["row"]
    there = [
        place for place, row in enumerate(rows) if row not in odd and any(_at(one["names"], place) for one in named)
    ]
    dropped = there[len(there) // 2 :]
    for one in named:
        for place in dropped:
            if _at(one["names"], place):
                one["names"][place] = ""
    content["without"] = content.get("without", 0) + len(dropped)
    note = f"Too many pictures for one page: {several(content['without'], 'result')} stand without theirs"
    return note if dropped else None


def _at(names: list[str], place: int) -> str:
    return names[place] if place < len(names) else ""


def _without_texts(content: dict[str, Any], told: Chronicle, gallery: Gallery) -> str | None:
    """Drop what prompts said."""
    if not any(content["rows"]["prompts"]):
        return None
    content["rows"]["prompts"] = [""] * len(told.rows)
    return "Too many texts for one page: it does not say what was asked, only by which key"
