"""Lines of a ledger that are read a second time: in its order, and mostly without a JSON parser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from runner.ledger.history import _PLAIN, Recorded, _recorded
from runner.ledger.joined import Ledgers, joined
from runner.storage import no_pipe, refusals

_NUMBER = rb"[0-9.e+-]{1,30}"
_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_REST = re.compile(
    rb'"endpoint":"([^"\\]*)","seed":(?:-?[0-9]{1,20}|null),"protocol":%b,"sha256":(?:"([0-9a-f]{64})"|null),'
    rb'"image_s":%b,"save_s":%b,"seconds":%b,"finished_at":"([^"\\]*)","error":(null|%b),'
    % (_TEXT, _NUMBER, _NUMBER, _NUMBER, _TEXT)
)
"""What every line holds behind its prompt. No text can hold the beginning of this: its quotes would be escaped."""

_FAILED = re.compile(rb'{"key":"([^"\\]*)","outcome":"failed","')
_GENERATED = b'"generate_s":'
_TAIL_BYTES = 1024 * 1024


class SavedFile(NamedTuple):
    """A file as it was when it was saved; ``sha256`` is None where nobody took note of it."""

    name: str
    format: str
    size_bytes: int
    sha256: str | None


class Result(NamedTuple):
    """What was saved of a prompt, by the line that begins at ``place``."""

    key: str
    place: int
    files: tuple[SavedFile, ...]


class End(NamedTuple):
    """How a prompt ended, for counting: ``endpoint`` in UTF-8, ``size_bytes`` of all its files, ``error`` as JSON.

    ``generate_s`` is that of the last attempt of a saved one, None if there was none.
    """

    key: bytes
    is_saved: bool
    endpoint: bytes
    finished_at: bytes
    size_bytes: int
    generate_s: float | None
    error: bytes

    @property
    def error_text(self) -> str:
        """The error; "" if there was none."""
        return self.error[1:-1].decode(errors="replace") if b"\\" not in self.error else str(json.loads(self.error))


def lines_at(source: Path | Ledgers, places: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that begin at ``places`` (ascending), each with its place; nothing if the ledger is gone."""
    return joined(source).lines_at(places)


def results_at(source: Path | Ledgers, places: Iterable[int]) -> Iterator[Result | None]:
    """Yield the results of the lines at ``places``; None for a line that says nothing of the kind any more."""
    for place, line in lines_at(source, places):
        yield _quick_result(place, line) or whole_result(place, line)


def whole_result(place: int, line: bytes) -> Result | None:
    """Return the result of a line, if all of it can be read."""
    found = _recorded(line)
    if found is None or found.outcome != "saved":
        return None
    more = (SavedFile(str(one["file"]), str(one["format"]), _size(one), _digest(one)) for one in found.more)
    return Result(found.key, place, (_first(found), *more))


def ends_at(source: Path | Ledgers, places: Iterable[int]) -> Iterator[End]:
    """Yield how the prompts of the lines at ``places`` ended; what can't be read is passed over."""
    for _, line in lines_at(source, places):
        end = _quick_end(line) or _slow_end(line)
        if end is not None:
            yield end


def recorded_at(source: Path | Ledgers, places: Iterable[int]) -> Iterator[Recorded]:
    """Yield all that the lines at ``places`` say; what can't be read is passed over."""
    for _, line in lines_at(source, places):
        if found := _recorded(line):
            yield found


def last_run_named(path: Path) -> str | None:
    """Return the name of the run that wrote the last whole line of a ledger; None if there is none."""
    with refusals(f"{path} can't be read"), suppress(FileNotFoundError), open(path, "rb", opener=no_pipe) as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
        for line in reversed(file.read(_TAIL_BYTES).splitlines()):
            with suppress(ValueError, RecursionError):
                said = json.loads(line)
                if isinstance(said, dict) and isinstance(said.get("run"), str):
                    return str(said["run"])
    return None


def _quick_result(place: int, line: bytes) -> Result | None:
    found = _PLAIN.match(line)
    if found is None:
        return None  # as the first of several results, which has another name
    rest = _REST.search(line, found.end())
    if rest is None or rest[2] is None:
        return None
    try:
        key = found[1].decode()
    except ValueError:
        return None
    kind = found[3].decode()
    return Result(key, place, (SavedFile(f"{key}.{kind}", kind, int(found[4]), rest[2].decode()),))


def _first(found: Recorded) -> SavedFile:
    return SavedFile(found.file or "", found.format or "", found.size_bytes or 0, found.sha256)


def _size(said: Mapping[str, Any]) -> int:
    return said["size_bytes"] if isinstance(said["size_bytes"], int) else -1  # somebody edited it: no file has that


def _digest(said: Mapping[str, Any]) -> str | None:
    return None if said["sha256"] is None else str(said["sha256"])


def _quick_end(line: bytes) -> End | None:
    begin = _PLAIN.match(line) or _FAILED.match(line)
    if begin is None:
        return None
    rest = _REST.search(line, begin.end())
    if rest is None:
        return None
    endpoint, _, finished_at, error = rest.groups()
    if begin.re is _FAILED:
        return End(begin[1], False, endpoint, finished_at, 0, None, error if error != b"null" else b'""')
    return End(begin[1], True, endpoint, finished_at, int(begin[4]), _generated(line), b'""')


def _generated(line: bytes) -> float | None:
    """Return what the last attempt of a line took; it is the last such number in it."""
    at = line.rfind(_GENERATED)
    if at < 0:
        return None
    at += len(_GENERATED)
    try:
        return float(line[at : line.index(b",", at)])
    except ValueError:
        return None


def _slow_end(line: bytes) -> End | None:
    found = _recorded(line)
    if found is None:
        return None
    try:
        said = json.loads(line)
        last = said["attempts"][-1]["generate_s"] if said["attempts"] and found.outcome == "saved" else None
        sizes = [found.size_bytes or 0, *(int(one["size_bytes"]) for one in found.more)]
        return End(
            found.key.encode(errors="surrogatepass"),
            found.outcome == "saved",
            found.endpoint.encode(errors="surrogatepass"),
            str(said.get("finished_at", "")).encode(errors="surrogatepass"),
            sum(sizes),
            None if last is None else float(last),
            json.dumps(found.error or "").encode(),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
