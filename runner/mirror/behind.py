"""What of a folder is not in the bucket yet: its saved results, by the ledger, and the state that tells of them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from math import inf
from pathlib import Path

from runner.ledger import LEDGER, Ledgers, SavedFile, cut_torn_line, replay, results_at
from runner.lists import LISTS
from runner.mirror.uploads import Known
from runner.shards import Shard
from runner.storage import REPORT, no_pipe, refusals
from runner.trail import TRAIL

STATE_FILES = (LEDGER, LISTS, TRAIL, "config.yaml", "prompts.txt", "prompts.jsonl", "summary.json")
"""What of a state folder a reader of the results needs; the summary last."""

_BLOCK = 1024 * 1024


def results_in(
    folder: Path, ledgers: Ledgers, shard: Shard | None = None, *, before: float = inf
) -> Iterator[SavedFile]:
    """Yield every file of every saved result that is there, or of those of a shard, as the ledgers' lines stand.

    Of a prompt the last word of all ledgers counts, and only if it begins ``before`` this place. Raises StorageError.
    """
    places = (place for place in replay(ledgers).places(shard) if place < before)
    for result in results_at(ledgers, places):
        yield from (file for file in (result.files if result else ()) if _is_there(folder, file))


def followed(ledgers: Ledgers, ledger: Path) -> int:
    """Let what a run that begins writes into its ledger be the last word; return the place where that begins.

    Raises StorageError.
    """
    with refusals(f"{ledger} can't be written"):
        cut_torn_line(ledger)
    return ledgers.follow(ledger)


def state_behind(folder: Path, states: Iterable[Path], known: Known) -> Iterator[SavedFile]:
    """Yield what else is not up as it is now: the state, and the report if there is one. Raises StorageError."""
    for name in (REPORT, *(f"{state.relative_to(folder)}/{one}" for state in states for one in STATE_FILES)):
        if (file := _summed(folder, name)) and file not in known:
            yield file


def _summed(folder: Path, name: str) -> SavedFile | None:
    path, digest, size = folder / name, hashlib.sha256(), 0
    try:
        with refusals(f"{path} can't be read"), open(path, "rb", opener=no_pipe) as file:
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
