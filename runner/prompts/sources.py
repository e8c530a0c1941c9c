"""Read a prompts source: a list (text, CSV, TSV, JSON lines, JSON; each also as .gz), an image, a folder, a glob.

A list may also be stdin, or stand at a URL.
"""

from __future__ import annotations

import glob
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from runner.errors import AttemptError, UsageError
from runner.prompts.complaints import Complaints, at
from runner.prompts.fields import CONTENT, Reader, What
from runner.prompts.images import IMAGE_SUFFIXES, SCHEME, Home, checked
from runner.prompts.naming import PLAIN, key_of, key_of_text
from runner.prompts.packing import packed
from runner.prompts.remote import Capped, bare, is_url, said_of, type_of
from runner.prompts.tables import Row, csv_rows, json_rows, jsonl_rows
from runner.records import Page
from runner.redact import public_url

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json"}
_TEXT_SUFFIXES = (".txt", ".list")
_OTHER_FORMATS = frozenset(
    [".yaml", ".yml", ".gz", ".zip", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".7z", ".parquet", ".xlsx", ".xls"]
)
_GZIP = b"\x1f\x8b"
Entry = tuple[str, int, str, str]
"""Where a prompt stands (a file, and the line from 1; else 0; a folder ends in a slash), packed, and its key."""

Fetch = Callable[[str], Page]
"""Downloads a list. Raises AttemptError."""


