"""The threads: hands, slots, stopping, and what comes out. What a hand does next is tested in test_schedule."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from conftest import Nowhere

from runner.engine import work_through
from runner.engine.work import Tell
from runner.health import Health
from runner.records import Endpoint, Event, Outcome, Prompt, Saving, Started, Task, Verdict
from runner.schedule import Lane, Schedule
from runner.settings import Health as HealthSettings
from runner.settings import Retry
from runner.stop import Stop


def lane(prompts: int, *, slots: int = 1, index: int = 0, lanes: int = 1) -> Lane:
    endpoint = Endpoint(index, f"http://h:{index}", f"e{index}", f"port {index}", slots)
    return Lane(endpoint, deque(range(index, prompts * lanes + index, lanes)))


def schedule_of(*lanes: Lane, stop: Stop | None = None, hedge: bool = False) -> Schedule:
    count = max(1, len(lanes))
    total = range(sum(len(one.backlog) for one in lanes))
    prompts = [Prompt(index, f"{index % count}-{index // count}", "x") for index in total]
    return Schedule(
        lanes, prompts, stop or Stop(), failover=True, hedge=hedge, retry=Retry(), health=HealthSettings()
    )


class Dropped(Nowhere):
    """A result of which one is told that it was dropped."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.drop = tell


def events_of(schedule: Schedule, work: Any) -> Iterator[Event | None]:
    """Yield the events one by one, and None for every look at the clock."""
    with closing(work_through(schedule, work)) as batches:
        for events in batches:
            if not events:
                yield None
            try:
                while events:
                    yield events.pop(0)
            finally:
                for event in events:  # who takes a batch answers for all of it
                    if isinstance(event, Saving):
                        event.part.drop()


class Work:
    """Work whose generations are a function; everything else is fine at once."""

    def __init__(self, generate: Callable[[Task, Lane], None] = lambda task, where: None) -> None:
        self.generate = generate
        self.made: list[str] = []
        self.dropped: list[str] = []
        self.abandoned = threading.Event()

    def __call__(self, load: Sequence[Task], where: Lane, tell: Tell) -> list[Verdict]:
        return [self.one(task, where) for task in load]

    def one(self, task: Task, where: Lane) -> Verdict:
        self.generate(task, where)
        outcome = outcome_of(task, where)
        self.made.append(outcome.key)
        return Saving(outcome, Dropped(lambda: self.dropped.append(outcome.key)))

    def interrupted(self, task: Task, where: Lane) -> Outcome:
        return outcome_of(task, where, kind="interrupted")

    def probe(self, endpoint: Endpoint) -> Health:
        return Health(endpoint, True, "healthy", alive=True)

    def hurry(self) -> None:
        pass

    def abandon(self) -> None:
        self.abandoned.set()


def outcome_of(task: Task, where: Lane, kind: Any = "saved") -> Outcome:
    prompt = task.prompt
    return Outcome(prompt.key, prompt.index, "x", kind, where.endpoint.name, "f", 1, "p")


def in_slot(task: Task, where: Lane) -> None:
    with where.gate:
        pass


def keys(events: object) -> list[str]:
    return [event.outcome.key for event in events if isinstance(event, Saving)]  # type: ignore[attr-defined]


def test_every_prompt_of_every_lane_is_worked_on_once() -> None:
    lanes = [lane(50, index=index, lanes=4) for index in range(4)]
    found = keys(events_of(schedule_of(*lanes), Work(in_slot)))
    assert sorted(found) == sorted(f"{index}-{number}" for index in range(4) for number in range(50))


def test_no_work_is_no_threads_and_no_events() -> None:
    before = threading.active_count()
    assert list(events_of(schedule_of(lane(0), lane(0, index=1)), Work())) == []
    assert threading.active_count() == before


def test_a_start_is_told_before_its_outcome() -> None:
    events = [event for event in events_of(schedule_of(lane(3)), Work(in_slot)) if event]
    for number in range(3):
        key = f"0-{number}"
        begun = next(at for at, one in enumerate(events) if isinstance(one, Started) and one.prompt.key == key)
        ended = next(at for at, one in enumerate(events) if isinstance(one, Saving) and one.outcome.key == key)
        assert begun < ended


@pytest.mark.parametrize("slots", [1, 3])
def test_a_lane_has_one_hand_more_than_slots_and_generates_slots_at_a_time(slots: int) -> None:
    lock = threading.Condition()
    holding = waiting = most_holding = 0
    proof = threading.Event()

    def generate(task: Task, where: Lane) -> None:
        nonlocal holding, waiting, most_holding
        with lock:
            waiting += 1
            if holding == slots:
                proof.set()
            lock.notify_all()
        with where.gate, lock:
            waiting -= 1
            holding += 1
            most_holding = max(most_holding, holding)
            if holding == slots and waiting == 1:
                proof.set()
            lock.notify_all()
            lock.wait_for(lambda: (holding == slots and waiting) or proof.is_set(), timeout=10)
            holding -= 1

    assert len(keys(events_of(schedule_of(lane(10, slots=slots)), Work(generate)))) == 10
    assert proof.is_set()
    assert most_holding == slots


def begun(events: Any, count: int) -> None:
    """Take events until ``count`` prompts have been started."""
    while count:
        count -= isinstance(next(events), Started)


def test_nothing_is_taken_long_before_a_hand_is_free() -> None:
    gate, one = threading.Event(), lane(1000)
    events = events_of(schedule_of(one), Work(lambda task, where: gate.wait(10) and None))
    begun(events, 2)
    assert next(events) is None
    assert len(one.backlog) == 998
    gate.set()
    assert len(keys(events)) == 1000


