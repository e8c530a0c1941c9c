"""One list over several machines: shards of it, side by side in one folder."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import QUICK, REPOSITORY, results_of
from server import Answer, ScriptedServer, splat_ply

from runner import load_config, run
from runner.cli import main
from runner.cli.parser import build_parser
from runner.config import Config, config_from
from runner.errors import LockedError, StorageError, UsageError
from runner.ledger import locked, locked_for
from runner.records import Prompt, Summary, Task
from runner.shards import Shard, number_of, shard_from, shard_in
from runner.stop import Stop
from runner.storage import OutputFolder, states_of
from runner.worker import Workbench

Servers = Callable[..., list[ScriptedServer]]
KEYS = [f"p{number}" for number in range(30)]
OF_THREE = {number: [key for key in KEYS if number_of(key.encode(), 3) == number] for number in (1, 2, 3)}


def config_for(
    server: ScriptedServer,
    here: Path,
    shard: str | None = None,
    keys: list[str] = KEYS,
    host: ScriptedServer | None = None,
    **options: Any,
) -> Config:
    """A config of a shard that asks one server, under a name of its own; ``host`` has the images."""
    (here / "prompts.txt").write_text("".join(f"{(host or server).image(key)}\n" for key in keys))
    return config_from(
        {
            "endpoints": [{"url": server.url, "name": f"gpu-{str(shard).partition('/')[0]}"}],
            "prompts": [str(here / "prompts.txt")],
            "output_folder": str(here / "results"),
            "shard": shard,
            **QUICK,
            **options,
        }
    )


def counts(summary: Summary) -> tuple[int, int, int, int, int]:
    return summary.total, summary.saved, summary.skipped, summary.failed, summary.pending


def said_by(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Return what a command says as JSON."""
    capsys.readouterr()
    code = main([*arguments, "--format=json"] if arguments[0] == "report" else [*arguments, "--json"])
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer | {"code": code}


# Which prompts are whose.


def test_a_prompts_shard_goes_by_its_key_alone_and_never_changes() -> None:
    assert [number_of(key.encode(), 8) for key in ("chair", "lamp", "a.b", "caf\u00e9", "000007-chair")] == [
        8, 4, 7, 4, 6
    ]  # fmt: skip


def test_every_key_is_of_just_one_shard_and_all_are_about_as_large() -> None:
    keys = [b"prompt-%06d" % number for number in range(20_000)]
    marks = [Shard(number, 7).members(keys) for number in range(1, 8)]
    assert {sum(some) for some in zip(*marks, strict=True)} == {1}
    assert all(abs(sum(own) - 20_000 / 7) < 250 for own in marks)
    assert Shard(1, 1).members(keys) == bytearray([1]) * 20_000


