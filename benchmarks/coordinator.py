"""What one coordinator costs with so many endpoints, were its network and disk free: its hands only wait.

    python benchmarks/coordinator.py --endpoints 1000 --seconds 4.5 --rounds 8

Everything is the runner's own (schedule, hands, ledger, log, progress) but the work: a hand passes its gate, sleeps
as long as a generation takes, and returns a result without a file. So it is with worker processes and with Dask:
there too the coordinator's hands only wait. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from watching import Look, look

from runner import batch, load_config
from runner.batch import working
from runner.clock import utc_now
from runner.health import Health
from runner.records import Attempt, Endpoint, Outcome, Saving, Task
from runner.schedule import Lane, Schedule
from runner.worker import Outcomes

_DIGEST = "0" * 64
_PHASE = 0.05
"""The first generations begin so far apart, as a share of one, that not all end together."""


class Nowhere:
    """A result without a file."""

    targets = ()

    def keep(self) -> None:
        """Nothing is kept."""

    def drop(self) -> None:
        """Nothing is dropped."""


class StandIn:
    """The work of hands that wait for others to do it."""

    def __init__(self, outcomes: Outcomes, options: argparse.Namespace) -> None:
        self._outcomes = outcomes
        self._options = options
        self._begun: set[int] = set()
        self.saved = 0
        self.all_began_at = 0.0

    def __call__(self, load: Sequence[Task], lane: Lane, tell: object) -> list[Saving]:
        (task,) = load
        seconds = self._options.seconds * random.uniform(0.9, 1.1)
        with lane.gate:
            if lane.endpoint.index not in self._begun:
                self._begun.add(lane.endpoint.index)
                self.all_began_at = time.monotonic()
                seconds *= random.uniform(_PHASE, 1)
            time.sleep(seconds)
        task.attempts.append(Attempt(1, lane.endpoint.name, utc_now(), 0.1, seconds, 0.1, 200))
        file = {"file": f"{task.prompt.key}.ply", "format": "ply", "size_bytes": 50_000_000}
        outcome = self._outcomes.of(task, lane, "saved", None, **file, mtime_ns=time.time_ns(), sha256=_DIGEST)
        self.saved += 1
        return [Saving(outcome, Nowhere())]  # type: ignore[arg-type]

    def interrupted(self, task: Task, lane: Lane) -> Outcome:
        return self._outcomes.of(task, lane, "interrupted", None)

    def probe(self, endpoint: Endpoint) -> Health:
        return Health(endpoint, healthy=True, status="healthy")

    def hurry(self) -> None:
        """Nothing is under way that could end early."""

    def abandon(self) -> None:
        """Nothing is under way that could be cut."""


class Pulse:
    """Called by the main thread, at the latest every 0.2 s if nothing holds it up: remembers the longest pause."""

    def __init__(self, counts: Callable[[], bool]) -> None:
        self._counts = counts
        self._last = time.monotonic()
        self.longest_s = 0.0

    def __call__(self, *_: object) -> None:
        now = time.monotonic()
        if self._counts():
            self.longest_s = max(self.longest_s, now - self._last)
        self._last = now


def measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run once; return what was seen while all endpoints were at work, and how long it took to start and to end."""
    total = options.endpoints * options.rounds
    (folder / "prompts.txt").write_text("".join(f"http://127.0.0.1/p{i}.png\n" for i in range(total)))
    endpoints = [f"http://127.0.{i // 250}.{i % 250 + 1}:10006" for i in range(options.endpoints)]
    given: dict[str, Any] = {"endpoints": endpoints, "prompts": "prompts.txt", "output_folder": "results"}
    given["assignment"] = options.assignment
    if options.window:
        given["max_runtime_s"] = 86400
    (folder / "run.yaml").write_text(json.dumps(given))
    config = load_config(folder / "run.yaml")
    names = [one.name for one in config.endpoints]
    work = StandIn(Outcomes(lane_names=names, seed=42, protocol="404-splat"), options)

    @contextmanager
    def opened(this: object, schedule: Schedule, *_: object) -> Iterator[StandIn]:
        yield work

    working.opened_work = opened  # type: ignore[assignment]
    batch.processes_for = lambda *_: 1  # type: ignore[assignment, attr-defined]
    looks: list[Look] = []
    ledger = folder / "results" / ".runner" / "ledger.jsonl"

    def watch() -> None:
        for share in (options.begin, options.end):
            while work.saved < share * total:
                time.sleep(0.05)
            looks.append(look(os.getpid(), ledger))

    threading.Thread(target=watch, daemon=True).start()
    pulse = Pulse(lambda: len(looks) == 1)
    begun = time.monotonic()
    summary = batch.run(config, observe=pulse)
    seconds = time.monotonic() - begun
    assert summary.saved == total, summary
    first, last = looks
    found = last.since(first)
    ideal_s = options.seconds * options.rounds
    return found | {
        "endpoints": options.endpoints, "seconds_each": options.seconds, "assignment": options.assignment,
        "window": options.window, "run_s": seconds, "start_s": work.all_began_at - begun,
        "ideal_s": ideal_s, "stall_s": pulse.longest_s,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }  # fmt: skip


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.45, help="one generation")
    parser.add_argument("--rounds", type=int, default=20, help="prompts for each endpoint")
    parser.add_argument("--begin", type=float, default=0.3, help="look from this share of the results on")
    parser.add_argument("--end", type=float, default=0.85, help="and up to this one")
    parser.add_argument("--assignment", choices=("modulo", "steal"), default="modulo")
    parser.add_argument("--window", action="store_true", help="with a time window, which never closes")
    return parser.parse_args(words)


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(options, Path(folder))), file=sys.stdout)


if __name__ == "__main__":
    main()
