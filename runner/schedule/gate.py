"""The gate before an endpoint: hands pass it one by one, so that only ``slots`` of them generate at a time.

It stands where the hands are and knows one lane; the schedule tells it the rule. No hand waits for the schedule
between two generations.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import NamedTuple

from runner.errors import AttemptError
from runner.stop import Stop


class Away(Exception):
    """The endpoint takes no prompts just now: give the task back.

    ``why``: what takes it out, if nobody knows yet that it is.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why


class Stopped(Exception):
    """The run should stop, and the task is not on its endpoint: leave it pending."""


class Rule(NamedTuple):
    """What the schedule lets the hands of a lane do. Times are of the monotonic clock.

    So many hands may pass at a time, none before ``opens_at``; until ``closed_until`` none should even wait, nor from
    ``closes_at`` on. While nobody knows what a generation takes, ``unknown`` is more than 0, and another number after
    each: a hand that would begin too late, should the next one take as long as the last, waits for that.
    """

    slots: int = 1
    opens_at: float = 0.0
    closed_until: float = 0.0
    closes_at: float = inf
    unknown: int = 0


class Gate:
    """Lets the hands of one lane pass for a ``with`` block each. Raises Away or Stopped instead of waiting in vain.

    After an AttemptError in the block nobody else passes before that was settled: it may take the endpoint out.
    """

    def __init__(self, slots: int, stop: Stop, clock: Callable[[], float] = time.monotonic) -> None:
        self.changed = threading.Condition()
        self.rule = Rule(slots)
        self._stop = stop
        self._clock = clock
        self.standing = self.generating = self._promised = 0
        self._judging: set[int] = set()
        self._entered: dict[int, float] = {}
        self._last_s = 0.0

    def __enter__(self) -> None:
        with self.changed:
            self.standing += 1
            try:
                while not self.may_pass():
                    opens_in_s = self.rule.opens_at - self._clock()
                    self.changed.wait(max(opens_in_s, 0.001) if opens_in_s > 0 else None)
            finally:
                self.standing -= 1
            self.generating += 1
            if self.rule.unknown:
                self._entered[threading.get_ident()] = self._clock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.changed:
            self.generating -= 1
            if self._entered:
                now = self._clock()
                self._last_s = now - self._entered.pop(threading.get_ident(), now)
            if isinstance(error, AttemptError):
                self._judging.add(threading.get_ident())
            else:
                self.changed.notify()

    def may_pass(self) -> bool:
        """Tell whether a hand that stands ready may pass. ``changed`` is held. Raises Away, Stopped."""
        if self._stop.asked:
            raise Stopped
        now, rule = self._clock(), self.rule
        if self._promised or now < rule.closed_until or now >= rule.closes_at:
            self._promised = max(0, self._promised - 1)
            raise Away
        if rule.unknown and now >= rule.closes_at - self._last_s:
            return False
        return self.generating < rule.slots and not self._judging and now >= rule.opens_at

    def obey(self, rule: Rule) -> None:
        """Take a new rule."""
        with self.changed:
            self.rule = rule
            self._last_s = 0.0
            self.changed.notify_all()

    def check(self) -> None:
        """Raise Stopped or Away: who waits in the slot for its turn need not wait any more."""
        if self._stop.asked:
            raise Stopped
        if self._clock() >= self.rule.closes_at:
            raise Away

    def want(self) -> bool:
        """Ask for a task that a hand only holds ready: it will raise Away. Tell whether there is one."""
        with self.changed:
            if self.standing <= self._promised:
                return False
            self._promised += 1
            self.changed.notify()
            return True

    def settled(self) -> None:
        """Let others pass again after the failure of the calling hand."""
        if self._judging:
            with self.changed:
                self._judging.discard(threading.get_ident())
                self.changed.notify_all()

    def look(self) -> None:
        """Let waiting hands see that the run should stop."""
        with self.changed:
            self.changed.notify_all()
