"""What one entry of a list with named fields says: its image, its text, its name, its seed, and whatever else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runner.errors import UsageError
from runner.prompts.images import Home
from runner.prompts.naming import key_of_text, safe_key
from runner.prompts.packing import packed
from runner.records import URL

What = Literal["image", "text"]
"""What a protocol takes: the field ``prompt``, and a line of a text, is that."""

CONTENT = ("prompt", "image_url", "image", "text")
_IMAGE = {"image": ("image_url", "image", "prompt"), "text": ("image_url", "image")}
_TEXT = {"image": ("text",), "text": ("text", "prompt")}
_KEY = ("key", "stem")
_KNOWN = frozenset((*CONTENT, *_KEY, "seed"))
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_LEAST, _MOST = -(2**63), 2**64 - 1
_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the entries of one list."""

    what: What
    home: Home
    seed: int | None = None
    """That of an entry without one."""

    def entry(self, fields: Mapping[str, Any], place: str) -> tuple[str, str]:
        """Return an entry packed, and its key. Raises UsageError that names ``place`` with all that is wrong."""
        problems: list[str] = []
        image, key = "", ""
        given = self._one(_IMAGE[self.what], fields, problems)
        text = self._one(_TEXT[self.what], fields, problems)
        named = self._one(_KEY, fields, problems)
        seed = _seed(fields.get("seed"), problems)
        params = {name: value for name, value in fields.items() if name not in _KNOWN}
        if given:
            try:
                image, key = self.home.named(given.strip(), place)
            except UsageError as error:
                problems += [problem.removeprefix(f"{place}: ") for problem in error.problems]
        if not problems:
            problems += self._missing(given, text)
        if problems:
            raise UsageError(*(f"{place}: {problem}" for problem in problems))
        key = key or key_of_text(text or "")
        name = safe_key(named.strip()) if named else key
        return self._packed(image, text or None, None if name == key else name, seed, params, place), name

    def _packed(
        self, image: str, text: str | None, key: str | None, seed: int | None, params: dict[str, Any], place: str
    ) -> str:
        try:
            kept = packed(image, text, key=key, seed=self.seed if seed is None else seed, params=params)
            if _in_utf8(kept) and "\\u0000" not in kept and kept.count("[") + kept.count("{") < _DEPTH:
                return kept
        except (ValueError, RecursionError):
            pass
        else:
            if not (wrong := _unsayable(image, text, params)):
                return kept
            raise UsageError(f"{place}: {wrong}")
        raise UsageError(f"{place}: {_unsayable(image, text, params) or 'expected numbers that are finite'}")

    def _missing(self, image: str, text: str) -> list[str]:
        """Say what a protocol that takes images, or texts, misses."""
        if image if self.what == "image" else text:
            return []
        wanted = "an image (image_url, image or prompt)" if self.what == "image" else "a text (text or prompt)"
        got = "only a text" if text else "only an image" if image else "neither image nor text"
        return [f"expected {wanted}, got {got}" + (": the protocol takes no such prompts" if image or text else "")]

    def _one(self, names: tuple[str, ...], fields: Mapping[str, Any], problems: list[str]) -> str:
        """Return the one of these fields that is given; "" if none is."""
        found = ""
        first = ""
        for name in names:
            value = fields.get(name)
            if value is None or value == "":
                continue
            if not isinstance(value, str):
                problems.append(f"{name}: expected a text, got {got(value)}")
            elif not value.isspace():
                if found:
                    problems.append(f"{first} and {name} are both given; expected one of them")
                found, first = value, name
        return found


def got(value: object) -> str:
    """Show a value of a list in few words."""
    try:
        shown = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        shown = "a value nested too deeply"
    shown = shown.encode(errors="backslashreplace").decode()
    return shown if len(shown) <= 60 else f"{shown[:59]}…"


def seed_of(value: Any) -> int | None:
    """Return a seed; None if there is none. Raises ValueError that says what was expected."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and _LEAST <= value <= _MOST):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"expected an integer of at most 64 bits, got {got(value)}")
    raise ValueError(f"expected an integer, got {got(value)}")


def seed_in(text: str) -> int | str | None:
    """Return the seed that a text stands for; the text itself if it stands for none.

    >>> seed_in(" 7 "), seed_in(""), seed_in("7.0")
    (7, None, '7.0')
    """
    text = text.strip()
    return int(text) if _INTEGER.fullmatch(text) else text or None


def _seed(value: Any, problems: list[str]) -> int | None:
    try:
        return seed_of(value)
    except ValueError as error:
        problems.append(f"seed: {error}")
        return None


def _unsayable(image: str, text: str | None, params: Mapping[str, Any]) -> str | None:
    """Say what no request can carry, or no list hold: half characters, zero characters, bottomless nesting."""
    if not _in_utf8(image) and (image.startswith(URL) or not _is_path(image)):
        return f"the image: expected Unicode, got {got(image)} with half a character (a lone surrogate)"
    for name, value in [("text", text), *params.items()]:
        if not _in_utf8(name):
            return f"{got(name)}: expected a name in Unicode, got half a character (a lone surrogate)"
        if _deeper(value, _DEPTH):
            return f"{name}: expected at most {_DEPTH} levels of nesting"
        if not _in_utf8(json.dumps(value, ensure_ascii=False)):
            return f"{name}: expected Unicode, got {got(value)} with half a character (a lone surrogate)"
        if isinstance(value, str) and "\0" in value:
            return f"{name}: expected a text, got one with a zero character (NUL)"
    return None


def _deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    return not levels or any(_deeper(one, levels - 1) for one in _inner(value))


def _inner(value: dict[str, Any] | list[Any]) -> Iterable[object]:
    return value.values() if isinstance(value, dict) else value


def _in_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_path(image: str) -> bool:
    try:
        os.fsencode(image)
    except UnicodeEncodeError:
        return False
    return True
