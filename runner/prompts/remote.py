"""A list of prompts at a URL: what its URL may be, what may be shown of it, its format, and how long it may be."""

from __future__ import annotations

import gzip
import io
import re
from urllib.parse import urlsplit

from runner.errors import UsageError
from runner.records import Page
from runner.redact import public_url

_TYPES = {
    "text/csv": "csv",
    "application/csv": "csv",
    "text/tab-separated-values": "tsv",
    "application/json": "json",
    "text/json": "json",
    "application/jsonl": "jsonl",
    "application/jsonlines": "jsonl",
    "application/x-jsonlines": "jsonl",
    "application/x-ndjson": "jsonl",
    "application/ndjson": "jsonl",
}

_URL = re.compile(r"https?://[^\s'\"<>]+", re.IGNORECASE)
_MOST_BYTES = 1_000_000_000
"""More than this a list from a URL may not be, unpacked."""


def is_url(text: str) -> bool:
    """Tell whether a URL names a host, a port that there may be, and nothing odd."""
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0 and text.isprintable() and " " not in parts.netloc
    except ValueError:
        return False


def bare(url: str) -> str:
    """Return the URL of a list as it may be shown: nobody knows what in its query is a secret."""
    return public_url(url).partition("?")[0]


def said_of(error: Exception) -> str:
    """Return what an error says, with no more of the URLs in it than may be shown."""
    return _URL.sub(lambda found: bare(found.group()), str(error))


def type_of(page: Page, named: str) -> str | None:
    """Return the format that a Content-Type tells, None if it tells none. Raises UsageError if that is no list."""
    said = page.content_type.partition(";")[0].strip().lower()
    if said in ("text/html", "application/xhtml+xml") or said.startswith(("image/", "video/", "audio/")):
        raise UsageError(f"prompts: {named}: expected a list of prompts, got {said}; nothing was sent")
    return _TYPES.get(said)


class Capped(io.BufferedIOBase):
    """A file that ends with a UsageError once too much was read from it: a few bytes may unpack to anything."""

    def __init__(self, file: gzip.GzipFile, named: str) -> None:
        self._file = file
        self._named = named
        self._left = _MOST_BYTES

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        return self._counted(self._file.read(min(-1 if size is None else size, self._left + 1)))

    def read1(self, size: int = -1, /) -> bytes:
        return self._counted(self._file.read1(size))

    def _counted(self, content: bytes) -> bytes:
        self._left -= len(content)
        if self._left < 0:
            raise UsageError(f"prompts: {self._named}: expected at most {_MOST_BYTES} bytes, unpacked")
        return content
