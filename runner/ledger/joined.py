"""The ledgers of an output folder, read as one: that of its whole list, and that of each shard there ever was.

A run's lines stand together in one ledger. Such stretches are read in the order in which their runs began, so that
the last word on a key is the latest, whoever said it. Where a line stands is one number, its place: that of its
stretch, and how far into the file it begins; of a folder with one ledger just the latter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from runner.storage import is_file, no_pipe, refusals, states_of

LEDGER = "ledger.jsonl"
READ_BYTES = 1024 * 1024
PLACE_BITS = 40
"""So much of a place says where in its file a line begins: a terabyte, and the rest millions of stretches."""

_OFFSET = (1 << PLACE_BITS) - 1
_NEAR = 65536
_RUN = re.compile(rb'"run":"([^"\\]*)"')
"""The name of the run that wrote a line. No text before it can hold this: its quotes would be escaped."""

_FINISHED = re.compile(rb'"finished_at":"([^"\\]*)"')


class Stretch(NamedTuple):
    """The lines of one run: from byte ``begin`` of a ledger to ``end``, None for whatever is and comes there."""

    path: Path
    begin: int
    end: int | None
    run: str


class Ledgers:
    """All lines of some ledgers, in the order of their runs; ones that are not there have none.

    Places stay what they are as long as this lives, whatever is written meanwhile; ``renew`` takes note of ledgers
    that have come. One alone is not looked into before it is read.
    """

    def __init__(self, find: Callable[[], Iterable[Path]]) -> None:
        self._find = find
        self._known: set[Path] = set()
        self.stretches: list[Stretch] = []
        self.renew()

    @property
    def paths(self) -> list[Path]:
        """The ledgers that there are."""
        return sorted(self._known)

    def renew(self) -> None:
        """Take note of ledgers that were not there. Raises StorageError."""
        new = [path for path in self._find() if path not in self._known]
        self._known.update(new)
        if len(self._known) == 1:
            self.stretches += [Stretch(path, 0, None, "") for path in new]
        else:
            found = (stretch for path in new for stretch in _stretches(path))
            self.stretches += sorted(found, key=lambda one: one.run)

    def follow(self, path: Path) -> int:
        """Let what is written into a ledger from now on be the latest of all; return the place where it begins.

        It may not be there yet, and its last line has to be whole. Raises StorageError.
        """
        end = 0
        with refusals(f"{path} can't be read"), suppress(FileNotFoundError):
            end = os.stat(path).st_size
        before = [one._replace(end=end) if one.path == path and one.end is None else one for one in self.stretches]
        self.stretches = [*before, Stretch(path, end, None, "")]
        self._known.add(path)
        return len(before) << PLACE_BITS | end

    def blocks(self) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Yield the lines of each stretch in turn, with the place of the first. Raises StorageError."""
        for number, one in enumerate(self.stretches):
            place = number << PLACE_BITS | one.begin
            with self.reading(place), suppress(FileNotFoundError), _opened(one.path) as file:
                file.seek(one.begin)
                yield place, file if one.end is None else _until(file, one.end - one.begin)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield every line with its place. Raises StorageError."""
        for place, lines in self.blocks():
            with self.reading(place):
                for line in lines:
                    yield place, line
                    place += len(line)

    def reading(self, place: int) -> AbstractContextManager[None]:
        """Turn an error in reading the ledger of this place into a StorageError."""
        return refusals(f"{self.stretches[place >> PLACE_BITS].path} can't be read")

    def lines_at(self, places: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield the lines at ``places`` (ascending), each with its place; none of a ledger that is gone."""
        with ExitStack() as opened:
            file: BinaryIO | None = None
            at = beyond = 0
            for place in places:
                if place >= beyond:
                    opened.close()
                    opened.enter_context(self.reading(place))
                    file = self._opened(place, opened)
                    at, beyond = -1, (place >> PLACE_BITS) + 1 << PLACE_BITS
                if file is None:
                    continue
                if place != at:
                    file.seek(place & _OFFSET)
                line = file.readline()
                at = place + len(line)
                yield place, line

    def line(self, place: int) -> bytes:
        """Return the line at a place; b"" if its ledger is gone. Raises StorageError."""
        return next((line for _, line in self.lines_at([place])), b"")

    def heard(self, run: str) -> str:
        """Return when a run of several ledgers wrote its last line, UTC; "" if it wrote none."""
        last = ""
        for one in self.stretches:
            if one.run == run:
                with refusals(f"{one.path} can't be read"), suppress(FileNotFoundError), _opened(one.path) as file:
                    end = file.seek(0, os.SEEK_END) if one.end is None else one.end
                    begin = file.seek(max(one.begin, end - _NEAR))
                    said = _FINISHED.findall(file.read(end - begin))
                    last = max([last, *(at.decode(errors="replace") for at in said[-1:])])
        return last

    def _opened(self, place: int, until: ExitStack) -> BinaryIO | None:
        with suppress(FileNotFoundError):
            return until.enter_context(_opened(self.stretches[place >> PLACE_BITS].path))
        return None


def ledgers_of(folder: Path) -> Ledgers:
    """Return the ledgers of an output folder. Raises StorageError."""

    def find() -> Iterator[Path]:
        for file in (one / LEDGER for one in states_of(folder)):
            with refusals(f"{file} can't be read"):
                found = is_file(file)
            if found:
                yield file

    return Ledgers(find)


def joined(source: Path | Ledgers) -> Ledgers:
    """Return a ledger alone as if it were all."""
    return source if isinstance(source, Ledgers) else Ledgers(lambda: [source])


def _opened(path: Path) -> BinaryIO:
    return open(path, "rb", READ_BYTES, opener=no_pipe)


def _until(file: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    if size_bytes <= 0:
        return
    for line in file:
        yield line
        size_bytes -= len(line)
        if size_bytes <= 0:
            return


def _stretches(path: Path) -> Iterator[Stretch]:
    """Yield what each run wrote into a ledger, in its order, whatever the clock was set to meanwhile."""
    with refusals(f"{path} can't be read"), suppress(FileNotFoundError), _opened(path) as file:
        begin, run = _next(file, 0)
        begin, latest = 0, ""
        while run is not None:
            end, after = _end(file, begin, run)
            latest = max(latest, run.decode(errors="replace"))
            yield Stretch(path, begin, end, latest)
            if end is None:
                return
            begin, run = end, after


def _end(file: BinaryIO, begin: int, run: bytes) -> tuple[int | None, bytes | None]:
    """Return where the next run's lines begin, and its name; None if there is none. Few lines are looked at."""
    low, step = begin, _NEAR
    while (found := _next(file, low + step))[1] == run:
        low, step = found[0], 2 * step
    high = low + step
    while high - low > _NEAR:
        middle = (low + high) // 2
        at, name = _next(file, middle)
        if name == run and at < high:
            low = at
        else:
            high = middle
    for at, line in _lines_from(file, low):
        name = _name(line)
        if name is not None and name != run:
            return at, name
    return None, None


def _next(file: BinaryIO, offset: int) -> tuple[int, bytes | None]:
    """Return the first line that begins at ``offset`` or behind it and names its run: where, and the name."""
    if offset:
        file.seek(offset - 1)
        offset += len(file.readline()) - 1
    for at, line in _lines_from(file, offset):
        name = _name(line)
        if name is not None:
            return at, name
    return offset, None


def _lines_from(file: BinaryIO, offset: int) -> Iterator[tuple[int, bytes]]:
    file.seek(offset)
    while line := file.readline():
        yield offset, line
        offset += len(line)


def _name(line: bytes) -> bytes | None:
    found = _RUN.search(line)
    return found[1] if found else None
