"""Endpoints that are looked at, and the run that goes on with them."""

import errno
import fcntl
import io
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from server import Answer, ScriptedServer

from runner import ledger, load_config
from runner.cli import looks, main
from runner.clock import utc_now
from runner.config import config_from
from runner.health import Health
from runner.monitor import Lane, Look, Monitor, Pace, Progress, Sight, config_of, going_on
from runner.records import Endpoint

Servers = Callable[..., list[ScriptedServer]]
Start = Callable[..., subprocess.Popen[str]]


def monitor_of(servers: list[ScriptedServer], folder: str = "results", **how: float) -> Monitor:
    options = {"endpoints": [one.url for one in servers], "prompts": ["-"], "output_folder": folder}
    return Monitor(config_from(options), **how)


def look_at(monitor: Monitor) -> Look:
    monitor.ask()
    monitor.wait()
    return monitor.look()


def endpoints(servers: list[ScriptedServer]) -> list[str]:
    return [f"--endpoint={one.url}" for one in servers]


@contextmanager
def going(folder: Path, **said: Any) -> Iterator[None]:
    """Let a run go on in ``folder``, as far as can be seen: this process holds its lock."""
    (folder / ".runner").mkdir(parents=True)
    lane = {"state": "in", "saved": 20, "failed": 0, "retries": 1, "waiting": 30, "taken": 2, "median_s": 4.5}
    progress = {
        "run": "r1", "pid": os.getpid(), "host": socket.gethostname(), "at": utc_now(), "total": 100, "saved": 40,
        "skipped": 5, "failed": 3, "pending": 52, "seconds": 120.0, "new": {"key": 1},
        "endpoints": [{"name": "gpu-0", "last_error": "", **lane}, {"name": "gpu-9", **lane}],
    }  # fmt: skip
    with ledger.locked(folder / ".runner" / ledger.LOCK):
        (folder / ".runner" / "progress.json").write_text(json.dumps(progress | said))
        yield


def test_one_look_tells_who_is_up_and_who_is_not_and_why(
    servers: Servers, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    up, dead, loading = three = servers(3)
    dead.die()
    loading.script["/health"] = [Answer(status=503, body=b'{"status": "loading"}')]
    assert main(["monitor", *endpoints(three), "--once"]) == 1
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith("127.")}
    assert rows[f"127.0.0.1:{up.port}"][:3] == ["up", "healthy", "test-1"]
    assert rows[f"127.0.0.1:{dead.port}"][:3] == ["DOWN", "Connection", "refused"]
    assert rows[f"127.0.0.1:{loading.port}"][:2] == ["DOWN", "loading"]
    assert out.startswith("3 endpoints: 1 up, 2 DOWN") and "no run goes on in" in out


