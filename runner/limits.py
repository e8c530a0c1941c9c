"""What one process may have on this machine, and so over how many the endpoints are shared out."""

from __future__ import annotations

import math
import os
import resource
from typing import Literal

from runner.errors import UsageError

HAND_FILES = 4
"""A hand's connection to its endpoint and to an image host, its result, and that once more to be read."""

SPARE_FILES = 256
"""Idle connections to image hosts, ledger, log, lock, and what the interpreter has open."""

HANDS_EACH = 128
"""With more hands than this one interpreter may become what the endpoints wait for (see docs/performance.md)."""

BYTES_EACH = 1_000_000_000
"""Results that arrive at the same time, one from each endpoint: above this, too."""


def open_files(hands: int) -> int:
    """Return how many files and connections a process with so many hands may have open at a time.

    >>> open_files(8), open_files(2000)
    (288, 8256)
    """
    return HAND_FILES * hands + SPARE_FILES


def share_out(
    processes: int | Literal["auto"],
    *,
    endpoints: int,
    hands: int,
    average_bytes: float,
    processors: int,
    most_files: float,
) -> int:
    """Return the number of worker processes. ``auto`` is 1 until hands, bytes or open files ask for more.

    For hands and bytes it is never more than the machine has ``processors``.

    >>> def auto(endpoints, average_bytes=0, most_files=math.inf):
    ...     return share_out("auto", endpoints=endpoints, hands=2 * endpoints, average_bytes=average_bytes,
    ...                      processors=8, most_files=most_files)
    >>> auto(4), auto(64), auto(65), auto(10_000), auto(4, 100e6), auto(16, 100e6), auto(1000, 0, 1024)
    (1, 1, 2, 8, 1, 2, 11)
    """
    if processes != "auto":
        return min(processes, endpoints)
    wanted = max(math.ceil(hands / HANDS_EACH), math.ceil(endpoints * average_bytes / BYTES_EACH))
    return max(1, min(max(min(wanted, processors), _least(hands, most_files)), endpoints))


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_files() -> float:
    """Return how many files a process may have open once it has asked for all it can get."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return math.inf if hard == resource.RLIM_INFINITY else hard


def allow_files(hands: int, *, endpoints: int, processes: int) -> None:
    """Let this process, and those it starts, have the files open that ``hands`` in each of ``processes`` need.

    Raises the soft limit if it must. Raises UsageError if the hard limit is below: a run that meets it half-way would
    blame its endpoints for it.
    """
    needed = open_files(hands)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (ValueError, OSError):
        most = most_files()
        each = "a process" if processes == 1 else f"each of {processes} processes"
        raise UsageError(
            f"{endpoints} endpoints need up to {needed} open files in {each}, and this system allows one process "
            f"{most}: raise that limit (ulimit -Hn, LimitNOFILE= of systemd), set processes: "
            f"{_least(hands * processes, most)}, or use fewer endpoints. Nothing was sent."
        ) from None


def _least(hands: int, most: float) -> int:
    """Return how many processes it takes so that none needs more than ``most`` open files."""
    return 1 if most == math.inf else math.ceil(hands / max(1, (most - SPARE_FILES) // HAND_FILES))
