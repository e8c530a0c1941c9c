"""Which endpoint gets which prompt. Pure: no clocks, no threads, no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence


def lane_of(index: int, endpoints: int) -> int:
    """Return the lane of the prompt with this index: the index modulo the number of endpoints.

    The index counts over the whole input, so the lane is the same before and after any crash.

    >>> [lane_of(index, 3) for index in range(7)]
    [0, 1, 2, 0, 1, 2, 0]
    """
    return index % endpoints


def deal(pending: Iterable[int], endpoints: int) -> list[deque[int]]:
    """Return one backlog a lane, each in the order of the input. What is done is simply not in ``pending``.

    >>> [list(backlog) for backlog in deal([0, 1, 4, 5, 7], 3)]
    [[0], [1, 4, 7], [5]]
    """
    backlogs: list[deque[int]] = [deque() for _ in range(endpoints)]
    for index in pending:
        backlogs[lane_of(index, endpoints)].append(index)
    return backlogs


def stand_in(index: int, endpoints: int, serving: Sequence[int]) -> int:
    """Return the lane that takes a prompt while only those in ``serving`` work.

    That is its own, or by modulo one of those; counted in places of its own lane, since the index itself may share
    a divisor with the number of those that serve. With none serving it stays in its own.

    >>> [stand_in(index, 4, [0, 2]) for index in range(12)]
    [0, 0, 2, 0, 0, 2, 2, 2, 0, 0, 2, 0]
    """
    own = lane_of(index, endpoints)
    if own in serving or not serving:
        return own
    return serving[index // endpoints % len(serving)]


def next_choice(index: int, endpoints: int, asked: Sequence[int], *ranks: Sequence[int]) -> int | None:
    """Return the lane for another attempt. ``ranks`` are the lanes that serve, those to be trusted first.

    It is one not ``asked`` yet from the first rank that has any; else, of all, another than the last; else the last.
    None if none serves. Endpoints that fail together often stand together, so it is one from further on.

    >>> [next_choice(1, 3, asked, [0, 1, 2]) for asked in ([1], [1, 0], [1, 0, 2])]
    [2, 2, 1]
    >>> next_choice(1, 3, [1], [0], [0, 1, 2]), next_choice(1, 3, [1], [], [1])
    (0, 1)
    """
    fresh = next((some for rank in ranks if (some := [lane for lane in rank if lane not in asked])), [])
    others = [lane for lane in ranks[-1] if lane != asked[-1]]
    choice = fresh or others or list(ranks[-1])
    return choice[(index // endpoints + len(choice) // 2) % len(choice)] if choice else None
