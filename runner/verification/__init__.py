"""Are the results still what was saved? Every file the ledger knows is read again: size, SHA-256, structure."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from runner.batch import read_all
from runner.errors import RunnerError
from runner.ledger import LOCK, History, Ledgers, Result, holder, lines_at, locked, replay, results_at, whole_result
from runner.prompts import Prompts
from runner.remote import folder_at
from runner.storage import STATE, states_of
from runner.traces import config_in, expect_ledger
from runner.verification.files import Flaw, checked

__all__ = ["Flaw", "Verified", "verify"]

_SETTLE_S = 1.0
"""A run writes a ledger line just before its file gets its name: what looks wrong may be right a moment later."""

_JUST_S = 5.0
"""A ledger that was written so lately may be that of a run on another machine."""

_AT_A_TIME = 50_000
"""So many results that are not there are held in memory."""

_LOOKS = 3
"""So often what looks wrong is looked at again, while a run is at work."""


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
    ledgers = expect_ledger(path)
    with ExitStack() as held:
        if discard:
            held.enter_context(locked(path / STATE / LOCK))
            held.enter_context(folder_at(path).alone("verify --discard"))
        found = _Look(path, ledgers, tell, observe, is_held=discard).all()
        if discard:
            _discard(path, found)
    found.verified.seconds = round(time.monotonic() - begun, 1)
    return found.verified


class _Look:
    """One look at all results: first at each as the ledger begins, then again at those that seem wrong."""

    def __init__(self, path: Path, ledgers: Ledgers, tell: Tell, observe: Observe, *, is_held: bool) -> None:
        self._path = path
        self._folder = folder_at(path)
        self._ledgers = ledgers
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
        self.verified.no_ledger = not self._ledgers.paths and any(self._folder.names())
        places = history.places()
        del history  # it may be large, and is not needed for long
        results = self._counted(results_at(self._ledgers, places))
        for looked, (result, flaws) in enumerate(checked(self._folder, results), 1):
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
        history = replay(self._ledgers)
        if history.unreadable and at_work:
            time.sleep(_SETTLE_S)
            history = replay(self._ledgers)
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
        if any(holder(state) not in (None, os.getpid()) for state in states_of(self._path)):
            return True
        for ledger in self._ledgers.paths:
            with suppress(OSError):
                if abs(time.time() - os.stat(ledger).st_mtime) < _JUST_S and not self._is_held:
                    return True
        return False

    def _look_again(self, *, last: bool) -> None:
        """Look at what seems wrong by the ledger's last word on each, for a run may be replacing it."""
        at_work = self._is_at_work()
        if at_work:
            time.sleep(_SETTLE_S)
        self._ledgers.renew()
        history = replay(self._ledgers)
        doubtful, self._doubtful = self._doubtful, array("Q")
        results = self._counted(self._last_words(history, doubtful))
        damaged: list[tuple[Result, list[Flaw]]] = []
        for result, flaws in checked(self._folder, results):
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
            found = [*checked(self._folder, (one for one in results_at(self._ledgers, some) if one))]
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
        for result in results_at(self._ledgers, doubtful):
            place = history.place(result.key.encode(errors="surrogatepass")) if result else None
            if place is None:
                yield None
            else:
                places.add(place)
        yield from (whole_result(*one) for one in lines_at(self._ledgers, sorted(places)))

    def _owners(self, history: History, files: set[str]) -> dict[str, str]:
        """Return the keys of other results that these files are, whole; keys may share a name across lists."""
        claims = (one for one in results_at(self._ledgers, history.places()) if one)
        sharing = (one for one in claims if any(file.name in files for file in one.files))
        owners: dict[str, str] = {}
        for result, flaws in checked(self._folder, sharing):
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


def _discard(path: Path, found: _Look) -> None:
    folder = folder_at(path)
    for flaw in found.to_discard:
        why = folder.discard(flaw.file, flaw.seen)
        if why is None:
            found.verified.removed.append(flaw.file)
        else:
            found.verified.left.append((flaw.file, why))
