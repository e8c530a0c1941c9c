"""Are the results still what was saved? Every file the ledger knows is read again: size, SHA-256, structure."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from runner import formats
from runner.batch import read_all
from runner.errors import ResultError, RunnerError
from runner.ledger import (
    LEDGER,
    LOCK,
    History,
    Result,
    SavedFile,
    holder,
    lines_at,
    locked,
    replay,
    results_at,
    whole_result,
)
from runner.limits import processors
from runner.prompts import Prompts
from runner.storage import STATE, OutputFolder, opened
from runner.traces import config_in, expect_ledger

State = Literal["damaged", "missing", "unreadable"]
"""``unreadable``: it is there, but this user or this disk can't read it. It may be whole, so it is left alone."""

_BLOCK = 1024 * 1024
_SHORT_BYTES = 256 * 1024
"""A file up to this size is read once, for its hash and its structure."""

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""To open a pipe that has a result's name would else wait for its other end."""

_BATCH = 64
_BATCH_BYTES = 8_000_000
"""A thread takes so many files at a time, or so many bytes: to hand over a tiny one costs more than to read it."""

_THREADS = (2, 8)
_SETTLE_S = 1.0
"""A run writes a ledger line just before its file gets its name: what looks wrong may be right a moment later."""

_JUST_S = 5.0
"""A ledger that was written so lately may be that of a run on another machine."""

_AT_A_TIME = 50_000
"""So many results that are not there are held in memory."""

