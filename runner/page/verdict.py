"""What a reader should know after ten seconds: how it stands, how the run ended, its figures beside the last's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from runner.chronicle import Chronicle, Run
from runner.page.words import THIN, duration, figure, number, percent, several, size
from runner.report import plain, why

Tone = Literal["good", "bad", "even"]

UNKNOWN = "–"
"""Stands where nobody can know a figure yet."""

_FORMATS_NAMED = 3
_NOTEWORTHY = 0.01
"""A smaller change than this share is none."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the verdict. ``change`` says in words what it was in the run before, "" if there was none."""

    name: str
    value: str
    note: str = ""
    change: str = ""
    tone: Tone = "even"


def headline(told: Chronicle) -> str:
    """Say in one sentence how the folder's prompts stand."""
    if not told.total:
        return "Nothing has run in this folder yet" if told.run is None else "There was no prompt to work on"
    going = told.run is not None and told.run.ended is None
    if told.saved == told.total:
        if told.total == 1:
            return "The one prompt has a verified result"
        return f"All {number(told.total)} prompts have a verified result"
    parts = [f"{number(told.saved)} of {several(told.total, 'prompt')} saved"]
    if told.failed:
        parts.append(f"{number(told.failed)} failed")
    if told.pending:
        parts.append(f"{number(told.pending)} still to do" if going else f"{number(told.pending)} pending")
    return " · ".join(parts)


def mood(told: Chronicle) -> str:
    """Return what the headline is in one word: it chooses its sign and colour."""
    if told.run is not None and told.run.ended is None:
        return "going"
    if not told.total:
        return "none"
    if told.failed:
        return "failed"
    return "pending" if told.pending else "saved"


def ending(run: Run) -> str:
    """Say how a run ended, as the end of a sentence."""
    if run.ended is None:
        return "is going on"
    if run.ended == "killed":
        return "was killed: it left no summary, and its length is that of its last trace"
    if run.ended == "unknown":
        return "left its results and no word of how it ended; its length is that of its last trace"
    if run.ended == "stopped":
        return f"was stopped: {plain(run.why) or why(None)}"
    return "finished"


def doings(told: Chronicle, run: Run) -> str:
    """Say what a run did, as opposed to how the folder stands."""
    counts = ((run.saved, "saved"), (run.failed, "failed"))
    parts = [f"{number(many)} {word}" for many, word in counts if many or not is_unheard(run)]
    if run.pending:
        parts.append(f"{number(run.pending)} left pending")
    if run.skipped:
        parts.append(f"{number(run.skipped)} already there")
    if not run.attempts:
        return ": ".join(filter(None, (_asked_nothing(run), ", ".join(parts))))
    asked = several(sum(1 for turn in run.turns if turn.attempts), "endpoint")
    made = ", ".join(_formats(told))
    if made and run.saved:
        parts[0] = f"{several(run.saved, 'result')} saved ({made})"
    what = f" ({plain(told.what)})" if told.what else ""
    if run.ended is None:
        return f"So far {several(run.attempts, 'attempt')} ended on {asked}{what}: {', '.join(parts)}"
    return f"It asked {asked}{what} in {several(run.attempts, 'attempt')}: {', '.join(parts)}"


def _asked_nothing(run: Run) -> str:
    """Say why there is no attempt to be told of: a run without a summary may have asked, and not been answered."""
    if run.ended is None:
        return "No generation of this run has ended yet"
    return "No generation of this run had ended" if run.ended == "killed" else "It asked no endpoint for anything"


def _formats(told: Chronicle) -> list[str]:
    """Return the formats of the results of the run that is told of, the most frequent first."""
    rows = told.rows
    counts = Counter(name for name, run in zip(rows.formats, rows.run, strict=True) if name and run == told.shown)
    return [plain(name).upper() for name, _ in counts.most_common(_FORMATS_NAMED)]


def figures(told: Chronicle) -> list[Figure]:
    """Return the numbers of the run that is told of, beside those of the run before."""
    run, last = told.run, told.previous
    if run is None:
        return []
    if is_unheard(run):
        return _unheard(run)
    return [
        Figure("Duration", duration(run.seconds), "wall clock" if run.ended else "so far", *_lengths(run, last)),
        Figure("Throughput", figure(run.a_minute), "results a minute", *_paces(run, last)),
        Figure("Endpoints busy", percent(run.share), "of their time", *_shares(run, last)),
        Figure("Received", size(run.bytes), f"in {several(run.saved, 'result')}", *_sizes(run, last)),
        Figure("Endpoints", number(len(run.turns)), _at_work(run), *_counts(run, last)),
    ]


