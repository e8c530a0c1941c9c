"""The one place that touches ``requests``: one blocking exchange, ending in an answer or an AttemptError.

A session lives as long as the run: a new one per request would cost milliseconds of CPU each and a new connection.
Proxies and netrc of the environment are not asked for endpoints (``trust_env`` costs per request, and a
generation server is named, not guessed); for images the environment's proxies are used.

Four clocks bound an exchange: ``connect_s`` to open the connection, ``first_byte_s`` from the request sent to the end
of the answer's headers, ``stall_s`` without a byte of the body, ``total_s`` for all of it. The sockets' own
time-outs keep the first three against a server that is silent; a deadline keeps the others against one that drips.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from math import inf
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from runner.deadline import DEADLINES, RESOLUTION_S
from runner.errors import AttemptError, BusyError, ImageError, ResultError, TransportError
from runner.records import Endpoint, Image, Reply, Request
from runner.redact import public_url
from runner.settings import Timeouts
from runner.version import __version__

CHUNK_BYTES = 256 * 1024
IMAGE_MAX_BYTES = 64 * 1024 * 1024
RETRY_AFTER_MAX_S = 60.0
"""A longer Retry-After is cut to this: hours were seen, and an endpoint that is free again should not stand idle."""

_ERROR_BYTES = 4096
_ERROR_S = 5.0
_STALE_S = 1.0
"""An old connection that closes so soon after a request was sent on it had been closed before."""

_AGENT = f"multiport-runner/{__version__}"
_KEEP_ALIVE = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
"""Keep-alive probes: a generation is minutes without a byte, and a NAT on the way forgets silent connections."""


class Writable(Protocol):
    """Where a body is streamed to."""

    def write(self, chunk: bytes, /) -> object: ...


class Answer:
    """An answer whose headers have arrived. Its body is still on the way; use it as a context manager.

    ``url`` is the server's, as errors may show it.
    """

    def __init__(self, response: requests.Response, url: str, exchange: _Exchange, stall_s: float) -> None:
        self._response = response
        self._exchange = exchange
        self._stall_s = stall_s
        self.url = url
        self.status = response.status_code

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self._exchange.end()
        self._response.close()

    def receive(self, file: Writable, max_bytes: int) -> Reply:
        """Stream the body into ``file``, which holds at most ``max_bytes`` afterwards.

        Raises TransportError if it is cut short, stalls or takes too long, ResultError if it is longer than
        ``max_bytes``.
        """
        digest = hashlib.sha256()
        size_bytes = 0
        with _translated(self.url, self._exchange, self.status):
            self._exchange.awaits(self._stall_s, f"no byte within stall_s ({self._stall_s:g} s)")
            while chunk := self._response.raw.read(CHUNK_BYTES, decode_content=True):
                size_bytes += len(chunk)
                if size_bytes > max_bytes:
                    raise ResultError(f"the result is longer than output.max_bytes ({max_bytes})", status=self.status)
                digest.update(chunk)
                file.write(chunk)
            self._exchange.check()  # a body without a length ends just like that when the connection is cut
        return Reply(size_bytes, digest.hexdigest())

    def head(self) -> bytes:
        """Return the first bytes of an error answer, those that arrive soon; b"" if there are none."""
        self._exchange.watch(_ERROR_S, "")
        try:
            return bytes(self._response.raw.read(_ERROR_BYTES, decode_content=True))
        except (urllib3.exceptions.HTTPError, OSError):
            return b""

    @property
    def retry_after_s(self) -> float | None:
        """What the Retry-After header says (seconds or a date, RFC 9110), capped; None if there is none."""
        said = self._response.headers.get("Retry-After", "").strip()
        if said.isascii() and said.isdigit():
            return min(float(said[:9]), RETRY_AFTER_MAX_S)
        try:
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
        return min(max(0.0, seconds), RETRY_AFTER_MAX_S)


class Client:
    """The long-lived session of one endpoint; its hands share it."""

    def __init__(self, endpoint: Endpoint, timeouts: Timeouts, *, connections: int) -> None:
        self._url = endpoint.url
        self._shown = public_url(endpoint.url)
        self._timeouts = timeouts
        self._under_way = _UnderWay()
        self._asking = _UnderWay()
        self._session = _session(connections, endpoint.headers)
        self._session.trust_env = False
        self._session.verify = endpoint.verify
        if endpoint.verify is False:  # the log says so once
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def prepare(self, request: Request) -> requests.PreparedRequest:
        """Build the request's bytes, so that nothing is left to do once the endpoint is free."""
        return self._session.prepare_request(
            requests.Request(
                request.method, self._url + request.path, files=dict(request.files), data=dict(request.fields)
            )
        )

    def send(self, prepared: requests.PreparedRequest) -> Answer:
        """Send and block until the answer's headers are there.

        Raises TransportError if none come in time, BusyError if an old connection was closed under the request.
        Redirects are answers like any other: a generation is not sent on to where nobody asked for it.
        """
        clocks = self._timeouts
        exchange = self._under_way.begin(clocks.total_s, f"no whole answer within total_s ({clocks.total_s:g} s)")
        exchange.awaits(clocks.first_byte_s, f"no answer within first_byte_s ({clocks.first_byte_s:g} s)")
        return self._answer(prepared, exchange, clocks.connect_s)

    def get(self, path: str, *, timeout_s: float) -> tuple[int, bytes]:
        """Return status and the first bytes of a small page such as ``/health``. Raises TransportError, BusyError."""
        prepared = self._session.prepare_request(requests.Request("GET", self._url + path))
        exchange = self._asking.begin(timeout_s, f"no answer within {timeout_s:g} s")
        exchange.awaits(timeout_s, f"no answer within {timeout_s:g} s")
        with self._answer(prepared, exchange, timeout_s) as answer:
            return answer.status, answer.head()

    def _answer(self, prepared: requests.PreparedRequest, exchange: _Exchange, connect_s: float) -> Answer:
        with _translated(self._shown, exchange), exchange.here():
            response = self._session.send(
                prepared,
                stream=True,
                timeout=(connect_s, exchange.patience_s),
                allow_redirects=False,
                verify=self._session.verify,
            )
            exchange.arrived(response)
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


class ImageClient:
    """Downloads prompt images, over one session for all hosts."""

    def __init__(self, timeouts: Timeouts, *, connections: int) -> None:
        self._connect_s = min(timeouts.connect_s, timeouts.image_s)
        self._image_s = timeouts.image_s
        self._under_way = _UnderWay()
        self._session = _session(connections, {})
        self._session.auth = _no_netrc
        self._session.max_redirects = 10

    def fetch(self, url: str) -> Image:
        """Download one image, following redirects. Raises ImageError; whether it may help to try again is in it."""
        shown = public_url(url)
        try:
            content = self._download(url, shown)
        except (TransportError, BusyError) as error:
            raise ImageError(f"image: {error}", again=True) from error
        if not content:
            raise ImageError(f"image: {shown} is empty", again=True)
        name = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2]) or "image"
        return Image(name, content, hashlib.sha256(content).hexdigest())

    def _download(self, url: str, shown: str) -> bytes:
        content = bytearray()
        late = f"took longer than image_s ({self._image_s:g} s)"
        exchange = self._under_way.begin(self._image_s, late)
        exchange.awaits(self._image_s, late)
        with _translated(shown, exchange), exchange.here():
            response = self._session.get(url, stream=True, timeout=(self._connect_s, self._image_s))
            exchange.arrived(response)
        with Answer(response, shown, exchange, self._image_s) as answer, _translated(shown, exchange):
            if answer.status != 200:
                again = answer.status in (408, 425, 429) or answer.status >= 500
                raise ImageError(f"image: {shown} answers {answer.status}", again=again, status=answer.status)
            while chunk := response.raw.read(CHUNK_BYTES, decode_content=True):
                content += chunk
                if len(content) > IMAGE_MAX_BYTES:
                    raise ImageError(f"image: {shown} is longer than {IMAGE_MAX_BYTES} bytes")
            exchange.check()
        return bytes(content)

    def abandon(self) -> None:
        """Cut the downloads under way, from another thread, and begin none any more."""
        self._under_way.abandon()

    def close(self) -> None:
        self._session.close()


class _Exchange:
    """One request on its way, which another thread may cut.

    ``reached``: there was a connection, so the request may have arrived; ``reused``: an older one.
    """

    def __init__(self, under_way: _UnderWay) -> None:
        self._under_way = under_way
        self._until = inf
        self._over = ""
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
        _of_this_thread.exchange = self
        try:
            yield
        except BaseException:
            self.end()
            raise
        finally:
            _of_this_thread.exchange = None

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
        if self.socket is not None:
            with suppress(OSError):
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)  # of the plain socket, whatever lies over it

    def check(self) -> None:
        """Raise what stands for having been cut, if it was."""
        if self.cut_because is not None:
            raise ConnectionAbortedError(self.cut_because)

    def end(self) -> None:
        DEADLINES.clear(self)
        self._under_way.end(self)


