"""Every prompt of the list and how it stands, as far as a report shows them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.chronicle.reading import FAILED, NO_PLACE, NOTHING, SAVED, Told
from runner.chronicle.records import CHANGES, NONE, STATES, Changes, Rows
from runner.errors import StorageError
from runner.ledger import Ledgers, lines_at
from runner.prompts import Prompts, shown
from runner.records import URL
from runner.redact import public_url
from runner.remote import folder_at

ROWS_MOST = 100_000
"""So many prompts are shown; what failed comes first."""

NAMED = 200
"""So many keys of each kind of change are named."""

_TEXT_MOST = 300
_FAILED, _PENDING, _SAVED = range(len(STATES))
_NEWLY_SAVED, _NEWLY_FAILED, _FAILED_AGAIN, _MADE_AGAIN = range(1, len(CHANGES))


@dataclass(frozen=True, slots=True)
class Place:
    """A prompt to be shown: its key, how it stands, and what is known of it though no line tells."""

    key: str
    state: int
    prompt: str = ""
    image: str = ""


def places_of(prompts: Prompts, failed: Iterable[int], missing: Iterable[int]) -> Iterator[Place]:
    """Yield the prompts of a list: those that failed, those that are pending, and the others."""
    states = bytearray([_SAVED]) * len(prompts)
    for index in missing:
        states[index] = _PENDING
    for index in failed:
        states[index] = _FAILED
    for state in (_FAILED, _PENDING, _SAVED):
        for index in (index for index, one in enumerate(states) if one == state):
            prompt = prompts[index]
            yield Place(prompt.key, state, shown(prompt), prompt.image)


def places_in(told: Told) -> Iterator[Place]:
    """Yield what the ledger knows where the list can't be read."""
    for wanted, state in ((FAILED, _FAILED), (NOTHING, _PENDING), (SAVED, _SAVED)):
        for key, number in told.keys.items():
            saved = told.words.saved_at[number] != NO_PLACE
            if (SAVED if saved else told.words.kind[number]) == wanted:
                yield Place(key, state)


def rows_of(
    ledgers: Ledgers, told: Told, places: Iterable[Place], runs: Mapping[int, int], shown_run: int | None
) -> Rows:
    """Return a row for each place. ``runs`` gives the place of a run by its number in ``told``.

    ``shown_run`` is the number of the run whose changes are told of. Raises StorageError.
    """
    rows = Rows()
    wanted: dict[int, int] = {}
    for row, place in enumerate(places):
        number = told.keys.get(place.key)
        at = NO_PLACE if number is None else _line_of(told, number, place.state)
        _append(rows, place, change=_change(told, number, place.state, shown_run))
        if place.state == _PENDING and number is not None and told.words.saved_at[number] != NO_PLACE:
            rows.missing[row] = 1
        if at != NO_PLACE:
            wanted[at] = row
    for at, line in lines_at(ledgers, sorted(wanted)):
        with suppress(ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
            _fill(rows, wanted[at], json.loads(line), told, runs)
    return rows


def believe_files(rows: Rows, folder: Path) -> None:
    """Let results be pending whose files are not there in their size, where only the ledger was asked so far."""
    output = folder_at(folder)
    for row, name in enumerate(rows.files):
        found = None
        with suppress(StorageError):
            found = output.stamp(name) if name else None
        if rows.state[row] == _SAVED and (found is None or found.size_bytes != rows.size_bytes[row]):
            rows.state[row], rows.missing[row] = _PENDING, 1


def changes_of(rows: Rows, told: Told, shown_run: int | None) -> Changes:
    """Count what the run ``shown_run`` changed, in the whole ledger, and name the first in the rows."""
    words = told.words
    counts = [0] * len(CHANGES)
    for number in range(len(words.kind)):
        counts[_changed(told, number, shown_run)] += 1
    named: dict[int, list[str]] = {one: [] for one in range(1, len(CHANGES))}
    for key, change in zip(rows.keys, rows.change, strict=True):
        if change and len(named[change]) < NAMED:
            named[change].append(key)
    return Changes(
        newly_saved=counts[_NEWLY_SAVED],
        newly_failed=counts[_NEWLY_FAILED],
        failed_again=counts[_FAILED_AGAIN],
        made_again=counts[_MADE_AGAIN],
        newly_saved_keys=tuple(named[_NEWLY_SAVED]),
        newly_failed_keys=tuple(named[_NEWLY_FAILED]),
        failed_again_keys=tuple(named[_FAILED_AGAIN]),
        made_again_keys=tuple(named[_MADE_AGAIN]),
    )


def _line_of(told: Told, number: int, state: int) -> int:
    """Return where the line begins that says most of a prompt in this state."""
    saved_at, last_at = told.words.saved_at[number], told.words.last_at[number]
    return saved_at if state == _SAVED else last_at


def _change(told: Told, number: int | None, state: int, shown_run: int | None) -> int:
    return 0 if number is None or state == _PENDING else _changed(told, number, shown_run)


def _changed(told: Told, number: int, shown_run: int | None) -> int:
    words = told.words
    if words.run[number] != shown_run or words.kind[number] == NOTHING:
        return 0
    if words.kind[number] == SAVED:
        return _MADE_AGAIN if words.before[number] == SAVED else _NEWLY_SAVED
    return _FAILED_AGAIN if words.before[number] == FAILED else _NEWLY_FAILED


def _append(rows: Rows, place: Place, *, change: int) -> None:
    """Append a row of which no line has told yet."""
    for name in ("attempts", "more", "missing", "error"):
        getattr(rows, name).append(0)
    for name in ("generate_s", "image_s", "save_s", "seconds", "size_bytes"):
        getattr(rows, name).append(0.0)
    for name in ("files", "formats", "sha256"):
        getattr(rows, name).append("")
    rows.keys.append(place.key)
    rows.prompts.append(_cut(place.prompt))
    rows.images.append(place.image)
    rows.state.append(place.state)
    rows.run.append(NONE)
    rows.endpoint.append(NONE)
    rows.change.append(change)


def _fill(rows: Rows, row: int, said: Mapping[str, Any], told: Told, runs: Mapping[int, int]) -> None:
    """Put into a row what its line tells."""
    if str(said["key"]) != rows.keys[row]:
        return
    attempts = said["attempts"]
    rows.run[row] = runs.get(told.runs[told.run_of(said)], NONE)
    rows.endpoint[row] = min(told.endpoints[str(said["endpoint"])], NONE)
    rows.attempts[row] = min(len(attempts), NONE)
    prompt = str(said["prompt"])
    rows.prompts[row] = rows.prompts[row] or _cut(public_url(prompt))
    rows.images[row] = rows.images[row] or (prompt if prompt.startswith((*URL, "/")) else "")
    rows.image_s[row], rows.save_s[row], rows.seconds[row] = said["image_s"], said["save_s"], said["seconds"]
    rows.error[row] = told.error(str(said["error"] or ""), rows.keys[row])
    if said["outcome"] != "saved":
        return
    rows.files[row], rows.formats[row] = str(said["file"] or ""), str(said["format"] or "")
    rows.sha256[row] = str(said["sha256"] or "")
    rows.size_bytes[row] = min(said["size_bytes"] or 0, 2**60)
    rows.more[row] = min(len(said.get("more", ())), NONE)
    if attempts:
        rows.generate_s[row] = attempts[-1]["generate_s"]


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_MOST else f"{text[: _TEXT_MOST - 1]}…"
