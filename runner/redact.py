"""What may be shown: URLs without user info and signatures, texts without secret values."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus, urlsplit, urlunsplit

_SECRET_QUERY = re.compile(
    r"^(x-amz-|x-goog-|sig$|signature|se$|sp$|sv$|st$|spr$|expires|policy$|key-pair-id|awsaccesskeyid|"
    r".*token|.*api[-_]?key|key$|auth|password|secret)",
    re.IGNORECASE,
)
"""Query fields of pre-signed URLs (S3, GCS, CloudFront, Azure SAS) and of keys passed in a query."""

_SECRET_HEADER = re.compile(r"authorization|cookie|token|api[-_]?key|secret|password", re.IGNORECASE)

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)

_PERCENT = re.compile(r"%[0-9A-F]{2}")

_CUT_MARKS = ("…", "'", '"')
"""Where texts of servers were cut: by ``…``, or as bytes in quotes."""


_USER_INFO = re.compile(r"(?<=://)[^/?#]*@")

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
        return _USER_INFO.sub("", url.partition("?")[0])
    query = "&".join(field for field in parts.query.split("&") if not _SECRET_QUERY.match(field.partition("=")[0]))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def is_secret_query(name: str) -> bool:
    """Tell whether a query field of this name carries a secret."""
    return _SECRET_QUERY.match(name) is not None


def is_secret_header(name: str) -> bool:
    """Tell whether a header of this name carries a secret."""
    return _SECRET_HEADER.search(name) is not None


class Redactor:
    """Replace secret values in texts: those of ``${NAME}`` by that name, others by ``***``.

    A secret is known again in the forms in which servers and libraries say it back, and by its beginning where a text
    was cut in the midst of it.
    """

    def __init__(self, named: Mapping[str, str] | None = None, unnamed: Iterable[str] = ()) -> None:
        shown = {form: f"${{{name}}}" for name, value in (named or {}).items() for form in _forms(value)}
        others = {form: "***" for value in unnamed for form in _forms(value) if form not in shown}
        self._shown = [*_longest_first(shown), *_longest_first(others)]

    def text(self, text: str) -> str:
        """Return ``text`` with every known secret replaced, and all URLs in it as ``public_url`` shows them."""
        if "://" in text:
            text = _URL.sub(lambda found: public_url(found.group()), text)
        for secret, shown in self._shown:
            if secret in text:
                text = text.replace(secret, shown)
        for mark in _CUT_MARKS:
            if mark in text and self._shown:
                *cut, last = text.split(mark)
                text = mark.join([*map(self._without_beginning, cut), last])
        return text

    def _without_beginning(self, text: str) -> str:
        """Return ``text`` without the beginning of a secret at its end."""
        for secret, shown in self._shown:
            at = text.find(secret[:_SHORTEST_SECRET], max(0, len(text) - len(secret)))
            while at >= 0:
                if secret.startswith(text[at:]):
                    return text[:at] + shown
                at = text.find(secret[:_SHORTEST_SECRET], at + 1)
        return text


def _longest_first(shown: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(shown.items(), key=lambda one: len(one[0]), reverse=True)


def _forms(secret: str) -> set[str]:
    """Return a secret as it stands in texts: as it is, percent-encoded, in base64, in JSON and HTML, on one line.

    >>> sorted(_forms("a/b c+d"))[:5]
    ['YS9iIGMrZA', 'a%2Fb%20c%2Bd', 'a%2Fb+c%2Bd', 'a%2fb%20c%2bd', 'a%2fb+c%2bd']
    """
    if len(secret) < _SHORTEST_SECRET:
        return set()
    raw = secret.encode(errors="surrogatepass")
    found = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], html.escape(secret)}
    found |= {secret.replace("/", "\\/"), " ".join(secret.split()), repr(secret)[1:-1]}
    for encoded in (quote(raw), quote(raw, safe=""), quote_plus(raw)):
        found |= {encoded, _PERCENT.sub(lambda one: one.group().lower(), encoded)}
    for as_bytes in (raw, secret.encode("latin-1", "replace")):
        found |= {base64.b64encode(as_bytes).decode().rstrip("=")}
        found |= {base64.urlsafe_b64encode(as_bytes).decode().rstrip("=")}
    return {form for form in found if len(form) >= _SHORTEST_SECRET}
