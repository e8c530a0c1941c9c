"""Why did an endpoint lie idle? From its bars, what is known of the time between, and how its run ended. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from operator import attrgetter
from typing import Literal, NamedTuple

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


_UNTIL = attrgetter("until_s")


class Bar(NamedTuple):
    """One generation, in seconds from its run's beginning.

    ``begin_s`` and ``end_s`` are when it was sent and answered. ``wait_s``: how long it had stood ready before;
    ``image_s``: how long its image took; ``pause_s``: how long after its prompt's last attempt it was sent;
    ``receive_s``: how long its result arrived. ``number``: which attempt it was; ``status``: what was answered.
    """

    begin_s: float
    end_s: float
    wait_s: float = 0.0
    image_s: float = 0.0
    pause_s: float = 0.0
    receive_s: float = 0.0
    number: int = 1
    status: int = 200
    moved: bool = False
    failed: bool = False


class Gap(NamedTuple):
    """A time without a bar, and why (a key of ``records.REASONS``)."""

    from_s: float
    until_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, as far as one of its endpoints is concerned.

    ``kind``: it went through its list (``over``), was stopped (``early``), or goes on or was killed (``unheard``).
    ``stopping_s``: since when nothing new was begun, None if nobody noted that. ``left``: whether the endpoint had
    prompts left, None if nobody knows.
    """

    kind: Literal["over", "early", "unheard"] = "over"
    stopping_s: float | None = None
    left: bool | None = None


def slots_of(bars: Sequence[Bar], slots: int) -> list[int]:
    """Return in which of an endpoint's slots each bar (in the order of their beginnings) was: the first that is free.

    >>> slots_of([Bar(0, 2), Bar(1, 4), Bar(2, 3)], 2)
    [0, 1, 0]
    """
    free = [*range(max(1, slots))]
    busy: list[tuple[float, int]] = []
    chosen = []
    for bar in bars:
        while busy and busy[0][0] <= bar.begin_s + _OVERLAP_S:
            heappush(free, heappop(busy)[1])
        until_s, slot = (bar.end_s, heappop(free)) if free else heappop(busy)
        heappush(busy, (max(until_s, bar.end_s), slot))
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


def gaps(bars: Sequence[Bar], known: Sequence[Gap], seconds: float, ending: Ending) -> Iterator[Gap]:
    """Yield where the bars of one slot leave a run of so many seconds empty, in pieces that have one reason each.

    ``known`` are times whose reason is known whatever the bars say, as ``disjoint`` returns them: the endpoint was
    out, or fetched an image for nothing.

    >>> found = gaps([Bar(1, 4), Bar(5, 9, image_s=1.0)], [Gap(9.5, 10, "out")], 10, Ending())
    >>> [(gap.from_s, gap.until_s, gap.why) for gap in found]
    [(0.0, 1, 'start'), (4, 5, 'image'), (9, 9.5, 'over'), (9.5, 10, 'out')]
    """
    before: Bar | None = None
    at = 0.0
    for bar in bars:
        if bar.begin_s > at:
            yield from _cut(_between(before, bar, at), known)
        at, before = max(at, bar.end_s), bar
    if seconds > at:
        longest_s = max((bar.end_s - bar.begin_s for bar in bars), default=0.0)
        yield from _cut(_tail(before, at, seconds, ending, longest_s), known)


def disjoint(found: Iterable[Gap]) -> list[Gap]:
    """Return times whose reason is known in their order, none over another; where two overlap, ``out`` counts.

    >>> [tuple(one) for one in disjoint([Gap(0, 4, "image"), Gap(2, 6, "out"), Gap(5, 9, "image")])]
    [(0, 2, 'image'), (2, 6, 'out'), (6, 9, 'image')]
    """
    moments = sorted((at, step, one.why) for one in found for at, step in ((one.from_s, 1), (one.until_s, -1)))
    now: Counter[str] = Counter()
    known: list[Gap] = []
    before_s = 0.0
    for at, step, why in moments:
        going = "out" if now["out"] > 0 else next((one for one, count in now.items() if count > 0), "")
        if going and at > before_s:
            if known and known[-1].until_s == before_s and known[-1].why == going:
                known[-1] = Gap(known[-1].from_s, at, going)
            else:
                known.append(Gap(before_s, at, going))
        now[why] += step
        before_s = at
    return known


def _between(before: Bar | None, bar: Bar, at: float) -> list[Gap]:
    """Say why a slot that was free from ``at`` on waited for this bar."""
    length_s = bar.begin_s - at
    if bar.image_s >= _MOST * length_s and bar.wait_s < _MOST * length_s:
        return [Gap(at, bar.begin_s, "image")]
    idle = "start" if before is None else "over" if bar.moved else "client"
    if length_s < HAND_OVER_S:
        return [Gap(at, bar.begin_s, idle)]
    if bar.number > 1:
        paused_at = max(at, bar.begin_s - bar.pause_s)
        return [Gap(at, paused_at, idle), Gap(paused_at, bar.begin_s, "wait")]
    if before and before.status in _BUSY_STATUSES:
        return [Gap(at, bar.begin_s, "wait")]
    if before and bar.wait_s >= max(_MOST * length_s, HAND_OVER_S):
        return [Gap(at, bar.begin_s, "receive" if before.receive_s >= _MOST * length_s else "wait")]
    return [Gap(at, bar.begin_s, idle)]


def _tail(last: Bar | None, at: float, seconds: float, ending: Ending, longest_s: float) -> list[Gap]:
    """Say why a slot did nothing from ``at`` on, until its run ended."""
    if ending.kind == "over" or ending.left is False:
        return [Gap(at, seconds, "over")]
    if ending.kind == "unheard":
        return [Gap(at, seconds, "unheard")]
    if ending.stopping_s is None:
        is_end = ending.left or seconds - at <= _LAST * longest_s
        return [Gap(at, seconds, "end" if is_end else "over")]
    stopping_s = min(max(ending.stopping_s, at), seconds)
    if last is None:
        waited_for = "start"
    elif last.failed:
        waited_for = "wait"
    else:
        waited_for = "image" if ending.left else "over"
    if waited_for == "over" and stopping_s - at >= HAND_OVER_S:
        return [Gap(at, seconds, "over")]
    return [Gap(at, stopping_s, waited_for), Gap(stopping_s, seconds, "end")]


def _cut(found: Sequence[Gap], known: Sequence[Gap]) -> Iterator[Gap]:
    """Yield gaps, with what is known of parts of them apart from the rest, in the order of time."""
    for gap in found:
        at = gap.from_s
        for place in range(bisect_right(known, at, key=_UNTIL), len(known)):
            other = known[place]
            if other.from_s >= gap.until_s:
                break
            low, high = max(at, other.from_s), min(gap.until_s, other.until_s)
            yield from _lasting(Gap(at, low, gap.why), Gap(low, high, other.why))
            at = high
        yield from _lasting(Gap(at, gap.until_s, gap.why))


def _lasting(*found: Gap) -> Iterator[Gap]:
    return (one for one in found if one.until_s > one.from_s)
