"""The wish to stop: set once by a signal, a limit or an error."""

from __future__ import annotations

import threading
import time


class Stop:
    """Tell every thread of a run to begin nothing new.

    The first reason given stays; ``asked_at`` (monotonic) is its time. ``now`` is set when even what is in flight
    should be left behind.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.reason: str | None = None
        self.asked_at = 0.0
        self.now = False

    def ask(self, reason: str) -> None:
        """Begin nothing new; finish what is in flight."""
        if not self._asked.is_set():
            self.reason = self.reason or reason
            self.asked_at = time.monotonic()
            self._asked.set()

    def leave(self, reason: str) -> None:
        """Wait for nothing any more."""
        self.now = True
        self.ask(reason)

    @property
    def asked(self) -> bool:
        return self._asked.is_set()
