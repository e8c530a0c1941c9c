"""What the main process and its worker processes tell each other, pickled, over one pipe each.

A hand of the main process has one question open at a time, so its thread's number is the question's. ``lane`` is the
endpoint's index.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from runner.health import Health
from runner.records import Task, Verdict
from runner.schedule import Rule

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Only the main process answers these."""


@dataclass(frozen=True, slots=True)
class Do:
    """Work on a task once."""

    hand: int
    lane: int
    task: Task


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask an endpoint how it is."""

    hand: int
    lane: int


@dataclass(frozen=True, slots=True)
class Settled:
    """The schedule knows what follows from the failure of this hand."""

    hand: int


@dataclass(frozen=True, slots=True)
class Obey:
    """The rule of a lane's gate."""

    lane: int
    rule: Rule


@dataclass(frozen=True, slots=True)
class Want:
    """Another endpoint would take the task that a hand of this lane only holds ready."""

    lane: int


@dataclass(frozen=True, slots=True)
class Declined:
    """No hand of the lane holds one."""

    lane: int


Order = Literal["stop", "hurry", "abandon"]
"""What goes for the whole process."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker process takes orders."""


@dataclass(frozen=True, slots=True)
class Done:
    """A task was worked on once; ``task`` is what its hand wrote into it."""

    hand: int
    verdict: Verdict
    task: Task


@dataclass(frozen=True, slots=True)
class Found:
    """How an endpoint is."""

    hand: int
    health: Health


@dataclass(frozen=True, slots=True)
class Raised:
    """The hand's work raised something; ``trace`` is its traceback."""

    hand: int
    error: BaseException
    trace: str
    task: Task | None = None
