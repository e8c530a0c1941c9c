"""Where does the runner's CPU time go? Samples of its stacks (py-spy), sorted by what they are part of."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

_PARTS = [
    ("fetch the image", ("ImageClient.fetch",)),
    ("build the request", ("Client.prepare", "generation_request")),
    ("send it, and read the answer's headers", ("Client.send",)),
    ("receive and hash the body", ("Answer.receive",)),
    ("create, write, verify and flush the file", ("Temp.", "OutputFolder.temp", "verify (runner/formats")),
    ("name the file", ("Part.keep",)),
    ("ledger", ("Ledger.",)),
    ("log, tally, progress", ("Words.", "Tally.", "together (", "Held.", "Reporter.")),
    ("health and version at the start", ("probe (runner/health",)),
    (
        "schedule, gates, queues, threads",
        ("runner/schedule", "runner/engine", "queue.py", "threading.py", "concurrent/"),
    ),
    ("the rest of a prompt: its records", ("runner/worker",)),
    ("start: imports, config, prompts", ("importlib", "runner/")),
]


def parts(command: list[str], folder: Path) -> dict[str, float]:
    """Run a command under py-spy; return the share of its CPU samples that each part has, in percent."""
    raw = folder / "stacks.txt"
    spy = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
    watch = [spy, "record", "--rate", "500", "--format", "raw", "--full-filenames", "--output", str(raw), "--"]
    subprocess.run([*watch, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, count = line.rsplit(" ", 1)
        found[_part(stack.split(";"))] += int(count)
    return {
        name: 100 * found[name] / found.total() for name in [*(name for name, _ in _PARTS), _OTHER] if found[name]
    }


_OTHER = "the interpreter"


def _part(frames: list[str]) -> str:
    """Return what a stack is part of: the most specific part that any of its frames names."""
    for name, marks in _PARTS:
        if any(mark in frame for frame in frames for mark in marks):
            return name
    return _OTHER
