"""What a run tells, folded into Prometheus metrics in a file for node_exporter's textfile collector."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from runner.journal import log
from runner.metrics import textfile
from runner.metrics.counts import Counts, Last, as_label
from runner.records import Endpoint, Event, Summary
from runner.report import Tally

__all__ = ["Metrics"]

KEPT_S = 31 * 86_400.0
"""So long the file tells how a batch ended that isn't run any more; else every dated folder would stay there."""

_SHARE = 0.02
"""Of its thread's time, writing takes no more than this: 400 endpoints are 10 000 lines, a tenth of a second."""


class Metrics:
    """The metrics of the batches that one process runs, one after the other, in the file at ``path``.

    ``batch`` is how a batch is named there: its output folder as the user wrote it. All of it is for one thread. A
    file that can't be written is worth a warning, once, and ends nothing; a run that is killed leaves the last one.
    ``problem`` is what went wrong with that. ``clock`` (monotonic) and ``now`` (Unix time) are for tests.
    """

    def __init__(
        self,
        path: Path,
        *,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._every_s = every_s
        self._clock = clock
        self._now = now
        self._due = clock() + every_s
        self._batches: dict[str, Counts] = {}
        self._last: dict[str, Last] = {}
        self.problem = ""

    def begin(self, batch: str, endpoints: Sequence[Endpoint]) -> None:
        """Begin to count a batch, from 0, and write."""
        self._batches[as_label(batch)] = Counts(endpoints, begun_at=self._now())
        self._write()

    def observe(self, batch: str, tally: Tally, event: Event | None) -> None:
        """Count one event, or take note that time passed; write if the last time was ``every_s`` ago."""
        self._batches[as_label(batch)].add(tally, event)
        if self._clock() >= self._due:
            self._write()

    def end(self, batch: str, summary: Summary, *, exit_code: int) -> None:
        """Take note of how a batch ended, even one that never began, and write."""
        batch = as_label(batch)
        if batch in self._batches:
            self._batches[batch].end(summary)
        last = replace(self._last.get(batch, Last()), ended_at=self._now(), exit_code=exit_code)
        if exit_code == 0:
            last = replace(last, succeeded_at=last.ended_at)
        self._last[batch] = last
        self._write()

    def _write(self) -> None:
        """Write the file anew, with what it says of the last ends of other batches."""
        begun = self._clock()
        self._recall()
        latest = self._now() - KEPT_S
        last = {batch: one for batch, one in self._last.items() if batch in self._batches or one.ended_at > latest}
        try:
            textfile.write(self._path, self._batches, last)
        except OSError as error:
            if not self.problem:
                self.problem = f"The metrics can't be written to {self._path}: {error.strerror or error}"
                log.warning("%s", self.problem)
        took_s = self._clock() - begun
        self._due = self._clock() + max(self._every_s, took_s / _SHARE)

    def _recall(self) -> None:
        """Believe the file where it knows of a later end (another process may write it too), but in none to come."""
        now = self._now()
        for batch, found in textfile.last_ends(self._path).items():
            if max(found.ended_at, found.succeeded_at) > now:  # a clock that was wrong would hide all ends until then
                continue
            known = self._last.get(batch, Last())
            later = found if found.ended_at > known.ended_at else known
            self._last[batch] = replace(later, succeeded_at=max(found.succeeded_at, known.succeeded_at))
