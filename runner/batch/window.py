"""When the time window of a run is over."""

from __future__ import annotations

import time
from math import inf

from runner.clock import seconds_until
from runner.settings import RunConfig


def window_end(settings: RunConfig) -> float:
    """Return when the time window that begins now is over, on the monotonic clock; infinity if there is none."""
    lasts_s = inf if settings.max_runtime_s is None else settings.max_runtime_s
    return min(time.monotonic() + lasts_s, until(settings))


def until(settings: RunConfig) -> float:
    """Return when it is next what ``until`` says, on the monotonic clock; infinity if it says nothing."""
    return inf if settings.until is None else time.monotonic() + seconds_until(settings.until)
