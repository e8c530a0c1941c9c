"""What do outages cost? Whole runs over four endpoints that misbehave, beside one in which they don't.

    python benchmarks/outages.py [--prompts 60] [--seconds 0.5] [--json FILE]

``allowed`` is the time that three endpoints would need, and 15 %. The servers are those of the tests
(``tests/server.py``). The last case is a process that gets SIGTERM in the middle of 1 s generations.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from server import FAULTS, Answer, ScriptedServer  # noqa: E402

from runner import run  # noqa: E402
from runner.config import config_from  # noqa: E402

Prepare = Callable[[list[ScriptedServer]], None]


@dataclass(frozen=True)
class Figures:
    """What came of one run. ``asked``: requests that reached the endpoint that misbehaves."""

    case: str
    seconds: float
    allowed: float | None
    saved: int
    failed: int
    pending: int
    exit_code: int
    asked: int


def nothing(servers: list[ScriptedServer]) -> None:
    """Let all be well."""


def refuses(servers: list[ScriptedServer]) -> None:
    servers[3].die()


def always_500(servers: list[ScriptedServer]) -> None:
    servers[3].usual, servers[3].generation_s = FAULTS["500"], 0.0


def dies(servers: list[ScriptedServer]) -> None:
    servers[3].dies_after = 3
    later(5.0, servers[3].rise)


def hangs(servers: list[ScriptedServer]) -> None:
    servers[3].usual, servers[3].generation_s = Answer(hold=threading.Event()), 0.0


def down_at_the_start(servers: list[ScriptedServer]) -> None:
    for server in servers:
        server.die()
        later(6.0, server.rise)


def down_in_the_middle(servers: list[ScriptedServer]) -> None:
    for server in servers:
        later(3.0, server.die)
        later(23.0, server.rise)


def later(seconds: float, act: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()


CASES: list[tuple[str, Prepare, bool]] = [
    ("all well", nothing, False),
    ("one refuses", refuses, True),
    ("one always answers 500", always_500, True),
    ("one dies after three, is back after 5 s", dies, True),
    ("one hangs (first_byte_s: 3)", hangs, True),
    ("all down at the start, up after 6 s", down_at_the_start, False),
    ("all down in the middle for 20 s", down_in_the_middle, False),
]


def measure(case: str, prepare: Prepare, options: argparse.Namespace, allowed: float | None, folder: Path) -> Figures:
    """Run the list once against servers that ``prepare`` has made misbehave."""
    with ExitStack() as stack:
        images, *servers = [stack.enter_context(ScriptedServer()) for _ in range(5)]
        for server in servers:
            server.generation_s = options.seconds
        listed = folder / "prompts.txt"
        listed.write_text("".join(f"{images.image(f'p{number}')}\n" for number in range(options.prompts)))
        config = config_from(
            {
                "endpoints": [server.url for server in servers],
                "prompts": [str(listed)],
                "output_folder": str(folder / case),
                "timeouts": {"first_byte_s": 3},
            }
        )
        prepare(servers)
        begun = time.monotonic()
        summary = run(config)
        seconds = time.monotonic() - begun
        asked = len(servers[3].received)
        if servers[3].usual.hold:
            servers[3].usual.hold.set()
    counts = summary.saved, summary.failed, summary.pending, summary.exit_code
    return Figures(case, round(seconds, 2), allowed, *counts, asked)


def measure_sigterm(folder: Path) -> Figures:
    """Send SIGTERM to a run of 1 s generations; return how long it took to end, and what it saved."""
    with ExitStack() as stack:
        images, *servers = [stack.enter_context(ScriptedServer()) for _ in range(5)]
        for server in servers:
            server.generation_s = 1.0
        listed = folder / "prompts.txt"
        listed.write_text("".join(f"{images.image(f'p{number}')}\n" for number in range(60)))
        command = [sys.executable, "-m", "runner", "generate", "--prompts-file", str(listed), "--quiet"]
        command += ["--output-folder", str(folder / "sigterm")]
        command += [word for server in servers for word in ("--endpoint", server.url)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
            servers[0].wait_for(requests=3)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
            seconds = time.monotonic() - begun
        said = json.loads(out)
        asked = sum(len(server.received) for server in servers)
    counts = said["saved"], said["failed"], said["pending"], process.returncode
    return Figures("SIGTERM in 1 s generations", round(seconds, 2), 4.0, *counts, asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=0.5, help="one generation")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    figures: list[Figures] = []
    print(f"{'case':42}{'seconds':>8}{'allowed':>8}{'saved':>7}{'failed':>7}{'pending':>8}{'exit':>5}{'asked':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for case, prepare, bounded in CASES:
            allowed = round(figures[0].seconds * 4 / 3 * 1.15, 2) if bounded else None
            figures.append(measure(case, prepare, options, allowed, Path(folder)))
            say(figures[-1])
        figures.append(measure_sigterm(Path(folder)))
        say(figures[-1])
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n")


def say(one: Figures) -> None:
    allowed = "" if one.allowed is None else f"{one.allowed:.2f}"
    print(
        f"{one.case:42}{one.seconds:8.2f}{allowed:>8}{one.saved:7}{one.failed:7}{one.pending:8}{one.exit_code:5}"
        f"{one.asked:6}",
        flush=True,
    )


if __name__ == "__main__":
    main()
