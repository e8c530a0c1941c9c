"""What runs of many endpoints take, by arithmetic from measured costs: rates, machines, which limit comes first."""

from __future__ import annotations

import math
from dataclasses import dataclass

PART_BYTES = 16 * 1024 * 1024
"""The default of ``upload.part_bytes``: a file twice as long or longer goes up in parts."""

LINK_USE = 0.7
"""So much of a network link's nominal rate is counted on."""

HAND_FILES, SPARE_FILES = 4, 256
"""What ``runner.limits`` reckons a hand and a process may have open."""


@dataclass(frozen=True)
class Costs:
    """What was measured, at next to no load: milliseconds of CPU, bytes, MB, seconds."""

    main_ms: float
    """A result, in the coordinator's main thread: ledger, log, tally."""
    hands_ms: float
    """A result of next to nothing, in the threads that ask, receive and verify."""
    mb_ms: float
    """A megabyte received, hashed, verified and written, in the same threads."""
    waiting_ms: float
    """A result, in hands that only wait for workers elsewhere."""
    base_mb: float
    lane_mb: float
    """Memory of a run, and of each endpoint more."""
    buffers_mb: float
    """Memory more, with results of a MB or more."""
    line_bytes: float
    pause_s: float
    """Between two generations of one endpoint."""
    most_rate: float
    """Results a second of one interpreter that has nothing to wait for."""
    lines_rate: float
    """Lines a second that the ledger takes alone."""
    put_ms_mb: float = math.nan
    """CPU a megabyte for its way into a bucket."""


@dataclass(frozen=True)
class Run:
    """A run in its steady state, of one coordinator that does all the work itself."""

    endpoints: int
    seconds: float
    size_mb: float

    def rate(self, costs: Costs) -> float:
        """Results a second."""
        return min(self.endpoints / (self.seconds + costs.pause_s), costs.most_rate)

    def cores(self, costs: Costs) -> float:
        each_ms = costs.main_ms + costs.hands_ms + self.size_mb * costs.mb_ms
        return self.rate(costs) * each_ms / 1000

    def main_cores(self, costs: Costs) -> float:
        return self.rate(costs) * costs.main_ms / 1000

    def memory_mb(self, costs: Costs) -> float:
        return costs.base_mb + self.endpoints * costs.lane_mb + (costs.buffers_mb if self.size_mb >= 1 else 0)

    def threads(self) -> int:
        return 2 * self.endpoints + 2

    def files(self) -> int:
        return HAND_FILES * 2 * self.endpoints + SPARE_FILES

    def mb_s(self, costs: Costs) -> float:
        return self.rate(costs) * self.size_mb

    def idle_share(self, costs: Costs) -> float:
        return 1 - self.rate(costs) * self.seconds / self.endpoints


def requests_of_upload(size_bytes: float) -> int:
    """Return how many requests a bucket gets for one result: its parts, their beginning and end, and a look at it.

    >>> requests_of_upload(1e6), requests_of_upload(50e6)
    (2, 6)
    """
    if size_bytes < 2 * PART_BYTES:
        return 2
    return math.ceil(size_bytes / PART_BYTES) + 3


def machines(mb_s: float, gbit_s: float) -> int:
    """Return how many machines with such a link take so much in; as much goes out the other way at the same time.

    >>> machines(1000, 10), machines(1000, 25)
    (2, 1)
    """
    return math.ceil(mb_s / (gbit_s * 125 * LINK_USE))
