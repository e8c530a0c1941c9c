"""Bring a folder's files to a bucket, beside the run that makes them, by a few threads of their own."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path

from runner.errors import StorageError
from runner.journal import log
from runner.ledger import LEDGER, SavedFile, ledgers_of
from runner.mirror.behind import followed, results_in, state_behind
from runner.mirror.standing import Standing
from runner.mirror.uploads import Uploads
from runner.records import Outcome
from runner.remote import Entry, RemoteError, Store
from runner.settings import Upload
from runner.shards import Shard
from runner.stop import Stop
from runner.storage import REPORT, STATE, states_of

_WAITING_MOST = 10_000
"""So many saved results are kept in mind; if more wait, the ledger is read again for them in the end."""

_TOLD_MOST = 20
_LOOK_S = 0.2
_TELL_EVERY_S = 30
_CUT = "they were not waited for any longer"
_LEAVE_S = 6
"""How long threads may take to end what they do once nobody waits for it."""

Tell = Callable[[str], None]


class Mirror:
    """Uploads what is added, and what was there before. ``add`` never waits.

    A file that can't go up is told of, and the others go on; after an answer that would be the same for all of them,
    such as that there is no such bucket, nothing more is tried.
    """

    def __init__(
        self,
        folder: Path,
        to: str,
        policy: Upload,
        stop: Stop,
        tell: Tell,
        *,
        run: Path | None = None,
        shard: Shard | None = None,
    ) -> None:
        """``run``: the state of a run that begins, and adds what it saves; it has the folder's lock.

        One of a ``shard`` brings there what is of it, whichever run made that, and its own state; others, which have
        the folder to themselves, bring all there. Raises StorageError, and UsageError if nothing that is installed
        speaks the URL's scheme.
        """
        self.to = to.rstrip("/")
        self._folder = folder
        self._shard = shard
        states = [run] if run and shard else states_of(folder)
        self._states = [one for one in states if one == run or one.exists()]
        self._ledgers = ledgers_of(folder)
        self._begun = followed(self._ledgers, run / LEDGER) if run else inf
        self._stop = stop
        self._tell = tell
        self._over = threading.Event()
        self._store = Store(self.to, policy, self._over)
        self._uploads = Uploads(run or folder / STATE, self.to, beside=states_of(folder))
        self._changed = threading.Condition()
        self._queue: deque[SavedFile] = deque()
        self._behind: Iterator[SavedFile] | None = None
        self._reading = threading.Lock()
        self._busy = self._uploaded = self._bytes = self._told = self._in_a_row = 0
        self._at_once = policy.at_once
        self._why: str | None = None
        self._doubt = self._closed = self._ending = self._finishing = False
        self._threads: list[threading.Thread] = []

    def begin(self, *, results: bool = True) -> None:
        """Begin with what is saved and not up, for which the bucket is listed once; or just be ready."""
        if results:
            self._behind = self._listed_behind()
        for work in (self._watch, *[self._work] * (self._at_once if results else 0)):
            self._threads.append(threading.Thread(target=work, name="mirror", daemon=True))
            self._threads[-1].start()

    def add(self, outcome: Outcome) -> None:
        """Upload the files of a saved result; whatever else came of a prompt passes."""
        if outcome.outcome != "saved" or outcome.file is None:
            return
        first = SavedFile(outcome.file, outcome.format or "", outcome.size_bytes or 0, outcome.sha256)
        more = (SavedFile(one.file, one.format, one.size_bytes, one.sha256) for one in outcome.more)
        with self._changed:
            if len(self._queue) < _WAITING_MOST:
                self._queue.extend((first, *more))
                self._changed.notify_all()
            else:
                self._doubt = True

    def finish(self) -> None:
        """Wait until all that was saved is up, or until nobody waits any more. Logs, so only on the main thread."""
        self._finishing = True
        self._wait()
        with self._changed:
            again = self._doubt and not (self._closed or self._over.is_set())
            if again:  # what failed once, or was too much to keep in mind
                self._doubt, self._why = False, None
                self._behind = self._unlisted_behind()
                self._changed.notify_all()
        if again:
            self._wait()

    def put_state(self) -> None:
        """Upload the ledger, and what else tells of the results, as far as it changed."""
        self._put_changed(self._states)

    def put_report(self) -> None:
        """Upload the report alone, if it changed."""
        self._put_changed([])

    def _put_changed(self, states: Sequence[Path]) -> None:
        if self._closed or self._over.is_set():
            self._why = self._why or _CUT
            return
        try:
            for file in state_behind(self._folder, states, self._uploads.known(self._listed_state(states))):
                self._put(file)
        except StorageError as error:
            self._fail(str(error))

    def close(self) -> None:
        """Let the threads go; what they are at is given up."""
        self._over.set()
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        until = time.monotonic() + _LEAVE_S
        for one in self._threads:
            one.join(max(0.0, until - time.monotonic()))

    def problem(self, folder: str) -> str | None:
        """Say what is not up, as of now; None if nothing was refused. Raises StorageError."""
        return self.standing().problem(folder) if self._why else None

    @property
    def why(self) -> str | None:
        """Why something is not up; None if nothing was refused."""
        return self._why

    def standing(self) -> Standing:
        """Count what is up and what is not. Raises StorageError."""
        results = left = 0
        known = self._uploads.known()
        for file in self._results():
            results += 1
            left += file not in known
        why = self._why or (_CUT if left else None)
        return Standing(self.to, results, self._uploaded, self._bytes, left, why)

    def _results(self, *, before: float = inf) -> Iterator[SavedFile]:
        return results_in(self._folder, self._ledgers, self._shard, before=before)

    def _listed_behind(self) -> Iterator[SavedFile]:
        """Yield what is not up of what was saved before; what is saved from now on is added."""
        known = self._uploads.known(self._store.entries())
        yield from (file for file in self._results(before=self._begun) if file not in known)

    def _unlisted_behind(self) -> Iterator[SavedFile]:
        known = self._uploads.known()
        yield from (file for file in self._results() if file not in known)

    def _listed_state(self, states: Sequence[Path]) -> Iterator[Entry]:
        if report := self._store.entry(REPORT):
            yield report
        for state in states:
            yield from self._store.entries(state.relative_to(self._folder).as_posix())

    def _wait(self) -> None:
        told_at, warned = 0.0, False
        while not self._is_idle():
            asked = self._stop.asked and str(self._stop.reason).startswith("SIG")
            if asked and not warned:
                log.warning("Results still go up to %s; a second signal leaves them to the next run", self.to)
            elif time.monotonic() - told_at > _TELL_EVERY_S:
                log.info("Results still go up to %s (%d so far)", self.to, self._uploaded)
                told_at = time.monotonic()
            warned = asked
        self._why = self._why or (_CUT if self._over.is_set() else None)

    def _is_idle(self) -> bool:
        """Wait a moment, if there is anything to wait for; tell whether there is nothing."""
        with self._changed:
            idle = not (self._busy or self._queue or self._behind is not None)
            if idle or self._closed or self._over.is_set():
                return True
            self._changed.wait(_LOOK_S)
        return False

    def _watch(self) -> None:
        """Give up when nobody waits any more: a signal's grace is over, or there was a second one."""
        while not self._over.wait(_LOOK_S):
            cut = self._stop.now and str(self._stop.reason).startswith("SIG")
            if cut or (self._stop.asked and time.monotonic() >= self._stop.leave_at):
                self._over.set()

    def _work(self) -> None:
        try:
            self._upload_all()
        except Exception as bug:  # noqa: BLE001 - the run goes on; what is not up is told in the end
            self._tell(f"A bug in runner ends the uploads of this run\n{traceback.format_exc()}")
            self._fail(f"a bug in runner: {type(bug).__name__}: {bug}")
            self._close()

    def _upload_all(self) -> None:
        while (file := self._next()) is not None:
            try:
                self._put(file)
                self._in_a_row = 0
            except StorageError as error:
                self._refused(error)
            finally:
                self._end_one()

    def _next(self) -> SavedFile | None:
        """Return what is to go up next, and count it as being at; None if nothing ever will."""
        while True:
            with self._changed:
                while not (self._closed or self._over.is_set()):
                    if self._queue:
                        self._busy += 1
                        return self._queue.popleft()
                    if self._behind is not None:
                        self._busy += 1
                        break
                    if self._ending:
                        return None
                    self._changed.wait()
                else:
                    return None
            if (file := self._next_behind()) is not None:
                return file
            self._end_one()

    def _next_behind(self) -> SavedFile | None:
        with self._reading:
            behind = self._behind
            try:
                file = next(behind, None) if behind else None
            except StorageError as error:  # the listing, or the ledger
                self._refused(error)
                file = None
            if file is None:
                self._behind = None
            return file

    def _end_one(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def _put(self, file: SavedFile) -> None:
        self._store.put(str(self._folder / file.name), file.name, sha256=file.sha256)
        self._uploads.add(file)
        with self._changed:
            self._uploaded += 1
            self._bytes += file.size_bytes

    def _refused(self, error: StorageError) -> None:
        """Take note of what could not go up; after some answers nothing more is tried."""
        if self._over.is_set():
            return  # it was given up, not refused
        kind = error.kind if isinstance(error, RemoteError) else "local"
        self._fail(str(error))
        self._in_a_row += kind != "local"
        if kind == "never" or (self._finishing and self._in_a_row >= self._at_once):
            self._close()

    def _close(self) -> None:
        """Try nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fail(self, why: str) -> None:
        with self._changed:
            self._why = self._why or why
            self._doubt = True
            self._told += 1
            told = self._told
        if told <= _TOLD_MOST:
            self._tell(f"Not uploaded: {why}")
        elif told == _TOLD_MOST + 1:
            self._tell("More could not be uploaded; the end of the run says how many")
