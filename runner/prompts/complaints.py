"""What is wrong with the prompts: all of it is looked for, and as much is shown as one can read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runner.errors import UsageError

SHOWN = 20


class Complaints:
    """Collects problems; keeps the first ones and counts the others."""

    def __init__(self) -> None:
        self._count = 0
        self._first: list[str] = []

    def add(self, *problems: str) -> None:
        self._count += len(problems)
        self._first += problems[: SHOWN - len(self._first)]

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Collect what a UsageError says, and go on behind the block."""
        try:
            yield
        except UsageError as error:
            self.add(*error.problems)

    def tell(self) -> None:
        """Raise UsageError if there were any."""
        if self._count > SHOWN:
            raise UsageError(*self._first, f"… and {self._count - SHOWN} more")
        if self._count:
            raise UsageError(*self._first)


def at(place: str, line: int) -> str:
    """Say where an entry stands: ``prompts.txt:7``; in a JSON document ``prompts.json: prompts[6]``.

    ``line`` counts from 1; 0: the place is all.
    """
    if not line:
        return place
    return f"{place}{line - 1}]" if place.endswith("[") else f"{place}:{line}"
