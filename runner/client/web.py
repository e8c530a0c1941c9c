"""Downloads from anywhere: prompt images, lists, results that an endpoint links to. One session for all hosts.

No credentials of an endpoint go there. The environment's proxies are used.
"""

from __future__ import annotations

import hashlib
import tempfile
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urljoin, urlsplit

import requests
from requests.structures import CaseInsensitiveDict

from runner.client.answer import CHUNK_BYTES, ERROR_BYTES, Answer
from runner.client.connections import origin
from runner.client.exchange import UnderWay
from runner.client.session import AGENT, session_of
from runner.client.translation import translated
from runner.client.way import way_of_environment
from runner.errors import BusyError, ImageError, ResultError, TransportError
from runner.records import Image, Page
from runner.redact import public_url
from runner.settings import Timeouts

IMAGE_MAX_BYTES = 64 * 1024 * 1024
LIST_MAX_BYTES = 1_000_000_000

_NOWHERE = (ValueError, requests.exceptions.TooManyRedirects)
"""What a redirect to nowhere raises (InvalidURL and its like are ValueErrors); it will be the same the next time."""

_REDIRECTS_MAX = 10
_ORIGINS = 128


class WebClient:
    """Downloads from anywhere, over one session for all hosts."""

    def __init__(self, timeouts: Timeouts, *, connections: int) -> None:
        self._connect_s = min(timeouts.connect_s, timeouts.image_s)
        self._image_s = timeouts.image_s
        self._under_way = UnderWay()
        self._session = session_of(connections, {}, origins=_ORIGINS)
        self._headers = {"User-Agent": AGENT, "Accept-Encoding": "identity", "Accept": "*/*"}
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
            if len(self._ways) >= _ORIGINS:
                self._ways.clear()
            self._ways[key] = way_of_environment(self._session, url)
        return self._ways[key]

    def abandon(self) -> None:
        """Cut the downloads under way, from another thread, and begin none any more."""
        self._under_way.abandon()

    def close(self) -> None:
        self._session.close()


def fetch_list(url: str, timeouts: Timeouts) -> Page:
    """Download a list of prompts to where it is gone once closed. Raises AttemptError."""
    file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - it is the caller's to close
    client = WebClient(timeouts, connections=1)
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
        if length.isascii() and length.isdigit() and int(length[:9]) <= ERROR_BYTES:
            response.raw.read(ERROR_BYTES)
