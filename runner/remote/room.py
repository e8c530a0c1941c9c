"""How much of all uploads of a store is in memory at a time, and the threads that send it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

_MOST_BYTES = 512 * 1024 * 1024


class Room:
    """Gives memory and threads to uploads, however many go on at once."""

    def __init__(self, part_bytes: int, at_once: int) -> None:
        self._free = max(_MOST_BYTES, 2 * part_bytes, at_once * part_bytes)
        self._changed = threading.Condition()
        self._threads = max(at_once, _MOST_BYTES // part_bytes)
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def of(self, count: int) -> Iterator[None]:
        """Wait until so many bytes may be held, and hold them."""
        self._take(count)
        try:
            yield
        finally:
            self._give(count)

    def read(self, file: BinaryIO, length: int) -> bytes:
        """Wait until there is room for a part of a file, and read it; ``sent`` lets go of it."""
        self._take(length)
        part = b""
        try:
            part = file.read(length)
        finally:
            self._give(length - len(part))
        return part

    def sent(self, send: Callable[[int, bytes], str], number: int, part: bytes) -> Future[str]:
        """Send a part that was read on another thread."""
        with self._changed:
            if self._pool is None:  # its threads begin one by one, as they are needed
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="upload")
        future = self._pool.submit(send, number, part)
        length = len(part)
        future.add_done_callback(lambda _: self._give(length))
        return future

    def _take(self, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= count)
            self._free -= count

    def _give(self, count: int) -> None:
        with self._changed:
            self._free += count
            self._changed.notify_all()
