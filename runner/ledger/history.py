"""What a ledger says, after a crash as before: the last word on every key, in some fifty bytes a key."""

from __future__ import annotations

import json
import re
import struct
from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import compress
from pathlib import Path
from typing import Any

from runner.ledger.joined import Ledgers, joined
from runner.records import Job, ResultFile
from runner.shards import Shard
from runner.storage import NO_STAMP, Stamp

Unchanged = Callable[[bytes, int, int], bool]

FIRST = ("key", "outcome", "fingerprint", "file", "format", "size_bytes", "mtime_ns", "image")
"""What a line begins with: all that most lines are looked at for."""

_NUMBER = b"([0-9]{1,19})"  # below 2^64
_PLAIN = re.compile(
    rb'{"key":"([^"\\]*)","outcome":"saved","fingerprint":"([0-9a-f]{16}).{48}","file":"\1\.([a-z0-9]+)",'
    rb'"format":"\3","size_bytes":%b,"mtime_ns":%b,'
    rb'"image":(?:null|{"size_bytes":%b,"mtime_ns":%b,"sha256":"[0-9a-f]{64}"}),"run":"'
    % (_NUMBER, _NUMBER, _NUMBER, _NUMBER)
)
"""The line of a saved result as ``Ledger`` writes it, if its texts need no escapes: four times as quick as JSON."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a ledger line says, as far as later runs need it."""

    key: str
    index: int
    prompt: str
    outcome: str
    endpoint: str
    fingerprint: str
    seed: int | None
    protocol: str
    file: str | None
    format: str | None
    size_bytes: int | None
    mtime_ns: int | None
    sha256: str | None
    image: Mapping[str, Any] | None
    error: str | None
    attempts: int
    more: tuple[Mapping[str, Any], ...] = ()
    job: Mapping[str, Any] | None = None


