"""Worker processes: the same run, whatever dies."""

import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import QUICK, Nowhere, ledger_of, results_of
from server import FAULTS, Answer, ScriptedServer, busy, splat_ply
from test_threads import lane, outcome_of, schedule_of

from runner import run
from runner.config import config_from
from runner.engine import Processes, wire, work_through
from runner.engine.child import Child
from runner.engine.far import LOSSES_MAX
from runner.engine.work import Tell
from runner.errors import BusyError, ImageError, LockedError, RunnerError, StatusError, StorageError, UsageError
from runner.health import Health
from runner.protocols import preset
from runner.records import Endpoint, Outcome, Prompt, Saving, Task, Verdict
from runner.schedule import Lane, Rule
from runner.settings import Output, Timeouts
from runner.storage import OutputFolder
from runner.worker import Workbench

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def written(here: Path) -> Callable[..., str]:
    """Writes a config for two processes and some prompts; returns its name."""

    def write(servers: Sequence[ScriptedServer], names: str, **options: Any) -> str:
        (here / "prompts.txt").write_text("".join(f"{servers[0].image(name)}\n" for name in names))
        config = {"endpoints": [one.url for one in servers], "prompts": "prompts.txt", "processes": 2}
        (here / "run.yaml").write_text(yaml.safe_dump(config | QUICK | options))
        return "run.yaml"

    return write


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the ids of a run's worker processes."""
    listed = (file.read_text().split() for file in Path(f"/proc/{process.pid}/task").glob("*/children"))
    return sorted(int(one) for some in listed for one in some)


def said(process: subprocess.Popen[str], word: str) -> str:
    assert process.stderr is not None
    while word not in (line := process.stderr.readline()):
        assert line, f"the run ended without a word of {word!r}"
    return line


def test_prompts_lanes_ledger_and_log_are_those_of_one_process(servers, runner, written, here: Path) -> None:
    three = servers(3)
    for number in (1, 2):
        done = runner("run", written(three, "abcdefghi", processes=number, output_folder=f"r{number}"))
        assert done.returncode == 0, done.stderr
        assert ("Processes:" in done.stderr) == (number == 2)
    one, two = (sorted(ledger_of(here / f"r{number}"), key=lambda line: line["index"]) for number in (1, 2))
    told = ("key", "index", "prompt", "outcome", "endpoint", "fingerprint", "file", "size_bytes", "sha256")
    assert [[line[name] for name in told] for line in one] == [[line[name] for name in told] for line in two]
    assert results_of(here / "r1") == results_of(here / "r2")
    assert all(line["attempts"][0]["generate_s"] > 0 for line in two)


def test_every_fault_ends_as_in_one_process(servers, runner, written, here: Path) -> None:
    two = servers(2)
    names = "abcdefghijklmn"
    for name, fault in zip(names, [*FAULTS.values()][:6], strict=False):
        for one in two:
            one.script[name] = [fault]
    for one in two:
        one.script["m"] = [busy(seconds=0)]
        one.script["n"] = [Answer(status=422, body=b"bad image")] * 2
    done = runner("run", written(two, names, health={"failures_to_open": 50}))
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert (answer["saved"], answer["failed"]) == (13, 1)
    (failed,) = [line for line in ledger_of(here / "results") if line["outcome"] == "failed"]
    assert (failed["key"], failed["blame"]) == ("n", "prompt")
    assert "422: bad image" in failed["error"]


