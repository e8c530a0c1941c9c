"""What a ledger says, after a crash as before: the last word on every key, in some fifty bytes a key."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import StorageError
from runner.storage import NO_STAMP, Stamp, refusals

_READ_BYTES = 1024 * 1024
Unchanged = Callable[[str, int, int], bool]

_TEXT = rb'"[^"\\]*"'
_PLAIN = re.compile(
    rb'{"run":%b,"key":"([^"\\]*)","index":[0-9]+,"prompt":%b,"outcome":"saved","endpoint":%b,'
    rb'"fingerprint":"([0-9a-f]{16})[0-9a-f]{48}","seed":-?[0-9]+,"protocol":%b,'
    rb'"image":(?:null|{"size_bytes":([0-9]+),"mtime_ns":([0-9]+),"sha256":"[0-9a-f]{64}"}),'
    rb'"file":"\1\.([a-z0-9]+)","format":"\5","size_bytes":([0-9]+),"mtime_ns":([0-9]+),'
    rb'"sha256":"[0-9a-f]{64}",' % (_TEXT, _TEXT, _TEXT, _TEXT)
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


class History:
    """The last word on every key. A later failure does not undo a result that was saved before.

    It keeps where the lines stand, and some fifty bytes beside each key: a ledger may have millions. ``saved`` and
    ``failed`` read a line again when it is asked for.
    """

    def __init__(self, path: Path) -> None:
        self.unreadable = 0
        self._saved_bytes = 0
        self._rows: dict[bytes, int] = {}
        self._numbers = array("Q")  # four a row: offset, fingerprint, size, time
        self._kinds = array("H")
        self._images: dict[int, Stamp] = {}
        self._names: dict[int, str] = {}
        self._formats: list[str] = []
        self._kind_of: dict[bytes, int] = {}
        self._failed: dict[bytes, int] = {}
        self.saved: Mapping[str, Recorded] = _Lines(path, self._rows, self._offset)
        self.failed: Mapping[str, Recorded] = _Lines(path, self._failed, int)

    @property
    def average_bytes(self) -> int:
        """The mean size of the saved results, 0 if there are none."""
        return self._saved_bytes // len(self._kinds) if self._kinds else 0

    def vouches(
        self, key: str, fingerprint: bytes, image: Stamp, kinds: Container[str], unchanged: Unchanged
    ) -> bool:
        """Tell whether a result is there, unchanged, and was asked for in just this way. False is no final answer.

        ``image`` is the stamp of a local image now, NO_STAMP for others; ``kinds`` are the formats to be content
        with; ``unchanged`` tells whether a result of this name, size and time of change is there.
        """
        row = self._rows.get(key.encode(errors="surrogatepass"))
        if row is None:
            return False
        place = 4 * row
        if self._numbers[place + 1] != int.from_bytes(fingerprint[:8], "big") or row in self._names:
            return False
        kind = self._formats[self._kinds[row]]
        if kind not in kinds or image != (self._images.get(row, NO_STAMP) if self._images else NO_STAMP):
            return False
        return unchanged(f"{key}.{kind}", self._numbers[place + 2], self._numbers[place + 3])

    def take(self, line: bytes, offset: int) -> None:
        """Take note of the line that stands at ``offset``. Raises ValueError if it is no outcome."""
        if (plain := _PLAIN.match(line)) and line.endswith(b"}\n"):
            key, fingerprint, image_size, image_time, kind, size, mtime = plain.groups()
            self._save(key, kind, (offset, int(fingerprint, 16), int(size), int(mtime)))
            if image_size:
                self._images[self._rows[key]] = Stamp(int(image_size), int(image_time))
            return
        found = _recorded(line)
        if found is None:
            raise ValueError("no outcome")
        key = found.key.encode(errors="surrogatepass")
        if found.outcome == "failed":
            self._failed[key] = offset
        elif found.outcome == "saved":
            kind = (found.format or "").encode()
            self._save(key, kind, (offset, _bits(found), found.size_bytes or 0, found.mtime_ns or 0))
            row = self._rows[key]
            if found.image:
                self._images[row] = Stamp(found.image.get("size_bytes", 0), found.image.get("mtime_ns", 0))
            if found.file != f"{found.key}.{found.format}":
                self._names[row] = found.file or ""

    def _save(self, key: bytes, kind: bytes, numbers: tuple[int, int, int, int]) -> None:
        kinds = self._kinds
        try:
            self._numbers.extend(numbers)
        except (OverflowError, TypeError):  # a line that somebody edited
            del self._numbers[4 * len(kinds) :]
            raise ValueError(f"no numbers of a result: {numbers}") from None
        self._rows[key] = len(kinds)
        number = self._kind_of.get(kind)
        kinds.append(self._number(kind) if number is None else number)
        self._saved_bytes += numbers[2]
        if self._failed:
            self._failed.pop(key, None)

    def _offset(self, row: int) -> int:
        return self._numbers[4 * row]

    def _number(self, kind: bytes) -> int:
        """Give a format's name a number."""
        self._formats.append(kind.decode())
        return self._kind_of.setdefault(kind, len(self._kind_of))


class _Lines(Mapping[str, Recorded]):
    """Lines of a ledger by their key, read when they are asked for."""

    def __init__(self, path: Path, rows: dict[bytes, int], offset: Callable[[int], int]) -> None:
        self._path = path
        self._rows = rows
        self._offset = offset

    def __getitem__(self, key: str) -> Recorded:
        row = self._rows[key.encode(errors="surrogatepass")]
        with refusals(f"{self._path} can't be read"), open(self._path, "rb") as file:
            file.seek(self._offset(row))
            found = _recorded(file.readline())
        if found is None:
            raise StorageError(f"{self._path} was changed while it was read")
        return found

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.encode(errors="surrogatepass") in self._rows

    def __iter__(self) -> Iterator[str]:
        return (key.decode(errors="surrogatepass") for key in self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def replay(path: Path) -> History:
    """Read a ledger; lines that are torn or no outcome are counted and passed over. No file: no history."""
    history = History(path)
    offset = 0
    with refusals(f"{path} can't be read"), suppress(FileNotFoundError), open(path, "rb", _READ_BYTES) as lines:
        for line in lines:
            try:
                history.take(line, offset)
            except ValueError:
                history.unreadable += 1
            offset += len(line)
    return history


def _bits(found: Recorded) -> int:
    """Return the first 64 bits of a fingerprint."""
    try:
        return int(found.fingerprint[:16], 16)
    except ValueError:  # no fingerprint of ours
        return 0


def _recorded(line: bytes) -> Recorded | None:
    try:
        found = json.loads(line)
        return Recorded(
            **{name: found[name] for name in Recorded.__dataclass_fields__ if name != "attempts"},
            attempts=len(found["attempts"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
