"""The state of a folder as its bucket has it: brought to this machine before anything is made of it.

A folder's ledger is there as ``ledger.jsonl``, which runs that ended wrote, and ``ledger/RUN-000001.jsonl`` and so
on: what runs that are going on, or died, have written since. What this machine knows and the bucket does not, because
it died before it was sent, is kept.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner import storage
from runner.ledger import LEDGER, cut_torn_line, holder
from runner.remote.lines import add_missing
from runner.remote.store import Entry, Store
from runner.shards import shard_in
from runner.storage import STATE, not_for_all, refusals

SEGMENTS = "ledger"
"""The folder of a ledger's parts, beside it."""

SHARDS = f"{STATE}/{storage.SHARDS}"
LINES = (LEDGER, "runs.jsonl")
"""State files that are lines of all runs, in their order; of others the latest counts."""

LOG = "run.log"
_HERE_ONLY = ("lock", "progress.json")
_NOTES = ".bucket.json"
_AT_ONCE = 8


def is_mirrored(name: str) -> bool:
    """Tell whether a file of the state folder is also in the bucket; the ledger is, in its own way.

    >>> [is_mirrored(name) for name in ("config.yaml", "lock", ".config.yaml.0123abcd.part", "ledger.jsonl")]
    [True, False, False, False]
    """
    return not name.startswith((*_HERE_ONLY, ".")) and name != LEDGER


def segments(store: Store, state: str) -> list[Entry]:
    """Return the parts of a ledger that are not in it yet, in their order. Raises RemoteError."""
    return sorted(store.entries(f"{state}/{SEGMENTS}"))


class Notes:
    """What this machine last knew of the state files in the bucket: only what has changed is fetched, or sent."""

    def __init__(self, state: Path) -> None:
        self._path = state / _NOTES
        self._far: dict[str, list[float]] = {}
        self._here: dict[str, list[int]] = {}
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            said: dict[str, Any] = json.loads(self._path.read_bytes())
            self._far, self._here = dict(said["far"]), dict(said["here"])

    def knows(self, one: Entry) -> bool:
        """Tell whether a file in the bucket is the one that was last fetched, or sent."""
        return self._far.get(one.name) == [one.size_bytes, one.changed_s]

    def is_sent(self, name: str, status: os.stat_result) -> bool:
        """Tell whether a file of this machine is the one that was last fetched, or sent."""
        return self._here.get(name) == [status.st_size, status.st_mtime_ns]

    def sent(self, name: str, status: os.stat_result) -> None:
        self._here[name] = [status.st_size, status.st_mtime_ns]
        self._far.pop(name, None)

    def see(self, entries: Iterable[Entry]) -> None:
        self._far |= {one.name: [one.size_bytes, one.changed_s] for one in entries}

    def write(self) -> None:
        """Keep them. A disk that refuses costs some requests, and nothing else."""
        with suppress(OSError), open(self._path, "w", encoding="utf-8", opener=not_for_all) as file:
            json.dump({"far": self._far, "here": self._here}, file)


def fetch_all(store: Store, path: Path, states: Sequence[str] = ()) -> bool:
    """Bring the state of a folder to ``path``, and that of its shards; tell whether there is any in the bucket.

    ``states`` are those of the run that asks. Raises RemoteError, StorageError.
    """
    found = False
    shards = (one for one in store.folders(SHARDS) if shard_in(one.rpartition("/")[2]))  # others are nobody's
    for state in dict.fromkeys([STATE, *states, *shards]):
        if state in states or holder(path / state) is None:  # else a run of this machine knows more
            found |= _Fetch(store, path, state).all()
    return found


class _Fetch:
    def __init__(self, store: Store, path: Path, state: str) -> None:
        self._store = store
        self._path = path
        self._state = state
        self._notes = Notes(path / state)

    def all(self) -> bool:
        """Fetch what has changed; tell whether there is anything."""
        here = self._path / self._state
        with refusals(f"{here} can't be written"):
            here.mkdir(parents=True, exist_ok=True)
        entries = [one for one in self._store.entries(self._state) if not self._is_lock(one)]
        parts = segments(self._store, self._state)
        with refusals(f"{here} can't be written"):
            for one in entries:
                self._fetch(one)
            self._join(parts)
        self._notes.see([*entries, *parts])
        self._notes.write()
        return bool(entries or parts)

    def _is_lock(self, one: Entry) -> bool:
        name = os.path.basename(one.name)
        return name != LEDGER and not is_mirrored(name)

    def _fetch(self, one: Entry) -> None:
        file = self._path / one.name
        if file.exists() and (self._notes.knows(one) or file.name.startswith(LOG)):
            return
        if file.name not in LINES or not file.exists():
            self._store.fetch(one.name, str(file))
        else:
            part = file.with_name(f".{file.name}.00000000.part")
            self._store.fetch(one.name, str(part))
            cut_torn_line(file)
            add_missing(file, part)
            part.unlink()
        _dated(file, one)
        self._notes.sent(one.name, os.stat(file))

    def _join(self, parts: Sequence[Entry]) -> None:
        ledger = self._path / self._state / LEDGER
        new = [one for one in parts if not (self._notes.knows(one) and ledger.exists())]
        if not new:
            return
        cut_torn_line(ledger)
        with tempfile.TemporaryDirectory(dir=self._path, prefix=".segments-") as folder:
            files = [Path(folder) / str(number) for number in range(len(new))]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for _ in pool.map(self._store.fetch, [one.name for one in new], map(str, files)):
                    pass
            for file in files:
                add_missing(ledger, file)
        _dated(ledger, max(new, key=lambda one: one.changed_s))


def _dated(file: Path, one: Entry) -> None:
    """Let a fetched file be as old as it is in the bucket: one that is new may be growing."""
    os.utime(file, (one.changed_s, one.changed_s))
