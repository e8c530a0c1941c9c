import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import PLY, Folder
from server import Answer, ScriptedServer

from runner import run
from runner.cli import main
from runner.config import config_from
from runner.ledger import History, ends_at, replay
from runner.prompts import Prompts
from runner.records import Summary
from runner.report import Causes, causes_of, in_words, plain, summary_json
from runner.report.causes import CAUSES_KEPT, REST
from runner.status import status_of

Said = Callable[..., dict[str, Any]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs ``status … --json`` and gives what it said, with the exit code."""

    def run(folder: Folder) -> dict[str, Any]:
        code = main(["status", str(folder.path), "--json"])
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer | {"code": code}

    return run


def mixed(here: Path) -> Folder:
    """Two endpoints, one of which failed twice for one cause; one earlier result, one unknown file."""
    folder = Folder(here, "a", "b", "c", "d", "e", "f")
    folder.save("a", endpoint="one:1", seconds=1.0, at="2026-01-01T01:00:00.000Z")
    folder.save("b", endpoint="one:1", seconds=3.0, at="2026-01-01T02:00:00.000Z")
    folder.fail("c", "http://two:2/generate answers 500: no memory for job 17", endpoint="two:2")
    folder.fail("d", "http://two:2/generate answers 500: no memory for job 18", endpoint="two:2")
    folder.fail("e", "Connection refused", endpoint="two:2")
    folder.save("old", endpoint="two:2")
    (folder.path / "notes.txt").write_text("mine")
    return folder


def test_json_has_all_of_it(here: Path, said: Said) -> None:
    found = said(mixed(here))
    counts = {name: found[name] for name in ("total", "saved", "failed", "missing", "earlier", "unknown", "code")}
    assert counts == {"total": 6, "saved": 2, "failed": 3, "missing": 1, "earlier": 1, "unknown": 1, "code": 1}
    one, two = found["endpoints"]
    assert one == {
        "name": "one:1", "saved": 2, "failed": 0, "bytes": 2 * len(PLY), "median_s": 2.0,
        "last_saved_at": "2026-01-01T02:00:00.000Z",
    }  # fmt: skip
    assert two == {"name": "two:2", "saved": 0, "failed": 3, "bytes": 0, "median_s": None, "last_saved_at": None}
    assert [(one["count"], one["key"], one["endpoints"]) for one in found["causes"]] == [
        (2, "c", ["two:2"]),
        (1, "e", ["two:2"]),
    ]
    assert found["failures"][0] == {
        "key": "c", "prompt": "https://h/c.png", "error": "http://two:2/generate answers 500: no memory for job 17"
    }  # fmt: skip
    assert found["unknown_files"] == ["notes.txt"]
    assert found["last_result"]["at"] == "2026-01-01T02:00:00.000Z"
    assert found["last_run"]["ended"] == "killed" and found["last_run"]["began_at"] == "2026-01-01T00:00:00.000Z"
    assert found["free_bytes"] > 0 and found["running"] is None and found["unreadable_lines"] == 0


def test_text_is_short_and_safe(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = mixed(here)
    (folder.path / "a\x1b[2J").write_text("x")
    folder.fail("f", "bad \x1b[31mred\r", endpoint="two:2")
    assert main(["status", "results"]) == 1
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0] == "results: 6 total, 2 saved, 4 failed, 0 missing, 1 earlier, 2 unknown"
    assert lines[1].startswith("last run began ") and "GB free" in lines[1]
    assert "  2× http://two:2/generate answers 500: no memory for job 17 (such as c; two:2)" in lines
    assert "\x1b" not in text and "\r" not in text and "bad \\x1b[31mred\\r" in text
    assert len(lines) < 15


def test_what_counts_is_the_last_word_on_each_prompt(here: Path, said: Said) -> None:
    folder = Folder(here, "a", "b")
    folder.save("a", endpoint="one:1")
    folder.fail("b", "500", endpoint="one:1")
    folder.save("a", endpoint="two:2")
    folder.save("b", endpoint="two:2")
    found = said(folder)
    assert (found["code"], [(one["name"], one["saved"], one["failed"]) for one in found["endpoints"]]) == (
        0,
        [("two:2", 2, 0)],
    )


def test_how_the_last_run_ended_is_said(here: Path, said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    folder = mixed(here)
    summary = {"run": folder.run, "stopped": None, "error": None, "seconds": 61.0}
    for stopped, error, ended, text in [
        (None, None, "done", "done after 1 min"),
        ("SIGTERM", None, "stopped", "stopped after 1 min: SIGTERM"),
        ("error", "the disk is full", "stopped", "stopped after 1 min: the disk is full"),
    ]:
        (folder.state / "summary.json").write_text(json.dumps(summary | {"stopped": stopped, "error": error}))
        assert said(folder)["last_run"]["ended"] == ended
        main(["status", "results"])
        assert text in capsys.readouterr().out
    folder.run = "2026-02-01T00:00:00.000Z-0000"
    folder.fail("e", "Connection refused")
    assert (said(folder)["last_run"]["ended"], said(folder)["last_run"]["began_at"]) == (
        "killed",
        "2026-02-01T00:00:00.000Z",
    )


@pytest.mark.parametrize(
    "summary", ["", "[1]", '{"run": 5}', '{"run": "../x", "seconds": "y"}', "[" * 50_000, "\xff"]
)
def test_a_summary_that_somebody_edited_is_no_summary(here: Path, said: Said, summary: str) -> None:
    folder = mixed(here)
    (folder.state / "summary.json").write_bytes(summary.encode("latin-1"))
    assert said(folder)["last_run"]["ended"] == "killed"


PROGRESS = {
    "run": "2026-03-01T00:00:00.000Z-0000",
    "total": 100,
    "saved": 9,
    "skipped": 5,
    "failed": 1,
    "pending": 85,
    "seconds": 60.0,
    "endpoints": [],
}


def test_a_run_that_is_going_on_is_shown_with_rate_and_eta(
    here: Path, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = mixed(here)
    (folder.state / "lock").write_text(f"pid {os.getpid()} on {socket.gethostname()}\n")
    (folder.state / "progress.json").write_text(json.dumps(PROGRESS | {"pid": os.getpid()}))
    found = said(folder)
    assert (found["running"]["a_minute"], found["running"]["eta_s"], found["last_run"]["ended"]) == (10.0, 510, None)
    main(["status", "results"])
    said_so = capsys.readouterr().out.splitlines()[1]
    assert said_so.startswith(f"a run is going on (pid {os.getpid()}): 100 total, 9 saved, 5 skipped, 1 failed, 85 ")
    assert said_so.endswith("; 10.0/min, ETA 8 min")
    (folder.state / "progress.json").write_text(json.dumps({"pid": os.getpid(), "saved": "x", "seconds": 0}))
    assert said(folder)["running"]["eta_s"] is None


def test_what_a_killed_run_left_of_its_progress_is_not_believed(here: Path, said: Said) -> None:
    folder = mixed(here)
    dead = os.fork()
    if not dead:
        os._exit(0)
    os.waitpid(dead, 0)
    (folder.state / "progress.json").write_text(json.dumps(PROGRESS | {"pid": dead}))
    for lock in (f"pid {dead} on {socket.gethostname()}\n", f"pid {os.getpid()} on elsewhere\n", "", "\0" * 9):
        (folder.state / "lock").write_text(lock)
        assert said(folder)["running"] is None


def test_missing_prompts_are_counted_and_written_without_a_record_of_each(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(here, *(f"k{number}" for number in range(50)))
    for number in range(25):
        folder.save(f"k{number}").unlink()

    def refuse(*_: Any) -> Any:
        raise AssertionError("a record was made")

    monkeypatch.setattr(Prompts, "__getitem__", refuse)
    monkeypatch.setattr("runner.ledger.history._recorded", refuse)
    found = status_of(folder.path)
    assert (found.saved, len(found.failed), len(found.missing), found.total) == (0, 0, 50, 50)
    assert found.to_do().splitlines()[:2] == ["https://h/k0.png", "https://h/k1.png"]


def test_the_usual_lines_are_added_up_without_a_json_parser(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = mixed(here)
    history = replay(folder.ledger)
    failures = sorted(filter(None, map(history.place_of_failure, (b"c", b"d", b"e"))))
    places = sorted([*history.places(), *failures])
    slow = []
    with monkeypatch.context() as patched:
        patched.setattr("runner.ledger.lines._quick_end", lambda line: None)
        slow = [*ends_at(folder.ledger, places)]
    monkeypatch.setattr("runner.ledger.lines._slow_end", None)
    quick = [*ends_at(folder.ledger, places)]
    assert quick == slow
    assert len(quick) == 6


def test_lines_that_need_a_json_parser_are_added_up_too(here: Path, said: Said) -> None:
    folder = Folder(here, "a", "b", "c")
    folder.save("a", several=2, endpoint='the "one"')
    folder.fail("b", 'says "no" \\ never', endpoint="caf\u00e9")
    found = said(folder)
    by_name = {one["name"]: one for one in found["endpoints"]}
    assert by_name['the "one"']["bytes"] == 2 * len(PLY)
    assert by_name["caf\u00e9"]["failed"] == 1
    assert found["causes"][0]["error"] == 'says "no" \\ never'


def test_a_text_in_a_prompt_that_looks_like_a_ledger_line_is_a_text(here: Path, said: Said) -> None:
    folder = Folder(here, "a")
    folder.fail("a", 'x","endpoint":"evil","seed":1,"protocol":"p","generate_s":7,', endpoint="one:1")
    found = said(folder)
    assert [one["name"] for one in found["endpoints"]] == ["one:1"]
    assert found["causes"][0]["error"].startswith('x","endpoint":"evil"')


@pytest.mark.parametrize(
    ("errors", "count"),
    [
        (["no answer in 300 s", "no answer in 299.5 s"], 1),
        (["http://a:1/x answers 500: oops", "http://b:2/y?z=1 answers 500: oops"], 1),
        (["http://a:1/x answers 500: oops", "http://a:1/x answers 503: oops"], 2),
        (["gpu-1:8000: Connection refused", "gpu-b:8001: Connection refused"], 1),
        (["job 7f3a99c1 failed", "job 0011aabb failed"], 1),
        (["job 123e4567-e89b-12d3-a456-426614174000 failed", "job 523e4567-e89b-12d3-a456-42661417400f failed"], 1),
        (["/data/one/x.png: No such file", "/other/y.png: No such file"], 1),
        (["out of memory", "no object"], 2),
        (["decade", "facade"], 2),
    ],
)
def test_errors_that_differ_only_in_what_is_particular_are_one_cause(errors: list[str], count: int) -> None:
    for given in (errors, errors[::-1]):
        assert len(causes_of((f"k{number}", "one", error) for number, error in enumerate(given))) == count


def test_the_key_of_a_prompt_in_its_error_is_particular_and_in_a_word_it_is_not() -> None:
    assert len(causes_of([("chair", "one", "chair has no legs"), ("lamp", "two", "lamp has no legs")])) == 1
    assert causes_of([("a", "one", "a bad answer")])[0].text == "KEY bad answer"


def test_causes_are_bounded_and_the_most_frequent_comes_first() -> None:
    causes = Causes()
    letters = [chr(0x4E00 + number) for number in range(CAUSES_KEPT + 5)]
    for letter in [*letters, letters[7]]:
        causes.add(f"cause {letter}", key="k", endpoint="one")
    ranked = causes.ranked()
    assert len(ranked) == CAUSES_KEPT + 1
    assert (ranked[0].text, ranked[0].count) == (REST, 5)
    assert (ranked[1].error, ranked[1].count) == (f"cause {letters[7]}", 2)


def test_times_are_in_words_and_texts_from_outside_on_one_line() -> None:
    assert [in_words(s) for s in (-5, 59.4, 3599, 3 * 3600, 47 * 3600, 50 * 3600)] == [
        "0 s", "59 s", "59 min", "3 h", "47 h", "2 days",
    ]  # fmt: skip
    assert plain("caf\u00e9\x07\n\u202e") == "caf\u00e9\\x07\\n\\u202e"


def test_the_line_of_a_result_is_found_by_its_key(here: Path) -> None:
    folder = mixed(here)
    history: History = replay(folder.ledger)
    assert history.place(b"a") == 0
    assert history.place(b"c") is None and history.place_of_failure(b"c") is not None
    assert [*history.places()] == sorted(
        filter(lambda one: one is not None, map(history.place, (b"a", b"b", b"old")))
    )


def test_the_report_says_how_the_last_run_went(server: ScriptedServer, here: Path, capsys: Any) -> None:
    (here / "prompts.txt").write_text("".join(f"{server.image(key)}\n" for key in "abc"))
    server.script["b"] = [Answer(status=422, body=b"no \x1b[31mobject")]
    options = {"endpoints": [server.url], "prompts": ["prompts.txt"], "output_folder": "out"}
    run(config_from(options))
    assert main(["report", "out", "--format", "text"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "out: 2 of 3 prompts have a verified result, 1 failed"
    assert "2 saved, 0 skipped, 1 failed, 0 pending" in said and f"127.0.0.1:{server.port}" in said
    assert "1× " in said and "The same command tries just these again" in said and "\x1b" not in said
    assert main(["report", "out", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["saved"], told["exit_code"], told["causes"][0]["count"]) == (2, 1, 1)


@pytest.mark.parametrize("text", [None, "{half", "[]", '{"total": "many"}'])
def test_a_folder_without_a_summary_has_no_report(here: Path, capsys: Any, text: str | None) -> None:
    (here / "out" / ".runner").mkdir(parents=True)
    if text is not None:
        (here / "out" / ".runner" / "summary.json").write_text(text)
    assert main(["report", "out", "--format", "text"]) == 2
    assert "out" in capsys.readouterr().err


@pytest.mark.parametrize("trace", ["ledger.jsonl", "progress.json", "lists.jsonl"])
def test_a_run_that_was_killed_is_the_last_one_whatever_it_left(
    here: Path, said: Said, capsys: pytest.CaptureFixture[str], trace: str
) -> None:
    folder = Folder(here, "a")
    (folder.state / "summary.json").write_text(summary_json(Summary(1, 1, 0, 0, 0, 60.0, "results", run=folder.run)))
    assert main(["report", "results", "--format", "text"]) == 0
    assert capsys.readouterr().out.startswith("results: ")
    folder.run = "2026-02-01T00:00:00.000Z-0000"
    if trace == "ledger.jsonl":
        folder.fail("a", "Connection refused")
    elif trace == "lists.jsonl":
        folder.ran()
    else:
        (folder.state / trace).write_text(json.dumps(PROGRESS | {"run": folder.run, "pid": 1}))
    last = said(folder)["last_run"]
    assert (last["ended"], last["run"]) == ("killed", folder.run)
    assert main(["report", "results", "--format", "text"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("results: 0 of 1 prompts have a verified result, 1 ")
    assert second.startswith("the last run began ") and "and left no summary after " in second
    assert main(["report", "results", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["last_run"] | {"age_s": 0} == last | {"age_s": 0}
    (folder.state / "lock").write_text(f"pid {os.getpid()} on {socket.gethostname()}\n")
    assert said(folder)["last_run"]["ended"] is None, "it has begun, and not said so yet"
    assert main(["report", "results", "--format", "text"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("a run is going on, begun ")


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("status", [".runner", ".runner/ledger.jsonl", ".runner/lists.jsonl", ".runner/summary.json"]),
        ("report", [".runner", ".runner/ledger.jsonl", ".runner/lists.jsonl", ".runner/summary.json"]),
        ("verify", [".runner", ".runner/ledger.jsonl"]),
        ("prune", [".runner", ".runner/ledger.jsonl", ".runner/lists.jsonl", ".runner/config.yaml"]),
    ],
)
def test_what_can_not_be_read_is_not_taken_for_what_is_not_there(
    here: Path, capsys: pytest.CaptureFixture[str], command: str, needed: list[str]
) -> None:
    folder = mixed(here)
    (folder.state / "summary.json").write_text(summary_json(Summary(1, 1, 0, 0, 0, 60.0, "results")))
    for name in needed:
        file = folder.path / name
        file.rename(here / "aside")
        file.symlink_to(file)  # a link to itself: root may read everything else
        assert main([command, "results"]) == 1, name
        said = capsys.readouterr()
        assert said.err.count("\n") == 1 and "can't be read: Too many levels" in said.err
        file.unlink()
        (here / "aside").rename(file)
    assert main([command, "n" * 300]) == 1
    assert "can't be read: File name too long" in capsys.readouterr().err


def refused(capsys: pytest.CaptureFixture[str], name: object) -> str:
    """Ask for a list of the missing ones there; return what was said against it."""
    assert main(["status", "results", "--missing-file", str(name)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--missing-file" in err
    return err


def test_a_missing_file_is_never_written_over_what_a_run_needs(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(here, "a", "b")
    (here / "lists").mkdir()
    (here / "images").mkdir()
    (here / "images" / "d.png").write_bytes(b"x")
    (here / "lists" / "c.txt").write_text("https://h/c.png\n")
    (here / "night.conf").write_text("x")
    folder.list("a", "b", prompts=[str(here / one) for one in ("prompts.txt", "lists/*.txt", "images")])
    folder.ran(name=str(here / "night.conf"), folder=here)
    folder.save("a")
    folder.save("old")
    (here / "link").symlink_to(folder.path / "a.ply")
    os.link(here / "lists" / "c.txt", here / "same")
    (here / "other" / ".runner").mkdir(parents=True)
    (here / "prompts.txt.part").write_text("mine")
    before = {file: file.read_bytes() for file in here.rglob("*") if file.is_file()}
    for name in ("prompts.txt", "lists/c.txt", "lists/new.txt", "same", "./lists/../prompts.txt"):
        assert f"--missing-file {name}: this is the run's own prompts file" in refused(capsys, name)
    for name in (
        "results/.runner/new.txt",
        "results/.runner/ledger.jsonl",
        "other/.runner/x",
        folder.state / "below" / "x.txt",
    ):
        assert ".runner is the runner's own" in refused(capsys, name)
    for name in ("results/a.ply", "results/old.ply", "link"):
        assert "this is a result" in refused(capsys, name)
    assert "this is a config" in refused(capsys, "night.conf")
    assert "image of a prompt" in refused(capsys, "images/d.png")
    assert "can't be written: Is a directory" in refused(capsys, "lists")
    assert "can't be written: No such file" in refused(capsys, "nowhere/todo.txt")
    assert {file: file.read_bytes() for file in here.rglob("*") if file.is_file()} == before


def test_a_missing_file_goes_beside_the_results_and_over_an_older_one_and_leaves_nothing_else(here: Path) -> None:
    folder = Folder(here, "a", "b")
    folder.save("a")
    (here / "todo.txt.part").write_text("mine")
    for name in ("results/todo.txt", "results/todo.txt", "todo.txt", "n" * 250 + ".txt"):
        assert main(["status", "results", "--missing-file", name]) == 1
        assert (here / name).read_text() == "https://h/b.png\n"
    assert (here / "todo.txt.part").read_text() == "mine"
    assert {one.name for one in here.iterdir()} == {
        "prompts.txt", "results", "todo.txt", "todo.txt.part", "n" * 250 + ".txt"
    }  # fmt: skip
    assert folder.files() == {"a.ply", "todo.txt"}


def test_a_missing_file_may_be_stdout_by_its_name_or_a_device(here: Path, start: Callable[..., Any]) -> None:
    Folder(here, "a", "b").save("a")
    assert main(["status", "results", "--missing-file", "/dev/null"]) == 1
    out, _ = start("status", "results", "--missing-file", "/dev/stdout").communicate(timeout=60)
    assert out.startswith("https://h/b.png\nresults: 2 total, 1 saved, 0 failed, 1 missing")
    with open(here / "said", "w") as said:
        start("status", "results", "--missing-file", "/dev/stdout", stdout=said).communicate(timeout=60)
    assert (here / "said").read_text().splitlines()[:1] == ["https://h/b.png"]
    assert "2 total" in (here / "said").read_text()
