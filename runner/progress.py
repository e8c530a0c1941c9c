"""How far a run is, for who looks from outside: ``.runner/progress.json``, rewritten while it goes on."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.clock import utc_age_s, utc_now
from runner.ledger import holder, holder_elsewhere
from runner.report import Tally
from runner.schedule import Load
from runner.storage import content_of, not_for_all, states_of

PROGRESS = "progress.json"
EVERY_S = 2.0
_SHARE = 0.02
"""With very many endpoints it is written less often: it may take so much of the main thread's time."""
_LATELY_S = 90.0
_COUNTS = ("total", "saved", "skipped", "failed", "pending")
_LANE_COUNTS = ("waiting", "taken", "saved", "failed", "retries")


class Board:
    """Shows how far a run is. A disk that refuses is no reason to end a run; what is left of a dead one nobody reads.

    It is written whole and then renamed, so that readers see no half of it.
    """

    def __init__(self, state: Path, run: str, redact: Callable[[str], str]) -> None:
        self._path = state / PROGRESS
        self._part = state / f".{PROGRESS}.00000000.part"
        self._run = run
        self._redact = redact
        self._next = 0.0

    def look(self, tally: Tally, loads: Callable[[], Sequence[Load]]) -> None:
        """Write what is true now, if the last time is long enough ago."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY_S
        with suppress(OSError):
            with open(self._part, "w", encoding="utf-8", errors="backslashreplace", opener=not_for_all) as file:
                file.write(json.dumps(self._shown(tally, loads()), ensure_ascii=False) + "\n")
            os.replace(self._part, self._path)
        self._next = max(self._next, now + (time.monotonic() - now) / _SHARE)

    def remove(self) -> None:
        """Take it away: nothing is going on any more."""
        for path in (self._part, self._path):
            with suppress(OSError):
                path.unlink()

    def _shown(self, tally: Tally, loads: Sequence[Load]) -> dict[str, Any]:
        where = {"run": self._run, "pid": os.getpid(), "host": socket.gethostname(), "at": utc_now()}
        counts = {name: getattr(tally, name) for name in _COUNTS}
        totals = {one.name: one for one in tally.endpoints()}
        endpoints = []
        for load in loads:
            did = totals[load.name]
            counted = {name: getattr(did, name) for name in ("saved", "failed", "retries", "median_s")}
            place = {"name": load.name, "state": load.state, "waiting": load.waiting, "taken": load.taken}
            endpoints.append(place | counted | {"last_error": self._redact(load.last_error)})
        return where | counts | {"seconds": round(tally.seconds, 1), "endpoints": endpoints}


def read_progress(state: Path) -> dict[str, Any] | None:
    """Return what a run that is going on in a folder says of itself; None if there is none, or it has not begun."""
    pid = holder(state)
    if pid is None:
        return _elsewhere(state)
    found = _said(state)
    return found if found.get("pid") == pid else None


def progress_in(path: Path) -> dict[Path, dict[str, Any]]:
    """Return what each run that is going on in an output folder says of itself, by its state folder.

    That is one of the whole list, or some of shards. Raises StorageError.
    """
    return {state: said for state in states_of(path) if (said := read_progress(state))}


def together(found: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return how far several runs are that go on side by side, as if they were one; None if there are none.

    One that says nonsense is passed over, as far as it does not stand alone.
    """
    each = [*found]
    if len(each) < 2:
        return dict(each[0]) if each else None
    whole: dict[str, Any] = {}
    for one in each:
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            whole = _added(whole, one) if whole else dict(one) | {"runs": len(each)}
    return whole


def _added(whole: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    counts = {name: whole[name] + one[name] for name in _COUNTS}
    lanes = {lane["name"]: lane for lane in whole["endpoints"]}
    for lane in one["endpoints"]:
        before = lanes.get(lane["name"])
        if before:
            both = {name: before[name] + lane[name] for name in _LANE_COUNTS}
            lane = before | both | {"last_error": lane["last_error"] or before["last_error"]}
        lanes[lane["name"]] = lane
    latest = {name: max(whole[name], one[name]) for name in ("at", "seconds")}
    return {**whole, **counts, **latest, "endpoints": [*lanes.values()]}


def _elsewhere(state: Path) -> dict[str, Any] | None:
    """Return what a run on another machine said of itself lately: nobody can look whether it lives.

    A disk that several machines share may be a minute late.
    """
    host, found = holder_elsewhere(state), _said(state)
    with suppress(TypeError, ValueError, AttributeError):
        if host and found.get("host") == host and utc_age_s(found["at"]) < _LATELY_S:
            return found
    return None


def left_of(state: Path) -> str | None:
    """Return the name of the run that wrote last how far it is, alive or dead; None if there is none."""
    name = _said(state).get("run")
    return name if isinstance(name, str) else None


def _said(state: Path) -> dict[str, Any]:
    try:
        found = json.loads(content_of(state / PROGRESS))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
