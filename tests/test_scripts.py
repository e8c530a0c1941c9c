"""The scripts around the runner: servers on consecutive ports, and drawings."""

import hashlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, results_of
from server import ScriptedServer

STAND_IN = (
    "import sys, os, http.server as h; print('on gpu', os.environ['CUDA_VISIBLE_DEVICES'], flush=True); "
    "H = type('H', (h.BaseHTTPRequestHandler,), {'do_GET': lambda s: (s.send_response(200), s.end_headers())}); "
    "h.HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()"
)


def free_ports(count: int) -> int:
    """Return the first of so many consecutive free ports."""
    for first in range(21000, 30000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, one in enumerate(sockets):
                one.bind(("127.0.0.1", first + number))
        except OSError:
            continue
        else:
            return first
        finally:
            for one in sockets:
                one.close()
    raise AssertionError("no free ports")


Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """Runs a script of the repository with variables; whatever servers are left are stopped at the end."""

    def call(name: str, **variables: object) -> subprocess.CompletedProcess[str]:
        command = f'{sys.executable} -c "{STAND_IN}" {{port}}'
        env = {**os.environ, "RUN_DIR": str(tmp_path / "run"), "SERVER_COMMAND": command, "WAIT_S": "20"}
        env |= {key: str(value) for key, value in variables.items()}
        return subprocess.run([REPOSITORY / "scripts" / name], capture_output=True, text=True, env=env, timeout=60)

    yield call
    call("stop_multi_port.sh")


def pids(folder: Path) -> list[int]:
    return [int(file.read_text()) for file in sorted((folder / "run").glob("*.pid"))]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_servers_start_on_consecutive_ports_each_with_its_gpu_and_stop(script: Script, tmp_path: Path) -> None:
    first = free_ports(3)
    done = script("start_multi_port.sh", N=3, PORT=first, GPUS="4 5 7")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("healthy") == 3
    started = pids(tmp_path)
    assert len(started) == 3
    logs = [(tmp_path / "run" / f"{first + number}.log").read_text().splitlines()[0] for number in range(3)]
    assert logs == ["on gpu 4", "on gpu 5", "on gpu 7"]
    assert script("stop_multi_port.sh").stdout == "stopped 3 servers\n"
    assert not any(alive(pid) for pid in started)
    assert script("stop_multi_port.sh").stdout == "stopped 0 servers\n"


def test_a_taken_port_is_named_and_nothing_is_started(script: Script, tmp_path: Path) -> None:
    first = free_ports(3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 2))
        taken.listen()
        done = script("start_multi_port.sh", N=3, PORT=first)
    assert done.returncode == 1
    assert f"port {first + 2} is taken" in done.stderr
    assert pids(tmp_path) == []


def test_a_server_that_ends_at_the_start_is_shown_with_its_log_and_the_others_are_stopped(
    script: Script, tmp_path: Path
) -> None:
    first = free_ports(2)
    (tmp_path / "serve.py").write_text(
        f"import sys\nif sys.argv[1] != '{first}': sys.exit('no such model')\n{STAND_IN}"
    )
    done = script(
        "start_multi_port.sh", N=2, PORT=first, SERVER_COMMAND=f"{sys.executable} {tmp_path}/serve.py {{port}}"
    )
    assert done.returncode == 1
    assert "no such model" in done.stderr
    assert f"the server on port {first + 1} ended" in done.stderr
    assert pids(tmp_path) == []
    with socket.socket() as free:
        free.bind(("127.0.0.1", first))


def test_a_server_that_never_gets_healthy_is_given_up(script: Script, tmp_path: Path) -> None:
    first = free_ports(1)
    done = script("start_multi_port.sh", N=1, PORT=first, SERVER_COMMAND="sleep 60", WAIT_S=1)
    assert done.returncode == 1
    assert f"port {first} is not healthy after 1 s" in done.stderr
    assert pids(tmp_path) == []


@pytest.mark.parametrize("since", [None, "Thu Jan  1 00:00:01 1970"])
@pytest.mark.parametrize("leads", [False, True])
def test_stopping_never_touches_a_process_that_is_not_ours(
    script: Script, tmp_path: Path, leads: bool, since: str | None
) -> None:
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=leads)
    try:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "1.pid").write_text(str(stranger.pid))
        if since:
            (tmp_path / "run" / "1.since").write_text(since)
        script("stop_multi_port.sh")
        assert stranger.poll() is None
        assert pids(tmp_path) == []
    finally:
        stranger.send_signal(signal.SIGKILL)
        stranger.wait()


def test_the_reference_server_says_when_its_port_is_taken(environment: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "runner", "serve", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
    assert done.returncode == 1
    assert done.stderr == f"runner serve: can't listen on 127.0.0.1:{port}: Address already in use\n"


def test_the_demos_images_are_those_the_script_draws(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, REPOSITORY / "scripts/draw_prompts.py", tmp_path], check=True, capture_output=True
    )
    drawn = {file.name for file in tmp_path.glob("*.png")}
    assert drawn == {file.name for file in (REPOSITORY / "configs/images").glob("*.png")}
    assert len(drawn) == 12


def test_the_example_runs_over_several_servers(
    servers: Callable[..., list[ScriptedServer]], here: Path, environment: dict[str, str]
) -> None:
    command = [sys.executable, REPOSITORY / "scripts/example_multi_port.py", "--output-folder", "out"]
    for server in servers(3):
        command += ["--endpoint", server.url]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": 4 saved, 0 failed, 0.") == 3
    assert "12 saved and 0 skipped of 12 in " in done.stdout
    assert len(results_of(here / "out")) == 12


def test_what_a_bucket_and_its_ledger_disagree_on_is_named() -> None:
    spec = importlib.util.spec_from_file_location("look_in_bucket", REPOSITORY / "scripts" / "look_in_bucket.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def line(name: str, body: bytes, outcome: str = "saved") -> bytes:
        said = {"outcome": outcome, "file": name, "size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        return json.dumps(said).encode() + b"\n"

    state = {".runner/summary.json": b"{}", "report.html": b"<html>"}
    ledger = line("a.ply", b"whole") + line("b.ply", b"x", outcome="failed")
    right = {"a.ply": b"whole", ".runner/ledger.jsonl": ledger} | state
    assert script.problems(right) == []
    assert script.problems(right | {"a.ply": b"whale"}) == ["a.ply has another SHA-256 than the ledger says"]
    assert script.problems(right | {"a.ply": b"half"}) == ["a.ply has 4 bytes, the ledger says 5"]
    assert script.problems(right | {"c.ply": b"x"}) == ["c.ply is in the bucket only"]
    del right["a.ply"], right["report.html"]
    assert script.problems(right) == ["no report.html", "a.ply is in the ledger only"]
