"""The one place that touches ``requests``: one blocking exchange, ending in an answer or an AttemptError.

A session lives as long as the run: a new one per request would cost milliseconds of CPU each and a new connection.
Proxies and netrc of the environment are not asked for endpoints (``trust_env`` costs per request, and a
generation server is named, not guessed); for images the environment's proxies are used.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from runner.errors import AttemptError, ImageError, ResultError, TransportError
from runner.records import Endpoint, Image, Reply, Request
from runner.redact import public_url
from runner.settings import Timeouts
from runner.version import __version__

CHUNK_BYTES = 256 * 1024
IMAGE_MAX_BYTES = 64 * 1024 * 1024
_ERROR_BYTES = 4096
_AGENT = f"multiport-runner/{__version__}"
_KEEP_ALIVE = [
    *urllib3.connection.HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
]
"""Keep-alive probes: a generation is minutes without a byte, and a NAT on the way forgets silent connections."""


class Writable(Protocol):
    """Where a body is streamed to."""

    def write(self, chunk: bytes, /) -> object: ...


class Answer:
    """An answer whose headers have arrived. Its body is still on the way; use it as a context manager.

    ``url`` is the server's, as errors may show it.
    """

    def __init__(self, response: requests.Response, url: str) -> None:
        self._response = response
        self.url = url
        self.status = response.status_code

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def receive(self, file: Writable, max_bytes: int) -> Reply:
        """Stream the body into ``file``, which holds at most ``max_bytes`` afterwards.

        Raises TransportError if it is cut short or stalls, ResultError if it is longer than ``max_bytes``.
        """
        digest = hashlib.sha256()
        size_bytes = 0
        with _translated(self.url, self.status):
            while chunk := self._response.raw.read(CHUNK_BYTES, decode_content=True):
                size_bytes += len(chunk)
                if size_bytes > max_bytes:
                    raise ResultError(f"the result is longer than output.max_bytes ({max_bytes})", status=self.status)
                digest.update(chunk)
                file.write(chunk)
        return Reply(size_bytes, digest.hexdigest())

    def head(self) -> bytes:
        """Return the first bytes of an error answer; b"" if they can't be had."""
        try:
            return bytes(self._response.raw.read(_ERROR_BYTES, decode_content=True))
        except (urllib3.exceptions.HTTPError, OSError):
            return b""


class Client:
    """The long-lived session of one endpoint; its hands share it."""

    def __init__(self, endpoint: Endpoint, timeouts: Timeouts, *, connections: int) -> None:
        self._url = endpoint.url
        self._shown = public_url(endpoint.url)
        self._timeout = (timeouts.connect_s, timeouts.first_byte_s)
        self._session = _session(connections, endpoint.headers)
        self._session.trust_env = False

    def prepare(self, request: Request) -> requests.PreparedRequest:
        """Build the request's bytes, so that nothing is left to do once the endpoint is free."""
        return self._session.prepare_request(
            requests.Request(
                request.method, self._url + request.path, files=dict(request.files), data=dict(request.fields)
            )
        )

    def send(self, prepared: requests.PreparedRequest) -> Answer:
        """Send and block until the answer's headers are there. Raises TransportError if none come.

        Redirects are answers like any other: a generation is not sent on to where nobody asked for it.
        """
        with _translated(self._shown):
            response = self._session.send(prepared, stream=True, timeout=self._timeout, allow_redirects=False)
        return Answer(response, self._shown)

    def get(self, path: str, *, timeout_s: float) -> tuple[int, bytes]:
        """Return status and the first bytes of a small page such as ``/health``. Raises TransportError."""
        with _translated(self._shown):
            response = self._session.get(self._url + path, stream=True, timeout=timeout_s, allow_redirects=False)
        with Answer(response, self._shown) as answer:
            return answer.status, answer.head()

    def close(self) -> None:
        self._session.close()


class ImageClient:
    """Downloads prompt images, over one session for all hosts."""

    def __init__(self, timeouts: Timeouts, *, connections: int) -> None:
        self._connect_s = min(timeouts.connect_s, timeouts.image_s)
        self._image_s = timeouts.image_s
        self._session = _session(connections, {})
        self._session.auth = _no_netrc
        self._session.max_redirects = 10

    def fetch(self, url: str) -> Image:
        """Download one image, following redirects. Raises ImageError; whether it may help to try again is in it."""
        shown = public_url(url)
        try:
            content = self._download(url, shown)
        except TransportError as error:
            raise ImageError(f"image: {error}", again=True) from error
        if not content:
            raise ImageError(f"image: {shown} is empty", again=True)
        name = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2]) or "image"
        return Image(name, content, hashlib.sha256(content).hexdigest())

    def _download(self, url: str, shown: str) -> bytes:
        deadline = time.monotonic() + self._image_s
        content = bytearray()
        with _translated(shown):
            response = self._session.get(url, stream=True, timeout=(self._connect_s, self._image_s))
        with Answer(response, shown) as answer, _translated(shown):
            if answer.status != 200:
                again = answer.status in (408, 425, 429) or answer.status >= 500
                raise ImageError(f"image: {shown} answers {answer.status}", again=again, status=answer.status)
            while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):
                content += chunk
                if len(content) > IMAGE_MAX_BYTES:
                    raise ImageError(f"image: {shown} is longer than {IMAGE_MAX_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise ImageError(f"image: {shown} took longer than image_s ({self._image_s:g} s)", again=True)
        return bytes(content)

    def close(self) -> None:
        self._session.close()


def _session(connections: int, headers: Mapping[str, str]) -> requests.Session:
    session = requests.Session()
    adapter = HTTPAdapter(pool_maxsize=connections)
    adapter.init_poolmanager(10, connections, block=False, socket_options=_KEEP_ALIVE)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update({"User-Agent": _AGENT, "Accept-Encoding": "identity"})
    session.headers.update(headers)
    return session


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Stand as the session's auth, so that credentials of a netrc file are never sent to an image host."""
    return request


@contextmanager
def _translated(url: str, status: int | None = None) -> Iterator[None]:
    """Turn what ``requests`` and ``urllib3`` raise into a TransportError."""
    try:
        yield
    except AttemptError:
        raise
    except (requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError) as error:
        raise TransportError(f"{url}: no connection within connect_s", status=status) from error
    except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:
        raise TransportError(f"{url}: no byte within the time-out", status=status) from error
    except requests.exceptions.RequestException as error:
        raise TransportError(f"{url}: {_cause(error)}", status=status) from error
    except urllib3.exceptions.HTTPError as error:
        raise TransportError(f"{url}: the body was cut: {_cause(error)}", status=status) from error
    except ValueError as error:  # what the libraries make of a malformed header, such as a Location
        raise TransportError(f"{url}: an answer that is no HTTP: {error}", status=status) from error


def _cause(error: BaseException) -> str:
    """Return the innermost reason in the words of the operating system, where there is one."""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        seen.append(found)
        nested = [arg for arg in found.args if isinstance(arg, BaseException)]
        found = getattr(found, "reason", None) if not nested else nested[0]
        if not isinstance(found, BaseException):
            found = seen[-1].__cause__ or seen[-1].__context__
    for one in reversed(seen):
        if isinstance(one, OSError) and one.strerror and not isinstance(one, requests.RequestException):
            return one.strerror
    return str(seen[-1]) or type(seen[-1]).__name__