@dataclass(frozen=True, slots=True)
class Sources:
    """How sources are read: relative to ``base``, for a protocol that takes ``what``."""

    base: Path
    what: What
    complaints: Complaints
    stdin: IO[str] | None = None
    fetch: Fetch | None = None

    def entries(self, source: str) -> Iterator[Entry]:
        """Yield what a source holds, in its order. Raises UsageError if it can't be read."""
        if source == "-":
            yield from self._stdin()
        elif scheme := SCHEME.match(source):
            if scheme.group(1).lower() not in ("http", "https"):
                raise UsageError(
                    f"prompts: expected a file, a folder, a glob or an http(s) URL, got {public_url(source)}"
                )
            yield from self._from_url(source)
        else:
            yield from self._from_files(source)

    def _stdin(self) -> Iterator[Entry]:
        if (given := self.stdin or sys.stdin) is None:
            raise UsageError("prompts: - reads stdin, but stdin is closed")
        with _told("stdin"):
            are_entries, lines = _peeked(given)
            yield from self._read(lines, "jsonl" if are_entries else "text", "stdin", Home.of(self.base))

    def _from_files(self, source: str) -> Iterator[Entry]:
        path = os.path.join(self.base, source)
        if os.path.lexists(path) or not glob.has_magic(source):
            yield from self._from_path(path, source)
            return
        matches = sorted(glob.glob(os.path.join(glob.escape(str(self.base)), source), recursive=True))
        if not matches:
            raise UsageError(f"prompts: the glob {source} matches no file (looked in {self.base})")
        for match in matches:
            if not os.path.isdir(match):
                with self.complaints.heard():
                    yield from self._from_path(match, os.path.relpath(match, self.base))

    def _from_path(self, path: str, named: str) -> Iterator[Entry]:
        if os.path.isdir(path):
            yield from self._folder(path, named)
        elif not os.path.exists(path):
            raise UsageError(f"prompts: {named} does not exist (looked for {os.path.abspath(path)})")
        elif _suffix(path) in IMAGE_SUFFIXES:
            yield named, 0, *self._an_image(path, named)
        else:
            kind, is_gzip = _format(path, named)
            home = Home.of(Path(os.path.abspath(path)).parent)
            with _told(named), open(path, "rb") as file:
                if is_gzip and not file.peek(1):  # gzip takes it for the end of a file
                    raise UsageError(f"prompts: {named}: the gzip file is empty")
                yield from self._opened(gzip.GzipFile(fileobj=file) if is_gzip else file, kind, named, home)

    def _folder(self, path: str, named: str) -> Iterator[Entry]:
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            raise UsageError(f"prompts: {named} can't be read: {error.strerror}") from error
        for name in names:
            if _suffix(name) in IMAGE_SUFFIXES and not name.startswith("."):
                yield os.path.join(named, ""), 0, *self._an_image(os.path.join(path, name), named)

    def _an_image(self, path: str, place: str) -> tuple[str, str]:
        if self.what == "text":
            raise UsageError(f"prompts: {place}: expected texts, as the protocol takes these, got images")
        image = checked(os.path.abspath(path), place)
        return image, key_of(image)

    def _from_url(self, source: str) -> Iterator[Entry]:
        """Yield what a list at a URL holds; the URL of an image is a prompt itself, as its path would be."""
        named = bare(source)
        if not is_url(source):
            raise UsageError(f"prompts: expected the URL of a list, got {named}")
        suffix = _suffix(urlsplit(source).path)
        if suffix in IMAGE_SUFFIXES and self.what == "image":
            yield named, 0, *Home(url=source).named(source, named)
            return
        if self.fetch is None:
            raise UsageError(f"prompts: {named} can't be fetched here; download it first")
        try:
            page = self.fetch(source)
        except AttemptError as error:
            raise UsageError(f"prompts: {said_of(error)}; nothing was sent") from error
        except OSError as error:
            raise UsageError(f"prompts: {named} can't be kept on this disk: {error.strerror}") from error
        with closing(page.file), _told(named):
            said = type_of(page, named)
            kind, _ = _format(urlsplit(source).path, named)
            kind = said or kind if kind == "text" and suffix not in _TEXT_SUFFIXES else kind
            is_gzip = page.file.read(2) == _GZIP
            page.file.seek(0)
            file = Capped(gzip.GzipFile(fileobj=page.file), named) if is_gzip else page.file
            yield from self._opened(file, kind, named, Home(url=page.url))

    def _opened(self, file: Any, kind: str, named: str, home: Home) -> Iterator[Entry]:
        """Yield the entries of an open file of bytes."""
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="" if kind in ("csv", "tsv") else None)
        try:
            yield from self._read(lines, kind, named, home)
        except UnicodeDecodeError as error:
            raise UsageError(f"prompts: {named}: {_not_utf8(file, error)}") from error
        finally:
            with suppress(OSError, EOFError, zlib.error):
                lines.close()

    def _read(self, lines: Any, kind: str, named: str, home: Home) -> Iterator[Entry]:
        if kind == "text" and self.what == "text":
            yield from texts_of(lines, named, self.complaints)
        elif kind == "text":
            yield from lines_of(lines, named, home, self.complaints)
        elif kind == "json":
            place, seed, rows = json_rows(lines, named, self.complaints)
            yield from _entries(rows, place, Reader(self.what, home, seed), self.complaints)
        elif kind == "jsonl":
            rows = jsonl_rows(lines, named, self.complaints)
            yield from _entries(rows, named, Reader(self.what, home), self.complaints)
        else:
            rows = csv_rows(lines, named, "\t" if kind == "tsv" else ",", self.complaints)
            yield from _entries(rows, named, Reader(self.what, home), self.complaints)


def lines_of(lines: Iterable[str], where: str, home: Home, complaints: Complaints) -> Iterator[Entry]:
    """Yield the images of a text, one a line."""
    folder = home.folder
    match = PLAIN.fullmatch
    for number_from_1, line in enumerate(lines, 1):
        text = line.strip()
        if plain := match(text):
            url, key = plain.groups()
            if url or folder:
                yield where, number_from_1, text if url or text[0] == "/" else folder + text, key
                continue
        text = text.lstrip("\ufeff")
        if text and not text.startswith("#"):
            try:
                image, key = home.named(text, at(where, number_from_1))
            except UsageError as error:
                complaints.add(*error.problems)
            else:
                yield where, number_from_1, image, key


