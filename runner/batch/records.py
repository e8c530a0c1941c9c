"""What every step of a run's story needs."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from runner import journal, report
from runner.config import Config
from runner.records import Event, Outcome
from runner.remote import Folder
from runner.stop import Stop
from runner.trail import Trail

Observe = Callable[[report.Tally, Event | None], None]
"""Called on the calling thread with every event, and with None when time passed without one, and at the end."""


@dataclass(frozen=True, slots=True)
class Run:
    """What every step of the story needs."""

    name: str
    config: Config
    folder: Folder
    stop: Stop
    words: journal.Words
    trail: Trail
    ends_at: float
    """When the time window is over, on the monotonic clock."""
    members: bytearray | None = None
    """1 for each prompt that is this run's, 0 for those of other shards; None: all are."""
    inputs: frozenset[str] = frozenset()
    """The names of prompts' images that lie where results go: none of them is replaced by one."""
    image: tuple[str, ...] = ()
    """The path of the first image that is to be read, if it is no URL."""
    doubted: set[str] = field(default_factory=set)
    """The keys of prompts whose results in a bucket may be replaced by older ones of a worker that stood still."""
    doubtful: dict[str, Outcome] = field(default_factory=dict)
    """What was saved of these, by its key."""
    notices: deque[tuple[int, str]] = field(default_factory=deque)
    """What other threads have to say, and its level; the main thread says it."""

    def warn(self, said: str) -> None:
        """Take what another thread warns of."""
        self.notices.append((logging.WARNING, said))


def tell_notices(this: Run) -> None:
    while this.notices:
        level, said = this.notices.popleft()
        journal.log.log(level, "%s", said)
