"""Which command tries again what a round of shards has left: that of a shard that has something left."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from runner.chronicle.runs import Known
from runner.status import Round, Status, rounds_in


def offer(path: Path, shown: Known | None, found: Status | None) -> None:
    """Note in the run that is told of which of its shards have something left, and the command of one of these.

    Of each shard that is the command of its latest run. Where nobody knows how the list stands, the runs tell.
    """
    if shown is None or not shown.shards:
        return
    rounds = [one for one in rounds_in(path) if one.count == shown.shards]
    shown.left = (*(found.shards_left(shown.shards) if found else _by_runs(rounds)),)
    if shown.left:
        commands = {one.shard.number: one.trace.command for each in rounds for one in each.parts}
        shown.command = next((typed for number in shown.left if (typed := commands.get(number))), None)


def _by_runs(rounds: Iterable[Round]) -> list[int]:
    """Return the numbers of the shards whose latest run did not save all it had, or that have not run."""
    left: dict[int, bool] = {}
    for one in rounds:
        left |= dict.fromkeys(one.absent, True) | {part.shard.number: part.has_left for part in one.parts}
    return sorted(number for number, has_left in left.items() if has_left)
