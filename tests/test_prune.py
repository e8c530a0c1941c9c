import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certifi
import pytest
from folders import PLY, Folder

from runner import pruning
from runner.cli import main
from runner.ledger import locked
from runner.storage import OutputFolder

Said = Callable[..., dict[str, Any]]

PART = ".chair.0123abcd.part"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs ``prune … --json`` and gives what it said; it must succeed."""

    def run(folder: Folder, *flags: str) -> dict[str, Any]:
        code = main(["prune", str(folder.path), "--json", *flags])
        said = capsys.readouterr()
        assert code == 0, said.err
        answer: dict[str, Any] = json.loads(said.out)
        return answer

    return run


def kinds(answer: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["kind"] for one in answer["files"]}


def littered(here: Path) -> Folder:
    """A folder with a current result, an earlier one, an unknown file, temp files, and what is nobody's business."""
    folder = Folder(here, "chair")
    folder.save("chair")
    folder.save("lamp")
    (folder.path / "notes.txt").write_text("mine")
    (folder.path / PART).write_bytes(b"half")
    (folder.state / ".summary.json.0123abcd.part").write_bytes(b"{")
    (folder.path / ".hidden").write_text("mine")
    (folder.path / ".chair.part").write_text("not ours")
    (folder.path / "below").mkdir()
    (folder.path / "below" / "lamp.ply").write_bytes(PLY)
    (folder.path / ".below.0123abcd.part").mkdir()
    return folder


LITTER = {
    "lamp.ply": "earlier",
    "notes.txt": "unknown",
    PART: "temp",
    ".runner/.summary.json.0123abcd.part": "temp",
}


def test_it_lists_what_belongs_to_no_prompt_and_removes_nothing(
    here: Path, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = littered(here)
    before = {file: file.lstat() for file in folder.path.rglob("*")}
    found = said(folder)
    assert kinds(found) == LITTER
    assert (found["count"], found["bytes"], found["removed"], found["kept"]) == (4, len(PLY) + 4 + 4 + 1, 0, 1)
    assert main(["prune", "results"]) == 0
    text = capsys.readouterr().out
    assert "--yes removes them" in text and "prompts.txt" in text and "lamp.ply" in text
    assert {file: file.lstat() for file in folder.path.rglob("*")}.keys() == before.keys()


def test_yes_removes_just_these(here: Path, said: Said) -> None:
    folder = littered(here)
    found = said(folder, "--yes")
    assert (found["removed"], kinds(found)) == (4, LITTER)
    assert folder.files() == {"chair.ply", ".hidden", ".chair.part", "below", ".below.0123abcd.part"}
    assert (folder.path / "below" / "lamp.ply").exists()
    assert {file.name for file in folder.state.iterdir()} >= {"config.yaml", "ledger.jsonl", "lock"}
    assert said(folder, "--yes")["count"] == 0


@pytest.mark.parametrize("kind", ["earlier", "unknown", "temp"])
def test_only_narrows_it(here: Path, said: Said, kind: str) -> None:
    folder = littered(here)
    said(folder, "--yes", "--only", kind)
    left = {name for name in LITTER if (folder.path / name).exists()}
    assert left == {name for name, other in LITTER.items() if other != kind}


NAMED = ["chair.ply", "chair.glb", "chair-0.png", "chair-12.ply", "CHAIR.ply", "chair", "a.b.ply", "a.b-3.webp",
         "a.b.tar.gz", "cafe\u0301.ply"]  # fmt: skip


@pytest.mark.parametrize("ledger", ["none", "torn", "whole"])
def test_what_is_named_like_a_result_of_a_current_prompt_stays_whatever_the_ledger_says(
    here: Path, said: Said, ledger: str
) -> None:
    folder = Folder(here, "chair", "a.b", "caf\u00e9")
    folder.save("chair")
    for name in [*NAMED, "other.ply"]:
        (folder.path / name).write_bytes(PLY)
    if ledger == "none":
        folder.ledger.unlink()
    elif ledger == "torn":
        folder.ledger.write_bytes(folder.ledger.read_bytes()[:40])
    found = said(folder, "--yes")
    assert kinds(found) == {"other.ply": "unknown"}
    assert folder.files() == {*NAMED}


def test_a_current_result_stays_under_whatever_name_the_ledger_has_for_it(here: Path, said: Said) -> None:
    folder = Folder(here, "chair")
    folder.save("chair").rename(folder.path / "odd.ply")
    folder.ledger.write_text(folder.ledger.read_text().replace('"file":"chair.ply"', '"file":"odd.ply"'))
    assert said(folder, "--yes")["count"] == 0


def test_an_earlier_result_that_another_prompt_could_have_stays(here: Path, said: Said) -> None:
    folder = Folder(here, "chair")
    folder.save("chair-1")
    assert said(folder, "--yes")["count"] == 0
    folder.list("chair-1")
    folder.save("chair-1.old")
    assert kinds(said(folder, "--yes")) == {"chair-1.old.ply": "earlier"}


@pytest.mark.parametrize("prompts", [None, "", "# nothing\n", "https://h/a.png\nhttps://h/a.png\n"])
def test_a_list_that_is_gone_or_empty_or_wrong_removes_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], prompts: str | None
) -> None:
    folder = littered(here)
    listed = here / "prompts.txt"
    listed.unlink() if prompts is None else listed.write_text(prompts)
    before = folder.files()
    for flags in ([], ["--yes"], ["--yes", "--only", "temp"]):
        assert main(["prune", "results", *flags]) == 2
        err = capsys.readouterr().err
        assert "nothing is removed" in err and err.count("\n") == 1
    assert folder.files() == before


