"""Lists with named fields: CSV and TSV (a header first), JSON lines, and a JSON document.

Each function here yields the line of an entry, from 1, and its fields.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO

from runner.errors import UsageError
from runner.prompts.complaints import Complaints, at
from runner.prompts.fields import CONTENT, got, seed_in, seed_of
from runner.redact import public_url

_DIGITS = 4000

Row = tuple[int, Mapping[str, Any]]


def csv_rows(lines: Iterable[str], place: str, delimiter: str, complaints: Complaints) -> Iterator[Row]:
    """Yield the rows below the header; a row of nothing but empty fields is a blank line."""
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    names: list[str] = []
    begins = 1
    try:
        for row in rows:
            line, begins = begins, rows.line_num + 1
            if not any(row):
                continue
            if not names:
                names = _header(row, at(place, line), delimiter)
            elif len(row) != len(names):
                complaints.add(f"{at(place, line)}: expected {len(names)} fields as in the header, got {len(row)}")
            else:
                fields: dict[str, Any] = dict(zip(names, row, strict=True))
                if "seed" in fields:
                    fields["seed"] = seed_in(fields["seed"])
                yield line, fields
    except csv.Error as error:
        complaints.add(f"{at(place, begins)}: {_words(error)}")
        return
    if not names:
        complaints.add(f"{place}: expected a header that names the columns, got an empty file")


def _header(row: list[str], place: str, delimiter: str) -> list[str]:
    """Return the names of the columns. Raises UsageError."""
    names = [name.strip().removeprefix("\ufeff") for name in row]
    shown = ", ".join(public_url(name) for name in names)[:200]
    if not any(name in CONTENT for name in names):
        raise UsageError(
            f"{place}: expected a header with a column {', '.join(CONTENT[:-1])} or {CONTENT[-1]}, got {shown}"
            + ("; are the columns separated by something else?" if len(names) == 1 else "")
        )
    if "" in names:
        raise UsageError(f"{place}: expected a name for each column, got none for column {names.index('') + 1}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{place}: the column {twice} stands twice in the header")
    return names


def _words(error: csv.Error) -> str:
    """Say what the csv module means."""
    said = str(error)
    if "field limit" in said:
        return (
            f"expected fields of at most {csv.field_size_limit()} characters, got a longer one; "
            "is a quotation mark never closed?"
        )
    if "unexpected end" in said:
        return "a quotation mark is never closed"
    if "NUL" in said:
        return "expected text, got a zero character (NUL)"
    return f"no valid CSV: {said}"


def jsonl_rows(lines: Iterable[str], place: str, complaints: Complaints) -> Iterator[Row]:
    """Yield one entry a line; blank lines don't count."""
    for number, line in enumerate(lines, 1):
        text = line.strip().lstrip("\ufeff")
        if not text:
            continue
        try:
            yield number, _fields(parsed(text))
        except ValueError as error:
            complaints.add(f"{at(place, number)}: {error}")


def json_rows(file: TextIO, place: str, complaints: Complaints) -> tuple[str, int | None, Iterator[Row]]:
    """Return where entries stand, the seed of all, and the entries of a JSON document, read whole.

    Raises UsageError if it is neither a list nor a mapping with ``prompts``.
    """
    try:
        document = parsed(file.read().lstrip("\ufeff"))
        seed, entries, name = None, document, ""
        if isinstance(document, dict):
            name, entries = ": prompts", document.get("prompts")
            unknown = [one for one in document if one not in ("prompts", "seed")]
            if unknown and "prompts" in document:
                raise ValueError(f"expected prompts and seed, got {got(unknown[0])} beside them")
            try:
                seed = seed_of(document.get("seed"))
            except ValueError as error:
                raise ValueError(f"seed: {error}") from error
        if not isinstance(entries, list):
            raise ValueError(f'expected a list, or {{"prompts": [a list], "seed": 42}}, got {got(document)}')
    except ValueError as error:
        raise UsageError(f"{place}: {error}") from error
    listed = f"{place}{name}["
    return listed, seed, _json_entries(entries, listed, complaints)


def _json_entries(entries: list[Any], place: str, complaints: Complaints) -> Iterator[Row]:
    for number, entry in enumerate(entries, 1):
        try:
            yield number, _fields(entry)
        except ValueError as error:
            complaints.add(f"{at(place, number)}: {error}")


def _fields(entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"prompt": entry}
    if not isinstance(entry, dict):
        raise ValueError(f'expected a text, or fields such as {{"image_url": "https://…"}}, got {got(entry)}')
    return entry


def parsed(text: str) -> Any:
    """Return what a JSON text means. Raises ValueError in words for its author, also for NaN and repeated names."""
    try:
        return _decode(text)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise ValueError("expected JSON, got an empty file") from error
        where = f" in line {error.lineno}" if error.lineno > 1 else ""
        cut = " (cut short?)" if error.pos >= len(text.rstrip()) else ""
        raise ValueError(f"no valid JSON: {error.msg}{where}, column {error.colno}{cut}") from error
    except RecursionError as error:
        raise ValueError("expected fewer levels of nesting") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{got(twice)} stands twice in one object")
    return made


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:  # more Python reads slowly, or not at all
        raise ValueError(f"expected numbers of at most {_DIGITS} digits, got one of {len(digits)}")
    return int(digits)


def _no_number(name: str) -> float:
    raise ValueError(f"no valid JSON: {name} is no number")


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=_no_number).decode
