"""What may be shown: URLs without user info and signatures, texts without secret values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit, urlunsplit

_SECRET_QUERY = re.compile(
    r"^(x-amz-|x-goog-|sig$|signature|se$|sp$|sv$|st$|spr$|expires|policy$|key-pair-id|awsaccesskeyid|"
    r".*token|.*api[-_]?key|key$|auth|password|secret)",
    re.IGNORECASE,
)
"""Query fields of pre-signed URLs (S3, GCS, CloudFront, Azure SAS) and of keys passed in a query."""

_SECRET_HEADER = re.compile(r"authorization|cookie|token|api[-_]?key|secret|password", re.IGNORECASE)

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)

_SHORTEST_SECRET = 6
"""A shorter value of an environment variable is too likely to be an ordinary word or number."""


def public_url(url: str) -> str:
    """Return ``url`` without user info, signature fields and fragment; the rest stays as it is.

    >>> public_url("https://me:pw@host/a.png?v=2&X-Amz-Signature=abc#top")
    'https://host/a.png?v=2'
    """
    if "@" not in url and "?" not in url and "#" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0]
    query = "&".join(field for field in parts.query.split("&") if not _SECRET_QUERY.match(field.partition("=")[0]))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def is_secret_header(name: str) -> bool:
    """Tell whether a header of this name carries a secret."""
    return _SECRET_HEADER.search(name) is not None


class Redactor:
    """Replace secret values in texts: those of ``${NAME}`` by that name, others by ``***``."""

    def __init__(self, named: Mapping[str, str] | None = None, unnamed: Iterable[str] = ()) -> None:
        shown = dict.fromkeys(unnamed, "***")
        shown.update({value: f"${{{name}}}" for name, value in (named or {}).items()})
        self._named = dict(named or {})
        self._shown = {value: shown[value] for value in shown if len(value) >= _SHORTEST_SECRET}
        longest_first = sorted(self._shown, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def header(self, name: str, value: str) -> str:
        """Return a header's value as a config may show it: ``${NAME}`` for what came from there, or ``***``."""
        for variable, secret in self._named.items():
            value = value.replace(secret, f"${{{variable}}}") if secret else value
        return "***" if is_secret_header(name) and "${" not in value else value

    def text(self, text: str) -> str:
        """Return ``text`` with every known secret replaced, and all URLs in it as ``public_url`` shows them."""
        if "://" in text:
            text = _URL.sub(lambda found: public_url(found.group()), text)
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: self._shown[found.group()], text)
