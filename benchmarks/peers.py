"""The programs that are compared, each run to its end on the same work and watched meanwhile."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_HERE = Path(__file__).parent
_WATCH_S = 0.05
RUNNER, PLAIN, POOL = "runner", "a thread an endpoint", "a pool"
"""``PLAIN`` is plain_requests.py, the script people write first; ``POOL`` is pool_script.py."""

_SCRIPTS = {PLAIN: "plain_requests.py", POOL: "pool_script.py"}


@dataclass
class Watched:
    """What a program and the processes it started took; memory and files are the highest sums seen."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0
    threads: int = 0
    files: int = 0
    files_of_one: int = 0


def listed(urls: Sequence[str], count: int, folder: Path) -> Path:
    """Write a list of so many images, hosted by the first four servers; return the file."""
    hosts = urls[:4]
    path = folder / f"prompts-{count}.txt"
    with path.open("w") as file:
        file.writelines(f"{hosts[i % len(hosts)]}/image/p{i}.png\n" for i in range(count))
    return path


def command(peer: str, urls: Sequence[str], prompts: Path, results: Path, **options: object) -> list[str]:
    """Return the command of a peer; ``options`` are the runner's."""
    if peer != RUNNER:
        return [sys.executable, str(_HERE / _SCRIPTS[peer]), str(prompts), str(results), *urls]
    slots = options.pop("slots", 1)
    config = results.with_suffix(".yaml")
    given = {"endpoints": [{"url": url, "slots": slots} for url in urls], "prompts": str(prompts)}
    config.write_text(json.dumps(given | {"output_folder": str(results)} | options))
    return [sys.executable, "-m", "runner", "run", "-q", str(config)]


def run(words: Sequence[str], *, until: threading.Event | None = None) -> Watched:
    """Run a command to its end, or end it with a SIGTERM once ``until`` is set."""
    seen = Watched()
    begun = time.monotonic()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    ended: list[object] = []

    def wait() -> None:
        ended.append(os.wait4(process.pid, 0))

    waiter = threading.Thread(target=wait)
    waiter.start()
    asked = False
    while waiter.is_alive():
        _look(process.pid, seen)
        if until and until.is_set() and not asked:
            asked = True
            process.terminate()
        waiter.join(_WATCH_S)
    seen.seconds = time.monotonic() - begun
    _, status, used = ended[0]  # type: ignore[misc]
    process.returncode = os.waitstatus_to_exitcode(status)
    seen.cpu_s = used.ru_utime + used.ru_stime
    if process.returncode and not asked:
        raise SystemExit(f"{' '.join(words)[:200]} ended with {process.returncode}")
    return seen


def _look(pid: int, seen: Watched) -> None:
    memory_kb = threads = files = 0
    for one in _family(pid):
        try:
            status = Path(f"/proc/{one}/status").read_text()
            opened = len(os.listdir(f"/proc/{one}/fd"))
        except OSError:
            continue
        found = dict(re.findall(r"(VmHWM|Threads):\s+(\d+)", status))
        memory_kb += int(found.get("VmHWM", 0))
        threads += int(found.get("Threads", 0))
        files += opened
        seen.files_of_one = max(seen.files_of_one, opened)
    seen.peak_mb = max(seen.peak_mb, memory_kb * 1024 / 1e6)
    seen.threads, seen.files = max(seen.threads, threads), max(seen.files, files)


def _family(pid: int) -> list[int]:
    """Return a process and all that it started."""
    found = [pid]
    for listed_here in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = listed_here.read_text().split()
        except OSError:
            continue
        for child in children:
            found += _family(int(child))
    return found


def times_of(urls: Sequence[str]) -> list[list[list[float]]]:
    """Return the [begin, end] of every generation, an endpoint a list, as the servers saw them."""
    with urllib.request.urlopen(f"{urls[0]}/times") as answer:
        return json.load(answer)


def pauses_ms(times: Sequence[Sequence[Sequence[float]]]) -> list[float]:
    """Return every pause between two generations of one endpoint."""
    return [1000 * (begin - end) for lane in times for (_, end), (begin, _) in pairwise(lane)]


def span_s(times: Sequence[Sequence[Sequence[float]]]) -> float:
    """Return how long the servers were at work together."""
    flat = [one for lane in times for one in lane]
    return max(end for _, end in flat) - min(begin for begin, _ in flat)
