#!/usr/bin/env python3
"""Kill a run whose servers take jobs with SIGKILL, again and again, and count what is generated twice.

    scripts/crash_jobs.py [--kills 30] [--prompts 120] [--processes N] [--seed N]

Four simulated RunPod endpoints; the run is killed at a random moment and started anew until all prompts are saved.
Then every prompt must have its own result, and none whose job is in the ledger was submitted again. What was
on its way when the run was killed, so that nobody had its id, is submitted again: at most one for each kill and
endpoint.
Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from simulated import SERVERS, prompt_image  # noqa: E402

ENDPOINTS = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    moments = random.Random(given.seed)
    kind = SERVERS["runpod"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [stack.enter_context(kind(generation_s=0.1)) for _ in range(ENDPOINTS)]
        names = [f"p{number}" for number in range(given.prompts)]
        kills = rounds = broken = again = 0
        while kills < given.kills:
            rounds += 1
            before = sum(one.submissions for one in servers)
            place = folder / str(rounds)
            config = _written(place, names, [one.url for one in servers], kind.key, given.processes)
            killed = _filled(place, config, moments, given.kills - kills)
            kills += killed
            expected = {f"{name}.glb": kind.artefact(name, 42) for name in names}
            found = {file.name: file.read_bytes() for file in (place / "results").glob("*.glb")}
            twice = sum(one.submissions for one in servers) - before - len(names)
            again += twice
            known_twice = _known_twice(place)
            broken += (found != expected) + (twice > killed * ENDPOINTS) + known_twice
    made = f"{kills} kills, {rounds} folders of {given.prompts} prompts"
    print(f"{made}: {again} submissions without an id made again, {broken} broken")
    print(f"(--seed {given.seed})")
    return 1 if broken else 0


def _known_twice(place: Path) -> int:
    """Return how many jobs that the ledger knew were submitted again."""
    lines = [json.loads(line) for line in (place / "results" / ".runner" / "ledger.jsonl").read_text().splitlines()]
    keys = [line["key"] for line in lines if line["outcome"] == "submitted"]
    return len(keys) - len({*keys})


def _written(place: Path, names: list[str], urls: list[str], key: str | None, processes: int) -> Path:
    images = place / "images"
    images.mkdir(parents=True)
    for name in names:
        (images / f"{name}.png").write_bytes(prompt_image(name))
    config = {
        "endpoints": [{"url": url, "headers": {"Authorization": f"Bearer {key}"}} for url in urls],
        "prompts": "images",
        "protocol": {"preset": "runpod", "poll": {"every_s": 0.02}},
        "processes": processes,
    }
    path = place / "run.yaml"
    path.write_text(json.dumps(config))
    return path


def _filled(place: Path, config: Path, moments: random.Random, most_kills: int) -> int:
    """Start the run until it ends by itself; return how often it was killed."""
    kills = 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", "runner", "run", str(config), "--quiet"],
            cwd=place,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.2, 1.5) if kills < most_kills else None)
            return kills
        process.kill()
        process.wait()
        kills += 1


if __name__ == "__main__":
    sys.exit(main())
