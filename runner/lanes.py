"""Which endpoint gets which prompt. Pure: no clocks, no threads, no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from runner.records import Prompt


def lane_of(prompt: Prompt, endpoints: int) -> int:
    """Return the lane of a prompt: its index modulo the number of endpoints.

    The index counts over the whole input, so the lane is the same before and after any crash.

    >>> [lane_of(Prompt(index, "k", "k.png"), 3) for index in range(7)]
    [0, 1, 2, 0, 1, 2, 0]
    """
    return prompt.index % endpoints


def deal(pending: Iterable[Prompt], endpoints: int) -> list[deque[Prompt]]:
    """Return one backlog a lane, each in the order of the input. What is done is simply not in ``pending``."""
    backlogs: list[deque[Prompt]] = [deque() for _ in range(endpoints)]
    for prompt in pending:
        backlogs[lane_of(prompt, endpoints)].append(prompt)
    return backlogs
