"""What of a folder is in a bucket: ``.runner/uploads.jsonl``, a line for each file that went up, checked.

The latest line of a name counts, whichever state has it. A line that was lost with a power cut costs one more upload;
nobody believes a line whose object a listing does not show.
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
from runner.storage import no_pipe, refusals

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
            descriptor = no_pipe(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
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
        said_at: dict[int, int] = {}
        several = sum(path.exists() for path in self._paths) > 1  # else their order is that of time
        for (name, size_bytes, sha256), at in self._files():
            key = hash(name)
            if several:
                moment = _moment(at)
                if moment < said_at.get(key, 0):
                    continue
                said_at[key] = moment
            if shown is None or (name, size_bytes) in shown:
                found[key] = hash((size_bytes, sha256))
            else:
                found.pop(key, None)
        return Known(found)

    def _files(self) -> Iterator[tuple[tuple[str, int, str | None], str]]:
        """Yield name, size and SHA-256 of what went up to this URL, and when that was said."""
        for line in self._lines():
            with suppress(ValueError, RecursionError, KeyError, TypeError):
                if plain := _PLAIN.match(line):
                    name, size_bytes, sha256, url, at = (
                        plain[1].decode(),
                        int(plain[2]),
                        plain[3].decode(),
                        plain[4].decode(),
                        plain[5].decode(),
                    )
                else:
                    said = json.loads(line)
                    name, size_bytes, sha256, url = said["file"], said["size_bytes"], said["sha256"], said["url"]
                    at = str(said.get("at", ""))
                if url == f"{self._to}/{name}":
                    yield (name, size_bytes, sha256), at

    def _lines(self) -> Iterator[bytes]:
        for path in self._paths:
            absent = suppress(FileNotFoundError)
            with refusals(f"{path} can't be read"), absent, open(path, "rb", opener=no_pipe) as file:
                yield from file


def _moment(at: str) -> int:
    """Return a time that ``utc_now`` told as a number that grows with it, which takes less room."""
    digits = re.sub(r"[^0-9]", "", at)[:17]
    return int(digits) if digits.isascii() and digits else 0


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