def test_a_worker_process_that_is_killed_loses_nothing_and_is_replaced(
    servers, written, start: Start, here: Path
) -> None:
    two = servers(2)
    hold = threading.Event()
    for one in two:
        one.usual = Answer(hold=hold)
    process = start("run", written(two, "abcdefgh"))
    for one in two:
        one.wait_for(requests=1)
    first, second = workers_of(process)
    os.kill(first, signal.SIGKILL)
    line = said(process, "died")
    assert "Worker process 1 died (killed by SIGKILL) with " in line
    assert re.search(r"with (1 prompt|2 prompts) in its hands; a new one takes its 1 endpoint\n", line)
    for one in two:
        one.usual = Answer()
    hold.set()
    out, err = process.communicate(timeout=20)
    answer = json.loads(out)
    assert (process.returncode, answer["saved"]) == (0, 8), err
    lines = ledger_of(here / "results")
    assert sorted(line["key"] for line in lines) == list("abcdefgh")
    assert {line["endpoint"] for line in lines if line["index"] % 2 == 0} == {f"127.0.0.1:{two[0].port}"}
    assert [len(line["attempts"]) for line in lines] == [1] * 8, "no attempt is charged"
    assert not list((here / "results").glob(".*.part"))
    for pid in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_what_a_killed_worker_process_had_received_half_is_removed(
    servers, written, start: Start, here: Path
) -> None:
    two = servers(2)
    hold = threading.Event()
    two[0].script["a"] = [Answer(hold_body=hold, body=splat_ply(1000))]
    two[0].script["c"] = [Answer(hold=hold)]
    process = start("run", written(two, "abcd"))
    while not list((here / "results").glob(".a.*.part")):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    said(process, "died")
    assert not list((here / "results").glob(".a.*.part"))
    hold.set()
    out, err = process.communicate(timeout=20)
    assert json.loads(out)["saved"] == 4, err


def test_a_prompt_that_kills_every_worker_process_is_given_up_and_no_other(
    servers, written, start: Start, here: Path
) -> None:
    two = servers(2)
    hold = threading.Event()
    two[0].script["a"] = [Answer(hold=hold)] * 9
    process = start("run", written(two, "ab"))
    for number in range(LOSSES_MAX):
        two[0].wait_for(requests=number + 1)
        os.kill(workers_of(process)[0 if number == 0 else -1], signal.SIGKILL)
        said(process, "died")
    out, err = process.communicate(timeout=20)
    hold.set()
    assert (process.returncode, json.loads(out)["saved"]) == (1, 1), err
    (failed,) = [line for line in ledger_of(here / "results") if line["outcome"] == "failed"]
    assert failed["key"] == "a"
    assert failed["error"] == f"{LOSSES_MAX} worker processes died while they worked on it"


@pytest.mark.parametrize("to_all", [True, False], ids=["to the group, as by Ctrl-C", "to the run"])
def test_signals_mean_what_they_mean_to_one_process(servers, written, start: Start, here: Path, to_all: bool) -> None:
    two = servers(2, generation_s=0.4)
    process = start("run", written(two, "abcdefghijkl"), start_new_session=True)
    for one in two:
        one.wait_for(requests=1)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    answer = json.loads(out)
    assert process.returncode == 130, err
    assert answer["saved"] == sum(len(one.received) for one in two) == len(results_of(here / "results"))
    assert answer["saved"] + answer["pending"] == 12 and answer["failed"] == 0
    assert "Traceback" not in err


def test_a_second_signal_ends_it_at_once(servers, written, start: Start) -> None:
    two = servers(2)
    hold = threading.Event()
    for one in two:
        one.usual = Answer(hold=hold)
    process = start("run", written(two, "abcd"))
    two[0].wait_for(requests=1)
    process.send_signal(signal.SIGINT)
    said(process, "Stopping")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    hold.set()
    assert (process.returncode, json.loads(out)["pending"]) == (130, 4)