def texts_of(
    lines: Iterable[str], where: str, complaints: Complaints, *, comment: str | None = "#"
) -> Iterator[Entry]:
    """Yield the texts of a text, one a line; those that begin with ``comment`` are none."""
    for number_from_1, line in enumerate(lines, 1):
        text = line.strip().lstrip("\ufeff")
        if not text or (comment and text.startswith(comment)):
            continue
        if "\0" in text:
            complaints.add(f"{at(where, number_from_1)}: expected a text, got one with a zero character (NUL)")
        else:
            yield where, number_from_1, packed("", text, params={}), key_of_text(text)


def fields_of(
    given: Iterable[str | Mapping[str, Any]], where: str, home: Home, what: What, complaints: Complaints
) -> Iterator[Entry]:
    """Yield prompts that are mappings with the fields of a list."""

    def rows() -> Iterator[Row]:
        for number_from_1, fields in enumerate(given, 1):
            if isinstance(fields, Mapping):
                yield number_from_1, fields
            else:
                complaints.add(f"{at(where, number_from_1)}: expected an entry with fields as the first, got a text")

    yield from _entries(rows(), where, Reader(what, home), complaints)


def _entries(rows: Iterable[Row], place: str, reader: Reader, complaints: Complaints) -> Iterator[Entry]:
    entry = reader.entry
    for line, fields in rows:
        try:
            kept, key = entry(fields, at(place, line))
        except UsageError as error:
            complaints.add(*error.problems)
        else:
            yield place, line, kept, key


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _format(path: str, named: str) -> tuple[str, bool]:
    """Return the format that a path's suffix tells, and whether it is gzipped. Raises UsageError."""
    is_gzip = _suffix(path) == ".gz"
    suffix = _suffix(os.path.splitext(path)[0] if is_gzip else path)
    if suffix in _OTHER_FORMATS or suffix in IMAGE_SUFFIXES:
        raise UsageError(
            f"prompts: {named}: expected images, or a list as text, CSV, TSV, JSON or JSON lines (each also as .gz), "
            f"got a {suffix}{'.gz' if is_gzip else ''} file"
        )
    return FORMATS.get(suffix, "text"), is_gzip


@contextmanager
def _told(named: str) -> Iterator[None]:
    """Turn what reading a list raises into a UsageError."""
    try:
        yield
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UsageError(f"prompts: {named}: expected UTF-8 text, got byte 0x{byte:02x}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        cut = isinstance(error, EOFError)
        raise UsageError(
            f"prompts: {named}: the gzip file is {'cut short' if cut else 'damaged, or none'}"
        ) from error
    except OSError as error:
        raise UsageError(f"prompts: {named} can't be read: {error.strerror or error}") from error


def _not_utf8(file: Any, error: UnicodeDecodeError) -> str:
    """Say where a file is no UTF-8, as far as it can be read again."""
    byte = error.object[error.start]
    said = f"expected UTF-8 text, got byte 0x{byte:02x}"
    with suppress(OSError, ValueError, EOFError, zlib.error):
        file.seek(0)
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                return f"{said} in line 1; it seems to be UTF-16: save it as UTF-8"
            try:
                line.decode()
            except UnicodeDecodeError as found:
                return f"expected UTF-8 text, got byte 0x{found.object[found.start]:02x} in line {number}"
    return said


def _peeked(lines: Iterable[str]) -> tuple[bool, Iterator[str]]:
    """Tell whether lines begin with an entry as JSON lines have it, and return all of them."""
    rest = iter(lines)
    seen: list[str] = []
    for line in rest:
        seen.append(line)
        if text := line.strip().lstrip("\ufeff"):
            return _is_entry(text), chain(seen, rest)
    return False, iter(seen)


def _is_entry(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and any(isinstance(said.get(name), str) for name in CONTENT)
