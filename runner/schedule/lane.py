"""An endpoint with the prompts that wait for it, and the slot that its hands hold while it generates."""

from __future__ import annotations

import threading
from collections import deque
from enum import Enum
from types import TracebackType
from typing import Protocol

from runner.errors import AttemptError
from runner.health import Breaker
from runner.records import Endpoint, Outcome, Task


class Away(Exception):
    """The endpoint takes no prompts just now: give the task back."""


class Stopped(Exception):
    """The run should stop, and the task is not on its endpoint: leave it pending."""


class Step(Enum):
    """What a hand may have to do instead of a task."""

    PROBE = "ask the endpoint how it is"
    END = "there is nothing left to do"


class Lane:
    """An endpoint, and by their index the prompts that wait for it. Only the schedule changes it, its lock held.

    ``pace_s`` is what a generation takes, lately, 0 while nobody knows. ``standing`` hands are ready and wait for the
    slot; ``wanted`` are the idle lanes that asked for what such hands hold, ``asking`` tells that this is one.
    """

    def __init__(self, endpoint: Endpoint, backlog: deque[int]) -> None:
        self.endpoint = endpoint
        self.backlog = backlog
        self.adopted: deque[int] = deque()
        self.again: list[tuple[float, int, Task]] = []
        self.unsettled: list[Task] = []
        self.held: list[tuple[Task, Outcome]] = []
        self.taken = self.generating = 0
        self.judging: set[int] = set()
        self.sent_at: dict[int, float] = {}
        self.pace_s = 0.0
        self.standing = 0
        self.wanted: deque[Lane] = deque()
        self.asking = False
        self.started = self.probing = self.met = False
        self.last_error = ""
        self.breaker: Breaker
        self.work: threading.Condition
        self.free: threading.Condition
        self.slot: Slot

    @property
    def hands(self) -> int:
        """How many threads work on the lane."""
        return self.endpoint.slots + 1

    @property
    def waiting(self) -> bool:
        return bool(self.backlog or self.adopted or self.again)


class Gate(Protocol):
    """Who lets hands in: the schedule."""

    def enter(self, lane: Lane) -> None: ...

    def leave(self, lane: Lane, *, failed: bool) -> None: ...


class Slot:
    """Holds one of an endpoint's slots for the ``with`` block. Raises Away or Stopped instead of waiting for nothing.

    After an AttemptError in the block nobody else is let in before that was settled: it may take the endpoint out.
    """

    def __init__(self, gate: Gate, lane: Lane) -> None:
        self._gate = gate
        self._lane = lane

    def __enter__(self) -> None:
        self._gate.enter(self._lane)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate.leave(self._lane, failed=isinstance(error, AttemptError))
