"""What each endpoint has done of what stands now."""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass
from statistics import median

from runner.ledger import End


@dataclass(frozen=True, slots=True)
class Share:
    """What one endpoint saved and failed, by the last word on each prompt.

    ``median_s`` is what a generation took, None where nobody took the time; ``last_saved_at`` is UTC, "" for never.
    """

    name: str
    saved: int
    failed: int
    bytes: int
    median_s: float | None
    last_saved_at: str


class Shares:
    """Adds up, endpoint by endpoint, in eight bytes a result."""

    def __init__(self) -> None:
        self._of: defaultdict[bytes, _Sum] = defaultdict(_Sum)

    def add(self, end: End) -> None:
        """Count one prompt that ended."""
        share = self._of[end.endpoint]
        if not end.is_saved:
            share.failed += 1
            return
        share.saved += 1
        share.bytes += end.size_bytes
        if end.generate_s is not None:
            share.seconds.append(end.generate_s)
        if end.finished_at > share.last:
            share.last = end.finished_at

    def all(self) -> list[Share]:
        """Return the share of each endpoint, by its name."""
        return [
            Share(
                name.decode(errors="replace"),
                one.saved,
                one.failed,
                one.bytes,
                round(median(one.seconds), 3) if one.seconds else None,
                one.last.decode(errors="replace"),
            )
            for name, one in sorted(self._of.items())
        ]


class _Sum:
    __slots__ = ("bytes", "failed", "last", "saved", "seconds")

    def __init__(self) -> None:
        self.saved = self.failed = self.bytes = 0
        self.seconds = array("d")
        self.last = b""
