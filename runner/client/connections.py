"""Connections that tell the exchange of their thread about their socket, and the adapter that keeps them."""

from __future__ import annotations

import socket
import ssl
import time
from math import inf
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from runner.client.exchange import OF_THIS_THREAD, Exchange
from runner.deadline import RESOLUTION_S

_KEEP_ALIVE = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
"""Keep-alive probes: a generation is minutes without a byte, and a NAT on the way forgets silent connections."""

_TOGETHER_BYTES = 64 * 1024
"""A body up to this size leaves together with its headers."""

_POOLS_KEPT = 256

_LAST_WORDS_S = 1.0


class _Socket(socket.socket):
    """A socket that sets its time-out only if it is another: each time is a system call."""

    __slots__ = ()

    def settimeout(self, value: float | None, /) -> None:
        if value != self.gettimeout():
            super().settimeout(value)


class _Known:
    """Mixed into a connection: tells the exchange of the thread about its socket."""

    sock: Any
    timeout: Any
    _new = False
    _held: list[bytes] | None = None

    def connect(self) -> None:
        exchange: Exchange | None = getattr(OF_THIS_THREAD, "exchange", None)
        if exchange:
            exchange.check()
        self._new = True
        super().connect()  # type: ignore[misc]
        self._tell(exchange)

    def request(self, method: str, url: str, body: Any = None, *args: Any, **options: Any) -> None:
        exchange: Exchange | None = getattr(OF_THIS_THREAD, "exchange", None)
        if exchange:
            exchange.reused = self.sock is not None and not self._new
            if exchange.reused:
                self._tell(exchange)
        self._new = False
        if body is None or (isinstance(body, bytes) and len(body) <= _TOGETHER_BYTES):
            self._held = []
        try:
            super().request(method, url, body, *args, **options)  # type: ignore[misc]
        finally:
            held, self._held = self._held, None
        if held:
            self.send(b"".join(held))
        self._new = False
        if exchange:
            exchange.sent_at = time.monotonic()
            exchange.watch(exchange.patience_s + RESOLUTION_S, exchange.late)

    def send(self, data: Any) -> None:
        if self._held is not None and isinstance(data, bytes):
            self._held.append(data)
        else:
            exchange: Exchange | None = getattr(OF_THIS_THREAD, "exchange", None)
            if exchange:
                exchange.check()
            super().send(data)  # type: ignore[misc]

    def getresponse(self) -> Any:
        if getattr(OF_THIS_THREAD, "exchange", None):
            self._leave_it_to_the_deadline()
        return super().getresponse()  # type: ignore[misc]

    def _tell(self, exchange: Exchange | None) -> None:
        if exchange:
            exchange.socket, exchange.reached = self.sock, True
            exchange.check()
            if type(self.sock) is _Socket:
                exchange.watch(self.timeout, f"the request was not taken within connect_s ({self.timeout:g} s)")
            self._leave_it_to_the_deadline()

    def _leave_it_to_the_deadline(self) -> None:
        """Let a plain socket block without a time-out of its own while the exchange's deadline watches it.

        With one, each send and each receive is two system calls, and at each another thread may take over.
        """
        if type(self.sock) is _Socket:
            self.timeout = None


class _HTTPConnection(_Known, HTTPConnection):
    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        made.settimeout(None)
        return _Socket(made.family, made.type, made.proto, fileno=made.detach())


class _HTTPSConnection(_Known, HTTPSConnection):
    """Can be cut before it stands, too: a proxy's answer and a TLS handshake may drip as any other."""

    _below: socket.socket | None = None

    def connect(self) -> None:
        exchange: Exchange | None = getattr(OF_THIS_THREAD, "exchange", None)
        try:
            super().connect()
        except BaseException:
            if exchange:
                exchange.socket = None
            raise
        finally:
            below, self._below = self._below, None
            if below:
                below.close()
        if exchange:
            exchange.watch(inf, "")

    def _tunnel(self) -> None:
        """Ask the proxy for a tunnel. An answer that ends with its connection passes for whole, even if we cut it."""
        super()._tunnel()
        exchange: Exchange | None = getattr(OF_THIS_THREAD, "exchange", None)
        if exchange:
            exchange.check()

    def request(self, *args: Any, **options: Any) -> None:
        try:
            super().request(*args, **options)
        except (ssl.SSLError, ConnectionError):
            self._listen()
            raise

    def _listen(self) -> None:
        """Raise what a server has said that closed while the request was on its way, such as why it refuses us."""
        try:
            self.sock.settimeout(_LAST_WORDS_S)
            self.sock.recv(1)
        except (OSError, AttributeError) as error:  # AttributeError: there is no socket any more
            if "ALERT" in (getattr(error, "reason", None) or ""):
                raise

    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        exchange: Exchange | None = getattr(OF_THIS_THREAD, "exchange", None)
        if exchange:
            try:
                self._below = exchange.socket = made.dup()  # TLS takes the socket itself away from us
                exchange.watch(self.timeout, f"no connection within connect_s ({self.timeout:g} s)")
                exchange.check()
            except BaseException:
                made.close()
                raise
        return made


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class Adapter(HTTPAdapter):
    """Keeps connections alive, and lets every exchange know its socket.

    It finds the pool of an origin again without building its key, and leaves out what nobody asks for: cookies and a
    body's encoding. ``query`` is added to every URL as it is sent, and stands in no request, answer or error.
    """

    def __init__(self, *, connections: int, origins: int, query: str = "") -> None:
        self._found: dict[tuple[str, object, object], Any] = {}
        self._query = query
        super().__init__(pool_connections=origins, pool_maxsize=connections)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, socket_options=_KEEP_ALIVE)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **({"socket_options": _KEEP_ALIVE} | options))
        if manager.pool_classes_by_scheme is urllib3.poolmanager.pool_classes_by_scheme:  # not SOCKS
            manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        if proxies:
            return super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
        key = origin(request.url), verify, cert
        pool = self._found.get(key)
        if pool is None or pool.pool is None:  # None: it was closed, as one of too many
            if len(self._found) >= _POOLS_KEPT:
                self._found.clear()
            pool = self._found[key] = super().get_connection_with_tls_context(request, verify, cert=cert)
        return pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        url = super().request_url(request, proxies)
        return f"{url}{'&' if '?' in url else '?'}{self._query}" if self._query else url

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        if url.startswith("https:"):
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        response = requests.Response()
        response.status_code = resp.status
        response.headers = CaseInsensitiveDict(resp.headers)
        response.raw = resp
        response.reason = resp.reason
        response.url = req.url or ""
        response.request = req
        return response


def origin(url: str) -> str:
    """Return scheme, host and port of a URL, as they stand in it.

    >>> origin("http://127.0.0.1:10006/generate")
    'http://127.0.0.1:10006'
    """
    return "/".join(url.split("/", 3)[:3])
