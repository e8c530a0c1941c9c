"""Placeholders in a protocol block: ``{seed}``, ``{image.base64}`` … and the values that stand for them.

A value that is only a placeholder keeps its type; within a longer text it becomes text. ``{{…}}`` stands for ``{…}``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from runner.errors import ResultError
from runner.records import Image, Prompt

_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}|\{( *[A-Za-z_]+(?:\.[^{}]+)? *)\}")

_STEM = re.compile(r"[a-z0-9]{1,100}").fullmatch

NAMES = (
    "seed text key stem index image.url image.base64 image.data_url image.bytes image.name id items".split()  # noqa: SIM905
)
"""What there is, beside ``saved.NAME`` and ``params.NAME``."""

READS_IMAGE = frozenset(["image.base64", "image.data_url", "image.bytes"])
"""These need the image's content, the others of an image only its place."""


@dataclass(frozen=True, slots=True)
class Values:
    """What placeholders stand for, for one prompt. ``saved`` and ``id`` come from the server."""

    prompt: Prompt
    seed: int
    image: Image | None = None
    stem: str | None = None
    id: Any = None
    saved: Mapping[str, Any] = field(default_factory=dict)
    items: Sequence[Any] | None = None

    def get(self, name: str) -> Any:
        """Return the value of a placeholder. Raises ResultError if there is none."""
        head, _, rest = name.partition(".")
        given: Mapping[str, Any] | None = {"saved": self.saved, "params": self.prompt.params}.get(head)
        if given is not None:
            if rest not in given:
                raise ResultError(f"{{{name}}}: there is no such value")
            return given[rest]
        found = self._image(rest) if head == "image" else self._plain(name)
        if found is None:
            raise ResultError(f"{{{name}}}: this prompt has none")
        return found

    def _plain(self, name: str) -> Any:
        prompt = self.prompt
        match name:
            case "seed":
                return self.seed
            case "text":
                return prompt.text
            case "key":
                return prompt.key
            case "stem":
                return self.stem or stem_of(prompt.key)
            case "index":
                return prompt.index
            case "id":
                return self.id
            case "items":
                return self.items
        raise ResultError(f"{{{name}}}: there is no such placeholder")

    def _image(self, name: str) -> Any:
        if name == "url":
            return self.prompt.image if self.prompt.is_url else None
        if self.image is None:
            return None
        match name:
            case "base64":
                return base64.b64encode(self.image.content).decode()
            case "data_url":
                return f"data:{self.image.content_type};base64,{base64.b64encode(self.image.content).decode()}"
            case "bytes":
                return self.image.content
            case "name":
                return self.image.name
        return None


def render(template: Any, values: Values) -> Any:
    """Return a copy of ``template`` with every placeholder filled in. Raises ResultError if there is none."""
    if isinstance(template, Mapping):
        return {key: render(value, values) for key, value in template.items()}
    if isinstance(template, list):
        return [render(one, values) for one in template]
    if not isinstance(template, str) or "{" not in template:
        return template
    whole = _PLACEHOLDER.fullmatch(template)
    if whole and whole[2]:
        return values.get(whole[2])
    return _filled(template, values, as_text)


def in_url(template: str, values: Values) -> str:
    """Return a path with every placeholder filled in, escaped so that a value can't change the path's shape."""
    whole = _PLACEHOLDER.fullmatch(template)
    if whole and whole[2]:  # the server said all of it
        return as_text(values.get(whole[2]))
    return _filled(template, values, lambda value: quote(as_text(value), safe="", errors="surrogatepass"))


def as_text(value: Any) -> str:
    """Return a value as it stands within a text, a form or a header.

    >>> [as_text(value) for value in (7, "a", True, None, [1, 2])]
    ['7', 'a', 'true', '', '[1, 2]']
    """
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def placeholders(template: Any) -> Iterator[str]:
    """Yield the name of every placeholder in a template, nested as it may be."""
    if isinstance(template, Mapping):
        for value in template.values():
            yield from placeholders(value)
    elif isinstance(template, list):
        for one in template:
            yield from placeholders(one)
    elif isinstance(template, str):
        yield from (found[2] for found in _PLACEHOLDER.finditer(template) if found[2])


def reads_image(template: Any) -> bool:
    """Tell whether a template needs an image's content."""
    return bool({*placeholders(template)} & READS_IMAGE)


def is_known(name: str) -> bool:
    """Tell whether there is such a placeholder.

    >>> [is_known(name) for name in ("seed", "params.style", "image.size")]
    [True, True, False]
    """
    return name in NAMES or name.partition(".")[0] in ("saved", "params")


def stem_of(key: str) -> str:
    """Return the key if servers that want ``^[a-z0-9]+$`` take it, else a name of that kind made of it.

    >>> stem_of("chair7"), stem_of("Chair 7")
    ('chair7', 'chair7xc53e22f2cd')
    """
    if _STEM(key):
        return key
    plain = "".join(character for character in key.lower() if character.isascii() and character.isalnum())
    return f"{plain[:40]}x{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()[:10]}"


def _filled(template: str, values: Values, form: Callable[[Any], str]) -> str:
    def value(found: re.Match[str]) -> str:
        return f"{{{found[1]}}}" if found[2] is None else form(values.get(found[2]))

    return _PLACEHOLDER.sub(value, template)
