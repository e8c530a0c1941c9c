"""Connections that tell the exchange of their thread about their socket."""

from __future__ import annotations

import socket
import time
from typing import Any

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from runner.client.exchange import OF_THIS_THREAD, Exchange
from runner.deadline import RESOLUTION_S

_KEEP_ALIVE = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
"""Keep-alive probes: a generation is minutes without a byte, and a NAT on the way forgets silent connections."""


class _Known:
    """Mixed into a connection: tells the exchange of the thread about its socket."""

    sock: Any
    _new = False

    def connect(self) -> None:
        exchange: Exchange | None = getattr(OF_THIS_THREAD, "exchange", None)
        if exchange:
            exchange.check()
        self._new = True
        super().connect()  # type: ignore[misc]
        self._tell(exchange)

    def request(self, *args: Any, **options: Any) -> None:
        exchange: Exchange | None = getattr(OF_THIS_THREAD, "exchange", None)
        if exchange:
            exchange.reused = self.sock is not None and not self._new
            if exchange.reused:
                self._tell(exchange)
        self._new = False
        super().request(*args, **options)  # type: ignore[misc]
        self._new = False
        if exchange:
            exchange.sent_at = time.monotonic()
            exchange.watch(exchange.patience_s + RESOLUTION_S, exchange.late)

    def _tell(self, exchange: Exchange | None) -> None:
        if exchange:
            exchange.socket, exchange.reached = self.sock, True
            exchange.check()


class _HTTPConnection(_Known, HTTPConnection):
    pass


class _HTTPSConnection(_Known, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class Adapter(HTTPAdapter):
    """Keeps connections alive, and lets every exchange know its socket."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, socket_options=_KEEP_ALIVE)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        if manager.pool_classes_by_scheme is urllib3.poolmanager.pool_classes_by_scheme:  # not SOCKS
            manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager
