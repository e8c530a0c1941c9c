"""What of a folder is in a bucket: ``.runner/uploads.jsonl``, a line for each file that went up, checked.

The last line of a name counts. A line that was lost with a power cut costs one more upload; nobody believes a line
whose object a listing does not show.
"""

from __future__ import annotations

import json
import os
import re
import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from runner.clock import utc_now
from runner.ledger import SavedFile
from runner.remote import Entry
from runner.storage import FILE_MODE, refusals

UPLOADS = "uploads.jsonl"
_TEXT = rb'"([^"\\]*)"'
_PLAIN = re.compile(
    rb'{"file": %b, "size_bytes": ([0-9]+), "sha256": "([0-9a-f]{64})", "url": %b, "at": %b}\n'
    % (_TEXT, _TEXT, _TEXT)
)
"""A line as it is written, if its texts need no escapes: read without a JSON parser."""


class Uploads:
    """The lines about one URL; many threads may add some."""

    def __init__(self, state: Path, to: str, *, beside: Iterable[Path] = ()) -> None:
        """Lines are added to that of one state; those ``beside`` it are read as well."""
        self._path = state / UPLOADS
        self._paths = [*dict.fromkeys([*(one / UPLOADS for one in beside), self._path])]
        self._to = to
        self._lock = threading.Lock()

    def add(self, file: SavedFile) -> None:
        """Note that a file is up. Raises StorageError."""
        said = {"file": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256}
        line = json.dumps({**said, "url": f"{self._to}/{file.name}", "at": utc_now()}).encode() + b"\n"
        with refusals(f"{self._path} can't be written"), self._lock:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, FILE_MODE)
            try:
                end = os.fstat(descriptor).st_size
                torn = end and os.pread(descriptor, 1, end - 1) != b"\n"  # a killed run was at it
                os.write(descriptor, b"\n" + line if torn else line)
            finally:
                os.close(descriptor)

    def known(self, there: Iterable[Entry] | None = None) -> Known:
        """Return what is up by the lines; with a listing, only what that shows in its size. Raises StorageError."""
        shown = None if there is None else _Shown(there)
        found: dict[int, int] = {}
        for name, size_bytes, sha256 in self._files():
            if shown is None or (name, size_bytes) in shown:
                found[hash(name)] = hash((size_bytes, sha256))
            else:
                found.pop(hash(name), None)
        return Known(found)

    def _files(self) -> Iterator[tuple[str, int, str | None]]:
        """Yield name, size and SHA-256 of what went up to this URL; the last word on a name counts."""
        for line in self._lines():
            with suppress(ValueError, RecursionError, KeyError, TypeError):
                if plain := _PLAIN.match(line):
                    name, size_bytes, sha256, url = (
                        plain[1].decode(),
                        int(plain[2]),
                        plain[3].decode(),
                        plain[4].decode(),
                    )
                else:
                    said = json.loads(line)
                    name, size_bytes, sha256, url = said["file"], said["size_bytes"], said["sha256"], said["url"]
                if url == f"{self._to}/{name}":
                    yield name, size_bytes, sha256

    def _lines(self) -> Iterator[bytes]:
        for path in self._paths:
            with refusals(f"{path} can't be read"), suppress(FileNotFoundError), open(path, "rb") as file:
                yield from file


class Known:
    """Files that are up, in a hundred bytes each, whatever their names."""

    def __init__(self, found: dict[int, int]) -> None:
        self._found = found

    def __contains__(self, file: SavedFile) -> bool:
        return self._found.get(hash(file.name)) == hash((file.size_bytes, file.sha256))


class _Shown:
    """The names and sizes of a listing, in eight bytes each."""

    def __init__(self, there: Iterable[Entry]) -> None:
        self._sums = array("q", sorted(array("q", (hash((one.name, one.size_bytes)) for one in there))))

    def __contains__(self, file: tuple[str, int]) -> bool:
        wanted = hash(file)
        place = bisect_left(self._sums, wanted)
        return place < len(self._sums) and self._sums[place] == wanted
