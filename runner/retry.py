"""When to try again, and after how long. Pure: it decides, others wait."""

from __future__ import annotations

import random
from collections.abc import Callable

from runner.errors import AttemptError
from runner.settings import Retry, Upload


def wait_before_next(
    error: AttemptError, attempt: int, policy: Retry, jitter: Callable[[], float] = random.random
) -> float | None:
    """Return the seconds to wait after attempt number ``attempt`` failed, or None to give up.

    The wait doubles from ``backoff_s`` up to ``backoff_max_s``; ``jitter`` (0 to 1) takes up to half of it away, so
    that many hands don't come back at one moment.

    >>> from runner.errors import TransportError
    >>> policy = Retry(attempts=3, backoff_s=2, backoff_max_s=3)
    >>> [wait_before_next(TransportError("reset"), n, policy, jitter=lambda: 0) for n in (1, 2, 3)]
    [2.0, 3.0, None]
    """
    if not error.again or attempt >= policy.attempts:
        return None
    return back_off(attempt, policy, jitter)


def back_off(attempt: int, policy: Retry | Upload, jitter: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait after attempt number ``attempt``, whether or not another is allowed."""
    longest = min(policy.backoff_max_s, policy.backoff_s * 2.0 ** min(attempt - 1, 60))
    return longest * (1 - 0.5 * jitter())
