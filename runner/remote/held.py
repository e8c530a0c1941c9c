"""Verified results that wait, in a folder of this machine, for a bucket to take them; a crash leaves them there.

::

    W/held/KEY.EXT      a verified result whose upload was not confirmed yet
    W/held/.KEY.json    whose it is: written when all files of a prompt have their names here, and removed when its
                        line is in the ledger. Without its files it says that these are in the bucket.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from runner.records import Outcome, ResultFile, Saving
from runner.remote.store import RemoteError, Store
from runner.storage import Temp, refusals, sha256_of, write_whole

HELD = "held"
_WAITS = "What was generated waits on this machine: the same command sends it, and generates only the rest."
_UNCLAIMED_S = 3600.0
"""A note without its files, as is left where who writes the ledger is elsewhere, is removed at this age, and so is a
file without a note: until then another run, of another shard, may be about to write that."""

_MADE_AGAIN_S = 120.0
"""By so much an object must be newer than what is held of it: two machines' clocks are never quite the same."""

WAITS_DAYS = 30
"""Nobody has asked for what is held for so long."""


@dataclass(frozen=True, slots=True)
class Held:
    """A prompt's results that are held here, or have gone up from here; ``note`` is the file that says so."""

    note: str
    url: str
    files: tuple[ResultFile, ...]
    endpoint: str
    image: Mapping[str, Any] | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(f"{self.url}/{one.file}" for one in self.files)

    def keep(self) -> None:
        """Forget it: its line is in the ledger."""
        with suppress(OSError):
            os.unlink(self.note)

    def drop(self) -> None:
        """Leave it as it is: the next run finds it, and writes its line."""


