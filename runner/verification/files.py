"""Is a file what was saved? Size, SHA-256 and structure of many files, read side by side."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple

from runner import formats
from runner.errors import ResultError
from runner.ledger import Result, SavedFile
from runner.limits import processors
from runner.remote import Folder
from runner.storage import seen_as

State = Literal["damaged", "missing", "unreadable"]
"""``unreadable``: it is there, but this user or this disk can't read it. It may be whole, so it is left alone."""

_BLOCK = 1024 * 1024
_SHORT_BYTES = 256 * 1024
"""A file up to this size is read once, for its hash and its structure."""

Opened = Callable[[str], int]
"""Opens a file by its name, and returns a descriptor. Raises OSError."""

_BATCH = 64
_BATCH_BYTES = 8_000_000
"""A thread takes so many files at a time, or so many bytes: to hand over a tiny one costs more than to read it."""

_THREADS = (2, 8)


@dataclass(frozen=True, slots=True)
class Flaw:
    """A file that is not what was saved, and what is wrong with it."""

    key: str
    file: str
    state: State
    wrong: str
    seen: tuple[int, ...] = ()
    """What tells the file that was looked at from another of its name."""


def checked(folder: Folder, results: Iterable[Result]) -> Iterator[tuple[Result, list[Flaw]]]:
    """Check results on several threads, as reading and hashing run side by side; yield each with its flaws."""
    stop = threading.Event()
    threads = max(_THREADS[0], min(_THREADS[1], processors()))
    waiting: deque[tuple[list[Result], Future[list[list[Flaw]]]]] = deque()
    with folder.reading() as opened, ThreadPoolExecutor(threads) as pool:
        try:
            for batch in _batches(results):
                waiting.append((batch, pool.submit(_flaws_of_all, opened, batch, stop)))
                if len(waiting) > 2 * threads:
                    yield from _done(*waiting.popleft())
            while waiting:
                yield from _done(*waiting.popleft())
        finally:
            stop.set()


def _done(batch: list[Result], found: Future[list[list[Flaw]]]) -> Iterator[tuple[Result, list[Flaw]]]:
    return zip(batch, found.result(), strict=True)


def _batches(results: Iterable[Result]) -> Iterator[list[Result]]:
    batch: list[Result] = []
    size_bytes = 0
    for result in results:
        batch.append(result)
        size_bytes += sum(one.size_bytes for one in result.files)
        if len(batch) >= _BATCH or size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _flaws_of_all(opened: Opened, batch: list[Result], stop: threading.Event) -> list[list[Flaw]]:
    return [_flaws_of(opened, result, stop) for result in batch]


def _flaws_of(opened: Opened, result: Result, stop: threading.Event) -> list[Flaw]:
    found = []
    for file in result.files:
        if (wrong := _wrong_with(opened, file, stop)) is not None:
            found.append(Flaw(result.key, file.name, *wrong))
    return found


class _Wrong(NamedTuple):
    state: State
    why: str
    seen: tuple[int, ...] = ()


def _wrong_with(opened: Opened, said: SavedFile, stop: threading.Event) -> _Wrong | None:
    """Say what is wrong with a file; None if nothing is."""
    if not is_result_name(said.name):
        return _Wrong("damaged", "the ledger was edited: no result has such a name")
    try:
        descriptor = opened(said.name)
    except FileNotFoundError:
        return _Wrong("missing", "there is no such file")
    except OSError as error:
        return _Wrong("unreadable", f"it can't be read: {error.strerror or error}")
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return _Wrong("missing", "what has its name is no file")
    with open(descriptor, "rb") as file:
        try:
            return _wrong_inside(file, status, said, stop)
        except OSError as error:
            return _Wrong("unreadable", f"it can't be read: {error.strerror or error}")


def _wrong_inside(file: BinaryIO, status: os.stat_result, said: SavedFile, stop: threading.Event) -> _Wrong | None:
    seen = seen_as(status)
    if status.st_size != said.size_bytes:
        return _Wrong("damaged", f"it has {status.st_size} bytes, not {said.size_bytes}", seen)
    is_short = status.st_size <= _SHORT_BYTES
    body = io.BytesIO(file.read(_SHORT_BYTES + 1)) if is_short else file
    if said.sha256 is not None and _sha256(body, stop) != said.sha256:
        return _Wrong("damaged", "its content is not what was saved (another SHA-256)", seen)
    if said.format not in formats.FORMATS:
        return None  # it was saved as it came
    body.seek(0)
    try:
        formats.verify(body, said.format)
    except ResultError as error:
        return _Wrong("damaged", str(error), seen)
    return None


def is_result_name(name: str) -> bool:
    """Tell whether a result can have this name in its folder, whatever a ledger says.

    >>> [is_result_name(name) for name in ("chair.ply", "../chair.ply", ".runner", "")]
    [True, False, False, False]
    """
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


def _sha256(file: BinaryIO, stop: threading.Event) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
        if stop.is_set():
            break
    return digest.hexdigest()
