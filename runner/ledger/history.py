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
StampOf = Callable[[str], Stamp | None]

_TEXT = rb'"[^"\\]*"'
_PLAIN = re.compile(
    rb'{"run":%b,"key":"([^"\\]*)","index":[0-9]+,"prompt":%b,"outcome":"saved","endpoint":%b,'
    rb'"fingerprint":"([0-9a-f]{16})[0-9a-f]{48}","seed":-?[0-9]+,"protocol":%b,'
    rb'"image":(?:null|{"size_bytes":([0-9]+),"mtime_ns":([0-9]+),"sha256":"[0-9a-f]{64}"}),'
    rb'"file":"([^"\\]*)","format":"([a-z0-9]+)","size_bytes":([0-9]+),"mtime_ns":([0-9]+),'
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
        self._offsets = array("Q")
        self._sizes = array("q")
        self._times = array("q")
        self._fingerprints = array("Q")
        self._kinds = array("H")
        self._image_sizes = array("q")
        self._image_times = array("q")
        self._names: dict[int, str] = {}
        self._formats: list[str] = []
        self._numbers: dict[bytes, int] = {}
        self._failed: dict[bytes, int] = {}
        self.saved: Mapping[str, Recorded] = _Lines(path, self._rows, self._offsets.__getitem__)
        self.failed: Mapping[str, Recorded] = _Lines(path, self._failed, int)

    @property
    def average_bytes(self) -> int:
        """The mean size of the saved results, 0 if there are none."""
        return self._saved_bytes // len(self._sizes) if self._sizes else 0

    def vouches(self, key: str, fingerprint: bytes, image: Stamp, kinds: Container[str], stamp: StampOf) -> bool:
        """Tell whether a result is there, unchanged, and was asked for in just this way. False is no final answer.

        ``image`` is the stamp of a local image now, NO_STAMP for others; ``kinds`` are the formats to be content
        with; ``stamp`` finds that of a result.
        """
        row = self._rows.get(key.encode(errors="surrogatepass"))
        if row is None or self._fingerprints[row] != int.from_bytes(fingerprint[:8], "big") or row in self._names:
            return False
        kind = self._formats[self._kinds[row]]
        if kind not in kinds or image != (self._image_sizes[row], self._image_times[row]):
            return False
        return stamp(f"{key}.{kind}") == (self._sizes[row], self._times[row])

    def take(self, line: bytes, offset: int) -> None:
        """Take note of the line that stands at ``offset``."""
        if (plain := _PLAIN.match(line)) and line.endswith(b"}\n"):
            key, fingerprint, image_size, image_time, file, kind, size, mtime = plain.groups()
            image = Stamp(int(image_size), int(image_time)) if image_size else NO_STAMP
            self._save(key, offset, int(fingerprint, 16), image, file, kind, int(size), int(mtime))
            return
        found = _recorded(line)
        if found is None:
            self.unreadable += 1
            return
        key = found.key.encode(errors="surrogatepass")
        if found.outcome == "failed":
            self._failed[key] = offset
        elif found.outcome == "saved":
            noted = found.image or {}
            image = Stamp(noted.get("size_bytes", 0), noted.get("mtime_ns", 0))
            file, kind = (found.file or "").encode(errors="surrogatepass"), (found.format or "").encode()
            self._save(key, offset, _bits(found), image, file, kind, found.size_bytes or 0, found.mtime_ns or 0)

    def _save(
        self,
        key: bytes,
        offset: int,
        fingerprint: int,
        image: Stamp,
        file: bytes,
        kind: bytes,
        size_bytes: int,
        mtime_ns: int,
    ) -> None:
        row = self._rows[key] = len(self._offsets)
        self._offsets.append(offset)
        self._sizes.append(size_bytes)
        self._times.append(mtime_ns)
        self._fingerprints.append(fingerprint)
        number = self._numbers.get(kind)
        self._kinds.append(self._number(kind) if number is None else number)
        self._saved_bytes += size_bytes
        if file != key + b"." + kind:
            self._names[row] = file.decode(errors="surrogatepass")
        self._image_sizes.append(image.size_bytes)
        self._image_times.append(image.mtime_ns)
        if self._failed:
            self._failed.pop(key, None)

    def _number(self, kind: bytes) -> int:
        """Give a format's name a number."""
        self._formats.append(kind.decode())
        return self._numbers.setdefault(kind, len(self._numbers))


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
            history.take(line, offset)
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
