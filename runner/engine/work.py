"""What hands do, wherever they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from runner.health import Health
from runner.records import Endpoint, Event, Outcome, Task, Verdict
from runner.schedule import Lane

Tell = Callable[[Event], None]


class Work(Protocol):
    """What hands do; many threads call it at once. Anything it raises but Away and Stopped ends the run."""

    def __call__(self, load: Sequence[Task], lane: Lane, tell: Tell) -> Sequence[Verdict]:
        """Work on a load once, within ``lane.gate`` while the endpoint generates; return a verdict on each task.

        ``tell`` takes, from this thread, what is to be told before that.
        """

    def interrupted(self, task: Task, lane: Lane) -> Outcome:
        """Return the outcome of a task that is left pending."""

    def probe(self, endpoint: Endpoint) -> Health:
        """Ask an endpoint how it is."""

    def hurry(self) -> None:
        """End at once what no generation depends on: downloads of images, probes."""

    def abandon(self) -> None:
        """Cut every exchange under way."""


class Bench(Protocol):
    """What a worker process needs for its work; it is pickled on the way there."""

    def open(
        self, endpoints: Sequence[Endpoint], abandoned: threading.Event | None = None
    ) -> AbstractContextManager[Work]:
        """Make ready for work on these endpoints, in the worker process; it sets ``abandoned``, and looks at it."""

    def clean(self, tasks: Sequence[Task]) -> None:
        """Remove, in the main process, what a worker process that died has left of its work on these tasks."""

    def interrupted(self, task: Task, lane: Lane) -> Outcome:
        """Return, in the main process, the outcome of a task that is left pending."""

    def lost(self, task: Task, lane: Lane, error: str) -> Outcome:
        """Return, in the main process, the outcome of a task that no worker process survives."""
