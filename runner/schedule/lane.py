"""An endpoint with the prompts that wait for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from math import inf

from runner.health import Breaker
from runner.records import Endpoint, Outcome, Task
from runner.schedule.gate import Gate, Rule

OVERDUE = 1.5
"""A generation that takes so many times what its endpoint usually takes may never end."""

LOOK_AGAIN_S = 1.0
"""A lane that left prompts to quicker ones looks again after this time."""


class Step(Enum):
    """What a hand may have to do instead of a task."""

    PROBE = "ask the endpoint how it is"
    END = "there is nothing left to do"


@dataclass(frozen=True, slots=True)
class Load:
    """What an endpoint has before it: prompts that wait in its lane, and those its hands have taken."""

    name: str
    state: str
    waiting: int
    taken: int
    last_error: str


class Lane:
    """An endpoint, and by their index the prompts that wait for it. Only the schedule changes it, its lock held.

    ``taken`` tasks are in its hands; ``moved_at`` is when one was last done with, or taken when there was none.
    ``pace_s`` is what a generation takes, lately, 0 while nobody knows. ``looking`` tells that one of its idle hands
    looks again every now and then, so that the others need not. ``wanted`` are the idle lanes that asked for what a
    hand of this one only holds ready; ``asking`` tells that this is one, since ``asked_at``; at ``refused_at`` it
    could not give what it held. ``rule`` is what its gate was told last.
    """

    def __init__(self, endpoint: Endpoint, backlog: deque[int]) -> None:
        self.endpoint = endpoint
        self.backlog = backlog
        self.adopted: deque[int] = deque()
        self.again: list[tuple[float, int, Task]] = []
        self.unsettled: list[Task] = []
        self.held: list[tuple[Task, Outcome]] = []
        self.taken = 0
        self.moved_at = 0.0
        self.pace_s = 0.0
        self.looking = False
        self.wanted: deque[Lane] = deque()
        self.asking = False
        self.asked_at = 0.0
        self.refused_at = -inf
        self.started = self.probing = self.met = False
        self.last_error = ""
        self.breaker: Breaker
        self.work: threading.Condition
        self.gate: Gate
        self.rule: Rule

    @property
    def hands(self) -> int:
        """How many threads work on the lane."""
        return self.endpoint.hands

    @property
    def waiting(self) -> bool:
        return bool(self.backlog or self.adopted or self.again)

    @property
    def load(self) -> Load:
        """What it has before it, as things stand."""
        waiting = len(self.backlog) + len(self.adopted) + len(self.again)
        return Load(self.endpoint.name, self.breaker.state, waiting, self.taken, self.last_error)

    def stuck(self, now: float) -> bool:
        """Tell whether nothing came of what it has in hand for longer than it should take."""
        return self.taken > 0 and now - self.moved_at > OVERDUE * self.pace_s + LOOK_AGAIN_S


def wake_all(lanes: Iterable[Lane]) -> None:
    """Let the hands of these lanes look for something to do. The schedule's lock is held."""
    for lane in lanes:
        lane.work.notify_all()
