"""The results that are at a URL: each a name and a size, and a copy on this machine as long as somebody reads it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.errors import StorageError
from runner.remote.store import RemoteError, Store
from runner.storage import Stamp, refusals, sha256_of


class There:
    """What lies at a URL. Raises RemoteError wherever that can't be read."""

    def __init__(self, shown: str, state: Path, store: Store) -> None:
        """``shown`` is what people know it by; ``state`` has room for copies."""
        self.shown = shown
        self.state = state
        self._store = store
        self._sizes: dict[str, int] | None = None

    def names(self) -> Iterator[str]:
        """Yield the name of every visible file."""
        yield from self._listed()

    def files(self) -> dict[str, Stamp]:
        """Return the stamp of every visible file."""
        return {name: Stamp(size_bytes, 0) for name, size_bytes in self._listed().items()}

    def stamp(self, name: str) -> Stamp | None:
        """Return the size of one visible file; None if there is none. Its time says nothing, and is 0."""
        size_bytes = self._listed().get(name)
        return None if size_bytes is None else Stamp(size_bytes, 0)

    @contextmanager
    def unchanged(self) -> Iterator[Callable[[bytes, int, int], bool]]:
        """Give what tells whether a visible file (its name in UTF-8) has a size. One listing serves all of them."""
        was_listed = self._sizes is not None
        sizes = self._listed()
        yield lambda name, size_bytes, _: sizes.get(name.decode(errors="surrogateescape")) == size_bytes
        if not was_listed:
            self._sizes = None  # a run goes on for long, and needs it no more

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file's content, in hexadecimal."""
        with (
            self.reading() as opened,
            refusals(f"{self.shown}/{name} can't be read"),
            open(opened(name), "rb") as file,
        ):
            return sha256_of(file)

    @contextmanager
    def reading(self) -> Iterator[Callable[[str], int]]:
        """Give what opens a file to be read, as a descriptor; its copy here is gone when that is closed.

        It raises OSError.
        """
        with tempfile.TemporaryDirectory(dir=self.state, prefix=".reading-") as folder:

            def opened(name: str) -> int:
                if self.stamp(name) is None:
                    raise FileNotFoundError(name)
                file, path = tempfile.mkstemp(dir=folder)
                os.close(file)
                try:
                    self._store.fetch(name, path)
                    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except StorageError as error:
                    raise OSError(str(error)) from error
                finally:
                    os.unlink(path)

            yield opened

    @contextmanager
    def lent(self, name: str) -> Iterator[str]:
        """Give the path of a copy of a file as long as it is read."""
        with tempfile.TemporaryDirectory(dir=self.state, prefix=".reading-") as folder:
            path = os.path.join(folder, "file")
            self._store.fetch(name, path)
            yield path

    def temps(self) -> Iterator[str]:
        """Yield the temp files of results: in a bucket there are none."""
        yield from ()

    def others(self) -> Iterator[str]:
        """Yield the names of all visible files."""
        yield from self._listed()

    def seen(self, name: str) -> tuple[int, ...] | None:
        """Return what tells the file of a name from another; None if there is none."""
        found = self._store.entry(name)
        return None if found is None else (0, 0, found.size_bytes, 0)

    def discard(self, name: str, seen: tuple[int, ...]) -> str | None:
        """Remove a file; say why if it can't be, or if it is another by now than was ``seen``."""
        try:
            found = self._store.entry(name)
            if found is not None and found.size_bytes != seen[2]:
                return "it has changed meanwhile"
            self._store.remove([name])
        except RemoteError as error:
            return str(error)
        return None

    def _listed(self) -> dict[str, int]:
        if self._sizes is None:
            self._sizes = {one.name: one.size_bytes for one in self._store.entries() if not one.name.startswith(".")}
        return self._sizes
