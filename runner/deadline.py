"""Clocks beside a blocking call: when its time is over, cut what it waits for.

A socket's own time-out counts from one byte to the next, so a server that sends a byte a second is never late for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

RESOLUTION_S = 0.1
"""How late a deadline may be noticed."""


class Deadlines:
    """The deadlines of this process, watched by one thread.

    Setting and clearing one costs a dictionary entry: nearly all are cleared long before they are due.
    """

    def __init__(self) -> None:
        self._set: dict[object, tuple[float, Callable[[], None]]] = {}
        self._some = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def set(self, owner: object, seconds: float, late: Callable[[], None]) -> None:
        """Call ``late`` from another thread, unless ``owner``'s deadline is set anew or cleared in ``seconds``."""
        self._set[owner] = (time.monotonic() + seconds, late)
        if not self._some.is_set():
            self._some.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                    self._thread.start()

    def clear(self, owner: object) -> None:
        """Forget the deadline of ``owner``, if it has one."""
        self._set.pop(owner, None)

    def _watch(self) -> None:
        while True:
            if not self._set:
                self._some.clear()
                if not self._set:  # look again: one may have been set before the clear
                    self._some.wait()
            time.sleep(RESOLUTION_S)
            now = time.monotonic()
            for owner, (due, late) in self._set.copy().items():
                if now >= due and self._set.pop(owner, None) is not None:
                    late()


DEADLINES = Deadlines()
