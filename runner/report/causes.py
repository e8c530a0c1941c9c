"""Why did prompts fail? Errors that differ only in numbers, addresses, keys and ids are one cause."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

CAUSES_KEPT = 1000
"""So many causes are told apart; if every error is another, the rest is one."""

REST = "other causes"

_REMEMBERED = 10_000
_LONG = 4
"""A shorter key may be any word of an error, such as the article; it is one only where names stand."""
_ENDPOINTS_NAMED = 1000

_SPECIFIC = (
    (re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]*[^\s'\"<>:;,.)\]}…]", re.IGNORECASE), "URL"),
    (re.compile(r"\banswers (\d{3})\b"), r"answers <\1>"),
    (re.compile(r"(?<![\w/.])(?:/[^\s/'\":,;]+)+"), "PATH"),
    (re.compile(r"(?<![\w.-])(?:\[[0-9a-f:]+\]|[A-Za-z0-9][A-Za-z0-9._-]*):\d{2,5}\b"), "HOST"),
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b|\b0x[0-9a-f]+\b", re.IGNORECASE), "ID"),
    (re.compile(r"\b(?=[a-f]*[0-9])[0-9a-f]{6,}\b|\b[0-9a-f]{16,}\b", re.IGNORECASE), "ID"),
    (re.compile(r"(?<![<\d])\d+(?:[.,]\d+)*"), "N"),
)
"""What is particular to one failure, in this order; a status is not, for it says what kind of failure it is."""

_NUMBER = re.compile(r"(?<!answers )(?<!\d)\d+")
"""Most errors of one cause differ in such alone: to look only for these first is ten times as quick."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Failures that have the same reason: how many, and the first of them. ``endpoints`` are those concerned."""

    text: str
    count: int
    key: str
    error: str
    endpoints: tuple[str, ...]


@dataclass(slots=True)
class _Count:
    key: str
    error: str
    count: int = 0
    endpoints: dict[str, None] | None = None


class Causes:
    """Counts failures by their cause; a constant cost each, and bounded room, however many there are."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}
        self._known: dict[str, str] = {}

    def add(self, error: str, *, key: str, endpoint: str) -> None:
        """Count one failure."""
        text = self._text(error, key)
        if text not in self._counts and len(self._counts) >= CAUSES_KEPT:
            text = REST
        found = self._counts.setdefault(text, _Count(key, error, 0, {}))
        found.count += 1
        if endpoint and found.endpoints is not None and len(found.endpoints) < _ENDPOINTS_NAMED:
            found.endpoints[endpoint] = None

    def ranked(self) -> list[Cause]:
        """Return the causes, the most frequent first."""
        causes = [
            Cause(text, one.count, one.key, one.error, tuple(sorted(one.endpoints or ())))
            for text, one in self._counts.items()
        ]
        return sorted(causes, key=lambda one: (-one.count, one.text))

    def _text(self, error: str, key: str) -> str:
        alike = _NUMBER.sub("0", error.replace(key, "KEY") if len(key) >= _LONG else error)
        known = self._known.get(alike)
        if known is None:
            known = cause_of(error, key)
            if len(self._known) < _REMEMBERED:
                self._known[alike] = known
        return known


def causes_of(failures: Iterable[tuple[str, str, str]]) -> list[Cause]:
    """Group failures, each a key, an endpoint and an error; the most frequent cause first.

    >>> for cause in causes_of([("a", "one", "a: no answer in 300 s"), ("b", "two", "b: no answer in 301 s")]):
    ...     print(cause.count, cause.text, "|", cause.error, cause.endpoints)
    2 KEY: no answer in N s | a: no answer in 300 s ('one', 'two')
    """
    causes = Causes()
    for key, endpoint, error in failures:
        causes.add(error, key=key, endpoint=endpoint)
    return causes.ranked()


def cause_of(error: str, key: str = "") -> str:
    """Return an error without what is particular to one prompt, endpoint or moment.

    >>> cause_of("http://127.0.0.1:10006/generate answers 500: job 7f3a99 failed on gpu-1:8000", "chair")
    'URL answers <500>: job ID failed on HOST'
    """
    text = " ".join(error.split())
    if key and key in text:
        name = re.escape(key)
        anywhere = rf"(?<![A-Za-z0-9]){name}(?![A-Za-z0-9])"
        where_names_stand = rf"^{name}\b|(?<![A-Za-z0-9]){name}(?=[:.])|(?<=[/'\"]){name}\b"
        text = re.sub(anywhere if len(key) >= _LONG else where_names_stand, "KEY", text)
    for pattern, word in _SPECIFIC:
        text = pattern.sub(word, text)
    return text
