"""What a hand does next, and whose fault a failure is; with a clock that stands still until it is moved."""

from collections import deque
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from conftest import Nowhere

from runner.errors import AttemptError, BusyError, ImageError, ResultError, StatusError, TransportError
from runner.health import Health
from runner.lanes import deal
from runner.records import (
    Attempt,
    Back,
    Endpoint,
    Event,
    Failed,
    Job,
    Met,
    Out,
    Outcome,
    Prompt,
    Retrying,
    Saving,
    Task,
)
from runner.schedule import LOOK_AGAIN_S, Away, Lane, Schedule, Step
from runner.schedule.queues import Queues
from runner.settings import Health as HealthSettings
from runner.settings import Retry
from runner.stop import Stop

REFUSED = TransportError("refused", reached=False)
BROKEN = StatusError("500", again=True, blame="endpoint", status=500)
WRONG = StatusError("422", again=False, blame="prompt", status=422)


class Run:
    """A schedule over some prompts and endpoints, and hands that do as they are told."""

    def __init__(
        self,
        prompts: int,
        endpoints: int,
        *,
        failover: bool = True,
        steal: bool = False,
        hedge: bool = False,
        load_size: int = 1,
        jobs: Any = None,
        attempts: int = 3,
        **health: float,
    ):
        self.now = 1000.0
        self.stop = Stop()
        self.flying: list[Task] = []
        listed = [Prompt(index, f"p{index}", "x") for index in range(prompts)]
        self.lanes = [
            Lane(Endpoint(index, f"http://h:{index}", f"e{index}", f"port {index}"), backlog)
            for index, backlog in enumerate(deal(range(prompts), endpoints))
        ]
        self.schedule = Schedule(
            self.lanes,
            listed,
            self.stop,
            failover=failover,
            steal=steal,
            hedge=hedge,
            retry=Retry(attempts=attempts, backoff_s=2),
            health=HealthSettings(**health),
            load_size=load_size,
            jobs=jobs,
            clock=lambda: self.now,
        )
        self.schedule.to_start()
        for lane in self.lanes:
            self.meet(lane)

    def meet(self, lane: Lane) -> list[Event]:
        return self.schedule.probed(lane, Health(lane.endpoint, True, "healthy", alive=True))

    def step(self, lane: int) -> Task | Step | float:
        with self.lanes[lane].work:
            return self.schedule.step(self.lanes[lane], self.now)

    def take(self, lane: int, key: str | None = None) -> Task:
        task = self.step(lane)
        assert isinstance(task, Task), f"expected a task, got {task}"
        assert key is None or task.prompt.key == key
        return task

    def end(self, lane: int, task: Task, error: Any = None) -> list[Event]:
        name = f"e{lane}"
        outcome = Outcome(task.prompt.key, task.prompt.index, "x", "failed" if error else "saved", name, "f", 1, "p")
        attempts = (
            task.attempts if error or task.attempts else [Attempt(1, name, "", generate_s=self.lanes[lane].pace_s)]
        )
        outcome = replace(outcome, attempts=tuple(attempts))
        if error is None:
            return self.schedule.settle(self.lanes[lane], [task], [Saving(outcome, Nowhere())])
        if not isinstance(error, ImageError):
            task.attempts.append(Attempt(1, name, ""))
        return self.schedule.settle(self.lanes[lane], [task], [Failed(error, outcome)])

    def fail(self, lane: int, error: Any, times: int = 1) -> list[Event]:
        return [event for _ in range(times) for event in self.end(lane, self.take(lane), error)]

    def open(self, lane: int) -> list[Event]:
        return self.fail(lane, REFUSED, times=3)

    def probe(self, lane: int, *, alive: bool, **found: Any) -> list[Event]:
        assert self.step(lane) is Step.PROBE
        health = Health(self.lanes[lane].endpoint, alive, "healthy" if alive else "Connection refused", alive=alive)
        return self.schedule.probed(self.lanes[lane], health)

    def waiting(self, lane: int) -> list[str]:
        one = self.lanes[lane]
        return [f"p{index}" for index in (*one.backlog, *one.adopted)]


