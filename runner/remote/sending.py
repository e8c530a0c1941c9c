"""Keeps the state of a folder in its bucket while a run writes it, from a thread of its own.

What is new in the ledger goes up as parts, so that a dead machine takes a few seconds of it; the whole ledger goes up
at the end, and the parts go then.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from runner.errors import StorageError
from runner.ledger import LEDGER, cut_torn_line
from runner.remote.state import LOG, SEGMENTS, Notes, is_mirrored, segments
from runner.remote.store import Store
from runner.storage import refusals

EVERY_S = 5.0
"""What is new goes up no more often than this: so much a dead machine may take with it."""

LOG_EVERY_S = 60.0

SEGMENT_BYTES = 512 * 1024
"""A part that has become so long is left as it is, and another is begun."""

_LONGEST_BYTES = 8 * SEGMENT_BYTES


class Sending:
    """Sends what a run writes into its state folder; ``tell`` takes, from another thread, what went wrong, once."""

    def __init__(
        self,
        store: Store,
        path: Path,
        state: str,
        run: str,
        tell: Callable[[str], None],
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._store = store
        self._path = path
        self._state = state
        self._run = run
        self._tell = tell
        self._every_s = every_s
        self._notes = Notes(path / state)
        self._ledger = path / state / LEDGER
        self._number = 1
        self._begun = self._sent = self._known = 0
        """Where in the ledger the part under way begins; up to where it was sent; what was there before this run."""
        self._old: list[str] = []
        """The parts that are in the ledger here, and go when it has gone up."""
        self._log_at = time.monotonic() + LOG_EVERY_S
        self._told = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="sending", daemon=True)

    def begin(self) -> None:
        """Send what this machine knows and the bucket does not, and go on from there. Raises RemoteError."""
        if self._ledger.exists():
            with refusals(f"{self._ledger} can't be written"):
                cut_torn_line(self._ledger)
        self._begun = self._sent = self._known = size_bytes = _size(self._ledger)
        base = self._store.entry(f"{self._state}/{LEDGER}")
        parts = segments(self._store, self._state)
        self._old = [one.name for one in parts if self._notes.knows(one)]  # of others nothing was read yet
        if size_bytes != sum(one.size_bytes for one in [*parts, *([base] if base else [])]):
            self._send_ledger()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what it had not sent yet is for ``settle``."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def settle(self) -> None:
        """Send all that the run wrote. Raises RemoteError, and then the parts are there still."""
        self.stop()
        if _size(self._ledger) != self._known:
            self._send_ledger()
        self._send_files(log=False)
        self._notes.see(self._store.entries(self._state))
        self._notes.write()

    def send_log(self) -> None:
        """Send the log as it is. Raises RemoteError."""
        self._send_files(log=True)
        self._notes.write()

    def _send_ledger(self) -> None:
        """Put the whole ledger into the bucket; its parts are in it, and go after that."""
        self._store.put(str(self._ledger), f"{self._state}/{LEDGER}")
        self._store.remove(self._old)
        self._old = []

    def _beat(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._send_new()
                due = time.monotonic() >= self._log_at
                self._send_files(log=due)
                if due:
                    self._log_at = time.monotonic() + LOG_EVERY_S
            except StorageError as error:
                if not self._told:
                    self._told = True
                    self._tell(f"The bucket does not take the ledger just now, it is tried again: {error}")

    def _send_new(self) -> None:
        """Send the part of the ledger that is under way, as far as it has come."""
        while self._ledger.exists() and (lines := self._new()):
            name = f"{self._state}/{SEGMENTS}/{self._run}-{self._number:06}.jsonl"
            self._store.write(name, lines)
            self._old = [*dict.fromkeys([*self._old, name])]
            self._sent = self._begun + len(lines)
            if len(lines) < SEGMENT_BYTES:
                return
            self._begun = self._sent
            self._number += 1

    def _new(self) -> bytes:
        """Return the whole lines of the part under way; nothing if all of them were sent."""
        with refusals(f"{self._ledger} can't be read"), open(self._ledger, "rb") as file:
            file.seek(self._begun)
            found = file.read(_LONGEST_BYTES)
        lines = found[: found.rfind(b"\n") + 1]
        return lines if self._begun + len(lines) > self._sent else b""

    def _send_files(self, *, log: bool) -> None:
        for name in self._changed(log=log):
            file = self._path / self._state / name
            with refusals(f"{file} can't be read"):
                status = os.stat(file)
                content = file.read_bytes() if status.st_size <= _LONGEST_BYTES or name.startswith(LOG) else None
            if content is None:  # a list of prompts, which nobody changes any more
                self._store.put(str(file), f"{self._state}/{name}")
            else:
                self._store.write(f"{self._state}/{name}", content)
            self._notes.sent(f"{self._state}/{name}", status)

    def _changed(self, *, log: bool) -> Iterator[str]:
        """Yield the state files that were written since they were sent last."""
        with refusals(f"{self._path} can't be read"), os.scandir(self._path / self._state) as entries:
            files = [one for one in entries if is_mirrored(one.name) and one.is_file()]
        for one in files:
            if one.name.startswith(LOG) and not log:
                continue
            if not self._notes.is_sent(f"{self._state}/{one.name}", one.stat()):
                yield one.name


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