class Shelf:
    """The results that are held in one folder. Raises StorageError when the disk refuses, RemoteError the bucket."""

    def __init__(self, within: Path, store: Store) -> None:
        self._path = within / HELD
        self._store = store

    def prepare(self) -> None:
        """Create the folder."""
        with refusals(f"{self._path} can't be made"):
            self._path.mkdir(exist_ok=True)

    def put(self, outcome: Outcome, temps: Sequence[Temp]) -> Saving:
        """Give settled results their names here, and note whose they are."""
        assert outcome.file and outcome.format and outcome.sha256 and outcome.size_bytes is not None
        first = ResultFile(outcome.file, outcome.format, outcome.size_bytes, 0, outcome.sha256)
        more = tuple(replace(one, mtime_ns=0) for one in outcome.more)
        note = self._note(outcome.key)
        held = Held(str(note), self._store.url, (first, *more), outcome.endpoint, outcome.image)
        said = {name: getattr(outcome, name) for name in ("key", "fingerprint", "endpoint", "image")}
        said["files"] = [asdict(one) for one in held.files]
        try:
            with refusals(f"{self._path} can't be written"):
                note.unlink(missing_ok=True)  # of an older result: it must not vouch for these files
                for one, temp in zip(held.files, temps, strict=True):
                    os.replace(temp.path, self._path / one.file)
                write_whole(note, [json.dumps(said)])
        except BaseException:
            for temp in temps:
                temp.drop()
            raise
        return Saving(replace(outcome, mtime_ns=0, more=more), held)

    def find(self, key: str, fingerprint: str) -> Held | None:
        """Return what is held of a prompt, whole, or has gone up though no ledger knows; None if nothing."""
        note = self._note(key)
        try:
            said = json.loads(note.read_bytes())
            files = tuple(ResultFile(**one) for one in said["files"])
            if (said["key"], said["fingerprint"]) != (key, fingerprint) or not files:
                return None
            held = Held(str(note), self._store.url, files, str(said["endpoint"]), said["image"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return held if all(map(self._is_whole, files)) else None

    def send(self, held: Sequence[Held]) -> float:
        """Upload what is still here, and then remove it; return the seconds that took."""
        begun = time.monotonic()
        here = [one for some in held for one in some.files if (self._path / one.file).exists()]
        try:
            for one in here:
                self._store.put(str(self._path / one.file), one.file, sha256=one.sha256)
        except RemoteError as error:
            error.args = (f"{error}. {_WAITS}",)
            raise
        for one in here:
            with suppress(OSError):
                os.unlink(self._path / one.file)
        return time.monotonic() - begun

    def count(self) -> int:
        """Return how many files are held."""
        with refusals(f"{self._path} can't be read"), suppress(FileNotFoundError):
            return sum(not entry.name.startswith(".") for entry in os.scandir(self._path))
        return 0

    def sweep(self) -> int:
        """Remove files that nothing is known of, and notes that nobody needs; return how many there were."""
        with refusals(f"{self._path} can't be read"), suppress(FileNotFoundError):
            names = {entry.name for entry in os.scandir(self._path)}
            return sum(self._removed(name) for name in self._stale(names))
        return 0

    def forget(self, store: Store) -> int:
        """Remove what others have made again since, and what has waited ``WAITS_DAYS``; return how much that was.

        ``store`` is asked about each result once, those that wait longest first, until it gives up.
        """
        old = 0
        with refusals(f"{self._path} can't be read"), suppress(FileNotFoundError, RemoteError):
            names = {entry.name for entry in os.scandir(self._path)}
            for changed_s, note, files in sorted(self._results(names)):
                there = None
                if time.time() - changed_s > WAITS_DAYS * 86400:
                    old += 1
                elif not (there := store.entry(files[0])) or there.changed_s < changed_s + _MADE_AGAIN_S:
                    continue
                if there is None or there.size_bytes != os.stat(self._path / files[0]).st_size:
                    self._removed(note)  # else it may be this very result, and no ledger know of it
                for name in files:
                    self._removed(name)
        return old

    def _results(self, names: set[str]) -> Iterable[tuple[float, str, list[str]]]:
        """Yield when a result that is held changed last, its note, and those of its files that are here."""
        for note in (one for one in names if one.startswith(".") and one.endswith(".json")):
            with suppress(FileNotFoundError):  # its run has just sent it
                if files := sorted(self._claimed(note) & names):
                    yield max(os.stat(self._path / one).st_mtime for one in files), note, files

    def _stale(self, names: set[str]) -> Iterable[str]:
        claimed: set[str] = set()
        for note in (one for one in names if one.startswith(".") and one.endswith(".json")):
            files = self._claimed(note)
            claimed |= files
            if not files & names and self._is_old(note):
                yield note
        for name in names - claimed:
            if not (name.startswith(".") and name.endswith(".json")) and self._is_old(name):
                yield name

    def _is_old(self, name: str) -> bool:
        return is_old(self._path / name)

    def _claimed(self, note: str) -> set[str]:
        try:
            return {one["file"] for one in json.loads((self._path / note).read_bytes())["files"]}
        except (OSError, ValueError, KeyError, TypeError):
            return set()

    def _removed(self, name: str) -> bool:
        with suppress(FileNotFoundError):
            os.unlink(self._path / name)
            return True
        return False

    def _is_whole(self, one: ResultFile) -> bool:
        """Tell whether a file is here as it was verified, or else in the bucket."""
        try:
            if os.stat(self._path / one.file).st_size != one.size_bytes:
                return False
            with open(self._path / one.file, "rb") as file:
                return sha256_of(file) == one.sha256
        except FileNotFoundError:
            return self.is_there(one)
        except OSError:
            return False

    def is_there(self, one: ResultFile) -> bool:
        """Tell whether the bucket has a file as it was verified; it is downloaded if its size is right."""
        there = self._store.entry(one.file)
        return there is not None and there.size_bytes == one.size_bytes and self._is_same_there(one)

    def _is_same_there(self, one: ResultFile) -> bool:
        """Read a file of the bucket: a note may be old, and another machine have put its own there since."""
        with (
            refusals(f"{self._path} can't be written"),
            tempfile.NamedTemporaryFile(dir=self._path, prefix=".there-") as room,
        ):
            self._store.fetch(one.file, room.name)
            with open(room.name, "rb") as file:
                return sha256_of(file) == one.sha256

    def _note(self, key: str) -> Path:
        return self._path / f".{key}.json"


def is_old(path: Path) -> bool:
    """Tell whether a file is there, and has been left unchanged for so long that nobody is at it any more."""
    with suppress(FileNotFoundError):
        return time.time() - os.stat(path).st_mtime > _UNCLAIMED_S
    return False
