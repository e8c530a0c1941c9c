"""Whole runs over stand-in servers, looked at while all endpoints are at work: what results cost, and megabytes."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from peers import RUNNER, command, listed, times_of
from simulated import servers
from watching import Look, look

from runner.remote import working_folder

_MEMORY = Path("/dev/shm")
_BEGIN, _END = 0.3, 0.85
"""The shares of all results between which a run is looked at: started, and not yet ending."""


@dataclass(frozen=True)
class Load:
    """What is asked of a run: generations of so many seconds on so many endpoints, and results of so many bytes."""

    endpoints: int
    seconds: float
    size_bytes: int
    lasts_s: float = 15.0

    @property
    def results(self) -> int:
        """How many results fill the time, the same number on each endpoint."""
        return self.endpoints * max(5, math.ceil(self.lasts_s / self.seconds))

    @property
    def size_mb(self) -> float:
        return self.size_bytes / 1e6


def watched(
    load: Load, beside: Mapping[str, int] | None = None, bucket: str | None = None, **options: object
) -> dict[str, float]:
    """Run the load with these options of the config; return what ``Look.since`` says, and how idle endpoints were.

    ``beside`` names further processes; returned is the CPU of each, milliseconds a result. ``bucket``: the URL of the
    output folder. Else results lie in memory, and those of more than 1 MB are removed as they come: disks are not
    what is measured.
    """
    simulated = ["--seconds", str(load.seconds), "--jitter", "0.1", "--result-bytes", str(load.size_bytes)]
    with _folder() as folder, servers(simulated, load.endpoints) as urls:
        results = folder / "results"
        state = results
        if bucket:
            options |= {"output_folder": bucket, "upload": {"spool_folder": str(folder)}}
            state = working_folder(bucket, str(folder))
        words = command(RUNNER, urls, listed(urls, load.results, folder), results, **options)
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process, _emptied(results, load):
            looks = [_look(process, state, urls, share * load.results, beside or {}) for share in (_BEGIN, _END)]
            process.wait()
        if process.returncode:
            raise SystemExit(f"{' '.join(words)[:200]} ended with {process.returncode}")
        return looks[1].since(looks[0]) | {"idle_share": _idle_share(times_of(urls), *looks)}


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@contextmanager
def _emptied(results: Path, load: Load) -> Iterator[None]:
    """Remove large results as they come."""
    done = threading.Event()

    def remove() -> None:
        while not done.wait(0.05):
            for path in results.glob("*.ply"):
                path.unlink()

    thread = threading.Thread(target=remove)
    if load.size_mb > 1:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread.is_alive():
            thread.join()


def _look(
    process: subprocess.Popen[bytes], state: Path, urls: Sequence[str], count: float, beside: Mapping[str, int]
) -> Look:
    """Look once the ledger has so many lines."""
    ledger = state / ".runner" / "ledger.jsonl"
    while process.poll() is None:
        with suppress(FileNotFoundError):
            if ledger.read_bytes().count(b"\n") >= count:
                break
        time.sleep(0.05)
    with urllib.request.urlopen(f"{urls[0]}/cpu") as answer:
        serving_s = json.load(answer)
    return look(process.pid, ledger, serving_s, beside)


def _idle_share(times: Sequence[Sequence[Sequence[float]]], first: Look, last: Look) -> float:
    """Return the share of the time between two looks in which endpoints did not generate."""
    busy = sum(max(0.0, min(end, last.at) - max(begin, first.at)) for lane in times for begin, end in lane)
    return 1 - busy / (len(times) * (last.at - first.at))
