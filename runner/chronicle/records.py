"""What a report is made of: the runs of a folder, every attempt, every prompt, and what lay idle and why.

What there may be a hundred thousand of stands in columns (``array``), one a field, all of equal length.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from runner.report import Cause

NONE = 0xFFFF
"""Stands in a column of 16 bits for no run, or no endpoint."""

NO_PROMPT = 0xFFFF_FFFF
"""Stands in ``Attempts.prompt`` for a prompt that is not among the rows."""

ENDS = ("saved", "retried", "failed", "interrupted", "dropped")
"""How an attempt ended, by the numbers in ``Attempts.end``. ``retried``: it failed, and the prompt went on."""

STATES = ("failed", "pending", "saved")
"""How a prompt stands, by the numbers in ``Rows.state``; rows stand in this order."""

CHANGES = ("", "newly saved", "newly failed", "failed again", "made again")
"""What the run that is shown changed of a prompt, by the numbers in ``Rows.change``."""

REASONS = {
    "start": "before the first request",
    "out": "out",
    "wait": "the server asked to wait, or a pause before another attempt",
    "image": "waiting for the prompt's image",
    "receive": "the result before was still arriving",
    "client": "between an answer and the next request",
    "over": "nothing left to do",
    "end": "the run was ending",
    "unheard": "at work or idle, it was not heard of since",
}
"""Why an endpoint lay idle, by what ``Idle.why`` says."""


@dataclass(frozen=True, slots=True)
class Server:
    """An endpoint as the runs knew it; ``url`` is without secrets, "" where nobody noted it."""

    name: str
    url: str = ""
    slots: int = 1


@dataclass(frozen=True, slots=True)
class Turn:
    """What one endpoint did in one run. ``endpoint`` is its place in ``Chronicle.endpoints``.

    ``busy_s``: seconds that its slots generated, added up. ``share``: of the run's seconds, times its slots, as far
    as it was heard of, 0 to 1.
    ``median_s``: of its generations that gave a result, None if there were none. ``slow``: it took twice what
    the others take, or more. ``before_s``: its ``median_s`` in the run that this one is compared with. ``idle``:
    seconds by ``REASONS``. ``slots``: generations at a time, in that run.
    """

    endpoint: int
    saved: int = 0
    failed: int = 0
    attempts: int = 0
    outages: int = 0
    bytes: int = 0
    busy_s: float = 0.0
    share: float = 0.0
    median_s: float | None = None
    slow: bool = False
    before_s: float | None = None
    idle: Mapping[str, float] = field(default_factory=dict)
    slots: int = 1


@dataclass(frozen=True, slots=True)
class Run:
    """One run in the folder. Counts are of that run; None where nobody knows (it was killed).

    ``ended``: ``done``, ``stopped`` (and ``why`` says why, in words), ``killed``, None while it is going on, or
    ``unknown`` of one that left no trail, as those before this was kept.
    ``seconds``: wall-clock; of a run without a summary until its last trace. ``share``: of the endpoints' seconds
    those in which they generated, 0 to 1. ``command``: what was typed, None where it is not known; of several shards'
    runs that of one that has something left. ``turns``: one for each of its endpoints. ``shards``: so many shards
    whose runs these are, 0 if it was of the whole list; ``left``: the numbers of those that have prompts without a
    result now, only of the run that is told of.
    """

    name: str
    began_at: str
    seconds: float
    ended: Literal["done", "stopped", "killed", "unknown"] | None
    why: str = ""
    total: int | None = None
    saved: int = 0
    skipped: int | None = None
    failed: int = 0
    pending: int | None = None
    attempts: int = 0
    bytes: int = 0
    share: float = 0.0
    command: str | None = None
    turns: tuple[Turn, ...] = ()
    shards: int = 0
    left: tuple[int, ...] = ()

    @property
    def a_minute(self) -> float:
        """Results a minute."""
        return 60 * self.saved / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Outage:
    """An endpoint was out, in seconds from its run's beginning; ``until_s`` is None if it did not come back."""

    run: int
    endpoint: int
    from_s: float
    until_s: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Idle:
    """A time in which an endpoint's slot had nothing to generate, in seconds from its run's beginning."""

    run: int
    endpoint: int
    slot: int
    from_s: float
    until_s: float
    why: str


