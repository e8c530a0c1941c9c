"""The wish to stop: set once by a signal, a limit or an error."""

from __future__ import annotations

import time
from math import inf


class Stop:
    """Tell every thread of a run to begin nothing new.

    The first reason given stays. ``leave_at`` (monotonic) is when what is in flight is no longer waited for; ``now``
    is set when that is so.
    """

    def __init__(self) -> None:
        self.asked = False  # no Event: it may be set by a signal in the middle of being set
        self.reason: str | None = None
        self.leave_at = inf
        self.now = False

    def ask(self, reason: str, *, within_s: float = inf) -> None:
        """Begin nothing new; finish what is in flight, if that takes no longer than ``within_s``."""
        self.leave_at = min(self.leave_at, time.monotonic() + within_s)
        self.reason = self.reason or reason
        self.asked = True

    def leave(self, reason: str) -> None:
        """Wait for nothing any more."""
        self.now = True
        self.ask(reason)
