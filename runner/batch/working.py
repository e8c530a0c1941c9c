"""The work itself: every event is written down, counted and told, in this order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TypeGuard

from runner import engine, journal, ledger, mirror, report
from runner.batch.opening import opened_work
from runner.batch.records import Observe, Run, tell_notices
from runner.errors import AbsentError, RunnerError, UsageError
from runner.lanes import deal
from runner.progress import Board
from runner.prompts import Prompts
from runner.records import Event, Outcome, Saving, Submitted
from runner.resume import Standing
from runner.schedule import Lane, Schedule

_NO_THREAD = "can't start new thread"
"""What Python says, in a RuntimeError of no class of its own, if the system refuses it a thread."""

_NO_THREAD_MEANS = (
    "this system lets the run start no more threads: it needs slots + 1 of them for each endpoint, twice with worker "
    "processes; raise that limit (ulimit -u, TasksMax= of systemd, pids.max of a container), or use fewer endpoints"
)

_WHY = {UsageError: "usage", AbsentError: "down"}
"""Why a run ends that can't begin."""


def work_through(
    this: Run,
    schedule: Schedule,
    processes: int,
    tally: report.Tally,
    observe: Observe,
    mirrored: mirror.Mirror | None,
) -> RunnerError | None:
    """Work through the schedule, and write down every event; return the error that ended it early, if one did."""
    said_so = False
    board = Board(this.folder.state, this.name, this.config.redactor.text)
    try:
        with _open_ledger(this) as lines, opened_work(this, schedule, processes) as work:
            for events in engine.work_through(schedule, work):
                with journal.together():
                    for event in _written([_sparing(this, one) for one in events], lines):
                        slow = tally.add(event)
                        if isinstance(event, Outcome) and event.outcome == "saved" and event.key in this.doubted:
                            this.doubtful[event.key] = event
                        if mirrored and isinstance(event, Outcome):
                            mirrored.add(event)
                        this.words.tell(event)
                        this.trail.tell(event)
                        if slow:
                            this.words.tell_slow(slow)
                        observe(tally, event)
                    tell_notices(this)
                    this.folder.check()
                    _check_limits(this, tally)
                    if not said_so and journal.tell_stop(this.stop):
                        this.trail.stopping()
                        said_so = True
                if not events:
                    observe(tally, None)
                board.look(tally, schedule.loads)
    except RunnerError as error:
        this.stop.leave(_WHY.get(type(error), "error"))
        return error
    except Exception as bug:  # noqa: BLE001 - the run ends here; what was saved is told truthfully, and exit 3
        if str(bug) == _NO_THREAD:
            this.stop.leave("error")
            return RunnerError(_NO_THREAD_MEANS)
        this.stop.fail("bug")
        journal.log.error("A bug in runner ends this run", exc_info=True)
        return RunnerError(f"a bug in runner: {type(bug).__name__}: {bug} (the traceback is in the log)")
    finally:
        board.remove()
        tell_notices(this)
    if this.stop.now:
        journal.log.warning("What was still in flight was cut; its prompts stay pending")
    if this.stop.reason == "down" and (why := schedule.why_down()):
        journal.log.error("No endpoint can be used (%s)", why)
    return None


def _check_limits(this: Run, tally: report.Tally) -> None:
    """Ask to stop when there were too many failures."""
    most = this.config.settings.max_failures
    if most is not None and tally.failed >= most and not this.stop.asked:
        this.stop.ask("failures")


def _sparing(this: Run, event: Event) -> Event:
    """Turn a result that would replace the image of a prompt into a failure, and drop it."""
    if not this.inputs or not isinstance(event, Saving) or event.outcome.outcome == "dropped":
        return event
    if this.inputs.isdisjoint(map(os.path.basename, event.part.targets)):
        return event
    event.part.drop()
    name = event.outcome.file or event.outcome.key
    error = f"its result {name} would replace the image {name} of a prompt; choose another output_folder"
    nothing = {"file": None, "format": None, "size_bytes": None, "mtime_ns": None, "sha256": None}
    return replace(event.outcome, outcome="failed", blame="prompt", error=error, more=(), **nothing)  # type: ignore[arg-type]


def _written(events: Sequence[Event], lines: ledger.Ledger) -> Iterator[Event]:
    """Write the outcomes down; results get their names after that, and only then count as saved.

    A run killed between the two leaves lines without files, which nobody believes; the other way round it would
    leave files that nobody knows, and replace them.
    """
    waiting = [event for event in events if isinstance(event, Saving)]
    try:
        lines.append([one if isinstance(one, Outcome) else one.outcome for one in events if _is_written(one)])
        for event in events:
            if isinstance(event, Saving):
                part = waiting.pop(0).part
                if event.outcome.outcome == "dropped":
                    part.drop()
                else:
                    part.keep()
                yield event.outcome
            else:
                yield event
    finally:
        for saving in waiting:
            saving.part.drop()


def _is_written(event: Event) -> TypeGuard[Saving | Outcome | Submitted]:
    return isinstance(event, Saving | Outcome | Submitted)


def schedule_of(this: Run, prompts: Prompts, found: Standing, usual_s: Mapping[str, float]) -> Schedule:
    settings = this.config.settings
    endpoints = this.config.endpoints
    backlogs = deal(found.pending, len(endpoints))
    return Schedule(
        [Lane(endpoint, backlog) for endpoint, backlog in zip(endpoints, backlogs, strict=True)],
        prompts,
        this.stop,
        failover=settings.failover,
        steal=settings.assignment == "steal",
        hedge=settings.hedge,
        retry=settings.retry,
        health=settings.health,
        load_size=settings.protocol.size if settings.protocol.kind == "batch" else 1,
        jobs=found.jobs,
        ends_at=this.ends_at,
        usual_s=usual_s,
    )


@contextmanager
def _open_ledger(this: Run) -> Iterator[ledger.Ledger]:
    path = this.folder.state / ledger.LEDGER
    with closing(ledger.Ledger(path, run=this.name, redact=this.config.redactor.text)) as lines:
        yield lines
