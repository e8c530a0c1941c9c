"""The one place that touches ``requests``: one blocking exchange, ending in an answer or an AttemptError.

A session lives as long as the run: a new one per request would cost milliseconds of CPU each and a new connection.
Proxies and netrc of the environment are not asked for endpoints (``trust_env`` costs per request, and a
generation server is named, not guessed: its proxy stands in the config); for images the environment's proxies are
used.

Four clocks bound an exchange: ``connect_s`` to open the connection, ``first_byte_s`` from the request sent to the end
of the answer's headers, ``stall_s`` without a byte of the body, ``total_s`` for all of it. The sockets' own
time-outs keep the first three against a server that is silent; a deadline keeps the others against one that drips.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from typing import Any

import requests
import urllib3

from runner.client.answer import RETRY_AFTER_MAX_S, Answer
from runner.client.connections import origin
from runner.client.exchange import Exchange, UnderWay
from runner.client.posting import host_of, post
from runner.client.session import session_of
from runner.client.translation import translated
from runner.client.way import PROXY_REFUSES, query_of, refused_by_proxy, way_to
from runner.client.web import IMAGE_MAX_BYTES, WebClient, fetch_list
from runner.errors import ResultError
from runner.records import Endpoint, Request
from runner.redact import public_url
from runner.settings import Timeouts

__all__ = [
    "IMAGE_MAX_BYTES",
    "RETRY_AFTER_MAX_S",
    "Answer",
    "Client",
    "WebClient",
    "fetch_list",
    "host_of",
    "origin",
    "post",
]

_BOUNDARY = secrets.token_hex(16)
_SERIAL = itertools.count()
_BLANKS_KEPT = 16


class Client:
    """The long-lived session of one endpoint; its hands share it."""

    def __init__(
        self,
        endpoint: Endpoint,
        timeouts: Timeouts,
        *,
        connections: int,
        abandoned: threading.Event | None = None,
    ) -> None:
        """Once ``abandoned`` is set nothing is sent any more."""
        self._url = endpoint.url
        self._shown = public_url(endpoint.url)
        self._timeouts = timeouts
        self._under_way = UnderWay(abandoned)
        self._asking = UnderWay()
        self._session = session_of(connections, endpoint.headers, origins=1, query=query_of(endpoint))
        self._session.trust_env = False
        self._blanks: dict[tuple[str, str], requests.PreparedRequest] = {}
        self._way = way_to(endpoint)
        self._proxy = public_url(endpoint.proxy) if endpoint.proxy else None
        if endpoint.verify is False:  # the log says so once
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def prepare(self, request: Request) -> requests.PreparedRequest:
        """Build the request's bytes, so that nothing is left to do once the endpoint is free.

        Raises ResultError if the server sends us to another one for it: it would get the endpoint's credentials.
        """
        blank = self._blank(request.method, request.path)
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = request.method, blank.url, request.content
        prepared.headers = blank.headers.copy()
        content_type = request.content_type
        if request.fields is not None:
            parts: list[tuple[str, Any]] = [*request.fields.items(), *request.files.items()]
            prepared.body, content_type = urllib3.encode_multipart_formdata(parts, boundary=_boundary())
        if content_type:
            prepared.headers["Content-Type"] = content_type
        prepared.headers.update(request.headers)
        if prepared.body is not None or request.method not in ("GET", "HEAD"):
            prepared.headers["Content-Length"] = str(len(prepared.body or b""))
        return prepared

    def _blank(self, method: str, path: str) -> requests.PreparedRequest:
        """Return a request without a body; those that are asked for again and again are kept."""
        blank = self._blanks.get((method, path))
        if blank is None:
            url = path if path.startswith(("http://", "https://")) else self._url + path
            if origin(url) != origin(self._url):
                raise ResultError(f"{self._shown} sends us to another server, {public_url(url)}")
            blank = self._session.prepare_request(requests.Request(method, url))
            if len(self._blanks) < _BLANKS_KEPT:
                self._blanks[method, path] = blank
        return blank

    def send(
        self, prepared: requests.PreparedRequest, *, timeout_s: float | None = None, total_s: float | None = None
    ) -> Answer:
        """Send and block until the answer's headers are there; ``timeout_s`` bounds all of it, for a small question.

        ``total_s`` stands in for the clock of that name.

        Raises TransportError if none come in time, BusyError if an old connection was closed under the request.
        Redirects are answers like any other: a generation is not sent on to where nobody asked for it.
        """
        clocks = self._timeouts
        if timeout_s is not None:
            late = f"no answer within {timeout_s:g} s"
            exchange = self._under_way.begin(timeout_s, late)
            exchange.awaits(timeout_s, late)
            return self._answer(prepared, exchange, min(timeout_s, clocks.connect_s))
        named = f"total_s ({clocks.total_s:g} s)" if total_s is None else f"{total_s:.0f} s"
        exchange = self._under_way.begin(
            clocks.total_s if total_s is None else total_s, f"no whole answer within {named}"
        )
        exchange.awaits(clocks.first_byte_s, f"no answer within first_byte_s ({clocks.first_byte_s:g} s)")
        return self._answer(prepared, exchange, clocks.connect_s)

    def get(self, path: str, *, timeout_s: float) -> tuple[int, bytes]:
        """Return status and the first bytes of a small page such as ``/health``. Raises TransportError, BusyError."""
        prepared = self._session.prepare_request(requests.Request("GET", self._url + path))
        exchange = self._asking.begin(timeout_s, f"no answer within {timeout_s:g} s")
        exchange.awaits(timeout_s, f"no answer within {timeout_s:g} s")
        with self._answer(prepared, exchange, timeout_s) as answer:
            return answer.status, answer.head()

    def _answer(self, prepared: requests.PreparedRequest, exchange: Exchange, connect_s: float) -> Answer:
        exchange.proxy = self._proxy
        with translated(self._shown, exchange), exchange.here():
            # Not Session.send: it would read the body of a redirect, however long, to follow it.
            response = self._session.get_adapter(self._url).send(
                prepared, stream=True, timeout=(connect_s, exchange.patience_s), **self._way
            )
            exchange.arrived(response)
            if self._proxy and response.status_code == PROXY_REFUSES:
                raise refused_by_proxy(self._shown, exchange, response)
        return Answer(response, self._shown, exchange, self._timeouts.stall_s)

    def hurry(self) -> None:
        """Cut the questions under way, from another thread, and ask none any more; generations go on."""
        self._asking.abandon()

    def abandon(self) -> None:
        """Cut everything under way, from another thread, and begin nothing any more."""
        self._asking.abandon()
        self._under_way.abandon()

    def close(self) -> None:
        self._session.close()


def _boundary() -> str:
    """Return what separates the parts of a form; nobody who made an image can have known it."""
    return f"{_BOUNDARY}{next(_SERIAL):x}"
