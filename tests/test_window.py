"""The time window: what can't end in time is not begun."""

import threading
from collections.abc import Iterator
from datetime import datetime
from math import inf
from typing import Any

import pytest
from conftest import Nowhere
from server import Answer, ScriptedServer
from test_run import config_for, names

from runner import run
from runner.batch import window_end
from runner.clock import seconds_until
from runner.config import load_config
from runner.errors import StatusError, UsageError
from runner.health import Health
from runner.lanes import deal
from runner.records import Attempt, Endpoint, Failed, Job, Outcome, Prompt, Saving, Task
from runner.schedule import Away, Lane, Schedule, Step
from runner.settings import Health as HealthSettings
from runner.settings import Retry, RunConfig
from runner.stop import Stop
from runner.yamlfile import assigned

LEAST: dict[str, Any] = {"endpoints": ["http://h:1"], "prompts": ["p.txt"]}


class Night:
    """A schedule with a window, and hands whose generations take as long as they are told."""

    def __init__(self, prompts: int, endpoints: int, ends_at: float, **options: Any) -> None:
        self.now = 0.0
        self.stop = Stop()
        self.lanes = [
            Lane(Endpoint(index, f"http://h:{index}", f"e{index}", f"port {index}"), backlog)
            for index, backlog in enumerate(deal(range(prompts), endpoints))
        ]
        listed = [Prompt(index, f"p{index}", "x") for index in range(prompts)]
        usual: dict[str, Any] = {"failover": True, "retry": Retry(), "health": HealthSettings()}
        self.schedule = Schedule(
            self.lanes, listed, self.stop, ends_at=ends_at, clock=lambda: self.now, **(usual | options)
        )
        self.schedule.to_start()
        for lane in self.lanes:
            self.schedule.probed(lane, Health(lane.endpoint, True, "healthy", alive=True))

    def step(self, lane: int) -> Any:
        with self.lanes[lane].work:
            return self.schedule.step(self.lanes[lane], self.now)

    def generate(self, lane: int, *, seconds: float, receive_s: float = 0.0) -> None:
        task = self.step(lane)
        assert isinstance(task, Task)
        self.now += seconds + receive_s
        attempt = Attempt(1, f"e{lane}", "", generate_s=seconds, receive_s=receive_s)
        prompt = task.prompt
        outcome = Outcome(prompt.key, prompt.index, "x", "saved", f"e{lane}", "f", 1, "p", attempts=(attempt,))
        self.schedule.settle(self.lanes[lane], [task], [Saving(outcome, Nowhere())])
        self.schedule.check()


def test_nothing_is_begun_that_by_the_median_so_far_can_not_end_in_time() -> None:
    night = Night(9, 1, ends_at=100)
    for seconds in (10, 30, 28):
        night.generate(0, seconds=seconds)
    assert night.now == 68
    night.now = 71.9
    task = night.step(0)
    assert isinstance(task, Task), "28 s, the median, fit"
    night.schedule.give_back(night.lanes[0], [task])
    night.now = 72
    assert night.step(0) == inf
    night.schedule.check()
    assert night.stop.reason == "window", "there is nothing left to wait for"


def test_what_a_result_takes_counts_to_its_last_byte() -> None:
    night = Night(9, 1, ends_at=100)
    night.generate(0, seconds=20, receive_s=30)
    night.now = 50
    assert night.step(0) == inf


def test_who_waits_at_the_gate_does_not_begin_too_late() -> None:
    night = Night(9, 1, ends_at=100)
    night.generate(0, seconds=30)
    gate = night.lanes[0].gate
    night.now = 69
    with gate:
        pass
    night.now = 70
    with pytest.raises(Away), gate:
        pass


def test_an_endpoint_that_has_made_nothing_goes_by_the_others() -> None:
    night = Night(9, 2, ends_at=100)
    night.generate(0, seconds=40)
    night.now = 59
    assert isinstance(night.step(1), Task)
    night.now = 61
    assert night.step(1) == inf


