"""How an output folder stands: what is saved, failed, missing, and what is not ours; by whom, why, and since when."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.batch import history_of, read_all, standing_of
from runner.belongings import sorted_out
from runner.config import Config
from runner.errors import UsageError
from runner.ledger import Ledgers, ends_at, ledgers_of, recorded_at
from runner.progress import progress_in, together
from runner.prompts import FORMATS, Prompts, needs_json, written
from runner.remote import folder_at
from runner.report import Cause, Causes
from runner.resume import Standing
from runner.shards import Shard, number_of
from runner.status.lastly import LastRun, last_in
from runner.status.latest import latest_summary
from runner.status.rounds import Round, last_run, rounds_in, told_runs
from runner.status.shares import Share, Shares
from runner.storage import OutputFolder, states_of
from runner.traces import config_in

__all__ = [
    "LastRun",
    "OfShard",
    "Round",
    "Share",
    "Status",
    "last_run",
    "latest_summary",
    "rounds_in",
    "status_of",
    "told_runs",
]


@dataclass(frozen=True, slots=True)
class OfShard:
    """How the prompts of one shard stand, and how its last run went; None if it has not run."""

    shard: Shard
    saved: int
    failed: int
    missing: int
    last_run: LastRun | None

    @property
    def total(self) -> int:
        return self.saved + self.failed + self.missing


@dataclass(frozen=True, slots=True)
class Status:
    """The prompts of the last run's config, as prompts files and folder stand now.

    ``failed`` and ``missing`` are indices into ``prompts``: the former ended without a result, the latter never
    ended, or their file is gone or was made with other parameters. ``earlier`` are results that the ledger knows, of
    prompts no longer in the list; ``unknown`` files it does not know. ``shares`` and ``causes`` are of the saved and
    failed prompts. ``progress`` is what a run that is going on says of itself, or several of shards together;
    ``shards`` are all of the last run, if it was one of shards.
    """

    config: Config
    prompts: Prompts
    saved: int
    failed: array[int]
    missing: array[int]
    earlier: list[str]
    unknown: list[str]
    shares: list[Share]
    causes: list[Cause]
    last_run: LastRun | None
    progress: Mapping[str, Any] | None
    free_bytes: int
    held: int
    """So many results wait on this machine for a bucket to take them."""
    unreadable_lines: int
    failure_places: array[int]
    """Where in the ledger the failures stand."""
    ledgers: Ledgers
    shards: tuple[OfShard, ...] = ()

    @property
    def total(self) -> int:
        return len(self.prompts)

    @property
    def last_result_at(self) -> str | None:
        """When the latest of the results was saved, UTC; None if there are none."""
        return max((share.last_saved_at for share in self.shares), default="") or None

    def failures(self) -> Iterator[tuple[str, str, str | None]]:
        """Yield key, prompt and error of each failed prompt, as the ledger has them, the oldest first."""
        for said in recorded_at(self.ledgers, self.failure_places):
            yield said.key, said.prompt, said.error

    def to_do(self, file: str = "-") -> str:
        """Return the prompts without a result, in their order, as ``lines_to_do`` does."""
        return "".join(self.lines_to_do(file))

    def lines_to_do(self, file: str = "-") -> Iterator[str]:
        """Return the lines of a list of the prompts without a result, in their order, as ``file`` can hold them.

        Plain text if they are all images and no more, else JSON lines.
        Raises UsageError if its name says that it holds something else, and with ``keys: index-name``: a list of some
        prompts would number them anew.
        """
        if self.config.settings.output.keys == "index-name":
            raise UsageError(
                "--missing-file: with output.keys: index-name a list of the missing prompts would number them anew; "
                "run the same command again instead, it does just these"
            )
        kind = FORMATS.get(os.path.splitext(file)[1].lower(), "text")
        as_json = kind == "jsonl" or needs_json(self._packed())
        if file != "-" and kind != "jsonl" and (as_json or kind != "text" or file.lower().endswith(".gz")):
            raise UsageError(f"--missing-file {file}: expected a name that ends in .jsonl{_OR_TXT[as_json]}")
        return written(self._packed(), as_json=as_json)

    def shards_left(self, count: int) -> list[int]:
        """Return the numbers of those of so many shards that have prompts without a result."""
        left = {*self.failed, *self.missing}
        return sorted({number_of(key, count) for at, (key, _) in enumerate(self.prompts.encoded()) if at in left})

    def _packed(self) -> Iterator[str]:
        return map(self.prompts.packed, sorted([*self.failed, *self.missing]))


_OR_TXT = {
    False: " or .txt",
    True: ", or -: these prompts are more than images, and a plain text can't hold them",
}


def status_of(path: Path) -> Status:
    """Read a folder's config, prompts, ledger and files; a run may be going on in it. Raises UsageError."""
    config = config_in(path)
    folder = folder_at(path)
    progress = progress_in(path)
    prompts = read_all(config)
    ledgers = ledgers_of(path)
    history = history_of(config, ledgers)
    belongings = sorted_out(folder, folder.names(), prompts, history)
    found = standing_of(config, prompts, history, folder=folder)
    failed, missing, failures = array("I"), array("I"), array("Q")
    results = array("Q")
    is_done = _marks(len(prompts), found)
    for index, (key, _) in enumerate(prompts.encoded()):
        if is_done[index]:
            if (place := history.place(key)) is not None:
                results.append(place)
        elif (place := history.place_of_failure(key)) is not None:
            failed.append(index)
            failures.append(place)
        else:
            missing.append(index)
    failures = array("Q", sorted(failures))
    shares, causes = _folded(ledgers, [*results, *failures])
    return Status(
        config=config,
        prompts=prompts,
        saved=len(found.done),
        failed=failed,
        missing=missing,
        earlier=belongings.earlier,
        unknown=belongings.unknown,
        shares=shares,
        causes=causes,
        last_run=last_run(path, progress),
        progress=together(progress.values()),
        free_bytes=folder.free_bytes(),
        held=folder.waiting(),
        unreadable_lines=history.unreadable,
        failure_places=failures,
        ledgers=ledgers,
        shards=tuple(_shards(path, config, prompts, is_done, failed, progress)),
    )