ARRAY = {"SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "8"}
SLURM = "SLURM_ARRAY_TASK_ID"
KUBERNETES = "JOB_COMPLETION_INDEX"
BATCH = "AWS_BATCH_JOB_ARRAY_INDEX"
BATCH_SIZE = "AWS_BATCH_JOB_ARRAY_SIZE"
FROM_ZERO = {"SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "7"}
BY_TENS = {
    "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_MAX": "40",
    "SLURM_ARRAY_TASK_STEP": "10",
}  # fmt: skip
SOME = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "5"}


@pytest.mark.parametrize(
    ("text", "environ", "shard"),
    [
        ("3/8", {}, "3/8"),
        ("3/8", {SLURM: "7"}, "3/8"),
        ("auto", ARRAY | {SLURM: "1"}, "1/8"),
        ("auto", ARRAY | {SLURM: "8"}, "8/8"),
        ("auto/8", ARRAY | {SLURM: "8"}, "8/8"),
        ("auto", FROM_ZERO | {SLURM: "0"}, "1/8"),
        ("auto", BY_TENS | {SLURM: "30"}, "3/4"),
        ("auto/8", SOME | {SLURM: "5"}, "5/8"),
        ("auto/8", {SLURM: "5"}, "5/8"),
        ("auto/8", {KUBERNETES: "0"}, "1/8"),
        ("auto/8", {KUBERNETES: "7"}, "8/8"),
        ("auto", {BATCH: "2", BATCH_SIZE: "4"}, "3/4"),
        ("auto/4", {BATCH: "2", BATCH_SIZE: "4"}, "3/4"),
        ("auto/8", {KUBERNETES: "4", SLURM: "5"}, "5/8"),
        ("auto/8", {KUBERNETES: "4", SLURM: ""}, "5/8"),
    ],
)
def test_an_array_of_jobs_says_which_shard_it_is(text: str, environ: dict[str, str], shard: str) -> None:
    assert str(shard_from(text, environ)) == shard


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ("0/8", {}, "expected a shard from 1/8 to 8/8, got 0/8"),
        ("9/8", {}, "expected a shard from 1/8 to 8/8, got 9/8"),
        ("1/0", {}, "at least 1 and at most 10000 shards, got 1/0"),
        ("1/10001", {}, "at most 10000 shards"),
        ("x", {}, "expected a shard such as 3/8, auto/8 or auto, got 'x'"),
        ("3", {}, "got '3'"),
        ("-1/8", {}, "got '-1/8'"),
        ("3 / 8", {}, "got '3 / 8'"),
        ("\u0663/8", {}, "such as 3/8"),
        ("auto", {}, "outside of an array of jobs"),
        ("auto/8", {}, "outside of an array of jobs"),
        ("auto", {SLURM: "x"}, "expected a whole number in SLURM_ARRAY_TASK_ID, got 'x'"),
        ("auto", {SLURM: "3"}, "expected a count as in auto/8, for SLURM_ARRAY_TASK_COUNT is not set"),
        ("auto", SOME | {SLURM: "3"}, "the array leaves numbers out"),
        ("auto/8", FROM_ZERO | {SLURM: "9"}, "from 1/8 to 8/8, got SLURM_ARRAY_TASK_ID=9"),
        ("auto/4", ARRAY | {SLURM: "5"}, "from 1/4 to 4/4"),
        ("auto", BY_TENS | {SLURM: "31"}, "expected a task of 10 and every 10 from there"),
        ("auto", {KUBERNETES: "0"}, "expected a count as in auto/8 (the job's completions)"),
        ("auto/8", {KUBERNETES: "8"}, "got JOB_COMPLETION_INDEX=8, which counts from 0"),
        ("auto", {BATCH: "0"}, "AWS_BATCH_JOB_ARRAY_SIZE is not set"),
        ("auto/8", {BATCH: "0", BATCH_SIZE: "4"}, "expected auto/4, for AWS_BATCH_JOB_ARRAY_SIZE is 4, got auto/8"),
        ("auto/8", {KUBERNETES: "0", SLURM: "2"}, "SLURM_ARRAY_TASK_ID says 2/8 but JOB_COMPLETION_INDEX says 1/8"),
    ],
)
def test_what_is_no_shard_is_said_in_one_sentence(text: str, environ: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=r"^expected ") as caught:
        shard_from(text, environ)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("command", [["run"], ["run", "--dry-run"], ["plan"]])
