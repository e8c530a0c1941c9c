"""Signals to a real process: what is in flight is saved within the grace, and every wait ends at once."""

import json
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ledger_of, results_of
from server import Answer, ScriptedServer, busy

Start = Callable[..., subprocess.Popen[str]]
HOURS = 7200


@pytest.fixture
def written(server: ScriptedServer, here: Path) -> Callable[..., str]:
    """Writes a config for the server and four of its images; returns its name."""

    def write(**options: Any) -> str:
        (here / "prompts.txt").write_text("".join(f"{server.image(name)}\n" for name in "abcd"))
        config = {"endpoints": [server.url], "prompts": "prompts.txt"} | options
        (here / "run.yaml").write_text(yaml.safe_dump(config))
        return "run.yaml"

    return write


def said(process: subprocess.Popen[str], word: str) -> str:
    """Read the log until a line has ``word``."""
    assert process.stderr is not None
    while word not in (line := process.stderr.readline()):
        assert line, f"the run ended without a word of {word!r}"
    return line


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=10)
    return json.loads(out)


def test_what_is_in_flight_when_the_signal_comes_is_saved(
    server: ScriptedServer, written, start: Start, here: Path
) -> None:
    server.generation_s = 0.3
    process = start("run", written())
    server.wait_for(requests=2)
    process.send_signal(signal.SIGTERM)
    answer = ended(process)
    assert process.returncode == 143
    assert answer["saved"] == len(server.received) == len(results_of(here / "results"))
    assert answer["saved"] + answer["pending"] == 4


def test_what_hangs_is_cut_when_the_grace_is_over(server: ScriptedServer, written, start: Start, here: Path) -> None:
    hold = threading.Event()
    server.usual = Answer(hold=hold)
    process = start("run", written(), "--grace-s", "0.2")
    server.wait_for(requests=1)
    process.send_signal(signal.SIGTERM)
    answer = ended(process)
    hold.set()
    assert (process.returncode, answer["saved"], answer["failed"], answer["pending"]) == (143, 0, 0, 4)
    assert json.loads((here / "results" / ".runner" / "summary.json").read_text())["stopped"] == "SIGTERM"
    (line,) = [line for line in ledger_of(here / "results") if line["attempts"]]
    assert line["outcome"] == "interrupted"
    again = start("run", "run.yaml")
    server.usual = Answer()
    assert ended(again)["saved"] == 4


def answers_503(server: ScriptedServer) -> None:
    server.usual = Answer(status=503)


def is_full(server: ScriptedServer) -> None:
    server.usual = busy(seconds=HOURS)


def drips_images(server: ScriptedServer) -> None:
    for name in "abcd":
        server.script[f"images/{name}"] = [Answer(body=b"x" * HOURS, drip_s=0.1)]


def is_loading(server: ScriptedServer) -> None:
    server.script["/health"] = [Answer(status=503)] * HOURS


@pytest.mark.parametrize(
    ("fault", "word"),
    [(answers_503, "trying again in"), (is_full, "trying again in"), (drips_images, "endpoint port"),
     (is_loading, "is out")],
)  # fmt: skip
def test_every_wait_ends_at_once(
    server: ScriptedServer, written, start: Start, fault: Callable[[ScriptedServer], None], word: str
) -> None:
    fault(server)
    retry = {"backoff_s": HOURS, "backoff_max_s": HOURS}
    timeouts = {"image_s": HOURS}
    health = {"probe_every_s": HOURS, "all_down_s": HOURS, "failures_to_open": 99}
    process = start("run", written(retry=retry, timeouts=timeouts, health=health))
    said(process, word)
    process.send_signal(signal.SIGINT)
    answer = ended(process)
    assert (process.returncode, answer["saved"], answer["failed"], answer["pending"]) == (130, 0, 0, 4)


def test_a_health_page_that_hangs_holds_up_no_end(server: ScriptedServer, written, start: Start) -> None:
    hold = threading.Event()
    server.script["/health"] = [Answer(hold=hold)]
    server.script["a"] = [Answer(hold=hold)]
    process = start("run", written(), "--grace-s", "0")
    server.wait_for(requests=1)
    process.send_signal(signal.SIGINT)
    ended(process)
    hold.set()
    assert process.returncode == 130


def test_a_terminal_that_goes_away_is_a_signal_like_the_others(server: ScriptedServer, written, start: Start) -> None:
    server.generation_s = 0.2
    process = start("run", written())
    server.wait_for(requests=1)
    process.send_signal(signal.SIGHUP)
    answer = ended(process)
    assert process.returncode == 129
    assert answer["saved"] == len(server.received)


def test_under_nohup_a_terminal_that_goes_away_ends_nothing(server: ScriptedServer, written, start: Start) -> None:
    server.generation_s = 0.1
    process = start("run", written(), preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    server.wait_for(requests=1)
    process.send_signal(signal.SIGHUP)
    assert ended(process)["saved"] == 4
    assert process.returncode == 0