class History:
    """The last word on every key. A later failure does not undo a result that was saved before.

    It keeps where the lines stand, and some fifty bytes beside each key: a ledger may have millions. ``saved``,
    ``failed`` and ``submitted`` read a line again when it is asked for; the last are jobs whose end is not known.
    """

    def __init__(self, source: Path | Ledgers) -> None:
        ledgers = joined(source)
        self.unreadable = 0
        self._saved_bytes = 0
        self._rows: dict[bytes, int] = {}
        self._numbers = array("Q")  # four a row: offset, fingerprint, size, time
        self._kinds = array("H")
        self._images: dict[int, Stamp] = {}
        self._names: dict[int, str] = {}
        self._more: dict[int, list[str]] = {}
        self._formats: list[str] = []
        self._kind_of: dict[bytes, int] = {}
        self._failed: dict[bytes, int] = {}
        self._submitted: dict[bytes, int] = {}
        self.saved: Mapping[str, Recorded] = _Lines(ledgers, self._rows, self._offset)
        self.failed: Mapping[str, Recorded] = _Lines(ledgers, self._failed, int)
        self.submitted: Mapping[str, Recorded] = _Lines(ledgers, self._submitted, int)

    @property
    def average_bytes(self) -> int:
        """The mean size of the saved results, 0 if there are none."""
        return self._saved_bytes // len(self._kinds) if self._kinds else 0

    def voucher(self, kinds: Container[str], unchanged: Unchanged) -> Callable[[bytes, bytes, Stamp], bool]:
        """Return what tells whether a result is there, unchanged, and was asked for in just this way.

        It takes a key (in UTF-8), a fingerprint and the stamp of a local image now, NO_STAMP for others. False is no
        final answer. ``kinds`` are the formats to be content with; ``unchanged`` tells whether a file of this name
        (in UTF-8), size and time of change is there.
        """
        rows, numbers, formats = self._rows, self._numbers, self._kinds
        images, names = self._images, self._names
        first_bits = struct.Struct(">Q").unpack_from
        endings = [f".{one}".encode() if one in kinds else None for one in self._formats]

        def vouches(key: bytes, fingerprint: bytes, image: Stamp) -> bool:
            row = rows.get(key)
            if row is None:
                return False
            place = 4 * row
            if numbers[place + 1] != first_bits(fingerprint)[0] or row in names:
                return False
            ending = endings[formats[row]]
            if ending is None or image != (images.get(row, NO_STAMP) if images else NO_STAMP):
                return False
            return unchanged(key + ending, numbers[place + 2], numbers[place + 3])

        return vouches

    def files(self) -> Iterator[str | None]:
        """Yield the name of every file of every saved result."""
        for key in self.saved:
            yield from self.files_of(key)

    def files_of(self, key: str) -> Iterator[str | None]:
        """Yield the names of the files of a saved result; nothing if there is none."""
        row = self._rows.get(key.encode(errors="surrogatepass"))
        if row is not None:
            yield self.file(key)
            yield from self._more.get(row, ())

    def saved_files(self) -> Iterator[tuple[str, str, Stamp | None]]:
        """Yield key and name of every file of every saved result, with the stamp it got; None where a line has it."""
        for key in self.saved:
            row = 4 * self._rows[key.encode(errors="surrogatepass")]
            if name := self.file(key):
                yield key, name, Stamp(self._numbers[row + 2], self._numbers[row + 3])
            for other in self._more.get(row // 4, ()):
                yield key, other, None

    def places(self, shard: Shard | None = None) -> array[int]:
        """Return where the lines of all saved results begin, or of those that are of a shard, ascending."""
        rows: Iterable[int] = self._rows.values()
        mine = compress(rows, shard.members(self._rows)) if shard else rows
        return array("Q", sorted(map(self._offset, mine)))

    def place(self, key: bytes) -> int | None:
        """Return where the line of a saved result begins; None if there is none. ``key`` is in UTF-8."""
        row = self._rows.get(key)
        return None if row is None else self._offset(row)

    def place_of_failure(self, key: bytes) -> int | None:
        """Return where the line of a failure begins, if no result was saved after it. ``key`` is in UTF-8."""
        return self._failed.get(key)

    def file(self, key: str) -> str | None:
        """Return the name of the file of a saved result; None if there is none."""
        row = self._rows.get(key.encode(errors="surrogatepass"))
        if row is None:
            return None
        if row in self._names:
            return self._names[row] or None
        return f"{key}.{self._formats[self._kinds[row]]}"

    def read(self, lines: Iterable[bytes], offset: int = 0) -> None:
        """Take note of lines of a ledger; those that are torn or no outcome are counted and passed over.

        ``offset`` is the place of the first.
        """
        plain, save = _PLAIN.match, self._save
        for line in lines:
            found = plain(line) if line[-2:] == b"}\n" else None
            if found and ((key := found[1]).isascii() or _is_utf8(key)):
                _, fingerprint, kind, size, mtime, image_size, image_time = found.groups()
                save(key, kind, offset, int(fingerprint, 16), int(size), int(mtime))
                if image_size:
                    self._images[self._rows[key]] = Stamp(int(image_size), int(image_time))
            else:
                try:
                    self._take(line, offset)
                except ValueError:
                    self.unreadable += 1
            offset += len(line)

    def _take(self, line: bytes, offset: int) -> None:
        """Take note of the line that stands at ``offset``. Raises ValueError if it is no outcome."""
        found = _recorded(line)
        if found is None:
            raise ValueError("no outcome")
        key = found.key.encode(errors="surrogatepass")
        if found.outcome == "submitted":
            self._submitted[key] = offset
        elif found.outcome == "failed":
            self._failed[key] = offset
            self._submitted.pop(key, None)
        elif found.outcome == "saved":
            numbers = _bits(found), found.size_bytes or 0, found.mtime_ns or 0
            if not all(0 <= one < 2**64 for one in numbers):  # somebody edited it
                raise ValueError(f"no numbers of a result: {numbers}")
            self._save(key, (found.format or "").encode(), offset, *numbers)
            row = self._rows[key]
            if found.image:
                self._images[row] = Stamp(found.image.get("size_bytes", 0), found.image.get("mtime_ns", 0))
            if found.more:
                self._more[row] = [str(one["file"]) for one in found.more]
            if found.file != f"{found.key}.{found.format}":  # as of several results
                self._names[row] = found.file or ""

    def _save(self, key: bytes, kind: bytes, offset: int, bits: int, size_bytes: int, mtime_ns: int) -> None:
        number = self._kind_of.get(kind)
        if number is None:
            number = self._number(kind)
        self._rows[key] = len(self._kinds)
        self._kinds.append(number)
        add = self._numbers.append
        add(offset)
        add(bits)
        add(size_bytes)
        add(mtime_ns)
        self._saved_bytes += size_bytes
        if self._failed:
            self._failed.pop(key, None)
        if self._submitted:
            self._submitted.pop(key, None)

    def _offset(self, row: int) -> int:
        return self._numbers[4 * row]

    def _number(self, kind: bytes) -> int:
        """Give a format's name a number."""
        self._formats.append(kind.decode())
        return self._kind_of.setdefault(kind, len(self._kind_of))


class _Lines(Mapping[str, Recorded]):
    """Lines of a ledger by their key, read when they are asked for.

    One that can't be read then, for its rest is torn or the ledger was changed meanwhile, is as if it were not there.
    """

    def __init__(self, ledgers: Ledgers, rows: dict[bytes, int], offset: Callable[[int], int]) -> None:
        self._ledgers = ledgers
        self._rows = rows
        self._offset = offset

    def __getitem__(self, key: str) -> Recorded:
        row = self._rows[key.encode(errors="surrogatepass")]
        found = _recorded(self._ledgers.line(self._offset(row)))
        if found is None or found.key != key:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.encode(errors="surrogatepass") in self._rows

    def __iter__(self) -> Iterator[str]:
        return (key.decode(errors="surrogatepass") for key in self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def replay(source: Path | Ledgers) -> History:
    """Read a ledger, or all; lines that are torn or no outcome are counted and passed over. No file: no history."""
    ledgers = joined(source)
    history = History(ledgers)
    for place, lines in ledgers.blocks():
        with ledgers.reading(place):
            history.read(lines, place)
    return history


def _bits(found: Recorded) -> int:
    """Return the first 64 bits of a fingerprint."""
    try:
        return int(found.fingerprint[:16], 16)
    except ValueError:  # no fingerprint of ours
        return 0


def _is_utf8(key: bytes) -> bool:
    try:
        key.decode()
    except ValueError:
        return False
    return True


_SHAPE = {
    "key": str,
    "index": int,
    "prompt": str,
    "outcome": str,
    "endpoint": str,
    "fingerprint": str,
    "seed": int | None,
    "protocol": str,
    "file": str | None,
    "format": str | None,
    "size_bytes": int | None,
    "mtime_ns": int | None,
    "sha256": str | None,
    "image": dict | None,
    "error": str | None,
}


_FILE = [one.name for one in fields(ResultFile)]
_JOB = [one.name for one in fields(Job)]


def _recorded(line: bytes) -> Recorded | None:
    """Return what a line says; None if it is no outcome, or one that somebody edited into something else."""
    try:
        found = json.loads(line)
        if not all(isinstance(found[name], kind) for name, kind in _SHAPE.items()):
            return None
        return Recorded(
            **{name: found[name] for name in _SHAPE},
            attempts=len(found["attempts"]),
            more=tuple({name: one[name] for name in _FILE} for one in found.get("more", ())),
            job={name: found["job"][name] for name in _JOB} if found.get("job") else None,
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
