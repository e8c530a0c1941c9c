"""Files at a URL, by fsspec: moved with tries of our own, believed to be there once size and checksum say so."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

from runner.remote.anywhere import Anywhere
from runner.remote.connection import S3, Connection
from runner.remote.records import Entry
from runner.remote.refusals import RemoteError
from runner.remote.s3 import Bucket
from runner.settings import Upload

__all__ = ["Entry", "RemoteError", "Store"]


class Store:
    """The files below one URL; many threads may use it at once.

    Every method tries again by itself (``policy``) where that may help, and raises RemoteError when it gives up. Its
    message names the URL, what was refused, and what to do about it. ``abandoned`` ends waits and tries early.
    Writes are atomic for readers: a name stands for a whole file, or for what was there before.
    """

    def __init__(self, url: str, policy: Upload, abandoned: threading.Event | None = None) -> None:
        """Nothing is asked yet. Raises UsageError if the extra that speaks this URL's scheme is not installed."""
        self.url = url.rstrip("/")
        connection = Connection(self.url, policy, abandoned or threading.Event())
        self._way: Bucket | Anywhere = Bucket(connection) if connection.scheme in S3 else Anywhere(connection)
        self._connection = connection

    def put(self, path: str, name: str, *, sha256: str | None = None) -> None:
        """Upload a local file under a name; return once its size and its checksum there are those of the file.

        ``sha256`` (hexadecimal) is that of the file as it was verified: one that has changed since is refused.
        """
        self._way.put(path, name, sha256)

    def write(self, name: str, content: bytes) -> None:
        """Write a small file whole."""
        self._way.write(name, content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file only if there is none of this name; tell whether it was written.

        One of the very same content counts as this one, whose answer got lost: say who writes in what is written.
        """
        return self._way.create(name, content)

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if there is none."""
        return self._way.read(name)

    def fetch(self, name: str, path: str) -> None:
        """Download a file to a local path, which is replaced only by a whole one."""
        folder, base = os.path.split(path)
        part = os.path.join(folder, f".{base[:48]}.{secrets.token_hex(4)}.part")
        try:
            with open(part, "xb") as file:
                size = self._way.fetch(name, file)
                file.flush()
                os.fsync(file.fileno())
                arrived = file.tell()
            if arrived != size:
                raise RemoteError(
                    f"{self._connection.cannot(name, 'read')}: it has {size} bytes, {arrived} arrived; do it again"
                )
            os.replace(part, path)
        except OSError as error:
            raise RemoteError(f"{path} can't be written: {error.strerror or error}") from error
        finally:
            with suppress(OSError):
                os.unlink(part)

    def entry(self, name: str) -> Entry | None:
        """Return one file as a listing would have it; None if there is none."""
        return self._way.entry(name)

    def entries(self, below: str = "") -> Iterator[Entry]:
        """Yield the files directly in a folder (``""``: the URL itself), with names relative to the URL.

        Of S3 a thousand at a time are in memory, however many there are; other stores are listed at once.
        """
        return self._way.entries(below)

    def folders(self, below: str = "") -> Iterator[str]:
        """Yield the names of the folders directly in a folder, relative to the URL."""
        return self._way.folders(below)

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; those that are not there are none."""
        self._way.remove(names)
