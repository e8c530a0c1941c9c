"""Which headers can be sent, wherever they were given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"([\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
HOST = re.compile(r"[\w.:%\[\]-]+", re.ASCII)

_OURS = frozenset(["content-length", "transfer-encoding"])
"""Headers that say where a body ends: a second word on that would tear requests apart."""


def is_header_value(text: str) -> bool:
    """Tell whether a header can hold this text (RFC 9110)."""
    return _VALUE.fullmatch(text) is not None


def wrong_headers(headers: Mapping[str, str]) -> Iterator[str]:
    """Say what is wrong with headers, by their names; their values may be secret."""
    seen: dict[str, str] = {}
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not is_header_value(value):
            yield f"{name!r} is no valid header (RFC 9110)"
        elif name.lower() in _OURS:
            yield f"{name!r} follows from what is sent and can't be given"
        elif name.lower() in seen:
            yield f"{name!r} stands there already as {seen[name.lower()]!r}"
        elif name.lower() == "host" and not HOST.fullmatch(value):
            yield f"{name!r}: expected a host such as gpu.example or gpu.example:8443"
        seen.setdefault(name.lower(), name)
