"""Servers, folders and a way to run the command line, shared by all tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from s3 import KEYS, new_bucket, shared
from s3proxy import S3Proxy
from server import ScriptedServer

REPOSITORY = Path(__file__).parents[1]
QUICK = {"retry": {"attempts": 3, "backoff_s": 0.01, "backoff_max_s": 0.02}}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what needs a real object store to ``make test-cluster``: it takes a processor of its own."""
    for item in items:
        chosen = getattr(item, "callspec", None)
        if "s3_url" in getattr(item, "fixturenames", ()) or (chosen and "s3" in chosen.params.values()):
            item.add_marker("cluster")


class Nowhere:
    """A result that nobody needs a file for."""

    targets = ()

    def keep(self) -> None:
        pass

    def drop(self) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """One scripted server."""
    with ScriptedServer() as one:
        yield one


@pytest.fixture
def servers() -> Iterator[Callable[..., list[ScriptedServer]]]:
    """Makes any number of scripted servers."""
    with ExitStack() as stack:
        yield lambda count, **options: [stack.enter_context(ScriptedServer(**options)) for _ in range(count)]


@pytest.fixture(scope="session")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An object store that speaks S3; all workers of a test run share one."""
    base = tmp_path_factory.getbasetemp()
    with shared(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) as url:
        yield url


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3Proxy]:
    """The way to that store: a proxy that may break things; the environment leads there, with good credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with S3Proxy(s3_url) as proxy:
        usual = {"AWS_ENDPOINT_URL_S3": proxy.url, "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        nowhere = {name: str(tmp_path / name) for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
        for name, value in (usual | nowhere | KEYS).items():
            monkeypatch.setenv(name, value)
        yield proxy


@pytest.fixture
def bucket(s3: S3Proxy, s3_url: str) -> str:
    """The name of a new bucket in that store."""
    return new_bucket(s3_url)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def listed(server: ScriptedServer, here: Path) -> Callable[..., str]:
    """Writes prompts.txt and run.yaml for these names; returns the config's name."""

    def write(*names: str, **options: Any) -> str:
        (here / "prompts.txt").write_text("".join(f"{server.image(name)}\n" for name in names))
        document = {"endpoints": [server.url], "prompts": "prompts.txt", "retry": {"backoff_s": 0.01}} | options
        (here / "run.yaml").write_text(yaml.safe_dump(document))
        return "run.yaml"

    return write


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a command under test."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def start(here: Path, environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``runner ARGUMENTS`` in the current folder; whatever is left at the end is killed.

    ``run`` is silent where stderr is no terminal; it is told to speak, unless a test says ``as_it_is``.
    """
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: object, as_it_is: bool = False, **options: Any) -> subprocess.Popen[str]:
        loud = ["--log-level", "info"] if arguments[:1] == ("run",) and not as_it_is else []
        loud = [] if {"-q", "-v", "--quiet", "--verbose"} & {*arguments} else loud
        command = [sys.executable, "-m", "runner", *map(str, arguments), *loud]
        usual = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        usual |= {"text": True, "cwd": here, "env": environment}
        started.append(subprocess.Popen(command, **(usual | options)))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def runner(
    start: Callable[..., subprocess.Popen[str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``runner ARGUMENTS`` to its end."""

    def complete(
        *arguments: object, given: str | None = None, as_it_is: bool = False
    ) -> subprocess.CompletedProcess[str]:
        stdin = {"stdin": subprocess.PIPE} if given is not None else {}
        process = start(*arguments, as_it_is=as_it_is, **stdin)
        out, err = process.communicate(given, timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return complete


def ledger_of(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of an output folder's ledger."""
    return [json.loads(line) for line in (folder / ".runner" / "ledger.jsonl").read_text().splitlines()]


def results_of(folder: Path) -> dict[str, bytes]:
    """Return the visible files of an output folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(".")}
