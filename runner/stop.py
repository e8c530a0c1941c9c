"""The wish to stop: set once by a signal, a limit or an error. And what keeps the abandoned from going on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf


class Stop:
    """Tell every thread of a run to begin nothing new.

    The first reason given stays. ``leave_at`` (monotonic) is when what is in flight is no longer waited for; ``now``
    is set when that is so. A wish to stop ``around`` this one goes for it as well, but not the other way round.
    """

    def __init__(self, around: Stop | None = None) -> None:
        self._around = around
        self._asked = self._now = False  # no Event: it may be set by a signal in the middle of being set
        self._reason: str | None = None
        self._leave_at = inf

    @property
    def asked(self) -> bool:
        return self._asked or (self._around is not None and self._around.asked)

    @property
    def reason(self) -> str | None:
        return self._reason or (self._around.reason if self._around else None)

    @property
    def leave_at(self) -> float:
        return min(self._leave_at, self._around.leave_at) if self._around else self._leave_at

    @property
    def now(self) -> bool:
        return self._now or (self._around is not None and self._around.now)

    def ask(self, reason: str, *, within_s: float = inf) -> None:
        """Begin nothing new; finish what is in flight, if that takes no longer than ``within_s``."""
        self._leave_at = min(self._leave_at, time.monotonic() + within_s)
        self._reason = self._reason or self.reason or reason
        self._asked = True

    def leave(self, reason: str) -> None:
        """Wait for nothing any more."""
        self._now = True
        self.ask(reason)

    def fail(self, reason: str) -> None:
        """Wait for nothing any more; this is the reason, whatever was given before."""
        self._reason = reason
        self.leave(reason)


class Fence(threading.Event):
    """Says that work was abandoned, and also, by ``passed``, that it must be when nobody could say so.

    Who was stopped and goes on looks at it before anything that others would see, and so is not too late.
    """

    def __init__(self, passed: Callable[[], bool]) -> None:
        super().__init__()
        self._passed = passed

    def is_set(self) -> bool:
        return super().is_set() or self._passed()

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(timeout) or self._passed()
