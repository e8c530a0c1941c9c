import threading
from collections import deque

import pytest

from runner.pool import Lane, Tell, work_through
from runner.records import Endpoint, Outcome, Prompt, Started
from runner.stop import Stop


def lane(prompts: int, *, slots: int = 1, index: int = 0) -> Lane:
    endpoint = Endpoint(index, f"http://h:{index}", f"e{index}", f"port {index}", slots)
    return Lane(endpoint, deque(Prompt(number, f"{index}-{number}", "x") for number in range(prompts)))


def outcome(prompt: Prompt, where: Lane) -> Outcome:
    return Outcome(prompt.key, prompt.index, "x", "saved", where.endpoint.name, "f", 1, "p")


def quick(prompt: Prompt, where: Lane, tell: Tell) -> Outcome:
    with where.slot:
        return outcome(prompt, where)


def keys(events: object) -> list[str]:
    return [event.key for event in events if isinstance(event, Outcome)]  # type: ignore[attr-defined]


def test_every_prompt_of_every_lane_is_worked_on_once() -> None:
    lanes = [lane(50, index=index) for index in range(4)]
    found = keys(work_through(lanes, quick, Stop()))
    assert sorted(found) == sorted(f"{index}-{number}" for index in range(4) for number in range(50))


def test_no_work_is_no_threads_and_no_events() -> None:
    before = threading.active_count()
    assert list(work_through([lane(0), lane(0, index=1)], quick, Stop())) == []
    assert threading.active_count() == before


def test_a_start_is_told_before_its_outcome() -> None:
    events = [event for event in work_through([lane(3)], quick, Stop()) if event]
    for number in range(3):
        key = f"0-{number}"
        begun = next(at for at, one in enumerate(events) if isinstance(one, Started) and one.prompt.key == key)
        ended = next(at for at, one in enumerate(events) if isinstance(one, Outcome) and one.key == key)
        assert begun < ended


@pytest.mark.parametrize("slots", [1, 3])
def test_a_lane_has_one_hand_more_than_slots_and_generates_slots_at_a_time(slots: int) -> None:
    lock = threading.Condition()
    holding = waiting = most_holding = 0
    proof = threading.Event()

    def work(prompt: Prompt, where: Lane, tell: Tell) -> Outcome:
        nonlocal holding, waiting, most_holding
        with lock:
            waiting += 1
            if holding == slots:
                proof.set()
            lock.notify_all()
        with where.slot, lock:
            waiting -= 1
            holding += 1
            most_holding = max(most_holding, holding)
            if holding == slots and waiting == 1:
                proof.set()
            lock.notify_all()
            lock.wait_for(lambda: (holding == slots and waiting) or proof.is_set(), timeout=10)
            holding -= 1
        return outcome(prompt, where)

    assert len(keys(work_through([lane(10, slots=slots)], work, Stop()))) == 10
    assert proof.is_set()
    assert most_holding == slots


def test_nothing_is_taken_long_before_a_hand_is_free() -> None:
    gate = threading.Event()
    one = lane(1000)

    def work(prompt: Prompt, where: Lane, tell: Tell) -> Outcome:
        gate.wait(10)
        return outcome(prompt, where)

    events = work_through([one], work, Stop())
    assert isinstance(next(events), Started)
    assert isinstance(next(events), Started)
    assert next(events) is None
    assert len(one.backlog) == 998
    gate.set()
    assert len(keys(events)) == 1000


def test_after_a_stop_what_is_in_flight_ends_and_nothing_new_begins() -> None:
    stop, gate, one = Stop(), threading.Event(), lane(100)

    def work(prompt: Prompt, where: Lane, tell: Tell) -> Outcome:
        gate.wait(10)
        return outcome(prompt, where)

    events = work_through([one], work, stop)
    next(events), next(events)
    stop.ask("SIGINT")
    gate.set()
    assert sorted(keys(events)) == ["0-0", "0-1"]
    assert len(one.backlog) == 98


def test_leaving_now_waits_for_nobody() -> None:
    stop, gate = Stop(), threading.Event()

    def work(prompt: Prompt, where: Lane, tell: Tell) -> Outcome:
        gate.wait(10)
        return outcome(prompt, where)

    events = work_through([lane(5)], work, stop)
    next(events), next(events)
    stop.leave("SIGINT")
    assert keys(events) == []
    gate.set()


def test_what_a_hand_raises_ends_the_run_and_is_raised() -> None:
    def work(prompt: Prompt, where: Lane, tell: Tell) -> Outcome:
        raise ZeroDivisionError(prompt.key)

    stop = Stop()
    with pytest.raises(ZeroDivisionError):
        list(work_through([lane(5)], work, stop))
    assert stop.asked


def test_what_a_hand_raises_waits_for_what_the_others_have_in_flight() -> None:
    begun, stop = threading.Event(), Stop()

    def work(prompt: Prompt, where: Lane, tell: Tell) -> Outcome:
        if prompt.key == "0-0":
            assert begun.wait(10)
            raise ZeroDivisionError
        begun.set()
        assert stop.wait(10)
        return outcome(prompt, where)

    collected: list[object] = []
    with pytest.raises(ZeroDivisionError):
        for event in work_through([lane(9)], work, stop):
            collected.append(event)
    assert keys(collected) == ["0-1"]


def test_a_caller_that_goes_away_stops_the_hands_even_with_a_full_queue() -> None:
    before = set(threading.enumerate())
    stop, one = Stop(), lane(10_000)
    events = work_through([one], quick, stop)
    next(events)
    hands = set(threading.enumerate()) - before
    assert hands
    while len(one.backlog) > 9_996:  # the queue holds 8 events of 2 hands: then they are blocked
        threading.Event().wait(0.001)
    events.close()  # type: ignore[attr-defined]
    for hand in hands:
        hand.join(10)
        assert not hand.is_alive()
    assert len(one.backlog) > 0


def test_a_stop_keeps_its_first_reason_and_ends_a_wait() -> None:
    stop = Stop()
    assert stop.wait(0) is False
    stop.ask("SIGTERM")
    stop.leave("SIGINT")
    assert (stop.reason, stop.now, stop.wait(60)) == ("SIGTERM", True, True)