def _shards(
    path: Path,
    config: Config,
    prompts: Prompts,
    is_done: bytearray,
    failed: Iterable[int],
    progress: Mapping[Path, Mapping[str, Any]],
) -> Iterator[OfShard]:
    """Yield how each shard stands, if the last run was one of shards."""
    if config.shard is None:
        return
    count = config.shard.count
    marks = bytearray(is_done)  # 0: missing, 1: saved, 2: failed
    for index in failed:
        marks[index] = 2
    counts = [array("I", [0]) * count for _ in range(3)]
    for (key, _), mark in zip(prompts.encoded(), marks, strict=True):
        counts[mark][number_of(key, count) - 1] += 1
    states = states_of(path)
    for number in range(1, count + 1):
        shard = Shard(number, count)
        state = OutputFolder(path, shard=shard).state
        missing, saved, failures = (one[number - 1] for one in counts)
        yield OfShard(
            shard, saved, failures, missing, last_in(state, progress.get(state)) if state in states else None
        )


def _marks(total: int, found: Standing) -> bytearray:
    """Return 1 for each prompt that is done, by its index."""
    marks = bytearray(total)
    for index in found.done:
        marks[index] = 1
    return marks


def _folded(ledgers: Ledgers, places: Iterable[int]) -> tuple[list[Share], list[Cause]]:
    """Say what each endpoint did of what these lines of the ledger tell, and why prompts failed."""
    shares, causes = Shares(), Causes()
    for end in ends_at(ledgers, sorted(places)):
        shares.add(end)
        if not end.is_saved:
            endpoint, key = (one.decode(errors="replace") for one in (end.endpoint, end.key))
            causes.add(end.error_text, key=key, endpoint=endpoint)
    return shares.all(), causes.ranked()
