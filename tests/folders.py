"""Output folders as runs leave them, made without a run: config, list, ledger lines, results."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from server import splat_ply

from runner.batch import read_all
from runner.config import config_from
from runner.errors import UsageError
from runner.ledger import LEDGER, Ledger
from runner.lists import LISTS, remember
from runner.records import Attempt, Endpoint, Prompt, ResultFile, Task
from runner.schedule import Lane
from runner.storage import STATE, OutputFolder
from runner.traces import config_in
from runner.worker import Outcomes

PLY = splat_ply()


class Folder:
    """One output folder; ``listed`` are the prompts of its last run, images called ``KEY.png``."""

    def __init__(self, here: Path, *listed: str, name: str = "results", **options: Any) -> None:
        self.here = here
        self.path = here / name
        self.state = self.path / STATE
        self.state.mkdir(parents=True)
        self.ledger = self.state / LEDGER
        self.run = "2026-01-01T00:00:00.000Z-0000"
        self.list(*listed, **options)

    def list(self, *listed: str, **options: Any) -> None:
        """Make these the prompts of the last run, and their list the only one that was ever run here."""
        prompts = self.here / "prompts.txt"
        prompts.write_text("".join(f"https://h/{key}.png\n" for key in listed))
        sources = options.pop("prompts", [str(prompts)])
        config = config_from(
            {"endpoints": ["http://one:1"], "prompts": sources, "output_folder": str(self.path), **options}
        )
        (self.state / "config.yaml").write_text(config.resolved_yaml())
        self.ran()
        if (self.state / LISTS).exists():
            *_, last = (self.state / LISTS).read_text().splitlines(keepends=True)
            (self.state / LISTS).write_text(last)

    def ran(self, *, again: bool = True, **options: Any) -> None:
        """Note the list as it is now as that of the last run, as the run does; a list that is wrong was not run."""
        config = replace(config_in(self.path), **options)
        with suppress(UsageError):
            remember(OutputFolder(self.path), self.run, read_all(config), config, again=again)

    def save(
        self, key: str, body: bytes = PLY, *, endpoint: str = "one:1", kind: str = "ply", several: int = 0,
        seconds: float = 1.5, at: str | None = None,
    ) -> Path:  # fmt: skip
        """Write a result of a prompt and its ledger line, or ``several``; return the first file."""
        names = [f"{key}-{number}.{kind}" for number in range(several)] or [f"{key}.{kind}"]
        for name in names:
            (self.path / name).write_bytes(body)
        said = [
            ResultFile(
                name, kind, len(body), os.stat(self.path / name).st_mtime_ns, sha256(body).hexdigest()
            )
            for name in names
        ]  # fmt: skip
        first = {one: getattr(said[0], one) for one in ("file", "format", "size_bytes", "mtime_ns", "sha256")}
        self._append(key, "saved", endpoint, seconds, at=at, more=tuple(said[1:]), **first)
        return self.path / names[0]

    def fail(self, key: str, error: str, *, endpoint: str = "one:1") -> None:
        """Write the ledger line of a failure."""
        self._append(key, "failed", endpoint, 0.1, error=error, blame="endpoint")

    def _append(
        self, key: str, kind: Any, endpoint: str, seconds: float, *, at: str | None = None, **said: Any
    ) -> None:
        outcomes = Outcomes(lane_names=[endpoint], seed=42, protocol="404-splat")
        lane = Lane(Endpoint(0, f"http://{endpoint}", endpoint, ""), deque())
        task = Task(Prompt(0, key, f"https://h/{key}.png"), attempts=[Attempt(1, endpoint, "", generate_s=seconds)])
        outcome = outcomes.of(task, lane, kind, None, **said)
        if at is not None:
            object.__setattr__(outcome, "finished_at", at)
        lines = Ledger(self.ledger, run=self.run, redact=str)
        lines.append([outcome])
        lines.close()

    def files(self) -> set[str]:
        """The names of everything in the folder but its state."""
        return {one.name for one in self.path.iterdir()} - {STATE}
