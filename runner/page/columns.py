"""A chronicle in columns, as the page's scripts take it: every text spelled out, and no secret."""

from __future__ import annotations

from array import array
from dataclasses import fields
from typing import Any

from runner.chronicle import CHANGES, ENDS, REASONS, STATES, Attempts, Chronicle, Rows, Run
from runner.page.links import link
from runner.page.words import visible
from runner.report import plain

_OTHERWISE = ("keys", "prompts", "images", "files", "formats", "sha256")
"""Columns of the rows that don't stand in the page as they are; ``images`` have secrets and don't stand in it."""

_HALF, _KEPT = 0x400, 0xFFFF_F800
"""Of the 32 bits of a number those that round it to 12 digits in base 2, and those that are left then."""


SLOTS_SHOWN = 256
"""Of an endpoint with more slots the others are drawn in the last of these."""


def columns(told: Chronicle, root: str) -> dict[str, Any]:
    """Return all of a chronicle that scripts draw from; ``root`` is its folder's URL as seen from the page."""
    return {
        "root": root,
        "made_at": told.made_at,
        "shown": told.shown,
        "before": told.before,
        "ends": ENDS,
        "states": STATES,
        "changes": CHANGES,
        "reasons": REASONS,
        "endpoints": [{"name": plain(one.name)} for one in told.endpoints],
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
                "slots": min(one.slots, SLOTS_SHOWN),
                "share": one.share,
                "busy_s": one.busy_s,
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
        "slot": array("B", (min(one.slot, SLOTS_SHOWN - 1) for one in told.idle)),
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
