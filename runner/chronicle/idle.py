"""Why did an endpoint lie idle? From its bars, its outages and how its run ended. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_BUSY_STATUSES = (429, 503)
"""What a server says that wants to be asked later."""

_MOST = 0.5
"""What took so much of a gap is what it was for."""

HAND_OVER_S = 0.25
"""A shorter gap between an answer and a request that stood ready is the runner's own: nobody made it wait."""

_LAST = 2.0
"""When a run ends early, who did nothing for longer than so many of its own generations had nothing left to do."""

_OVERLAP_S = 0.05
"""Two bars that overlap by less followed each other: clocks are rounded, and answers read a little late."""


class Bar(NamedTuple):
    """One generation, in seconds from its run's beginning.

    ``begin_s`` and ``end_s`` are when it was sent and answered; ``wait_s``, ``image_s``: how long it had stood ready
    before, and how long its image took; ``number``: which attempt it was; ``status``: what was answered.
    """

    begin_s: float
    end_s: float
    wait_s: float = 0.0
    image_s: float = 0.0
    number: int = 1
    status: int = 200
    moved: bool = False


class Gap(NamedTuple):
    """A time without a bar, and why (a key of ``records.REASONS``)."""

    from_s: float
    until_s: float
    why: str


def slots_of(bars: Sequence[Bar], slots: int) -> list[int]:
    """Return in which of an endpoint's slots each bar (in the order of their beginnings) was.

    >>> slots_of([Bar(0, 2), Bar(1, 4), Bar(2, 3)], 2)
    [0, 1, 0]
    """
    free_at = [0.0] * max(1, slots)
    chosen = []
    for bar in bars:
        fitting = [slot for slot, at in enumerate(free_at) if at <= bar.begin_s + _OVERLAP_S]
        slot = fitting[0] if fitting else min(range(len(free_at)), key=free_at.__getitem__)
        free_at[slot] = max(free_at[slot], bar.end_s)
        chosen.append(slot)
    return chosen


def most_at_once(bars: Sequence[Bar]) -> int:
    """Return how many bars there were at a time at the most, at least 1.

    >>> most_at_once([Bar(0, 2), Bar(1, 4), Bar(3.99, 5)])
    2
    """
    moments = sorted([(bar.begin_s + _OVERLAP_S, 1) for bar in bars] + [(bar.end_s, -1) for bar in bars])
    most = now = 0
    for _, step in moments:
        now += step
        most = max(most, now)
    return max(1, most)


def gaps(
    bars: Sequence[Bar], outages: Sequence[tuple[float, float]], seconds: float, *, ended_early: bool
) -> Iterator[Gap]:
    """Yield where the bars of one slot leave a run of so many seconds empty, in pieces that have one reason each.

    >>> found = gaps([Bar(1, 4), Bar(5, 9, image_s=1.0)], [(9.5, 10)], 10, ended_early=False)
    >>> [(gap.from_s, gap.until_s, gap.why) for gap in found]
    [(0.0, 1, 'start'), (4, 5, 'image'), (9.5, 10, 'out'), (9, 9.5, 'over')]
    """
    before: Bar | None = None
    at = 0.0
    for bar in bars:
        yield from _pieces(at, bar.begin_s, outages, _why(before, bar, at))
        at, before = max(at, bar.end_s), bar
    longest_s = max((bar.end_s - bar.begin_s for bar in bars), default=0.0)
    is_end = ended_early and seconds - at <= _LAST * longest_s
    yield from _pieces(at, seconds, outages, "end" if is_end else "over")


def _why(before: Bar | None, bar: Bar, free_at_s: float) -> str:
    """Say why a slot that was free waited for this bar."""
    length_s = bar.begin_s - free_at_s
    if bar.image_s >= _MOST * length_s and bar.wait_s < _MOST * length_s:
        return "image"
    if before is None:
        return "start"
    if bar.number > 1 or before.status in _BUSY_STATUSES or bar.wait_s >= max(_MOST * length_s, HAND_OVER_S):
        return "wait" if length_s >= HAND_OVER_S else "client"
    return "over" if bar.moved else "client"


def _pieces(from_s: float, until_s: float, outages: Iterable[tuple[float, float]], why: str) -> Iterator[Gap]:
    """Yield a gap, with what falls into outages apart from the rest."""
    left = [(from_s, until_s)] if until_s > from_s else []
    for begin_s, end_s in outages:
        rest = []
        for one, other in left:
            low, high = max(one, begin_s), min(other, end_s)
            if low < high:
                yield Gap(low, high, "out")
                rest += [(one, low), (high, other)]
            else:
                rest.append((one, other))
        left = [(one, other) for one, other in rest if other > one]
    yield from (Gap(one, other, why) for one, other in left)