def test_worker_processes_end_when_the_run_is_killed(servers, written, start: Start) -> None:
    two = servers(2)
    hold = threading.Event()
    for one in two:
        one.usual = Answer(hold=hold)
    process = start("run", written(two, "abcd"))
    two[0].wait_for(requests=1)
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()
    process.wait()
    until = time.monotonic() + 5
    while any(Path(f"/proc/{pid}/cmdline").exists() and alive(pid) for pid in workers):
        assert time.monotonic() < until, "they live on"
        time.sleep(0.01)
    hold.set()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_script_without_a_main_guard_may_use_them(
    servers, written, here: Path, environment: dict[str, str]
) -> None:
    two = servers(2)
    (here / "script.py").write_text(
        f"import runner\nprint('once')\nprint(runner.run(runner.load_config({written(two, 'abcd')!r})).saved)\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=here, env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "once\n4\n", done.stderr


def test_more_processes_than_endpoints_are_as_many_as_endpoints(servers, runner, written) -> None:
    done = runner("run", written(servers(2), "ab", processes=50))
    assert "shared out over 2 worker processes" in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        BusyError("full", wait_s=3), ImageError("gone", again=True, status=404), LockedError("held"),
        StorageError("full"), StatusError("500", again=True, blame="endpoint", status=500), UsageError("one", "two"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_an_error_is_the_same_in_another_process(error: RunnerError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def unreadable() -> None:
    raise ValueError("nobody can read this")


class Unreadable(Nowhere):
    """A result that another process can't read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return unreadable, ()


def not_again(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


class Tools:
    """A bench whose work fails as its prompt's key says."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing

    @contextmanager
    def open(self, endpoints: Sequence[Endpoint], _: object = None) -> Iterator["Tools"]:
        if self.failing == "open":
            raise SystemExit(7)
        if self.failing == "submit":
            threading.Thread.start = not_again  # type: ignore[method-assign]
        yield self

    def __call__(self, load: Sequence[Task], where: Lane, tell: Tell) -> list[Verdict]:
        return [self.one(task, where) for task in load]

    def one(self, task: Task, where: Lane) -> Verdict:
        if self.failing == "killer":
            time.sleep(0.05 if task.prompt.index == 0 else 0.4)  # so that the others are in hand when it dies
            if task.prompt.index == 0:
                os._exit(9)
        if self.failing == "disk":
            raise StorageError("the disk is full")
        if self.failing == "bug":
            raise ZeroDivisionError("a bug")
        with where.gate:
            return Saving(outcome_of(task, where), Unreadable() if self.failing == "answer" else Nowhere())

    def interrupted(self, task: Task, where: Lane) -> Outcome:
        return outcome_of(task, where, kind="interrupted")

    def lost(self, task: Task, where: Lane, error: str) -> Outcome:
        return outcome_of(task, where, kind="failed")

    def clean(self, tasks: Sequence[Task]) -> None:
        pass

    def probe(self, endpoint: Endpoint) -> Health:
        if self.failing == "mute":
            threading.Event().wait(60)
        return Health(endpoint, True, "healthy", alive=True)

    def hurry(self) -> None:
        pass

    def abandon(self) -> None:
        pass


@pytest.mark.parametrize(
    ("failing", "kind", "words"),
    [
        ("disk", StorageError, "the disk is full"),
        ("bug", ZeroDivisionError, "a bug"),
        ("answer", ValueError, "nobody can read this"),
        ("submit", RuntimeError, "can't start new thread"),
        ("open", RunnerError, r"end as soon as they start \(exit code 1\)"),
    ],
)
def test_what_goes_wrong_in_a_worker_process_ends_the_run(failing: str, kind: type[Exception], words: str) -> None:
    schedule = schedule_of(lane(3, lanes=2), lane(3, index=1, lanes=2))
    with (
        Processes(schedule, 2, lambda: Tools(failing), died=lambda words: None) as work,
        pytest.raises(kind, match=words) as raised,
    ):
        list(work_through(schedule, work))
    for sender in [one for one in threading.enumerate() if one.name.startswith("orders to")]:
        sender.join(10)
        assert not sender.is_alive()
    if failing == "bug":
        assert "in __call__" in str(raised.value.__cause__), "the traceback there"


def test_a_generation_makes_one_trip_there_and_back() -> None:
    schedule = schedule_of(lane(50, slots=2, lanes=2), lane(50, index=1, lanes=2))
    with Processes(schedule, 2, Tools, died=lambda words: None) as work:
        events = [event for batch in work_through(schedule, work) for event in batch]
    assert sum(isinstance(event, Saving) for event in events) == 100


def test_a_run_from_python_may_have_its_processes_chosen(servers, here: Path) -> None:
    two = servers(2)
    (here / "prompts.txt").write_text(two[0].image("a") + "\n")
    config = {"endpoints": [one.url for one in two], "prompts": "prompts.txt", "processes": "auto"}
    assert run(config_from(config)).saved == 1


def failed_of(events: list[Any]) -> list[str]:
    return [event.key for event in events if isinstance(event, Outcome) and event.outcome == "failed"]


@pytest.mark.parametrize("hedge", [False, True])
def test_who_shared_the_worker_process_with_a_prompt_that_kills_is_not_given_up(hedge: bool) -> None:
    lanes = [lane(2, index=number, lanes=4) for number in range(4)]
    schedule = schedule_of(*lanes, hedge=hedge)
    words: list[str] = []
    with Processes(schedule, 2, lambda: Tools("killer"), died=words.append) as work:
        events = [event for batch in work_through(schedule, work) for event in batch]
    assert failed_of(events) == ["0-0"]
    assert len({event.outcome.key for event in events if isinstance(event, Saving)}) == 7
    assert LOSSES_MAX <= len(words) <= LOSSES_MAX + 1, "its double was with the other process, maybe"


def test_a_worker_process_that_dies_as_the_run_ends_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = schedule_of(lane(1, lanes=2), lane(0, index=1, lanes=2))
    begun, started = threading.Event(), subprocess.Popen
    with Processes(schedule, 2, Tools, died=lambda words: None) as work:
        list(work_through(schedule, work))
        dying = work._processes[1]

        def slow(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
            begun.set()
            until = time.monotonic() + 10
            while not dying._ending and time.monotonic() < until:
                time.sleep(0.001)
            return started(*arguments, **options)

        monkeypatch.setattr(subprocess, "Popen", slow)
        assert dying._process
        dying._process.kill()
        assert begun.wait(10)
    assert dying._process.returncode is not None, "the next one was ended too"


def test_one_that_stands_still_keeps_nobody_waiting_but_its_own_hands() -> None:
    schedule = schedule_of(lane(1, lanes=2), lane(1, index=1, lanes=2))
    with Processes(schedule, 2, Tools, died=lambda words: None) as work:
        process = work._processes[0]
        assert process._process
        os.kill(process._process.pid, signal.SIGSTOP)
        for _ in range(1000):
            process.seat.tell("x" * 10_000)


def test_word_of_a_failure_that_an_earlier_worker_process_told_is_passed_over() -> None:
    ours, theirs = multiprocessing.Pipe()
    child = Child(theirs.send, Tools(), [lane(1).endpoint])
    child.take(wire.Settled(5))
    child.take(wire.Obey(0, Rule(slots=7)))
    assert child._lanes[0].gate.rule.slots == 7
    ours.close()
    theirs.close()


@pytest.mark.parametrize(("room", "what"), [(subprocess, "Popen"), (multiprocessing, "Pipe")])
def test_that_none_can_be_started_is_no_bug(monkeypatch: pytest.MonkeyPatch, room: Any, what: str) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(room, what, refuse)
    schedule = schedule_of(lane(1))
    with (
        pytest.raises(RunnerError, match=r"no worker process can be started: .*unavailable"),
        Processes(schedule, 1, Tools, died=lambda words: None),
    ):
        pass


def test_what_stands_in_the_import_path_and_is_no_text_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/nowhere")])
    schedule = schedule_of(lane(1))
    with Processes(schedule, 1, Tools, died=lambda words: None) as work:
        events = [event for batch in work_through(schedule, work) for event in batch]
    assert sum(isinstance(event, Saving) for event in events) == 1


def test_only_the_unfinished_file_of_what_was_lost_is_removed(tmp_path: Path) -> None:
    bench = Workbench((), Timeouts(), Output(), 1, preset("404-splat"), tmp_path)
    folder = OutputFolder(tmp_path, bench.mark)
    lost, other = Task(Prompt(0, "a", "x")), Task(Prompt(0, "a", "x"))
    for task in (lost, other):
        folder.temp("a", task.mark).settled()
    bench.clean([lost, Task(Prompt(1, "never begun", "x"))])
    (left,) = tmp_path.iterdir()
    folder.clean("a", other.mark)
    assert not left.exists()


def test_a_question_that_is_open_when_a_run_ends_ends_too() -> None:
    schedule = schedule_of(lane(1))
    with Processes(schedule, 1, lambda: Tools("mute"), died=lambda words: None) as work:
        asking = threading.Thread(target=work.probe, args=[schedule.lanes[0].endpoint])
        asking.start()
        while not work._processes[0]._open:
            time.sleep(0.001)
    asking.join(10)
    assert not asking.is_alive()