def test_before_anybody_has_made_anything_each_may_try_until_the_end() -> None:
    night = Night(9, 1, ends_at=100)
    night.now = 99
    assert isinstance(night.step(0), Task)
    night.now = 100
    night.schedule.check()
    assert night.stop.reason == "window"


def test_what_an_earlier_run_of_the_night_took_is_known() -> None:
    night = Night(9, 2, ends_at=100, usual_s={"e0": 60.0, "another": 1.0})
    night.schedule.check()
    night.now = 41
    assert night.step(0) == inf


def test_the_run_goes_on_while_a_quicker_endpoint_can() -> None:
    night = Night(10, 2, ends_at=100)
    night.generate(1, seconds=10)
    night.generate(0, seconds=50)
    night.now = 65
    night.schedule.check()
    assert not night.stop.asked
    assert night.step(0) == inf
    assert isinstance(night.step(1), Task)


def test_by_modulo_nobody_waits_for_an_end_that_nobody_needs() -> None:
    night = Night(3, 2, ends_at=100)
    night.generate(1, seconds=10)  # and with that it has done its share
    night.generate(0, seconds=50)
    night.now = 65
    night.schedule.check()
    assert night.stop.reason == "window"


def test_who_steals_may_take_what_a_slow_one_can_not_begin() -> None:
    night = Night(3, 2, ends_at=100, steal=True)
    night.generate(1, seconds=10)
    night.generate(0, seconds=50)
    night.now = 65
    night.schedule.check()
    assert not night.stop.asked
    assert isinstance(night.step(1), Task)


def test_what_is_in_flight_is_waited_for() -> None:
    night = Night(9, 1, ends_at=100)
    night.generate(0, seconds=40)
    task = night.step(0)
    night.now = 61
    night.schedule.check()
    assert not night.stop.asked, "it may end in time"
    error = StatusError("500", again=True, blame="endpoint", status=500)
    outcome = Outcome(task.prompt.key, task.prompt.index, "x", "failed", "e0", "f", 1, "p")
    task.attempts.append(Attempt(1, "e0", ""))
    night.schedule.settle(night.lanes[0], [task], [Failed(error, outcome)])
    night.now += 10
    assert night.step(0) == inf, "another attempt is a new beginning"
    night.schedule.check()
    assert night.stop.reason == "window"
    assert [waiting.prompt for _, waiting in night.schedule.leftovers()[0]] == [task.prompt]


def test_a_batch_takes_what_all_of_its_prompts_take() -> None:
    night = Night(9, 1, ends_at=100, load_size=4)
    night.generate(0, seconds=10)  # its share
    night.now = 59
    assert isinstance(night.step(0), Task)
    night.now = 61
    assert night.step(0) == inf


def test_there_is_no_window_unless_somebody_says_so() -> None:
    night = Night(9, 1, ends_at=inf)
    night.generate(0, seconds=1000)
    assert night.lanes[0].rule.closes_at == inf
    assert window_end(RunConfig(**LEAST)) == inf


@pytest.mark.parametrize(
    ("text", "now", "hours"),
    [
        ("06:30", datetime(2026, 3, 1, 22, 0), 8.5),
        ("6:30", datetime(2026, 3, 1, 6, 29, 59), 1 / 3600),
        ("06:30", datetime(2026, 3, 1, 6, 30), 24.0),
        ("23:59:30", datetime(2026, 12, 31, 23, 59), 30 / 3600),
    ],
)
def test_until_is_the_next_time_that_the_clock_on_the_wall_says_so(text: str, now: datetime, hours: float) -> None:
    assert seconds_until(text, now) == pytest.approx(hours * 3600)


def test_a_night_in_which_the_clocks_change_is_as_long_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert seconds_until("06:30", datetime(2026, 3, 28, 22, 0)) == 7.5 * 3600
        assert seconds_until("06:30", datetime(2026, 10, 24, 22, 0)) == 9.5 * 3600
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["06:30", "6:30", "22:30", "23:59:59", '"6:30"', "0:30"])
def test_a_time_of_day_that_yaml_took_for_a_number_is_one_all_the_same(text: str, here: Any) -> None:
    (here / "run.yaml").write_text(f"endpoints: http://h:1\nprompts: p.txt\nuntil: {text}\n")
    assert load_config(here / "run.yaml").settings.until == text.strip('"')
    assert assigned(f"until={text}") == {"until": text.strip('"')}


