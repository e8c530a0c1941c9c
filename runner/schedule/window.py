"""The time window: a generation that can't end in time is not begun."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from math import inf
from statistics import median

from runner.records import Outcome
from runner.schedule.lane import Lane

_LATEST = 25


class Window:
    """Ends at ``ends_at`` (of the schedule's clock). What a generation takes is the median of its lane's latest ones.

    That is from sending the request to the result's last byte. A lane that has made none goes by the medians of the
    others; while nobody has made any, each may try until the end. ``usual_s`` says, by endpoint, what it took
    before. A load of a batch takes so many times that as there are prompts in it, at most ``load_size``.
    """

    def __init__(
        self, ends_at: float, lanes: Sequence[Lane], usual_s: Mapping[str, float], *, load_size: int = 1
    ) -> None:
        self.ends_at = ends_at
        self._load_size = load_size
        self._latest: list[deque[float]] = [deque(maxlen=_LATEST) for _ in lanes]
        self._settled = [1] * len(lanes)
        names = {lane.endpoint.name: lane.endpoint.index for lane in lanes}
        self._medians = {names[name]: taken_s for name, taken_s in usual_s.items() if name in names}
        self._common: float | None = None

    def add(self, lane: Lane, outcome: Outcome, *, recalled: bool = False) -> None:
        """Take note of what came of a prompt, and of what a result took, unless an earlier run had asked for it."""
        if self.ends_at == inf:
            return
        self._settled[lane.endpoint.index] += 1
        if outcome.outcome == "saved" and outcome.attempts and not recalled:
            last, index = outcome.attempts[-1], lane.endpoint.index
            self._latest[index].append(last.generate_s + last.receive_s)
            self._medians[index] = median(self._latest[index])
            self._common = None

    def unknown(self, lane: Lane) -> int:
        """Return 0 if it is known what a generation takes; else a number that is another after each."""
        return 0 if self._medians or self.ends_at == inf else self._settled[lane.endpoint.index]

    def closes_at(self, lane: Lane) -> float:
        """Return when the lane's last generation may begin."""
        if not self._medians:
            return self.ends_at
        load = min(self._load_size, max(1, lane.load.waiting + lane.taken)) if self._load_size > 1 else 1
        return self.ends_at - load * self._takes_s(lane.endpoint.index)

    def _takes_s(self, index: int) -> float:
        if index in self._medians:
            return self._medians[index]
        if self._common is None:  # all of them are looked at only for who has made nothing yet
            self._common = median(self._medians.values())
        return self._common

    def is_over(self, lanes: Sequence[Lane], now: float, *, shared: bool) -> bool:
        """Tell whether nothing can be begun any more, and nothing is at work.

        ``shared``: an open lane may take what waits for a closed one.
        """
        if now >= self.ends_at:
            return True
        if self.ends_at == inf or any(lane.taken or lane.held for lane in lanes):
            return False
        needed = lanes if shared else [lane for lane in lanes if lane.waiting]
        return all(now >= self.closes_at(lane) for lane in needed)