def test_a_wrong_shard_ends_with_2_before_anything_is_sent(
    listed: Callable[..., str], server: ScriptedServer, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    config = listed("a")
    assert main([command[0], config, *command[1:], "--shard", "9/8"]) == 2
    assert "the command line: shard: expected a shard from 1/8 to 8/8, got 9/8" in capsys.readouterr().err
    assert not server.received


def test_the_config_that_is_kept_says_which_shard_it_was(
    listed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KUBERNETES, "1")
    config = load_config(listed("a", shard="auto/3"))
    assert config.shard == Shard(2, 3)
    assert yaml.safe_load(config.resolved_yaml())["shard"] == "2/3"
    assert yaml.safe_load(load_config(listed("a")).resolved_yaml())["shard"] is None


@pytest.mark.parametrize("name", ["3-of-2", "0-of-2", "1-of-99999", "a-of-b", "1-of-2x", "01-of-2", "gate", ""])
def test_a_folder_of_another_name_is_no_shards(name: str) -> None:
    assert shard_in(name) is None


# Whole runs.


@pytest.fixture
def three(servers: Servers) -> list[ScriptedServer]:
    """A server for each of three shards."""
    return servers(3)


def run_all(three: list[ScriptedServer], here: Path, of: int = 3, **options: Any) -> list[Summary]:
    """Run all shards side by side."""
    done: dict[int, Summary] = {}
    configs = {
        number: config_for(three[number % len(three)], here, f"{number}/{of}", host=three[0], **options)
        for number in range(1, of + 1)
    }

    def one(number: int) -> None:
        done[number] = run(configs[number])

    threads = [threading.Thread(target=one, args=[number]) for number in configs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [done[number] for number in sorted(done)]


def asked(three: list[ScriptedServer]) -> list[str]:
    return sorted(one.stem for server in three for one in server.received)


def test_shards_side_by_side_do_each_prompt_once_and_the_folder_is_told_of_as_one(
    start: Callable[..., subprocess.Popen[str]],
    three: list[ScriptedServer],
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "prompts.txt").write_text("".join(f"{three[0].image(key)}\n" for key in KEYS))
    started = [
        start("generate", "--prompts-file", "prompts.txt", "--endpoint", server.url, "--shard", f"{number}/3")
        for number, server in enumerate(three, 1)
    ]
    for number, process in enumerate(started, 1):
        out, err = process.communicate(timeout=30)
        own = len(OF_THREE[number])
        assert process.returncode == 0, err
        assert err.splitlines()[:2] == [
            f"Shard {number} of 3: {own} of 30 prompts",
            f"Found {own} prompts to process",
        ]
        assert json.loads(out)["total"] == json.loads(out)["saved"] == own
    assert asked(three) == sorted(KEYS)
    for number, server in enumerate(three, 1):
        assert sorted(one.stem for one in server.received) == sorted(OF_THREE[number])
    assert results_of(here / "results") == {f"{key}.ply": splat_ply() for key in KEYS}
    states = states_of(here / "results")
    assert [one.name for one in states] == [".runner", "1-of-3", "2-of-3", "3-of-3"]
    assert not (states[0] / "ledger.jsonl").exists()
    assert all((state / "lock").read_text() == "" for state in states)
    found = said_by(capsys, "status", "results")
    assert (found["code"], found["saved"], found["unknown"], found["last_run"]["ended"]) == (0, 30, 0, "done")
    assert [(one["shard"], one["total"], one["saved"]) for one in found["shards"]] == [
        (f"{number}/3", len(OF_THREE[number]), len(OF_THREE[number])) for number in (1, 2, 3)
    ]
    told = said_by(capsys, "report", "results")
    assert told["success"] is True and told["total"] == told["saved"] == 30
    assert told["run"]["ended"] == "done" and told["run"]["total"] == told["run"]["saved"] == 30
    assert told["run"]["began_at"] == min(one["last_run"]["began_at"] for one in found["shards"])
    assert sorted(turn["saved"] for turn in told["run"]["turns"]) == sorted(map(len, OF_THREE.values()))
    assert told["run_before"] is None and "the run is that of 3 of 3 shards, told of as one" in told["notes"]
    assert said_by(capsys, "verify", "results")["whole"] == 30
    assert said_by(capsys, "prune", "results")["count"] == 0


def test_another_number_of_shards_and_none_go_on_where_the_others_ended(
    three: list[ScriptedServer], tmp_path: Path
) -> None:
    assert counts(run(config_for(three[0], tmp_path, "1/3"))) == (len(OF_THREE[1]), len(OF_THREE[1]), 0, 0, 0)
    summaries = run_all(three, tmp_path, 4)
    assert sum(one.total for one in summaries) == 30
    assert sum(one.skipped for one in summaries) == len(OF_THREE[1])
    assert counts(run(config_for(three[0], tmp_path))) == (30, 0, 30, 0, 0)
    assert [one.saved for one in run_all(three, tmp_path, 3)] == [0, 0, 0]
    assert asked(three) == sorted(KEYS), "nothing was done twice"


def test_what_a_run_of_the_whole_list_left_its_shards_finish(three: list[ScriptedServer], tmp_path: Path) -> None:
    for key in KEYS[20:]:
        three[0].script[key] = [Answer(status=400, body=b"no")]
    whole = run(config_for(three[0], tmp_path))
    assert (whole.saved, whole.failed) == (20, 10)
    summaries = run_all(three, tmp_path, 3)
    assert (sum(one.saved for one in summaries), sum(one.skipped for one in summaries)) == (10, 20)
    assert len(results_of(tmp_path / "results")) == 30


def test_the_latest_word_on_a_key_counts_whichever_ledger_has_it(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, shard in ((1, "1/1"), (2, None), (3, "1/1"), (4, "1/2"), (4, "2/2")):
        assert run(config_for(server, tmp_path, shard, KEYS[:6], seed=seed), overwrite=True).success
    assert counts(run(config_for(server, tmp_path, None, KEYS[:6], seed=4))) == (6, 0, 6, 0, 0)
    assert len(server.received) == 4 * 6
    with pytest.raises(UsageError, match="seed 4, not 3"):
        run(config_for(server, tmp_path, "1/1", KEYS[:6], seed=3))
    found = said_by(capsys, "verify", str(tmp_path / "results"))
    assert (found["code"], found["whole"], found["files"]) == (0, 6, 6)


def test_an_edited_list_leaves_every_prompt_in_its_shard(three: list[ScriptedServer], tmp_path: Path) -> None:
    run_all(three, tmp_path)
    before = [{*()} for _ in three]
    for number, server in enumerate(three):
        before[number] = {one.stem for one in server.received}
    edited = ["new-1", *reversed(KEYS[5:]), "new-2", "new-3"]
    summaries = run_all(three, tmp_path, keys=edited)
    assert sum(one.total for one in summaries) == len(edited)
    assert sorted({*asked(three)} - {*KEYS}) == ["new-1", "new-2", "new-3"]
    assert len(asked(three)) == 33


def test_one_shards_run_is_refused_only_for_its_own_prompts(server: ScriptedServer, tmp_path: Path) -> None:
    run(config_for(server, tmp_path, "1/3", seed=1))
    assert run(config_for(server, tmp_path, "2/3", seed=2)).success
    with pytest.raises(UsageError, match="made with seed 1, not 2"):
        run(config_for(server, tmp_path, "1/3", seed=2))


def test_a_shard_without_prompts_is_a_success(server: ScriptedServer, tmp_path: Path) -> None:
    empty = next(number for number in range(1, 101) if number != number_of(b"p0", 100))
    summary = run(config_for(server, tmp_path, f"{empty}/100", ["p0"]))
    assert counts(summary) == (0, 0, 0, 0, 0) and summary.success and not server.received


def test_two_prompts_of_one_name_stop_every_shard(server: ScriptedServer, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        with pytest.raises(UsageError, match="its result would have the name"):
            run(config_for(server, tmp_path, f"{number}/3", ["p0", "p1", "p0"]))


def test_a_plan_shows_the_prompts_of_the_shard_with_their_endpoints_by_the_whole_list(
    listed: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = listed(*KEYS, endpoints=["http://one:1", "http://two:2"])
    assert main(["plan", config, "--shard", "2/3", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["key"] for row in rows] == OF_THREE[2]
    assert all(row["endpoint"] == ("one:1", "two:2")[row["index"] % 2] for row in rows)
    assert main(["run", config, "--dry-run", "--shard", "2/3"]) == 0
    assert f"shard 2 of 3: {len(rows)} prompts: 0 saved, {len(rows)} pending" in capsys.readouterr().out


def test_what_a_shards_worker_has_on_its_way_is_in_its_own_folder_in_another_process_too(tmp_path: Path) -> None:
    config = config_from({"endpoints": ["http://one:1"], "prompts": ["-"]})
    folder = OutputFolder(tmp_path, shard=Shard(1, 3))
    folder.prepare()
    settings = config.settings
    bench = Workbench(
        config.endpoints, config.timeouts, settings.output, 42, config.protocol, tmp_path, shard=Shard(1, 3)
    )
    bench = pickle.loads(pickle.dumps(bench))
    task = Task(Prompt(0, "p0", "https://h/p0.png"))
    with bench.open(config.endpoints) as worker:
        temp = worker._tools.folder.temp("p0", task.mark)
    assert Path(temp.path).parent == folder.state and temp.part("p0.ply").target == str(tmp_path / "p0.ply")
    bench.clean([task])
    assert not os.path.exists(temp.path)


# Who may be at work in a folder together.


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Callable[[str | None], None]]:
    """Holds what a run of a shard, or of the whole list, does."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def hold(text: str | None) -> None:
            folder = OutputFolder(tmp_path / "results", shard=shard_from(text, {}) if text else None)
            folder.prepare()
            stack.enter_context(locked_for(folder))

        yield hold


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("1/3", "1/3", r"^shard 1/3 of .*results is held by another run \(pid "),
        ("1/3", None, r"^.*results is held by another run \(shards of 3: 1/3 by pid "),
        (None, "1/3", r"^.*results is held by another run \(pid "),
        ("3/8", "2/4", r"held by another run \(shards of 8: 3/8 by pid .*; shards of 4 can't be at work beside them"),
    ],
)
def test_a_run_that_may_not_be_beside_another_is_told_by_whom_the_folder_is_held(
    held: Callable[[str | None], None], server: ScriptedServer, tmp_path: Path, first: str, second: str, said: str
) -> None:
    held(first)
    with pytest.raises(LockedError, match=said) as caught:
        run(config_for(server, tmp_path, second))
    assert caught.value.exit_code == 75 and not server.received
    if first:
        held({"1/3": "2/3", "3/8": "8/8"}[first])
        with pytest.raises(LockedError, match="and others"), locked(tmp_path / "results" / ".runner" / "lock"):
            pass


def test_a_folder_is_free_once_the_last_of_its_shards_has_ended(tmp_path: Path) -> None:
    one, two, other = (OutputFolder(tmp_path, shard=shard_from(text, {})) for text in ("1/2", "2/2", "1/3"))
    for folder in (one, two, other):
        folder.prepare()
    with locked_for(one):
        with locked_for(two):
            pass
        with pytest.raises(LockedError), locked_for(other):
            pass
        with locked_for(two):
            pass
    assert (tmp_path / ".runner" / "lock").read_text() == ""
    with locked_for(other), pytest.raises(LockedError), locked_for(one):
        pass
    with locked_for(OutputFolder(tmp_path)):
        pass


def test_what_shards_that_were_killed_left_in_their_locks_holds_nobody_up(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, shard=Shard(1, 2))
    folder.prepare()
    (tmp_path / ".runner" / "lock").write_text("shards of 8: 3/8 by pid 1 on elsewhere\n")
    (folder.state / "lock").write_text("pid 1 on elsewhere\n")
    with locked_for(folder):
        assert (tmp_path / ".runner" / "lock").read_text().startswith("shards of 2: 1/2 by pid ")


# What is on its way.

OF_TWO_COUNTS = ("1-of-3", "2-of-3", "2-of-4")


def test_a_shards_run_that_begins_takes_no_temp_file_of_another_and_one_of_the_whole_list_all(
    server: ScriptedServer, tmp_path: Path
) -> None:
    one, two, old = (OutputFolder(tmp_path / "results", shard=shard_in(name)) for name in OF_TWO_COUNTS)
    for folder in (one, two, old):
        folder.prepare()
    mine, dead, older = two.temp("p0"), one.temp("p1"), old.temp("p2")
    beside = tmp_path / "results" / ".report.html.01234567.part"
    beside.write_text("of somebody who writes a report")
    assert run(config_for(server, tmp_path, "1/3")).success
    assert [os.path.exists(each.path) for each in (mine, dead, older)] == [True, False, False] and beside.exists()
    assert run(config_for(server, tmp_path)).success
    assert not os.path.exists(mine.path) and not beside.exists()


def test_prune_takes_what_dead_shards_left_and_nothing_while_one_is_at_work(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config_for(server, tmp_path, "1/3"))
    run(config_for(server, tmp_path, "2/3"))
    results = str(tmp_path / "results")
    two = OutputFolder(tmp_path / "results", shard=Shard(2, 3))
    temp = Path(two.temp("p0").path)
    found = said_by(capsys, "prune", results)
    assert [(one["name"], one["kind"]) for one in found["files"]] == [
        (f".runner/shards/2-of-3/{temp.name}", "temp")
    ], "results of other shards are nobody's strays"
    with locked_for(two):
        (two.state / "lock").write_text(f"pid {os.getppid()} on {os.uname().nodename}\n")
        assert said_by(capsys, "prune", results)["running"] is True
        assert main(["prune", results, "--yes"]) == 75
        assert main(["verify", results, "--discard"]) == 75
    capsys.readouterr()
    assert said_by(capsys, "prune", results, "--yes")["removed"] == 1 and not temp.exists()
    assert len(results_of(tmp_path / "results")) == len(OF_THREE[1]) + len(OF_THREE[2])


# A shard that is killed.


def test_a_killed_shard_makes_the_whole_killed_and_the_same_command_goes_on(
    start: Callable[..., subprocess.Popen[str]],
    three: list[ScriptedServer],
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stuck = OF_THREE[2][3]
    hold = threading.Event()
    three[1].script[stuck] = [Answer(hold=hold)]
    for number in (1, 3):
        assert run(config_for(three[number - 1], here, f"{number}/3", host=three[0])).success

    def begin() -> subprocess.Popen[str]:
        flags = ["--set", f"endpoints=[{{url: '{three[1].url}', name: gpu-2}}]", "--shard", "2/3"]
        return start("generate", "--prompts-file", "prompts.txt", "--endpoint", three[1].url, *flags)

    started = begin()
    state = OutputFolder(here / "results", shard=Shard(2, 3)).state
    until = time.monotonic() + 60
    while not (
        three[1].asked(stuck)
        and (state / "progress.json").exists()
        and _lines_in(state) == len(three[1].received) - 1  # two hands may have changed their order
    ):
        assert started.poll() is None and time.monotonic() < until, "it never came to what is held"
        time.sleep(0.02)
    found = said_by(capsys, "status", "results")
    assert found["last_run"]["ended"] is None and found["running"]["total"] == len(OF_THREE[2])
    assert [one["last_run"]["ended"] for one in found["shards"]] == ["done", None, "done"]
    assert main(["status", "results"]) == 1
    assert f"2/3        {found['shards'][1]['saved']}" in capsys.readouterr().out
    started.send_signal(signal.SIGKILL)
    started.wait(20)
    hold.set()
    left = found["missing"]
    assert left > 0
    told = said_by(capsys, "report", "results")
    assert told["run"]["ended"] == "killed" and told["success"] is False
    assert (told["run"]["total"], told["run"]["pending"]) == (30, left)
    assert "shard 2/3 left no summary (killed?)" in told["notes"] and told["last_run"]["ended"] == "killed"
    main(["status", "results"])
    assert "left no summary (killed?)" in capsys.readouterr().out.splitlines()[1]
    assert main(["status", "results", "--missing-file", "todo.txt"]) == 1
    assert len((here / "todo.txt").read_text().splitlines()) == left
    again = run(config_for(three[1], here, "2/3", host=three[0]))
    assert again.saved == left and again.success
    told = said_by(capsys, "report", "results")
    assert (told["standing"]["saved"], told["run"]["ended"], told["run"]["saved"]) == (30, "done", left)
    assert said_by(capsys, "status", "results")["code"] == 0
    assert asked(three) == sorted([*KEYS, stuck]), "only what was in flight is asked for again"


FOUR = {number: [key for key in KEYS if number_of(key.encode(), 4) == number] for number in (1, 2, 3, 4)}


def run_four(three: list[ScriptedServer], here: Path, *numbers: int, stop: Stop | None = None) -> None:
    """Run these of four shards, one after another, as if somebody had typed it."""
    for number in numbers:
        config = config_for(three[0], here, f"{number}/4")
        run(config, command=f"runner run run.yaml --shard {number}/4", stop=stop)


def test_the_report_offers_the_command_of_a_shard_that_has_something_left_and_names_all_of_these(
    three: list[ScriptedServer], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three[0].script[FOUR[4][0]] = [Answer(400)]
    run_four(three, here, 1)
    stop = Stop()
    stop.ask("SIGTERM")
    run_four(three, here, 2, stop=stop)
    run_four(three, here, 3, stop=stop)
    state = OutputFolder(here / "results", shard=Shard(3, 4)).state
    (state / "summary.json").unlink()
    trail = (state / "runs.jsonl").read_text().splitlines(keepends=True)
    (state / "runs.jsonl").write_text("".join(line for line in trail if '"ended"' not in line))  # as if killed
    run_four(three, here, 4)
    for list_is_there in (True, False):
        if not list_is_there:
            (here / "prompts.txt").rename(here / "gone.txt")
        capsys.readouterr()
        assert main(["report", "results", "--format", "text"]) == 0
        offered = "just these again, for shards 2, 3 and 4 of 4: runner run run.yaml --shard 2/4\n"
        assert offered in capsys.readouterr().out
    assert main(["report", "results"]) == 0
    page = (here / "results" / "report.html").read_text()
    assert "and whatever is pending, for shards 2, 3 and 4 of 4:" in page and "--shard 1/4" not in page
    (here / "gone.txt").rename(here / "prompts.txt")
    run_four(three, here, 2)
    run_four(three, here, 3)
    told = said_by(capsys, "report", "results")["run"]
    assert (told["shards"], told["left"], told["command"]) == (4, [4], "runner run run.yaml --shard 4/4")


def test_the_summary_in_json_is_that_of_the_round_that_is_told_of_whatever_found_nothing_to_do_since(
    three: list[ScriptedServer], here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = FOUR[3][0], FOUR[4][0]
    three[0].script |= {key: [Answer(400)] for key in broken}
    run_four(three, here, 1, 2, 3, 4)
    before = said_by(capsys, "report", "results")
    assert (before["success"], before["exit_code"], before["total"], before["failed"]) == (False, 1, 30, 2)
    run_four(three, here, 2)
    told = said_by(capsys, "report", "results")
    for name in ("success", "exit_code", "total", "saved", "skipped", "failed", "pending", "standing"):
        assert told[name] == before[name], name
    assert told["run"]["name"] == before["run"]["name"] and (told["run"]["saved"], told["run"]["failed"]) == (28, 2)
    monkeypatch.setattr("runner.status.rounds._PAUSE_S", 0.0)  # as if it were the next night
    run_four(three, here, 4)
    told = said_by(capsys, "report", "results")
    assert (told["total"], told["saved"], told["failed"], told["standing"]["failed"]) == (len(FOUR[4]), 1, 0, 1)
    assert (told["success"], told["exit_code"]) == (False, 1), "the whole is none, though this shard is"
    assert told["error"] == "shard 3/4 has prompts without a result from before"
    run_four(three, here, 3)
    assert said_by(capsys, "report", "results")["success"] is True


def _lines_in(state: Path) -> int:
    return (state / "ledger.jsonl").read_bytes().count(b"\n")


# What somebody put there.


def test_whatever_lies_among_the_shards_is_nobodys(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config_for(server, tmp_path, "1/3"))
    run(config_for(server, tmp_path, "2/3"))
    shards = tmp_path / "results" / ".runner" / "shards"
    (shards / "3-of-3").write_text("a file where a folder should be")
    for name in ("lost+found", "9-of-3", "1-of-3.bak", "\n", "1-of-2"):
        (shards / name).mkdir()
    (shards / "lost+found" / "ledger.jsonl").write_text("{}\n")
    (shards / "1-of-2" / "runs.jsonl").write_text('{"run": "x", "what": "began"}\n[' + "[" * 50_000 + "\n")
    for name in ("summary.json", "progress.json", "config.yaml", "lists.jsonl"):
        (shards / "1-of-2" / name).write_bytes(b"\xff\x00{")
    results = str(tmp_path / "results")
    done = len(OF_THREE[1]) + len(OF_THREE[2])
    os.utime(shards / "1-of-2" / "config.yaml", (0, 0))
    assert said_by(capsys, "status", results)["saved"] == done
    assert said_by(capsys, "report", results)["standing"]["saved"] == done
    assert said_by(capsys, "verify", results)["whole"] == done
    assert said_by(capsys, "prune", results)["count"] == 0
    with pytest.raises(StorageError, match="can't be written: Not a directory"):
        run(config_for(server, tmp_path, "3/3"))
    assert counts(run(config_for(server, tmp_path))) == (30, 30 - done, done, 0, 0)


def test_a_file_in_place_of_all_shards_keeps_only_shards_from_running(server: ScriptedServer, tmp_path: Path) -> None:
    assert run(config_for(server, tmp_path, None, ["p0"])).success
    (tmp_path / "results" / ".runner" / "shards").write_text("mine")
    with pytest.raises(StorageError, match=r"can't be made: (Not a directory|File exists)"):
        run(config_for(server, tmp_path, "1/3"))
    assert counts(run(config_for(server, tmp_path, None, ["p0"]))) == (1, 0, 1, 0, 0)


@pytest.mark.parametrize("name", ["shards", "shards/1-of-3/ledger.jsonl"])
def test_shards_that_can_not_be_read_are_not_taken_for_none(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run(config_for(server, tmp_path, "1/3"))
    run(config_for(server, tmp_path, None, OF_THREE[1]))
    file = tmp_path / "results" / ".runner" / name
    file.rename(tmp_path / "aside")
    file.symlink_to(file)  # a link to itself: root may read everything else
    for command in ("status", "verify", "prune"):
        assert main([command, str(tmp_path / "results")]) == 1
        assert "can't be read: Too many levels" in capsys.readouterr().err
    with pytest.raises(StorageError, match="can't be read"):
        run(config_for(server, tmp_path))
    assert len(server.received) == len(OF_THREE[1])


# The examples.

ARRAYS = REPOSITORY / "configs" / "arrays"


def slurm(
    here: Path, environment: dict[str, str], server: ScriptedServer, **extra: str
) -> tuple[subprocess.Popen[str], Path]:
    """Start the script as Slurm does, with a ``scontrol`` that only notes what it is asked for."""
    (here / "prompts.txt").write_text("".join(f"{server.image(key)}\n" for key in KEYS[:8]))
    (here / "runner.yaml").write_text("endpoints: [http://replaced:1]\nprompts: prompts.txt\n")
    (here / "bin").mkdir(exist_ok=True)
    asked_for = here / "asked"
    (here / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {asked_for}\n')
    (here / "bin" / "runner").write_text(f'#!/bin/sh\nexec {sys.executable} -m runner "$@"\n')
    for name in ("scontrol", "runner"):
        (here / "bin" / name).chmod(0o755)
    task = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "77", "SLURM_SUBMIT_DIR": str(here)}
    own = {"PATH": f"{here / 'bin'}:{os.environ['PATH']}", "ENDPOINTS": server.url, "SHARDS": "3"}
    environ = environment | task | own | {"SLURMD_NODENAME": "node-9"} | extra
    script = [str(ARRAYS / "slurm-array.sbatch")]
    process = subprocess.Popen(
        script, env=environ, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process, asked_for


def test_the_slurm_script_does_the_share_of_its_task(
    here: Path, environment: dict[str, str], server: ScriptedServer
) -> None:
    process, asked_for = slurm(here, environment, server)
    out, err = process.communicate(timeout=30)
    own = [key for key in KEYS[:8] if number_of(key.encode(), 3) == 2]
    assert process.returncode == 0, err
    assert json.loads(out)["saved"] == len(own) and sorted(one.stem for one in server.received) == sorted(own)
    (line, *_) = (OutputFolder(here / "results", shard=Shard(2, 3)).state / "ledger.jsonl").read_text().splitlines()
    assert json.loads(line)["endpoint"] == f"node-9-{server.url.rpartition(':')[2]}"
    assert not asked_for.exists()


def test_the_slurm_script_passes_the_signal_on_and_asks_to_be_put_into_the_queue_again(
    here: Path, environment: dict[str, str], server: ScriptedServer
) -> None:
    hold = threading.Event()
    server.script |= {key: [Answer(hold=hold)] for key in KEYS}  # any may be the first to come
    process, asked_for = slurm(here, environment, server)
    server.wait_for(requests=1)
    process.terminate()
    log = OutputFolder(here / "results", shard=Shard(2, 3)).state / "run.log"
    await_in(log, "SIGTERM", process)
    hold.set()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert json.loads(out)["saved"] == 1 and asked_for.read_text() == "requeue 77_2\n"


def await_in(log: Path, text: str, process: subprocess.Popen[str]) -> None:
    """Wait until a log says this; fails if the process ends before, or a minute passes."""
    until = time.monotonic() + 60
    while text not in log.read_text():
        assert process.poll() is None, f"it ended with {process.returncode} before the log said {text}"
        assert time.monotonic() < until, f"after a minute the log does not say {text}: {log.read_text()}"
        time.sleep(0.02)


def test_a_signal_that_comes_while_the_servers_start_keeps_the_slurm_task_from_beginning(
    here: Path, environment: dict[str, str], server: ScriptedServer
) -> None:
    scripts = here / "scripts"
    scripts.mkdir()
    (scripts / "start_multi_port.sh").write_text("#!/bin/sh\nkill -TERM $PPID\n")
    (scripts / "stop_multi_port.sh").write_text(f"#!/bin/sh\necho stopped >> {here / 'servers'}\n")
    for one in scripts.iterdir():
        one.chmod(0o755)
    process, asked_for = slurm(here, environment, server, ENDPOINTS="", N="1")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert asked_for.read_text() == "requeue 77_2\n" and (here / "servers").read_text() == "stopped\n"
    assert not (here / "results").exists()


def documents() -> dict[str, Any]:
    """Return what the example for Kubernetes makes, by kind."""
    text = (ARRAYS / "kubernetes-indexed-job.yaml").read_text()
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def test_the_kubernetes_example_is_a_share_for_each_pod(
    here: Path, monkeypatch: pytest.MonkeyPatch, server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    found = documents()
    job = found["Job"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    program, *words = container["command"]
    arguments = build_parser().parse_args(words)
    assert program == "runner" and arguments.config == "/config/runner.yaml"
    (here / "runner.yaml").write_text(found["ConfigMap"]["data"]["runner.yaml"])
    monkeypatch.setenv(KUBERNETES, "7")
    config = load_config("runner.yaml")
    assert job["completionMode"] == "Indexed" and config.shard == Shard(8, job["completions"])
    assert config.endpoints[0].name == "gpu-7"
    assert config.grace_s + 30 <= pod["terminationGracePeriodSeconds"]
    mounts = {one["mountPath"] for one in container["volumeMounts"]}
    assert {"/config", os.path.dirname(config.prompts[0]), str(config.output_folder.parent)} == mounts
    rules = {(one["action"], *one["onExitCodes"]["values"]) for one in job["podFailurePolicy"]["rules"][:2]}
    assert rules == {("FailJob", 2), ("Ignore", 75, 143)} and pod["restartPolicy"] == "Never"
    (here / "prompts.txt").write_text("".join(f"{server.image(key)}\n" for key in KEYS))
    flags = ["--prompts-file", "prompts.txt", "--output-folder", "results", "--endpoint", server.url]
    assert main(["run", "runner.yaml", *words[2:], *flags]) == 0
    own = sum(number_of(key.encode(), 8) == 8 for key in KEYS)
    assert json.loads(capsys.readouterr().out)["saved"] == own == len(server.received)
