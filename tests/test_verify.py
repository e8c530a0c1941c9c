import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import PLY, Folder

from runner import verification
from runner.cli import main
from runner.ledger import locked
from runner.verification import Flaw, Verified, verify

Said = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no run that may be at work: these folders were made a moment ago."""
    monkeypatch.setattr(verification, "_SETTLE_S", 0.0)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs ``verify … --json`` and gives what it said, with the exit code."""

    def run(folder: Folder, *flags: str) -> dict[str, Any]:
        code = main(["verify", str(folder.path), "--json", *flags])
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer | {"code": code}

    return run


def looked_at(folder: Folder) -> tuple[Verified, dict[str, str]]:
    flaws: list[Flaw] = []
    found = verify(folder.path, tell=flaws.append, observe=lambda done, total: None)
    return found, {flaw.file: flaw.state for flaw in flaws}


def test_whole_results_of_current_and_earlier_prompts_are_exit_0(here: Path, said: Said) -> None:
    folder = Folder(here, "chair")
    folder.save("chair")
    folder.save("lamp")
    folder.save("table", several=3)
    folder.fail("vase", "500")
    found = said(folder)
    assert (found["code"], found["files"], found["whole"], found["flaws"]) == (0, 5, 5, [])
    assert found["bytes"] == 5 * len(PLY)


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (PLY[:-1], f"it has {len(PLY) - 1} bytes, not {len(PLY)}"),
        (PLY[:-1] + bytes([PLY[-1] ^ 1]), "another SHA-256"),
        (b"", "it has 0 bytes"),
    ],
)
def test_a_changed_file_is_damaged_even_if_its_size_and_time_are_as_before(
    here: Path, said: Said, body: bytes, wrong: str
) -> None:
    folder = Folder(here, "chair")
    file = folder.save("chair")
    stamp = file.stat().st_mtime_ns
    file.write_bytes(body)
    os.utime(file, ns=(stamp, stamp))
    found = said(folder)
    assert (found["code"], found["damaged"], found["whole"]) == (1, 1, 0)
    assert wrong in found["flaws"][0]["wrong"]


def test_a_missing_file_of_several_is_named_with_its_key(here: Path, said: Said) -> None:
    folder = Folder(here, "chair")
    folder.save("chair", several=3)
    (folder.path / "chair-1.ply").unlink()
    found = said(folder)
    assert (found["code"], found["whole"], found["missing"]) == (1, 2, 1)
    assert found["flaws"] == [
        {"key": "chair", "file": "chair-1.ply", "state": "missing", "wrong": "there is no such file"}
    ]


@pytest.mark.parametrize("at_a_time", [1, 100])
def test_results_that_were_pruned_are_not_missing(
    here: Path, said: Said, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at_a_time: int
) -> None:
    monkeypatch.setattr(verification, "_AT_A_TIME", at_a_time)
    folder = Folder(here, "chair", "lost")
    for key in ("chair", "lost", "old", "older"):
        folder.save(key)
    folder.save("several", several=3)
    folder.save("torn", several=2)
    (folder.path / "torn-0.ply").write_bytes(b"torn")
    for name in ("old", "older", "several-0", "torn-1"):
        (folder.path / f"{name}.ply").unlink()
    found = said(folder)
    assert (found["code"], found["whole"], found["gone"], found["missing"], found["damaged"]) == (1, 4, 4, 0, 1)
    assert found["files"] == 5
    (folder.path / "torn-0.ply").unlink()
    assert main(["verify", "results"]) == 0
    assert "5 results of earlier lists are gone" in capsys.readouterr().out
    (folder.path / "lost.ply").unlink()
    assert [one["key"] for one in said(folder)["flaws"]] == ["lost"]


@pytest.mark.parametrize("prompts", [None, "", "ftp://h/a.png\n"])
def test_without_a_list_that_can_be_read_everything_that_is_gone_is_missing(
    here: Path, said: Said, prompts: str | None
) -> None:
    folder = Folder(here, "chair")
    folder.save("old").unlink()
    listed = here / "prompts.txt"
    listed.unlink() if prompts is None else listed.write_text(prompts)
    found = said(folder)
    assert (found["code"], found["missing"], found["gone"]) == (1, 1, 0)


