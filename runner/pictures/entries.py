"""What is known of one picture in the cache: a line of its index."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

VERSION = 2
"""Raised when pictures are drawn or measured differently: those of other versions are drawn anew."""

Of = Literal["result", "prompt"]
_NUMBERS = ("size_bytes", "thumbnail_bytes", "model_bytes", "count", "until_s")


@dataclass(frozen=True, slots=True)
class Entry:
    """A result or a prompt's image that was drawn; ``key`` is the name of its files.

    ``size_bytes``: of what was drawn. ``thumbnail_bytes`` and ``model_bytes`` are 0 where there is none. ``why``: why
    there is no picture, though it is whole: goes on after "no picture of ". ``kept``: whether it is true the next
    time too; if it is, until the second ``until_s`` since 1970, 0 for always.
    """

    of: Of
    key: str
    size_bytes: int
    kind: str = "other"
    thumbnail_bytes: int = 0
    model_bytes: int = 0
    count: int = 0
    box: tuple[float, float, float] | None = None
    words: str = ""
    flags: tuple[tuple[str, str], ...] = ()
    why: str = ""
    kept: bool = True
    until_s: int = 0

    @property
    def thumbnail(self) -> str:
        return thumbnail_name(self.of, self.key)

    @property
    def model(self) -> str:
        return f"{self.key}.js"

    def line(self) -> bytes:
        return json.dumps({"version": VERSION, **asdict(self)}, separators=(",", ":")).encode() + b"\n"


def thumbnail_name(of: Of, key: str) -> str:
    return f"{key}.webp" if of == "result" else f"{key}.prompt.webp"


def entry_of(line: bytes) -> Entry | None:
    """Return what a line says; None if it is torn, foreign, or of another version.

    >>> entry_of(Entry("prompt", "ab", 7).line())
    Entry(of='prompt', key='ab', size_bytes=7, kind='other', thumbnail_bytes=0, model_bytes=0, count=0, box=None, \
words='', flags=(), why='', kept=True, until_s=0)
    >>> entry_of(b'{"version": 1, "of": "result"') is None
    True
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.pop("version", None) != VERSION:
        return None
    return _checked(found)


def _checked(found: dict[str, Any]) -> Entry | None:
    try:
        flags = tuple((str(word), str(sentence)) for word, sentence in found.pop("flags"))
        box = found.pop("box")
        entry = Entry(flags=flags, box=None if box is None else _box(box), **found)
    except (KeyError, TypeError, ValueError):
        return None
    whole = all(type(getattr(entry, name)) is int for name in _NUMBERS)
    texts = all(isinstance(getattr(entry, name), str) for name in ("of", "key", "kind", "words", "why"))
    return entry if whole and texts and entry.key.isalnum() and entry.of in ("result", "prompt") else None


def _box(sides: Any) -> tuple[float, float, float]:
    x, y, z = (float(side) for side in sides)
    return x, y, z
