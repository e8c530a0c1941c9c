"""The trail of a folder's runs, ``.runner/runs.jsonl``: when each began, whose endpoint was out, how it ended.

The ledger tells of prompts, the summary of the last run; this tells of all runs, as they go on. A line is written
when something happens, so that a killed run has one as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.clock import utc_now
from runner.records import Back, Endpoint, Event, Out, Summary
from runner.redact import public_url
from runner.storage import content_of, no_pipe, refusals, write_whole

TRAIL = "runs.jsonl"
BYTES_MAX = 8_000_000
"""A longer trail loses its older half when the next run begins."""

_SLOTS_MOST = 1024
_SUMMARY = ("total", "saved", "skipped", "failed", "pending", "seconds", "stopped", "error")


@dataclass(slots=True)
class Gone:
    """An endpoint that was out; ``back_at`` is None if it did not come back while the run went on. Times are UTC."""

    endpoint: str
    at: str
    why: str
    back_at: str | None = None


@dataclass(slots=True)
class Trace:
    """What one run left. ``endpoints`` are name, URL and slots; ``ended`` is what its summary counted, None for none.

    ``stopping_at`` is when it was asked to begin nothing new, "" if it never was. ``command`` is what was typed,
    without secrets; None where nobody typed anything. Runs of ``shards`` (so many) that are told of as one go by the
    name of the latest; the first began at ``began_at``.
    """

    run: str
    at: str = ""
    total: int | None = None
    skipped: int | None = None
    command: str | None = None
    endpoints: tuple[tuple[str, str, int], ...] = ()
    gone: list[Gone] = field(default_factory=list)
    stopping_at: str = ""
    ended: Mapping[str, Any] | None = None
    ended_at: str = ""
    began_at: str = ""
    shards: int = 0


class Trail:
    """Writes the lines of one run. A disk that refuses is no reason to end it."""

    def __init__(self, state: Path, run: str, redact: Callable[[str], str]) -> None:
        self._path = state / TRAIL
        self._run = run
        self._redact = redact

    def began(self, endpoints: Sequence[Endpoint], *, total: int, skipped: int, command: str | None) -> None:
        """Note that the run began."""
        with suppress(OSError):
            _prepare(self._path)
        named = [[one.name, public_url(one.url), one.slots] for one in endpoints]
        said = None if command is None else self._redact(command)
        self._write("began", total=total, skipped=skipped, command=said, endpoints=named)

    def tell(self, event: Event | None) -> None:
        """Note an endpoint that is out, or back; other events pass."""
        match event:
            case Out():
                self._write("out", endpoint=event.endpoint.name, why=self._redact(event.why))
            case Back():
                self._write("back", endpoint=event.endpoint.name)

    def stopping(self) -> None:
        """Note that from now on nothing new is begun."""
        self._write("stopping")

    def ended(self, summary: Summary) -> None:
        """Note how the run ended."""
        self._write("ended", **{name: getattr(summary, name) for name in _SUMMARY})

    def _write(self, what: str, **said: Any) -> None:
        line = json.dumps({"run": self._run, "what": what, "at": utc_now()} | said) + "\n"
        with suppress(OSError):
            descriptor = no_pipe(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)


def traces_in(state: Path) -> list[Trace]:
    """Return what the runs in a folder left, in the order of their beginning. Raises StorageError."""
    path = state / TRAIL
    found: dict[str, Trace] = {}
    absent = suppress(FileNotFoundError, NotADirectoryError)
    with refusals(f"{path} can't be read"), absent, open(path, "rb", opener=no_pipe) as file:
        for said in _lines(file):
            trace = found.setdefault(said["run"], Trace(said["run"]))
            with suppress(KeyError, TypeError, ValueError, OverflowError):
                _add(trace, said)
    return [found[run] for run in sorted(found)]


def _lines(file: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for line in file:
        with suppress(ValueError, RecursionError):
            said = json.loads(line)
            if isinstance(said, dict) and isinstance(said.get("run"), str):
                yield said


def _add(trace: Trace, said: Mapping[str, Any]) -> None:
    """Add a line to what is known of a run; one that nobody can read adds nothing."""
    at = str(said["at"])
    match said["what"]:
        case "began":
            trace.endpoints = tuple((str(name), str(url), _slots(count)) for name, url, count in said["endpoints"])
            trace.total, trace.skipped = int(said["total"]), int(said["skipped"])
            trace.command = None if said["command"] is None else str(said["command"])
            trace.at = at
        case "out":
            trace.gone.append(Gone(str(said["endpoint"]), at, str(said["why"])))
        case "back":
            last = next((one for one in reversed(trace.gone) if one.endpoint == said["endpoint"]), None)
            if last and last.back_at is None:
                last.back_at = at
        case "stopping":
            trace.stopping_at = trace.stopping_at or at
        case "ended":
            trace.ended, trace.ended_at = {name: said[name] for name in _SUMMARY}, at


def _slots(count: Any) -> int:
    """Return how many slots an endpoint had, whatever somebody wrote there."""
    return min(max(1, int(count)), _SLOTS_MOST)


def _prepare(path: Path) -> None:
    """Make the next line stand alone, whatever a killed run left; drop the older half of a trail grown too long."""
    if not path.exists():
        return
    kept = content_of(path)
    if len(kept) <= BYTES_MAX and (not kept or kept.endswith(b"\n")):
        return
    kept = kept[: kept.rfind(b"\n") + 1]
    if len(kept) > BYTES_MAX:
        kept = kept[-BYTES_MAX // 2 :]
        kept = kept[kept.find(b"\n") + 1 :]
    write_whole(path, [kept])
