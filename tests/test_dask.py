"""Dask's workers: the same run, whoever dies, joins or is not there."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import QUICK, ledger_of, results_of
from dasks import Dasks, PatientServer
from server import Answer, ScriptedServer

Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.cluster


@pytest.fixture
def dasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dasks]:
    with Dasks(tmp_path_factory.mktemp("dask")) as one:
        yield one


@pytest.fixture
def patient() -> Iterator[Callable[..., list[PatientServer]]]:
    """Makes any number of patient servers."""
    with ExitStack() as stack:
        yield lambda count, **options: [stack.enter_context(PatientServer(**options)) for _ in range(count)]


@pytest.fixture
def written(here: Path) -> Callable[..., str]:
    """Writes a config for Dask and some prompts; returns its name."""

    def write(servers: Sequence[ScriptedServer], count: int, address: str | None, **options: Any) -> str:
        (here / "prompts.txt").write_text("".join(f"{servers[0].image(f'p{number}')}\n" for number in range(count)))
        pins = options.pop("pins", [None] * len(servers))
        endpoints = [
            {"url": one.url} | ({"worker": pin} if pin else {}) for one, pin in zip(servers, pins, strict=True)
        ]
        engine = {"kind": "dask", "address": address} | options.pop("engine", {})
        config = {"endpoints": endpoints, "prompts": "prompts.txt", "engine": engine}
        (here / "run.yaml").write_text(yaml.safe_dump(config | QUICK | options))
        return "run.yaml"

    return write


def said(process: subprocess.Popen[str], word: str) -> str:
    assert process.stderr is not None
    while word not in (line := process.stderr.readline()):
        assert line, f"the run ended without a word of {word!r}"
    return line


def wait_for(servers: Sequence[ScriptedServer], requests: int) -> None:
    until = time.monotonic() + 30
    while sum(len(one.received) for one in servers) < requests:
        assert time.monotonic() < until, "requests never came"
        time.sleep(0.01)


def test_a_worker_and_the_coordinator_are_killed_and_every_result_is_there_once(
    dasks: Dasks, patient, written, start: Start, here: Path
) -> None:
    dasks.add("a", "b")
    dasks.add("c", nanny=True)
    twelve = patient(12, generation_s=0.15)
    process = start("run", written(twelve, 200, dasks.address))
    wait_for(twelve, 40)
    dasks.kill("a")
    assert re.search(
        r"Dask worker a is gone with \d+ prompts? in its hands; its endpoints go to [bc] \(2\), [bc] \(2\)",
        said(process, "Dask worker a is gone"),
    )
    wait_for(twelve, 100)
    process.kill()
    process.communicate()
    saved = len(results_of(here / "results"))
    assert 0 < saved < 200
    again = start("run", "run.yaml")
    out, err = again.communicate(timeout=60)
    answer = json.loads(out)
    assert (again.returncode, answer["saved"] + answer["skipped"]) == (0, 200), err
    assert answer["skipped"] == saved
    assert sorted(results_of(here / "results")) == sorted(f"p{number}.ply" for number in range(200))
    saved_lines = [line["key"] for line in ledger_of(here / "results") if line["outcome"] == "saved"]
    assert set(saved_lines) == {f"p{number}" for number in range(200)}
    assert len(saved_lines) <= 200 + 24, "what the coordinator had written down and not named yet"
    assert [one.most_at_once for one in twelve] == [1] * 12
    assert not list((here / "results").glob(".*.part")) and not list((here / "results/.runner").glob("sign*"))


def test_a_worker_that_joins_takes_its_share_and_nobody_is_asked_twice_at_a_time(
    dasks: Dasks, patient, written, start: Start
) -> None:
    dasks.add("a")
    six = patient(6, generation_s=0.1)
    process = start("run", written(six, 400, dasks.address))
    assert "Using 1 Dask worker: a (6 endpoints)" in said(process, "Using 1 Dask")
    wait_for(six, 12)
    dasks.add("b")
    assert "Dask worker b joined: 3 endpoints for it" in said(process, "joined")
    before = sum(len(one.received) for one in six)
    wait_for(six, before + 60)
    assert process.poll() is None
    dasks.close("a")
    assert "its endpoints go to b (3)" in said(process, "is gone")
    out, err = process.communicate(timeout=60)
    assert json.loads(out)["saved"] == 400, err
    assert [one.most_at_once for one in six] == [1] * 6
    assert "Traceback" not in dasks.log_of("b")
    assert dasks.processes["a"].wait(20) == 0, "nothing of the run holds it up"


def test_a_pinned_lane_is_with_its_worker_and_waits_for_it(dasks: Dasks, patient, written, start: Start) -> None:
    dasks.add("a", "b")
    four = patient(4, generation_s=0.1)
    process = start("run", written(four, 80, dasks.address, pins=["b", "b", "b", None]))
    assert re.search(
        r"a \(1 endpoint\).*b \(3 endpoints\)|b \(3 endpoints\).*a \(1 endpoint\)", said(process, "Using 2 Dask")
    )
    wait_for(four, 8)
    dasks.kill("b")
    assert "; 3 endpoints can't be asked before it is there again" in said(process, "is gone")
    asked = [len(one.received) for one in four[:3]]
    wait_for(four[3:], 20)
    assert [len(one.received) for one in four[:3]] == asked
    dasks.add("b")
    out, err = process.communicate(timeout=60)
    assert json.loads(out)["saved"] == 80, err
    assert [one.most_at_once for one in four] == [1] * 4


@pytest.mark.parametrize("assignment", ["modulo", "steal"])
def test_the_others_do_the_work_of_an_endpoint_whose_worker_is_not_there(
    dasks: Dasks, patient, written, start: Start, assignment: str
) -> None:
    dasks.add("a")
    four = patient(4, generation_s=0.1)
    name = written(four, 240, dasks.address, pins=[None, None, None, "typo"], assignment=assignment)
    process = start("run", name)
    assert "its Dask worker typo is not there; in use are a" in said(process, "is out")
    wait_for(four, 20)
    assert not four[3].received
    dasks.add("typo")
    out, err = process.communicate(timeout=60)
    answer = json.loads(out)
    assert (process.returncode, answer["saved"], answer["failed"]) == (0, 240, 0), err
    assert four[3].received, "its worker has joined"
    assert [one.most_at_once for one in four] == [1] * 4


def test_without_failover_who_is_pinned_to_nobody_waits_and_the_run_says_for_whom(
    dasks: Dasks, servers, written, runner
) -> None:
    dasks.add("a")
    two = servers(2)
    health = {"all_down_s": 0.5, "wait_ready_s": 0.5}
    done = runner("run", written(two, 6, dasks.address, pins=[None, "typo"], failover=False, health=health))
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["saved"], answer["pending"]) == (75, 3, 3), done.stderr
    assert re.search(r"No endpoint can be used \(.*: its Dask worker typo is not there; in use are a\)", done.stderr)


def test_that_all_workers_are_lost_ends_a_run_after_a_while(dasks: Dasks, patient, written, start: Start) -> None:
    dasks.add("a")
    two = patient(2, generation_s=0.2)
    process = start("run", written(two, 100, dasks.address, health={"all_down_s": 1}))
    wait_for(two, 4)
    dasks.kill("a")
    out, err = process.communicate(timeout=30)
    answer = json.loads(out)
    assert (process.returncode, answer["failed"]) == (75, 0), err
    assert answer["saved"] + answer["pending"] == 100
    assert "no other is there, so the run waits for one, up to 1 s" in err
    assert "Traceback" not in err and "distributed" not in err
    assert answer["error"].startswith("no Dask worker that could go on came within health.all_down_s (1 s)")


def test_a_worker_whose_disk_refuses_is_used_no_more_and_the_others_go_on(
    dasks: Dasks, patient, written, start: Start, here: Path
) -> None:
    (here / "results").mkdir()
    for name in "ab":
        (here / name).mkdir()
        (here / name / "results").symlink_to(here / "results")
        dasks.add(name, cwd=here / name)
    four = patient(4, generation_s=0.1)
    options: dict[str, Any] = {"output_folder": "/proc/self/cwd/results", "health": {"all_down_s": 0.5}}
    process = start("run", written(four, 60, dasks.address, **options))
    wait_for(four, 8)
    (here / "b/results").unlink()
    assert re.search(
        r"warning: Dask worker b can't go on with \d prompts? in its hands; its endpoints go to a \(2\); "
        r"start it anew once this is put right: /proc/self/cwd/results.* can't be ",
        said(process, "Dask worker b"),
    )
    out, err = process.communicate(timeout=60)
    answer = json.loads(out)
    assert (process.returncode, answer["saved"], answer["failed"]) == (0, 60, 0), err
    assert "Dask worker b" not in err and "rying" not in err, "it is said once, and no endpoint is blamed"
    assert [one.most_at_once for one in four] == [1] * 4
    lines = [line for line in ledger_of(here / "results") if line["outcome"] == "saved"]
    assert len(lines) == len(results_of(here / "results")) == 60
    assert {len(line["attempts"]) for line in lines} == {1}

    process = start("run", written(four, 90, dasks.address, **options))
    assert "Using 1 Dask worker: a (4 endpoints)" in said(process, "Dask worker")
    asked = sum(len(one.received) for one in four)
    wait_for(four, asked + 4)
    (here / "a/results").unlink()
    out, err = process.communicate(timeout=30)
    answer = json.loads(out)
    assert (process.returncode, answer["failed"]) == (75, 0), err
    assert re.search(
        r"^no Dask worker that could go on came within health.all_down_s \(0.5 s\): start workers, and run the same "
        r"command again\. Dask worker a can't go on: /proc/self/cwd/results.* can't be ",
        answer["error"],
    )


def test_that_the_scheduler_is_lost_ends_a_run_with_a_sentence(dasks: Dasks, patient, written, start: Start) -> None:
    dasks.add("a")
    two = patient(2, generation_s=0.2)
    process = start("run", written(two, 100, dasks.address))
    wait_for(two, 4)
    dasks.kill("scheduler")
    out, err = process.communicate(timeout=30)
    answer = json.loads(out)
    assert (process.returncode, answer["failed"]) == (1, 0), err
    assert answer["saved"] + answer["pending"] == 100
    assert f"Dask's scheduler at {dasks.address} is gone" in answer["error"]
    assert "Traceback" not in err and "distributed" not in err


def test_signals_mean_what_they_mean_to_one_process(dasks: Dasks, patient, written, start: Start, here: Path) -> None:
    dasks.add("a")
    two = patient(2, generation_s=0.4)
    process = start("run", written(two, 40, dasks.address))
    wait_for(two, 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    answer = json.loads(out)
    assert process.returncode == 130, err
    assert answer["saved"] == sum(len(one.received) for one in two) == len(results_of(here / "results"))
    assert answer["saved"] + answer["pending"] == 40 and answer["failed"] == 0
    hold = threading.Event()
    for one in two:
        one.usual = Answer(hold=hold)
    asked = sum(len(one.received) for one in two)
    process = start("run", "run.yaml")
    wait_for(two, asked + 1)
    process.send_signal(signal.SIGINT)
    said(process, "Stopping")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    hold.set()
    assert (process.returncode, json.loads(out)["saved"]) == (130, 0), err


def test_two_shards_of_a_folder_may_be_on_the_same_workers(
    dasks: Dasks, patient, written, start: Start, here: Path
) -> None:
    dasks.add("a")
    two = patient(2, generation_s=0.1)
    name = written(two, 40, dasks.address)
    shards = [start("run", name, "--shard", f"{number}/2") for number in (1, 2)]
    for process in shards:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0 and "is gone" not in err and "any more" not in err, err
    assert len(results_of(here / "results")) == 40


def test_what_a_worker_lacks_is_said_in_a_sentence(dasks: Dasks, servers, written, runner, here: Path) -> None:
    one = servers(1)
    done = runner("run", written(one, 2, dasks.address, engine={"wait_workers_s": 0.2}))
    assert (done.returncode, json.loads(done.stdout)["pending"]) == (75, 2)
    assert "has no worker, and none came within engine.wait_workers_s (0.2 s)" in json.loads(done.stdout)["error"]

    (here / "old/runner").mkdir(parents=True)
    (here / "old/runner/__init__.py").touch()
    (here / "old/runner/version.py").write_text("raise ModuleNotFoundError\n")
    dasks.add("bare", before=str(here / "old"))
    done = runner("run", "run.yaml")
    assert (done.returncode, json.loads(done.stdout)["saved"]) == (2, 0)
    assert re.search(r"Dask worker 127\.0\.0\.1:\d+: runner is not installed there", json.loads(done.stdout)["error"])
    dasks.kill("bare")

    (here / "old/runner/version.py").write_text("__version__ = '0.0.9'\n")
    dasks.add("old", before=str(here / "old"))
    done = runner("run", "run.yaml")
    assert done.returncode == 2
    assert re.search(r": expected runner \S+, as here, got 0\.0\.9", json.loads(done.stdout)["error"])

    (here / "elsewhere").mkdir()
    dasks.add("far", cwd=here / "elsewhere")
    done = runner("run", written(one, 2, dasks.address, output_folder="/proc/self/cwd/results"))
    assert done.returncode == 2
    assert (
        "Dask worker far: the output folder /proc/self/cwd/results is not there: share it"
        in json.loads(done.stdout)["error"]
    )
    assert not one[0].received

    dasks.add("good")
    done = runner("run", "run.yaml")
    assert (done.returncode, json.loads(done.stdout)["saved"]) == (2, 0), "good does not see it either"
    done = runner("run", written(one, 2, dasks.address))
    assert (done.returncode, json.loads(done.stdout)["saved"]) == (0, 2), done.stderr
    assert "Using 2 Dask workers: " in done.stderr
    assert re.search(r"warning: Dask worker .* got 0\.0\.9: .*; it is not used", done.stderr)


def test_that_nobody_answers_is_said_in_a_sentence(servers, written, start: Start, environment, free_port) -> None:
    name = written(servers(1), 2, f"tcp://127.0.0.1:{free_port}")
    process = start("run", name, env={**environment, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "300ms"})
    out, err = process.communicate(timeout=20)
    answer = json.loads(out)
    assert (process.returncode, answer["pending"]) == (75, 2), err
    assert f"no Dask scheduler answers at tcp://127.0.0.1:{free_port}" in answer["error"]
    assert "Traceback" not in err and "never awaited" not in err


def test_that_somebody_else_answers_is_said_in_a_sentence(servers, written, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    guest, _ = door.accept()
                    with guest:
                        guest.recv(10)
                        guest.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        address = f"tcp://127.0.0.1:{door.getsockname()[1]}"
        out, err = start("run", written(servers(1), 2, address)).communicate(timeout=20)
        door.shutdown(socket.SHUT_RDWR)
    assert f"no Dask scheduler answers at {address}" in json.loads(out)["error"], err
    assert "Traceback" not in err


def test_that_the_address_is_a_worker_s_is_said_in_a_sentence(dasks: Dasks, servers, written, runner) -> None:
    dasks.add("a")
    (address,) = re.findall(r"Start worker at:\s+(tcp://\S+)", dasks.log_of("a"))
    done = runner("run", written(servers(1), 2, address))
    assert (done.returncode, json.loads(done.stdout)["error"]) == (
        2,
        f"engine.address: a worker of Dask answers at {address}: expected the address of the scheduler, which the "
        "worker was started with. Nothing was sent.",
    )


@pytest.mark.parametrize(
    ("address", "words"), [(None, "none is in Dask's own config"), ("nonsense", "Dask can't use")]
)
def test_an_address_that_is_none_is_bad_usage(servers, written, runner, address: str | None, words: str) -> None:
    done = runner("run", written(servers(1), 2, address))
    assert (done.returncode, json.loads(done.stdout)["pending"]) == (2, 2)
    assert words in json.loads(done.stdout)["error"]


@pytest.fixture
def free_port() -> Iterator[int]:
    with ScriptedServer() as one:
        one.die()
        yield one.port


def test_a_run_without_dask_imports_none_of_it(listed, environment, here: Path) -> None:
    code = (
        f"import sys, runner; runner.run(runner.load_config({listed('a')!r}));"
        "print(sorted({'dask', 'distributed', 'asyncio'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=30)
    assert done.stdout == "[]\n", done.stderr


def test_the_address_may_stand_in_dask_s_own_config() -> None:
    from dask import config

    from runner.engine.cluster import address_of

    with config.set({"scheduler-address": "tcp://theirs:1"}):
        assert (address_of(None), address_of("tcp://ours:2")) == ("tcp://theirs:1", "tcp://ours:2")
