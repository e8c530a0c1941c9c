"""One run a folder at a time, whatever machines they are on: an object that is created only if there is none.

As on one machine, runs of shards of the same count may be at work together, each with an object of its own.
The bucket's clock decides whether a holder is alive: its object must not have been left unchanged for ``STALE_S``.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

from runner.clock import utc_now
from runner.errors import LockedError
from runner.ledger import is_alive, since_of
from runner.remote.state import SHARDS
from runner.remote.store import RemoteError, Store
from runner.storage import STATE

BEAT_S = 30.0
"""A holder says so often that it lives."""

STALE_S = 180.0
"""A holder that said nothing for so long is dead, or can't reach the bucket any more."""

LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a folder. ``place`` tells machines, and containers on one, apart; ``since`` processes of one number."""

    token: str
    host: str
    pid: int
    run: str
    place: str = ""
    since: str = ""
    beat_at: str = ""

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}, run {self.run}, last heard of at {self.beat_at}"

    @property
    def is_gone(self) -> bool:
        """Tell whether it is certain that it has ended: it was a process of this machine, or a run of this process.

        Of two in one process, the folder's lock on this machine lets in one.
        """
        here = (socket.gethostname(), _place())
        return (self.host, self.place) == here and (self.pid == os.getpid() or not is_alive(self.pid, self.since))


class Lease:
    """Holds a folder's lock in the bucket from ``take`` to ``release``."""

    def __init__(
        self, store: Store, state: str, run: str = "", *, beat_s: float = BEAT_S, stale_s: float = STALE_S
    ) -> None:
        self._store = store
        self._state = state
        self._name = f"{state}/{LOCK}"
        self._beat_s = beat_s
        self._stale_s = stale_s
        pid = os.getpid()
        self._own = Holder(secrets.token_hex(8), socket.gethostname(), pid, run, _place(), since_of(pid))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self.lost = ""

    def take(self) -> None:
        """Take the lock, over from one that is dead. Raises LockedError that names its holder, RemoteError."""
        if not self._store.create(self._name, self._said()):
            self._take_over()
        try:  # whoever comes a moment later sees ours; at the worst neither gets it
            for rival in self._rivals():
                if found := self._alive(rival):
                    self._refuse(found)
        except BaseException:
            self.release()
            raise
        self._thread.start()

    def release(self) -> None:
        """Give the lock back, as far as it is ours still; what can't be given back is stale in a while."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(RemoteError):
            found = self._holder()
            if found and found.token == self._own.token:
                self._store.remove([self._name])

    def _rivals(self) -> list[str]:
        """Return the locks beside which ours can't be: those of shards and of the whole list, or of another count."""
        shards = [*self._store.folders(SHARDS)]
        if self._state == STATE:
            return [f"{one}/{LOCK}" for one in shards]
        count = self._state.rpartition("-")[2]
        return [f"{STATE}/{LOCK}", *(f"{one}/{LOCK}" for one in shards if one.rpartition("-")[2] != count)]

    def _alive(self, name: str) -> Holder | None:
        """Return the holder of a lock; None if nobody alive has it."""
        if self._store.entry(name) is None:
            return None
        found = read_holder(self._store, name)
        return found if found and not found.is_gone and self._age_s(name) < self._stale_s else None

    def running(self) -> str | None:
        """Return the name of the run that has the lock, and lives by this machine's clock; None if none does."""
        found = self._store.entry(self._name)
        if found is None or time.time() - found.changed_s > self._stale_s:
            return None
        holder = self._holder()
        return holder.run if holder and not holder.is_gone else None

    def _take_over(self) -> None:
        """Put our lock in the place of a dead one; of several that try, one at a time."""
        claim = f"{self._name}-claim"
        if not self._store.create(claim, self._said()):
            if found := self._alive(claim):
                self._refuse(found)
            self._store.write(claim, self._said())
        first = read_holder(self._store, claim)
        if first is None or first.token != self._own.token:
            self._refuse(first)
        try:
            if found := self._alive(self._name):
                self._refuse(found)
            self._store.remove([self._name])
            if not self._store.create(self._name, self._said()):
                self._refuse(self._holder())
        finally:
            with suppress(RemoteError):
                self._store.remove([claim])

    def _refuse(self, found: Holder | None) -> None:
        raise LockedError(
            f"{self._store.url} is held by another run ({found or 'one that has just begun'}); try again when it has "
            "ended, or use another output folder"
        )

    def _holder(self) -> Holder | None:
        return read_holder(self._store, self._name)

    def _age_s(self, name: str) -> float:
        """Return for how long a file of the bucket was left unchanged, by its own clock."""
        found = self._store.entry(name)
        if found is None:
            return 0.0
        probe = f"{self._name}-now-{self._own.token}"
        self._store.write(probe, b"")
        try:
            now = self._store.entry(probe)
        finally:
            self._store.remove([probe])
        return now.changed_s - found.changed_s if now else 0.0

    def _beat(self) -> None:
        while not self.lost and not self._ended.wait(self._beat_s):
            with suppress(RemoteError):  # said by what else can't be written there; it is tried again
                self.renew()

    def renew(self) -> None:
        """Say that we live; find out if somebody thought that we don't. Raises RemoteError."""
        found = self._holder()
        if found and found.token == self._own.token:
            self._store.write(self._name, self._said())
        else:
            self.lost = f"{self._store.url} was taken over by another run ({found or 'its lock is gone'})"

    def _said(self) -> bytes:
        return json.dumps(asdict(self._own) | {"beat_at": utc_now()}).encode()


def read_holder(store: Store, name: str) -> Holder | None:
    """Return what a lock says of its holder; None if there is none. Raises RemoteError."""
    content = store.read(name)
    if content is None:
        return None
    try:
        said = json.loads(content)
        return Holder(**{one: type(default)(said[one]) for one, default in asdict(_NOBODY).items()})
    except (ValueError, KeyError, TypeError):
        return _NOBODY


_NOBODY = Holder("", "an unnamed machine", 0, "?")


def _place() -> str:
    """Return what tells this machine, and this container, from others; "" where the system doesn't say (proc(5))."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""
