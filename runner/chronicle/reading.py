"""All that a ledger says, line by line, in columns: every attempt, and the last word on every key."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from runner.chronicle.records import ENDS
from runner.ledger import Ledgers
from runner.report.causes import REST, cause_of

ERRORS_TOLD_APART = 5000
"""With more, errors that differ only in numbers and names are one; if these are as many again, the rest is one."""

NOTHING, FAILED, SAVED = range(3)
"""What the last word on a key may be."""

NO_PLACE = 0xFFFF_FFFF_FFFF_FFFF

_SAVED, _RETRIED, _FAILED, _INTERRUPTED, _DROPPED = range(len(ENDS))
_ENDS = {"saved": _SAVED, "failed": _FAILED, "interrupted": _INTERRUPTED, "dropped": _DROPPED}
_CUT = (_INTERRUPTED, _DROPPED)
_CUT_SHORT = "abandoned"
"""What ``worker`` says of an attempt that was cut."""

_LONGEST_S = 1e8
_LARGEST = 2**60
_BEAT_EVERY = 1000


@dataclass(slots=True)
class Sums:
    """What one run did, by its lines. ``last_s``: when it was heard of last, in seconds since 1970, 0 for never."""

    saved: int = 0
    failed: int = 0
    attempts: int = 0
    bytes: int = 0
    last_s: float = 0.0

    def hear(self, at: float) -> None:
        """Take note that it was heard of."""
        self.last_s = max(self.last_s, at)


@dataclass(slots=True)
class Tries:
    """Every attempt, in the ledger's order. ``sent_s`` is in seconds since 1970; ``image_s`` is of its prompt.

    ``pause_s`` is from the end of its prompt's last attempt until it was sent; 0 for the first. The other columns are
    those of ``records.Attempts``; ``key`` is the place of the key in ``Told.keys``.
    """

    run: array[int] = field(default_factory=lambda: array("I"))
    endpoint: array[int] = field(default_factory=lambda: array("I"))
    key: array[int] = field(default_factory=lambda: array("I"))
    number: array[int] = field(default_factory=lambda: array("B"))
    sent_s: array[float] = field(default_factory=lambda: array("d"))
    wait_s: array[float] = field(default_factory=lambda: array("f"))
    generate_s: array[float] = field(default_factory=lambda: array("f"))
    receive_s: array[float] = field(default_factory=lambda: array("f"))
    image_s: array[float] = field(default_factory=lambda: array("f"))
    end: array[int] = field(default_factory=lambda: array("B"))
    moved: array[int] = field(default_factory=lambda: array("B"))
    status: array[int] = field(default_factory=lambda: array("H"))
    error: array[int] = field(default_factory=lambda: array("I"))
    pause_s: array[float] = field(default_factory=lambda: array("f"))


@dataclass(slots=True)
class Words:
    """The last word on each key, by its place in ``Told.keys``.

    ``kind``: NOTHING, FAILED or SAVED, by the run ``run``; ``before`` is the same as of the runs before that one.
    ``saved_at`` and ``last_at``: where in the ledger the line of its latest result, and of its last word, begins.
    """

    kind: bytearray = field(default_factory=bytearray)
    before: bytearray = field(default_factory=bytearray)
    run: array[int] = field(default_factory=lambda: array("I"))
    saved_at: array[int] = field(default_factory=lambda: array("Q"))
    last_at: array[int] = field(default_factory=lambda: array("Q"))


@dataclass(slots=True)
class Told:
    """What a ledger tells. ``runs``, ``endpoints``, ``keys`` and ``errors`` give what columns refer to its number.

    ``names`` are other names that runs go by.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    endpoints: dict[str, int] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=lambda: {"": 0})
    sums: list[Sums] = field(default_factory=list)
    of_endpoint: dict[tuple[int, int], Sums] = field(default_factory=dict)
    """What each endpoint did in each run: by the numbers of both."""
    tries: Tries = field(default_factory=Tries)
    fetches: dict[tuple[int, int], list[tuple[float, float]]] = field(default_factory=dict)
    """When images were fetched of prompts that came to nothing else, by run and endpoint, in seconds since 1970."""
    words: Words = field(default_factory=Words)
    unreadable: int = 0

    def run_of(self, said: Mapping[str, Any]) -> str:
        """Return the name of the run that a line is of."""
        name = str(said["run"])
        return self.names.get(name, name)

    def error(self, text: str, key: str) -> int:
        """Return the number of an error's text."""
        if text not in self.errors and len(self.errors) > ERRORS_TOLD_APART:
            text = cause_of(text, key)
            if text not in self.errors and len(self.errors) > 2 * ERRORS_TOLD_APART:
                text = REST
        return self.errors.setdefault(text, len(self.errors))