def test_a_ledger_that_is_gone_is_no_success_if_there_are_files(
    here: Path, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(here, "chair")
    assert (said(folder)["code"], said(folder)["no_ledger"]) == (0, False), "as after a run that was killed at once"
    folder.save("chair")
    folder.ledger.unlink()
    assert main(["verify", "results"]) == 1
    assert "has no ledger any more" in capsys.readouterr().out
    assert said(folder)["no_ledger"]


def test_the_line_that_a_run_is_writing_is_no_unreadable_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(here, "chair")
    folder.save("chair")
    line = folder.ledger.read_bytes()
    folder.ledger.write_bytes(line + line[:50])
    monkeypatch.setattr(verification, "holder", lambda state: 1)
    monkeypatch.setattr(verification.time, "sleep", lambda s: folder.ledger.write_bytes(line) and None)
    assert looked_at(folder)[0].success


def test_a_file_with_the_recorded_hash_must_still_be_whole_by_its_format(here: Path, said: Said) -> None:
    folder = Folder(here, "chair", "data", "raw")
    folder.save("chair", PLY[:-3])
    folder.save("data", b'{"vertices": 3', kind="json")
    folder.save("raw", b"anything", kind="bin")
    found = said(folder)
    assert {one["file"] for one in found["flaws"]} == {"chair.ply", "data.json"}
    assert (found["damaged"], found["whole"]) == (2, 1)


def test_a_large_file_is_read_in_blocks(here: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification.files, "_SHORT_BYTES", 10)
    monkeypatch.setattr(verification.files, "_BLOCK", 100)
    folder = Folder(here, "chair", "lamp")
    folder.save("chair")
    folder.save("lamp").write_bytes(PLY[:-1] + b"x")
    found = said(folder)
    assert (found["whole"], [one["file"] for one in found["flaws"]]) == (1, ["lamp.ply"])


def test_discard_removes_the_damaged_files_only_and_of_a_link_only_the_link(here: Path, said: Said) -> None:
    folder = Folder(here, "chair", "lamp", "vase")
    folder.save("chair")
    folder.save("lamp").write_bytes(b"torn")
    link = folder.save("vase")
    link.rename(here / "elsewhere.ply")
    link.symlink_to(here / "elsewhere.ply")
    (here / "elsewhere.ply").write_bytes(b"changed")
    (folder.path / "notes.txt").write_text("mine")
    found = said(folder, "--discard")
    assert (found["code"], sorted(found["removed"]), found["not_removed"]) == (1, ["lamp.ply", "vase.ply"], [])
    assert folder.files() == {"chair.ply", "notes.txt"}
    assert (here / "elsewhere.ply").read_bytes() == b"changed"
    assert said(folder)["missing"] == 2


def test_without_discard_nothing_is_written(here: Path, said: Said) -> None:
    folder = Folder(here, "lamp")
    folder.save("lamp").write_bytes(b"torn")
    before = {file: file.stat().st_mtime_ns for file in folder.path.rglob("*")}
    assert said(folder)["removed"] == []
    assert {file: file.stat().st_mtime_ns for file in folder.path.rglob("*")} == before


def test_discard_is_exit_75_while_a_run_is_at_work(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Folder(here, "lamp")
    file = folder.save("lamp")
    file.write_bytes(b"torn")
    with locked(folder.state / "lock"):
        assert main(["verify", "results", "--discard"]) == 75
    assert "another run" in capsys.readouterr().err
    assert file.read_bytes() == b"torn"


def test_a_file_that_a_run_replaces_meanwhile_is_not_damaged(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(here, "chair", "lamp")
    folder.save("chair")
    folder.save("lamp")
    check = verification.files._wrong_with
    replaced = threading.Event()

    def replacing(within: int, said: Any, stop: threading.Event) -> Any:
        if said.name == "chair.ply" and not replaced.is_set():
            replaced.set()
            folder.save("chair", PLY.replace(b"\0", b"\1"))
        return check(within, said, stop)

    monkeypatch.setattr(verification.files, "_wrong_with", replacing)
    found, flaws = looked_at(folder)
    assert replaced.is_set()
    assert (found.whole, found.files, flaws) == (2, 2, {})


def test_a_file_whose_line_was_written_a_moment_before_it_is_not_missing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(here, "chair")
    file = folder.save("chair")
    file.rename(folder.path / ".chair.00000000.part")
    monkeypatch.setattr(verification, "holder", lambda state: 1)
    monkeypatch.setattr(verification.time, "sleep", lambda s: (folder.path / ".chair.00000000.part").rename(file))
    found, flaws = looked_at(folder)
    assert (found.whole, flaws) == (1, {})


def test_the_result_of_another_prompt_under_the_same_name_is_never_discarded(here: Path, said: Said) -> None:
    folder = Folder(here, "chair-1")
    folder.save("chair", several=2)
    folder.save("chair-1", PLY.replace(b"\0", b"\1"))
    found = said(folder, "--discard")
    assert [(one["key"], one["wrong"]) for one in found["flaws"]] == [("chair", "it is the result of chair-1 now")]
    assert (found["whole"], found["removed"]) == (2, [])
    assert "chair-1.ply" in folder.files()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_unreadable_and_stays(here: Path, said: Said) -> None:
    folder = Folder(here, "chair")
    folder.save("chair").chmod(0)
    found = said(folder, "--discard")
    assert (found["unreadable"], found["removed"]) == (1, [])


def test_what_can_not_be_read_is_unreadable_and_stays(here: Path, said: Said) -> None:
    folder = Folder(here, "chair")
    file = folder.save("chair")
    file.unlink()
    file.symlink_to(file)  # a link to itself: there, and nobody can read it
    found = said(folder, "--discard")
    assert (found["code"], found["unreadable"], found["removed"]) == (1, 1, [])
    assert file.is_symlink()


def test_a_pipe_or_a_folder_of_a_results_name_does_not_hold_it_up(here: Path) -> None:
    folder = Folder(here, "chair", "lamp")
    for key, make in (("chair", os.mkfifo), ("lamp", os.mkdir)):
        file = folder.save(key)
        file.unlink()
        make(file)
    assert looked_at(folder)[1] == {"chair.ply": "missing", "lamp.ply": "missing"}


@pytest.mark.parametrize("name", ["../mine.ply", "/etc/hostname", ".runner", "a\\u0000b", ""])
def test_a_name_that_no_result_has_is_neither_read_nor_removed(here: Path, said: Said, name: str) -> None:
    folder = Folder(here, "chair")
    (here / "mine.ply").write_bytes(PLY + b"x")
    folder.save("chair")
    folder.ledger.write_text(folder.ledger.read_text().replace('"file":"chair.ply"', f'"file":"{name}"'))
    found = said(folder, "--discard")
    assert (found["damaged"], found["removed"]) == (1, [])
    assert (here / "mine.ply").exists() and folder.state.is_dir()


def test_torn_and_foreign_lines_are_counted_and_passed_over(here: Path, said: Said) -> None:
    folder = Folder(here, "chair", "lamp")
    file = folder.save("chair")
    folder.save("lamp", PLY.replace(b"\0", b"\1"))
    chair, lamp = folder.ledger.read_bytes().splitlines(keepends=True)
    torn = chair[: chair.index(b'"sha256"') + 12]
    folder.ledger.write_bytes(b"nonsense\n" + lamp + torn + lamp)  # what follows a torn line holds another's hash
    found = said(folder, "--discard")
    assert (found["files"], found["whole"], found["flaws"], found["removed"]) == (1, 1, [], [])
    assert (found["unreadable_lines"], found["code"]) == (2, 1)
    assert file.exists()


def test_a_file_that_changed_after_it_was_read_is_not_discarded(here: Path) -> None:
    folder = Folder(here, "chair")
    file = folder.save("chair")
    file.write_bytes(b"torn")
    found = verify(
        folder.path, tell=lambda flaw: file.write_bytes(PLY) and None, observe=lambda done, total: None, discard=True
    )
    assert (found.removed, found.left) == ([], [("chair.ply", "it has changed meanwhile")])
    assert file.read_bytes() == PLY


def test_what_is_no_output_folder_is_exit_2_in_one_sentence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["verify", "."], ["verify", "nowhere"], ["prune", "."], ["status", "."]):
        assert main(command) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and "is no output folder of a run" in said.err


def test_the_text_names_each_flaw_safely_and_ends_with_the_counts(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(here, "chair")
    folder.save("chair")
    folder.save("ev\x1b[2Jil")
    (folder.path / "ev\x1b[2Jil.ply").unlink()
    (here / "prompts.txt").unlink()  # so that nobody can tell whether it may be gone
    assert main(["verify", "results"]) == 1
    *flaws, counts = capsys.readouterr().out.splitlines()
    assert flaws == ["missing     ev\\x1b[2Jil.ply: there is no such file"]
    assert counts.startswith("results: 2 files: 1 whole, 0 damaged, 1 missing (0.0 MB in ")
