"""Runs of shards that belong together: eight jobs of one array are one night's work to whoever reads of them.

Of each shard a round has one run. Its next one begins another round, unless it took over what was cut short while
the other shards were at work: then that counts, and what was cut is a run by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any, Literal

from runner.ledger import Ledgers, ledgers_of
from runner.progress import progress_in
from runner.report import why
from runner.shards import Shard, shard_in
from runner.status.lastly import NAME, LastRun, last_in
from runner.storage import states_of
from runner.trail import Trace, traces_in

_PAUSE_S = 3600.0
"""A shard that begins so long after the others ended still belongs to them: arrays are mostly let run bit by bit."""

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Part:
    """The run of one shard. ``began_s`` and ``heard_s`` are in seconds since 1970; the latter is when it ended, or
    was heard of last, infinity while it goes on. ``last`` is how it ended.
    """

    shard: Shard
    state: Path
    trace: Trace
    began_s: float
    heard_s: float
    last: LastRun

    @property
    def has_left(self) -> bool:
        """Tell whether by this run its shard has prompts without a result."""
        ended = self.trace.ended
        return ended is None or bool(ended["failed"] or ended["pending"])


@dataclass(frozen=True, slots=True)
class Round:
    """Runs that belong together, one a shard, in the order of their beginnings.

    It goes by the name of the one that began last. ``absent`` are the numbers of shards that have never run.
    """

    count: int
    parts: tuple[Part, ...]
    absent: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return self.parts[-1].trace.run

    @property
    def began_at(self) -> str:
        return self.parts[0].trace.run.rpartition("-")[0]

    def wrong(self) -> Iterator[str]:
        """Yield what keeps this from being the whole list's work, done."""
        killed = [str(one.shard) for one in self.parts if one.last.ended == "killed"]
        if killed:
            yield f"{shards_named(killed)} left no summary (killed?)"
        for one in self.parts:
            if one.last.ended == "stopped":
                yield f"shard {one.shard} was stopped: {one.last.error or why(one.last.stopped)}"
        if self.absent:
            absent = [f"{number}/{self.count}" for number in self.absent]
            yield f"{shards_named(absent)} {'have' if absent[1:] else 'has'} not run yet"


def rounds_in(path: Path) -> list[Round]:
    """Return the rounds of an output folder in the order of time; none if no shard ever ran. Raises StorageError."""
    states = {state: shard for state in states_of(path)[1:] if (shard := shard_in(state.name))}
    if not states:
        return []
    ledgers, going = ledgers_of(path), progress_in(path)
    parts = [part for state, shard in states.items() for part in _parts(state, shard, ledgers, going.get(state))]
    parts.sort(key=lambda one: one.trace.run)
    rounds: list[list[Part]] = []
    for part in parts:
        if rounds and _belongs(rounds[-1], part):
            rounds[-1] = [*(one for one in rounds[-1] if one.shard != part.shard), part]
        else:
            rounds.append([part])
    return [_round(one, parts) for one in rounds]


def shards_named(named: Sequence[str]) -> str:
    """Name shards in a sentence, the first few of many."""
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return f"shard{'s' if named[1:] else ''} {', '.join(named[:_NAMED])}{more}"


def _round(parts: Sequence[Part], known: Iterable[Part]) -> Round:
    count = parts[0].shard.count
    ran = {one.shard.number for one in known if one.shard.count == count}
    return Round(count, tuple(parts), tuple(number for number in range(1, count + 1) if number not in ran))


def _belongs(others: Sequence[Part], part: Part) -> bool:
    """Tell whether a run is of a round, or begins another."""
    if others[0].shard.count != part.shard.count:
        return False
    rest = [one.heard_s for one in others if one.shard != part.shard]
    if len(rest) < len(others):  # its shard has had a run in it
        return bool(rest) and part.began_s <= max(rest)
    return part.began_s <= max(rest) + _PAUSE_S


def _parts(state: Path, shard: Shard, ledgers: Ledgers, progress: Mapping[str, Any] | None) -> Iterator[Part]:
    """Yield the runs of a shard, as far as anything tells of them."""
    last = last_in(state, progress)
    found = {one.run: one for one in traces_in(state)}
    file = state / "ledger.jsonl"
    names = {one.run for one in ledgers.stretches if one.path == file} | {*found} | ({last.run} if last else set())
    for name in names:
        if not NAME.fullmatch(name):
            continue
        trace = found.get(name, Trace(name))
        own = last if last and last.run == name else None
        heard_s = inf if own and own.ended is None else _heard_s(trace, ledgers)
        yield Part(shard, state, trace, _seconds(name.rpartition("-")[0]), heard_s, own or _ending(trace))


