"""Reports at the end of runs, and ``runner report``: what is written, and what goes wrong."""

from __future__ import annotations

import builtins
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import Folder
from server import ScriptedServer

from runner import extras, run
from runner.cli import main
from runner.config import config_from, load_config
from runner.errors import UsageError
from runner.stop import Stop
from runner.storage import STATE


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(server: ScriptedServer, here: Path, *keys: str, **more: Any) -> dict[str, Any]:
    (here / "prompts.txt").write_text("".join(f"{server.image(key)}\n" for key in keys))
    return {"endpoints": [server.url], "prompts": ["prompts.txt"], "output_folder": "out"} | more


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let the extra ``report`` be not installed."""
    real = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in modules else real(name))


def test_a_run_writes_its_report_if_asked_to(server: ScriptedServer, here: Path, capsys: Any) -> None:
    options(server, here, "a", "b")
    flags = ["--prompts-file", "prompts.txt", "--endpoint", server.url, "--output-folder", "out", "--seed", "1"]
    assert main(["generate", *flags, "--report"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["saved"] == 2 and "Report: out/report.html" in said.err
    assert "All 2 prompts" in (here / "out" / "report.html").read_text()
    status = [main(["status", "out", "--json"]), json.loads(capsys.readouterr().out)["unknown"]]
    assert status == [0, 0], "the report is no stranger in the folder"


def test_no_run_writes_one_unasked(server: ScriptedServer, here: Path) -> None:
    run(config_from(options(server, here, "a")))
    assert not (here / "out" / "report.html").exists()


def test_each_of_several_runs_gets_its_own(server: ScriptedServer, here: Path) -> None:
    chosen = options(server, here, "a")
    del chosen["prompts"], chosen["output_folder"]
    each = [{"prompts": "prompts.txt", "output_folder": name} for name in ("one", "two")]
    (here / "two.yaml").write_text(json.dumps(chosen | {"report": True, "runs": each}))
    assert run(load_config("two.yaml")).success
    assert (here / "one" / "report.html").exists() and (here / "two" / "report.html").exists()


def test_a_report_that_can_not_be_written_is_a_warning_and_no_failure(server: ScriptedServer, here: Path) -> None:
    (here / "out" / "report.html" / "x").mkdir(parents=True)
    summary = run(config_from(options(server, here, "a", report=True)))
    assert summary.success and summary.exit_code == 0
    (warning,) = summary.warnings
    assert warning.startswith("the report was not written: ") and "out/report.html can't be written" in warning


def test_a_bug_in_the_report_does_not_cost_the_run_its_truth(
    server: ScriptedServer, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("runner.reporting.chronicle_of", broken)
    summary = run(config_from(options(server, here, "a", report=True)))
    assert summary.success and "a bug in runner: ZeroDivisionError: oops" in summary.warnings[0]


def test_who_stopped_a_run_by_a_signal_waits_for_no_report(server: ScriptedServer, here: Path) -> None:
    stop = Stop()
    stop.ask("SIGINT")
    assert run(config_from(options(server, here, "a", report=True)), stop=stop).exit_code == 130
    assert not (here / "out" / "report.html").exists()


def test_a_signal_while_the_report_is_drawn_ends_that(
    server: ScriptedServer, here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop = Stop()

    def drawing(*_: Any, observe: Callable[[int, int], None], **__: Any) -> None:
        stop.ask(signal.Signals.SIGTERM.name)
        observe(1, 2)

    monkeypatch.setattr("runner.pictures.gallery", drawing)
    summary = run(config_from(options(server, here, "a", report=True)), stop=stop)
    assert summary.success and not (here / "out" / "report.html").exists()
    assert "The report was not written: SIGTERM; runner report out does" in caplog.text


def test_a_config_that_asks_for_a_report_needs_the_extra(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "jinja2", "numpy")
    (here / "a.png").touch()
    with pytest.raises(UsageError, match=r"report: it needs Jinja2, numpy: pip install 'multiport-runner\[report\]'"):
        config_from({"endpoints": ["http://one:1"], "prompts": ["a.png"], "report": True})


def test_without_the_extra_there_is_text(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    Folder(here, "a").save("a")
    without(monkeypatch, "PIL")
    assert main(["report", "results"]) == 2
    assert (
        "report.html needs Pillow: pip install 'multiport-runner[report]'; --format text" in capsys.readouterr().err
    )
    real = builtins.__import__

    def importing(name: str, *rest: Any, **more: Any) -> Any:
        assert name.partition(".")[0] not in ("jinja2", "numpy", "PIL"), name
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", importing)
    assert main(["report", "results", "--format", "text"]) == 0


@pytest.mark.parametrize("kind", ["text", "md", "json"])
def test_what_goes_to_stdout_may_go_to_a_file(here: Path, capsys: Any, kind: str) -> None:
    Folder(here, "a").save("a")
    assert main(["report", "results", "--format", kind]) == 0
    said = capsys.readouterr().out
    assert main(["report", "results", "--format", kind, "--output", "told"]) == 0
    assert capsys.readouterr().out == "" and len((here / "told").read_text()) == len(said)
    assert main(["report", "results", "--format", kind, "--output", "no/told"]) == 1
    assert "no/told can't be written: No such file or directory" in capsys.readouterr().err


def test_a_page_may_be_written_elsewhere(here: Path, capsys: Any) -> None:
    Folder(here, "a").save("a")
    assert main(["report", "results", "--output", "night.html", "--offline"]) == 0
    assert capsys.readouterr().out.startswith("night.html: the prompt has a verified result (")
    assert (here / "night.html").exists() and not (here / "results" / "report.html").exists()


def test_a_report_replaces_no_result(here: Path, capsys: Any) -> None:
    folder = Folder(here, "report", output={"extension": "html", "verify": "none"})
    folder.save("report", kind="html")
    before = (folder.path / "report.html").read_bytes()
    assert main(["report", "results", "--offline"]) == 2
    assert "report.html is the result of a prompt; name another file with --output" in capsys.readouterr().err
    assert (folder.path / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--output", "-"], "--output -: expected a file"),
        (["--output", "/dev/stdout"], "--output /dev/stdout: expected a file"),
        (["--output", "/proc/self/fd/1"], "--output /proc/self/fd/1: expected a file"),
        (["--thumbnails", "-1"], "--thumbnails: expected a number, 0 or more, got -1"),
    ],
)
def test_flags_that_make_no_sense_are_refused(here: Path, capsys: Any, flags: list[str], said: str) -> None:
    Folder(here, "a").save("a")
    assert main(["report", "results", *flags]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_can_not_be_drawn_into_still_gets_its_page(here: Path, capsys: Any) -> None:
    folder = Folder(here, "a")
    folder.save("a")
    (folder.state / "pictures").write_text("in the way")
    assert main(["report", "results", "--offline"]) == 0
    assert "results/report.html: " in capsys.readouterr().out


def test_a_summary_that_nobody_can_read_leaves_the_rest_of_the_json(here: Path, capsys: Any) -> None:
    Folder(here, "a").save("a")
    (here / "results" / STATE / "summary.json").write_text("{half")
    assert main(["report", "results", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "exit_code" not in told and told["standing"]["saved"] == 1


def test_no_output_replaces_what_a_run_needs(here: Path, capsys: Any) -> None:
    folder = Folder(here, "a", "b")
    folder.save("a")
    before = {file: file.read_bytes() for file in here.rglob("*") if file.is_file()}
    (here / "link").symlink_to("results/a.ply")
    places = ["results/a.ply", str(folder.path / "a.ply"), "results/.runner/ledger.jsonl", "prompts.txt", "link"]
    for place in places:
        for kind in ("html", "json"):
            assert main(["report", "results", "--format", kind, "--output", place, "--offline"]) == 2, place
            assert capsys.readouterr().err.startswith(f"runner: error: --output {place}: this is ") or STATE in place
    assert before == {file: file.read_bytes() for file in before}
    (here / "prompts.txt").unlink()
    assert main(["report", "results", "--format", "text", "--output", "results/a.ply"]) == 2
    assert (folder.path / "a.ply").read_bytes() == before[folder.path / "a.ply"]


def test_a_device_or_a_pipe_is_written_into_and_not_replaced(here: Path) -> None:
    Folder(here, "a").save("a")
    os.mkfifo(here / "pipe")
    for kind, beginning in (("html", b"<!doctype html>"), ("md", b"# results: the prompt")):
        with open(here / "got", "wb") as got, subprocess.Popen(["cat", here / "pipe"], stdout=got) as reader:
            assert main(["report", "results", "--format", kind, "--output", "pipe", "--offline"]) == 0
            assert reader.wait(timeout=20) == 0
        assert (here / "got").read_bytes().lower().startswith(beginning)
    assert stat.S_ISFIFO((here / "pipe").stat().st_mode)


def test_an_open_file_is_gone_on_with(here: Path, environment: dict[str, str]) -> None:
    Folder(here, "a").save("a")
    place = os.readlink("/dev/stdout")
    (here / "log").write_text("before\n")
    command = f"{shlex.quote(sys.executable)} -m runner report results --format md --output /dev/stdout >>log"
    done = subprocess.run(["bash", "-c", command], cwd=here, env=environment, timeout=30)
    assert done.returncode == 0 and os.readlink("/dev/stdout") == place
    assert (here / "log").read_text().startswith("before\n# results: the prompt has")


def test_a_result_that_can_not_be_read_is_no_reason_to_tell_nothing(here: Path, capsys: Any) -> None:
    folder = Folder(here, "a", "b")
    folder.save("a")
    folder.save("b")
    (folder.path / "a.ply").unlink()
    (folder.path / "a.ply").symlink_to("a.ply")
    assert main(["report", "results", "--format", "text"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("results: 1 of 2 prompts have a verified result, 1 pending\n")
    assert "note: how the folder stands can't be told, only what the ledger knows: " in said


def test_a_run_that_had_nothing_to_do_leaves_the_report_as_it_is(server: ScriptedServer, here: Path) -> None:
    chosen = options(server, here, "a", report=True)
    run(config_from(chosen))
    before = (here / "out" / "report.html").stat().st_mtime_ns
    run(config_from(chosen))
    assert (here / "out" / "report.html").stat().st_mtime_ns == before
    (here / "out" / "report.html").unlink()
    run(config_from(chosen))
    assert (here / "out" / "report.html").exists()
