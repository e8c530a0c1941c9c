"""Read any prompts input, and give each prompt its index and its unique key.

An input is a text file (one prompt a line), an image, a folder or glob of images, or ``-`` for stdin.
This room alone decides what a key is.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Literal
from urllib.parse import unquote, urlsplit

from runner.errors import UsageError
from runner.records import Prompt
from runner.redact import public_url

IMAGE_SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jxl"]
)
_OTHER_FORMATS = frozenset([".csv", ".tsv", ".jsonl", ".json", ".yaml", ".yml", ".gz", ".zip"])
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_KEY_BYTES = 200
_SEPARATORS = "/\\\u2044\u2215\u2216\u29f5\u29f8\u29f9\ufe68\uff0f\uff3c"
"""Slash and backslash, and what looks like them or becomes one of them by compatibility normalisation."""

_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.IGNORECASE)
_SHOWN = 20

Entry = tuple[str, int, str]
"""Where a prompt stands (file, line from 1 or 0) and its image."""


def read_prompts(
    sources: Sequence[str],
    *,
    base: Path,
    keys: Literal["name", "index-name"] = "name",
    stdin: IO[str] | None = None,
) -> list[Prompt]:
    """Read all ``sources`` in their order into one list; the index runs through.

    Relative sources are relative to ``base``, relative images in a text file to that file's folder. A source
    may hold no prompts at all. Raises UsageError if one can't be read, a line is no prompt, or two
    prompts have one key.
    """
    entries = (entry for source in sources for entry in _entries(source, base, stdin))
    return number(entries, keys=keys)


def prompts_from(
    images: Iterable[str], *, base: Path, keys: Literal["name", "index-name"] = "name", where: str = "prompts"
) -> list[Prompt]:
    """Make prompts of image URLs and paths given from Python; the rules are those of a prompts file."""
    return number(_lines(images, where, base), keys=keys)


def number(entries: Iterable[Entry], *, keys: Literal["name", "index-name"]) -> list[Prompt]:
    """Give every entry its index and key; raise UsageError naming both places of each repeated key."""
    prompts: list[Prompt] = []
    places: dict[str, tuple[str, int]] = {}
    clashes: list[str] = []
    for index, (where, line, image) in enumerate(entries):
        key = key_of(image)
        if keys == "index-name":
            key = f"{index:06d}-{key}"
        if key in places:
            clashes.append(
                f"{_place(where, line)}: its result would have the name {key!r}, as that of {_place(*places[key])}"
            )
        places.setdefault(key, (where, line))
        prompts.append(Prompt(index, key, image))
    if clashes:
        more = [f"… and {len(clashes) - _SHOWN} more"] if len(clashes) > _SHOWN else []
        way_out = "Remove or rename one of each, or number the results with `output: {keys: index-name}`."
        raise UsageError(*clashes[:_SHOWN], *more, way_out)
    return prompts


def key_of(image: str) -> str:
    """Return the result's name for an image: its last path segment without the last extension, made safe.

    >>> key_of("https://host/set/a.b.png?size=2")
    'a.b'
    >>> key_of("https://host/up%2F..%2Fdown.png")
    'up_.._down'
    >>> key_of("/data/.hidden.png")
    'hidden'
    """
    if image.startswith(("http://", "https://")):
        name = unquote(urlsplit(image).path.rstrip("/").rpartition("/")[2])
    else:
        name = os.path.basename(image)
    stem, dot, _ = name.rpartition(".")
    return _safe(stem if dot and stem.strip(".") else name) or _hashed("prompt", image)


def shown(prompt: Prompt) -> str:
    """Return the prompt as ledger, log and errors may show it: a URL without its secrets, or the path."""
    return public_url(prompt.image) if prompt.is_url else prompt.image


def identity(prompt: Prompt) -> str:
    """Return what makes the prompt the same one in the next run.

    A URL without its signature (that changes every night); of a local file the name, so that a moved folder
    keeps its results. Whether a local file's content changed is seen from the ledger (see ``resume``).
    """
    return public_url(prompt.image) if prompt.is_url else "file:" + os.path.basename(prompt.image)


def fingerprint(prompt: Prompt, *, seed: int, protocol: str) -> str:
    """Return the SHA-256 of all that shapes a result; two equal ones ask for the same generation."""
    request = {"prompt": identity(prompt), "seed": seed, "params": {}, "protocol": protocol}
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _entries(source: str, base: Path, stdin: IO[str] | None) -> Iterator[Entry]:
    if source == "-":
        if (given := stdin or sys.stdin) is None:
            raise UsageError("prompts: - reads stdin, but stdin is closed")
        yield from _lines(given, "stdin", base)
        return
    if scheme := _SCHEME.match(source):
        raise UsageError(
            f"prompts: expected a file, a folder or a glob, got the {scheme.group(1)} URL {public_url(source)}; "
            "put URLs into a text file, one a line"
        )
    path = os.path.join(base, source)
    if os.path.lexists(path) or not glob.has_magic(source):
        yield from _from_path(path, source)
        return
    matches = sorted(glob.glob(os.path.join(glob.escape(str(base)), source), recursive=True))
    if not matches:
        raise UsageError(f"prompts: the glob {source} matches no file (looked in {base})")
    for match in matches:
        if not os.path.isdir(match):
            yield from _from_path(match, os.path.relpath(match, base))


def _from_path(path: str, named: str) -> Iterator[Entry]:
    suffix = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        for name in sorted(os.listdir(path)):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield os.path.join(named, name), 0, _plain(os.path.abspath(os.path.join(path, name)), named)
    elif not os.path.exists(path):
        raise UsageError(f"prompts: {named} does not exist (looked for {os.path.abspath(path)})")
    elif suffix in IMAGE_SUFFIXES:
        yield named, 0, _plain(os.path.abspath(path), named)
    elif suffix in _OTHER_FORMATS:
        raise UsageError(
            f"prompts: {named}: this version reads text files (one prompt a line) and images, not {suffix} files"
        )
    else:
        try:
            with open(path, encoding="utf-8-sig") as lines:
                yield from _lines(lines, named, Path(os.path.abspath(path)).parent)
        except UnicodeDecodeError as error:
            raise UsageError(
                f"prompts: {named}: expected UTF-8 text, one prompt a line; got byte "
                f"0x{error.object[error.start]:02x} at offset {error.start}"
            ) from error
        except OSError as error:
            raise UsageError(f"prompts: {named} can't be read: {error.strerror}") from error


def _lines(lines: Iterable[str], where: str, base: Path) -> Iterator[Entry]:
    for number_from_1, line in enumerate(lines, 1):
        text = line.strip().lstrip("\ufeff")
        if text and not text.startswith("#"):
            yield where, number_from_1, _image(text, f"{where}:{number_from_1}", base)


def _image(text: str, place: str, base: Path) -> str:
    _plain(text, place)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return os.path.abspath(os.path.join(base, text))
    if scheme.group(1).lower() not in ("http", "https"):
        raise UsageError(f"{place}: expected an http or https URL or a path, got {public_url(text)}")
    try:
        named = urlsplit(text).hostname
    except ValueError:
        named = None
    if not named:
        raise UsageError(f"{place}: the URL {public_url(text)} names no host")
    return scheme.group(1).lower() + text[scheme.end(1) :]


def _plain(text: str, place: str) -> str:
    """Return ``text``, which must fit on one line of a list. Raises UsageError."""
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise UsageError(f"{place}: expected an image's URL or path, got one with control characters: {text!r}")
    return text


def _safe(name: str) -> str:
    """Make ``name`` one file name: nothing like a separator, no control or formatting characters, ≤ 200 bytes.

    It has no leading dot either, and is no device of Windows, where the folder may be copied or mounted.
    """
    name = unicodedata.normalize("NFC", name)
    if not name.isascii() or not name.isprintable() or "/" in name or "\\" in name:
        name = "".join(_harmless(character) for character in name)
    name = name.strip().lstrip(".").strip()
    if _DEVICE.match(name):
        name = f"_{name}"
    if len(name.encode()) <= _KEY_BYTES:
        return name
    return _hashed(name.encode()[: _KEY_BYTES - 9].decode(errors="ignore"), name)


def _harmless(character: str) -> str:
    bad = character in _SEPARATORS or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return "_" if bad else character


def _hashed(start: str, whole: str) -> str:
    return f"{start}-{hashlib.sha256(whole.encode(errors='surrogateescape')).hexdigest()[:8]}"


def _place(where: str, line: int) -> str:
    return f"{where}:{line}" if line else where
