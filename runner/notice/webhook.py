"""A webhook is told: POST, and again if that may help."""

from __future__ import annotations

import time
from collections.abc import Mapping

from runner.client import host_of, post
from runner.errors import AttemptError

PAUSES_S = (1.0, 3.0)
"""Before the second and the third try."""

_TYPE = {"Content-Type": "application/json"}
_LEAST_S = 0.1


def tell_webhook(url: str, headers: Mapping[str, str], content: bytes, *, timeout_s: float) -> str | None:
    """POST the message, three times at the most, within ``timeout_s``; return what went wrong in the end, if any."""
    until = time.monotonic() + timeout_s
    for pause_s in (*PAUSES_S, None):
        problem, again = _once(url, {**_TYPE, **headers}, content, timeout_s=max(until - time.monotonic(), _LEAST_S))
        if not again or pause_s is None or time.monotonic() + pause_s + _LEAST_S >= until:
            break
        time.sleep(pause_s)
    return problem


def _once(url: str, headers: Mapping[str, str], content: bytes, *, timeout_s: float) -> tuple[str | None, bool]:
    """Return what went wrong, None if nothing did, and whether trying again may help."""
    try:
        status = post(url, content, headers, timeout_s=timeout_s)
    except AttemptError as error:
        return str(error), True
    except RuntimeError as error:  # the system lets us start no thread
        return f"{host_of(url)}: {error}", True
    if 200 <= status < 300:
        return None, False
    hint = " (redirects are not followed)" if 300 <= status < 400 else ""
    return f"{host_of(url)} answers {status}{hint}", status >= 500
