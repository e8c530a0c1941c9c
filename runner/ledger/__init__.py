"""The memory of an output folder: one JSON line an outcome, appended; replayed after a crash; the lock.

A line is flushed to the operating system as soon as it is written (a killed run loses none) and to the disk at least
once a second (a power cut loses at most that second's lines; their prompts are then done again).
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from runner.ledger.history import FIRST as _FIRST
from runner.ledger.history import History, Recorded, replay
from runner.ledger.joined import LEDGER, Ledgers, ledgers_of
from runner.ledger.lines import (
    End,
    Result,
    SavedFile,
    ends_at,
    last_run_named,
    lines_at,
    recorded_at,
    results_at,
    whole_result,
)
from runner.ledger.locks import LOCK, alone, holder, holder_elsewhere, is_alive, locked, locked_for, since_of
from runner.records import Attempt, Outcome
from runner.storage import no_pipe, refusals

__all__ = [
    "LEDGER",
    "LOCK",
    "End",
    "History",
    "Ledger",
    "Ledgers",
    "Recorded",
    "Result",
    "SavedFile",
    "alone",
    "cut_torn_line",
    "ends_at",
    "holder",
    "holder_elsewhere",
    "is_alive",
    "last_run_named",
    "ledgers_of",
    "lines_at",
    "locked",
    "locked_for",
    "recorded_at",
    "replay",
    "results_at",
    "since_of",
    "whole_result",
]

_SYNC_EVERY_S = 1.0


class Ledger:
    """The open ledger of a run; only the main thread writes it. Raises StorageError when the disk refuses."""

    def __init__(self, path: Path, *, run: str, redact: Callable[[str], str]) -> None:
        self._path = path
        self._run = run
        self._redact = redact
        self._synced = time.monotonic()
        with refusals(f"{path} can't be written"):
            cut_torn_line(path)
            self._file = open(path, "ab", buffering=0, opener=no_pipe)  # noqa: SIM115 - closed in close()

    def append(self, outcomes: Sequence[Outcome]) -> None:
        """Write each outcome as one line, all at once."""
        if not outcomes:
            return
        lines = b"".join(_line(_fields(_shown(one, self._redact), self._run)) for one in outcomes)
        with refusals(f"{self._path} can't be written"):
            while lines:
                lines = lines[self._file.write(lines) :]
            if time.monotonic() - self._synced >= _SYNC_EVERY_S:
                self.sync()

    def sync(self) -> None:
        """Put what was written on the disk. A ledger that was removed under the run is an error, not a loss."""
        with refusals(f"{self._path} can't be written"):
            os.fsync(self._file.fileno())
            if not os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno())):
                raise OSError(errno.ENOENT, "another file has its name now")
        self._synced = time.monotonic()

    def close(self) -> None:
        try:
            self.sync()
        finally:
            self._file.close()


def _shown(outcome: Outcome, redact: Callable[[str], str]) -> Outcome:
    """Return the outcome with secrets out of its free texts; what later runs compare is left as it is."""
    attempts = tuple(replace(one, error=redact(one.error)) if one.error else one for one in outcome.attempts)
    return replace(outcome, attempts=attempts, error=redact(outcome.error) if outcome.error else outcome.error)


def _fields(outcome: Outcome, run: str) -> dict[str, Any]:
    found = {name: getattr(outcome, name) for name in _FIRST}
    found["run"] = run
    found |= {name: getattr(outcome, name) for name in _REST}
    if outcome.more:
        found["more"] = [asdict(one) for one in outcome.more]
    if outcome.job:
        found["job"] = asdict(outcome.job)
    found["attempts"] = [{name: getattr(one, name) for name in _ATTEMPT} for one in outcome.attempts]
    return found


_REST = [one.name for one in fields(Outcome) if one.name not in (*_FIRST, "attempts", "more", "job")]
_ATTEMPT = [one.name for one in fields(Attempt)]
_READABLE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_ESCAPED = json.JSONEncoder(separators=(",", ":")).encode


def _line(outcome: dict[str, Any]) -> bytes:
    """Return one line of JSON, readable where it can be; a path that is no Unicode has its bytes escaped."""
    try:
        return _READABLE(outcome).encode() + b"\n"
    except UnicodeEncodeError:
        return _ESCAPED(outcome).encode() + b"\n"


def cut_torn_line(path: Path) -> None:
    """Remove what a killed run left behind the last whole line, so that the next line stands alone."""
    if not path.exists():
        return
    with open(path, "rb+", opener=no_pipe) as file:
        end = file.seek(0, os.SEEK_END)
        keep = end
        while keep:
            start = max(0, keep - 65536)
            file.seek(start)
            newline = file.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep != end:
            file.truncate(keep)
