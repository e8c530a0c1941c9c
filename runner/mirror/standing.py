"""How a folder stands beside its copy in a bucket."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Standing:
    """What of a folder is where. ``uploaded`` and ``bytes`` are those of this time, ``left`` what is not up.

    ``why`` is the first reason, None if all is up.
    """

    to: str
    results: int
    uploaded: int
    bytes: int
    left: int
    why: str | None

    def problem(self, folder: str) -> str | None:
        """Say what is not up, and what brings it there; None if all is."""
        if self.why is None:
            return None
        what = f"{self.left} results are" if self.left != 1 else "1 result is"
        what = what if self.left else "the ledger, or what else tells of the results, is"
        return f"{what} not in {self.to}: {self.why}; runner upload {folder} {self.to} does it again"
