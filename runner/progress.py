"""How far a run is, for who looks from outside: ``.runner/progress.json``, rewritten while it goes on."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.clock import utc_now
from runner.ledger import holder
from runner.report import Tally
from runner.schedule import Load
from runner.storage import not_for_all

PROGRESS = "progress.json"
EVERY_S = 2.0
_SHARE = 0.02
"""With very many endpoints it is written less often: it may take so much of the main thread's time."""


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
        counts = {name: getattr(tally, name) for name in ("total", "saved", "skipped", "failed", "pending")}
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
        return None
    found = _said(state)
    return found if found.get("pid") == pid else None


def left_of(state: Path) -> str | None:
    """Return the name of the run that wrote last how far it is, alive or dead; None if there is none."""
    name = _said(state).get("run")
    return name if isinstance(name, str) else None


def _said(state: Path) -> dict[str, Any]:
    try:
        found = json.loads((state / PROGRESS).read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
