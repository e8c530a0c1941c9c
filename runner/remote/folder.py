"""An output folder in a bucket: its results are there, and its state is worked on in a folder of this machine.

It can do what ``storage.OutputFolder`` can, of which it has one for what is on its way: temp files, and the state.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from runner.errors import LockedError, StorageError
from runner.ledger import LEDGER, alone
from runner.records import Outcome, Saving
from runner.remote.held import Held, Shelf, is_old
from runner.remote.lease import Lease
from runner.remote.mirror import Mirror
from runner.remote.places import working_folder
from runner.remote.state import fetch_all
from runner.remote.store import RemoteError, Store
from runner.settings import Upload
from runner.shards import Shard
from runner.storage import (
    FILE_MODE,
    PART,
    STATE,
    OutputFolder,
    Scratch,
    Stamp,
    Temp,
    refusals,
    sha256_of,
    states_of,
    write_whole,
)

MARK = ".bucket"
"""The file of a working folder that holds the URL it is worked on for."""

_FETCHING = "lock-fetch"
_LEASE_ATTEMPTS = 3
"""The lock is asked for again soon, or not at all."""

_HURRY_S = 20.0
"""Who waits for nothing any more waits so long for the state to get into the bucket."""


@dataclass(frozen=True, slots=True)
class Far:
    """A folder that is none of this machine: its URL, and how often what goes there is tried."""

    url: str
    policy: Upload = field(default_factory=Upload)

    @property
    def here(self) -> Path:
        """Where on this machine what belongs there is worked on."""
        return working_folder(self.url, self.policy.spool_folder)


class FarFolder:
    """The folder of a run's results at a URL. Raises RemoteError wherever that can't be read or written."""

    def __init__(
        self,
        near: OutputFolder,
        far: Far,
        abandoned: threading.Event | None = None,
        *,
        store: Store | None = None,
    ) -> None:
        """``store`` spares making one; ``abandoned`` cuts what it waits for."""
        self.path = near.path
        self.state = near.state
        self.shard = near.shard
        self.shown = far.url
        self._near = near
        self._far = far
        self._abandoned = abandoned or threading.Event()
        self._store = store or Store(far.url, far.policy, self._abandoned)
        self._shelf = Shelf(near.path, self._store)
        self._sizes: dict[str, int] | None = None
        self._lease: Lease | None = None
        self._mirror: Mirror | None = None
        self._is_settled = False

    # What a run does to the folder as a whole.

    def prepare(self) -> None:
        """Create the working folder. Raises StorageError."""
        self._near.prepare()
        self._shelf.prepare()
        with refusals(f"{self.path} can't be written"):
            write_whole(self.path / MARK, [f"{self.shown}\n"])

    @contextmanager
    def at_work(self, run: str, tell: Callable[[str], None]) -> Iterator[None]:
        """Have the folder for one run, its state here as it is there, and there as it becomes here.

        ``tell`` takes what went wrong meanwhile, from another thread. Raises LockedError, RemoteError.
        """
        with self.alone(run):
            self._fetch(self._relative)
            self._mirror = Mirror(self._store, self.path, self._relative, run, tell)
            self._mirror.begin()
            try:
                yield
                if self._is_settled:
                    with suppress(StorageError):  # it would be the only thing that is not there
                        self._mirror.send_log()
            finally:
                self._mirror.stop()

    @contextmanager
    def alone(self, command: str) -> Iterator[None]:
        """Keep runs out of the folder, wherever they are. Raises LockedError, RemoteError."""
        policy = self._far.policy.model_copy(update={"attempts": min(_LEASE_ATTEMPTS, self._far.policy.attempts)})
        self._lease = Lease(Store(self._far.url, policy), self._relative, command)
        self._lease.take()
        try:
            yield
        finally:
            self._lease.release()

    def check(self) -> None:
        """Raise LockedError if another run has taken the folder meanwhile."""
        if self._lease and self._lease.lost:
            if self._mirror:
                self._mirror.stop()  # the state there is the other's
            raise LockedError(f"{self._lease.lost}; this one has ended")

    def settle(self, *, hurry: bool = False) -> None:
        """Send all of the state. Raises RemoteError, if ``hurry`` soon; LockedError as ``check``."""
        assert self._mirror
        self.check()
        timer = threading.Timer(_HURRY_S, self._abandoned.set)
        if hurry:
            timer.start()
        try:
            self._mirror.settle()
            self._is_settled = True
        finally:
            timer.cancel()

    def look(self) -> bool:
        """Bring the state here, unless a run of this machine is at it; tell whether there is any, here or there."""
        was_here = self.path.exists()
        self._near.prepare()
        with refusals(f"{self.path} can't be written"):
            write_whole(self.path / MARK, [f"{self.shown}\n"])
        self._fetch()
        found = any((state / name).exists() for state in states_of(self.path) for name in (LEDGER, "config.yaml"))
        if not found and not was_here:
            shutil.rmtree(self.path, ignore_errors=True)
        return found

    def publish(self, name: str) -> str:
        """Put a file of the working folder into the bucket; return where it is then."""
        self._store.put(str(self.path / name), name)
        return f"{self.shown}/{name}"

    @property
    def _relative(self) -> str:
        """Where the state is below the URL, as it is below the working folder."""
        return self.state.relative_to(self.path).as_posix()

    def _fetch(self, *states: str) -> None:
        with alone(self.state / _FETCHING):
            fetch_all(self._store, self.path, states)

    # The results that are there.

    def names(self) -> Iterator[str]:
        """Yield the name of every visible file."""
        yield from self._listed()

    def files(self) -> dict[str, Stamp]:
        """Return the stamp of every visible file."""
        return {name: Stamp(size_bytes, 0) for name, size_bytes in self._listed().items()}

    def stamp(self, name: str) -> Stamp | None:
        """Return the size of one visible file; None if there is none. Its time says nothing, and is 0."""
        size_bytes = self._listed().get(name)
        return None if size_bytes is None else Stamp(size_bytes, 0)

    @contextmanager
    def unchanged(self) -> Iterator[Callable[[bytes, int, int], bool]]:
        """Give what tells whether a visible file (its name in UTF-8) has a size. One listing serves all of them."""
        was_listed = self._sizes is not None
        sizes = self._listed()
        yield lambda name, size_bytes, _: sizes.get(name.decode(errors="surrogateescape")) == size_bytes
        if not was_listed:
            self._sizes = None  # a run goes on for long, and needs it no more

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file's content, in hexadecimal."""
        with (
            self.reading() as opened,
            refusals(f"{self.shown}/{name} can't be read"),
            open(opened(name), "rb") as file,
        ):
            return sha256_of(file)

    @contextmanager
    def reading(self) -> Iterator[Callable[[str], int]]:
        """Give what opens a file to be read, as a descriptor; its copy here is gone when that is closed.

        It raises OSError.
        """
        with tempfile.TemporaryDirectory(dir=self.state, prefix=".reading-") as folder:

            def opened(name: str) -> int:
                if self.stamp(name) is None:
                    raise FileNotFoundError(name)
                file, path = tempfile.mkstemp(dir=folder)
                os.close(file)
                try:
                    self._store.fetch(name, path)
                    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except StorageError as error:
                    raise OSError(str(error)) from error
                finally:
                    os.unlink(path)

            yield opened

    @contextmanager
    def lent(self, name: str) -> Iterator[str]:
        """Give the path of a copy of a file as long as it is read."""
        with tempfile.TemporaryDirectory(dir=self.state, prefix=".reading-") as folder:
            path = os.path.join(folder, "file")
            self._store.fetch(name, path)
            yield path

    def temps(self) -> Iterator[str]:
        """Yield the temp files of results: in a bucket there are none."""
        yield from ()

    def others(self) -> Iterator[str]:
        """Yield the names of all visible files."""
        yield from self._listed()

    def seen(self, name: str) -> tuple[int, ...] | None:
        """Return what tells the file of a name from another; None if there is none."""
        found = self._store.entry(name)
        return None if found is None else (0, 0, found.size_bytes, 0)

    def discard(self, name: str, seen: tuple[int, ...]) -> str | None:
        """Remove a file; say why if it can't be, or if it is another by now than was ``seen``."""
        try:
            found = self._store.entry(name)
            if found is not None and found.size_bytes != seen[2]:
                return "it has changed meanwhile"
            self._store.remove([name])
        except RemoteError as error:
            return str(error)
        return None

    def _listed(self) -> dict[str, int]:
        if self._sizes is None:
            self._sizes = {one.name: one.size_bytes for one in self._store.entries() if not one.name.startswith(".")}
        return self._sizes

    # Results on their way.

    def free_bytes(self) -> int:
        """Return how much may still be written here, on the way there."""
        return self._near.free_bytes()

    def lack_of_room(self, needed: float = 0.0) -> str | None:
        """Say that there is no room here for what is on its way."""
        return self._near.lack_of_room(needed)

    def at_once(self, pending: int, hands: int) -> int:
        """Return how many of the results that are to be made lie on the disk at a time."""
        return min(pending, hands)

    def sweep(self) -> int:
        """Remove what dead runs have left unfinished here and return how much that was. Only with the lock held."""
        for left in (*self.path.glob(".segments-*"), *self.state.glob(".reading-*")):
            shutil.rmtree(left, ignore_errors=True)
        return self._near.sweep() + self._shelf.sweep()

    def tidy(self) -> None:
        """Remove what was left here long ago, where the lock is another machine's, and so nobody sweeps."""
        self._shelf.sweep()
        for part in (one for one in self.path.glob(".*") if PART.match(one.name) and is_old(one)):
            with suppress(OSError):
                part.unlink()

    def clean(self, key: str, mark: int) -> None:
        """Remove the temp files that ``temp`` made of the same."""
        self._near.clean(key, mark)

    def temp(self, key: str, mark: int = 0, number: int = 0) -> Temp:
        """Open a temp file for a result of a prompt."""
        return self._near.temp(key, mark, number)

    def scratch(self) -> Scratch:
        """Open room for bytes that nobody names."""
        return self._near.scratch()

    def write(self, name: str, text: str | Iterable[str], *, mode: int = FILE_MODE) -> None:
        """Write a state file, whole or not at all."""
        self._near.write(name, text, mode=mode)

    def hold(self, outcome: Outcome, temps: Sequence[Temp]) -> Saving:
        """Give verified results their names here, where they wait for their upload."""
        return self._shelf.put(outcome, temps)

    def waiting(self) -> int:
        """Return how many results wait here for their upload."""
        return self._shelf.count()

    def held(self, key: str, fingerprint: str) -> Held | None:
        """Return the results of a prompt that wait here since a crash, or went up without a word in the ledger."""
        return self._shelf.find(key, fingerprint)

    def send(self, saving: Sequence[Saving]) -> float:
        """Upload what is held; return the seconds that took. Raises RemoteError, and then all of it is held still."""
        return self._shelf.send([one.part for one in saving if isinstance(one.part, Held)])


