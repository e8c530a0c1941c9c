"""Several runs from one config, one after another."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ledger_of, results_of
from server import Answer, ScriptedServer

from runner import load_config, run
from runner.config import Config
from runner.errors import UsageError
from runner.ledger import LOCK, locked
from runner.records import Event, Summary
from runner.report import Tally, answer_json, verdict
from runner.stop import Stop

Write = Callable[..., Path]


@pytest.fixture
def written(server: ScriptedServer, here: Path) -> Write:
    """Writes lists/NAME.txt for each list, and night.yaml; returns its path."""

    def write(lists: dict[str, str], **options: Any) -> Path:
        (here / "lists").mkdir(exist_ok=True)
        for name, keys in lists.items():
            (here / "lists" / name).write_text("".join(f"{server.image(key)}\n" for key in keys))
        document = {"endpoints": [server.url], "retry": {"attempts": 1}} | options
        (here / "night.yaml").write_text(yaml.safe_dump(document))
        return here / "night.yaml"

    return write


def own(*entries: Any) -> list[Any]:
    return [{"prompts": f"lists/{name}", "output_folder": f"out/{name[0]}", **more} for name, more in entries]


def problems(path: Path, overrides: Any = None) -> list[str]:
    with pytest.raises(UsageError) as refused:
        load_config(path, overrides)
    return [problem.removeprefix(f"{path}: ") for problem in refused.value.problems]


def folders(config: Config) -> list[str]:
    return [str(one.output_folder.relative_to(Path.cwd())) for one in config.runs]


def test_each_run_has_what_is_common_and_what_is_its_own(written: Write) -> None:
    config = load_config(
        written({"a.txt": "a", "b.txt": "b"}, seed=7, runs=own(("a.txt", {}), ("b.txt", {"seed": 8})))
    )
    assert [one.settings.seed for one in config.runs] == [7, 8]
    assert folders(config) == ["out/a", "out/b"]
    assert [one.settings.retry.attempts for one in config.runs] == [1, 1]


def test_a_glob_of_prompts_files_is_a_run_each(written: Write) -> None:
    path = written({"b.txt": "b", "a.txt": "a", "c.csv": ""}, output_folder="out/{stem}", runs="lists/*.txt")
    assert folders(load_config(path)) == ["out/a", "out/b"]
    path = written({}, output_folder="out/{stem}", runs={"prompts": "lists/*", "seed": 9})
    assert folders(load_config(path)) == ["out/a", "out/b", "out/c"]
    path = written({}, runs=[{"prompts": ["lists/a.txt", "lists/c.*"], "output_folder": "{stem}"}])
    assert folders(load_config(path)) == ["a", "c"]


def test_flags_win_over_every_run(written: Write) -> None:
    path = written({"a.txt": "a", "b.txt": "b"}, runs=own(("a.txt", {}), ("b.txt", {"seed": 8})))
    assert [one.settings.seed for one in load_config(path, {"seed": 5}).runs] == [5, 5]
    assert problems(path, {"prompts": ["x.txt"]}) == [
        "the command line: prompts: the config has runs, each with its own prompts; take --prompts-file away"
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"runs": []}, "runs: expected at least one run, got an empty list"),
        ({"runs": [7]}, "runs[0]: expected a mapping such as {prompts: a.txt, output_folder: results/a}, got 7"),
        ({"runs": own(("a.txt", {"seed": "x"}))}, "runs[0].seed: expected an integer, got 'x'"),
        ({"runs": own(("a.txt", {"sead": 1}))}, "runs[0].sead: unknown key; did you mean 'seed'?"),
        ({"runs": [{"output_folder": "x"}]}, "runs[0].prompts: required, but missing"),
        ({"runs": own(("a.txt", {"endpoints": ["http://h:1"]}))}, "runs[0].endpoints: this is the same for all runs"),
        ({"runs": own(("a.txt", {"log": {"level": "info"}}))}, "runs[0].log: this is the same for all runs"),
        ({"runs": own(("a.txt", {"runs": []}))}, "runs[0].runs: this is the same for all runs"),
        ({"runs": [{"prompts": "-"}]}, "runs[0].prompts: expected files, got -"),
        (
            {"runs": [{"prompts": "lists/a.txt"}] * 2},
            "runs[1].output_folder: expected one for each run, got 'results'",
        ),
        (
            {"runs": "lists/a.*", "output_folder": "x/{stem}"},
            "runs.output_folder: expected one for each run, got 'x/a'; two of its prompts files have it",
        ),
        ({"runs": "no/*.txt", "output_folder": "{stem}"}, "runs.prompts: no/*.txt matches no file"),
    ],
)
def test_what_is_wrong_with_runs_is_said_with_its_place(written: Write, options: dict[str, Any], said: str) -> None:
    found = problems(written({"a.txt": "a", "a.csv": ""}, **options))
    assert len(found) == 1 and found[0].startswith(said), found


def test_what_is_wrong_with_the_common_keys_is_said_once(written: Write) -> None:
    path = written(
        {"a.txt": "a", "b.txt": "b"}, seed="x", runs=own(("a.txt", {"retry": {"attempts": 0}}), ("b.txt", {}))
    )
    assert problems(path) == [
        "seed: expected an integer, got 'x'",
        "runs[0].retry.attempts: expected an integer ≥ 1, got 0",
    ]


def test_the_runs_come_one_after_another_with_a_summary_each_and_one_of_all(
    server: ScriptedServer, written: Write, here: Path
) -> None:
    server.script["b1"] = [Answer(status=422, body=b"no object")]
    path = written({"a.txt": "", "b.txt": "", "c.txt": ""}, runs=own(("a.txt", {}), ("b.txt", {}), ("c.txt", {})))
    for name in "abc":
        (here / "lists" / f"{name}.txt").write_text("".join(f"{server.image(f'{name}{n}')}\n" for n in range(3)))
    seen: list[Tally] = []

    def watch(tally: Tally, event: Event | None) -> None:
        if tally not in seen:
            seen.append(tally)

    summary = run(load_config(path), observe=watch)
    assert (summary.total, summary.saved, summary.failed) == (9, 8, 1)
    assert summary.exit_code == 1 and not summary.success
    assert [one.success for one in summary.runs] == [True, False, True], "a failure does not stop the next"
    assert [one.stem[0] for one in server.received] == list("aaabbbccc")
    assert len(seen) == 3
    assert verdict(summary).startswith("out/b: 1 of 3 prompts failed (first: b1: ")
    for name in "abc":
        said = json.loads((here / "out" / name / ".runner" / "summary.json").read_text())
        assert said["success"] == (name != "b") and said["total"] == 3
        assert len(ledger_of(here / "out" / name)) == 3
    assert [one.saved for one in summary.endpoints] == [8]
    said = json.loads(answer_json(summary))
    assert said["saved"] + said["skipped"] + said["failed"] + said["pending"] == said["total"] == 9
    assert (said["output_folder"], [one["output_folder"] for one in said["runs"]]) == (
        "out",
        ["out/a", "out/b", "out/c"],
    )
    assert run(load_config(path)).success, "and the same again does only what is missing"
    assert len(server.received) == 10


def test_a_broken_list_is_that_runs_own_failure(server: ScriptedServer, written: Write, here: Path) -> None:
    path = written({"a.txt": "x", "b.txt": "yy", "c.txt": "z"}, runs=own(("a.txt", {}), ("b.txt", {}), ("c.txt", {})))
    summary = run(load_config(path))
    assert (summary.saved, summary.exit_code) == (2, 1)
    assert [one.exit_code for one in summary.runs] == [0, 2, 0]
    assert "two prompts" in (summary.runs[1].error or "") or "y" in (summary.runs[1].error or "")
    assert sorted(results_of(here / "out" / "c")) == ["z.ply"]


def test_a_run_whose_folder_is_held_does_not_stop_the_next(written: Write, here: Path) -> None:
    path = written({"a.txt": "x", "b.txt": "y"}, runs=own(("a.txt", {}), ("b.txt", {})))
    state = here / "out" / "a" / ".runner"
    state.mkdir(parents=True)
    with locked(state / LOCK):
        summary = run(load_config(path))
    assert [one.stopped for one in summary.runs] == ["locked", None]
    assert summary.exit_code == 75


def test_nothing_but_refusals_is_exit_2(server: ScriptedServer, written: Write) -> None:
    summary = run(load_config(written({"a.txt": "xx", "b.txt": "yy"}, runs=own(("a.txt", {}), ("b.txt", {})))))
    assert summary.exit_code == 2 and not server.received


def test_the_window_is_one_for_all_runs_and_what_is_left_is_counted(
    server: ScriptedServer, written: Write, here: Path
) -> None:
    server.generation_s = 0.3
    path = written({"a.txt": "uvwxyz", "b.txt": "uvw"}, max_runtime_s=1.0, runs=own(("a.txt", {}), ("b.txt", {})))
    summary = run(load_config(path))
    assert (summary.total, summary.failed, summary.exit_code) == (9, 0, 75)
    first, second = summary.runs
    assert first.stopped == second.stopped == "window"
    assert (second.total, second.pending, second.saved) == (3, 3, 0), "counted, and nothing begun"
    assert first.saved == summary.saved == len(server.received) < 6


def test_a_run_knows_what_a_generation_took_in_the_one_before(server: ScriptedServer, written: Write) -> None:
    server.generation_s = 0.6
    path = written({"a.txt": "x", "b.txt": "y"}, max_runtime_s=1.1, runs=own(("a.txt", {}), ("b.txt", {})))
    summary = run(load_config(path))
    assert [one.saved for one in summary.runs] == [1, 0] and len(server.received) == 1


def test_max_failures_ends_one_run_only(server: ScriptedServer, written: Write) -> None:
    for key in "xyz":
        server.script[key] = [Answer(status=422)]
    entries = own(("a.txt", {"max_failures": 1}), ("b.txt", {}))
    summary = run(load_config(written({"a.txt": "xyz", "b.txt": "uv"}, runs=entries)))
    assert summary.runs[0].stopped == "failures" and summary.runs[0].pending > 0
    assert summary.runs[1].success and summary.exit_code == 1


def test_a_signal_ends_all_of_them(server: ScriptedServer, written: Write) -> None:
    stop = Stop()

    def watch(tally: Tally, event: Event | None) -> None:
        if tally.saved:
            stop.ask("SIGINT")

    path = written({"a.txt": "uvwxyz", "b.txt": "u"}, runs=own(("a.txt", {}), ("b.txt", {})))
    summary = run(load_config(path), stop=stop, observe=watch)
    assert summary.exit_code == 130
    assert (summary.runs[1].total, summary.runs[1].pending) == (1, 1), "it is counted, and nothing is begun"
    assert summary.total == 7 and server.asked("u") == 1


def test_after_a_second_signal_not_even_the_lists_are_read(server: ScriptedServer, written: Write) -> None:
    stop = Stop()
    path = written({"a.txt": "u", "b.txt": "v"}, runs=own(("a.txt", {}), ("b.txt", {})))
    summary = run(load_config(path), stop=stop, observe=lambda tally, event: stop.leave("SIGINT"))
    assert summary.exit_code == 130
    assert (summary.runs[1].error, summary.runs[1].total) == ("not begun (SIGINT)", 0)


def test_no_endpoint_for_one_is_none_for_the_next(servers: Any, written: Write) -> None:
    (dead,) = servers(1)
    dead.die()
    path = written(
        {"a.txt": "x", "b.txt": "yz"},
        endpoints=[dead.url],
        health={"all_down_s": 0.2},
        runs=own(("a.txt", {}), ("b.txt", {})),
    )
    summary = run(load_config(path))
    assert [one.stopped for one in summary.runs] == ["down", "down"]
    assert (summary.pending, summary.exit_code) == (3, 75)


def test_the_plan_and_the_answer_on_the_command_line(written: Write, runner: Any, here: Path) -> None:
    written({"a.txt": "x", "b.txt": "yz"}, output_folder="out/{stem}", runs="lists/*.txt")
    plan = runner("plan", "night.yaml").stdout
    assert plan.startswith("== out/a\n") and "\n== out/b\n" in plan and "2 prompts: 0 saved, 2 pending" in plan
    done = runner("run", "night.yaml")
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    assert [one["saved"] for one in json.loads(done.stdout)["runs"]] == [1, 2]
    assert "Run 2 of 2: out/b" in done.stderr
    assert runner("status", "out/b").returncode == 0


def test_a_config_of_an_older_run_says_nothing_of_runs(written: Write, here: Path) -> None:
    run(load_config(written({"a.txt": "x"}, runs=own(("a.txt", {})))))
    kept = yaml.safe_load((here / "out" / "a" / ".runner" / "config.yaml").read_text())
    assert kept["runs"] is None and kept["prompts"] == [str(here / "lists" / "a.txt")]


def test_one_summary_of_none_is_a_success() -> None:
    whole = Summary(1, 1, 0, 0, 0, 1.0, "a")
    assert Summary(1, 1, 0, 0, 0, 1.0, ".", runs=(whole,)).exit_code == 0


def test_check_looks_at_every_list_and_asks_once_a_protocol(written: Write, runner: Any, here: Path) -> None:
    entries = own(("a.txt", {}), ("b.txt", {}))
    written({"a.txt": "x", "b.txt": "yz"}, runs=entries)
    done = runner("check", "night.yaml")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[0] == "night.yaml: valid, 3 prompts in 2 runs, 1 endpoints"
    assert done.stdout.count("404-splat expects") == 1
    written({"a.txt": "xx", "b.txt": "yy"}, runs=entries)
    done = runner("check", "night.yaml")
    assert done.returncode == 2 and "a.txt" in done.stderr and "b.txt" in done.stderr


def metrics_of(path: Path) -> dict[tuple[str, ...], float]:
    from prometheus_client.parser import text_string_to_metric_families

    samples = [one for family in text_string_to_metric_families(path.read_text()) for one in family.samples]
    return {(one.name, *(value for _, value in sorted(one.labels.items()))): one.value for one in samples}


def test_the_metrics_of_all_runs_are_in_one_file_and_a_good_night_is_remembered(
    server: ScriptedServer, written: Write, here: Path
) -> None:
    server.script["y"] = [Answer(status=500, body=b"CUDA error")]
    options = {"metrics": {"textfile": "night.prom"}, "retry": {"attempts": 2, "backoff_s": 0.01}}
    path = written({"a.txt": "x", "b.txt": "yz"}, runs=own(("a.txt", {}), ("b.txt", {})), **options)
    run(load_config(path))
    name = f"127.0.0.1:{server.port}"
    first = metrics_of(here / "night.prom")
    assert first["runner_prompts", "out/b", "saved"] == 2 and first["runner_prompts", "out/a", "pending"] == 0
    assert first["runner_retries_total", "out/b", name] == 1
    assert first["runner_endpoint_up", "out/b", name] == 1
    assert first["runner_generation_seconds_count", "out/b", name] == 2
    assert first["runner_run_exit_code", "out/a"] == 0
    good = first["runner_last_success_timestamp_seconds", "out/b"]
    (here / "lists" / "b.txt").write_text(f"{server.image('w')}\n")
    server.script["w"] = [Answer(status=422)]
    run(load_config(path))
    second = metrics_of(here / "night.prom")
    assert second["runner_prompts", "out/a", "skipped"] == 1, "a run with nothing left to do has its counts too"
    assert second["runner_run_exit_code", "out/b"] == 1
    assert second["runner_last_success_timestamp_seconds", "out/b"] == good
    (here / "lists" / "b.txt").write_text("same.png\nsame.png\n")
    run(load_config(path))
    assert metrics_of(here / "night.prom")["runner_run_exit_code", "out/b"] == 2, "and one that can't begin its code"


def test_how_it_ended_is_told_once_for_all_runs(server: ScriptedServer, written: Write, here: Path) -> None:
    server.script["y"] = [Answer(status=422, body=b"no object")]
    notify = {"command": "cat > told.json; echo no room >&2; exit 3"}
    path = written({"a.txt": "x", "b.txt": "y"}, notify=notify, runs=own(("a.txt", {}), ("b.txt", {})))
    summary = run(load_config(path))
    told = json.loads((here / "told.json").read_text())
    assert (told["exit_code"], told["saved"], told["failed"]) == (1, 1, 1)
    assert told["config"] == str(path) and [one["key"] for one in told["failures"]] == ["y"]
    (warning,) = summary.warnings
    assert warning.startswith("notify: ") and "no room" in warning


def test_a_good_night_is_not_told_and_a_list_that_can_not_be_read_is(
    server: ScriptedServer, here: Path, runner: Any
) -> None:
    (here / "p.txt").write_text(f"{server.image('a')}\n")
    document = {"endpoints": [server.url], "prompts": "p.txt", "notify": {"command": "cat > told.json; exit 3"}}
    (here / "run.yaml").write_text(yaml.safe_dump(document))
    assert runner("run", "run.yaml", as_it_is=True).stderr == ""
    assert not (here / "told.json").exists()
    (here / "p.txt").unlink()
    done = runner("run", "run.yaml", as_it_is=True)
    assert done.returncode == 2
    told = json.loads((here / "told.json").read_text())
    assert told["exit_code"] == 2 and "p.txt" in told["text"] and told["success"] is False


def test_the_window_of_one_run_is_no_end_for_the_next(server: ScriptedServer, written: Write) -> None:
    server.generation_s = 0.3
    entries = own(("a.txt", {"max_runtime_s": 0.5}), ("b.txt", {}))
    summary = run(load_config(written({"a.txt": "uvwxyz", "b.txt": "rs"}, runs=entries)))
    assert summary.runs[0].stopped == "window" and summary.runs[0].pending > 0
    assert summary.runs[1].success and summary.exit_code == 75


def test_until_is_that_of_the_day_on_which_the_night_began(
    server: ScriptedServer, written: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def soon(time_of_day: str) -> float:
        asked.append(time_of_day)
        return 0.3

    monkeypatch.setattr("runner.batch.window.seconds_until", soon)
    server.generation_s = 0.5
    entries = own(("a.txt", {}), ("b.txt", {"until": "06:30"}))
    summary = run(load_config(written({"a.txt": "xyz", "b.txt": "u"}, runs=entries)))
    assert asked == ["06:30"]
    assert (summary.runs[0].saved, summary.runs[1].pending) == (3, 1)


def test_a_list_for_stdin_beside_runs_is_refused(written: Write) -> None:
    entries = [{"output_folder": "q1"}, {"output_folder": "q2"}]
    assert problems(written({}, prompts="-", runs=entries)) == [
        "runs[0].prompts: expected files, got -: there is one stdin, and several runs"
    ]


def test_runs_are_no_flag(written: Write) -> None:
    path = written({"a.txt": "a"}, runs=own(("a.txt", {})))
    assert "the command line: runs: expected in the YAML" in problems(path, {"runs": ["x.txt"]})[0]


def test_an_endpoint_stays_out_while_the_next_runs_ask_nobody(servers: Any, written: Write, here: Path) -> None:
    dead, other = servers(2)
    dead.die()
    endpoints = [dead.url, other.url]
    entries = own(("a.txt", {}), ("b.txt", {}))
    run(load_config(written({"a.txt": "", "b.txt": "y"}, endpoints=[other.url], runs=entries)))
    summary = run(load_config(written({"a.txt": "xz", "b.txt": "y"}, endpoints=endpoints, runs=entries)))
    assert summary.success and [one.out for one in summary.endpoints] == [True, False]


def test_a_folder_that_is_held_is_told_although_another_run_met_the_window(
    server: ScriptedServer, written: Write, here: Path
) -> None:
    server.generation_s = 0.3
    path = written(
        {"a.txt": "x", "b.txt": "uvwxyz"},
        max_runtime_s=0.7,
        notify={"command": "cat > told.json"},
        runs=own(("a.txt", {}), ("b.txt", {})),
    )
    state = here / "out" / "a" / ".runner"
    state.mkdir(parents=True)
    with locked(state / LOCK):
        assert run(load_config(path)).exit_code == 75
    assert json.loads((here / "told.json").read_text())["exit_code"] == 75
    (here / "told.json").unlink()
    assert run(load_config(path)).exit_code == 75
    assert not (here / "told.json").exists(), "a window that is over is no failure"


def test_a_log_that_can_not_be_written_is_told(server: ScriptedServer, written: Write, here: Path) -> None:
    notify = {"command": "cat > told.json"}
    path = written({"a.txt": "x"}, notify=notify, log={"file": "no/such/log"}, runs=own(("a.txt", {})))
    with pytest.raises(UsageError):
        run(load_config(path))
    assert "no/such/log" in json.loads((here / "told.json").read_text())["text"]


def test_medians_that_a_run_leaves_to_the_next_count_to_the_last_byte(server: ScriptedServer, written: Write) -> None:
    body = threading.Event()
    server.script["x"] = [Answer(hold_body=body)]
    threading.Timer(0.8, body.set).start()
    path = written({"a.txt": "x", "b.txt": "y"}, max_runtime_s=1.5, runs=own(("a.txt", {}), ("b.txt", {})))
    summary = run(load_config(path))
    assert [one.saved for one in summary.runs] == [1, 0] and server.asked("y") == 0