class _UnderWay:
    """The exchanges of a client that have begun and not ended."""

    def __init__(self) -> None:
        self._exchanges: set[_Exchange] = set()
        self._lock = threading.Lock()
        self._abandoned = False

    def begin(self, total_s: float, why: str) -> _Exchange:
        exchange = _Exchange(self)
        exchange.begin(total_s, why)
        with self._lock:
            self._exchanges.add(exchange)
            if self._abandoned:
                exchange.cut_because = "abandoned"
        return exchange

    def end(self, exchange: _Exchange) -> None:
        with self._lock:
            self._exchanges.discard(exchange)

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            for exchange in self._exchanges:
                exchange.cut("abandoned")


_of_this_thread = threading.local()


class _Known:
    """Mixed into a connection: tells the exchange of the thread about its socket."""

    sock: Any

    def connect(self) -> None:
        exchange: _Exchange | None = getattr(_of_this_thread, "exchange", None)
        if exchange:
            exchange.check()
        super().connect()  # type: ignore[misc]
        self._tell(exchange)

    def request(self, *args: Any, **options: Any) -> None:
        exchange: _Exchange | None = getattr(_of_this_thread, "exchange", None)
        if exchange and self.sock is not None:
            exchange.reused = not exchange.reached
            self._tell(exchange)
        super().request(*args, **options)  # type: ignore[misc]
        if exchange:
            exchange.sent_at = time.monotonic()
            exchange.watch(exchange.patience_s + RESOLUTION_S, exchange.late)

    def _tell(self, exchange: _Exchange | None) -> None:
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


class _Adapter(HTTPAdapter):
    """Keeps connections alive, and lets every exchange know its socket."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, socket_options=_KEEP_ALIVE)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager


def _session(connections: int, headers: Mapping[str, str]) -> requests.Session:
    session = requests.Session()
    adapter = _Adapter(pool_maxsize=connections)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update({"User-Agent": _AGENT, "Accept-Encoding": "identity"})
    session.headers.update(headers)
    return session


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Stand as the session's auth, so that credentials of a netrc file are never sent to an image host."""
    return request


@contextmanager
def _translated(url: str, exchange: _Exchange, status: int | None = None) -> Iterator[None]:
    """Turn what ``requests`` and ``urllib3`` raise into a TransportError or BusyError."""

    def lost(what: str) -> TransportError:
        return TransportError(f"{url}: {exchange.cut_because or what}", status=status, reached=exchange.reached)

    try:
        yield
    except AttemptError:
        raise
    except (requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError) as error:
        raise lost("no connection within connect_s") from error
    except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:
        raise lost(exchange.late) from error
    except requests.exceptions.RequestException as error:
        if status is None and _was_stale(exchange, error):
            raise BusyError(f"{url}: an old connection was closed as it was used again", wait_s=0) from error
        raise lost(_cause(error)) from error
    except urllib3.exceptions.HTTPError as error:
        raise lost(f"the body was cut: {_cause(error)}") from error
    except (ConnectionError, TimeoutError) as error:  # cut by us, or by a socket that nobody wrapped
        raise lost(str(error)) from error
    except ValueError as error:  # what the libraries make of a malformed header, such as a Location
        raise lost(f"an answer that is no HTTP: {error}") from error


def _was_stale(exchange: _Exchange, error: BaseException) -> bool:
    """Tell whether the server had closed an idle connection before it saw the request."""
    return (
        exchange.reused
        and exchange.cut_because is None
        and any(isinstance(one, ConnectionError) for one in _chain(error))
        and time.monotonic() - (exchange.sent_at or time.monotonic()) < _STALE_S
    )


def _cause(error: BaseException) -> str:
    """Return the innermost reason in the words of the operating system, where there is one."""
    chain = _chain(error)
    for one in reversed(chain):
        if isinstance(one, OSError) and one.strerror and not isinstance(one, requests.RequestException):
            return one.strerror
    return str(chain[-1]) or type(chain[-1]).__name__


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and what is nested in it, outermost first."""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        seen.append(found)
        nested = [arg for arg in found.args if isinstance(arg, BaseException)]
        found = getattr(found, "reason", None) if not nested else nested[0]
        if not isinstance(found, BaseException):
            found = seen[-1].__cause__ or seen[-1].__context__
    return seen
