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

import hashlib
import io
import itertools
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from math import inf
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import unquote, urljoin, urlsplit

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from runner.client.connections import Adapter, origin
from runner.client.exchange import Exchange, UnderWay
from runner.client.translation import translated
from runner.client.way import PROXY_REFUSES, query_of, refused_by_proxy, way_to
from runner.errors import BusyError, ImageError, ResultError, TransportError
from runner.records import Endpoint, Image, Page, Reply, Request
from runner.redact import public_url
from runner.settings import Timeouts
from runner.version import __version__

CHUNK_BYTES = 256 * 1024
IMAGE_MAX_BYTES = 64 * 1024 * 1024
LIST_MAX_BYTES = 1_000_000_000
RETRY_AFTER_MAX_S = 60.0
"""A longer Retry-After is cut to this: hours were seen, and an endpoint that is free again should not stand idle."""

_NOWHERE = (ValueError, requests.exceptions.TooManyRedirects)
"""What a redirect to nowhere raises (InvalidURL and its like are ValueErrors); it will be the same the next time."""

_REDIRECTS_MAX = 10
_SHORT_BYTES = io.DEFAULT_BUFFER_SIZE
_IMAGE_ORIGINS = 128
_BOUNDARY = secrets.token_hex(16)
_SERIAL = itertools.count()
_BLANKS_KEPT = 16
_ERROR_BYTES = 4096
_ERROR_S = 5.0
_AGENT = f"multiport-runner/{__version__}"


class Writable(Protocol):
    """Where a body is streamed to."""

    def write(self, chunk: bytes, /) -> object: ...


class Answer:
    """An answer whose headers have arrived. Its body is still on the way; use it as a context manager.

    ``url`` is the server's, as errors may show it.
    """

    def __init__(self, response: requests.Response, url: str, exchange: Exchange, stall_s: float) -> None:
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
        with translated(self.url, self._exchange, self.status):
            self._await_body()
            while chunk := self._response.raw.read(CHUNK_BYTES, decode_content=True):
                size_bytes += len(chunk)
                if size_bytes > max_bytes:
                    raise ResultError(f"the result is longer than output.max_bytes ({max_bytes})", status=self.status)
                digest.update(chunk)
                file.write(chunk)
            self._exchange.check()  # a body without a length ends just like that when the connection is cut
            self._exchange.end()
        return Reply(size_bytes, digest.hexdigest())

    def _await_body(self) -> None:
        """Let each byte of the body take ``stall_s``; a short body that came with its headers needs no clock."""
        late = f"no byte within stall_s ({self._stall_s:g} s)"
        buffer = getattr(getattr(self._response.raw, "_fp", None), "fp", None)
        length = self._response.headers.get("Content-Length", "")
        if isinstance(buffer, io.BufferedReader) and length.isdigit() and int(length[:9]) <= _SHORT_BYTES:
            if int(length) == 0:
                return
            self._exchange.watch(self._stall_s, late)
            if len(buffer.peek()) >= int(length):  # peek reads once at the most
                return
            self._exchange.watch(inf, "")
        self._exchange.awaits(self._stall_s, late)

    def head(self) -> bytes:
        """Return the first bytes of an error answer, those that arrive soon; b"" if there are none."""
        self._exchange.watch(_ERROR_S, "")
        try:
            return bytes(self._response.raw.read(_ERROR_BYTES, decode_content=True))
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            return b""

    def lines(self, silence_s: float, max_bytes: int) -> Iterator[bytes]:
        """Yield the body line by line as it comes; a silence of ``silence_s`` ends it. Raises as ``receive`` does."""
        size_bytes, left = 0, b""
        with translated(self.url, self._exchange, self.status):
            self._exchange.awaits(silence_s, f"no byte within {silence_s:g} s")
            while chunk := self._response.raw.read1(CHUNK_BYTES, decode_content=True):
                size_bytes += len(chunk)
                if size_bytes > max_bytes:
                    raise ResultError(f"the answer is longer than {max_bytes} bytes", status=self.status)
                *lines, left = (left + chunk).split(b"\n")
                yield from lines
            self._exchange.check()
            self._exchange.end()
        if left:
            yield left

    @property
    def location(self) -> str | None:
        """Where a redirect leads to, as the server says it; None if this is none."""
        moved = self.status in (301, 302, 303, 307, 308)
        return self._response.headers.get("Location") if moved else None

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
        self._under_way = UnderWay()
        self._asking = UnderWay()
        self._session = _session(connections, endpoint.headers, origins=1, query=query_of(endpoint))
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

    def send(self, prepared: requests.PreparedRequest, *, timeout_s: float | None = None) -> Answer:
        """Send and block until the answer's headers are there; ``timeout_s`` bounds all of it, for a small question.

        Raises TransportError if none come in time, BusyError if an old connection was closed under the request.
        Redirects are answers like any other: a generation is not sent on to where nobody asked for it.
        """
        clocks = self._timeouts
        if timeout_s is not None:
            late = f"no answer within {timeout_s:g} s"
            exchange = self._under_way.begin(timeout_s, late)
            exchange.awaits(timeout_s, late)
            return self._answer(prepared, exchange, min(timeout_s, clocks.connect_s))
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


