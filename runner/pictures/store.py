"""Where pictures are kept: ``FOLDER/.runner/pictures/``, with an index of what was measured.

::

    index.jsonl          a line an entry; a later one of the same key counts
    KEY.webp  KEY.js     a result's thumbnail and its model
    KEY.prompt.webp      the thumbnail of a prompt's image
    .NAME.01234567.part  on its way
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from runner.pictures.entries import Entry, Of, entry_of
from runner.storage import STATE, write_whole

_INDEX = "index.jsonl"
_FILE = r"[0-9a-f]{64}(\.webp|\.prompt\.webp|\.js)"
_OURS = re.compile(rf"{_FILE}|\.({_FILE}|{re.escape(_INDEX)})\.[0-9a-f]{{8}}\.part")
"""What may be removed: the folder may be a link to one that holds other things too."""

_LINE_MAX = 64 * 1024
_ORPHAN_S = 3600.0
"""A file that no entry names is removed at this age: until then another report may be about to name it."""


class Store:
    """The kept pictures of one folder. Of a folder that can't be written, they are elsewhere, and gone at exit."""

    def __init__(self, folder: Path, now_s: Callable[[], float] = time.time) -> None:
        self.path = folder / STATE / "pictures"
        self._now_s = now_s
        self.note = ""
        self._index: BinaryIO | None = None
        self._entries: dict[tuple[str, str], Entry] = {}
        self._lines = 0
        try:
            self._open()
        except OSError as error:
            self.path = Path(tempfile.mkdtemp(prefix="runner-pictures-"))
            atexit.register(shutil.rmtree, self.path, ignore_errors=True)
            self.note = f"pictures can't be kept in the folder ({error.strerror or error}): they are drawn each time"
            self._open()

    def find(self, of: Of, key: str, size_bytes: int | None = None) -> Entry | None:
        """Return a kept entry, if it is of something of that size, and still true."""
        entry = self._entries.get((of, key))
        if entry is None or size_bytes not in (None, entry.size_bytes):
            return None
        return None if 0 < entry.until_s < self._now_s() else entry

    def add(self, entry: Entry) -> None:
        """Note an entry whose files are there. Raises OSError."""
        self._entries[entry.of, entry.key] = entry
        if entry.kept and self._index:
            self._lines += 1
            self._index.write(entry.line())
            self._index.flush()

    def tidy(self, wanted: AbstractSet[tuple[str, str]]) -> None:
        """Remove what is not wanted, and what no entry names. A disk that refuses is left as it is."""
        dead = {name for key in self._entries.keys() - wanted for name in _names(self._entries.pop(key))}
        kept = [entry for entry in self._entries.values() if entry.kept]
        with suppress(OSError):
            if len(kept) != self._lines:
                write_whole(self.path / _INDEX, (entry.line() for entry in kept))
            self._sweep(dead)

    def close(self) -> None:
        if self._index:
            with suppress(OSError):
                self._index.close()

    def _open(self) -> None:
        """Read the index, forgetting entries whose files are not as they were. Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True)
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(self.path)}
        self._index = open(self.path / _INDEX, "a+b")  # noqa: SIM115 - it is open as long as this is
        self._index.seek(0)
        line = b"\n"
        while line_ := self._index.readline(_LINE_MAX):
            line = line_
            self._lines += 1
            entry = entry_of(line)
            if entry and _is_whole(entry, sizes):
                self._entries[entry.of, entry.key] = entry
        if not line.endswith(b"\n"):
            self._index.write(b"\n")
        self._index.flush()

    def _sweep(self, dead: set[str]) -> None:
        named = {name for entry in self._entries.values() for name in _names(entry)}
        for found in os.scandir(self.path):
            if not _OURS.fullmatch(found.name) or found.name in named:
                continue
            if found.name in dead or time.time() - found.stat().st_mtime > _ORPHAN_S:
                os.unlink(found.path)


def _names(entry: Entry) -> list[str]:
    return [name for name, size in _files(entry) if size]


def _files(entry: Entry) -> tuple[tuple[str, int], tuple[str, int]]:
    return (entry.thumbnail, entry.thumbnail_bytes), (entry.model, entry.model_bytes)


def _is_whole(entry: Entry, sizes: dict[str, int]) -> bool:
    """Tell whether an entry's files are there, in the size that they were written in."""
    return all(not size or sizes.get(name) == size for name, size in _files(entry))