def read(
    ledgers: Ledgers,
    endpoints: Iterable[str] = (),
    *,
    names: Mapping[str, str] | None = None,
    beat: Callable[[], None] | None = None,
) -> Told:
    """Read all ledgers of a folder; what nobody can read is counted. Raises StorageError.

    ``endpoints`` get the first numbers, in their order; others as they come. ``names`` are other names of runs, such
    as that of the round of a shard's. ``beat`` is called now and then, and may raise to end the reading.
    """
    told = Told(names=names or {})
    for name in endpoints:
        _number(told.endpoints, name)
    for count, (place, line) in enumerate(ledgers.lines()):
        if beat and count % _BEAT_EVERY == 0:
            beat()
        try:
            _add(told, place, json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            told.unreadable += 1
    return told


def seconds_of(at: str) -> float:
    """Return a time of ``clock.utc_now`` in seconds since 1970. Raises ValueError.

    >>> seconds_of("1970-01-01T00:01:00.500Z")
    60.5
    """
    return datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()


def _add(told: Told, place: int, said: Mapping[str, Any]) -> None:
    """Take note of a line. What can't be read of it is found out before anything is noted."""
    if said["outcome"] == "submitted":
        _sums_of(told, said).hear(_moment(said["finished_at"]))
        return
    key, kind, name = str(said["key"]), _ENDS[said["outcome"]], str(said["endpoint"])
    finished_s = _moment(said["finished_at"])
    sizes = [said["size_bytes"] or 0, *(one["size_bytes"] for one in said.get("more", ()))]
    size = sum(_whole(one, _LARGEST) for one in sizes)
    attempts = [*_attempts(said, kind)]
    total = _sums_of(told, said)
    run = told.runs[told.run_of(said)]
    number = _number(told.keys, key)
    if number == len(told.words.kind):
        _new_word(told.words, run)
    if kind in (_SAVED, _FAILED):
        _take_word(told.words, number, run, place, SAVED if kind == _SAVED else FAILED)
    who = run, _number(told.endpoints, name)
    for sums in (total, told.of_endpoint.setdefault(who, Sums())):
        sums.saved += kind == _SAVED
        sums.failed += kind == _FAILED
        sums.bytes += size if kind == _SAVED else 0
        sums.hear(finished_s)
    if not attempts and said["image_s"] and finished_s:
        told.fetches.setdefault(who, []).append((finished_s - _seconds(said["seconds"]), finished_s))
    for one in attempts:
        _add_attempt(told, run, number, key, one)


def _sums_of(told: Told, said: Mapping[str, Any]) -> Sums:
    run = _number(told.runs, told.run_of(said))
    if run == len(told.sums):
        told.sums.append(Sums())
    return told.sums[run]


def _number(numbers: dict[str, int], name: str) -> int:
    return numbers.setdefault(name, len(numbers))


def _new_word(words: Words, run: int) -> None:
    words.kind.append(NOTHING)
    words.before.append(NOTHING)
    words.run.append(run)
    words.saved_at.append(NO_PLACE)
    words.last_at.append(NO_PLACE)


def _take_word(words: Words, number: int, run: int, place: int, kind: int) -> None:
    """Take a line for the last word on its key."""
    if words.run[number] != run:
        words.before[number] = words.kind[number]
        words.run[number] = run
    words.kind[number] = kind
    words.last_at[number] = place
    if kind == SAVED:
        words.saved_at[number] = place


class _Try(NamedTuple):
    """An attempt as a line tells it; all columns in their order but run and key."""

    endpoint: str
    number: int
    sent_s: float
    wait_s: float
    generate_s: float
    receive_s: float
    image_s: float
    end: int
    moved: bool
    status: int
    error: str
    pause_s: float


def _attempts(said: Mapping[str, Any], kind: int) -> Iterator[_Try]:
    home = said["moved_from"] or said["endpoint"]
    last = len(said["attempts"]) - 1
    ended_s = 0.0
    for place, one in enumerate(said["attempts"]):
        if not (sent_s := _moment(one["started_at"])):
            continue  # nobody can say where on the timeline it was
        generate_s, receive_s = _seconds(one["generate_s"]), _seconds(one["receive_s"])
        error = str(one["error"] or "")
        yield _Try(
            endpoint=str(one["endpoint"]),
            number=_whole(one["number"], 255),
            sent_s=sent_s,
            wait_s=_seconds(one["wait_s"]),
            generate_s=generate_s,
            receive_s=receive_s,
            image_s=_seconds(said["image_s"]) if place == 0 else 0.0,
            end=_RETRIED if place < last or (kind in _CUT and _failed_by_itself(error)) else kind,
            moved=one["endpoint"] != home,
            status=_whole(one["status"] or 0, 999),
            error=error,
            pause_s=max(0.0, sent_s - ended_s) if ended_s else 0.0,
        )
        ended_s = sent_s + generate_s + receive_s


def _failed_by_itself(error: str) -> bool:
    """Tell whether an attempt had failed before its prompt was given up, and was not cut for that."""
    return bool(error) and _CUT_SHORT not in error


def _moment(at: Any) -> float:
    """Return a time in seconds since 1970; 0 for what is none."""
    try:
        return max(0.0, seconds_of(at))
    except (ValueError, AttributeError, OverflowError):
        return 0.0


def _whole(value: Any, most: int) -> int:
    """Return a whole number as far as it can be one: from 0 to ``most``."""
    return int(min(max(0, value), most))


def _seconds(value: Any) -> float:
    """Return a duration; 0 for what can be none."""
    return float(value) if 0 <= value < _LONGEST_S else 0.0


def _add_attempt(told: Told, run: int, key: int, name: str, one: _Try) -> None:
    endpoint = _number(told.endpoints, one.endpoint)
    told.of_endpoint.setdefault((run, endpoint), Sums()).attempts += 1
    told.sums[run].attempts += 1
    tries = told.tries
    tries.run.append(run)
    tries.endpoint.append(endpoint)
    tries.key.append(key)
    tries.number.append(one.number)
    tries.sent_s.append(one.sent_s)
    tries.wait_s.append(one.wait_s)
    tries.generate_s.append(one.generate_s)
    tries.receive_s.append(one.receive_s)
    tries.image_s.append(one.image_s)
    tries.end.append(one.end)
    tries.moved.append(one.moved)
    tries.status.append(one.status)
    tries.error.append(told.error(one.error, name))
    tries.pause_s.append(one.pause_s)
