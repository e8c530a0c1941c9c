"""What one process may have on this machine, and so over how many the endpoints are shared out."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Sequence
from typing import Literal

from runner.errors import UsageError

HAND_FILES = 4
"""A hand's connection to its endpoint and to an image host, its result, and that once more to be read."""

DOCUMENT_FILES = 2
"""The document that an answer is, and a connection to where its results are: for protocols that have such."""

SPARE_FILES = 256
"""Idle connections to image hosts, ledger, log, lock, and what the interpreter has open."""

HANDS_EACH = 128
"""With more hands than this one interpreter may become what the endpoints wait for (see docs/performance.md)."""

BYTES_EACH = 1_000_000_000
"""Results that arrive at the same time, one from each endpoint: above this, too."""


def open_files(hands: int, *, each: int = HAND_FILES) -> int:
    """Return how many files and connections a process with so many hands may have open at a time, ``each`` a hand.

    >>> open_files(8), open_files(2000)
    (288, 8256)
    """
    return each * hands + SPARE_FILES


def most_hands(hands: Sequence[int], processes: int) -> int:
    """Return how many hands the process has that has most; ``hands`` are those of each endpoint, dealt out in turn.

    >>> most_hands([251, 2, 2, 2], 4), most_hands([2] * 5, 2)
    (251, 6)
    """
    return max(sum(hands[number::processes]) for number in range(processes))


def share_out(
    processes: int | Literal["auto"],
    hands: Sequence[int],
    *,
    average_bytes: float,
    processors: int,
    most_files: float,
    each: int = HAND_FILES,
) -> int:
    """Return the number of worker processes for endpoints with so many hands each.

    ``auto`` is 1 until hands, bytes or open files ask for more; for hands and bytes it is never more than the machine
    has ``processors``.

    >>> def auto(endpoints, average_bytes=0, most_files=math.inf):
    ...     hands = [2] * endpoints
    ...     return share_out("auto", hands, average_bytes=average_bytes, processors=8, most_files=most_files)
    >>> auto(4), auto(64), auto(65), auto(10_000), auto(4, 100e6), auto(16, 100e6), auto(1000, 0, 1024)
    (1, 1, 2, 8, 1, 2, 11)
    """
    endpoints = len(hands)
    if processes != "auto":
        return min(processes, endpoints)
    wanted = max(math.ceil(sum(hands) / HANDS_EACH), math.ceil(endpoints * average_bytes / BYTES_EACH))
    for_files = _least(hands, most_files, each) or endpoints
    return max(1, min(max(min(wanted, processors), for_files), endpoints))


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_files() -> float:
    """Return how many files a process may have open once it has asked for all it can get."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return math.inf if hard == resource.RLIM_INFINITY else hard


def allow_files(hands: Sequence[int], *, processes: int, each: int = HAND_FILES) -> None:
    """Let this process, and those it starts, have the files open that their hands need, ``each`` of them so many.

    Raises the soft limit if it must. Raises UsageError if the hard limit is below: a run that meets it half-way would
    blame its endpoints for it.
    """
    needed = open_files(most_hands(hands, processes), each=each)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (ValueError, OSError):
        most = most_files()
        where = "one process" if processes == 1 else f"each of {processes} processes"
        enough = _least(hands, most, each)
        advice = f"set processes: {enough}, or use fewer endpoints" if enough else "or use fewer slots or endpoints"
        raise UsageError(
            f"{sum(hands)} hands (slots + 1 for each endpoint) may need {needed} open files in {where}, and this "
            f"system allows {int(most)}: raise that limit (ulimit -Hn, LimitNOFILE= of systemd), {advice}. "
            "Nothing was sent."
        ) from None


def _least(hands: Sequence[int], most: float, each: int) -> int | None:
    """Return how many processes it takes so that none needs more than ``most`` open files; None if no number does."""
    if most == math.inf:
        return 1
    room = (most - SPARE_FILES) // each
    if max(hands) > room:
        return None
    for count in range(max(1, math.ceil(sum(hands) / room)), len(hands) + 1):
        if open_files(most_hands(hands, count), each=each) <= most:
            return count
    return None