class ImageClient:
    """Downloads prompt images, over one session for all hosts."""

    def __init__(self, timeouts: Timeouts, *, connections: int) -> None:
        self._connect_s = min(timeouts.connect_s, timeouts.image_s)
        self._image_s = timeouts.image_s
        self._under_way = UnderWay()
        self._session = _session(connections, {}, origins=_IMAGE_ORIGINS)
        self._headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity", "Accept": "*/*"}
        self._ways: dict[str, dict[str, Any]] = {}

    def fetch(self, url: str) -> Image:
        """Download one image, following redirects. Raises ImageError; whether it may help to try again is in it."""
        shown = public_url(url)
        try:
            try:
                content = self._download(url, shown)
            except BusyError:  # its connection was an old one
                content = self._download(url, shown)
        except (TransportError, BusyError) as error:
            raise ImageError(f"image: {error}", again=not isinstance(error.__cause__, _NOWHERE)) from error
        if not content:
            raise ImageError(f"image: {shown} is empty", again=True)
        name = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2]) or "image"
        return Image(name, content, hashlib.sha256(content).hexdigest())

    def result(self, url: str, clocks: Timeouts) -> Answer:
        """Ask for a result at a URL that a server named, following redirects. Raises TransportError, BusyError."""
        shown = public_url(url)
        exchange = self._under_way.begin(clocks.total_s, f"no whole answer within total_s ({clocks.total_s:g} s)")
        exchange.awaits(clocks.first_byte_s, f"no answer within first_byte_s ({clocks.first_byte_s:g} s)")
        with translated(shown, exchange), exchange.here():
            response = self._open(url)
            exchange.arrived(response)
        return Answer(response, shown, exchange, clocks.stall_s)

    def _download(self, url: str, shown: str) -> bytes:
        content = bytearray()
        late = f"took longer than image_s ({self._image_s:g} s)"
        exchange = self._under_way.begin(self._image_s, late)
        exchange.awaits(self._image_s, late)
        with translated(shown, exchange), exchange.here():
            response = self._open(url)
            exchange.arrived(response)
        status = response.status_code
        with Answer(response, shown, exchange, self._image_s) as answer, translated(shown, exchange, status):
            if answer.status != 200:
                again = answer.status in (408, 425, 429) or answer.status >= 500
                raise ImageError(f"image: {shown} answers {answer.status}", again=again, status=answer.status)
            while chunk := response.raw.read(CHUNK_BYTES, decode_content=True):
                content += chunk
                if len(content) > IMAGE_MAX_BYTES:
                    raise ImageError(f"image: {shown} is longer than {IMAGE_MAX_BYTES} bytes")
            exchange.check()
            exchange.end()
        return bytes(content)

    def page(self, url: str, file: BinaryIO, max_bytes: int, *, stall_s: float, total_s: float) -> Page:
        """Download a text into ``file``, following redirects. Raises AttemptError that shows nothing of a query."""
        shown = public_url(url).partition("?")[0]
        exchange = self._under_way.begin(total_s, f"took longer than total_s ({total_s:g} s)")
        exchange.awaits(self._image_s, f"no answer within image_s ({self._image_s:g} s)")
        with translated(shown, exchange), exchange.here():
            response = self._open(url)
            exchange.arrived(response)
        with Answer(response, shown, exchange, stall_s) as answer:
            if answer.status != 200:
                raise TransportError(f"{shown} answers {answer.status}", status=answer.status)
            try:
                answer.receive(file, max_bytes)
            except ResultError as error:
                raise TransportError(f"{shown} is longer than {max_bytes} bytes", status=200) from error
        file.seek(0)
        return Page(file, response.url, response.headers.get("Content-Type", ""))

    def _open(self, url: str) -> requests.Response:
        """Send and follow redirects, but never read their bodies, nor take credentials along."""
        session = self._session
        for _ in range(_REDIRECTS_MAX + 1):
            prepared = requests.PreparedRequest()
            prepared.prepare_method("GET")
            prepared.prepare_url(url, None)
            prepared.headers = CaseInsensitiveDict(self._headers)
            url = prepared.url or url
            if "@" in url and any(auth := requests.utils.get_auth_from_url(url)):
                requests.auth.HTTPBasicAuth(*auth)(prepared)
            response = session.get_adapter(url).send(
                prepared, stream=True, timeout=(self._connect_s, self._image_s), **self._way(url)
            )
            target = session.get_redirect_target(response)
            if not target:
                return response
            _pass_over(response)
            url = urljoin(url, target)
        raise requests.exceptions.TooManyRedirects(f"more than {_REDIRECTS_MAX} redirects")

    def _way(self, url: str) -> dict[str, Any]:
        """Return what the environment says of proxies and certificates for a URL; it is asked once an origin."""
        key = origin(url)
        if key not in self._ways:
            if len(self._ways) >= _IMAGE_ORIGINS:
                self._ways.clear()
            said = self._session.merge_environment_settings(url, {}, True, True, None)
            self._ways[key] = {"proxies": said["proxies"], "verify": said["verify"] or True}
        return self._ways[key]

    def abandon(self) -> None:
        """Cut the downloads under way, from another thread, and begin none any more."""
        self._under_way.abandon()

    def close(self) -> None:
        self._session.close()


def fetch_list(url: str, timeouts: Timeouts) -> Page:
    """Download a list of prompts to where it is gone once closed. Raises AttemptError."""
    file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - it is the caller's to close
    client = ImageClient(timeouts, connections=1)
    try:
        return client.page(url, file, LIST_MAX_BYTES, stall_s=timeouts.stall_s, total_s=timeouts.total_s)
    except BaseException:
        file.close()
        raise
    finally:
        client.close()


def _pass_over(response: requests.Response) -> None:
    """Read the rest of an answer if it is short, so that its connection can be used again; else close it."""
    length = response.headers.get("Content-Length", "")
    with response:
        if length.isascii() and length.isdigit() and int(length[:9]) <= _ERROR_BYTES:
            response.raw.read(_ERROR_BYTES)


def _session(connections: int, headers: Mapping[str, str], *, origins: int, query: str = "") -> requests.Session:
    session = requests.Session()
    adapter = Adapter(connections=connections, origins=origins, query=query)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update({"User-Agent": _AGENT, "Accept-Encoding": "identity"})
    session.headers.update(headers)
    return session


def _boundary() -> str:
    """Return what separates the parts of a form; nobody who made an image can have known it."""
    return f"{_BOUNDARY}{next(_SERIAL):x}"
