"""An answer whose headers have arrived, and how its body is received."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from math import inf
from typing import Protocol

import requests
import urllib3

from runner.client.exchange import Exchange
from runner.client.translation import translated
from runner.errors import ResultError
from runner.records import Reply

CHUNK_BYTES = 256 * 1024
ERROR_BYTES = 4096
RETRY_AFTER_MAX_S = 60.0
"""A longer Retry-After is cut to this: hours were seen, and an endpoint that is free again should not stand idle."""

_SHORT_BYTES = io.DEFAULT_BUFFER_SIZE
_ERROR_S = 5.0


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
            return bytes(self._response.raw.read(ERROR_BYTES, decode_content=True))
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            return b""

    def lines(self, silence_s: float, max_bytes: int) -> Iterator[bytes]:
        """Yield the body line by line as it comes; a silence of ``silence_s`` ends it. Raises as ``receive`` does."""
        size_bytes, left = 0, [b""]
        with translated(self.url, self._exchange, self.status):
            self._exchange.awaits(silence_s, f"no byte within {silence_s:g} s")
            while chunk := self._response.raw.read1(CHUNK_BYTES, decode_content=True):
                size_bytes += len(chunk)
                if size_bytes > max_bytes:
                    raise ResultError(f"the answer is longer than {max_bytes} bytes", status=self.status)
                left.append(chunk)
                if b"\n" in chunk:
                    *lines, rest = b"".join(left).split(b"\n")
                    left = [rest]
                    yield from lines
            self._exchange.check()
            self._exchange.end()
        if rest := b"".join(left):
            yield rest

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
