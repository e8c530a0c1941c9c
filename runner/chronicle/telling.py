"""Read a folder, and tell what happened in it."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path

from runner.chronicle.again import offer
from runner.chronicle.attempts import Laid, Span, laid_out, renumbered
from runner.chronicle.idle import Ending, Gap, disjoint
from runner.chronicle.reading import Told, read
from runner.chronicle.records import ENDS, STATES, Attempts, Chronicle, Outage, Rows, Server
from runner.chronicle.rows import ROWS_MOST, Place, believe_files, changes_of, places_in, places_of, rows_of
from runner.chronicle.runs import Known, known_runs
from runner.chronicle.turns import runs_of
from runner.clock import utc_now
from runner.errors import StorageError, UsageError
from runner.lanes import lane_of
from runner.progress import progress_in
from runner.redact import public_url
from runner.remote import url_at
from runner.report import Cause, causes_of
from runner.status import Status, last_run, rounds_in, status_of, told_runs
from runner.storage import STATE
from runner.traces import expect_ledger, last_summary
from runner.trail import Trace

RUNS_MOST = 200
"""So many runs are told of, the latest that had anything to do."""

_SAVED = ENDS.index("saved")

ATTEMPTS_MOST = 200_000
"""So many attempts are listed, the latest; all of them are counted."""


def chronicle_of(path: Path, *, beat: Callable[[], None] | None = None) -> Chronicle:
    """Read all that is known of a folder; a run may be going on in it. Only reads.

    Where the list can't be read any more, the ledger alone is told of, and a note says so. ``beat`` is called now and
    then, and may raise to end it. Raises UsageError (no run was ever here), StorageError.
    """
    ledgers = expect_ledger(path)
    notes: list[str] = []
    found = _status(path, notes)
    traces, names = told_runs(path)
    told = read(ledgers, _in_order(found, traces), names=names, beat=beat)
    known = _runs(path, told, found, traces)
    _until_trial(told, known)
    shown = next((one for one in reversed(known) if one.had_work), known[-1] if known else None)
    offer(path, shown, found)
    numbers = {one.number: place for place, one in enumerate(known)}
    rows = rows_of(ledgers, told, islice(_places(found, told), ROWS_MOST), numbers, shown.number if shown else None)
    if found is None:
        believe_files(rows, path)
    row_of = {told.keys[key]: row for row, key in enumerate(rows.keys) if key in told.keys}
    keep = _kept(told, known)
    laid = laid_out(told, _spans(told, known, found), keep, row_of)
    total = found.total if found else len(told.keys)
    notes += [*_of_shards(path, shown), *_notes(told, total, rows, laid, known)]
    earlier = known[: numbers[shown.number]] if shown else []
    before = next((one for one in reversed(earlier) if one.had_work), None)
    return Chronicle(
        folder=url_at(path) or str(path),
        made_at=utc_now(),
        total=total,
        saved=found.saved if found else rows.state.count(STATES.index("saved")),
        failed=len(found.failed) if found else rows.state.count(STATES.index("failed")),
        pending=len(found.missing) if found else rows.state.count(STATES.index("pending")),
        endpoints=tuple(_servers(told, found, traces)),
        runs=tuple(runs_of(told, known, laid)),
        shown=numbers[shown.number] if shown else None,
        before=numbers[before.number] if before else None,
        attempts=_placed(laid.attempts, numbers),
        rows=rows,
        errors=[*told.errors],
        outages=tuple(_outages(known)),
        idle=tuple(replace(one, run=numbers[one.run]) for one in laid.idle if one.run in keep),
        causes=tuple(found.causes if found else _causes(rows, told)),
        changes=changes_of(rows, told, shown.number if shown else None),
        notes=tuple(notes),
        what=f"{found.config.protocol.name}, seed {found.config.settings.seed}" if found else "",
    )


def _status(path: Path, notes: list[str]) -> Status | None:
    try:
        return status_of(path)
    except UsageError as error:
        notes.append(f"the list of the last run can't be read, so only what the ledger knows is told: {error}")
    except StorageError as error:
        notes.append(f"how the folder stands can't be told, only what the ledger knows: {error}")
    return None


def _in_order(found: Status | None, traces: Sequence[Trace]) -> Iterator[str]:
    """Yield the endpoints by their names: as the config has them, then those of earlier runs.

    A config of a shard may have other endpoints than those of the others.
    """
    if found and not found.shards:
        yield from (one.name for one in found.config.endpoints)
    yield from (name for trace in reversed(traces) for name, _, _ in trace.endpoints)


def _runs(path: Path, told: Told, found: Status | None, traces: Sequence[Trace]) -> list[Known]:
    """Return the runs that are told of."""
    latest = found.last_run if found else last_run(path, progress_in(path))
    endpoints = found.config.endpoints if found else ()
    return [*known_runs(told, traces, latest, last_summary(path / STATE), endpoints)][-RUNS_MOST:]


def _places(found: Status | None, told: Told) -> Iterator[Place]:
    return places_of(found.prompts, found.failed, found.missing) if found else places_in(told)


def _spans(told: Told, runs: Sequence[Known], found: Status | None) -> dict[int, Span]:
    """Return the span of each run, by its number."""
    left = _left(found)
    return {
        one.number: Span(
            one.began_s,
            one.seconds,
            one.slots,
            _known_gaps(told, one),
            partial(_ending, one, left if one is runs[-1] and not one.shards else None),
        )
        for one in runs
    }


def _left(found: Status | None) -> set[int] | None:
    """Return the endpoints for whose lanes there are prompts pending, by their numbers; None if nobody knows."""
    if found is None:
        return None
    count = len(found.config.endpoints)
    return {lane_of(index, count) for index in found.missing}


def _ending(run: Known, left: set[int] | None, endpoint: int) -> Ending:
    """Say how a run ended for one of its endpoints."""
    if run.pending == 0 or run.ended == "done":
        return Ending("over")
    has_left = None if left is None else endpoint in left
    return Ending("early" if run.ended == "stopped" else "unheard", run.stopping_s, has_left)


def _known_gaps(told: Told, run: Known) -> dict[int, list[Gap]]:
    """Return of each endpoint when it was out, and when images were fetched for nothing."""
    found: defaultdict[int, list[Gap]] = defaultdict(list)
    for endpoint, since_s, until_s, _ in run.gone:
        end_s = run.seconds if until_s is None else until_s - run.began_s
        found[endpoint].append(Gap(since_s - run.began_s, end_s, "out"))
    for endpoint in range(len(told.endpoints)):
        for one, other in told.fetches.get((run.number, endpoint), ()):
            found[endpoint].append(Gap(one - run.began_s, other - run.began_s, "image"))
    return {endpoint: disjoint(gaps) for endpoint, gaps in found.items()}


def _until_trial(told: Told, runs: Sequence[Known]) -> None:
    """Let each outage end when the request was sent that showed that the endpoint is well: its answer came later."""
    tries = told.tries
    saved: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    for run, endpoint, end, sent_s in zip(tries.run, tries.endpoint, tries.end, tries.sent_s, strict=True):
        if end == _SAVED:
            saved[run, endpoint].append(sent_s)
    for times in saved.values():
        times.sort()
    for one in runs:
        for place, (endpoint, since_s, until_s, why) in enumerate(one.gone):
            times = saved.get((one.number, endpoint), [])
            trial = bisect_right(times, since_s)
            if until_s is not None and trial < len(times) and times[trial] < until_s:
                one.gone[place] = (endpoint, since_s, times[trial], why)


def _kept(told: Told, runs: Sequence[Known]) -> dict[int, float]:
    """Return from when on each run's attempts are listed, by its number: whole runs, and of the latest a part."""
    keep: dict[int, float] = {}
    left = ATTEMPTS_MOST
    for one in reversed(runs):
        if one.sums.attempts <= left:
            keep[one.number] = -inf
        elif not keep:
            sent = sorted(at for at, run in zip(told.tries.sent_s, told.tries.run, strict=True) if run == one.number)
            keep[one.number] = sent[-left]
        else:
            break
        left -= min(left, one.sums.attempts)
    return keep


