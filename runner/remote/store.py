"""Files at a URL, by fsspec: moved with tries of our own, believed to be there once size and checksum say so."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from runner.errors import StorageError
from runner.settings import Upload


class RemoteError(StorageError):
    """What is at a URL can't be read or written, after all tries; the sentence says what to do."""


class Entry(NamedTuple):
    """A file below a URL, as a listing has it: ``name`` is relative to that; ``changed_s`` in seconds since 1970."""

    name: str
    size_bytes: int
    changed_s: float


class Store:
    """The files below one URL; many threads may use it at once.

    Every method tries again by itself (``policy``) where that may help, and raises RemoteError when it gives up. Its
    message names the URL, what was refused, and what to do about it. ``abandoned`` ends waits and tries early.
    Writes are atomic for readers: a name stands for a whole file, or for what was there before.
    """

    def __init__(self, url: str, policy: Upload, abandoned: threading.Event | None = None) -> None:
        """Nothing is asked yet. Raises UsageError if the extra that speaks this URL's scheme is not installed."""
        self.url = url.rstrip("/")
        raise NotImplementedError

    def put(self, path: str, name: str, *, sha256: str | None = None) -> None:
        """Upload a local file under a name; return once its size and its checksum there are those of the file.

        ``sha256`` (hexadecimal) is that of the file as it was verified: one that has changed since is refused.
        """
        raise NotImplementedError

    def write(self, name: str, content: bytes) -> None:
        """Write a small file whole."""
        raise NotImplementedError

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file only if there is none of this name; tell whether it was written."""
        raise NotImplementedError

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if there is none."""
        raise NotImplementedError

    def fetch(self, name: str, path: str) -> None:
        """Download a file to a local path, which is replaced only by a whole one."""
        raise NotImplementedError

    def entry(self, name: str) -> Entry | None:
        """Return one file as a listing would have it; None if there is none."""
        raise NotImplementedError

    def entries(self, below: str = "") -> Iterator[Entry]:
        """Yield the files directly in a folder (``""``: the URL itself), with names relative to the URL."""
        raise NotImplementedError

    def folders(self, below: str = "") -> Iterator[str]:
        """Yield the names of the folders directly in a folder, relative to the URL."""
        raise NotImplementedError

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; those that are not there are none."""
        raise NotImplementedError