_LOOKS = 3
"""So often what looks wrong is looked at again, while a run is at work."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """A file that is not what was saved, and what is wrong with it."""

    key: str
    file: str
    state: State
    wrong: str
    seen: tuple[int, ...] = ()
    """What tells the file that was looked at from another of its name."""


@dataclass(slots=True)
class Verified:
    """What came of it; ``whole + damaged + missing + unreadable == files``.

    ``gone`` counts files of prompts that are in the list no more; these may go, so they are in none of the others.
    ``no_ledger``: there are files, but nothing that says what they were.
    """

    files: int = 0
    whole: int = 0
    damaged: int = 0
    missing: int = 0
    unreadable: int = 0
    gone: int = 0
    bytes: int = 0
    seconds: float = 0.0
    unreadable_lines: int = 0
    no_ledger: bool = False
    removed: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    """Damaged files that could not be removed, and why."""

    @property
    def success(self) -> bool:
        return self.whole == self.files and not self.unreadable_lines and not self.no_ledger


Tell = Callable[[Flaw], None]
Observe = Callable[[int, int], None]
"""Called with the number of results looked at so far, and of all."""


def verify(path: Path, *, tell: Tell, observe: Observe, discard: bool = False) -> Verified:
    """Read every result of a folder again, and ``tell`` of each file that is not whole.

    A run may be going on in the folder. With ``discard`` none may, and damaged files are removed, so that the next
    run makes them again; else nothing is written. Raises UsageError if the folder is not ours, LockedError,
    StorageError.
    """
    begun = time.monotonic()
    expect_ledger(path)
    with ExitStack() as held:
        if discard:
            held.enter_context(locked(path / STATE / LOCK))
        found = _Look(path, tell, observe, is_held=discard).all()
        if discard:
            _discard(path, found)
    found.verified.seconds = round(time.monotonic() - begun, 1)
    return found.verified


class _Look:
    """One look at all results: first at each as the ledger begins, then again at those that seem wrong."""

    def __init__(self, path: Path, tell: Tell, observe: Observe, *, is_held: bool) -> None:
        self._path = path
        self._ledger = path / STATE / LEDGER
        self._tell = tell
        self._observe = observe
        self._is_held = is_held
        self._doubtful = array("Q")
        self._absent = array("Q")
        self.verified = Verified()
        self.to_discard: list[Flaw] = []

    def all(self) -> _Look:
        at_work = self._is_at_work()
        history = self._history(at_work=at_work)
        self.verified.unreadable_lines = history.unreadable
        self.verified.no_ledger = not self._ledger.exists() and any(OutputFolder(self._path).names())
        places = history.places()
        del history  # it may be large, and is not needed for long
        results = self._counted(results_at(self._ledger, places))
        for looked, (result, flaws) in enumerate(_checked(self._path, results), 1):
            self._observe(looked, len(places))
            if flaws and (at_work or _any_damaged(flaws)):
                self._doubtful.append(result.place)
            else:
                self._settle(result, flaws)
        for left in range(_LOOKS - 1, -1, -1):
            if self._doubtful:
                self._look_again(last=not left)
        if self._absent:
            self._count_absent()
        return self

    def _history(self, *, at_work: bool) -> History:
        """Read the ledger; the line that a run is writing at this moment is no torn one."""
        history = replay(self._ledger)
        if history.unreadable and at_work:
            time.sleep(_SETTLE_S)
            history = replay(self._ledger)
        return history

    def _counted(self, results: Iterable[Result | None]) -> Iterator[Result]:
        """Yield the results that can be read, and count the lines of the others."""
        for result in results:
            if result is None:
                self.verified.unreadable_lines += 1
            else:
                yield result

    def _is_at_work(self) -> bool:
        """Tell whether a run is, here or on another machine, as far as the ledger shows."""
        if holder(self._path / STATE) not in (None, os.getpid()):
            return True
        with suppress(OSError):
            return abs(time.time() - os.stat(self._ledger).st_mtime) < _JUST_S and not self._is_held
        return False

    def _look_again(self, *, last: bool) -> None:
        """Look at what seems wrong by the ledger's last word on each, for a run may be replacing it."""
        at_work = self._is_at_work()
        if at_work:
            time.sleep(_SETTLE_S)
        history = replay(self._ledger)
        doubtful, self._doubtful = self._doubtful, array("Q")
        results = self._counted(self._last_words(history, doubtful))
        damaged: list[tuple[Result, list[Flaw]]] = []
        for result, flaws in _checked(self._path, results):
            if flaws and at_work and not last:
                self._doubtful.append(result.place)
            elif _any_damaged(flaws):
                damaged.append((result, flaws))
            else:
                self._settle(result, flaws)
        self._count_damaged(history, damaged)

    def _settle(self, result: Result, flaws: list[Flaw]) -> None:
        """Count a result, or put it aside if something of it is missing: perhaps nobody wants it any more."""
        if any(flaw.state == "missing" for flaw in flaws):
            self._absent.append(result.place)
        else:
            self._count(result, flaws)

    def _count_absent(self) -> None:
        """Count what was put aside; some at a time, for it may be everything."""
        wanted = _Wanted(self._path)
        for first in range(0, len(self._absent), _AT_A_TIME):
            some = sorted(self._absent[first : first + _AT_A_TIME])
            found = [*_checked(self._path, (one for one in results_at(self._ledger, some) if one))]
            keys = wanted.of({result.key for result, _ in found})
            for result, flaws in found:
                self._count(result, flaws, is_wanted=result.key in keys)

    def _count_damaged(self, history: History, damaged: list[tuple[Result, list[Flaw]]]) -> None:
        owners = self._owners(history, {flaw.file for _, flaws in damaged for flaw in flaws}) if damaged else {}
        in_part = {flaw.key for _, flaws in damaged for flaw in flaws if flaw.state == "missing"}
        nobodys = in_part - _Wanted(self._path).of(in_part) if in_part else ()
        for result, flaws in damaged:
            told = [_with_owner(flaw, owners.get(flaw.file, result.key)) for flaw in flaws]
            self._count(result, told, is_wanted=result.key not in nobodys)
            self.to_discard += [flaw for flaw in told if flaw.state == "damaged" and flaw.seen]

    def _last_words(self, history: History, doubtful: array[int]) -> Iterator[Result | None]:
        """Yield what the ledger says now of the results that seem wrong; None where it says nothing any more."""
        places: set[int] = set()
        for result in results_at(self._ledger, doubtful):
            place = history.place(result.key.encode(errors="surrogatepass")) if result else None
            if place is None:
                yield None
            else:
                places.add(place)
        yield from (whole_result(*one) for one in lines_at(self._ledger, sorted(places)))

    def _owners(self, history: History, files: set[str]) -> dict[str, str]:
        """Return the keys of other results that these files are, whole; keys may share a name across lists."""
        claims = (one for one in results_at(self._ledger, history.places()) if one)
        sharing = (one for one in claims if any(file.name in files for file in one.files))
        owners: dict[str, str] = {}
        for result, flaws in _checked(self._path, sharing):
            wrong = {flaw.file for flaw in flaws}
            owners |= {file.name: result.key for file in result.files if file.name not in wrong}
        return owners

    def _count(self, result: Result, flaws: list[Flaw], *, is_wanted: bool = True) -> None:
        counts = self.verified
        wrong = {flaw.file for flaw in flaws}
        shown = [flaw for flaw in flaws if is_wanted or flaw.state != "missing"]
        gone = len(flaws) - len(shown)
        counts.gone += gone
        counts.files += len(result.files) - gone
        counts.whole += len(result.files) - len(flaws)
        counts.bytes += sum(one.size_bytes for one in result.files if one.name not in wrong)
        for flaw in shown:
            setattr(counts, flaw.state, getattr(counts, flaw.state) + 1)
            self._tell(flaw)


class _Wanted:
    """Tells which keys are in the list of the last run as it is now; all, if that can't be read or holds nothing."""

    def __init__(self, path: Path) -> None:
        self._prompts: Prompts | None = None
        with suppress(RunnerError):
            self._prompts = read_all(config_in(path))

    def of(self, keys: set[str]) -> set[str]:
        if not self._prompts:
            return keys
        encoded = {key.encode(errors="surrogatepass") for key in keys}
        found = {key for key, _ in self._prompts.encoded() if key in encoded}
        return {key.decode(errors="surrogatepass") for key in found}


