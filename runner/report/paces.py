"""Which endpoints are slow? By the median of what each one's latest generations took, a slot."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

WARM_UP = 5
"""An endpoint is judged, and judges others, after so many generations."""

SLOW = 2.0
"""So many times the median of the others is slow."""

NOTICEABLE_S = 0.05
"""A smaller difference is nobody's concern."""

LATEST = 25


@dataclass(frozen=True, slots=True)
class Slow:
    """An endpoint that takes ``median_s`` for a generation while the median of the others is ``others_s``.

    With several slots it is the time divided by them: a server that queues makes each one wait for the others.
    """

    name: str
    median_s: float
    others_s: float


class Paces:
    """The latest generations of every endpoint; ``slots`` has those of each.

    The medians are kept in order: with ten thousand endpoints nobody may sort them for each result.
    """

    def __init__(self, slots: Mapping[str, int]) -> None:
        self._slots = slots
        self._taken: dict[str, deque[float]] = {name: deque(maxlen=LATEST) for name in slots}
        self._counts = dict.fromkeys(self._taken, 0)
        self._medians: dict[str, float] = {}
        self._in_order: list[float] = []
        self._named: set[str] = set()

    def add(self, name: str, generate_s: float) -> Slow | None:
        """Take note of a generation; say so if its endpoint turns out to be slow, and that was not said before."""
        self._taken[name].append(generate_s)
        self._counts[name] += 1
        if self._counts[name] % WARM_UP:
            return None
        self._remember(name, median(self._taken[name]) / self._slots[name])
        found = self._judged(name)
        if found is None or name in self._named:
            return None
        self._named.add(name)
        return found

    def slow(self) -> dict[str, Slow]:
        """Return every endpoint that is slow, as things stand, by its name."""
        return {name: found for name in self._medians if (found := self._judged(name))}

    def median_s(self, name: str) -> float | None:
        """Return the median of an endpoint's latest generations, in seconds; None if it has made none."""
        taken = self._taken[name]
        return round(median(taken), 3) if taken else None

    def _remember(self, name: str, median_s: float) -> None:
        if name in self._medians:
            del self._in_order[bisect_left(self._in_order, self._medians[name])]
        self._medians[name] = median_s
        insort(self._in_order, median_s)

    def _judged(self, name: str) -> Slow | None:
        if len(self._in_order) < 2:
            return None
        mine = self._medians[name]
        others_s = self._median_without(bisect_left(self._in_order, mine))
        slow = mine >= SLOW * others_s and mine - others_s >= NOTICEABLE_S
        return Slow(name, mine, others_s) if slow else None

    def _median_without(self, place: int) -> float:
        """Return the median of all medians but the one at a place in their order."""
        half, odd = divmod(len(self._in_order) - 1, 2)
        upper = self._in_order[half + (half >= place)]
        return upper if odd else (self._in_order[half - 1 + (half - 1 >= place)] + upper) / 2
