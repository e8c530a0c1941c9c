#!/usr/bin/env python3
"""Kill a run with SIGKILL at random moments, again and again, and prove that nothing is lost, torn or replaced.

    scripts/crash_test.py [--kills 20] [--prompts 1000] [--seed N] [--json FILE]

A run over four local servers is started and killed at a random moment, from its first millisecond to its end, and
started anew until all its prompts are saved; then the next folder is begun. After every kill this holds:

- whole: every file under a result's name is a whole result, and the ledger has a line with its size and hash;
- kept: every file that was there at the last look is there still, the same one (inode, size, time);
- bounded: of the generations asked for since the last look, at most two for each endpoint came to nothing: what was
  in flight.

At the end of a folder every prompt has its result, and nothing else is there. Exit code 1 if anything was broken.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

from simulated import servers  # noqa: E402

ENDPOINTS = 4
HANDS = 2 * ENDPOINTS
RESULT_BYTES = 200_000
SERVERS = ["--unique", "--seconds", "0.02", "--result-bytes", str(RESULT_BYTES)]


@dataclass
class Figures:
    """What was seen in all folders together."""

    kills: int = 0
    workers_killed: int = 0
    ended_by_itself: int = 0
    folders: int = 0
    results: int = 0
    generations: int = 0
    most_in_flight: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)

    @property
    def duplicates(self) -> int:
        """Generations that came to nothing because their run was killed."""
        return self.generations - self.results


class Folder:
    """One output folder that is filled by one run after the other."""

    def __init__(self, path: Path, urls: list[str], prompts: int, processes: int, figures: Figures) -> None:
        path.mkdir()
        self._path = path
        self._urls = urls
        self._figures = figures
        self._results = path / "results"
        self._names = {f"p{number}.ply" for number in range(prompts)}
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._asked_before = self._asked()
        (path / "prompts.txt").write_text("".join(f"{urls[0]}/image/p{number}.png\n" for number in range(prompts)))
        (path / "run.yaml").write_text(
            json.dumps({"endpoints": urls, "prompts": "prompts.txt", "processes": processes})
        )

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "runner", "run", "run.yaml", "--quiet"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, cwd=self._path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, **quiet)

    def look(self, *, complete: bool, workers_killed: int) -> None:
        """Check what holds after every kill, and, if ``complete``, what holds at the end."""
        files = {entry.name: entry.stat() for entry in self._visible()}
        recorded = self._recorded()
        for name, (inode, size, mtime_ns) in self._seen.items():
            now = files.get(name)
            if now is None:
                self._broken(f"{name} was lost")
            elif (now.st_ino, now.st_size, now.st_mtime_ns) != (inode, size, mtime_ns):
                self._broken(f"{name} was replaced")
        new = files.keys() - self._seen.keys()
        for name in new:
            content = (self._results / name).read_bytes()
            if len(content) != RESULT_BYTES or not content.startswith(b"ply\n"):
                self._broken(f"{name} is torn: {len(content)} bytes")
            if (len(content), hashlib.sha256(content).hexdigest()) not in recorded.get(name, []):
                self._broken(f"{name} has no line in the ledger")
            self._seen[name] = (files[name].st_ino, files[name].st_size, files[name].st_mtime_ns)
        asked = self._asked()
        in_flight = asked - self._asked_before - len(new)
        self._asked_before = asked
        self._figures.generations += in_flight + len(new)
        self._figures.results += len(new)
        self._figures.most_in_flight = max(self._figures.most_in_flight, in_flight)
        if in_flight > (0 if complete else HANDS) + workers_killed * HANDS:
            self._broken(f"{in_flight} generations came to nothing")
        if complete:
            if files.keys() != self._names:
                self._broken(f"{len(self._names - files.keys())} prompts have no result")
            if parts := [entry.name for entry in os.scandir(self._results) if entry.name.endswith(".part")]:
                self._broken(f"{len(parts)} unfinished files were left")

    def _visible(self) -> list[os.DirEntry[str]]:
        if not self._results.exists():
            return []
        return [entry for entry in os.scandir(self._results) if not entry.name.startswith(".")]

    def _recorded(self) -> dict[str, list[tuple[int, str]]]:
        """Return size and hash of every saved result that the ledger knows, by its file."""
        lines = self._results / ".runner" / "ledger.jsonl"
        recorded: dict[str, list[tuple[int, str]]] = {}
        for line in lines.read_bytes().splitlines() if lines.exists() else []:
            try:
                one = json.loads(line)
            except ValueError:
                continue  # the line that was being written when the run was killed
            if one["outcome"] == "saved":
                recorded.setdefault(one["file"], []).append((one["size_bytes"], one["sha256"]))
        return recorded

    def _asked(self) -> int:
        """Return how many generations the servers were asked for; wait until none is under way."""
        total = -1
        while True:
            before, total = total, 0
            for url in self._urls:
                with urllib.request.urlopen(f"{url}/asked") as answer:
                    total += sum(json.load(answer).values())
            if total == before:
                return total
            time.sleep(0.02)

    def _broken(self, what: str) -> None:
        self._figures.broken.append(f"folder {self._figures.folders}, kill {self._figures.kills}: {what}")


def crash(
    options: argparse.Namespace, urls: list[str], where: Path, moments: random.Random, figures: Figures
) -> None:
    """Fill folder after folder, until so many runs were killed; then bring the last one to its end."""
    kills, prompts = options.kills, options.prompts
    while figures.kills < kills:
        figures.folders += 1
        folder = Folder(where / str(figures.folders), urls, prompts, options.processes, figures)
        complete = False
        while not complete:
            process = folder.start()
            workers_killed = 0
            if options.processes > 1 and figures.kills < kills and moments.random() < 0.7:
                time.sleep(moments.uniform(0.0, 1.2))
                workers_killed = kill_a_worker(process.pid, moments)
                figures.workers_killed += workers_killed
            try:
                code = process.wait(moments.uniform(0.0, 1.6) if figures.kills < kills else None)
                figures.ended_by_itself += 1
                if code:
                    figures.broken.append(f"folder {figures.folders}: a run that was not killed ended with {code}")
                complete = True
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                figures.kills += 1
                if figures.kills % 50 == 0:
                    print(f"{figures.kills} kills, {len(figures.broken)} broken", file=sys.stderr, flush=True)
            folder.look(complete=complete, workers_killed=workers_killed)


def kill_a_worker(pid: int, moments: random.Random) -> int:
    """Kill one of the worker processes of a run, if it has any yet; return how many."""
    found: list[str] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += listed.read_text().split()
    if not found:
        return 0
    with suppress(ProcessLookupError):
        os.kill(int(moments.choice(found)), signal.SIGKILL)
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=1000, help="of each folder")
    parser.add_argument("--processes", type=int, default=1, help="worker processes; some of them are killed as well")
    parser.add_argument("--seed", type=int, default=None, help="of the random moments")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    figures, begun = Figures(), time.monotonic()
    with servers(SERVERS, ENDPOINTS) as urls, tempfile.TemporaryDirectory() as where:
        crash(options, urls, Path(where), random.Random(seed), figures)
    figures.seconds = round(time.monotonic() - begun, 1)
    said = asdict(figures) | {"duplicates": figures.duplicates, "seed": seed}
    if options.json:
        options.json.write_text(json.dumps(said, indent=2) + "\n")
    print(
        f"{figures.kills} kills (and {figures.workers_killed} of worker processes) in {figures.folders} folders: "
        f"{figures.results} results, "
        f"{figures.generations} generations ({figures.duplicates} of them in flight at a kill, at most "
        f"{figures.most_in_flight} of {HANDS} at one), {len(figures.broken)} broken, in {figures.seconds:.0f} s "
        f"(seed {seed})"
    )
    for what in figures.broken[:20]:
        print(f"  {what}")
    return 1 if figures.broken else 0


if __name__ == "__main__":
    sys.exit(main())