def _any_damaged(flaws: Iterable[Flaw]) -> bool:
    return any(flaw.state == "damaged" for flaw in flaws)


def _with_owner(flaw: Flaw, owner: str) -> Flaw:
    """Return a flaw whose file turned out to be another prompt's result, so that nobody removes it."""
    if flaw.state != "damaged" or owner == flaw.key:
        return flaw
    return Flaw(flaw.key, flaw.file, "damaged", f"it is the result of {owner} now")


def _checked(folder: Path, results: Iterable[Result]) -> Iterator[tuple[Result, list[Flaw]]]:
    """Check results on several threads, as reading and hashing run side by side; yield each with its flaws."""
    stop = threading.Event()
    threads = max(_THREADS[0], min(_THREADS[1], processors()))
    waiting: deque[tuple[list[Result], Future[list[list[Flaw]]]]] = deque()
    with opened(folder) as within, ThreadPoolExecutor(threads) as pool:
        try:
            for batch in _batches(results):
                waiting.append((batch, pool.submit(_flaws_of_all, within, batch, stop)))
                if len(waiting) > 2 * threads:
                    yield from _done(*waiting.popleft())
            while waiting:
                yield from _done(*waiting.popleft())
        finally:
            stop.set()


def _done(batch: list[Result], found: Future[list[list[Flaw]]]) -> Iterator[tuple[Result, list[Flaw]]]:
    return zip(batch, found.result(), strict=True)


def _batches(results: Iterable[Result]) -> Iterator[list[Result]]:
    batch: list[Result] = []
    size_bytes = 0
    for result in results:
        batch.append(result)
        size_bytes += sum(one.size_bytes for one in result.files)
        if len(batch) >= _BATCH or size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _flaws_of_all(within: int, batch: list[Result], stop: threading.Event) -> list[list[Flaw]]:
    return [_flaws_of(within, result, stop) for result in batch]


def _flaws_of(within: int, result: Result, stop: threading.Event) -> list[Flaw]:
    found = []
    for file in result.files:
        if (wrong := _wrong_with(within, file, stop)) is not None:
            found.append(Flaw(result.key, file.name, *wrong))
    return found


class _Wrong(NamedTuple):
    state: State
    why: str
    seen: tuple[int, ...] = ()


def _wrong_with(within: int, said: SavedFile, stop: threading.Event) -> _Wrong | None:
    """Say what is wrong with a file; None if nothing is."""
    if not is_result_name(said.name):
        return _Wrong("damaged", "the ledger was edited: no result has such a name")
    try:
        descriptor = os.open(said.name, _READ, dir_fd=within)
    except FileNotFoundError:
        return _Wrong("missing", "there is no such file")
    except OSError as error:
        return _Wrong("unreadable", f"it can't be read: {error.strerror or error}")
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return _Wrong("missing", "what has its name is no file")
    with open(descriptor, "rb") as file:
        try:
            return _wrong_inside(file, status, said, stop)
        except OSError as error:
            return _Wrong("unreadable", f"it can't be read: {error.strerror or error}")


def _wrong_inside(file: BinaryIO, status: os.stat_result, said: SavedFile, stop: threading.Event) -> _Wrong | None:
    seen = _seen(status)
    if status.st_size != said.size_bytes:
        return _Wrong("damaged", f"it has {status.st_size} bytes, not {said.size_bytes}", seen)
    is_short = status.st_size <= _SHORT_BYTES
    body = io.BytesIO(file.read(_SHORT_BYTES + 1)) if is_short else file
    if said.sha256 is not None and _sha256(body, stop) != said.sha256:
        return _Wrong("damaged", "its content is not what was saved (another SHA-256)", seen)
    if said.format not in formats.FORMATS:
        return None  # it was saved as it came
    body.seek(0)
    try:
        formats.verify(body, said.format)
    except ResultError as error:
        return _Wrong("damaged", str(error), seen)
    return None


def is_result_name(name: str) -> bool:
    """Tell whether a result can have this name in its folder, whatever a ledger says.

    >>> [is_result_name(name) for name in ("chair.ply", "../chair.ply", ".runner", "")]
    [True, False, False, False]
    """
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


def _sha256(file: BinaryIO, stop: threading.Event) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
        if stop.is_set():
            break
    return digest.hexdigest()


def _seen(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _discard(path: Path, found: _Look) -> None:
    for flaw in found.to_discard:
        why = _removed(path / flaw.file, flaw)
        if why is None:
            found.verified.removed.append(flaw.file)
        else:
            found.verified.left.append((flaw.file, why))


def _removed(file: Path, flaw: Flaw) -> str | None:
    """Remove a damaged file, of a link only the link; say why if it can't be, or if it is another by now."""
    try:
        if _seen(os.stat(file)) != flaw.seen:
            return "it has changed meanwhile"
        os.unlink(file)
    except OSError as error:
        return error.strerror or str(error)
    return None