def is_unheard(run: Run) -> bool:
    """Tell whether nobody can know what the endpoints did: the run goes on, or was killed, and none answered."""
    return not run.attempts and run.ended in (None, "killed")


def _unheard(run: Run) -> list[Figure]:
    """Return the figures of a run of which no generation has ended: a zero would be a guess."""
    so_far = "so far" if run.ended is None else "until its last trace"
    return [
        Figure("Duration", duration(run.seconds) if run.seconds else UNKNOWN, so_far),
        Figure("Throughput", UNKNOWN, "results a minute"),
        Figure("Endpoints busy", UNKNOWN, "of their time"),
        Figure("Received", UNKNOWN, "in no result yet" if run.ended is None else "in no result"),
        Figure("Endpoints", number(len(run.turns)) if run.turns else UNKNOWN, _at_work(run)),
    ]


def _at_work(run: Run) -> str:
    """Say how many endpoints have answered, and what befell them."""
    working = sum(1 for turn in run.turns if turn.attempts)
    out = sum(turn.outages for turn in run.turns)
    slow = sum(turn.slow for turn in run.turns)
    every = "all" if working == len(run.turns) else number(working) if working else "none"
    parts = [f"{every} heard of so far" if run.ended is None else f"{every} at work"] if run.turns else ["none known"]
    if is_unheard(run) and run.ended:
        parts = ["none answered"]
    parts += [several(out, "outage")] if out else []
    parts += [f"{slow} slow"] if slow else []
    return ", ".join(parts)


def _lengths(run: Run, last: Run | None) -> tuple[str, Tone]:
    if last is None or not last.seconds or run.ended is None:
        return "", "even"
    more = run.seconds - last.seconds
    if abs(more) < _NOTEWORTHY * last.seconds:
        return "as long as the run before", "even"
    return (
        f"{'▲' if more > 0 else '▼'} {duration(abs(more))} {'longer' if more > 0 else 'shorter'} than before",
        "even",
    )


def _paces(run: Run, last: Run | None) -> tuple[str, Tone]:
    if last is None or not last.a_minute or not run.saved:
        return "", "even"
    change = run.a_minute / last.a_minute - 1
    if abs(change) < _NOTEWORTHY:
        return f"as fast as before ({figure(last.a_minute)})", "even"
    if change > 0:
        return f"▲ {_change(change)} faster than before ({figure(last.a_minute)})", "good"
    return f"▼ {_change(-change)} slower than before ({figure(last.a_minute)})", "bad"


def _shares(run: Run, last: Run | None) -> tuple[str, Tone]:
    if last is None:
        return "", "even"
    points = round(100 * run.share) - round(100 * last.share)
    if not points:
        return "as busy as before", "even"
    words = several(abs(points), "point")
    return (f"▲ {words} more than before", "good") if points > 0 else (f"▼ {words} less than before", "bad")


def _sizes(run: Run, last: Run | None) -> tuple[str, Tone]:
    if last is None or not last.saved or not run.saved:
        return "", "even"
    change = run.bytes / run.saved / max(last.bytes / last.saved, 1) - 1
    if abs(change) < _NOTEWORTHY:
        return "a result as large as before", "even"
    sign, word = ("▲", "larger") if change > 0 else ("▼", "smaller")
    return f"{sign} a result {_change(abs(change))} {word} than before", "even"


def _counts(run: Run, last: Run | None) -> tuple[str, Tone]:
    if last is None:
        return "", "even"
    more = len(run.turns) - len(last.turns)
    if not more:
        return "as many as before", "even"
    return f"{'▲' if more > 0 else '▼'} {abs(more)} {'more' if more > 0 else 'fewer'} than before", "even"


def _change(share: float) -> str:
    """Return by how much something changed: from twice on, percents say little.

    >>> _change(0.12).replace(THIN, " "), _change(2.5).replace(THIN, " ")
    ('12 %', '3.5 ×')
    """
    return f"{1 + share:.1f}{THIN}×" if share >= 1 else percent(share)
