"""What the main process and its children tell each other, pickled: over a pipe each, or through Dask.

A hand of the main process has one question open at a time, so its thread's number is the question's. ``lane`` is the
endpoint's index.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from runner.health import Health
from runner.records import Endpoint, Event, Task, Verdict
from runner.schedule import Rule

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Only the main process answers these."""


@dataclass(frozen=True, slots=True)
class Do:
    """Work on a load once."""

    hand: int
    lane: int
    load: Sequence[Task]


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
class Told:
    """Something is to be told before the hand is done."""

    hand: int
    event: Event


@dataclass(frozen=True, slots=True)
class Done:
    """A load was worked on once; its tasks are as its hand has written into them."""

    hand: int
    verdicts: Sequence[Verdict]
    load: Sequence[Task]


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
    load: Sequence[Task] = ()


@dataclass(frozen=True, slots=True)
class Begin:
    """Seat a child for an endpoint; ``rule`` is that of its gate."""

    endpoint: Endpoint
    rule: Rule


@dataclass(frozen=True, slots=True)
class End:
    """The child is not needed there any more."""


@dataclass(frozen=True, slots=True)
class Unseated:
    """A child could not begin."""

    error: BaseException
    trace: str


class Envelope(NamedTuple):
    """What goes to a child on a Dask worker, or comes from it; ``content`` is pickled.

    ``child`` tells those of one run apart, however often a lane moves.
    """

    child: int
    content: bytes
