"""The command line as its users meet it: a process, its two streams and its exit code."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ledger_of, results_of
from server import IMAGE, Answer, ScriptedServer, splat_ply
from simulated import SERVERS

from runner import load_config

Completed = subprocess.CompletedProcess[str]
Run = Callable[..., Completed]
Start = Callable[..., subprocess.Popen[str]]

KEYS = ["success", "total", "saved", "skipped", "failed", "pending", "seconds", "output_folder"]


def answer(done: Completed) -> dict[str, Any]:
    """stdout is one line of JSON and nothing else."""
    assert done.stdout.count("\n") == 1 and done.stdout.endswith("\n")
    return dict(json.loads(done.stdout))


def test_run_answers_with_one_json_line_and_logs_on_stderr(listed, runner: Run, here: Path) -> None:
    done = runner("run", listed("a", "b"))
    assert done.returncode == 0
    assert list(answer(done)) == KEYS
    assert {name: answer(done)[name] for name in KEYS[:6]} == {
        "success": True, "total": 2, "saved": 2, "skipped": 0, "failed": 0, "pending": 0,
    }  # fmt: skip
    assert answer(done)["output_folder"] == "results"
    lines = done.stderr.splitlines()
    assert lines[0] == "Found 2 prompts to process"
    assert "Generation completed" in lines


def test_the_ancestors_command_works(server: ScriptedServer, listed, runner: Run, here: Path) -> None:
    listed("a", "b")
    arguments = ["--prompts-file", "prompts.txt", "--endpoint", server.url, "--seed", 7, "--output-folder", "out"]
    done = runner("generate", *arguments)
    assert (done.returncode, answer(done)["saved"]) == (0, 2)
    assert server.received[0].fields["seed"] == "7"
    assert sorted(results_of(here / "out")) == ["a.ply", "b.ply"]


def test_a_failed_prompt_is_exit_1_and_named(server: ScriptedServer, listed, runner: Run) -> None:
    server.script["b"] = [Answer(status=422, body=b"no object")]
    done = runner("run", listed("a", "b"))
    assert done.returncode == 1
    assert answer(done)["failed"] == 1
    assert "b: " in answer(done)["error"] and "422: no object" in answer(done)["error"]
    assert "error: Prompt b [port" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "missing.yaml"], "missing.yaml: can't be read: No such file or directory"),
        (["run", "run.yaml", "--seed", "x"], "argument --seed: invalid int value"),
        (["run", "run.yaml", "--attempts", "0"], "the command line: retry.attempts: expected an integer ≥ 1, got 0"),
        (["run", "run.yaml", "--set", "retry.atempts=1"], "did you mean 'attempts'?"),
        (["run", "run.yaml", "--prompts-file", "no.txt"], "no.txt does not exist"),
        (
            ["run", "run.yaml", "--log-file", "/no/such/folder/log"],
            "--log-file /no/such/folder/log: can't be written",
        ),
        (["run"], "the following arguments are required: CONFIG"),
        (["generate", "--endpoint", "http://h:1"], "the following arguments are required: --prompts-file"),
    ],
)
def test_wrong_usage_is_exit_2_one_clear_message_and_nothing_sent(
    server: ScriptedServer, listed, runner: Run, arguments: list[str], said: str
) -> None:
    listed("a")
    done = runner(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert answer(done)["success"] is False and answer(done)["error"]
    assert not server.received


def test_an_unknown_command_is_exit_2(runner: Run) -> None:
    done = runner("rum")
    assert (done.returncode, done.stdout) == (2, "")
    assert "invalid choice: 'rum'" in done.stderr


def test_flags_win_over_the_config(server: ScriptedServer, listed, runner: Run, here: Path) -> None:
    listed("a", seed=1, output_folder="one")
    done = runner(
        "run", "run.yaml", "--seed", 2, "--output-folder", "two", "--prompts-file", "-", given=server.image("z")
    )
    assert done.returncode == 0
    assert server.received[0].fields["seed"] == "2"
    assert list(results_of(here / "two")) == ["z.ply"]
    assert not (here / "one").exists()


def test_a_dry_run_prints_the_plan_and_sends_nothing(server: ScriptedServer, listed, runner: Run, here: Path) -> None:
    done = runner("run", listed("a", "b"), "--dry-run")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].split() == ["index", "key", "endpoint", "state"]
    assert f"0  a    127.0.0.1:{server.port}  pending" in done.stdout
    assert "2 prompts: 0 saved, 2 pending" in done.stdout
    assert not server.received and not (here / "results").exists()


def test_plan_knows_what_is_saved_and_speaks_json(listed, runner: Run) -> None:
    runner("run", listed("a"))
    listed("b", "a")
    rows = [json.loads(line) for line in runner("plan", "run.yaml", "--json").stdout.splitlines()]
    assert [(row["index"], row["key"], row["state"]) for row in rows] == [(0, "b", "pending"), (1, "a", "saved")]


def test_check_says_who_is_up_and_is_exit_1_if_one_is_not(server: ScriptedServer, listed, runner: Run) -> None:
    listed("a")
    good = runner("check", "run.yaml")
    assert good.returncode == 0
    assert "run.yaml: valid, 1 prompts, 1 endpoints" in good.stdout
    assert "up" in good.stdout and "healthy" in good.stdout and "test-1" in good.stdout
    bad = runner("check", "run.yaml", "--endpoint", server.url, "--endpoint", "http://127.0.0.1:1", "--json")
    assert bad.returncode == 1
    rows = [json.loads(line) for line in bad.stdout.splitlines()]
    assert [row["healthy"] for row in rows] == [True, False]
    assert rows[1]["status"] == "Connection refused"


def test_status_counts_and_writes_the_prompts_still_to_do(
    server: ScriptedServer, listed, runner: Run, here: Path
) -> None:
    server.script["b"] = [Answer(status=422, body=b"no object")]
    runner("run", listed("a", "b"))
    listed("a", "b", "c")
    (here / "results" / "notes.txt").write_text("mine")
    done = runner("status", "results", "--missing-file", "todo.txt")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "results: 3 total, 1 saved, 1 failed, 1 missing, 0 earlier, 1 unknown"
    assert "422: no object" in done.stdout and "notes.txt" in done.stdout
    assert (here / "todo.txt").read_text() == f"{server.image('b')}\n{server.image('c')}\n"
    assert json.loads(runner("status", "results", "--json").stdout)["missing"] == 1
    again = runner("run", "run.yaml", "--prompts-file", "todo.txt", "--output-folder", "results")
    assert (again.returncode, answer(again)["saved"]) == (0, 2)
    assert runner("status", "results").returncode == 0


def test_status_never_writes_over_the_prompts_file(listed, runner: Run, here: Path) -> None:
    runner("run", listed("a"))
    before = (here / "prompts.txt").read_text()
    done = runner("status", "results", "--missing-file", "prompts.txt")
    assert done.returncode == 2
    assert "the run's own prompts file" in done.stderr
    assert (here / "prompts.txt").read_text() == before


def test_status_needs_no_secrets(
    server: ScriptedServer, listed, start: Start, runner: Run, environment: dict[str, str]
) -> None:
    listed("a", endpoints=[{"url": server.url, "headers": {"Authorization": "Bearer ${RUNNER_TEST_TOKEN}"}}])
    assert runner("run", "run.yaml").returncode == 2
    process = start("run", "run.yaml", env={**environment, "RUNNER_TEST_TOKEN": "hunter2hunter2"})
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert runner("status", "results").returncode == 0


def test_status_of_what_is_no_output_folder_is_exit_2(runner: Run) -> None:
    done = runner("status", "nowhere")
    assert done.returncode == 2
    assert "nowhere is no output folder of a run" in done.stderr


def test_init_writes_a_config_that_is_valid_and_never_over_one(runner: Run, here: Path) -> None:
    assert runner("init").returncode == 0
    (here / "prompts.txt").write_text("https://h/a.png\n")
    assert runner("plan", "runner.yaml").returncode == 0
    again = runner("init")
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert runner("init", "-").stdout == (here / "runner.yaml").read_text()


def test_schema_is_a_json_schema(runner: Run) -> None:
    schema = json.loads(runner("schema").stdout)
    assert (schema["required"], schema["anyOf"]) == (
        ["endpoints"],
        [{"required": ["prompts"]}, {"required": ["runs"]}],
    )


@pytest.mark.parametrize(
    "command", ["run", "generate", "plan", "check", "protocols", "status", "serve", "init", "schema"]
)
def test_every_command_has_help(runner: Run, command: str) -> None:
    done = runner(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: runner {command}")
    assert command in runner("--help").stdout


def test_quiet_says_nothing_when_all_is_well(listed, runner: Run) -> None:
    done = runner("run", listed("a"), "-q")
    assert done.stderr == ""
    assert answer(done)["saved"] == 1


def test_verbose_and_a_log_file_have_times(listed, runner: Run, here: Path) -> None:
    done = runner("run", listed("a"), "-v", "--log-file", "my.log")
    assert "INFO    Found 1 prompts to process" in done.stderr
    assert "INFO    Found 1 prompts to process" in (here / "my.log").read_text()


def test_a_terminal_gets_a_bar_and_a_file_does_not(listed, here: Path, environment: dict[str, str]) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-m", "runner", "run", listed("a", "b", "c")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, cwd=here, env=environment)
    os.close(follower)
    shown = b""
    while True:
        try:
            shown += os.read(leader, 65536)
        except OSError:
            break
    os.close(leader)
    assert process.communicate()[0].count(b"\n") == 1
    assert b"3/3" in shown and b"saved 3 failed 0" in shown
    assert b"Prompt a \xe2\x86\x92 endpoint port" in shown


def test_a_held_folder_is_exit_75(server: ScriptedServer, listed, start: Start, runner: Run) -> None:
    hold = threading.Event()
    server.script["a"] = [Answer(hold=hold)]
    first = start("run", listed("a"))
    server.wait_for(requests=1)
    second = runner("run", "run.yaml")
    assert second.returncode == 75
    assert f"held by another run (pid {first.pid} on" in second.stderr
    assert answer(second)["success"] is False
    hold.set()
    first.communicate(timeout=30)
    assert first.returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_what_is_in_flight_begins_nothing_new_and_the_same_command_goes_on(
    server: ScriptedServer, listed, start: Start, runner: Run, here: Path, number: signal.Signals, code: int
) -> None:
    hold = threading.Event()
    server.script["a"] = [Answer(hold=hold)]
    server.script["b"] = [Answer(hold=hold)]
    process = start("run", listed(*"abcdef"))
    server.wait_for(requests=1)
    process.send_signal(number)
    assert process.stderr is not None
    while "Stopping" not in process.stderr.readline():
        pass
    hold.set()
    out, _ = process.communicate(timeout=30)
    assert process.returncode == code
    said = json.loads(out)
    assert (said["saved"], said["failed"], said["pending"]) == (1, 0, 5)
    assert len(results_of(here / "results")) == 1
    again = runner("run", "run.yaml")
    assert (again.returncode, answer(again)["saved"], answer(again)["skipped"]) == (0, 5, 1)


def test_a_second_signal_leaves_at_once_with_a_stuck_server(
    server: ScriptedServer, listed, start: Start, here: Path
) -> None:
    hold = threading.Event()
    server.script["a"] = server.script["b"] = [Answer(hold=hold)] * 2
    process = start("run", listed(*"abcdef"))
    server.wait_for(requests=1)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "Stopping" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    hold.set()
    assert process.returncode == 130
    assert json.loads(out)["pending"] == 6
    assert json.loads((here / "results" / ".runner" / "summary.json").read_text())["stopped"] == "SIGINT"


@pytest.mark.parametrize("after", [1, 3, 6, 9, 11])
def test_a_killed_run_is_taken_up_again_with_every_file_whole_and_little_done_twice(
    server: ScriptedServer, listed, start: Start, runner: Run, here: Path, after: int
) -> None:
    names = [f"p{number}" for number in range(12)]
    for name in names:
        server.script[name] = [Answer(body=splat_ply(20_000), length="chunked")] * 2
    process = start("run", listed(*names))
    server.wait_for(requests=after)
    process.kill()
    process.communicate()
    done = runner("run", "run.yaml")
    assert (done.returncode, answer(done)["failed"], answer(done)["pending"]) == (0, 0, 0)
    assert results_of(here / "results") == {f"{name}.ply": splat_ply(20_000) for name in names}
    assert not list((here / "results").glob(".*.part"))
    hands = 2
    assert len(server.received) <= len(names) + hands
    assert {line["key"] for line in ledger_of(here / "results") if line["outcome"] == "saved"} == set(names)


def test_the_command_and_the_module_are_the_same(environment: dict[str, str], here: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "runner", "--version"], capture_output=True, text=True, env=environment
    )
    assert said.stdout.startswith("runner 0.")


def test_a_reader_that_goes_away_is_no_traceback(listed, here: Path, environment: dict[str, str]) -> None:
    listed(*[f"p{number}" for number in range(3000)])
    line = f"{sys.executable} -m runner plan run.yaml | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=here, env=environment)
    assert done.stdout.startswith("index")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "redirect", ["2>&1 >out | head -1", "2>/dev/full >out", "2>&- >out", "2>/dev/null >/dev/full", ">&-"]
)
def test_a_lost_or_full_stream_never_ends_a_run(
    listed, here: Path, environment: dict[str, str], redirect: str
) -> None:
    listed("a", "b", "c")
    line = f"set -o pipefail; {sys.executable} -m runner run run.yaml {redirect}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=here, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(results_of(here / "results")) == 3
    assert json.loads((here / "results" / ".runner" / "summary.json").read_text())["saved"] == 3
    assert "Traceback" not in done.stderr
    if ">out" in redirect:
        assert json.loads((here / "out").read_text())["saved"] == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_the_wait_for_a_list_on_stdin(
    server: ScriptedServer, start: Start, number: signal.Signals, code: int
) -> None:
    process = start("generate", "--prompts-file", "-", "--endpoint", server.url, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write("a.png\n" * 20_000)  # more than a pipe holds: it reads, and wants more
    process.stdin.flush()
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == code
    if code == 130:
        assert json.loads(out)["error"] == "interrupted; nothing was sent"


def test_the_first_signal_after_the_window_still_waits_for_what_is_in_flight(
    server: ScriptedServer, listed, start: Start, here: Path
) -> None:
    hold = threading.Event()
    server.script["a"] = server.script["b"] = [Answer(hold=hold)]
    process = start("run", listed(*"abcdef", max_runtime_s=0.5))
    server.wait_for(requests=1)
    assert process.stderr is not None
    while "Stopping (the time window is over)" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):  # more than two ticks: a run that leaves at once would be gone
        process.wait(0.5)
    hold.set()
    out, _ = process.communicate(timeout=30)
    assert json.loads(out)["saved"] == 1
    assert process.returncode == 75


def test_status_finds_the_list_of_stdin_after_the_folder_was_moved_and_keeps_it_private(
    server: ScriptedServer, runner: Run, here: Path
) -> None:
    lines = "".join(f"{server.image(name)}?sig=sweetsecret\n" for name in "ab")
    runner("generate", "--prompts-file", "-", "--endpoint", server.url, given=lines)
    (here / "results").rename(here / "moved")
    done = runner("status", "moved")
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        "moved: 2 total, 2 saved, 0 failed, 0 missing, 0 earlier, 0 unknown",
    )
    assert (here / "moved" / ".runner" / "prompts.txt").stat().st_mode & 0o077 == 0


def test_a_run_of_the_missing_ones_leaves_the_others_known(listed, runner: Run, here: Path) -> None:
    runner("run", listed("a", "b", "c"))
    (here / "results" / "b.ply").unlink()
    runner("status", "results", "--missing-file", "todo.txt")
    runner("run", "run.yaml", "--prompts-file", "todo.txt", "--output-folder", "results")
    said = runner("status", "results").stdout.splitlines()
    assert said[0] == "results: 1 total, 1 saved, 0 failed, 0 missing, 2 earlier, 0 unknown"
    assert not [line for line in said if line.startswith(("missing:", "failed:", "unknown:"))]


def test_no_missing_file_is_written_where_it_would_number_the_results_anew(listed, runner: Run, here: Path) -> None:
    runner("run", listed("a", "b", output={"keys": "index-name"}))
    done = runner("status", "results", "--missing-file", "todo.txt")
    assert done.returncode == 2
    assert "run the same command again" in done.stderr
    assert not (here / "todo.txt").exists()


def test_a_missing_file_is_written_through_links_and_into_pipes(listed, runner: Run, here: Path) -> None:
    runner("run", listed("a"))
    (here / "results" / "a.ply").unlink()
    (here / "link.txt").symlink_to("target.txt")
    runner("status", "results", "--missing-file", "link.txt")
    assert (here / "link.txt").is_symlink()
    assert (here / "target.txt").read_text().endswith("a.png\n")
    os.mkfifo(here / "pipe")
    reader = os.open(here / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    runner("status", "results", "--missing-file", "pipe")
    assert os.read(reader, 1000).endswith(b"a.png\n")
    os.close(reader)
    assert (here / "pipe").is_fifo()


def test_a_bug_is_exit_3_with_its_traceback(
    listed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from runner import batch
    from runner.cli import main

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("here")

    monkeypatch.setattr(batch, "run", broken)
    assert main(["run", listed("a")]) == 3
    said = capsys.readouterr()
    assert "ZeroDivisionError: here" in said.err and "a bug in runner" in said.err
    assert json.loads(said.out)["success"] is False


def test_local_images_need_no_image_host(server: ScriptedServer, runner: Run, here: Path) -> None:
    (here / "images").mkdir()
    (here / "images" / "a.png").write_bytes(IMAGE)
    done = runner("generate", "--prompts-file", "images", "--endpoint", server.url)
    assert (done.returncode, answer(done)["saved"]) == (0, 1)
    assert server.images_asked == []


def test_names_that_are_no_unicode_and_a_terminal_that_shows_none_are_no_reason_to_fail(
    server: ScriptedServer, start: Start, here: Path, environment: dict[str, str]
) -> None:
    (here / "images").mkdir()
    for name in (b"caf\xe9.png", "\u2192.png".encode()):
        Path(os.fsdecode(os.path.join(os.fsencode(here / "images"), name))).write_bytes(IMAGE)
    command = ["generate", "--prompts-file", "images", "--endpoint", server.url]
    env = environment | {"PYTHONIOENCODING": "latin-1", "LANG": "C"}
    for saved, skipped in ((2, 0), (0, 2)):
        process = start(*command, env=env, text=False)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert (json.loads(out)["saved"], json.loads(out)["skipped"]) == (saved, skipped)
    assert sorted(results_of(here / "results")) == ["caf_.ply", "\u2192.ply"]
    assert start("status", "results", env=env).wait(60) == 0


def rich_list(server: ScriptedServer) -> str:
    """Return three prompts with names and seeds of their own, as JSON lines."""
    return "".join(
        json.dumps({"image": f"{server.image(name)}?sig=sweetsecret", "key": f"chair-{name}", "seed": number}) + "\n"
        for number, name in enumerate("abc")
    )


def test_named_and_seeded_prompts_keep_both_in_results_and_in_the_list_of_those_to_do(
    server: ScriptedServer, runner: Run, here: Path
) -> None:
    server.script["b"] = [Answer(status=422)]
    (here / "list.jsonl").write_text(rich_list(server))
    first = runner("generate", "--prompts-file", "list.jsonl", "--endpoint", server.url)
    assert (first.returncode, answer(first)["saved"]) == (1, 2)
    assert {one.stem: one.fields["seed"] for one in server.received} == {"a": "0", "b": "1", "c": "2"}
    assert {line["key"]: line["seed"] for line in ledger_of(here / "results")} == {
        f"chair-{one}": i for i, one in enumerate("abc")
    }
    refused = runner("status", "results", "--missing-file", "todo.txt")
    assert refused.returncode == 2
    assert "--missing-file todo.txt: expected a name that ends in .jsonl, or -" in refused.stderr
    assert not (here / "todo.txt").exists()
    printed = runner("status", "results", "--missing-file", "-")
    assert printed.returncode == 1
    assert json.loads(printed.stdout) == json.loads(rich_list(server).splitlines()[1])
    runner("status", "results", "--missing-file", "todo.jsonl")
    assert (here / "todo.jsonl").read_text() == printed.stdout
    again = runner("generate", "--prompts-file", "-", "--endpoint", server.url, given=printed.stdout)
    assert (again.returncode, answer(again)["saved"]) == (0, 1)
    whole = runner("generate", "--prompts-file", "list.jsonl", "--endpoint", server.url)
    assert (whole.returncode, answer(whole)["skipped"]) == (0, 3)


def test_plain_images_are_written_as_the_file_to_do_is_called(
    listed, runner: Run, server: ScriptedServer, here: Path
) -> None:
    server.script["a"] = [Answer(status=422)]
    runner("run", listed("a"))
    runner("status", "results", "--missing-file", "todo.jsonl")
    assert json.loads((here / "todo.jsonl").read_text()) == {"image": server.image("a")}
    refused = runner("status", "results", "--missing-file", "todo.csv")
    assert (refused.returncode, (here / "todo.csv").exists()) == (2, False)
    assert "expected a name that ends in .jsonl or .txt" in refused.stderr


def test_json_lines_of_stdin_are_kept_with_the_folder(server: ScriptedServer, runner: Run, here: Path) -> None:
    runner("generate", "--prompts-file", "-", "--endpoint", server.url, given=rich_list(server))
    done = runner("status", "results")
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        "results: 3 total, 3 saved, 0 failed, 0 missing, 0 earlier, 0 unknown",
    )
    assert (here / "results" / ".runner" / "prompts.jsonl").stat().st_mode & 0o077 == 0


def test_a_list_at_a_url_is_read_once_and_status_needs_it_no_more(
    server: ScriptedServer, runner: Run, here: Path, start: Start, environment: dict[str, str]
) -> None:
    table = "image_url,seed\n" + "".join(f"images/{name}.png,7\n" for name in "ab")
    server.script["/list.csv"] = [Answer(body=table.encode())]
    url = f"{server.url}/list.csv?code=${{RUNNER_TEST_CODE}}"
    (here / "run.yaml").write_text(yaml.safe_dump({"endpoints": [server.url], "prompts": url}))
    process = start("run", "run.yaml", env={**environment, "RUNNER_TEST_CODE": "hunter2hunter2"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["saved"]) == (0, 2)
    assert {one.fields["seed"] for one in server.received} == {"7"}
    assert runner("status", "results").stdout.startswith("results: 2 total, 2 saved")
    state = "".join(file.read_text() for file in (here / "results" / ".runner").iterdir())
    assert "hunter2hunter2" not in state + out + err
    server.script["/list.csv"] = [Answer(status=404)]
    process = start("run", "run.yaml", env={**environment, "RUNNER_TEST_CODE": "hunter2hunter2"})
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"prompts: {server.url}/list.csv answers 404; nothing was sent" in err
    assert "hunter2hunter2" not in out + err


def test_check_says_what_the_preset_expects_and_a_wrong_one_is_exit_1(
    server: ScriptedServer, listed, runner: Run
) -> None:
    listed("a")
    good = runner("check", "run.yaml")
    assert "404-splat expects GET /health → 200 with status healthy; POST /generate (multipart: " in good.stdout
    with SERVERS["stable-fast-3d"]() as other:
        bad = runner("check", "run.yaml", "--endpoint", other.url)
    assert bad.returncode == 1
    said = "POST /generate answers 422 field required: file, which is not 404-splat; it looks like stable-fast-3d"
    assert "DOES NOT FIT" in bad.stdout and said in bad.stdout


def test_protocols_lists_the_presets_and_prints_one_to_copy(runner: Run, here: Path) -> None:
    listed = runner("protocols")
    assert listed.returncode == 0
    assert "comfyui" in listed.stdout and "404-splat" in listed.stdout
    printed = runner("protocols", "comfyui").stdout
    copied = {"endpoints": "http://127.0.0.1:1", "prompts": "x.png", "protocol": yaml.safe_load(printed)}
    (here / "copy.yaml").write_text(yaml.safe_dump(copied))
    assert load_config(here / "copy.yaml").settings.protocol.upload is not None
    wrong = runner("protocols", "comfy")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "there is no preset 'comfy'; did you mean 'comfyui'?" in wrong.stderr


def test_check_asks_with_the_protocols_own_credentials_and_nothing_that_may_be_a_prompt(
    server: ScriptedServer, listed, runner: Run
) -> None:
    listed("a")
    key = "protocol={preset: 404-splat, request: {headers: {X-Api-Key: of-ours-1}, query: {team: red}}}"
    assert runner("check", "run.yaml", "--set", key).returncode == 0
    path, head = server.heads[-1]
    assert (path, head["X-Api-Key"]) == ("/generate?team=red", "of-ours-1")
    asked = len(server.heads)
    raw = "protocol={request: {path: /generate, encoding: raw, body: '{image.bytes}'}}"
    assert "may take anything for a prompt: not asked" in runner("check", "run.yaml", "--set", raw).stdout
    assert [path for path, _ in server.heads[asked:] if path.startswith("/generate")] == []
