"""A run that nobody watches: silent when all is well, one line when it is not."""

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from server import Answer, ScriptedServer

Run = Callable[..., Any]


def test_a_good_night_says_nothing_but_its_answer(server: ScriptedServer, listed, runner: Run, here: Path) -> None:
    server.script["a"] = [Answer(status=500)]  # a retry is nothing wrong
    done = runner("run", listed("a", "b"), as_it_is=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["saved"] == 2
    assert "Generation completed" in (here / "results" / ".runner" / "run.log").read_text()


def test_a_bad_night_is_one_line(server: ScriptedServer, listed, runner: Run) -> None:
    server.script["b"] = [Answer(status=422, body=b"no\nobject")]
    done = runner("run", listed("a", "b"), as_it_is=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("runner: run.yaml: 1 of 2 prompts failed (first: b: ")


def test_work_that_is_left_for_the_next_night_is_one_line(server: ScriptedServer, listed, runner: Run) -> None:
    server.generation_s = 0.3
    done = runner("run", listed("a", "b", "c", "d"), "--max-runtime-s", 0.7, as_it_is=True)
    assert done.returncode == 75 and done.stderr.count("\n") == 1
    assert "still pending: the time window is over; the same command goes on" in done.stderr


def test_an_endpoint_that_is_out_at_the_end_is_told_although_all_is_saved(servers: Any, listed, runner: Run) -> None:
    dead, other = servers(2)
    dead.die()
    done = runner("run", listed("a", "b", "c", endpoints=[dead.url, other.url]), as_it_is=True)
    assert (done.returncode, json.loads(done.stdout)["success"]) == (0, True)
    assert done.stderr == f"runner: run.yaml: out at the end: 127.0.0.1:{dead.port}\n"


def test_what_was_asked_for_is_said_all_the_same(listed, runner: Run) -> None:
    done = runner("run", listed("a"), "--log-level", "info", as_it_is=True)
    assert done.stderr.startswith("Found 1 prompts to process\n")
    done = runner("run", listed("b"), as_it_is=True)
    assert done.stderr == ""
    done = runner("run", listed("c", log={"level": "info", "format": "json"}), as_it_is=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines[0]["message"] == "Found 1 prompts to process" and lines[-1]["message"] == "Generation completed"


def test_generate_keeps_the_ancestors_lines(server: ScriptedServer, listed, runner: Run) -> None:
    listed("a")
    done = runner("generate", "--prompts-file", "prompts.txt", "--endpoint", server.url)
    assert "Found 1 prompts to process" in done.stderr.splitlines()


def test_on_a_terminal_a_run_is_told_as_it_goes(listed, start: Run) -> None:
    ours, theirs = pty.openpty()
    process = start("run", listed("a"), as_it_is=True, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 65536)
        except OSError:
            break
    process.wait(20)
    os.close(ours)
    assert b"Found 1 prompts to process" in said and b"generation completed" in said


def test_a_command_that_can_not_begin_says_so(listed, runner: Run, here: Path) -> None:
    done = runner("run", listed("a", seed="x"), as_it_is=True)
    assert done.returncode == 2 and "run.yaml: seed: expected an integer" in done.stderr
    config = listed("a", "a")
    done = runner("run", config, as_it_is=True)
    assert done.returncode == 2 and done.stderr.startswith("runner: error: ")


def test_several_runs_are_one_line_together(server: ScriptedServer, listed, runner: Run, here: Path) -> None:
    server.script["b"] = [Answer(status=422, body=b"no object")]
    listed()
    for name in "abc":
        (here / f"{name}.txt").write_text(f"{server.image(name)}\n")
    document = {"endpoints": [server.url], "output_folder": "out/{stem}", "runs": "?.txt"}
    (here / "night.yaml").write_text(yaml.safe_dump(document))
    done = runner("run", "night.yaml", as_it_is=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("runner: night.yaml: out/b: 1 of 1 prompts failed (first: b: ")


def test_the_exit_code_is_true_although_nobody_hears(listed, start: Run, here: Path) -> None:
    config = listed("a", "a")
    with open("/dev/full", "w") as full:
        process = start("run", config, as_it_is=True, stderr=full)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 2 and json.loads(out)["success"] is False


def test_the_answer_is_json_in_every_encoding(
    server: ScriptedServer, listed, start: Run, environment: dict[str, str], here: Path
) -> None:
    listed()
    (here / "prompts.jsonl").write_text(json.dumps({"image": server.image("a"), "key": "é😀"}) + "\n")
    server.script["a"] = [Answer(status=422)]
    flags = ["--prompts-file", "prompts.jsonl", "--log-level", "info", "--log-format", "json"]
    process = start("run", "run.yaml", *flags, as_it_is=True, env=environment | {"PYTHONIOENCODING": "latin-1"})
    out, err = process.communicate(timeout=30)
    assert "é😀" in json.loads(out)["error"]
    assert [json.loads(line) for line in err.splitlines()]


def test_a_third_signal_ends_the_process_whatever_it_waits_for(server: ScriptedServer, listed, start: Run) -> None:
    process = start("run", listed("a", notify={"when": "always", "command": "exec sleep 10"}), as_it_is=True)
    while process.poll() is None and not server.received:
        server.wait_for(requests=1)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    assert process.returncode in (143, -signal.SIGTERM)


def test_the_log_as_json_ends_in_json_where_nobody_watches(server: ScriptedServer, listed, runner: Run) -> None:
    server.script["a"] = [Answer(status=422)]
    done = runner("run", listed("a", log={"format": "json"}), as_it_is=True)
    assert json.loads(done.stderr)["level"] == "error"
