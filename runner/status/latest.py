"""The summary of the last run that ended in a folder; of shards' runs that belong together, theirs as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

from runner.records import Summary
from runner.report import together
from runner.status.lastly import last_in
from runner.status.rounds import Part, Round, rounds_in, shards_named
from runner.storage import STATE
from runner.traces import summary_from, summary_in, summary_of


def latest_summary(path: Path, run: str | None = None, left: Sequence[int] = ()) -> Summary:
    """Return the summary of the last run that ended in a folder; of a round that of all its runs.

    ``run`` is what a report tells of: if it is a round, that one is meant, whatever began after it. ``left`` are the
    numbers of the shards that have prompts without a result now: then it is no success. Raises UsageError if there
    is none, StorageError.
    """
    rounds = rounds_in(path)
    whole = last_in(path / STATE, None)
    chosen = next((one for one in rounds if one.name == run), None)
    if chosen is None:
        if not rounds or (whole and (whole.run > rounds[-1].name or whole.run == run)):
            return summary_in(path)
        chosen = rounds[-1]
    found = [_summary(path, one) for one in chosen.parts if one.last.ended in ("done", "stopped")]
    if not found:
        return summary_of(path, chosen.parts[-1].state)
    seconds = max(one.heard_s for one in chosen.parts if one.heard_s < inf) - chosen.parts[0].began_s
    summed = together(found, seconds=seconds, output_folder=found[0].output_folder)
    wrong = [*chosen.wrong(), *_not_yet(chosen, left)]
    return replace(summed, run=chosen.name, error="; ".join(wrong) or None)


def _summary(path: Path, part: Part) -> Summary:
    """Return the summary of a shard's run; if a later one has taken its place, what the trail tells of it."""
    found = summary_of(path, part.state)
    if found.run == part.trace.run or part.trace.ended is None:
        return found
    own = {"output_folder": found.output_folder, "run": part.trace.run, "started_at": part.last.began_at}
    return summary_from({**part.trace.ended, **own}) or found


def _not_yet(whole: Round, left: Sequence[int]) -> Iterator[str]:
    """Yield which shards are at work, and which have something left of an earlier round."""
    going = [str(one.shard) for one in whole.parts if one.last.ended is None]
    if going:
        yield f"{shards_named(going)} {'are' if going[1:] else 'is'} still at work"
    own = {one.shard.number for one in whole.parts} | {*whole.absent}
    others = [f"{number}/{whole.count}" for number in left if number not in own]
    if others:
        yield f"{shards_named(others)} {'have' if others[1:] else 'has'} prompts without a result from before"
