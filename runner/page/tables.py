"""What stands in the page's tables: one line an endpoint, and one block for each cause of failures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from runner.chronicle import REASONS, STATES, Chronicle, Run, Turn
from runner.page.verdict import UNKNOWN
from runner.page.words import percent, several, visible
from runner.report import Cause, plain
from runner.report.causes import cause_of

CAUSES_SHOWN = 40
_KEYS_SHOWN = 6
_ENDPOINTS_SHOWN = 8
_NATURAL = ("start", "over", "end", "unheard")
"""Every endpoint is idle at the beginning and at the end."""

_ADDRESS = re.compile(r"^(image: )?[a-z][a-z0-9+.-]*://\S+?(:?) (?=\S)")
_DETAIL = re.compile(r'(?<=: )\{\s*"(?:detail|error|message)"\s*:\s*"([^"\\]+)"\s*\}$')
_SHORT = 300
_LOOKED_AT = 20_000
"""After so many failed prompts no further examples are looked for."""


@dataclass(frozen=True, slots=True)
class Line:
    """An endpoint in the table. ``parts`` are what its time went on: a name, a share of it, and that in words."""

    turn: Turn
    name: str
    url: str
    slots: int
    change: str
    tone: str
    others: str
    busy: str
    parts: tuple[tuple[str, float, str], ...]
    most: str


@dataclass(frozen=True, slots=True)
class Block:
    """A cause of failures: the first one's ``error`` in full and in ``short``, and some ``keys`` that have it."""

    cause: Cause
    short: str
    error: str
    endpoints: tuple[str, ...]
    more_endpoints: int
    keys: tuple[str, ...]
    tries: str


def lines(told: Chronicle, run: Run) -> list[Line]:
    """Return what each endpoint did in a run."""
    return [_line(told, run, turn) for turn in run.turns]


def _line(told: Chronicle, run: Run, turn: Turn) -> Line:
    server = told.endpoints[turn.endpoint]
    change, tone = _change(turn)
    told_of = turn.busy_s + sum(turn.idle.values())  # more than the run took, where that was rounded
    whole = max(run.seconds * turn.slots, told_of, 1e-9)
    idle = [(name, turn.idle.get(name, 0.0) / whole) for name in REASONS]
    parts = [(name, share, f"{percent(share)} {REASONS[name]}") for name, share in idle if share >= 0.001]
    is_known = bool(turn.attempts) or run.ended not in (None, "killed")
    busy = [("busy", turn.busy_s / whole, f"{percent(turn.busy_s / whole)} generating")] if is_known else []
    return Line(
        turn=turn,
        name=plain(server.name),
        url=plain(server.url),
        slots=turn.slots,
        change=change,
        tone=tone,
        others=_others(run, turn) if turn.slow else "",
        busy=percent(turn.share) if is_known else UNKNOWN,
        parts=(*busy, *parts),
        most=_why_idle(parts),
    )


def _why_idle(parts: list[tuple[str, float, str]]) -> str:
    """Say why an endpoint was idle for most of the time: what might have been helped first."""
    told = [part for part in parts if part[1] >= 0.01]
    ranked = sorted(told, key=lambda part: (part[0] in _NATURAL or part[1] < 0.03, -part[1]))
    return ", ".join(words for _, _, words in ranked[:2])


def _change(turn: Turn) -> tuple[str, str]:
    if turn.median_s is None or not turn.before_s:
        return "", "even"
    change = turn.median_s / turn.before_s - 1
    if abs(change) < 0.03:
        return "as before", "even"
    if change > 0:
        return f"▲ {percent(change)} slower", "bad" if change > 0.1 else "even"
    return f"▼ {percent(-change)} faster", "good"


def _others(run: Run, turn: Turn) -> str:
    others = [one.median_s for one in run.turns if one.median_s and one.endpoint != turn.endpoint]
    if not others or not turn.median_s:
        return "slow"
    return f"{turn.median_s / median(others):.1f} × the others"


def blocks(told: Chronicle) -> list[Block]:
    """Return the most frequent causes of failures, each with prompts that show it."""
    shown = told.causes[:CAUSES_SHOWN]
    examples: dict[str, list[int]] = {cause.text: [] for cause in shown}
    for row, text in _failed(told):
        found = examples.get(text)
        if found is not None and len(found) < _KEYS_SHOWN:
            found.append(row)
    return [_block(told, cause, examples[cause.text]) for cause in shown]


def _failed(told: Chronicle) -> Iterator[tuple[int, str]]:
    failed, rows = STATES.index("failed"), told.rows
    for row in range(min(len(rows), _LOOKED_AT)):
        if rows.state[row] == failed:
            yield row, cause_of(told.errors[rows.error[row]], rows.keys[row])


def _block(told: Chronicle, cause: Cause, examples: list[int]) -> Block:
    keys = list(dict.fromkeys([cause.key, *(told.rows.keys[row] for row in examples)]))[:_KEYS_SHOWN]
    tries = [told.rows.attempts[row] for row in examples]
    return Block(
        cause=cause,
        short=plain(_short(cause.error)),
        error=visible(cause.error),
        endpoints=tuple(map(plain, cause.endpoints[:_ENDPOINTS_SHOWN])),
        more_endpoints=max(0, len(cause.endpoints) - _ENDPOINTS_SHOWN),
        keys=tuple(map(plain, keys)),
        tries=_tries(tries),
    )


def _short(error: str) -> str:
    """Return an error's first line without the address that it begins with, and a JSON answer's words without JSON.

    >>> _short("http://a:1/generate answers 500: no room\\nat line 3")
    'answers 500: no room'
    >>> _short('http://a:1 answers 422: {"detail":"no object"}')
    'answers 422: no object'
    >>> _short("image: http://a/b.png answers 404"), _short("image: http://a/b.png: took longer than image_s (5 s)")
    ('the image answers 404', 'the image: took longer than image_s (5 s)')
    """
    first = next(iter(error.splitlines()), "")
    found = _ADDRESS.match(first)
    if found:
        first = (f"the image{found[2]} " if found[1] else "") + first[found.end() :]
    return _DETAIL.sub(r"\1", first)[:_SHORT] or "nobody said why"


def _tries(tries: list[int]) -> str:
    if not tries or not max(tries):
        return ""
    least, most = min(tries), max(tries)
    return f"after {several(most, 'attempt')}" if least == most else f"after {least} to {most} attempts"
