"""Say what happened, as text for a terminal and as Markdown for a page or a chat."""

from __future__ import annotations

import re
from collections.abc import Iterator

from runner.chronicle.records import Chronicle, Run, Turn
from runner.clock import utc_age_s
from runner.report import and_more, cause_text, in_words, plain, table

_COLUMNS = (
    "endpoint",
    "saved",
    "failed",
    "attempts",
    "outages",
    "median s",
    "before",
    "busy s",
    "busy %",
    "idle",
    "MB",
)
_IN_SHORT = {
    "start": "starting",
    "out": "out",
    "wait": "made to wait",
    "image": "waiting for images",
    "receive": "receiving",
    "client": "between requests",
    "over": "nothing left",
    "end": "ending",
    "unheard": "not heard of",
}
"""What ``records.REASONS`` tells at length."""

_SHOWN = 5
_NAMED = 5
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#!|~&])")


def verdict(told: Chronicle) -> str:
    """Say in one sentence how the prompts of the folder stand."""
    if not told.total:
        return "no prompts"
    if told.saved == told.total:
        return (
            "the prompt has a verified result"
            if told.total == 1
            else f"all {told.total} prompts have a verified result"
        )
    parts = [f"{told.saved} of {told.total} prompts have a verified result"]
    parts += [f"{told.failed} failed"] if told.failed else []
    parts += [f"{told.pending} pending"] if told.pending else []
    return ", ".join(parts)


def ending(run: Run, *, latest: bool) -> str:
    """Say when a run began, and how it ended. ``latest``: no other began after it."""
    name = "the last run" if latest else "the last run that had anything to do"
    began = f"began {in_words(utc_age_s(run.began_at))} ago"
    took = in_words(run.seconds)
    match run.ended:
        case None:
            return f"a run is going on, begun {in_words(utc_age_s(run.began_at))} ago"
        case "stopped":
            return f"{name} {began} and was stopped after {took}: {run.why}"
        case "killed":
            return f"{name} {began} and left no summary after {took} (killed?)"
        case _:
            return f"{name} {began} and took {took}"


def counts(run: Run) -> str:
    """Say what a run counted."""
    said = [f"{run.saved} saved"]
    said += [] if run.skipped is None else [f"{run.skipped} skipped"]
    said.append(f"{run.failed} failed")
    said += [] if run.pending is None else [f"{run.pending} pending"]
    return ", ".join(said)


def pace(run: Run) -> str:
    """Say how quick a run was, and how busy its endpoints were."""
    return f"{run.a_minute:.1f} results a minute, endpoints busy {100 * run.share:.0f} %"


def mostly_idle(turn: Turn, run: Run) -> str:
    """Say why an endpoint was idle for the most part, and for how long; "" if it hardly was."""
    if not turn.idle:
        return ""
    why = max(turn.idle, key=turn.idle.__getitem__)
    seconds = turn.idle[why]
    return f"{_IN_SHORT[why]} {in_words(seconds)}" if seconds >= max(1.0, 0.02 * run.seconds) else ""


def text_lines(told: Chronicle) -> Iterator[str]:
    """Yield the report for a terminal; nothing in it moves a cursor."""
    yield f"{plain(told.folder)}: {plain(verdict(told))}"
    yield from map(plain, _run_lines(told))
    if rows := _endpoint_rows(told):
        yield ""
        yield table(_COLUMNS, [[plain(one) if isinstance(one, str) else one for one in row] for row in rows])
    if told.causes:
        yield ""
        yield "failed:"
        yield from (f"  {plain(cause_text(cause))}" for cause in told.causes[:_SHOWN])
        yield from and_more(len(told.causes) - _SHOWN, "causes (--format json lists all)")
        yield _again(told)
    if changes := [*_changes(told)]:
        yield ""
        yield from map(plain, changes)
    yield from (f"note: {plain(note)}" for note in told.notes)


