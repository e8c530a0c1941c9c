"""Where does the runner's time with the interpreter go? Samples of its stacks (py-spy), by what they are part of."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

_RATE = 500
_PARTS = [
    ("fetch the image", ("WebClient.fetch",)),
    ("build the request", ("Client.prepare", "Protocol.generation")),
    ("send it, and read the answer's headers", ("Client.send",)),
    ("receive and hash the body", ("Answer.receive",)),
    ("create, write, verify and flush the file", ("Temp.", "OutputFolder.temp", "verify (runner/formats")),
    ("name the file", ("Part.keep",)),
    ("ledger", ("Ledger.",)),
    ("log, tally, progress", ("Words.", "Tally.", "together (", "Held.", "Progress.")),
    ("health and version at the start", ("probe (runner/health",)),
    ("schedule, gates, queues, threads", ("runner/schedule", "runner/engine", "runner/deadline")),
    ("the rest of a prompt: its records", ("runner/worker",)),
    ("start: imports, config, prompts", ("importlib", "runner/batch", "runner/cli/", "<module>")),
]


def parts(command: list[str], folder: Path) -> dict[str, float]:
    """Run a command under py-spy; return the seconds that each part had the interpreter's lock.

    Only the thread that has the lock is sampled. Whether one that has not is at work in a system call or waits is
    nothing that py-spy can tell everywhere.
    """
    raw = folder / "stacks.txt"
    spy = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
    how = ["--gil", "--rate", str(_RATE), "--format", "raw", "--full-filenames"]
    subprocess.run(
        [spy, "record", *how, "--output", str(raw), "--", *command],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    found: Counter[str] = Counter()
    for line in raw.read_text().splitlines():
        stack, count = line.rsplit(" ", 1)
        found[_part(stack.split(";"))] += int(count)
    return {name: found[name] / _RATE for name in [*(name for name, _ in _PARTS), _OTHER] if found[name]}


_OTHER = "the interpreter"


def _part(frames: list[str]) -> str:
    """Return what a stack is part of: the part that its innermost frame names, of those that name one."""
    for frame in reversed(frames):
        for name, marks in _PARTS:
            if any(mark in frame for mark in marks):
                return name
    return _OTHER
