"""State files that are none: a pipe waits for its other end, and a device has none."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from folders import Folder

from runner import run
from runner.cli import main
from runner.config import config_from
from runner.errors import StorageError
from runner.ledger import LOCK, Ledger, holder
from runner.storage import is_file, no_pipe, states_of
from runner.trail import Trail

NAMES = ("ledger.jsonl", "lists.jsonl", "runs.jsonl", "summary.json", "config.yaml")
COMMANDS = ("status", "report", "verify", "prune", "upload")


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """End what waits for a pipe."""

    def late(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder(here: Path) -> Folder:
    made = Folder(here, "a", "b")
    made.save("a")
    return made


def put(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink(missing_ok=True)
    make(path)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")], ids=["pipe", "device"])
def test_a_ledger_that_is_none_is_said_by_every_command(
    folder: Folder, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object]
) -> None:
    put(folder.ledger, make)
    for command in COMMANDS:
        more = [f"file://{folder.here}/copy"] if command == "upload" else ["--format=text"] * (command == "report")
        assert main([command, "results", *more]) != 0
        said = capsys.readouterr().err
        assert "ledger.jsonl can't be read: expected a file, got a pipe, a socket or a device; move it away" in said
        assert said.count("\n") == 1


@pytest.mark.parametrize("name", NAMES)
def test_no_command_waits_for_a_pipe_that_has_the_name_of_a_state_file(
    folder: Folder, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    put(folder.state / name, os.mkfifo)
    for command in ("status", "report", "prune", "verify"):
        main([command, "results", *(["--format=json"] if command == "report" else ["--json"])])
    said = capsys.readouterr()
    assert name in said.err or name == "summary.json"


@pytest.mark.parametrize("name", NAMES)
def test_no_run_waits_for_a_pipe_that_has_the_name_of_a_state_file(folder: Folder, name: str) -> None:
    put(folder.state / name, os.mkfifo)
    config = config_from(
        {"endpoints": ["http://127.0.0.1:9"], "prompts": str(folder.here / "prompts.txt"), "retry": {"attempts": 1},
         "output_folder": str(folder.path), "health": {"wait_ready_s": 0, "all_down_s": 0.1}, "upload": f"file://{folder.here}/copy"}
    )  # fmt: skip
    (folder.here / "prompts.txt").write_text("https://h/a.png\n")
    try:
        summary = run(config)
    except StorageError as error:
        assert f"{name} can't be" in str(error) and "got a pipe" in str(error)
    else:
        assert name == "runs.jsonl" or "got a pipe" in str(summary.error)


def test_a_shards_ledger_that_is_none_is_said_too(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    other = folder.state / "shards" / "1-of-2"
    other.mkdir(parents=True)
    os.mkfifo(other / "ledger.jsonl")
    assert states_of(folder.path)[1:] == [other]
    assert main(["status", "results"]) != 0
    assert "1-of-2/ledger.jsonl can't be read: expected a file" in capsys.readouterr().err


def test_whatever_is_opened_for_writing_waits_for_nobody_either(tmp_path: Path) -> None:
    for name in ("ledger.jsonl", "runs.jsonl", LOCK):
        os.mkfifo(tmp_path / name)
    with pytest.raises(StorageError, match=r"ledger.jsonl can't be written: expected a file, got a pipe"):
        Ledger(tmp_path / "ledger.jsonl", run="now", redact=str)
    Trail(tmp_path, "now", str).stopping()
    assert holder(tmp_path) is None
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        with pytest.raises(OSError, match="got a pipe"):
            no_pipe(tmp_path / LOCK, flags)


def test_a_file_and_a_folder_are_no_pipes(tmp_path: Path) -> None:
    assert is_file(tmp_path) and not is_file(tmp_path / "nothing")
    os.close(no_pipe(tmp_path / "new", os.O_WRONLY | os.O_CREAT))
    assert is_file(tmp_path / "new") and not (tmp_path / "new").stat().st_mode & 0o002
