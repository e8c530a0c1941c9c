"""A result on its way: a temp file that is dropped, or settled and then gets its name."""

from __future__ import annotations

import io
import itertools
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, BinaryIO

from runner.errors import StorageError
from runner.storage.places import Stamp
from runner.storage.writing import FILE_MODE, refusals

_SHORT_BYTES = 256 * 1024
"""A result up to this size is read back in one piece."""

_MARKS = itertools.count(secrets.randbits(16))


class Scratch:
    """An unnamed file for what is only needed for a moment."""

    def __init__(self, file: IO[bytes], where: str) -> None:
        self.file = file
        self.size_bytes = 0
        self._where = where

    def write(self, chunk: bytes) -> None:
        """Append bytes. Raises StorageError."""
        self.size_bytes += len(chunk)
        with refusals(f"{self._where} can't be written"):
            self.file.write(chunk)

    def settled(self) -> IO[bytes]:
        """Return the file, once all of it is written. Raises StorageError."""
        with refusals(f"{self._where} can't be written"):
            self.file.flush()
        return self.file

    def close(self) -> None:
        with suppress(OSError):
            self.file.close()


class Temp:
    """A result on its way, opened at once; it is either dropped, or settled and then waits as a ``Part``.

    ``target`` is the folder where it will have its name, on the same disk.
    """

    def __init__(self, folder: str, name: str, target: str | None = None) -> None:
        self._folder = folder if target is None else target
        self.path = os.path.join(folder, name)
        self._size_bytes = 0
        with refusals(self._refused):
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)

    def write(self, chunk: bytes) -> None:
        """Append bytes. Raises StorageError."""
        self._size_bytes += len(chunk)
        try:
            written = os.write(self._file, chunk)
            while written < len(chunk):
                written += os.write(self._file, memoryview(chunk)[written:])
        except OSError as error:
            raise StorageError(f"{self._refused}: {error.strerror or error}") from error

    def read(self) -> BinaryIO:
        """Return a file to read what was written so far. Raises StorageError."""
        with refusals(f"{self.path} can't be read"):
            if self._size_bytes <= _SHORT_BYTES:
                return io.BytesIO(os.pread(self._file, _SHORT_BYTES, 0))
            return open(self.path, "rb")

    def settled(self) -> Stamp:
        """Put the bytes on the disk, close the file and return its stamp. Raises StorageError.

        After a power cut a name must never stand for bytes that were not written, so this comes before ``keep``.
        """
        with refusals(self._refused):
            os.fsync(self._file)
            status = os.fstat(self._file)
            self._close()
        return Stamp(status.st_size, status.st_mtime_ns)

    def part(self, name: str) -> Part:
        """Return what waits, settled, for its name."""
        return Part(self.path, os.path.join(self._folder, name))

    def drop(self) -> None:
        """Remove the file, as far as there is one."""
        with suppress(OSError):
            self._close()
        _unlink(self.path)

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    @property
    def _refused(self) -> str:
        return f"{self.path} can't be written"


@dataclass(frozen=True, slots=True)
class Part:
    """A settled result at ``path`` that waits to be named ``target``."""

    path: str
    target: str

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,)

    def keep(self) -> None:
        """Give the file its name, replacing an older result. Raises StorageError, and then nothing is left of it."""
        try:
            os.replace(self.path, self.target)
        except OSError as error:
            self.drop()
            raise StorageError(f"{self.target} can't be written: {error.strerror or error}") from error

    def drop(self) -> None:
        """Remove the file, as far as there is one."""
        _unlink(self.path)


@dataclass(frozen=True, slots=True)
class Parts:
    """The settled results of one prompt that has several."""

    parts: tuple[Part, ...]

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(part.target for part in self.parts)

    def keep(self) -> None:
        """Give each its name, in their order. Raises StorageError, and then those without a name are gone."""
        for number, part in enumerate(self.parts):
            try:
                part.keep()
            except BaseException:
                for left in self.parts[number:]:
                    left.drop()
                raise

    def drop(self) -> None:
        """Remove the files, as far as there are any."""
        for part in self.parts:
            part.drop()


def new_mark() -> str:
    """Return four hexadecimal digits, others each time."""
    return f"{next(_MARKS) % 0x10000:04x}"


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
