"""Where the log goes, and what programs can read of it."""

import json
import logging
import os
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from server import Answer, ScriptedServer
from test_run import config_for, names

from runner import run
from runner.journal import JsonLines, LogFile, log, together
from runner.ledger import LOCK, holder, locked
from runner.progress import PROGRESS, Board, read_progress
from runner.records import Event
from runner.report import Tally
from runner.settings import Log

Servers = Callable[..., list[ScriptedServer]]


def say(handler: logging.Handler, *texts: str) -> None:
    for text in texts:
        handler.emit(logging.LogRecord("runner", logging.INFO, "", 0, text, None, None))


def parts(folder: Path) -> dict[str, str]:
    return {file.name: "".join(line[-2] for line in file.read_text().splitlines(True)) for file in folder.iterdir()}


def test_a_log_that_gets_too_long_is_put_aside_and_the_oldest_is_gone(tmp_path: Path) -> None:
    handler = LogFile(tmp_path / "run.log", Log(max_bytes=1000, keep=2))
    handler.setFormatter(logging.Formatter("%(message)s"))
    for letter in "abcd":
        say(handler, *[f"{'.' * 297}{letter}"] * 3)
    handler.close()
    assert parts(tmp_path) == {"run.log": "ddd", "run.log.1": "ccc", "run.log.2": "bbb"}


