"""Read a prompts source: a text file (one prompt a line), an image, a folder or glob of images, or ``-``: stdin."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from runner.errors import UsageError
from runner.prompts.naming import PLAIN, key_of
from runner.redact import public_url

IMAGE_SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jxl"]
)
_OTHER_FORMATS = frozenset([".csv", ".tsv", ".jsonl", ".json", ".yaml", ".yml", ".gz", ".zip"])
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")

Entry = tuple[str, int, str, str]
"""Where a prompt stands (a file, and the line from 1; else 0; a folder ends in a slash), its image and its key."""


def entries_of(source: str, base: Path, stdin: IO[str] | None) -> Iterator[Entry]:
    """Yield what a source holds, in its order. Raises UsageError if it can't be read or a line is no prompt."""
    if source == "-":
        if (given := stdin or sys.stdin) is None:
            raise UsageError("prompts: - reads stdin, but stdin is closed")
        yield from lines_of(given, "stdin", base)
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
                yield os.path.join(named, ""), 0, *_file(os.path.join(path, name), named)
    elif not os.path.exists(path):
        raise UsageError(f"prompts: {named} does not exist (looked for {os.path.abspath(path)})")
    elif suffix in IMAGE_SUFFIXES:
        yield named, 0, *_file(path, named)
    elif suffix in _OTHER_FORMATS:
        raise UsageError(
            f"prompts: {named}: this version reads text files (one prompt a line) and images, not {suffix} files"
        )
    else:
        try:
            with open(path, encoding="utf-8-sig") as lines:
                yield from lines_of(lines, named, Path(os.path.abspath(path)).parent)
        except UnicodeDecodeError as error:
            raise UsageError(
                f"prompts: {named}: expected UTF-8 text, one prompt a line; got byte "
                f"0x{error.object[error.start]:02x} at offset {error.start}"
            ) from error
        except OSError as error:
            raise UsageError(f"prompts: {named} can't be read: {error.strerror}") from error


def lines_of(lines: Iterable[str], where: str, base: Path) -> Iterator[Entry]:
    """Yield the prompts of a text, one a line; relative paths are relative to ``base``. Raises UsageError."""
    folder = os.path.join(os.path.abspath(base), "")
    match = PLAIN.fullmatch
    for number_from_1, line in enumerate(lines, 1):
        text = line.strip()
        if plain := match(text):
            url, key = plain.groups()
            yield where, number_from_1, text if url or text[0] == "/" else folder + text, key
            continue
        text = text.lstrip("\ufeff")
        if text and not text.startswith("#"):
            image = _image(text, f"{where}:{number_from_1}", base)
            yield where, number_from_1, image, key_of(image)


def _file(path: str, place: str) -> tuple[str, str]:
    image = _plain(os.path.abspath(path), place)
    return image, key_of(image)


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
    if _CONTROL.search(text):
        raise UsageError(f"{place}: expected an image's URL or path, got one with control characters: {text!r}")
    return text
