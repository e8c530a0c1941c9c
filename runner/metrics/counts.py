"""The counts of one batch; a constant cost an event, however many endpoints there are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from runner.records import Attempt, Back, Endpoint, Event, Out, Outcome, Retrying, Summary
from runner.report import Tally

GENERATION_S = (0.1, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
SMALL_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The upper bounds of what histograms count, in seconds: of generations, of downloads and saves."""


class Histogram:
    """Counts durations by the first of ``bounds`` that they don't exceed; the last count is of those beyond."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_s += seconds


@dataclass(slots=True)
class OfEndpoint:
    """What one endpoint did for a batch."""

    slots: int
    up: int = 1
    saved: int = 0
    failed: int = 0
    attempts: int = 0
    retries: int = 0
    outages: int = 0
    busy_s: float = 0.0
    size_bytes: int = 0
    generations: Histogram = field(default_factory=lambda: Histogram(GENERATION_S))


@dataclass(frozen=True, slots=True)
class Last:
    """How a batch ended last, and when (Unix time); 0 for never."""

    ended_at: float = 0.0
    exit_code: int = 0
    succeeded_at: float = 0.0


class Counts:
    """What is counted of one batch; ``begun_at`` is Unix time."""

    def __init__(self, endpoints: Sequence[Endpoint], *, begun_at: float) -> None:
        self.begun_at = begun_at
        self.endpoints = {one.name: OfEndpoint(one.slots) for one in endpoints}
        self.images = Histogram(SMALL_S)
        self.saves = Histogram(SMALL_S)
        self._standing: Tally | Summary | None = None

    @property
    def prompts(self) -> dict[str, int]:
        """The prompts by how they stand; {} while nothing is known."""
        known = self._standing
        if known is None:
            return {}
        return {"saved": known.saved, "skipped": known.skipped, "failed": known.failed, "pending": known.pending}

    @property
    def seconds(self) -> float:
        return self._standing.seconds if self._standing else 0.0

    def add(self, tally: Tally, event: Event | None) -> None:
        """Count one event that ``tally`` has counted."""
        self._standing = tally
        match event:
            case Outcome():
                self._add_outcome(event)
            case Retrying():
                self.endpoints[event.endpoint.name].retries += 1
            case Out():
                one = self.endpoints[event.endpoint.name]
                one.up, one.outages = 0, one.outages + 1
            case Back():
                self.endpoints[event.endpoint.name].up = 1

    def end(self, summary: Summary) -> None:
        self._standing = summary

    def _add_outcome(self, outcome: Outcome) -> None:
        for attempt in outcome.attempts:
            self._add_attempt(attempt)
        one = self.endpoints[outcome.endpoint]
        one.size_bytes += outcome.size_bytes or 0
        if outcome.outcome == "saved":
            one.saved += 1
            self.saves.add(outcome.save_s)
        elif outcome.outcome == "failed":
            one.failed += 1
        if outcome.image_s:
            self.images.add(outcome.image_s)

    def _add_attempt(self, attempt: Attempt) -> None:
        """Count an attempt; how long a generation takes, only those tell that were not refused or cut."""
        one = self.endpoints[attempt.endpoint]
        one.attempts += 1
        one.busy_s += attempt.generate_s
        if attempt.error is None:
            one.generations.add(attempt.generate_s)


def as_label(text: str) -> str:
    """Return a name as the file can hold it, in UTF-8: that of a folder may have other bytes.

    >>> as_label("caf\\udce9")
    'caf\\\\udce9'
    """
    return text.encode(errors="backslashreplace").decode()
