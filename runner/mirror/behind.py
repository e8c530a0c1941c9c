"""What of a folder is not in the bucket yet: its saved results, by the ledger, and the state that tells of them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from math import inf
from pathlib import Path

from runner.ledger import LEDGER, SavedFile, replay, results_at
from runner.lists import LISTS
from runner.mirror.uploads import Known
from runner.storage import REPORT, STATE, refusals
from runner.trail import TRAIL

STATE_FILES = (LEDGER, LISTS, TRAIL, "config.yaml", "prompts.txt", "prompts.jsonl", "summary.json")
"""What of ``.runner`` a reader of the folder needs; the summary last."""

_BLOCK = 1024 * 1024


def results_in(folder: Path, *, before: float = inf) -> Iterator[SavedFile]:
    """Yield every file of every saved result that is there, one by one, as the ledger's lines stand.

    Only of lines that begin ``before`` this place in the ledger. Raises StorageError.
    """
    ledger = folder / STATE / LEDGER
    places = (place for place in replay(ledger).places() if place < before)
    for result in results_at(ledger, places):
        yield from (file for file in (result.files if result else ()) if _is_there(folder, file))


def ledger_bytes(folder: Path) -> int:
    """Return how long the ledger is now; 0 if there is none."""
    try:
        return os.stat(folder / STATE / LEDGER).st_size
    except OSError:
        return 0


def results_behind(folder: Path, known: Known, *, before: float = inf) -> Iterator[SavedFile]:
    """Yield the files of saved results that are not up. Raises StorageError."""
    return (file for file in results_in(folder, before=before) if file not in known)


def state_behind(folder: Path, known: Known) -> Iterator[SavedFile]:
    """Yield what else is not up as it is now: the state, and the report if there is one. Raises StorageError."""
    for name in (REPORT, *(f"{STATE}/{one}" for one in STATE_FILES)):
        if (file := _summed(folder, name)) and file not in known:
            yield file


def _summed(folder: Path, name: str) -> SavedFile | None:
    path, digest, size = folder / name, hashlib.sha256(), 0
    try:
        with refusals(f"{path} can't be read"), open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
    except Exception:
        if not path.exists():
            return None
        raise
    return SavedFile(name, "", size, digest.hexdigest())


def _is_there(folder: Path, file: SavedFile) -> bool:
    """Tell whether a file is what the ledger says, by its size; another is nobody's result."""
    if not file.name or file.name.startswith(".") or "/" in file.name or "\0" in file.name:
        return False  # the ledger was edited
    try:
        status = os.stat(folder / file.name)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == file.size_bytes