def kinds(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


def test_a_lane_works_through_its_own_prompts_in_their_order() -> None:
    run = Run(6, 2)
    assert [run.take(1).prompt.key for _ in range(3)] == ["p1", "p3", "p5"]
    assert run.step(1) == inf


def test_an_endpoint_that_goes_out_leaves_its_prompts_to_the_others_by_modulo() -> None:
    run = Run(16, 4)
    (out,) = [event for event in run.open(3) if isinstance(event, Out)]
    assert (out.why, out.moved) == ("refused", 1)
    assert run.step(3) == 1.0, "only a probe, a second later"
    moved = [[key for key in run.waiting(lane) if int(key[1:]) % 4 == 3] for lane in range(3)]
    assert sorted(moved) == [[], [], ["p15"]], "three were tried, and went elsewhere"
    retried = {lane: [task.prompt.key for _, _, task in run.lanes[lane].again] for lane in range(4)}
    assert sorted(key for keys in retried.values() for key in keys) == ["p11", "p3", "p7"]
    assert not retried[3]


def test_waiting_prompts_are_spread_evenly_over_those_that_serve() -> None:
    run = Run(120, 4)
    run.lanes[1].breaker.open(run.now)
    run.open(3)
    counts = [len(run.waiting(lane)) for lane in range(4)]
    assert counts[1] == counts[3] == 0
    assert abs(counts[0] - counts[2]) <= 1
    assert [int(key[1:]) % 4 for key in run.waiting(0)[:30]] == [0] * 30, "its own are still in order"


def test_a_healed_endpoint_gets_back_what_the_others_have_not_begun() -> None:
    run = Run(40, 4)
    run.open(3)
    run.now += 1
    assert run.probe(3, alive=True) == []
    trial = run.take(3)
    assert run.step(3) == inf, "one trial at a time"
    events = run.end(3, trial)
    assert kinds(events) == [Back, Saving]
    assert sorted(int(key[1:]) % 4 for key in run.waiting(3)) == [3] * len(run.waiting(3))
    assert len(run.waiting(3)) >= 6
    assert not any(int(key[1:]) % 4 == 3 for lane in range(3) for key in run.waiting(lane))


def test_strict_lanes_keep_their_prompts() -> None:
    run = Run(8, 2, failover=False)
    run.open(1)
    assert run.waiting(0) == ["p0", "p2", "p4", "p6"]
    assert len(run.waiting(1)) + len(run.lanes[1].again) == 4


def test_what_reached_nobody_uses_up_no_attempt_and_goes_on_elsewhere_at_once() -> None:
    run = Run(8, 4, attempts=1)
    (event,) = run.fail(3, REFUSED)
    assert isinstance(event, Retrying)
    assert (event.wait_s, event.next.index) == (0.0, 1)
    assert run.take(1, "p3").charged == []


def test_a_retry_goes_to_every_other_endpoint_before_it_comes_back() -> None:
    run = Run(4, 4, attempts=9, failures_to_open=9)
    lane, asked = 1, []
    task = run.take(1, "p1")
    for _ in range(4):
        asked.append(lane)
        (event,) = run.end(lane, task, BROKEN)
        assert isinstance(event, Retrying)
        lane = event.next.index
        run.now += 60
        task = run.take(lane, "p1")
    assert sorted(asked) == [0, 1, 2, 3]


def test_a_back_off_holds_up_nobody() -> None:
    run = Run(2, 1)
    (event,) = run.fail(0, BROKEN)
    assert isinstance(event, Retrying) and 1 <= event.wait_s <= 2
    second = run.take(0, "p1")
    assert run.step(0) == pytest.approx(event.wait_s)
    run.end(0, second)
    run.now += 2
    run.take(0, "p0")


def test_a_prompt_that_fails_everywhere_is_failed_and_takes_no_endpoint_out() -> None:
    run = Run(4, 4)
    lane, task = 1, run.take(1, "p1")
    for _ in range(2):
        (event,) = run.end(lane, task, BROKEN)
        assert isinstance(event, Retrying)
        lane = event.next.index
        run.now += 60
        task = run.take(lane, "p1")
    (last,) = run.end(lane, task, BROKEN)
    assert isinstance(last, Outcome) and last.outcome == "failed"
    assert {lane.breaker.state for lane in run.lanes} == {"in"}


def test_charges_of_an_endpoint_that_goes_out_are_taken_back() -> None:
    run = Run(40, 4, attempts=1)
    held = [run.fail(3, BROKEN), run.fail(3, BROKEN)]
    assert held == [[], []], "with one attempt they are used up, but the endpoint is in doubt"
    assert kinds(run.fail(3, BROKEN))[0] in (Out, Retrying)
    retried = [task for lane in run.lanes for _, _, task in lane.again]
    assert sorted(task.prompt.key for task in retried) == ["p11", "p3", "p7"]
    assert all(task.charged == [] for task in retried)


def test_who_is_held_has_failed_once_the_endpoint_does_others_well() -> None:
    run = Run(40, 4, attempts=1)
    assert run.fail(3, BROKEN) == []
    events = run.end(3, run.take(3))
    assert [event.outcome if isinstance(event, Outcome) else "saving" for event in events] == ["failed", "saving"]


def test_who_is_held_when_nothing_else_is_left_is_decided_by_the_endpoints_health() -> None:
    run = Run(1, 1, attempts=1)
    assert run.fail(0, BROKEN) == []
    assert kinds(run.probe(0, alive=True)) == [Outcome]
    run = Run(1, 1, attempts=1)
    assert run.fail(0, BROKEN) == []
    assert kinds(run.probe(0, alive=False)) == [Out]
    run.now += 1
    run.probe(0, alive=True)
    assert kinds(run.end(0, run.take(0, "p0"))) == [Back, Saving]


def test_an_endpoint_forgives_a_prompt_once_so_that_it_ends() -> None:
    run = Run(1, 1, attempts=2, failures_to_open=1)
    events = run.fail(0, BROKEN)
    for _ in range(9):
        if any(isinstance(event, Outcome) for event in events):
            break
        run.now += 3600
        run.probe(0, alive=True)
        events = run.fail(0, BROKEN)
    assert isinstance(events[-1], Outcome) and events[-1].outcome == "failed"


def test_a_prompts_own_fault_is_final_and_speaks_for_the_endpoint() -> None:
    run = Run(8, 1)
    run.fail(0, REFUSED, times=2)
    assert kinds(run.fail(0, WRONG)) == [Outcome]
    run.fail(0, REFUSED, times=2)
    assert run.lanes[0].breaker.state == "in"


def test_a_status_that_is_final_is_asked_once_an_endpoint() -> None:
    run = Run(2, 2, attempts=9)
    gone = StatusError("404", again=False, blame="endpoint", status=404)
    (first,) = run.fail(0, gone)
    assert isinstance(first, Retrying) and first.next.index == 1
    run.now += 60
    (second,) = run.end(1, run.take(1, "p0"), gone)
    assert isinstance(second, Outcome)


def test_a_busy_endpoint_costs_no_attempt_and_no_blame_and_the_idle_take_its_prompts() -> None:
    run = Run(8, 2, attempts=1)
    (event,) = run.fail(1, BusyError("429", wait_s=30))
    assert isinstance(event, Retrying) and event.next.index == 0
    assert run.step(1) == 30
    for _ in range(5):
        run.end(0, run.take(0))
    assert run.take(0).prompt.key == "p7", "with nothing of its own, from the end of what the busy one has"
    assert run.lanes[1].breaker.state == "in"


def test_an_old_connection_is_tried_again_at_once_on_the_same_endpoint() -> None:
    run = Run(8, 2, attempts=1)
    (event,) = run.fail(1, BusyError("old", wait_s=0))
    assert isinstance(event, Retrying) and (event.next.index, event.wait_s) == (1, 0)
    run.take(1, "p1")


def test_an_image_is_tried_again_on_the_same_lane_and_its_failures_are_no_endpoints() -> None:
    run = Run(2, 2, attempts=2, failures_to_open=1)
    task = run.take(1, "p1")
    task.image_attempts = 1
    (event,) = run.end(1, task, ImageError("503", again=True))
    assert isinstance(event, Retrying) and event.next.index == 1
    run.now += 60
    task = run.take(1, "p1")
    task.image_attempts = 2
    assert kinds(run.end(1, task, ImageError("503", again=True))) == [Outcome]
    assert run.lanes[1].breaker.state == "in"


def test_idle_endpoints_take_from_one_that_is_in_doubt() -> None:
    run = Run(8, 2)
    for _ in range(4):
        run.end(0, run.take(0))
    assert run.step(0) == inf, "a slow one keeps its prompts"
    run.fail(1, ResultError("html"))
    assert run.take(0).prompt.key == "p7"


def test_with_every_endpoint_out_for_all_down_s_the_run_stops() -> None:
    run = Run(8, 2, all_down_s=100, probe_every_s=1000)
    run.open(0)
    run.schedule.check()
    run.now += 200
    run.schedule.check()
    assert not run.stop.asked, "one serves"
    run.open(1)
    run.schedule.check()
    run.now += 99
    run.schedule.check()
    assert not run.stop.asked
    run.now += 1
    run.schedule.check()
    assert run.stop.reason == "down"
    assert run.schedule.why_down() == "port 0: refused; port 1: refused"


def test_servers_that_are_still_loading_are_waited_for_as_long_as_wait_ready_s() -> None:
    run = Run(8, 1, all_down_s=0, wait_ready_s=50)
    run.open(0)
    run.schedule.check()
    run.now += 49
    run.schedule.check()
    assert not run.stop.asked
    run.probe(0, alive=True)
    run.end(0, run.take(0))
    run.open(0)
    run.schedule.check()
    assert run.stop.asked, "once it was there, all_down_s counts"


def test_a_trial_without_prompts_of_its_own_takes_those_of_others_that_are_out() -> None:
    run = Run(1, 2)
    run.fail(0, REFUSED)
    for lane in run.lanes:
        lane.breaker.open(run.now)
    run.now += 1
    (owner,) = [index for index, lane in enumerate(run.lanes) if lane.again]
    run.probe(1 - owner, alive=True)
    run.take(1 - owner, "p0")


def test_endpoints_are_met_before_their_first_prompt_and_one_that_refuses_starts_out() -> None:
    run = Run(8, 2)
    for lane in run.lanes:
        lane.met = False
    assert run.step(1) is Step.PROBE
    assert isinstance(run.step(1), Task), "another hand makes the first request ready meanwhile"
    found = Health(run.lanes[1].endpoint, False, "Connection refused", refused=True)
    assert kinds(run.schedule.probed(run.lanes[1], found)) == [Out]
    assert run.step(0) is Step.PROBE
    found = Health(run.lanes[0].endpoint, True, "healthy", version="1.2", alive=True)
    assert run.schedule.probed(run.lanes[0], found) == [Met(run.lanes[0].endpoint, "1.2")]


def test_a_task_given_back_untried_goes_to_who_serves() -> None:
    run = Run(2, 2)
    task = run.take(1, "p1")
    run.lanes[1].breaker.open(run.now)
    assert run.schedule.give_back(run.lanes[1], [task]) == []
    assert run.waiting(0) == ["p0", "p1"]


def test_a_task_given_back_with_a_reason_takes_its_endpoint_out_once_and_it_may_be_hoped_for() -> None:
    run = Run(6, 2)
    first, second = run.take(1, "p1"), run.take(1, "p3")
    (out,) = run.schedule.give_back(run.lanes[1], [first], "nobody can ask it")
    assert out == Out(run.lanes[1].endpoint, "nobody can ask it", 1)
    assert run.schedule.give_back(run.lanes[1], [second], "nobody can ask it") == []
    assert sorted(run.waiting(0)) == ["p0", "p1", "p2", "p3", "p4", "p5"]
    assert (first.attempts, first.charged) == ([], [])
    assert isinstance(run.step(1), float) and run.lanes[1].gate.rule.closed_until == inf
    run.schedule.expect(run.lanes[1])
    run.probe(1, alive=True)
    run.schedule.give_back(run.lanes[1], [run.take(1)], "nobody can ask it")
    assert run.lanes[1].breaker.state == "out", "nor on trial"


def test_lanes_that_get_work_later_are_started_then() -> None:
    run = Run(1, 2)
    assert run.schedule.to_start() == []
    run.fail(0, REFUSED)
    assert run.schedule.to_start() == [run.lanes[1]]
    assert run.schedule.to_start() == []


def test_a_long_backlog_is_dealt_anew_when_an_endpoint_goes_out() -> None:
    run = Run(0, 4)
    run.lanes[3].backlog = deque(range(3, 400_000, 4))
    run.lanes[3].breaker.open(run.now)
    run.schedule.give_back(run.lanes[3], [Task(Prompt(run.lanes[3].backlog.popleft(), "k", "x"))])
    assert sum(len(run.waiting(lane)) for lane in range(3)) == 100_000
    assert all(run.waiting(lane) for lane in range(3))


def test_only_the_time_in_which_no_endpoint_was_of_use_counts_as_down() -> None:
    run = Run(4, 1, all_down_s=10)
    run.fail(0, BusyError("429", wait_s=1))
    run.now += 1
    run.schedule.check()
    task = run.take(0)
    run.now += 600
    run.schedule.check()
    run.end(0, task, BusyError("429", wait_s=1))
    run.now += 1
    run.schedule.check()
    assert not run.stop.asked, "it generated for ten minutes, and was full for two seconds"
    for _ in range(12):
        run.fail(0, BusyError("429", wait_s=1))
        for _ in range(8):
            run.now += 0.125
            run.schedule.check()
    assert run.stop.reason == "down", "one that always says it is full comes to an end"


def test_a_retry_goes_first_to_who_has_shown_to_be_well() -> None:
    run = Run(32, 8)
    run.end(6, run.take(6))
    run.fail(2, BROKEN)
    (event,) = run.fail(0, BROKEN)
    assert isinstance(event, Retrying) and event.next.index == 6
    run.now += 60
    tasks = {task.prompt.key: task for task in (run.take(6), run.take(6))}
    (event,) = run.end(6, tasks["p0"], BROKEN)
    assert isinstance(event, Retrying) and event.next.index not in (0, 2, 6), "not to those in doubt"


def test_who_is_held_by_an_endpoint_that_forgives_no_more_has_failed_when_that_goes_out() -> None:
    run = Run(20, 2, attempts=1, failures_to_open=2)
    run.fail(0, BROKEN, times=2)  # p0 and p2 are forgiven, and go to the other
    run.now += 1
    run.probe(0, alive=True)
    run.end(0, run.take(0))
    run.now += 60
    (event,) = run.end(1, run.take(1, "p0"), REFUSED)
    assert isinstance(event, Retrying) and event.next.index == 0
    first = run.take(0, "p0")
    assert run.fail(0, BROKEN) == [], "another prompt brings it into doubt, and is held"
    assert run.end(0, first, BROKEN) == [], "and so is this one"
    events = run.fail(0, BROKEN)
    assert [event.key for event in events if isinstance(event, Outcome)] == ["p0"]


def test_what_is_given_back_wakes_whoever_may_take_it() -> None:
    run, woken = Run(4, 2), []
    for lane in run.lanes:
        lane.work.notify_all = lambda lane=lane: woken.append(lane)  # type: ignore[method-assign]
    task = run.take(1)
    run.schedule.give_back(run.lanes[1], [task])
    assert {lane.endpoint.index for lane in woken} == {0, 1}


def test_a_stop_that_cuts_an_image_leaves_its_prompt_pending() -> None:
    run = Run(2, 1, attempts=1)
    task = run.take(0)
    task.image_attempts = 1
    run.stop.ask("window")
    (outcome,) = run.end(0, task, ImageError("abandoned", again=True))
    assert isinstance(outcome, Outcome) and outcome.outcome == "interrupted"


def test_a_lane_that_got_two_things_is_started_once() -> None:
    run = Run(2, 3)
    for lane in (0, 1):
        (event,) = run.fail(lane, REFUSED)
        assert isinstance(event, Retrying) and event.next.index == 2
    assert run.schedule.to_start() == [run.lanes[2]]


def test_what_was_for_an_endpoint_that_went_out_meanwhile_waits_for_another() -> None:
    run = Run(4, 2, attempts=3)
    task = run.take(1, "p1")
    run.lanes[1].breaker.open(run.now)
    task.image_attempts = 1
    (event,) = run.end(1, task, ImageError("503", again=True))
    assert isinstance(event, Retrying) and event.next.index == 0


def test_by_modulo_an_idle_endpoint_takes_nothing_from_a_healthy_one() -> None:
    run = Run(9, 3)
    run.lanes[0].backlog.clear()
    assert run.step(0) == inf


def test_an_idle_endpoint_steals_from_the_end_of_the_longest_queue() -> None:
    run = Run(9, 3, steal=True)
    run.lanes[0].backlog.clear()
    run.take(1, "p1")
    assert run.take(0).prompt.key == "p8"
    run.take(2, "p2")
    run.take(2, "p5")
    assert run.take(0).prompt.key == "p7"
    started = run.schedule.started(run.lanes[0], Task(Prompt(7, "p7", "x")))
    assert started.instead_of is run.lanes[1].endpoint


@pytest.mark.parametrize("failover", [True, False])
def test_without_failover_nobody_steals_from_one_that_is_out(failover: bool) -> None:
    run = Run(4, 2, steal=True, failover=failover)
    run.lanes[0].backlog.clear()
    run.lanes[1].breaker.open(run.now)
    found = run.step(0)
    assert (isinstance(found, Task) and found.prompt.key == "p3") == failover


def test_what_a_hand_only_holds_ready_goes_to_the_lane_that_is_idle() -> None:
    run = Run(3, 2, steal=True)
    slow, idle = run.lanes
    idle.backlog.clear()
    generating, ready = run.take(0, "p0"), run.take(0, "p2")
    with slow.gate:
        assert isinstance(run.step(1), float) and not idle.asking, "it is not ready yet"
        slow.gate.standing += 1
        assert not slow.gate.may_pass()
        assert isinstance(run.step(1), float) and idle.asking
        with pytest.raises(Away):
            slow.gate.may_pass()
        slow.gate.standing -= 1
        run.schedule.give_back(slow, [ready])
        assert run.take(1).prompt.key == "p2"
        assert not slow.wanted and not idle.asking
    assert run.end(0, generating)


def test_an_idle_lane_whose_wish_is_declined_may_ask_again() -> None:
    run = Run(3, 2, steal=True)
    slow, idle = run.lanes
    idle.backlog.clear()
    run.take(0, "p0"), run.take(0, "p2")
    slow.gate.want = lambda: True  # type: ignore[method-assign]
    assert run.step(1) == LOOK_AGAIN_S and list(slow.wanted) == [idle]
    run.schedule.declined(slow)
    assert not slow.wanted and not idle.asking


@pytest.mark.parametrize("steal", [True, False])
def test_a_lane_that_has_nothing_of_its_own_is_there_to_steal(steal: bool) -> None:
    lanes = [Lane(Endpoint(index, f"http://h:{index}", f"e{index}", "x"), deque()) for index in range(3)]
    lanes[1].backlog.extend([1, 4, 7])
    prompts = [Prompt(index, f"p{index}", "x") for index in range(9)]
    schedule = Schedule(lanes, prompts, Stop(), failover=True, steal=steal, retry=Retry(), health=HealthSettings())
    assert schedule.to_start() == (lanes if steal else [lanes[1]])


def test_near_the_end_a_slow_endpoint_leaves_the_last_prompts_to_quicker_ones() -> None:
    run = Run(12, 3, steal=True)
    for lane, pace_s in zip(run.lanes, (1.0, 1.0, 5.0), strict=True):
        lane.pace_s = pace_s
    assert isinstance(run.step(2), Task), "twelve would take the others six seconds"
    for lane in (0, 1):
        while len(run.lanes[lane].backlog) > 2:
            run.take(lane)
    assert run.step(2) == LOOK_AGAIN_S
    run.lanes[0].breaker.open(run.now)
    run.lanes[1].breaker.cool(run.now, 60)
    assert isinstance(run.step(2), Task), "nobody else can do them"


def test_the_pace_of_an_endpoint_is_that_of_its_latest_generations() -> None:
    run = Run(9, 1)
    for took_s in (10, 2, 2, 2, 2, 2, 2, 2):
        task = run.take(0)
        task.attempts.append(Attempt(1, "e0", "", generate_s=took_s))
        run.end(0, task)
    assert 2 < run.lanes[0].pace_s < 3


def hedged(prompts: int = 3, endpoints: int = 3, **options: Any) -> Run:
    """A run whose prompts are all in flight, each on its endpoint, and overdue."""
    run = Run(prompts, endpoints, hedge=True, **options)
    for lane in range(prompts):
        run.lanes[lane].pace_s = 1.0
        run.flying.append(run.take(lane))
        run.now += 0.1
    run.now += 2
    return run


def kind_of(events: list[Event]) -> list[str]:
    outcomes = [event.outcome if isinstance(event, Saving) else event for event in events]
    return [one.outcome if isinstance(one, Outcome) else type(one).__name__ for one in outcomes]


def test_an_idle_endpoint_repeats_what_is_in_flight_longest() -> None:
    run = hedged()
    assert kind_of(run.end(1, run.flying[1])) == ["saved"]
    assert run.take(1).prompt.key == "p0"
    assert kind_of(run.end(2, run.flying[2])) == ["saved"]
    assert run.step(2) == LOOK_AGAIN_S, "two are enough for one prompt"


def test_without_hedge_or_while_prompts_wait_nothing_is_repeated() -> None:
    run = Run(2, 2)
    run.take(0)
    run.end(1, run.take(1))
    assert run.step(1) == inf
    run = Run(3, 2, hedge=True)
    run.take(0, "p0")
    run.end(1, run.take(1))
    assert run.step(1) == LOOK_AGAIN_S, "p2 waits for endpoint 0"


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_whole_result_wins_and_the_other_is_dropped(first: int) -> None:
    run = hedged(2, 2)
    run.end(1, run.flying[1])
    both = {0: run.flying[0], 1: run.take(1, "p0")}
    assert kind_of(run.end(first, both[first])) == ["saved"]
    assert run.schedule.done and run.schedule.outdone
    (late,) = run.end(1 - first, both[1 - first])
    assert isinstance(late, Saving) and late.outcome.outcome == "dropped"
    assert (late.outcome.file, late.outcome.error) == (None, f"e{first} was first")


def test_a_task_that_fails_while_its_double_flies_is_dropped_and_still_counts_against_its_endpoint() -> None:
    run = hedged(2, 2, failures_to_open=1)
    run.end(1, run.flying[1])
    double = run.take(1, "p0")
    assert kind_of(run.end(0, run.flying[0], REFUSED)) == ["dropped", "Out"]
    assert not run.schedule.done
    assert kind_of(run.end(1, double)) == ["saved"]
    assert run.schedule.done


def test_when_both_fail_the_prompt_has_used_up_two_attempts() -> None:
    run = hedged(2, 2, attempts=2)
    run.end(1, run.flying[1])
    double = run.take(1, "p0")
    assert kind_of(run.end(0, run.flying[0], BROKEN)) == ["dropped"]
    assert kind_of(run.end(1, double, BROKEN)) in (["failed"], []), "or held, while its endpoint is in doubt"
    assert double.charged == [0, 1]


def test_who_loses_is_no_fault_of_its_endpoint() -> None:
    run = hedged(2, 2, failures_to_open=1)
    run.end(1, run.flying[1])
    run.end(1, run.take(1, "p0"))
    assert kind_of(run.end(0, run.flying[0], TransportError("cut"))) == ["dropped"]
    assert run.lanes[0].breaker.state == "in"


def test_a_stop_leaves_a_doubled_prompt_pending_once() -> None:
    run = hedged(2, 2)
    run.end(1, run.flying[1])
    double = run.take(1, "p0")
    run.stop.ask("SIGINT")
    pending = Outcome("p0", 0, "x", "interrupted", "e0", "f", 1, "p")
    assert kind_of(run.schedule.abandon(run.lanes[0], [run.flying[0]], [pending])) == ["dropped"]
    assert kind_of(run.schedule.abandon(run.lanes[1], [double], [pending])) == ["interrupted"]


def test_one_that_will_be_done_before_is_not_repeated_but_one_that_is_overdue_is() -> None:
    run = hedged(2, 2)
    run.lanes[0].pace_s, run.lanes[1].pace_s = 10.0, 8.0
    run.end(1, run.flying[1])
    run.now += 2
    assert run.step(1) == LOOK_AGAIN_S, "some six seconds are left of it"
    run.now += 12
    assert run.take(1).prompt.key == "p0"


def test_a_prompt_that_no_worker_process_survives_says_nothing_about_its_endpoint() -> None:
    killer = AttemptError("5 worker processes died", again=False, blame="prompt")
    run = Run(8, 2, failures_to_open=1)
    refused, other = run.take(0), run.take(0)
    run.end(0, refused, REFUSED)
    assert kinds(run.end(0, other, killer)) == [Outcome]
    assert run.lanes[0].breaker.state == "out"
    run = Run(2, 1, attempts=1)
    held, other = run.take(0), run.take(0)
    assert run.end(0, held, BROKEN) == []
    assert [event.key for event in run.end(0, other, killer)] == ["p1"]
    assert [outcome.key for _, outcome in run.lanes[0].held] == ["p0"], "still in doubt"


def test_what_a_worker_process_died_with_is_not_handed_over_as_if_nothing_had_happened() -> None:
    run = Run(3, 2, steal=True)
    first, ready = run.take(0), run.take(0)
    run.end(1, run.take(1))
    ready.losses.append(1)
    run.lanes[0].gate.standing = 1
    assert run.step(1) == LOOK_AGAIN_S and run.lanes[1].asking
    run.schedule.give_back(run.lanes[0], [ready])
    assert not run.lanes[1].asking
    assert run.take(0) is ready
    run.end(0, first)


def test_nothing_is_repeated_before_anybody_knows_what_a_generation_takes() -> None:
    run = Run(2, 3, hedge=True)
    run.take(0), run.take(1)
    run.now += 99
    assert run.step(2) == LOOK_AGAIN_S
    run.lanes[1].pace_s = 30.0
    assert run.take(2).prompt.key == "p0", "overdue by the pace of the other"


def test_doubles_of_a_prompt_share_the_worker_processes_that_died_with_it() -> None:
    run = hedged(2, 2)
    original = run.flying[0]
    run.end(1, run.flying[1])
    double = run.take(1, "p0")
    original.losses.append(1)
    assert double.losses == [1] and double.mark != original.mark


def test_an_endpoint_that_hangs_does_not_keep_slower_ones_from_what_waits() -> None:
    run = Run(8, 2, steal=True)
    run.lanes[0].backlog, run.lanes[1].backlog = deque([0, 2, 4]), deque([3])
    run.lanes[0].pace_s, run.lanes[1].pace_s = 1.0, 6.0
    run.take(0), run.take(0)
    run.now += 1
    assert run.step(1) == LOOK_AGAIN_S, "the quick one will do it sooner"
    run.now += 2
    assert [run.take(1).prompt.key for _ in range(2)] == ["p3", "p4"]


def test_of_the_idle_hands_of_a_lane_one_looks_again() -> None:
    run = Run(2, 2, steal=True)
    run.end(1, run.take(1))
    run.take(0)
    assert run.step(1) == LOOK_AGAIN_S
    run.lanes[1].looking = True
    assert run.step(1) == inf


def test_many_idle_lanes_look_again_less_often() -> None:
    run = Run(800, 800, steal=True)
    run.end(1, run.take(1))
    run.lanes[0].backlog.clear()
    for lane in run.lanes[2:]:
        lane.backlog.clear()
    assert run.step(1) == 4 * LOOK_AGAIN_S


def test_an_endpoint_that_is_about_to_get_a_prompt_repeats_none() -> None:
    run = Run(3, 2, steal=True, hedge=True)
    first, ready = run.take(0), run.take(0)
    run.lanes[0].gate.standing = 1
    run.end(1, run.take(1))
    run.lanes[0].pace_s = 1.0
    run.now += 9
    assert run.step(1) == LOOK_AGAIN_S, "it has asked for what is ready"
    run.schedule.give_back(run.lanes[0], [ready])
    assert run.take(1) is not first and not run.lanes[1].asking


def test_a_wish_ends_when_what_was_held_ready_has_been_done_elsewhere() -> None:
    run = Run(3, 2, steal=True, hedge=True)
    _, ready = run.take(0), run.take(0)
    run.lanes[0].gate.standing = 1
    run.end(1, run.take(1))
    assert run.step(1) == LOOK_AGAIN_S and run.lanes[1].asking
    run.schedule._flights._won[ready.prompt.index] = "e9"
    run.schedule.give_back(run.lanes[0], [ready])
    assert not run.lanes[1].asking and not run.lanes[0].wanted


def test_what_was_handed_over_is_not_stolen_back_by_the_hand_that_gave_it() -> None:
    run = Run(3, 2, steal=True)
    slow, idle = run.lanes
    run.take(0, "p0")
    ready = run.take(0, "p2")
    run.end(1, run.take(1))
    slow.gate.standing = 1
    assert run.step(1) == LOOK_AGAIN_S and idle.asking
    run.schedule.give_back(slow, [ready])
    assert run.step(0) == LOOK_AGAIN_S, "the other one has not woken up yet"
    assert run.take(1) is ready


def test_a_wish_that_nobody_answers_does_not_keep_an_idle_endpoint_from_repeating_what_is_overdue() -> None:
    run = Run(3, 2, steal=True, hedge=True)
    run.take(0, "p0"), run.take(0, "p2")
    run.end(1, run.take(1))
    run.lanes[0].gate.want = lambda: True  # type: ignore[method-assign]
    run.lanes[0].pace_s = 1.0
    assert run.step(1) == LOOK_AGAIN_S and run.lanes[1].asking
    run.now += 9
    assert run.take(1).prompt.key == "p0"


def test_each_hand_that_finds_work_lets_another_of_its_lane_look() -> None:
    run = Run(40, 2, steal=True)
    lane = run.lanes[1]
    lane.backlog.clear()
    taken: list[Task] = []
    waits: list[float | None] = []
    notified: list[int] = []

    def wait(timeout: float | None = None) -> bool:
        waits.append(timeout)
        run.lanes[0].backlog.append(0)  # something to steal, when it looks again
        return False

    run.lanes[0].backlog.clear()
    lane.work.wait = wait  # type: ignore[method-assign]
    lane.work.notify = lambda n=1: notified.append(n)  # type: ignore[method-assign]
    for _ in range(2):
        step = run.schedule.take(lane)
        assert isinstance(step, list)
        taken += step
    assert waits == [LOOK_AGAIN_S] * 2 and notified == [1, 1]


JOB = Job("j1", {}, "2026-01-01T00:00:00.000Z")


def keys_of(load: Any) -> list[str]:
    return [task.prompt.key for task in load]


def test_a_load_is_what_waits_for_the_lane_as_far_as_it_fits() -> None:
    run = Run(7, 2, load_size=3)
    assert keys_of(run.schedule.take(run.lanes[0])) == ["p0", "p2", "p4"]
    assert keys_of(run.schedule.take(run.lanes[0])) == ["p6"]
    assert run.lanes[0].taken == 4


def test_a_load_that_is_given_back_keeps_its_order() -> None:
    run = Run(6, 1, load_size=4)
    load = run.schedule.take(run.lanes[0])
    run.schedule.give_back(run.lanes[0], load)
    assert keys_of(run.schedule.take(run.lanes[0])) == ["p0", "p1", "p2", "p3"]


def settle(run: Run, load: Any, errors: dict[str, Any]) -> list[Event]:
    verdicts: list[Any] = []
    for task in load:
        error = errors.get(task.prompt.key)
        outcome = Outcome(task.prompt.key, task.prompt.index, "x", "saved", "e0", "f", 1, "p")
        task.attempts.append(Attempt(1, "e0", ""))
        verdicts.append(Failed(error, replace(outcome, outcome="failed")) if error else Saving(outcome, Nowhere()))
    return run.schedule.settle(run.lanes[0], load, verdicts)


def test_an_endpoint_that_made_some_of_a_batch_is_not_blamed_for_the_others() -> None:
    run = Run(8, 2, load_size=4, failures_to_open=1)
    load = run.schedule.take(run.lanes[0])
    errors = dict.fromkeys(["p0", "p2", "p4"], ResultError("no object"))
    assert kinds(settle(run, load, errors)) == [Saving, Retrying, Retrying, Retrying]
    assert run.lanes[0].breaker.state == "in"


def test_a_batch_of_which_nothing_came_is_one_failure() -> None:
    run = Run(16, 2, load_size=4, failures_to_open=2)
    for state in ("in", "out"):
        load = run.schedule.take(run.lanes[0])
        settle(run, load, {key: TransportError("cut") for key in keys_of(load)})
        assert run.lanes[0].breaker.state == state


def test_a_trial_is_one_prompt_whatever_the_size_of_a_load() -> None:
    run = Run(8, 2, load_size=4, failures_to_open=1)
    settle(run, load := run.schedule.take(run.lanes[0]), dict.fromkeys(keys_of(load), REFUSED))
    run.now += 1
    run.probe(0, alive=True)
    assert len(run.schedule.take(run.lanes[0])) == 1


def test_what_an_endpoint_took_on_in_an_earlier_run_goes_there_first() -> None:
    run = Run(6, 2, jobs={2: ("e1", JOB), 4: ("e0", JOB), 5: ("gone", JOB)})
    assert run.take(1, "p2").jobs == {"e1": JOB}
    assert run.take(0, "p4").jobs == {"e0": JOB}
    assert [run.take(lane).prompt.key for lane in (0, 1, 1, 1)] == ["p0", "p1", "p3", "p5"]


def test_batches_of_an_earlier_run_are_not_mixed_with_each_other_or_with_new_prompts() -> None:
    other = replace(JOB, id="j2")
    run = Run(6, 1, load_size=4, jobs={1: ("e0", JOB), 3: ("e0", JOB), 4: ("e0", other)})
    loads = [keys_of(run.schedule.take(run.lanes[0])) for _ in range(3)]
    assert loads == [["p1", "p3"], ["p4"], ["p0", "p2", "p5"]]


def test_a_task_whose_job_an_endpoint_has_is_led_back_there_and_not_submitted_elsewhere() -> None:
    run = Run(6, 3)
    task = run.take(1, "p1")
    task.jobs["e1"] = JOB
    (event,) = run.end(1, task, REFUSED)
    assert isinstance(event, Retrying) and event.next.index == 1


def test_a_task_whose_job_is_at_an_endpoint_that_is_out_goes_to_another() -> None:
    run = Run(6, 3)
    task = run.take(1, "p1")
    task.jobs["e1"] = JOB
    run.lanes[1].breaker.open(run.now)
    event = run.end(1, task, BROKEN)[0]
    assert isinstance(event, Retrying) and event.next.index != 1


def test_an_idle_hand_looks_only_at_lanes_that_may_need_help(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(300, 100)
    looked = []
    needs_help = Queues._needs_help
    monkeypatch.setattr(Queues, "_needs_help", lambda *one: looked.append(one[1]) or needs_help(*one))
    for _ in range(3):
        run.take(0)
    assert run.step(0) == inf and looked == []
    run.end(7, run.take(7), BROKEN)
    looked.clear()
    assert isinstance(run.step(0), Task)
    assert looked == [run.lanes[7]]


@pytest.mark.parametrize(("passed_s", "told"), [(0, {"e0", "e1", "e2"}), (60, {"e2"})])
def test_when_the_last_endpoint_is_met_only_gates_that_wait_for_it_are_told(passed_s: float, told: set[str]) -> None:
    run = Run(6, 3)
    rules = []
    run.schedule._unmet = 3
    for lane in run.lanes:
        lane.met = False
        run.schedule._rule(lane)
        lane.gate.obey = lambda rule, lane=lane: rules.append(lane.endpoint.name)
    run.now += passed_s
    for lane in run.lanes:
        run.meet(lane)
    assert {*rules} == told