def test_with_all_up_the_exit_code_is_0_and_json_says_all_there_is_to_say(
    servers: Servers, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = both = servers(2)
    first.script["/health"] = [Answer(body=b'{"status": "healthy", "busy": true, "queue_size": 3}')]
    assert main(["monitor", *endpoints(both), "--once", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["at", "endpoints", "run"] and said["run"] is None
    assert [one.pop("latency_s") > 0 for one in said["endpoints"]] == [True, True]
    shared = {"healthy": True, "status": "healthy", "last_error": None, "last_error_at": None, "run": None}
    shared["version"] = "test-1"
    assert said["endpoints"] == [
        {"endpoint": f"127.0.0.1:{first.port}", "url": first.url, "busy": 1, "queue": 3, **shared},
        {"endpoint": f"127.0.0.1:{second.port}", "url": second.url, "busy": None, "queue": None, **shared},
    ]


def test_nobody_waits_for_one_that_hangs_and_it_is_down_when_its_time_is_over(servers: Servers, here: Path) -> None:
    quick, hanging = both = servers(2)
    hold = threading.Event()
    hanging.script["/health"] = [Answer(hold=hold)]
    with closing(monitor_of(both, timeout_s=0.5)) as monitor:
        monitor.ask()
        monitor.wait(0.2)
        look = monitor.look()
        assert [one.is_up for one in look.sights] == [True, False] and look.sights[1].health is None
        assert not look.all_up and "1 up, 1 not answered yet" in looks.lines(look)[0]
        monitor.wait()
        found = monitor.look().sights[1]
        assert found.health and (found.health.healthy, found.health.status) == (False, "no answer within 0.5 s")
        hanging.script["/health"] = [Answer(hold=hold)]
        for _ in range(2):
            monitor.ask()
            monitor.wait(0.2)
        hold.set()
        again = look_at(monitor)
        assert again.all_up
        assert again.sights[1].last_error == "no answer within 0.5 s" and again.sights[1].last_error_at
        assert "no answer within 0.5 s, 0 s ago" in looks.lines(again)[-1]
    assert hanging.probes == 2, "nobody is asked again as long as the last question is open"
    assert quick.probes >= 3


def test_those_that_were_down_keep_no_place_from_the_others(
    servers: Servers, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, quick = both = servers(2)
    hold = threading.Event()
    hanging.script["/health"] = [Answer(status=503, body=b""), Answer(hold=hold)]
    monkeypatch.setattr("runner.monitor._ASKED_AT_ONCE", 1)
    with closing(monitor_of(both)) as monitor:
        look_at(monitor)
        monitor.ask()
        until = time.monotonic() + 5
        while quick.probes < 2 and time.monotonic() < until:
            monitor.wait(0.05)
        hold.set()
        assert quick.probes == 2 and time.monotonic() < until
        monitor.wait()


def test_one_that_can_not_even_be_cut_is_given_up(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()

    def hangs(endpoint: Endpoint, *_: object, **__: object) -> Health:  # as the look-up of a name may
        stuck.wait(20)
        return Health(endpoint, True, "healthy")

    monkeypatch.setattr("runner.monitor.probe", hangs)
    monkeypatch.setattr("runner.monitor._LATE_S", 0.0)
    with closing(monitor_of([server], timeout_s=0.1)) as monitor:
        found = look_at(monitor).sights[0].health
        assert found and found.status == "no answer within 0.1 s"
        stuck.set()


def test_connections_are_kept_and_one_that_the_server_closed_is_no_outage(servers: Servers, here: Path) -> None:
    steady, closing_ones = both = servers(2)
    healthy = Answer(body=b'{"status": "healthy"}')
    closing_ones.script["/health"] = [healthy, Answer(reset=True)]
    with closing(monitor_of(both)) as monitor:
        assert [look_at(monitor).all_up for _ in range(3)] == [True, True, True]
    assert (steady.connections, closing_ones.connections) == (1, 2)


def test_a_run_that_goes_on_is_shown_beside_each_of_its_endpoints(
    servers: Servers, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = servers(2)
    config = {
        "endpoints": [{"url": one.url, "name": f"gpu-{at}"} for at, one in enumerate(both)],
        "prompts": "no.txt",
    }
    (here / "r.yaml").write_text(json.dumps(config))
    with going(here / "results"):
        assert main(["monitor", "r.yaml", "--once"]) == 0
        table = capsys.readouterr().out.splitlines()
        assert main(["monitor", "r.yaml", "--once", "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert main(["monitor", "r.yaml", "--once", "--json", "--folder", "elsewhere"]) == 0
        assert json.loads(capsys.readouterr().out)["run"] is None
    assert table[1].startswith("run: 48/100, 3 failed, 21.5/min, ETA 2:25")
    assert table[3].split()[-8:] == ["lane", "saved", "failed", "waiting", "median", "s", "/min", "ETA"]
    assert table[4].split()[-7:] == ["in", "20", "0", "30", "4.5", "10.0", "3:12"]
    assert table[5].split()[-1] == "-", "it has no part in this run"
    assert said["run"]["total"] == 100 and said["run"]["per_minute"] == 21.5 and said["run"]["eta_s"] == 145.1
    assert said["endpoints"][0]["run"] == {
        "saved": 20, "failed": 0, "state": "in", "retries": 1, "waiting": 30, "taken": 2, "median_s": 4.5,
        "last_error": "", "per_minute": 10.0, "eta_s": 192.0,
    }  # fmt: skip
    assert said["endpoints"][1]["run"] is None


def test_of_several_runs_the_one_that_goes_on_is_shown(server: ScriptedServer, here: Path) -> None:
    (here / "a.txt").write_text("a.png\n")
    (here / "b.txt").write_text("b.png\n")
    config = {"endpoints": [server.url], "runs": "*.txt", "output_folder": "out/{stem}"}
    (here / "r.yaml").write_text(json.dumps(config))
    with going(here / "out" / "b"), closing(Monitor(config_of("r.yaml", {}))) as monitor:
        look = monitor.look()
        assert look.run and look.folder == here / "out" / "b"
    (here / "a.txt").unlink()
    (here / "b.txt").unlink()
    with closing(Monitor(config_of("r.yaml", {}))) as monitor:
        assert look_at(monitor).all_up, "its lists need not be there"
    with closing(Monitor(config_of("r.yaml", {"output_folder": "out/b"}))) as monitor:
        assert monitor.look().folder == here / "out" / "b"


def test_a_real_run_is_seen_as_it_goes_on(
    server: ScriptedServer, here: Path, start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    hold = threading.Event()
    server.usual = Answer(hold=hold)
    config = {"endpoints": [server.url], "prompts": [server.image(f"p{number}") for number in range(5)]}
    (here / "r.yaml").write_text(json.dumps(config))
    process = start("run", "r.yaml")
    server.wait_for(1)
    said, until = None, time.monotonic() + 20
    while not said and time.monotonic() < until:
        main(["monitor", "r.yaml", "--once", "--json"])
        found = json.loads(capsys.readouterr().out)
        said = found if found["run"] else None
    assert said and said["run"]["pid"] == process.pid
    assert (said["run"]["total"], said["run"]["pending"], said["run"]["eta_s"]) == (5, 5, None)
    lane = said["endpoints"][0]["run"]
    assert (lane["state"], lane["saved"], lane["waiting"] + lane["taken"]) == ("in", 0, 5)
    hold.set()
    process.communicate(timeout=30)
    main(["monitor", "r.yaml", "--once", "--json"])
    assert json.loads(capsys.readouterr().out)["run"] is None


@pytest.mark.parametrize(
    "said",
    [{"pid": 1}, {"at": "2026-01-01T00:00:00.000Z"}, {"total": "many"}, {"seconds": -1}, {"endpoints": [{}]}],
    ids=str,
)
def test_progress_that_is_not_of_the_run_that_holds_the_folder_is_not_believed(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    with going(tmp_path / "a"):
        assert going_on(tmp_path / "a")
    with going(tmp_path / "b", **said):
        assert going_on(tmp_path / "b") is None


@pytest.mark.parametrize("holder", ["pid {dead} on {host}\n", "pid {alive} on another-host\n", "", "what?\n"])
def test_a_run_that_was_killed_does_not_go_on(tmp_path: Path, holder: str) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    pid = ended.pid if "dead" in holder else os.getpid()
    with going(tmp_path, pid=pid):
        (tmp_path / ".runner" / ledger.LOCK).write_text(holder.format(dead=pid, alive=pid, host=socket.gethostname()))
        assert going_on(tmp_path) is None


def test_variables_that_only_prompts_need_may_be_unset_but_credentials_are_used_and_hidden(
    server: ScriptedServer, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = {"url": server.url, "name": "gpu", "bearer": "${GPU_TOKEN}"}
    config = {"endpoints": [endpoint], "prompts": ["${LISTS}/night.txt"], "output_folder": "out"}
    config["notify"] = {"webhook": {"url": "${HOOK}"}, "command": ["no such", 1]}
    (here / "r.yaml").write_text(json.dumps(config))
    monkeypatch.delenv("GPU_TOKEN", raising=False)
    assert main(["monitor", "r.yaml", "--once"]) == 2
    said = capsys.readouterr().err
    assert "endpoints[0].bearer: the environment variable GPU_TOKEN is not set" in said and "LISTS" not in said
    assert main(["monitor", "r.yaml", "--endpoint", server.url, "--once"]) == 0, "the flag wins"
    monkeypatch.setenv("GPU_TOKEN", "hunter2hunter2")
    server.script["/health"] = [Answer(status=401, body=b"no token hunter2hunter2")]
    server.script["/version"] = [Answer(body=b'{"version": "hunter2hunter2"}')]
    with going(here / "out", endpoints=[{"name": "gpu", "saved": 0, "failed": 0, "last_error": "hunter2hunter2 !"}]):
        capsys.readouterr()
        assert main(["monitor", "r.yaml", "--once", "--json"]) == 1
    assert server.heads[-1][1]["Authorization"] == "Bearer hunter2hunter2"
    out = capsys.readouterr().out
    assert "hunter2" not in out
    assert json.loads(out)["endpoints"][0]["status"] == "401: no token ${GPU_TOKEN}"


def test_what_a_server_says_moves_no_cursor(server: ScriptedServer, here: Path) -> None:
    hostile = "1.0\x1b[2J\x07\x9b31m\u202e" + "9" * 500
    server.script["/health"] = [Answer(body=json.dumps({"status": "healthy", "queue": 10**30}).encode())]
    server.script["/version"] = [Answer(body=json.dumps({"version": hostile}).encode())]
    with closing(monitor_of([server])) as monitor:
        look = look_at(monitor)
    for width in (None, 200, 80):
        lines = looks.lines(look, width=width)
        assert all(line.isprintable() for line in lines)
        assert width is None or max(map(len, lines)) <= width
    assert "1.0?[2J" in looks.lines(look)[-1] and look.sights[0].health.queue is None


def sight(number: int, *, up: bool = True, latency_s: float = 0.01, name: str = "", **lane: Any) -> Sight:
    endpoint = Endpoint(number, f"http://gpu:{number}", name or f"gpu-{number}", f"port {number}")
    status = "healthy" if up else "Connection refused"
    health = Health(endpoint, up, status, version="reference-1", latency_s=latency_s if up else 0.0, busy=1, queue=0)
    in_run = Lane(name=endpoint.name, **lane) if lane else None
    return Sight(endpoint, health, lane=in_run, pace=Pace(12.5, 600.0) if lane else None)


def look_of(*sights: Sight) -> Look:
    run = Progress(run="r", pid=1, total=100, saved=40, failed=3, pending=57, seconds=60.0)
    return Look("2026-11-24T20:00:01.000Z", sights, Path("/results"), run, Pace(43.0, 80.0))


def test_lines_fit_any_width_and_what_matters_most_stays() -> None:
    lane = {"state": "in", "saved": 20, "failed": 1, "waiting": 30, "median_s": 4.5, "last_error": "no 図 " * 30}
    look = look_of(sight(0, **lane), sight(1, up=False, **lane), sight(2, name="\x1b[0m\n" + "図" * 40, **lane))
    for width in range(1, 260):
        lines = looks.lines(look, width=width)
        assert len(lines) == 7 and max(map(looks.width_of, lines)) <= width
        assert all(line.isprintable() for line in lines)
    wide, narrow = looks.lines(look, width=200)[3].split(), looks.lines(look, width=80)[3].split()
    assert wide[-2:] == ["last", "error"] and "median" in wide
    assert narrow == ["endpoint", "health", "lane", "saved", "failed", "waiting", "/min", "ETA"]
    assert "Connection refused" in looks.lines(look, width=80)[5]


def test_of_more_endpoints_than_lines_the_worst_come_first() -> None:
    sights = [sight(number, latency_s=number / 1000 + 0.001) for number in range(400)]
    sights[77] = sight(77, up=False)
    lines = looks.lines(look_of(*sights), width=100, height=24)
    assert len(lines) == 24
    assert [line.split()[0] for line in lines[4:7]] == ["gpu-77", "gpu-399", "gpu-398"]
    assert lines[-1] == "… and 381 more, all up"
    few = looks.lines(look_of(*sights), height=1)
    assert few[4].startswith("gpu-77") and few[-1] == "… and 399 more, all up"
    in_order = looks.lines(look_of(*sights[70:80]), height=24)
    assert [line.split()[0] for line in in_order[4:]] == [f"gpu-{number}" for number in range(70, 80)]


def test_without_a_terminal_there_is_a_line_every_so_often_until_it_is_told_to_end(
    server: ScriptedServer, start: Start
) -> None:
    process = start("monitor", "--endpoint", server.url, "--json", "--every", "0.1")
    assert process.stdout and process.stderr
    looked = (json.loads(line)["endpoints"][0]["healthy"] for line in process.stdout)
    assert any(healthy for healthy in looked)
    server.die()
    assert any(healthy is False for healthy in looked)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 1, "the code of the last look"
    assert process.stderr.read() == ""


def test_a_reader_that_has_enough_ends_it_quietly(server: ScriptedServer, start: Start) -> None:
    process = start("monitor", "--endpoint", server.url, "--every", "0.1")
    assert process.stdout and process.stderr
    assert any(line.startswith("1 endpoint: all up") for line in process.stdout)
    process.stdout.close()
    assert process.wait(10) == 141
    assert process.stderr.read() == ""
    process.stdout = None  # nothing is left to read from it


def test_on_a_terminal_it_is_drawn_in_place_and_ctrl_c_ends_it(server: ScriptedServer, start: Start) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 50, 0, 0))
    process = start(
        "monitor", "--endpoint", server.url, "--every", "0.1",
        stdin=theirs, stdout=theirs, start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "COLUMNS": "200"},
    )  # fmt: skip
    seen = b""
    while b"\x1b[J" not in seen.partition(b"all up")[2]:
        seen += os.read(ours, 65536)
    os.write(ours, b"\x03")
    assert process.wait(10) == 0
    os.set_blocking(ours, False)
    seen += os.read(ours, 65536)
    os.close(theirs)
    os.close(ours)
    assert process.stderr and process.stderr.read() == ""
    shown = seen.decode()
    assert shown.startswith("\x1b[?25l\x1b[H\x1b[2J") and shown.endswith("\x1b[?25h\r\n")
    drawn = next(one for one in shown.split("\x1b[H") if "all up" in one)
    frame = drawn.partition("\x1b[J")[0].split("\x1b[K\r\n")
    assert frame[0].startswith("1 endpoint: all up") and frame[4].startswith(f"127.0.0.1:{server.port}  up")
    assert max(map(len, frame)) <= 50


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "expected a CONFIG, or --endpoint URL"),
        (["--endpoint", "http://127.0.0.1:1", "--every", "0"], "--every: expected seconds from 0.1 to 86400, got 0"),
        (["--endpoint", "http://127.0.0.1:1", "--every", "nan"], "--every: expected seconds from 0.1"),
        (["--endpoint", "gpu"], "expected an http or https URL"),
        (["none.yaml"], "none.yaml: can't be read"),
    ],
)
def test_wrong_usage_is_said(here: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str) -> None:
    assert main(["monitor", *flags]) == 2
    assert said in capsys.readouterr().err


class Refusing(io.StringIO):
    """A file that takes nothing, for a reason."""

    reason = 0

    def flush(self) -> None:
        raise OSError(self.reason, os.strerror(self.reason))


@pytest.mark.parametrize(
    ("reason", "code", "said"),
    [
        (errno.ENOSPC, 1, "runner: error: stdout can't be written: No space left on device\n"),
        (errno.EIO, 141, ""),  # the terminal is gone
    ],
)
def test_a_full_disk_is_said_and_a_terminal_that_is_gone_is_not(
    server: ScriptedServer,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reason: int,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(Refusing, "reason", reason)
    monkeypatch.setattr(sys, "stdout", Refusing())
    assert main(["monitor", "--endpoint", server.url, "--once"]) == code
    assert capsys.readouterr().err == said


def test_the_ancestors_door_takes_ports(servers: Servers, environment: dict[str, str], tmp_path: Path) -> None:
    ports = [str(one.port) for one in servers(2)]
    command = [sys.executable, str(REPOSITORY / "scripts" / "monitor_multi_port.py"), "--ports", *ports, "--once"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"127.0.0.1:{port}  up" in done.stdout for port in ports)


def test_the_sample_configs_can_be_watched() -> None:
    config = config_of(str(REPOSITORY / "configs" / "four-gpus.yaml"), {})
    given = load_config(REPOSITORY / "configs" / "four-gpus.yaml")
    assert (config.endpoints, config.output_folder) == (given.endpoints, given.output_folder)