def test_after_a_stop_what_is_in_flight_ends_and_nothing_new_begins() -> None:
    stop, gate, one = Stop(), threading.Event(), lane(100)
    events = events_of(schedule_of(one, stop=stop), Work(lambda task, where: gate.wait(10) and None))
    begun(events, 2)
    stop.ask("SIGINT")
    gate.set()
    assert sorted(keys(events)) == ["0-0", "0-1"]
    assert len(one.backlog) == 98


def test_who_waits_for_a_slot_when_the_run_stops_is_left_pending() -> None:
    stop, gate, one = Stop(), threading.Event(), lane(100)

    def generate(task: Task, where: Lane) -> None:
        with where.gate:
            gate.wait(10)

    events = events_of(schedule_of(one, stop=stop), Work(generate))
    begun(events, 2)
    stop.ask("SIGINT")
    left = next(event for event in events if event is not None)
    assert isinstance(left, Outcome) and left.outcome == "interrupted"
    gate.set()
    assert len(keys(events)) == 1


def test_leaving_cuts_everything_and_waits_for_nobody() -> None:
    stop, gate = Stop(), threading.Event()
    work = Work(lambda task, where: gate.wait(10) and None)
    events = events_of(schedule_of(lane(5), stop=stop), work)
    begun(events, 2)
    stop.leave("SIGINT")
    assert keys(events) == []
    assert work.abandoned.is_set()
    gate.set()


def test_what_is_in_flight_is_cut_when_the_grace_is_over() -> None:
    stop, one = Stop(), lane(5)
    work = Work()
    work.generate = lambda task, where: work.abandoned.wait(10) and None
    events = events_of(schedule_of(one, stop=stop), work)
    begun(events, 2)
    stop.ask("window")
    stop.ask("SIGTERM", within_s=0.05)
    assert len(keys(events)) == 2  # they ended because they were cut
    assert stop.now


def test_what_a_hand_raises_ends_the_run_and_is_raised() -> None:
    def generate(task: Task, where: Lane) -> None:
        raise ZeroDivisionError(task.prompt.key)

    stop = Stop()
    with pytest.raises(ZeroDivisionError):
        list(events_of(schedule_of(lane(5), stop=stop), Work(generate)))
    assert stop.asked


def test_what_a_hand_raises_waits_for_what_the_others_have_in_flight() -> None:
    begun, stop = threading.Event(), Stop()

    def generate(task: Task, where: Lane) -> None:
        if task.prompt.key == "0-0":
            assert begun.wait(10)
            raise ZeroDivisionError
        begun.set()
        while not stop.asked:
            threading.Event().wait(0.001)

    collected: list[Event | None] = []
    with pytest.raises(ZeroDivisionError):
        for event in events_of(schedule_of(lane(9), stop=stop), Work(generate)):
            collected.append(event)
    assert keys(collected) == ["0-1"]


def test_a_caller_that_goes_away_stops_the_hands_even_with_a_full_queue() -> None:
    before = set(threading.enumerate())
    stop, one = Stop(), lane(10_000)
    work = Work(in_slot)
    events = events_of(schedule_of(one, stop=stop), work)
    begun(events, 1)
    hands = {thread for thread in set(threading.enumerate()) - before if thread.name.startswith("hand")}
    assert hands
    while len(one.backlog) > 9_960:  # the queue holds some events of 2 hands: then they are blocked
        threading.Event().wait(0.001)
    events.close()  # type: ignore[attr-defined]
    for hand in hands:
        hand.join(10)
        assert not hand.is_alive()
    assert len(one.backlog) > 0
    assert work.abandoned.is_set()
    assert work.made and sorted(work.dropped) == sorted(work.made), "no result that nobody took stays behind"


def test_a_stop_keeps_its_first_reason() -> None:
    stop = Stop()
    assert not stop.asked
    stop.ask("SIGTERM")
    stop.leave("SIGINT")
    assert (stop.reason, stop.now, stop.asked) == ("SIGTERM", True, True)


def test_hands_that_were_started_before_one_could_not_be_do_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, started = threading.Thread.start, []

    def two_only(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", two_only)
    with pytest.raises(RuntimeError, match="new thread"):
        list(work_through(schedule_of(lane(1, lanes=2), lane(1, index=1, lanes=2)), Work()))
    for thread in started:
        thread.join(10)
        assert not thread.is_alive()


def test_who_closes_the_iterator_early_gets_control_when_no_hand_is_at_work_any_more() -> None:
    work = Work()
    ended: list[str] = []

    def until_cut(task: Task, where: Lane) -> None:
        work.abandoned.wait(10)
        time.sleep(0.05)  # what is left to do then: a file to close and to remove
        ended.append(task.prompt.key)

    work.generate = until_cut
    events = work_through(schedule_of(lane(2)), work)
    while not any(isinstance(event, Started) for event in next(events)):
        pass
    events.close()
    assert ended
    done = list(ended)
    time.sleep(0.1)
    assert ended == done


def test_with_thousands_of_hands_the_interpreter_is_asked_for_less_often_and_afterwards_as_before() -> None:
    usual_s = sys.getswitchinterval()
    schedule = schedule_of(*(lane(1, slots=64, index=number, lanes=32) for number in range(32)))
    seen = set()
    for _ in work_through(schedule, Work()):
        seen.add(round(sys.getswitchinterval(), 6))
    assert seen == {round(usual_s * 32 * 65 / 500, 6)}
    assert sys.getswitchinterval() == usual_s
