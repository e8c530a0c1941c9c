"""Count outcomes as they come."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import median

from runner.clock import utc_now
from runner.records import Back, Endpoint, EndpointTotals, Event, Failure, Out, Outcome, Retrying, Summary
from runner.redact import public_url
from runner.report.paces import LATEST, Paces, Slow

FAILURES_KEPT = 1000
"""So many failed prompts are named in the summary; the ledger has them all."""


class Tally:
    """The counts of a run that is going on; a constant cost an outcome, however long the list."""

    def __init__(
        self, *, run: str, total: int, redact: Callable[[str], str] = str, skipped: int, endpoints: Sequence[Endpoint]
    ) -> None:
        self.total = total
        self.skipped = skipped
        self.saved = 0
        self.failed = 0
        self._run = run
        self._redact = redact
        self._started_at = utc_now()
        self._begun = time.monotonic()
        self._endpoints = {
            one.name: EndpointTotals(one.name, public_url(one.url), slots=one.slots) for one in endpoints
        }
        self._failures: list[Failure] = []
        self._results: dict[str, deque[float]] = {one.name: deque(maxlen=LATEST) for one in endpoints}
        self._paces = Paces({one.name: one.slots for one in endpoints})

    @property
    def pending(self) -> int:
        return self.total - self.skipped - self.saved - self.failed

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def add(self, event: Event | None) -> Slow | None:
        """Count one event; an interrupted prompt stays pending. Return an endpoint that turns out to be slow."""
        slow = None
        match event:
            case Outcome(outcome="saved"):
                self.saved += 1
                if event.attempts:  # else an earlier run made it
                    last = event.attempts[-1]
                    slow = self._paces.add(event.endpoint, last.generate_s)
                    self._results[event.endpoint].append(last.generate_s + last.receive_s)
            case Outcome(outcome="failed"):
                self.failed += 1
                self._name(event)
            case Retrying():
                old = self._endpoints[event.endpoint.name]
                self._endpoints[old.name] = replace(old, retries=old.retries + 1)
            case Out():
                old = self._endpoints[event.endpoint.name]
                self._endpoints[old.name] = replace(old, outages=old.outages + 1, out=True)
            case Back():
                self._endpoints[event.endpoint.name] = replace(self._endpoints[event.endpoint.name], out=False)
        if isinstance(event, Outcome):
            self._add_attempts(event)
        return slow

    def unsaved(self, outcome: Outcome) -> None:
        """Take back what was counted as saved: its prompt is pending."""
        self.saved -= 1
        old = self._endpoints[outcome.endpoint]
        bytes_left = old.bytes - (outcome.size_bytes or 0)
        self._endpoints[old.name] = replace(old, saved=old.saved - 1, bytes=bytes_left)

    def summary(self, *, output_folder: str, stopped: str | None = None, error: str | None = None) -> Summary:
        """Return the state of affairs as the record that ends a run."""
        return Summary(
            total=self.total,
            saved=self.saved,
            skipped=self.skipped,
            failed=self.failed,
            pending=self.pending,
            seconds=round(self.seconds, 1),
            output_folder=output_folder,
            error=error,
            stopped=stopped,
            run=self._run,
            started_at=self._started_at,
            endpoints=tuple(self.endpoints()),
            failures=tuple(self._failures),
        )

    def endpoints(self) -> Iterator[EndpointTotals]:
        """Yield what each endpoint did so far."""
        slow = self._paces.slow()
        for name, totals in self._endpoints.items():
            latest = self._results[name]
            result_s = round(median(latest), 3) if latest else None
            yield replace(totals, median_s=self._paces.median_s(name), slow=name in slow, result_s=result_s)

    def _name(self, outcome: Outcome) -> None:
        if len(self._failures) < FAILURES_KEPT:
            self._failures.append(
                Failure(
                    outcome.key,
                    outcome.index,
                    outcome.prompt,
                    outcome.endpoint,
                    len(outcome.attempts),
                    self._redact(outcome.error or ""),
                )
            )

    def _add_attempts(self, outcome: Outcome) -> None:
        for attempt in outcome.attempts:
            old = self._endpoints[attempt.endpoint]
            self._endpoints[attempt.endpoint] = replace(
                old, attempts=old.attempts + 1, busy_s=round(old.busy_s + attempt.generate_s, 3)
            )
        old = self._endpoints[outcome.endpoint]
        self._endpoints[outcome.endpoint] = replace(
            old,
            saved=old.saved + (outcome.outcome == "saved"),
            failed=old.failed + (outcome.outcome == "failed"),
            bytes=old.bytes + (outcome.size_bytes or 0),
        )