Folder = OutputFolder | FarFolder
"""Where the results of a run are."""


def folder_of(
    path: Path,
    far: Far | None,
    mark: str | None = None,
    abandoned: threading.Event | None = None,
    *,
    shard: Shard | None = None,
) -> Folder:
    """Return an output folder: one of this machine, or another. Raises UsageError (see Store)."""
    near = OutputFolder(far.here if far else path, mark, shard=shard)
    return FarFolder(near, far, abandoned) if far else near


def folder_at(path: Path) -> Folder:
    """Return the output folder that a path is, or is the working folder of."""
    url = url_at(path)
    return far_folder(url, path) if url else OutputFolder(path)


def far_folder(url: str, path: Path | None = None) -> FarFolder:
    """Return the folder at a URL, to look at it; its working folder is the usual one, or ``path``."""
    far = Far(url)
    return FarFolder(OutputFolder(path or far.here), far, store=_store_at(url))


def run_elsewhere(state: Path) -> str | None:
    """Return the name of a run, of another machine as a rule, that is going on with a state; None if none is.

    Of a folder of this machine nobody can tell. Raises RemoteError.
    """
    path = next(one.parent for one in (state, *state.parents) if one.name == STATE)
    url = url_at(path)
    return Lease(_store_at(url), state.relative_to(path).as_posix()).running() if url else None


def url_at(path: Path) -> str | None:
    """Return the URL of the folder that a path is the working folder of; None if it is none."""
    with suppress(OSError, ValueError):
        return (path / MARK).read_text(encoding="utf-8").strip() or None
    return None


@lru_cache(maxsize=4)
def _store_at(url: str) -> Store:
    """Return what looks at a URL; it takes a tenth of a second to make one."""
    return Store(url, Upload())
