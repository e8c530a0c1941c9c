"""When the last run in a folder began, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runner.ledger import LEDGER, holder, last_run_named
from runner.lists import lists_in
from runner.progress import left_of
from runner.remote import run_elsewhere
from runner.traces import last_summary

NAME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z)-[0-9a-f]+")
"""What a run is called: when it began, and some digits."""


@dataclass(frozen=True, slots=True)
class LastRun:
    """The latest run that left a trace.

    ``ended``: ``done`` (it went through its list), ``stopped`` (and ``stopped`` or ``error`` say why), ``killed`` (it
    left no summary), or None while it is going on.
    """

    run: str
    began_at: str
    ended: Literal["done", "stopped", "killed"] | None
    stopped: str | None = None
    error: str | None = None
    seconds: float | None = None


def last_in(state: Path, progress: Mapping[str, Any] | None) -> LastRun | None:
    """Return what is known of the latest run with a state; None if none left a trace. Raises StorageError."""
    summary = last_summary(state)
    noted = [one.run for one in lists_in(state)[-1:]]
    traces = [summary.get("run"), last_run_named(state / LEDGER), (progress or {}).get("run"), left_of(state), *noted]
    names = [name for name in traces if isinstance(name, str) and NAME.fullmatch(name)]
    if not names:
        return None
    run = max(names)
    began_at = run.rpartition("-")[0]
    if progress and progress.get("run") == run:
        return LastRun(run, began_at, None)
    if summary.get("run") != run:
        is_beginning = progress is None and holder(state) is not None  # it has said nothing of itself yet
        is_at_work = is_beginning or run_elsewhere(state) == run
        return LastRun(run, began_at, None if is_at_work else "killed")
    stopped, error, seconds = (summary.get(name) for name in ("stopped", "error", "seconds"))
    return LastRun(
        run,
        began_at,
        "stopped" if stopped or error else "done",
        stopped=stopped if isinstance(stopped, str) else None,
        error=error if isinstance(error, str) else None,
        seconds=seconds if isinstance(seconds, int | float) else None,
    )
