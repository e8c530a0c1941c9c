"""What a listing says of a file."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A file below a URL, as a listing has it: ``name`` is relative to that; ``changed_s`` in seconds since 1970."""

    name: str
    size_bytes: int
    changed_s: float
