"""What a list says about an image, made whole: an http(s) URL or an absolute path."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from runner.errors import UsageError
from runner.prompts.naming import PLAIN, key_of
from runner.redact import public_url

IMAGE_SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jxl"]
)
SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LOCAL = re.compile(r"[/\\~]|[A-Za-z]:|.*\\", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Home:
    """Where a list stands, to which its images are relative: a folder (with a slash at its end), or a URL."""

    folder: str = ""
    url: str = ""

    @classmethod
    def of(cls, folder: str | Path) -> Home:
        return cls(os.path.join(os.path.abspath(folder), ""))

    def named(self, text: str, place: str) -> tuple[str, str]:
        """Return the image that ``text`` means, and its key. Raises UsageError that begins with ``place``."""
        plain = PLAIN.fullmatch(text)
        if plain and (plain["url"] or self.folder):
            return text if plain["url"] or text[0] == "/" else self.folder + text, plain["key"]
        image = self.image(text, place)
        return image, key_of(image)

    def image(self, text: str, place: str) -> str:
        """Return the image that ``text`` means, by the rules in full. Raises UsageError."""
        checked(text, place)
        if SCHEME.match(text):
            return _url(text, place)
        if not self.url:
            return os.path.abspath(os.path.join(self.folder, text))
        if _LOCAL.match(text):
            raise UsageError(f"{place}: expected a URL, or one relative to that of the list, got the path {text}")
        try:
            return _url(urljoin(self.url, text), place)
        except ValueError as error:
            raise UsageError(f"{place}: expected an image's URL, got {text}") from error


def checked(text: str, place: str) -> str:
    """Return ``text``, which must fit on one line of a list. Raises UsageError."""
    if _CONTROL.search(text):
        raise UsageError(f"{place}: expected an image's URL or path, got one with control characters: {text[:200]!r}")
    return text


def _url(text: str, place: str) -> str:
    scheme = text.partition("://")[0]
    if scheme.lower() not in ("http", "https"):
        raise UsageError(f"{place}: expected an http or https URL or a path, got {public_url(text)}")
    try:
        host = urlsplit(text).hostname
    except ValueError:
        host = None
    if not host:
        raise UsageError(f"{place}: the URL {public_url(text)} names no host")
    return scheme.lower() + text[len(scheme) :]
