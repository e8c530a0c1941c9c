"""What a result is called: the key of a prompt, made in this room alone."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from urllib.parse import unquote, urlsplit

from runner.records import URL

_KEY_BYTES = 200
_TEXT_KEY_BYTES = 80
_SEPARATORS = "/\\\u2044\u2215\u2216\u29f5\u29f8\u29f9\ufe68\uff0f\uff3c"
"""Slash and backslash, and what looks like them or becomes one of them by compatibility normalisation."""

_LEADING = re.compile(r"^[\s.]+")

_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.IGNORECASE)

PLAIN = re.compile(
    r"(?P<url>https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?/(?:[A-Za-z0-9_~!$&'()*+,;=:@.-]*/)*)?"
    r"(?(url)|/?(?:[A-Za-z0-9_@+=~-][A-Za-z0-9_@+=~. -]*/)*)"
    r"(?!(?i:con|prn|aux|nul|com[0-9]|lpt[0-9])\.)"
    r"(?P<key>[A-Za-z0-9_](?:[A-Za-z0-9_.~-]{0,150}[A-Za-z0-9_~-])?)\.[A-Za-z0-9]+"
    r"(?(url)(?:\?[!\"$-~]*)?)"
)
"""URLs and paths as nearly all are, in which no rule changes anything: ``key`` is the key.

Such a path has no segment ``.`` or ``..`` either. A million lines are read in a second with it, in ten without.
"""


def key_of(image: str) -> str:
    """Return the result's name for an image: its last path segment without the last extension, made safe.

    >>> key_of("https://host/set/a.b.png?size=2")
    'a.b'
    >>> key_of("https://host/up%2F..%2Fdown.png")
    'up_.._down'
    >>> key_of("/data/.hidden.png")
    'hidden'
    """
    if plain := PLAIN.fullmatch(image):
        return plain["key"]
    return _key_of(image)


def key_of_text(text: str) -> str:
    """Return the result's name for a text: its words, made safe, and cut to 80 bytes.

    >>> key_of_text("a red chair")
    'a-red-chair'
    """
    name = _harmless("-".join(text.split()))
    if len(name.encode()) <= _TEXT_KEY_BYTES:
        return name or _hashed("prompt", text)
    start = name.encode()[: _TEXT_KEY_BYTES - 9].decode(errors="ignore")
    return _hashed(start.rstrip("-. "), text)


def safe_key(key: str) -> str:
    """Return a name that was given to a result, made safe; nothing changes if that is done again."""
    return _safe(key) or _hashed("prompt", key)


def _key_of(image: str) -> str:
    if image.startswith(URL):
        name = unquote(urlsplit(image).path.rstrip("/").rpartition("/")[2])
    else:
        name = os.path.basename(image)
    stem, dot, _ = name.rpartition(".")
    return _safe(stem if dot and stem.strip(".") else name) or _hashed("prompt", image)


def _safe(name: str) -> str:
    """Make ``name`` one file name of at most 200 bytes."""
    name = _harmless(name)
    if len(name.encode()) <= _KEY_BYTES:
        return name
    return _hashed(name.encode()[: _KEY_BYTES - 9].decode(errors="ignore"), name)


def _harmless(name: str) -> str:
    """Leave nothing like a separator in ``name``, and no control or formatting characters.

    It has no leading dot either, and is no device of Windows, where the folder may be copied or mounted.
    """
    name = unicodedata.normalize("NFC", name)
    if not name.isascii() or not name.isprintable() or "/" in name or "\\" in name:
        name = "".join(_shown_as(character) for character in name)
    name = _LEADING.sub("", name).rstrip()
    if _DEVICE.match(name):
        name = f"_{name}"
    return name


def _shown_as(character: str) -> str:
    bad = character in _SEPARATORS or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return "_" if bad else character


def _hashed(start: str, whole: str) -> str:
    try:
        content = whole.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        content = whole.encode(errors="surrogatepass")
    return f"{start}-{hashlib.sha256(content).hexdigest()[:8]}"
