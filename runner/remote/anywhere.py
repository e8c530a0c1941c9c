"""Any filesystem of fsspec that is not S3: Google's and Azure's buckets, SFTP, a mounted disk, memory."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, BinaryIO, TypeVar

from runner.remote.connection import Connection
from runner.remote.records import Entry
from runner.remote.refusals import RemoteError, WrongContentError
from runner.remote.sums import Sums, check_unchanged, is_known_same, opened, size_of, sums_of

_OBJECT_STORES = {"gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "memory"}
"""There a name stands for a whole object from the first; elsewhere a file is written beside it, and renamed."""

_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created", "creation_time")
_PART_NAME = 48

T = TypeVar("T")


class Anywhere:
    """The files below a URL."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._whole = connection.scheme in _OBJECT_STORES
        self._block_bytes = connection.policy.part_bytes

    def put(self, path: str, name: str, sha256: str | None) -> None:
        with opened(path) as file:
            size = size_of(file)
            sums = sums_of(file)
        check_unchanged(path, size, sums, sha256)

        def written(filesystem: Any, target: str) -> None:
            self._connection.ask(filesystem, "put_file", path, target, moved_bytes=size)
            if not self._is_there(filesystem, target, sums):
                self._connection.check()
                self._drop(filesystem, target)
                raise WrongContentError("its size or checksum there is not that of the file")

        self._write(name, written)

    def write(self, name: str, content: bytes) -> None:
        def written(filesystem: Any, target: str) -> None:
            self._connection.ask(filesystem, "pipe_file", target, content)

        self._write(name, written)

    def _write(self, name: str, written: Callable[[Any, str], None]) -> None:
        """Write a file whole: at once, or under another name which it has only while it is written."""

        def once(filesystem: Any) -> None:
            target = self._at(name)
            if self._whole:
                written(filesystem, target)
                return
            part = _part_beside(target)
            try:
                self._connection.ask(filesystem, "makedirs", os.path.dirname(target), exist_ok=True)
                written(filesystem, part)
                self._rename(filesystem, part, target)
            except BaseException:
                self._drop(filesystem, part)
                raise

        self._connection.tried(self._connection.cannot(name, "written"), once)

    def _rename(self, filesystem: Any, part: str, target: str) -> None:
        self._connection.check()
        if self._connection.scheme in ("file", "local"):
            with open(part, "rb") as file:
                os.fsync(file.fileno())  # a name must never stand for bytes that a power cut takes
            os.replace(part, target)
            return
        try:
            self._connection.ask(filesystem, "mv", part, target)
        except FileExistsError:  # some can't replace a file
            self._drop(filesystem, target)
            self._connection.ask(filesystem, "mv", part, target)

    def create(self, name: str, content: bytes) -> bool:
        def once(filesystem: Any) -> bool:
            target = self._at(name)
            if self._connection.scheme in ("file", "local"):
                return _created(target, content)
            if not self._whole:
                self._connection.ask(filesystem, "makedirs", os.path.dirname(target), exist_ok=True)
            self._connection.ask(filesystem, "pipe_file", target, content, mode="create")
            return True

        try:
            return self._connection.tried(self._connection.cannot(name, "written"), once)
        except RemoteError as error:
            if error.kind != "exists":
                raise
            return self.read(name) == content  # else only the answer got lost

    def read(self, name: str) -> bytes | None:
        def once(filesystem: Any) -> bytes:
            return bytes(self._connection.ask(filesystem, "cat_file", self._at(name)))

        return self._or_none(name, once)

    def fetch(self, name: str, file: BinaryIO) -> int:
        """Write a file's content into a local one; return how much it should be, in bytes."""

        def once(filesystem: Any) -> int:
            file.seek(0)
            file.truncate()
            for block in self._blocks(filesystem, self._at(name), size := self._size(filesystem, self._at(name))):
                file.write(block)
            return size

        return self._connection.tried(self._connection.cannot(name, "read"), once)

    def _size(self, filesystem: Any, target: str) -> int:
        return int(self._info(filesystem, target)["size"])

    def _info(self, filesystem: Any, target: str) -> Mapping[str, Any]:
        filesystem.invalidate_cache()  # some keep what they were told before
        said: Mapping[str, Any] = self._connection.ask(filesystem, "info", target)
        return said

    def _blocks(self, filesystem: Any, target: str, size: int) -> Iterator[bytes]:
        for start in range(0, size, self._block_bytes):
            end = min(start + self._block_bytes, size)
            yield self._connection.ask(filesystem, "cat_file", target, start=start, end=end, moved_bytes=end - start)

    def _is_there(self, filesystem: Any, target: str, sums: Sums) -> bool:
        """Compare size and checksum; where the store tells none, read all of it back."""
        known = is_known_same(self._info(filesystem, target), sums)
        if known is not None:
            return known
        found = hashlib.sha256()
        for block in self._blocks(filesystem, target, sums.size_bytes):
            found.update(block)
        return found.digest() == sums.sha256

    def entry(self, name: str) -> Entry | None:
        def once(filesystem: Any) -> Entry | None:
            said = self._info(filesystem, self._at(name))
            return _entry(name, said) if said["type"] == "file" else None

        return self._or_none(name, once)

    def entries(self, below: str) -> Iterator[Entry]:
        for said in self._listed(below):
            if said["type"] == "file":
                yield _entry(_below(below, said), said)

    def folders(self, below: str) -> Iterator[str]:
        for said in self._listed(below):
            if said["type"] == "directory":
                yield _below(below, said)

    def _listed(self, below: str) -> Sequence[Mapping[str, Any]]:
        def once(filesystem: Any) -> Sequence[Mapping[str, Any]]:
            target = self._at(below)
            if self._info(filesystem, target)["type"] == "file":
                raise NotADirectoryError(f"{target} is a file")
            said: Sequence[Mapping[str, Any]] = self._connection.ask(filesystem, "ls", target, detail=True)
            return said

        return self._or_none(below, once) or ()

    def remove(self, names: Sequence[str]) -> None:
        for name in names:

            def once(filesystem: Any, name: str = name) -> None:
                with suppress(FileNotFoundError):
                    self._connection.ask(filesystem, "rm_file", self._at(name))

            self._connection.tried(self._connection.cannot(name, "removed"), once)

    def _or_none(self, name: str, once: Callable[[Any], T]) -> T | None:
        try:
            return self._connection.tried(self._connection.cannot(name, "read"), once)
        except RemoteError as error:
            if error.kind == "absent":
                return None
            raise

    def _drop(self, filesystem: Any, target: str) -> None:
        """Remove what should not be there, as far as that goes: the error that led here is to be told."""
        with suppress(Exception):
            self._connection.ask(filesystem, "rm_file", target)

    def _at(self, name: str) -> str:
        return f"{self._connection.path}/{name}" if name else self._connection.path


def _part_beside(target: str) -> str:
    folder, _, name = target.rpartition("/")
    return f"{folder}/.{name[:_PART_NAME]}.{secrets.token_hex(4)}.part"


def _created(target: str, content: bytes) -> bool:
    """Make a local file that is whole as soon as it has its name, unless there is one."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    part = _part_beside(target)
    try:
        with open(part, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
    return True


def _below(below: str, said: Mapping[str, Any]) -> str:
    name = said["name"].rstrip("/").rpartition("/")[2]
    return f"{below}/{name}" if below else name


def _entry(name: str, said: Mapping[str, Any]) -> Entry:
    return Entry(name, int(said["size"] or 0), next((_seconds(said[one]) for one in _TIMES if said.get(one)), 0.0))


def _seconds(when: Any) -> float:
    """Return seconds since 1970, of a number, a datetime or a text in ISO 8601; 0 of anything else."""
    if isinstance(when, int | float):
        return float(when)
    try:
        moment = when if isinstance(when, datetime) else datetime.fromisoformat(str(when).replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
