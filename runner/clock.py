"""Seconds that passed, and the time of day in UTC."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone


def since(begun: float, until: float | None = None) -> float:
    """Return the seconds from ``begun`` (of ``time.monotonic``) until now, or ``until``, to the microsecond."""
    return round((time.monotonic() if until is None else until) - begun, 6)


def utc_now() -> str:
    """Return the time of day as ISO 8601 in UTC, to the millisecond: ``2026-01-31T23:59:59.999Z``."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_age_s(then: str) -> float:
    """Return the seconds since a time that ``utc_now`` told, never less than 0; 0 for what is no time.

    >>> utc_age_s("tomorrow")
    0.0
    """
    try:
        past = datetime.fromisoformat(then.replace("Z", "+00:00"))
        return max(0.0, (datetime.now(timezone.utc) - past).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def seconds_until(time_of_day: str, now: datetime | None = None) -> float:
    """Return the seconds until it is ``HH:MM`` (or ``HH:MM:SS``) next on the clock on the wall, more than 0.

    A night may have 23 or 25 hours, and an hour of it may come twice.

    >>> seconds_until("06:30", datetime(2026, 1, 31, 22, 0)) / 3600
    8.5
    """
    at = time.time() if now is None else now.timestamp()
    today = datetime.fromtimestamp(at)
    hours, minutes, seconds = (int(part) for part in f"{time_of_day}:0".split(":")[:3])
    then = today.replace(hour=hours, minute=minutes, second=seconds, microsecond=0)
    days = [(then + timedelta(days=day)).replace(fold=fold) for day in (0, 1) for fold in (0, 1)]
    return min(one.timestamp() for one in days if one.timestamp() > at) - at
