"""What of a folder is in a bucket: ``.runner/uploads.jsonl``, a line for each file that went up, checked.

The last line of a name counts. A line that was lost with a power cut costs one more upload; nobody believes a line
whose object a listing does not show.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.clock import utc_now
from runner.ledger import SavedFile
from runner.remote import Entry
from runner.storage import FILE_MODE, refusals

UPLOADS = "uploads.jsonl"
_SUM_BITS = 64


class Uploads:
    """The lines about one URL; many threads may add some."""

    def __init__(self, state: Path, to: str, *, beside: Iterable[Path] = ()) -> None:
        """Lines are added to that of one state; those ``beside`` it are read as well."""
        self._path = state / UPLOADS
        self._paths = [*dict.fromkeys([*(one / UPLOADS for one in beside), self._path])]
        self._to = to
        self._lock = threading.Lock()
        self._joint = b""

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
        found: dict[int, int] = {}
        for said in self._lines():
            with suppress(KeyError, TypeError):
                if said["url"] == f"{self._to}/{said['file']}":
                    found[hash(said["file"])] = _packed(said["size_bytes"], said["sha256"])
        if there is None:
            return Known(found)
        sizes = {hash(one.name): one.size_bytes for one in there}
        for name in [name for name, packed in found.items() if sizes.get(name) != packed >> _SUM_BITS]:
            del found[name]
        return Known(found)

    def _lines(self) -> Iterator[dict[str, Any]]:
        for path in self._paths:
            with refusals(f"{path} can't be read"), suppress(FileNotFoundError), open(path, "rb") as file:
                for line in file:
                    with suppress(ValueError, RecursionError):
                        said = json.loads(line)
                        if isinstance(said, dict):
                            yield said


class Known:
    """Files that are up, in some hundred bytes each, whatever their names."""

    def __init__(self, found: dict[int, int]) -> None:
        self._found = found

    def __contains__(self, file: SavedFile) -> bool:
        return self._found.get(hash(file.name)) == _packed(file.size_bytes, file.sha256)


def _packed(size_bytes: int, sha256: str | None) -> int:
    return (size_bytes << _SUM_BITS) | (hash(sha256) & ((1 << _SUM_BITS) - 1))