def _of_shards(path: Path, shown: Known | None) -> Iterator[str]:
    """Yield what a reader has to know of a run that is several shards'."""
    if shown and shown.shards:
        for one in rounds_in(path):
            if one.name == shown.name:
                yield f"the run is that of {len(one.parts)} of {one.count} shards, told of as one"
                yield from one.wrong()


def _notes(told: Told, total: int, rows: Rows, laid: Laid, known: Sequence[Known]) -> Iterator[str]:
    """Yield what a reader has to know of what is not shown."""
    if not total and told.keys:
        yield f"the list is empty now; the ledger knows of {len(told.keys)} prompts"
    if told.unreadable:
        yield f"lines of the ledger that can't be read: {told.unreadable}; what they said is lost"
    if len(rows) < total:
        yield f"{len(rows)} of {total} prompts are shown, those that failed first; all of them are counted"
    attempts = sum(one.sums.attempts for one in known)
    if len(laid.attempts) < attempts:
        yield f"the timeline shows the latest {len(laid.attempts)} of {attempts} attempts; all of them are counted"


def _servers(told: Told, found: Status | None, traces: Sequence[Trace]) -> Iterator[Server]:
    """Yield every endpoint, by its number."""
    known = {name: Server(name, url, slots) for one in traces for name, url, slots in one.endpoints}
    if found:
        known |= {one.name: Server(one.name, public_url(one.url), one.slots) for one in found.config.endpoints}
    yield from (known.get(name) or Server(name) for name in told.endpoints)


def _placed(attempts: Attempts, numbers: Mapping[int, int]) -> Attempts:
    """Return the attempts with the places of their runs instead of their numbers, in the order of these."""
    attempts.run = renumbered(attempts.run, numbers)
    order = sorted(range(len(attempts)), key=attempts.run.__getitem__)  # a stable sort
    if order != [*range(len(attempts))]:
        for name in Attempts.__slots__:
            column = getattr(attempts, name)
            setattr(attempts, name, array(column.typecode, map(column.__getitem__, order)))
    return attempts


def _outages(known: Sequence[Known]) -> Iterator[Outage]:
    for place, one in enumerate(known):
        for endpoint, since_s, until_s, why in one.gone:
            back_s = None if until_s is None else round(until_s - one.began_s, 3)
            yield Outage(place, endpoint, round(since_s - one.began_s, 3), back_s, why)


def _causes(rows: Rows, told: Told) -> list[Cause]:
    """Group the failures that the ledger knows, where nobody knows the list."""
    errors, names = [*told.errors], [*told.endpoints]
    failed = STATES.index("failed")
    return causes_of(
        (rows.keys[row], names[rows.endpoint[row]], errors[rows.error[row]])
        for row, state in enumerate(rows.state)
        if state == failed and rows.endpoint[row] < len(names)
    )