@pytest.mark.parametrize("given", ["24:00", "6.30", "06:60", "soon", 1440, 630, 7, True, ""])
def test_what_is_no_time_of_day_is_refused(given: Any, here: Any) -> None:
    from runner.config import config_from

    with pytest.raises(UsageError, match='until: expected a time of day such as "06:30", got'):
        config_from(LEAST | {"until": given})


@pytest.fixture
def slow_server() -> Iterator[ScriptedServer]:
    with ScriptedServer(generation_s=0.4) as one:
        yield one


@pytest.mark.parametrize("processes", [1, 2])
def test_a_whole_run_ends_before_its_window_is_over(
    slow_server: ScriptedServer, servers: Any, tmp_path: Any, processes: int
) -> None:
    both = [slow_server, *servers(1, generation_s=0.4)]
    summary = run(config_for(both, names(40), tmp_path, max_runtime_s=2.0 * processes, processes=processes))
    assert summary.stopped == "window" and summary.exit_code == 75 and summary.failed == 0
    assert summary.saved >= 1
    assert summary.pending == 40 - summary.saved
    assert sum(len(one.received) for one in both) == summary.saved, "nothing was begun in vain"
    assert summary.seconds <= 2.0 * processes + 0.3, "a generation takes 0.4 s"


def test_the_second_night_goes_on_where_the_first_ended(server: ScriptedServer, tmp_path: Any) -> None:
    server.generation_s = 0.2
    first = run(config_for([server], names(4), tmp_path, max_runtime_s=0.7))
    second = run(config_for([server], names(4), tmp_path))
    assert first.exit_code == 75 and second.exit_code == 0
    assert second.skipped == first.saved > 0
    assert [server.asked(name) for name in names(4)] == [1] * 4


def test_a_wish_to_stop_goes_for_what_is_within_but_not_the_other_way_round() -> None:
    night, inner = Stop(), None
    inner = Stop(around=night)
    inner.ask("failures")
    assert not night.asked
    other = Stop(around=night)
    night.ask("SIGINT", within_s=0)
    assert (other.asked, other.reason, other.now) == (True, "SIGINT", False)
    assert other.leave_at < inf
    night.leave("SIGINT")
    assert other.now and inner.reason == "failures"


def test_a_first_generation_that_failed_keeps_nobody_waiting(server: ScriptedServer, tmp_path: Any) -> None:
    hold = threading.Event()
    server.script["p0"] = [Answer(hold=hold, body=b"<html>")]

    def let_go() -> None:
        server.wait_for(requests=1)
        threading.Timer(1.2, hold.set).start()

    threading.Thread(target=let_go).start()
    summary = run(config_for([server], names(5), tmp_path, max_runtime_s=2.3))
    assert server.asked("p1") == 1 and summary.saved >= 4


def test_a_hand_that_stands_at_the_gate_when_it_closes_gives_its_prompt_back(
    server: ScriptedServer, tmp_path: Any
) -> None:
    server.generation_s = 0.6
    summary = run(config_for([server], names(5), tmp_path, max_runtime_s=1.0))
    assert summary.stopped == "window"
    assert (summary.saved, summary.pending) == (1, 4), "another can't end in the 0.4 s that are left"
    assert len(server.received) == 1


def fail(night: Night, lane: int, error: Any) -> list[Any]:
    task = night.step(lane)
    outcome = Outcome(task.prompt.key, task.prompt.index, "x", "failed", f"e{lane}", "f", 1, "p")
    task.attempts.append(Attempt(1, f"e{lane}", ""))
    return night.schedule.settle(night.lanes[lane], [task], [Failed(error, outcome)])


BROKEN = StatusError("500", again=True, blame="endpoint", status=500)


