"""What lies where in an output folder, and what it is called."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from runner.shards import Shard, shard_in
from runner.storage.writing import refusals

STATE = ".runner"

SHARDS = "shards"
"""Where the state of each shard is, in that of its folder."""

REPORT = "report.html"
"""What a report is called, in the output folder."""

PART = re.compile(r"^\..+\.[0-9a-f]{8}\.part$")
"""What temp files are called, of results and of state."""


class Stamp(NamedTuple):
    """A file's size and time of change: two equal stamps are taken for the same content."""

    size_bytes: int
    mtime_ns: int


NO_STAMP = Stamp(0, 0)
"""Stands for that of a file elsewhere."""


def states_of(path: Path) -> list[Path]:
    """Return where runs kept their state in an output folder: that of the whole list, then of each shard there was.

    By count and number; the first is named whether it is there or not. What else lies there is nobody's. Raises
    StorageError if nobody can say.
    """
    state = path / STATE
    within = state / SHARDS
    found: list[Shard] = []
    with refusals(f"{within} can't be read"), suppress(FileNotFoundError, NotADirectoryError):
        found = [shard for one in os.scandir(within) if (shard := shard_in(one.name)) and one.is_dir()]
    return [state, *(within / one.folder for one in sorted(found, key=lambda one: (one.count, one.number)))]