@dataclass(slots=True)
class Attempts:
    """Every attempt, sorted by run, endpoint, and when it was sent.

    ``start_s``: when it was sent, in seconds from its run's beginning; it then generated for ``generate_s``, and its
    result arrived for ``receive_s``; before, it stood ready for ``wait_s``. ``slot``: which of its endpoint's slots
    it had, from 0. ``number``: from 1, of its prompt. ``end``: see ``ENDS``. ``moved``: 1 if its prompt was not this
    lane's. ``status``: HTTP, 0 if none came. ``error``: its place in ``Chronicle.errors``, 0 for none. ``prompt``:
    the place of its prompt's row, or NO_PROMPT.
    """

    run: array[int] = field(default_factory=lambda: array("H"))
    endpoint: array[int] = field(default_factory=lambda: array("H"))
    slot: array[int] = field(default_factory=lambda: array("B"))
    prompt: array[int] = field(default_factory=lambda: array("I"))
    number: array[int] = field(default_factory=lambda: array("B"))
    start_s: array[float] = field(default_factory=lambda: array("f"))
    wait_s: array[float] = field(default_factory=lambda: array("f"))
    generate_s: array[float] = field(default_factory=lambda: array("f"))
    receive_s: array[float] = field(default_factory=lambda: array("f"))
    end: array[int] = field(default_factory=lambda: array("B"))
    moved: array[int] = field(default_factory=lambda: array("B"))
    status: array[int] = field(default_factory=lambda: array("H"))
    error: array[int] = field(default_factory=lambda: array("I"))

    def __len__(self) -> int:
        return len(self.run)


@dataclass(slots=True)
class Rows:
    """Every prompt and how it stands: failed ones first, then pending, then saved, each in the list's order.

    ``prompts``: what was asked, without secrets, cut. ``images``: where its image is, with its secrets, for who
    fetches it: never to be shown. ``run`` and ``endpoint``: of its last word, NONE for none. ``attempts``: in that
    run. The seconds are 0 where nobody took the time: ``generate_s`` of the attempt that gave the result, ``image_s``
    of fetching its image, ``save_s`` of verifying and writing, ``seconds`` from beginning to end. ``files`` is the
    result's name in the folder, "" if there is none; ``formats`` its format; ``missing``: 1 if it is not there, or
    not as it was saved; ``more``: how many further files there are. ``error``: its place in ``Chronicle.errors``.
    ``change``: see ``CHANGES``.
    """

    keys: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    state: array[int] = field(default_factory=lambda: array("B"))
    run: array[int] = field(default_factory=lambda: array("H"))
    endpoint: array[int] = field(default_factory=lambda: array("H"))
    attempts: array[int] = field(default_factory=lambda: array("H"))
    generate_s: array[float] = field(default_factory=lambda: array("f"))
    image_s: array[float] = field(default_factory=lambda: array("f"))
    save_s: array[float] = field(default_factory=lambda: array("f"))
    seconds: array[float] = field(default_factory=lambda: array("f"))
    size_bytes: array[float] = field(default_factory=lambda: array("d"))
    files: list[str] = field(default_factory=list)
    formats: list[str] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    missing: array[int] = field(default_factory=lambda: array("B"))
    more: array[int] = field(default_factory=lambda: array("H"))
    error: array[int] = field(default_factory=lambda: array("I"))
    change: array[int] = field(default_factory=lambda: array("B"))

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Changes:
    """What the run that is shown changed, against all that was before. Keys are capped; counts are not.

    ``newly_failed``: failed now, and not before. ``failed_again``: failed before, and still. ``made_again``: there
    had been a result before.
    """

    newly_saved: int = 0
    newly_failed: int = 0
    failed_again: int = 0
    newly_saved_keys: tuple[str, ...] = ()
    newly_failed_keys: tuple[str, ...] = ()
    failed_again_keys: tuple[str, ...] = ()
    made_again: int = 0
    made_again_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chronicle:
    """All that a report says of a folder.

    ``total``, ``saved``, ``failed`` and ``pending`` count the prompts of its list as they stand, whichever run did
    them. ``runs`` are in the order of time; ``shown`` is the place of the one that is told of (the latest that had
    anything to do, else the latest), None if there is none; ``before`` that of the run which it is compared
    with. ``causes`` are of the prompts that have failed as things stand. ``errors``: texts that columns refer to; the
    first is "". ``notes``: what a reader has to know of what is not shown.
    ``what``: which model or protocol the endpoints were asked with, in a few words; "" where nobody noted it.
    """

    folder: str
    made_at: str
    total: int
    saved: int
    failed: int
    pending: int
    endpoints: tuple[Server, ...]
    runs: tuple[Run, ...]
    shown: int | None
    before: int | None
    attempts: Attempts
    rows: Rows
    errors: list[str]
    outages: tuple[Outage, ...] = ()
    idle: tuple[Idle, ...] = ()
    causes: tuple[Cause, ...] = ()
    changes: Changes = Changes()
    notes: tuple[str, ...] = ()
    what: str = ""

    @property
    def run(self) -> Run | None:
        """The run that is told of."""
        return None if self.shown is None else self.runs[self.shown]

    @property
    def previous(self) -> Run | None:
        """The run that it is compared with."""
        return None if self.before is None else self.runs[self.before]
