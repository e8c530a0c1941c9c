"""Real server packages on loopback: started from their own virtual environments, ended with all they started.

    with started("cog", "python -m cog.server.http", ready="/health-check") as servers: ...

``scripts/test_servers.py`` makes the environments.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from made import glb, picture

from runner import load_config, run

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".servers"
SEED = 42
START_S = 120
NAMES = [f"p{number}" for number in range(6)]
QUICK = {"retry": {"attempts": 2, "backoff_s": 0.05, "backoff_max_s": 0.1}}


@dataclass
class Started:
    """One server, which may still be loading; ``log`` is what it printed."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, ready: Callable[[requests.Response], bool], path: str) -> None:
        """Return as soon as the answer of this path says that the server is ready."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
            with suppress(requests.RequestException):
                if ready(requests.get(self.url + path, timeout=5)):
                    return
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
        raise AssertionError(f"not ready after {START_S} s: {self.log.read_text()[-2000:]}")

    def end(self) -> None:
        """End the server and every process that it started."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(10)


def is_ok(answer: requests.Response) -> bool:
    return answer.status_code == 200


@contextmanager
def started(
    name: str,
    command: str,
    *,
    count: int = 2,
    ready: str | None = "/health",
    when: Callable[[requests.Response], bool] = is_ok,
    **variables: str,
) -> Iterator[list[Started]]:
    """Start ``command`` so many times with the programs of the environment ``name``, and wait until all are ready.

    ``{port}``, ``{second}`` and ``{third}`` in command and variables are ports that are free. ``ready`` None does not
    wait. What they print and write goes to a folder of its own.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-", ignore_cleanup_errors=True)))
        servers = []
        for number in range(count):
            servers.append(_begin(name, command, folder / str(number), variables))
            stack.callback(servers[-1].end)
        for server in servers if ready else []:
            server.wait(when, ready)
        yield servers


def _begin(name: str, command: str, folder: Path, variables: dict[str, str]) -> Started:
    programs = ENVIRONMENTS / name / "bin"
    assert programs.exists(), f"{name} is not installed: make test-servers ARGS={name}"
    folder.mkdir()
    ports = dict(zip(("port", "second", "third"), _free_ports(3), strict=True))
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    env |= {"PATH": f"{programs}:{env['PATH']}", "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    env |= {"HOME": str(folder), "TMPDIR": str(folder)}
    env |= {key: value.format(**ports) for key, value in variables.items()}
    words = shlex.split(command.format(**ports))
    words[0] = str(programs / words[0])
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            words,
            cwd=HERE / "services",
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Started(f"http://127.0.0.1:{ports['port']}", process, folder / "log")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def occupy(ask: Callable[[str], requests.Response]) -> tuple[threading.Thread, requests.Response]:
    """Keep a server of one slot busy with a slow picture; return who waits for it, and its busy answer."""

    def keep() -> None:
        while ask("slow").status_code != 200:
            pass  # a quick one was before it

    keeper = threading.Thread(target=keep)
    keeper.start()
    while (answer := ask("quick")).status_code == 200:
        assert keeper.is_alive(), "never busy"
    return keeper, answer


def config_for(
    folder: Path, servers: list[Started], protocol: str, names: list[str] | None = None, **options: Any
) -> Any:
    """Write a config and its pictures as a user would, and load it. ``protocol`` is YAML; it says "slow" and "fails"
    in the pictures whose names do."""
    names = NAMES if names is None else names
    for name in names:
        (folder / f"{name}.png").write_bytes(picture(name))
    (folder / "prompts.txt").write_text("".join(f"{name}.png\n" for name in names))
    return config_of(folder, servers, protocol, **options)


def config_of(folder: Path, servers: list[Started], protocol: str, **options: Any) -> Any:
    """Write a config for the prompts.txt of this folder, and load it."""
    usual = {"prompts": "prompts.txt", "output_folder": "results", "seed": SEED, **QUICK}
    given = {"endpoints": [{"url": server.url, **options.pop("endpoint", {})} for server in servers]}
    lines = [f"{key}: {json.dumps(value)}" for key, value in (given | usual | options).items()]
    block = textwrap.indent(textwrap.dedent(protocol).strip("\n"), "  ")
    (folder / "run.yaml").write_text("\n".join([*lines, "protocol:", block, ""]))
    return load_config(folder / "run.yaml")


def expected(names: list[str]) -> dict[str, bytes]:
    """Return the result files of these pictures: the bytes that only this picture and the run's seed give."""
    return {f"{name}.glb": glb(picture(name), SEED) for name in names}


def results_of(folder: Path) -> dict[str, bytes]:
    """Return the visible files of the output folder."""
    return {file.name: file.read_bytes() for file in (folder / "results").iterdir() if file.name[0] != "."}


def ledger_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the last line of each key in the ledger."""
    lines = map(json.loads, (folder / "results" / ".runner" / "ledger.jsonl").read_text().splitlines())
    return {line["key"]: line for line in lines if "key" in line}


def assert_each_has_its_own(servers: list[Started], folder: Path, protocol: str) -> None:
    """Run some pictures, and see that each ends as the bytes that belong to it."""
    assert run(config_for(folder, servers, protocol)).success
    assert results_of(folder) == expected(NAMES)


def assert_one_is_given_up(
    servers: list[Started], folder: Path, protocol: str, *, words: str = "", statuses: list[int] | None = None
) -> None:
    """Run a picture that fails between two that don't: it is tried twice, and told in the server's words."""
    summary = run(config_for(folder, servers, protocol, ["a", "fails", "b"]))
    assert (summary.saved, summary.failed) == (2, 1)
    assert results_of(folder) == expected(["a", "b"])
    line = ledger_of(folder)["fails"]
    assert words in line["error"]
    tried = [attempt["status"] for attempt in line["attempts"]]
    assert len(tried) == 2 and statuses in (None, tried)
