"""An output folder in a bucket: its results are there, and its state is worked on in a folder of this machine.

It can do what ``storage.OutputFolder`` can, of which it has one for what is on its way: temp files, and the state.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from runner.errors import LockedError, StorageError
from runner.ledger import LEDGER, alone
from runner.records import Outcome, ResultFile, Saving
from runner.remote.held import WAITS_DAYS, Held, Shelf, is_old
from runner.remote.lease import Lease
from runner.remote.mark import mark
from runner.remote.places import Far
from runner.remote.sending import Sending
from runner.remote.state import fetch_all
from runner.remote.store import Store
from runner.remote.there import There
from runner.storage import (
    FILE_MODE,
    PART,
    OutputFolder,
    Scratch,
    Temp,
    states_of,
)

_FETCHING = "lock-fetch"
_LEASE_ATTEMPTS = 3
"""The lock is asked for again soon, or not at all."""

_FORGET_S = 3.0
"""So long a run looks, at its start, whether what waits here was made again; the rest is for the next."""

_log = logging.getLogger("runner")

_HURRY_S = 20.0
"""Who waits for nothing any more waits so long for the state to get into the bucket."""


class FarFolder(There):
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
        self._abandoned = abandoned or threading.Event()
        super().__init__(far.url, near.state, store or Store(far.url, far.policy, self._abandoned))
        self.path = near.path
        self.shard = near.shard
        self._near = near
        self._far = far
        self._shelf = Shelf(near.path, self._store)
        self._lease: Lease | None = None
        self._sending: Sending | None = None
        self._is_settled = False

    # What a run does to the folder as a whole.

    def prepare(self) -> None:
        """Create the working folder. Raises StorageError."""
        self._near.prepare()
        self._shelf.prepare()
        mark(self.path, self.shown)

    @contextmanager
    def at_work(self, run: str, tell: Callable[[str], None]) -> Iterator[None]:
        """Have the folder for one run, its state here as it is there, and there as it becomes here.

        ``tell`` takes what went wrong meanwhile, from another thread. Raises LockedError, RemoteError.
        """
        with self.alone(run):
            self._fetch(self._relative)
            self._sending = Sending(self._store, self.path, self._relative, run, tell)
            self._sending.begin()
            try:
                yield
                if self._is_settled:
                    with suppress(StorageError):  # it would be the only thing that is not there
                        self._sending.send_log()
            finally:
                self._sending.stop()

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
            if self._sending:
                self._sending.stop()  # the state there is the other's
            raise LockedError(f"{self._lease.lost}; this one has ended")

    def settle(self, *, hurry: bool = False) -> None:
        """Send all of the state. Raises RemoteError, if ``hurry`` soon; LockedError as ``check``."""
        assert self._sending
        self.check()
        timer = threading.Timer(_HURRY_S, self._abandoned.set)
        if hurry:
            timer.start()
        try:
            self._sending.settle()
            self._is_settled = True
        finally:
            timer.cancel()

    def look(self) -> bool:
        """Bring the state here, unless a run of this machine is at it; tell whether there is any, here or there."""
        was_here = self.path.exists()
        self._near.prepare()
        mark(self.path, self.shown)
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

    def refute(self, outcome: Outcome) -> bool:
        """Remove the results of a saved outcome if one of them is another by now; tell whether it was."""
        assert outcome.file and outcome.format and outcome.sha256 and outcome.size_bytes is not None
        files = (ResultFile(outcome.file, outcome.format, outcome.size_bytes, 0, outcome.sha256), *outcome.more)
        if all(map(self._shelf.is_there, files)):
            return False
        self._store.remove([one.file for one in files])
        return True

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
        swept = self._near.sweep() + self._shelf.sweep()
        self._forget()
        return swept

    def tidy(self) -> None:
        """Remove what was left here long ago, where the lock is another machine's, and so nobody sweeps."""
        self._shelf.sweep()
        self._forget()
        for part in (one for one in self.path.glob(".*") if PART.match(one.name) and is_old(one)):
            with suppress(OSError):
                part.unlink()

    def _forget(self) -> None:
        """Let go of results that wait here for nothing, as many as can be looked for in a short time."""
        if not self._shelf.count():
            return
        late = threading.Event()
        timer = threading.Timer(_FORGET_S, late.set)
        timer.start()
        try:
            policy = self._far.policy.model_copy(update={"attempts": 1})
            old = self._shelf.forget(Store(self._far.url, policy, late))
        finally:
            timer.cancel()
        if old:
            said = "Removed what had waited %d days in %s for its upload: results of %d prompts"
            _log.warning(said, WAITS_DAYS, self.path, old)

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
