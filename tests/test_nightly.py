"""The night's script, called as cron calls it: from $HOME, with next to nothing in the environment."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, results_of
from server import Answer, ScriptedServer

SCRIPT = REPOSITORY / "scripts/nightly.sh"
UNITS = REPOSITORY / "scripts/systemd"
Night = Callable[..., subprocess.CompletedProcess[str]]


class Nights:
    """A folder with a space in its name that holds a config for the server, and a way to call the script on it."""

    def __init__(self, home: Path, server: ScriptedServer) -> None:
        self.home = home
        self.folder = home / "my nights"
        self.folder.mkdir()
        self._server = server
        self.stand_in('exec "$PYTHON" -m runner "$@"')
        self.config()

    def config(self, names: str = "a", **options: object) -> None:
        (self.folder / "list.txt").write_text("".join(f"{self._server.image(name)}\n" for name in names))
        config = {"endpoints": [self._server.url], "prompts": "list.txt", **options}
        (self.folder / "night.yaml").write_text(yaml.safe_dump(config))

    def stand_in(self, does: str) -> None:
        """Let the script find a ``runner`` that does this."""
        runner = self.home / "a runner"
        runner.write_text(f"#!/bin/sh\nPYTHON='{sys.executable}'\nexport PYTHONPATH='{REPOSITORY}'\n{does}\n")
        runner.chmod(0o755)

    def start(
        self, *flags: str, config: str = "my nights/night.yaml", start_new_session: bool = False, **variables: str
    ) -> subprocess.Popen[str]:
        """Start the script as cron does, in $HOME."""
        environment = {"HOME": str(self.home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "runner"}
        environment |= {"RUNNER": str(self.home / "a runner"), **variables}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
        options |= {"cwd": self.home, "env": environment, "start_new_session": start_new_session}
        return subprocess.Popen([SCRIPT, config, *flags], **options)

    def run(self, *flags: str, **options: str) -> tuple[int, str]:
        """Return the exit code, and what cron would mail."""
        process = self.start(*flags, **options)
        out, err = process.communicate(timeout=30)
        return process.returncode, out + err

    def log(self, folder: str = "my nights/logs") -> str:
        return (self.home / folder / f"night-{date.today()}.log").read_text()


@pytest.fixture
def nights(server: ScriptedServer, tmp_path: Path) -> Nights:
    return Nights(tmp_path, server)


def test_a_good_night_is_silent_and_its_log_has_everything(nights: Nights) -> None:
    assert nights.run() == (0, "")
    assert list(results_of(nights.folder / "results")) == ["a.ply"]
    log = nights.log()
    assert "Found 1 prompts to process" in log
    assert '"success": true' in log
    assert log.endswith("nightly: exit code 0\n")


def test_a_bad_night_is_one_line_that_says_what_happened_and_where_the_log_is(
    nights: Nights, server: ScriptedServer
) -> None:
    server.script["a"] = [Answer(status=422)]
    code, mail = nights.run()
    assert code == 1
    assert mail.startswith("runner: my nights/night.yaml: 1 of 1 prompts failed")
    assert mail.endswith(f" (exit code 1; log: my nights/logs/night-{date.today()}.log)\n")
    assert mail.count("\n") == 1
    assert '"failed": 1' in nights.log()


def test_what_is_said_in_a_good_night_is_passed_on(nights: Nights) -> None:
    nights.stand_in("echo '{}'; echo 'runner: night: out at the end: gpu-3' >&2")
    where = f"my nights/logs/night-{date.today()}.log"
    assert nights.run() == (0, f"runner: night: out at the end: gpu-3 (exit code 0; log: {where})\n")


def test_a_run_that_says_nothing_about_its_exit_code_is_quoted_by_its_answer(nights: Nights) -> None:
    nights.stand_in("""echo '{"pending": 24}'; exit 75""")
    code, mail = nights.run()
    assert (code, mail.count("\n")) == (75, 1)
    assert mail.startswith('night.yaml: {"pending": 24} (exit code 75; log: ')


def test_flags_and_the_environment_reach_the_run(nights: Nights) -> None:
    nights.stand_in('printf "%s|" "$@" "$TOKEN" "$PLAIN" "$LAST"')
    lines = [
        "# secrets",
        "",
        'TOKEN="a b=$(c)"',
        "export PLAIN=d#e\r",
        "LAST='f'",
        f"LOG_DIR={nights.home}/other logs",
    ]
    (nights.folder / "nightly.env").write_text("\n".join(lines))
    assert nights.run("--until", "06:30", "--seed", "7") == (0, "")
    log = nights.log("other logs")
    assert log.startswith("run|my nights/night.yaml|--log-file|")
    assert "|--until|06:30|--seed|7|a b=$(c)|d#e|f|" in log


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        ({"config": "none.yaml"}, "", "none.yaml: there is no such config, or it can't be read"),
        ({"config": "--until"}, "", "expected nightly.sh CONFIG [flags of runner run], got '--until'"),
        ({"ENV_FILE": "none.env"}, "", "none.env: there is no such file, or it can't be read"),
        ({}, "TOKEN: secret", "my nights/nightly.env: line 1: expected NAME=VALUE"),
        ({"KEEP_DAYS": "a month"}, "", "expected KEEP_DAYS to be a number of days, got 'a month'"),
        ({"RUNNER": "no-such-runner"}, "", "there is no runner: "),
        ({"LOG_DIR": "/proc/none"}, "", "the log can't be written; make /proc/none writable, or set LOG_DIR"),
    ],
)
def test_what_can_not_begin_says_why(nights: Nights, options: dict[str, str], line: str, message: str) -> None:
    if line:
        (nights.folder / "nightly.env").write_text(line)
    code, mail = nights.run(**options)
    assert code == 2
    assert f"nightly: {message}" in mail
    assert "secret" not in mail


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.005)


def test_a_second_one_leaves_the_first_alone(nights: Nights) -> None:
    os.mkfifo(nights.home / "end")
    nights.stand_in('touch "$HOME/begun"; read _ <"$HOME/end"')
    first = nights.start()
    until((nights.home / "begun").exists)
    code, mail = nights.run()
    (nights.home / "end").write_text("now\n")
    assert code == 75
    assert mail == (
        f"nightly: my nights/night.yaml is still at work (process {first.pid}); nothing was begun. "
        "Log: my nights/logs/night-*.log\n"
    )
    first.communicate(timeout=20)
    assert nights.log().count("exit code") == 1


def test_a_stop_is_passed_on_and_what_is_in_flight_waited_for(nights: Nights, server: ScriptedServer) -> None:
    hold = threading.Event()
    nights.config("ab")
    server.script["a"] = server.script["b"] = [Answer(hold=hold)]
    process = nights.start()
    server.wait_for(requests=1)
    process.send_signal(signal.SIGTERM)
    until(lambda: "SIGTERM" in nights.log())
    hold.set()
    _, mail = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "(exit code 143; log: " in mail
    assert len(results_of(nights.folder / "results")) == len(server.received) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_are_passed_on_once(nights: Nights, number: signal.Signals) -> None:
    nights.stand_in(
        """
        trap 'echo heard >>"$HOME/heard"; exit 9' INT HUP
        touch "$HOME/begun"
        while :; do sleep 0.02; done
        """
    )
    process = nights.start(start_new_session=True)
    until((nights.home / "begun").exists)
    os.killpg(process.pid, number)  # as a terminal does
    process.communicate(timeout=20)
    assert process.returncode == 9
    assert (nights.home / "heard").read_text() == "heard\n"


def test_only_old_logs_of_the_same_name_are_removed(nights: Nights) -> None:
    nights.stand_in("exit 0")
    logs = nights.folder / "logs"
    logs.mkdir()
    today = date.today()
    old, kept = (f"night-{today - timedelta(days=days)}.log" for days in (9, 8))
    others = [f"fortnight-{today - timedelta(days=90)}.log", f"night-2-{today - timedelta(days=90)}.log", "night.log"]
    for name in (old, f"{old}.1", kept, *others):
        (logs / name).touch()
    assert nights.run(KEEP_DAYS="08") == (0, "")
    assert {file.name for file in logs.iterdir()} == {kept, *others, "night.lock", f"night-{today}.log"}


def test_it_finds_the_runner_of_its_own_repository_else_the_one_on_path(nights: Nights, tmp_path: Path) -> None:
    for folder in ("clone/scripts", "clone/.venv/bin", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "clone/scripts")
    (tmp_path / "nightly").symlink_to(tmp_path / "clone/scripts/nightly.sh")
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:/usr/bin:/bin"}

    def found() -> str:
        command = [tmp_path / "nightly", "my nights/night.yaml"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=20)
        return done.stderr.partition(" (")[0]

    nights.stand_in("echo from PATH >&2")
    shutil.copy(tmp_path / "a runner", tmp_path / "bin/runner")
    assert found() == "from PATH"
    nights.stand_in("echo from the clone >&2")
    shutil.copy(tmp_path / "a runner", tmp_path / "clone/.venv/bin/runner")
    assert found() == "from the clone"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze here")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/runner/.venv/bin/runner", "/bin/true")  # nothing is installed here
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", "runner-nightly@night.timer", "runner-nightly@night.service"]
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="there is no shellcheck here")
def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_guide_and_the_units_name_what_is_there() -> None:
    guide = (REPOSITORY / "docs/operations.md").read_text()
    texts = [guide, *(unit.read_text() for unit in UNITS.iterdir())]
    named = {name for text in texts for name in re.findall(r"/opt/runner/([\w./-]+\w)", text)}
    assert {name for name in named if not list(REPOSITORY.glob(f"{name}*"))} <= {".venv/bin/runner"}
    assert {"scripts/nightly.sh", "scripts/systemd"} <= named


def test_variables_of_the_run_never_get_in_the_way_of_the_script(nights: Nights) -> None:
    nights.stand_in('echo "run|$*|$config|$line|$name|" >>"$RECORD"; exit 0')
    lines = [
        "\ufeffconfig=/other.yaml",
        "line=7",
        "name=x",
        "value=y",
        "number=z",
        "folder=/nowhere",
        f"RECORD={nights.home}/record",
    ]
    (nights.folder / "nightly.env").write_text("\n".join(lines))
    assert nights.run() == (0, "")
    said = (nights.home / "record").read_text()
    assert said.startswith("run|run my nights/night.yaml --log-file ") and said.endswith("|/other.yaml|7|x|\n")


def test_a_runner_that_was_killed_is_said_to_be(nights: Nights) -> None:
    nights.stand_in("kill -9 $$")
    code, mail = nights.run()
    assert code == 137 and "the runner was killed" in mail