def markdown_lines(told: Chronicle) -> Iterator[str]:
    """Yield the report as Markdown (GitHub's, for its tables)."""
    yield f"# {_safe(told.folder)}: {_safe(verdict(told))}"
    yield ""
    yield from (f"{_safe(line)}  " for line in _run_lines(told))
    if rows := _endpoint_rows(told):
        yield ""
        yield f"| {' | '.join(_COLUMNS)} |"
        yield "|---|" + "---:|" * (len(_COLUMNS) - 1)
        yield from (f"| {' | '.join(_safe(str(one)) for one in row)} |" for row in rows)
    if told.causes:
        yield ""
        yield "## Failed"
        yield ""
        yield from (f"- {_safe(cause_text(cause))}" for cause in told.causes[:_SHOWN])
        yield from (line.strip() for line in and_more(len(told.causes) - _SHOWN, "causes"))
        yield ""
        yield _safe(_again(told))
    if changes := [*_changes(told)]:
        yield ""
        yield "## Changed"
        yield ""
        yield from (f"- {_safe(line)}" for line in changes)
    if told.notes:
        yield ""
        yield from (f"- {_safe(note)}" for note in told.notes)


def _run_lines(told: Chronicle) -> Iterator[str]:
    """Yield what is to be said of the run, of one after it, and of the one before."""
    run, previous = told.run, told.previous
    if run is None:
        yield "no run has left a trace"
        return
    if (last := told.runs[-1]) is not run:
        if last.ended in (None, "killed"):
            yield ending(last, latest=True)
        else:
            yield f"a run {in_words(utc_age_s(last.began_at))} ago had nothing to do"
    yield f"{ending(run, latest=last is run)}: {counts(run)}"
    if run.attempts:
        yield pace(run)
    if previous:
        yield f"the run before it, {in_words(utc_age_s(previous.began_at))} ago: {counts(previous)}; {pace(previous)}"


def _endpoint_rows(told: Chronicle) -> list[list[object]]:
    run = told.run
    if run is None:
        return []
    return [
        [
            told.endpoints[turn.endpoint].name,
            turn.saved,
            turn.failed,
            turn.attempts,
            turn.outages,
            ("-" if turn.median_s is None else f"{turn.median_s:.1f}") + (" SLOW" if turn.slow else ""),
            "-" if turn.before_s is None else f"{turn.before_s:.1f}",
            round(turn.busy_s, 1),
            round(100 * turn.share),
            mostly_idle(turn, run) or "-",
            round(turn.bytes / 1e6, 1),
        ]
        for turn in run.turns
    ]


def _changes(told: Chronicle) -> Iterator[str]:
    """Yield what the run changed, if there was one before it."""
    found = told.changes
    if told.previous is None:
        return
    for count, keys, what in (
        (found.newly_saved, found.newly_saved_keys, "newly saved"),
        (found.newly_failed, found.newly_failed_keys, "newly failed"),
        (found.failed_again, found.failed_again_keys, "failed again"),
        (found.made_again, found.made_again_keys, "made again"),
    ):
        if count:
            yield f"{count} {what}: {', '.join(keys[:_NAMED])}" + (" …" if count > _NAMED else "")


def of_shards(run: Run | None) -> str:
    """Say which shards have something left, as what ends a clause; "" of a run of the whole list.

    >>> of_shards(Run("r", "", 1.0, "done", shards=4, left=(2, 3, 4)))
    ', for shards 2, 3 and 4 of 4'
    """
    if run is None or not run.left:
        return ""
    numbers = [str(number) for number in run.left]
    if len(numbers) == 1:
        return f", for shard {numbers[0]} of {run.shards}"
    more = len(numbers) - _NAMED
    first, last = (numbers[:_NAMED], f"{more} more") if more > 0 else (numbers[:-1], numbers[-1])
    return f", for shards {', '.join(first)} and {last} of {run.shards}"


def _again(told: Chronicle) -> str:
    command = told.run.command if told.run else None
    again = f"The same command tries just these again{of_shards(told.run)}"
    return f"{again}: {plain(command)}" if command else f"{again}."


def _safe(text: str) -> str:
    """Return a text from outside as Markdown that shows it as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", plain(text))
