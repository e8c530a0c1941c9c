"""One request on its way, which another thread may cut: because it is late, or because the run ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf

import requests

from runner.deadline import DEADLINES


class Exchange:
    """One request on its way, which another thread may cut.

    ``reached``: there was a connection, so the request may have arrived; ``reused``: an older one. ``proxy``: the one
    that it goes through, as errors may show it.
    """

    def __init__(self, under_way: UnderWay) -> None:
        self._under_way = under_way
        self._until = inf
        self._over = ""
        self.proxy: str | None = None
        self.socket: socket.socket | None = None
        self.reached = False
        self.reused = False
        self.sent_at = 0.0
        self.patience_s = inf
        self.late = ""
        self.cut_because: str | None = None

    @contextmanager
    def here(self) -> Iterator[None]:
        """Let the connection that this thread uses within the block be known as this exchange's."""
        OF_THIS_THREAD.exchange = self
        try:
            yield
        except BaseException:
            self.end()
            raise
        finally:
            OF_THIS_THREAD.exchange = None

    def arrived(self, response: requests.Response) -> None:
        """Take note that the headers are there; from now on only the total counts. Raises if it was cut just before.

        ``http.client`` takes headers that end with the connection for whole.
        """
        self.watch(inf, "")
        if self.cut_because is not None:
            response.close()
            self.check()

    def begin(self, total_s: float, why: str) -> None:
        self._until, self._over = time.monotonic() + total_s, why
        self.watch(total_s, why)

    def watch(self, seconds: float, why: str) -> None:
        """Cut the exchange ``seconds`` from now, unless it has ended; but never later than by its total."""
        left_s = self._until - time.monotonic()
        if left_s <= seconds:
            seconds, why = left_s, self._over
        DEADLINES.set(self, seconds, lambda: self.cut(why))

    def awaits(self, seconds: float, late: str) -> None:
        """Let the headers, or once these are there each byte, take ``seconds``; ``late`` is said if it is more."""
        self.patience_s, self.late = seconds, late
        if self.socket is not None:
            with suppress(OSError):
                self.socket.settimeout(seconds)

    def cut(self, why: str) -> None:
        """Shut the socket down; the thread that waits for it is told ``why``."""
        if self.cut_because is None:
            self.cut_because = why
        plain = getattr(self.socket, "socket", self.socket)  # below TLS in TLS, as to a proxy
        if isinstance(plain, socket.socket):
            with suppress(OSError):
                socket.socket.shutdown(plain, socket.SHUT_RDWR)  # of the plain socket, whatever lies over it

    def check(self) -> None:
        """Raise what stands for having been cut, if it was, or for having been abandoned."""
        if self.cut_because is None and self._under_way.is_abandoned:
            self.cut_because = "abandoned"
        if self.cut_because is not None:
            raise ConnectionAbortedError(self.cut_because)

    def end(self) -> None:
        """Let nobody cut it any more: the connection may be another's next."""
        self.socket = None
        DEADLINES.clear(self)
        self._under_way.end(self)


class UnderWay:
    """The exchanges of a client that have begun and not ended; none goes out once ``abandoned`` is set."""

    def __init__(self, abandoned: threading.Event | None = None) -> None:
        self._told = abandoned or threading.Event()
        self._exchanges: set[Exchange] = set()
        self._lock = threading.Lock()
        self._abandoned = False

    def begin(self, total_s: float, why: str) -> Exchange:
        exchange = Exchange(self)
        exchange.begin(total_s, why)
        with self._lock:
            self._exchanges.add(exchange)
            if self._abandoned:
                exchange.cut_because = "abandoned"
        return exchange

    def end(self, exchange: Exchange) -> None:
        with self._lock:
            self._exchanges.discard(exchange)

    @property
    def is_abandoned(self) -> bool:
        return self._abandoned or self._told.is_set()

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            for exchange in self._exchanges:
                exchange.cut("abandoned")


OF_THIS_THREAD = threading.local()
