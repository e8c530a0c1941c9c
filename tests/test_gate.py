"""Who may pass the gate of a lane, and when; with a clock that stands still until it is moved."""

import threading
from math import inf

import pytest

from runner.errors import ResultError
from runner.schedule import Away, Gate, Rule, Stopped
from runner.stop import Stop


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_so_many_pass_at_a_time_as_the_rule_says(clock: Clock) -> None:
    gate = Gate(2, Stop(), clock)
    with gate:
        assert gate.may_pass()
        with gate:
            assert not gate.may_pass()
            gate.obey(Rule(3))
            assert gate.may_pass()
            gate.obey(Rule(1))
        assert not gate.may_pass()
    assert gate.may_pass()


def test_nobody_passes_before_it_opens(clock: Clock) -> None:
    gate = Gate(1, Stop(), clock)
    gate.obey(Rule(1, opens_at=1000.5))
    assert not gate.may_pass()
    clock.now += 0.5
    assert gate.may_pass()


def test_nobody_waits_while_it_is_closed(clock: Clock) -> None:
    gate = Gate(1, Stop(), clock)
    gate.obey(Rule(1, closed_until=1030))
    with pytest.raises(Away):
        gate.may_pass()
    clock.now += 30
    assert gate.may_pass()
    gate.obey(Rule(1, closed_until=inf))
    with pytest.raises(Away), gate:
        pass
    assert gate.standing == gate.generating == 0


def test_after_a_failure_nobody_passes_before_it_is_settled(clock: Clock) -> None:
    gate = Gate(1, Stop(), clock)
    with pytest.raises(ResultError), gate:
        raise ResultError("no result")
    assert not gate.may_pass()
    other = threading.Thread(target=gate.settled)
    other.start()
    other.join()
    assert not gate.may_pass(), "only who failed knows"
    gate.settled()
    assert gate.may_pass()


def test_a_wish_is_granted_by_one_that_stands_ready_and_only_by_that(clock: Clock) -> None:
    gate = Gate(1, Stop(), clock)
    assert not gate.want(), "nobody stands there"
    gate.standing = 1
    assert gate.want()
    assert not gate.want(), "each can be promised once"
    with pytest.raises(Away):
        gate.may_pass()
    assert gate.may_pass()


def test_who_waits_sees_a_new_rule_and_a_stop() -> None:
    stop = Stop()
    gate = Gate(1, stop)
    gate.obey(Rule(0))
    said: list[type[BaseException] | None] = []
    begun = [threading.Event(), threading.Event()]

    def hand(number: int) -> None:
        try:
            begun[number].set()
            with gate:
                said.append(None)
        except (Away, Stopped) as reason:
            said.append(type(reason))

    for number, change in enumerate((lambda: gate.obey(Rule(0, closed_until=inf)), lambda: stop.ask("SIGINT"))):
        gate.obey(Rule(0))
        thread = threading.Thread(target=hand, args=[number])
        thread.start()
        begun[number].wait()
        change()
        gate.look()
        thread.join(5)
    assert said == [Away, Stopped]
