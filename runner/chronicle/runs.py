"""Which runs there were in a folder, and how each went: by ledger, trail and summary, whichever tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from runner import report
from runner.chronicle.reading import Sums, Told, seconds_of
from runner.clock import utc_age_s
from runner.records import Endpoint
from runner.status import LastRun
from runner.trail import Gone, Trace

_ROUNDED_S = 0.25
"""A summary's seconds are rounded, and count from a little before the first line of the trail."""

Ended = Literal["done", "stopped", "killed", "unknown"] | None


@dataclass(slots=True)
class Known:
    """A run by its number in ``Told``, with all that is known of it; times are seconds since 1970.

    ``slots`` are of its endpoints, by their numbers; ``gone``: who was out, from when until when (None: to the end),
    and why. ``shards``: so many shards that is of which this are all runs; 0: it was of the whole list.
    """

    number: int
    name: str
    began_at: str
    began_s: float
    seconds: float
    ended: Ended
    why: str
    sums: Sums
    total: int | None = None
    skipped: int | None = None
    pending: int | None = None
    command: str | None = None
    slots: dict[int, int] = field(default_factory=dict)
    gone: list[tuple[int, float, float | None, str]] = field(default_factory=list)
    stopping_s: float | None = None
    shards: int = 0
    left: tuple[int, ...] = ()
    """The numbers of those of its shards that have prompts without a result now."""

    @property
    def had_work(self) -> bool:
        """Tell whether there was anything for it to do; a run that found all saved had nothing."""
        done = self.sums.saved + self.sums.failed + self.sums.attempts
        pending = self.total is not None and self.skipped is not None and self.total > self.skipped
        return bool(done or pending or self.gone or self.sums.last_s)


def known_runs(
    told: Told,
    traces: Iterable[Trace],
    latest: LastRun | None,
    summary: Mapping[str, Any],
    endpoints: Sequence[Endpoint],
) -> Iterator[Known]:
    """Yield the runs that had anything to do, and the latest, in the order of time.

    ``told`` is given the runs and endpoints that only the trail knows. ``endpoints`` are those of the last run.
    """
    by_name = {trace.run: trace for trace in traces}
    if latest:
        by_name.setdefault(latest.run, Trace(latest.run))
    for name in sorted({*told.runs, *by_name}):
        if name not in told.runs:
            told.runs[name] = len(told.sums)
            told.sums.append(Sums())
        last = latest if latest is not None and latest.run == name else None
        own = summary if summary.get("run") == name else {}
        with suppress(ValueError):  # the name of a run is when it began; whatever is called otherwise is none
            found = _known(told, name, by_name.get(name), last, own, endpoints)
            if found.had_work or last:
                yield found


def _known(
    told: Told,
    name: str,
    trace: Trace | None,
    latest: LastRun | None,
    summary: Mapping[str, Any],
    endpoints: Sequence[Endpoint],
) -> Known:
    number = told.runs[name]
    sums = told.sums[number]
    began_at = (trace and trace.began_at) or name.rpartition("-")[0]
    began_s = seconds_of(began_at)
    said = summary or (trace.ended if trace and trace.ended else {})
    ended, why = _end(trace, latest, said)
    found = Known(number, name, began_at, began_s, 0.0, ended, why, sums)
    slots = {one.name: one.slots for one in endpoints} if latest else {}
    if trace:
        found.shards = trace.shards
        if trace.stopping_at:
            found.stopping_s = seconds_of(trace.stopping_at) - began_s
        found.command = trace.command
        slots = {one: count for one, _, count in trace.endpoints} or slots
        found.gone = [*_gone(told, trace.gone)]
    found.slots = {told.endpoints.setdefault(one, len(told.endpoints)): count for one, count in slots.items()}
    found.total = _count(said, "total", trace.total if trace else None)
    found.skipped = _count(said, "skipped", trace.skipped if trace else None)
    if found.total is not None and found.skipped is not None:
        found.pending = max(0, found.total - found.skipped - sums.saved - sums.failed)
    found.pending = _count(said, "pending", found.pending)
    found.seconds = _length(found, trace, said)
    return found


def _length(run: Known, trace: Trace | None, said: Mapping[str, Any]) -> float:
    """Return how long a run took: by its summary, else until its last trace; of one that is going on, until now.

    Its trail tells the same to the millisecond, unless the clock was set meanwhile.
    """
    if run.ended is None:
        return utc_age_s(run.began_at)
    seconds = said.get("seconds")
    if isinstance(seconds, int | float):
        return max(0.0, _exactly(run, trace, seconds) if trace else float(seconds))
    return max(0.0, max([run.sums.last_s, *(until or since for _, since, until, _ in run.gone)]) - run.began_s)


def _exactly(run: Known, trace: Trace, seconds: float) -> float:
    """Return how long a run took by its trail, if that says about the same as its summary does."""
    with suppress(ValueError):
        ended_s = seconds_of(trace.ended_at)
        if abs(ended_s - seconds_of(trace.at) - seconds) < _ROUNDED_S:
            return ended_s - run.began_s
    return float(seconds)


def _end(trace: Trace | None, latest: LastRun | None, said: Mapping[str, Any]) -> tuple[Ended, str]:
    """Say how a run ended, and why it ended early if it did."""
    if latest and latest.ended is None:
        return None, ""
    if said:
        stopped = said.get("stopped")
        early = said.get("error") or (report.why(str(stopped)) if stopped else "")
        return ("stopped", str(early)) if early else ("done", "")
    return ("killed" if trace or latest else "unknown"), ""


def _gone(told: Told, gone: Iterable[Gone]) -> Iterator[tuple[int, float, float | None, str]]:
    for one in gone:
        with suppress(ValueError):
            number = told.endpoints.setdefault(one.endpoint, len(told.endpoints))
            back_s = None if one.back_at is None else seconds_of(one.back_at)
            yield number, seconds_of(one.at), back_s, one.why


def _count(said: Mapping[str, Any], name: str, otherwise: int | None) -> int | None:
    return said[name] if isinstance(said.get(name), int) else otherwise