def test_one_of_several_lists_that_is_empty_removes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mounted").mkdir()
    folder = littered(here)
    folder.list("chair", prompts=[str(here / "prompts.txt"), str(here / "mounted")])
    assert main(["prune", "results", "--yes"]) == 2
    assert "mounted holds no prompts" in capsys.readouterr().err
    assert (folder.path / "lamp.ply").exists()


def test_a_config_that_is_gone_or_broken_removes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = littered(here)
    (folder.state / "config.yaml").write_text("endpoints: [")
    assert main(["prune", "results", "--yes"]) == 2
    (folder.state / "config.yaml").unlink()
    assert main(["prune", "results", "--yes"]) == 2
    assert (folder.path / "lamp.ply").exists() and "no output folder" in capsys.readouterr().err


def test_a_run_of_a_part_of_the_list_does_not_make_the_others_prey(
    here: Path, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(here, "k0")
    for number in range(30):
        folder.save(f"k{number}")
    assert main(["prune", "results", "--yes"]) == 2
    assert "29 of its 30 files are results of prompts that are not in" in capsys.readouterr().err
    assert len(folder.files()) == 30
    assert said(folder)["doubt"]
    assert said(folder, "--yes", "--only", "temp")["removed"] == 0
    assert said(folder, "--yes", "--only", "earlier")["removed"] == 29


def test_a_list_that_was_not_run_yet_removes_nothing_but_temp_files(
    here: Path, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = littered(here)
    folder.list("chair", "table")
    (here / "prompts.txt").write_text("https://h/chair.png\n")  # half written
    for flags in (["--yes"], ["--yes", "--only", "earlier"], ["--yes", "--only", "unknown"]):
        assert main(["prune", "results", *flags]) == 2
        err = capsys.readouterr().err
        assert "the list has changed since the last run (2 prompts then, 1 now)" in err and err.count("\n") == 1
    assert set(LITTER) - {".runner/.summary.json.0123abcd.part"} <= folder.files()
    assert main(["prune", "results"]) == 0
    assert "lamp.ply" in (text := capsys.readouterr().out) and "warning: " in text and "2 prompts then" in text
    assert said(folder, "--yes", "--only", "temp")["removed"] == 2
    folder.ran()
    assert said(folder, "--yes")["removed"] == 2


def test_a_list_of_other_names_and_one_that_no_run_noted_have_changed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = littered(here)
    (here / "prompts.txt").write_text("https://h/vase.png\n")
    assert main(["prune", "results", "--yes"]) == 2
    assert "1 prompts then, 1 others now" in capsys.readouterr().err
    (folder.state / "lists.jsonl").unlink()
    assert main(["prune", "results", "--yes"]) == 2
    assert "no run has noted its list here yet" in capsys.readouterr().err
    assert {"chair.ply", "lamp.ply", "notes.txt"} <= folder.files()


@pytest.mark.parametrize("other", ["todo.txt", "stdin"])
def test_results_that_may_be_those_of_another_list_of_the_folder_need_to_be_named(
    here: Path, said: Said, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    folder = littered(here)
    (here / "prompts.txt").write_text("https://h/lamp.png\n")
    if other == "stdin":
        folder.ran(again=False)
    else:
        (here / "prompts.txt").rename(here / other)
        folder.list("lamp", prompts=[str(here / other)])
    others = (folder.state / "lists.jsonl").read_text()
    folder.list("chair")
    (folder.state / "lists.jsonl").write_text(others + (folder.state / "lists.jsonl").read_text())
    assert main(["prune", "results", "--yes"]) == 2
    err = capsys.readouterr().err
    assert "other lists than" in err and "--only earlier" in err and err.count("\n") == 1
    assert other == "stdin" or "todo.txt" in err
    assert "other lists than" in said(folder)["doubt"]
    assert set(kinds(said(folder, "--yes", "--only", "unknown", "--only", "temp")).values()) == {"unknown", "temp"}
    assert (folder.path / "lamp.ply").exists()
    assert kinds(said(folder, "--yes", "--only", "earlier")) == {"lamp.ply": "earlier"}


def test_results_of_an_edited_list_go(here: Path, said: Said) -> None:
    folder = Folder(here, "chair", "lamp")
    folder.save("chair")
    folder.save("lamp")
    (here / "prompts.txt").write_text("https://h/chair.png\n")
    folder.ran()
    assert kinds(said(folder, "--yes")) == {"lamp.ply": "earlier"}


def test_more_unknown_files_than_others_need_to_be_named(
    here: Path, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(here, "chair")
    folder.save("chair")
    for number in range(21):
        (folder.path / f"old{number}.ply").write_bytes(PLY)
    assert main(["prune", "results", "--yes"]) == 2
    assert "does not know 21 of its 22 files" in (err := capsys.readouterr().err) and "--only unknown" in err
    assert len(folder.files()) == 22
    assert said(folder)["doubt"]
    assert said(folder, "--yes", "--only", "unknown")["removed"] == 21


def test_it_is_exit_75_while_a_run_is_at_work_and_its_temp_files_are_not_listed(
    here: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = littered(here)
    before = folder.files()
    with locked(folder.state / "lock"):
        assert main(["prune", "results", "--yes"]) == 75
    monkeypatch.setattr(pruning, "holder", lambda state: 1)
    found = said(folder)
    assert found["running"] and "temp" not in kinds(found).values()
    assert folder.files() == before


def test_of_a_link_only_the_link_goes_and_folders_behind_links_are_left_alone(here: Path, said: Said) -> None:
    folder = Folder(here, "chair")
    (here / "precious.ply").write_bytes(PLY)
    (here / "precious").mkdir()
    (folder.path / "file.ply").symlink_to(here / "precious.ply")
    (folder.path / "folder").symlink_to(here / "precious")
    (folder.path / "nowhere.ply").symlink_to(here / "nowhere")
    (folder.path / PART).symlink_to(here / "precious.ply")
    os.mkfifo(folder.path / "pipe")
    assert kinds(said(folder, "--yes")) == {"file.ply": "unknown"}
    assert (here / "precious.ply").read_bytes() == PLY and (here / "precious").is_dir()
    assert folder.files() == {"folder", "nowhere.ply", PART, "pipe"}


@pytest.mark.parametrize("sign", ["run.yaml", "Makefile", ".git", "prompts.txt", "photo.png"])
def test_unknown_files_of_a_folder_that_holds_more_than_results_are_left_alone(
    here: Path, said: Said, sign: str
) -> None:
    folder = littered(here)
    if sign == "prompts.txt":
        (folder.path / sign).write_text("https://h/chair.png\n")
        folder.list("chair", prompts=[str(folder.path / sign)])
    elif sign == "photo.png":
        (folder.path / sign).write_bytes(PLY)
        with open(here / "prompts.txt", "a") as listed:
            listed.write(f"{folder.path / sign}\n")
        folder.ran()
    else:
        (folder.path / sign).write_text("x")
    found = said(folder, "--yes")
    assert set(kinds(found).values()) == {"earlier", "temp"}
    assert found["spared"] >= 1
    assert (folder.path / sign).exists() and (folder.path / "notes.txt").exists()


def test_files_that_the_config_names_and_other_products_stay(here: Path, said: Said) -> None:
    folder = littered(here)
    for name in ("authorities.pem", "authorities.pem.1", "report.html"):
        (folder.path / name).write_bytes(Path(certifi.where()).read_bytes())
    folder.list("chair", endpoints=[{"url": "https://one:1", "verify": str(folder.path / "authorities.pem")}])
    assert kinds(said(folder, "--yes")) == LITTER
    assert {"authorities.pem", "authorities.pem.1", "report.html"} <= folder.files()


@pytest.mark.parametrize("spelling", ["log", "./log", "../results/log", "LOG", "{folder}/log"])
def test_a_log_and_the_config_itself_stay_however_they_are_called(here: Path, said: Said, spelling: str) -> None:
    folder = littered(here)
    for name in ("log", "log.1", "Log.2", "nightly", "runner.prom"):
        (folder.path / name).write_text("x")
    metrics = {"textfile": "results/runner.prom"}
    folder.list("chair", log={"file": spelling.format(folder=folder.path)}, metrics=metrics)
    folder.ran(name=str(folder.path / "nightly"), folder=folder.path)
    assert kinds(said(folder, "--yes")) == LITTER
    assert {"log", "log.1", "Log.2", "nightly", "runner.prom"} <= folder.files()


def test_a_file_that_took_the_name_of_an_earlier_result_is_unknown(here: Path, said: Said) -> None:
    folder = Folder(here, "chair")
    for key in ("longer", "other", "copied"):
        folder.save(key)
    folder.save("several", several=3)
    (folder.path / "longer.ply").write_bytes(PLY + b"x")
    (folder.path / "other.ply").write_bytes(PLY[:-1] + b"x")
    (folder.path / "several-1.ply").write_bytes(PLY[:-1] + b"x")
    for name in ("other.ply", "copied.ply", "several-1.ply", "several-2.ply"):
        os.utime(folder.path / name, ns=(1, 1))
    mine = {"longer.ply", "other.ply", "several-1.ply"}
    assert kinds(said(folder)) == {
        **dict.fromkeys(["copied.ply", "several-0.ply", "several-2.ply"], "earlier"), **dict.fromkeys(mine, "unknown")
    }  # fmt: skip
    (folder.path / "Makefile").write_text("x")
    assert said(folder, "--yes")["spared"] == 4
    assert folder.files() == mine | {"Makefile"}


def test_a_file_that_changed_after_the_look_stays(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = littered(here)
    look = pruning.strays_of

    def looked(*given: Any) -> Any:
        found = look(*given)
        (folder.path / "notes.txt").write_text("written just now")
        (folder.path / "lamp.ply").unlink()
        return found

    monkeypatch.setattr(pruning, "strays_of", looked)
    found = pruning.prune(folder.path)
    assert found.left == [("notes.txt", "it has changed meanwhile")]
    assert (folder.path / "notes.txt").exists()


def test_what_could_not_be_removed_is_not_said_to_be_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    littered(here)
    with monkeypatch.context() as patched:
        patched.setattr(OutputFolder, "discard", lambda *_: "Permission denied")
        assert main(["prune", "results", "--yes"]) == 1
    *left, last = capsys.readouterr().out.splitlines()
    assert "not removed: lamp.ply: Permission denied" in left
    assert last.startswith("results: nothing was removed; 4 files that belong to no prompt (")
    assert main(["prune", "results", "--yes"]) == 0
    assert " removed" in capsys.readouterr().out.splitlines()[-1]
    assert main(["prune", "results", "--yes"]) == 0
    assert capsys.readouterr().out == "results: nothing to remove\n"


def test_names_are_shown_safely_and_kept_as_they_are_in_json(
    here: Path, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(here, "chair")
    (folder.path / "a\x1b[31m\nb").write_text("x")
    (folder.path / os.fsdecode(b"\xff.ply")).write_text("x")
    assert main(["prune", "results"]) == 0
    text = capsys.readouterr().out
    assert "a\\x1b[31m\\nb" in text and "\\udcff.ply" in text and "\x1b" not in text
    assert "a\x1b[31m\nb" in kinds(said(folder, "--yes", "--only", "unknown"))
    assert folder.files() == set()
