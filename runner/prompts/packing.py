"""How a prompt is kept: a plain image as it is, anything more as compact JSON, which begins with ``{``.

No image does, as it is a URL or an absolute path. A packed prompt holds its key only if image or text by itself would
give another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from json.encoder import encode_basestring as quoted
from typing import Any

from runner.prompts.naming import key_of, key_of_text
from runner.records import URL, Prompt

_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder().raw_decode
_escaped = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

_not_local = re.compile(
    rb'https?://|\{(?:"key":"(?:[^"\\]|\\.)*",)?(?:"image":"https?://|"(?:text|seed|params)":)', re.DOTALL
).match
"""Knows by its beginning that a packed prompt has a URL, or no image."""


def natural_key(image: str, text: str | None) -> str:
    """Return what a result is called if the list gives it no name."""
    return key_of(image) if image else key_of_text(text or "")


def packed(
    image: str, text: str | None, *, key: str | None = None, seed: int | None = None, params: Mapping[str, Any]
) -> str:
    """Return what is kept of a prompt; ``key`` is None if it is the natural one. Raises ValueError for NaN."""
    if key is None and seed is None and not params:
        if text is None and not image.startswith("{"):
            return image
        if not image and text is not None:
            return f'{{"text":{quoted(text)}}}'
    said: dict[str, Any] = {}
    if key is not None:
        said["key"] = key
    if image:
        said["image"] = image
    if text is not None:
        said["text"] = text
    if seed is not None:
        said["seed"] = seed
    if params:
        said["params"] = dict(params)
    return _compact(said)


def pack(prompt: Prompt) -> str:
    """Return what is kept of a prompt."""
    key = None if prompt.key == natural_key(prompt.image, prompt.text) else prompt.key
    return packed(prompt.image, prompt.text, key=key, seed=prompt.seed, params=prompt.params)


def encode(prompt: Prompt) -> bytes:
    """Return a prompt as ``Prompts`` keeps it, in UTF-8, lone surrogates passed."""
    return pack(prompt).encode(errors="surrogatepass")


def unpacked(kept: str) -> dict[str, Any]:
    """Return what is said of a prompt: ``image``, ``text``, ``key``, ``seed`` and ``params``, as far as it is."""
    if not kept.startswith("{"):
        return {"image": kept}
    said: dict[str, Any] = _decode(kept)[0]
    return said


def key_in(kept: str) -> str:
    """Return the key of a packed prompt."""
    if not kept.startswith("{"):
        return key_of(kept)
    said = unpacked(kept)
    key: str | None = said.get("key")
    return natural_key(said.get("image", ""), said.get("text")) if key is None else key


def prompt_of(index: int, key: str, kept: str) -> Prompt:
    """Return a packed prompt as a record."""
    if not kept.startswith("{"):
        return Prompt(index, key, kept)
    return Prompt(index, key, **{name: value for name, value in unpacked(kept).items() if name != "key"})


def local_image(kept: bytes) -> str | None:
    """Return the path of a packed prompt's image; None if it has none, or a URL."""
    if _not_local(kept):
        return None
    image: str = unpacked(kept.decode(errors="surrogatepass")).get("image", "")
    return None if not image or image.startswith(URL) else image


def needs_json(prompts: Iterable[str]) -> bool:
    """Tell whether packed prompts are more than images that a plain text can hold."""
    return any(one.startswith("{") or not _in_utf8(one) for one in prompts)


def written(prompts: Iterable[str], *, as_json: bool) -> Iterator[str]:
    """Yield the lines of a list that reads back as the same prompts: JSON lines, or a plain text."""
    return map(_json_line, prompts) if as_json else (f"{one}\n" for one in prompts)


def _json_line(kept: str) -> str:
    if kept.startswith("{") and '"params":{' not in kept and _in_utf8(kept):
        return f"{kept}\n"
    said = unpacked(kept)
    params = said.pop("params", {})
    line = said | params
    compact = _compact(line)
    return (compact if _in_utf8(compact) else _escaped(line)) + "\n"


def _in_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