def _ending(trace: Trace) -> LastRun:
    """Return how a run ended by its trail, if it is not the last with its state, or left no more than that."""
    began_at = trace.run.rpartition("-")[0]
    if trace.ended is None:
        return LastRun(trace.run, began_at, "killed")
    stopped, error, seconds = (trace.ended[name] for name in ("stopped", "error", "seconds"))
    ended: Literal["stopped", "done"] = "stopped" if stopped or error else "done"
    return LastRun(
        trace.run,
        began_at,
        ended,
        stopped=str(stopped) if stopped else None,
        error=str(error) if error else None,
        seconds=seconds if isinstance(seconds, int | float) else None,
    )


def _heard_s(trace: Trace, ledgers: Ledgers) -> float:
    if trace.ended_at:
        return _seconds(trace.ended_at)
    gone = [at for one in trace.gone for at in (one.at, one.back_at or "")]
    said = [trace.run.rpartition("-")[0], trace.at, trace.stopping_at, *gone, ledgers.heard(trace.run)]
    return max(map(_seconds, said))


def _seconds(at: str) -> float:
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()
    return 0.0


def last_run(path: Path, progress: Mapping[Path, Mapping[str, Any]]) -> LastRun | None:
    """Return what is known of the latest run in a folder; None if none left a trace. Raises StorageError.

    ``progress`` is what those that are going on say of themselves. Runs of shards that belong together are one.
    """
    states = states_of(path)
    found = [one for state in states if (one := last_in(state, progress.get(state)))]
    latest = max(found, key=lambda one: one.run, default=None)
    rounds = rounds_in(path)
    return _folded(rounds[-1]) if rounds and (latest is None or latest.run <= rounds[-1].name) else latest


def _folded(whole: Round) -> LastRun:
    each = [one.last for one in whole.parts]
    ends = {one.ended for one in each}
    wrong = [*whole.wrong()]
    ended: Literal["done", "stopped", "killed"] | None = "stopped" if wrong else "done"
    if None in ends:
        ended = None
    elif "killed" in ends:
        ended = "killed"
    ends_s = [_seconds(one.began_at) + one.seconds for one in each if one.seconds is not None]
    seconds = round(max(ends_s) - whole.parts[0].began_s, 1) if len(ends_s) == len(each) else None
    return LastRun(
        whole.name,
        whole.began_at,
        ended,
        stopped=next((one.stopped for one in each if one.stopped), None),
        error="; ".join(wrong) if ended in ("stopped", "killed") and wrong else None,
        seconds=None if ended is None else seconds,
    )


def told_runs(path: Path) -> tuple[list[Trace], dict[str, str]]:
    """Return what all runs in a folder left, a round as one; and by what name of a round the runs in it go."""
    states = states_of(path)
    traces = {one.run: one for state in states for one in traces_in(state)}
    names: dict[str, str] = {}
    for one in rounds_in(path):
        names |= {part.trace.run: one.name for part in one.parts}
        for part in one.parts:
            traces.pop(part.trace.run, None)
        traces[one.name] = _merged(one)
    return [traces[run] for run in sorted(traces)], names


def _merged(whole: Round) -> Trace:
    """Return what the runs of a round left, as if one had left it."""
    each = [one.trace for one in whole.parts]
    totals = [(one.total, one.skipped) for one in each if one.total is not None and one.skipped is not None]
    is_known = len(totals) == len(each)
    slots: dict[tuple[str, str], int] = {}
    for part in sorted(whole.parts, key=lambda one: one.shard.number):
        for name, url, count in part.trace.endpoints:
            slots[name, url] = slots.get((name, url), 0) + count
    ended = [one.ended for one in each if one.ended is not None]
    stopping = [one.stopping_at for one in each]
    return Trace(
        whole.name,
        at=min((one.at for one in each if one.at), default=""),
        total=sum(total for total, _ in totals) if is_known else None,
        skipped=sum(skipped for _, skipped in totals) if is_known else None,
        command=next((one.command for one in each if one.command), None),
        endpoints=tuple((name, url, count) for (name, url), count in slots.items()),
        gone=sorted((gone for one in each for gone in one.gone), key=lambda gone: gone.at),
        stopping_at=max(stopping) if all(stopping) else "",
        ended=_sums(whole, ended) if len(ended) == len(each) else None,
        ended_at=max(one.ended_at for one in each),
        began_at=whole.began_at,
        shards=whole.count,
    )


def _sums(whole: Round, ended: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what the summaries of a round's runs counted, together."""
    counts: dict[str, Any] = {}
    for name in ("total", "saved", "skipped", "failed", "pending"):
        given = [one[name] for one in ended]
        counts[name] = sum(given) if all(isinstance(one, int) for one in given) else None
    wrong = [*whole.wrong()]
    seconds = round(max(one.heard_s for one in whole.parts) - whole.parts[0].began_s, 1)
    return counts | {"seconds": seconds, "stopped": None, "error": "; ".join(wrong) or None}