def test_what_an_earlier_run_has_written_counts_and_a_long_line_is_not_cut(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("-" * 990 + "a\n")
    handler = LogFile(tmp_path / "run.log", Log(max_bytes=1000, keep=1))
    handler.setFormatter(logging.Formatter("%(message)s"))
    say(handler, "." * 5000 + "b", "c")
    handler.close()
    assert parts(tmp_path) == {"run.log": "c", "run.log.1": "b"}


def test_nothing_is_kept_if_so_asked(tmp_path: Path) -> None:
    handler = LogFile(tmp_path / "run.log", Log(max_bytes=1000, keep=0))
    for letter in "ab":
        say(handler, f"{'.' * 900}{letter}")
    handler.close()
    assert parts(tmp_path) == {"run.log": "b"}


def test_a_log_whose_run_has_ended_is_no_reason_for_another_run_of_the_process_to_fail(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "run.log", Log())
    log.addHandler(file)
    try:
        with together():
            log.warning("one")
            file.close()
    finally:
        log.removeHandler(file)
    assert (tmp_path / "run.log").read_text() == ""


def test_a_pipe_or_a_device_is_never_put_aside(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    handler = LogFile(tmp_path / "pipe", Log(max_bytes=1000, keep=1))
    say(handler, *["." * 600] * 4)
    handler.close()
    reader.join()
    assert got[0].count(b"\n") == 4 and [one.name for one in tmp_path.iterdir()] == ["pipe"]


def test_the_logs_of_a_folder_do_not_grow_for_ever(server: ScriptedServer, tmp_path: Path) -> None:
    config = config_for([server], names(40), tmp_path, log={"max_bytes": 2000, "keep": 2})
    run(config)
    state = tmp_path / "results" / ".runner"
    kept = sorted(one.name for one in state.glob("run.log*"))
    assert kept == ["run.log", "run.log.1", "run.log.2"]
    assert all((state / name).stat().st_size <= 2000 for name in kept)


def test_a_log_of_json_lines_says_what_each_line_is_about(servers: Servers, tmp_path: Path) -> None:
    one, other = servers(2)
    one.script["p0"] = [Answer(status=500, body=b"CUDA error")]
    one.script["p2"] = [Answer(status=422, body=b"no object")]
    config = config_for([one, other], names(4), tmp_path, log={"file": str(tmp_path / "log.jsonl"), "format": "json"})
    run(config)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0]["message"] == "Found 4 prompts to process" and lines[0]["level"] == "info"
    assert lines[0]["time"].endswith("Z") and len(lines[0]["time"]) == 24
    told = {(line["event"], line["key"]): line for line in lines if "key" in line}
    assert {("started", "p0"), ("retrying", "p0"), ("saved", "p0"), ("failed", "p2"), ("saved", "p3")} <= {*told}
    assert told["retrying", "p0"]["error"].endswith("500: CUDA error") and told["retrying", "p0"]["attempt"] == 1
    saved = told["saved", "p3"]
    assert (saved["endpoint"], saved["file"], saved["attempts"]) == (f"127.0.0.1:{other.port}", "p3.ply", 1)
    assert saved["size_bytes"] > 0 and saved["seconds"] > 0
    text = (tmp_path / "results" / ".runner" / "run.log").read_text()
    assert "INFO    Found 4 prompts" in text, "the folder's own log stays readable"


def test_secrets_are_out_of_the_fields_too(server: ScriptedServer, tmp_path: Path, monkeypatch: Any) -> None:
    server.usual = Answer(status=500, body=b"bad token hunter2-hunter2")
    endpoint = {"url": server.url, "bearer": "hunter2-hunter2"}
    config = config_for(
        [server], names(1), tmp_path, endpoints=[endpoint], log={"file": str(tmp_path / "l"), "format": "json"}
    )
    run(config)
    text = (tmp_path / "l").read_text()
    assert "bad token" in text and "hunter2" not in text


def test_the_json_of_a_bug_has_its_traceback() -> None:
    try:
        raise ValueError("oops")
    except ValueError:
        import sys

        record = logging.LogRecord("runner", logging.ERROR, "", 0, "a bug: %s", ("x",), sys.exc_info())
    line = json.loads(JsonLines().format(record))
    assert line["message"] == "a bug: x" and "ValueError: oops" in line["traceback"]


def test_who_looks_from_outside_sees_how_far_a_run_is(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.progress.EVERY_S", 0.05)
    one, other = servers(2)
    hold = threading.Event()
    one.script["p2"] = [Answer(hold=hold)]
    state = tmp_path / "results" / ".runner"
    seen: list[dict[str, Any]] = []

    def watch(tally: Tally, event: Event | None) -> None:
        found = read_progress(state)
        taken, saved = (found["endpoints"][0]["taken"], found["endpoints"][1]["saved"]) if found else (0, 0)
        if not hold.is_set() and (taken, saved) == (2, 4):
            seen.append(found)
            hold.set()
        if tally.seconds > 20:
            hold.set()

    assert read_progress(state) is None
    run(config_for([one, other], names(8), tmp_path), observe=watch)
    found = seen[-1]
    assert (found["pid"], found["total"], found["failed"]) == (os.getpid(), 8, 0)
    assert found["saved"] + found["skipped"] + found["failed"] + found["pending"] == 8
    mine, others = found["endpoints"]
    assert (mine["name"], mine["state"], others["waiting"]) == (f"127.0.0.1:{one.port}", "in", 0)
    assert mine["saved"] + mine["taken"] + mine["waiting"] == others["saved"] == 4
    assert others["median_s"] is not None
    assert not (state / PROGRESS).exists() and read_progress(state) is None


def test_what_a_dead_run_left_is_no_run_that_goes_on(tmp_path: Path) -> None:
    (tmp_path / PROGRESS).write_text(json.dumps({"pid": os.getpid(), "total": 1}))
    assert read_progress(tmp_path) is None, "nobody holds the lock"
    (tmp_path / "lock").write_text(f"pid {2**22 + 1} on {os.uname().nodename}\n")
    assert read_progress(tmp_path) is None
    (tmp_path / "lock").write_text(f"pid {os.getpid()} on another-host\n")
    assert read_progress(tmp_path) is None
    (tmp_path / "lock").write_text(f"pid {os.getpid()} on {os.uname().nodename}\n")
    assert read_progress(tmp_path) == {"pid": os.getpid(), "total": 1}
    (tmp_path / PROGRESS).write_text("{half")
    assert read_progress(tmp_path) is None


def test_the_level_of_the_library_is_left_alone(server: ScriptedServer, tmp_path: Path) -> None:
    handlers = list(log.handlers)
    run(config_for([server], names(1), tmp_path, log={"file": str(tmp_path / "log")}))
    assert log.handlers == handlers


@pytest.mark.parametrize("file", ["no/such/log", "."])
def test_a_log_file_that_can_not_be_is_refused_before_anything_is_sent(
    server: ScriptedServer, tmp_path: Path, file: str
) -> None:
    from runner.errors import UsageError

    with pytest.raises(UsageError, match=f"log.file or --log-file {tmp_path / file}: can't be written"):
        run(config_for([server], names(1), tmp_path, log={"file": str(tmp_path / file)}))
    assert not server.received


def test_a_log_that_can_not_be_put_aside_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.log.1").mkdir()
    (tmp_path / "run.log.1" / "something").touch()
    handler = LogFile(tmp_path / "run.log", Log(max_bytes=1000, keep=1))
    handler.setFormatter(logging.Formatter("%(message)s"))
    for number in range(30):
        say(handler, f"{number:0100}")
    handler.close()
    assert [int(line) for line in (tmp_path / "run.log").read_text().splitlines()] == list(range(30))


def test_a_process_with_the_number_of_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    with locked(tmp_path / LOCK):
        assert holder(tmp_path) == os.getpid()
        said = (tmp_path / LOCK).read_text()
    assert holder(tmp_path) is None
    (tmp_path / LOCK).write_text(said.replace("since tick ", "since tick 1"))
    assert holder(tmp_path) is None


def test_how_far_a_run_is_is_written_less_often_where_that_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("runner.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    written = []

    def slowly(_: Tally, loads: object) -> dict[str, Any]:
        written.append(now[0])
        now[0] += 0.3
        return {}

    board = Board(tmp_path, "r", str)
    monkeypatch.setattr(board, "_shown", slowly)
    for _ in range(200):
        board.look(Tally(run="r", total=1, skipped=0, endpoints=[]), list)
        now[0] += 0.25
    assert len(written) == 4 and min(b - a for a, b in pairwise(written)) >= 15