def test_a_prompt_that_waits_for_its_endpoints_proof_is_no_end_of_the_window() -> None:
    night = Night(1, 1, ends_at=36_000, retry=Retry(attempts=1))
    assert fail(night, 0, BROKEN) == [] and night.lanes[0].held
    night.schedule.check()
    assert not night.stop.asked
    assert night.step(0) is Step.PROBE
    night.schedule.probed(night.lanes[0], Health(night.lanes[0].endpoint, False, "down"))
    night.schedule.check()
    assert not night.stop.asked and not night.lanes[0].held, "it is forgiven, and waits for the endpoint"


def test_a_closed_lane_still_asks_whose_fault_a_failure_was() -> None:
    night = Night(3, 1, ends_at=100, retry=Retry(attempts=1))
    night.generate(0, seconds=30)
    fail(night, 0, BROKEN)
    night.now = 80
    assert night.step(0) is Step.PROBE
    events = night.schedule.probed(night.lanes[0], Health(night.lanes[0].endpoint, True, "healthy", alive=True))
    assert [event.outcome for event in events] == ["failed"]
    night.schedule.check()
    assert night.stop.reason == "window"


def test_a_lane_that_opens_again_wakes_its_hands() -> None:
    night = Night(9, 2, ends_at=100, usual_s={"e0": 60.0})
    night.schedule.check()
    night.now = 45
    assert night.step(1) == inf, "by what the other took before"
    woken: list[str] = []
    lane = night.lanes[1]
    lane.work.notify_all = lambda: woken.append("e1")  # type: ignore[method-assign]
    task = Task(Prompt(0, "p0", "x"))
    attempt = Attempt(1, "e0", "", generate_s=5.0)
    outcome = Outcome("p0", 0, "x", "saved", "e0", "f", 1, "p", attempts=(attempt,))
    night.lanes[0].taken += 1
    night.schedule.settle(night.lanes[0], [task], [Saving(outcome, Nowhere())])
    night.schedule.check()
    assert woken and isinstance(night.step(1), Task)


@pytest.mark.parametrize(("slow", "quick"), [(1, 2), (2, 1)])
def test_another_attempt_goes_to_a_lane_that_is_open(slow: int, quick: int) -> None:
    night = Night(12, 3, ends_at=100)
    night.generate(quick, seconds=10)
    night.generate(slow, seconds=50)
    night.generate(0, seconds=10)
    night.now = 75
    night.schedule.check()
    (event,) = fail(night, 0, BROKEN)
    assert event.next.name == f"e{quick}", "the other needs 50 s, and there are 25"


def test_what_an_earlier_run_had_asked_for_tells_nothing_of_what_a_generation_takes() -> None:
    night = Night(2, 1, ends_at=100, jobs={0: ("e0", Job("j", {}, "2026-01-01T00:00:00Z"))})
    night.generate(0, seconds=0.01)
    assert night.lanes[0].rule.unknown > 0


def test_the_last_part_of_a_batch_needs_no_room_for_a_whole_one() -> None:
    night = Night(2, 1, ends_at=100, load_size=32)
    night.generate(0, seconds=10)
    night.now = 89
    night.schedule.check()
    assert isinstance(night.step(0), Task)


def test_who_waits_for_its_turn_in_the_slot_gives_up_when_the_lane_closes() -> None:
    night = Night(9, 1, ends_at=100)
    night.generate(0, seconds=30)
    gate = night.lanes[0].gate
    gate.check()
    night.now = 71
    with pytest.raises(Away):
        gate.check()


def test_the_reason_around_is_the_reason_within() -> None:
    night = Stop()
    inner = Stop(around=night)
    night.ask("SIGTERM")
    inner.leave("grace")
    inner.ask("window")
    assert inner.reason == "SIGTERM"


def test_an_hour_that_comes_twice_ends_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert seconds_until("02:30", datetime(2026, 10, 25, 2, 40)) == 50 * 60
    finally:
        monkeypatch.undo()
        time.tzset()
