"""The end of a run: what belongs elsewhere goes there, and the summary says the truth."""

from __future__ import annotations

from contextlib import suppress

from runner import journal, mirror, report
from runner.batch.places import SUMMARY, near
from runner.batch.records import Run, tell_notices
from runner.errors import RunnerError, StorageError
from runner.records import Summary


def look_again(this: Run, tally: report.Tally) -> None:
    """Compare what is doubtful in a bucket with the ledger; what is another now is removed, and pending."""
    if this.stop.now:
        return
    replaced: list[str] = []
    try:
        for outcome in this.doubtful.values():
            if this.folder.refute(outcome):
                tally.unsaved(outcome)
                replaced.append(outcome.key)
    except RunnerError as error:
        journal.log.warning("%s; `runner verify` tells whether results were replaced", error)
    if replaced:
        journal.log.warning(
            "A worker that had stood still replaced what others made of %s: removed; the same command makes it again",
            ", ".join(replaced),
        )


def close(this: Run, tally: report.Tally, error: RunnerError | None, mirrored: mirror.Mirror | None) -> Summary:
    """Write the summary and the last lines of the log; what is mirrored goes up before, and the summary after it."""
    if mirrored:
        mirrored.finish()
        error = error or _left_behind(this, mirrored)
    summary = _summed_up(this, tally, error)
    if mirrored:
        mirrored.put_state()
        if error is None and (left := _left_behind(this, mirrored)):
            summary = _summed_up(this, tally, left)
    journal.conclude(summary)
    return summary


def _summed_up(this: Run, tally: report.Tally, error: RunnerError | None) -> Summary:
    """Write the summary, and let the state be where it belongs."""
    folder = near(this.folder.shown)
    said = this.config.redactor.text(str(error)) if error else None
    summary = tally.summary(output_folder=folder, stopped=this.stop.reason, error=said)
    try:
        this.folder.write(SUMMARY, report.summary_json(summary))
        this.trail.ended(summary)
        this.folder.settle(hurry=this.stop.now)
    except RunnerError as refused:
        error = error or refused
        summary = tally.summary(output_folder=folder, stopped="error", error=str(error))
        with suppress(StorageError):
            this.folder.write(SUMMARY, report.summary_json(summary))
    return summary


def _left_behind(this: Run, mirrored: mirror.Mirror) -> RunnerError | None:
    """Return what is to be said of results that are saved here and did not get into the bucket; None if all did."""
    tell_notices(this)
    try:
        problem = mirrored.problem(near(this.folder.path))
    except RunnerError as refused:
        return refused
    return RunnerError(problem) if problem else None
