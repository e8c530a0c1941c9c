"""The schedule against random faults, seed by seed, in a simulated time: every prompt ends once, and every run ends.

The hands are simulated too: what they wait for, who wakes them, and in which order they get on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import pytest
from conftest import Nowhere

from runner.errors import AttemptError, BusyError, ImageError, StatusError, TransportError
from runner.health import Health
from runner.lanes import deal
from runner.records import Attempt, Endpoint, Event, Failed, Outcome, Prompt, Saving, Task
from runner.schedule import Away, Gate, Lane, Schedule, Step, Stopped
from runner.settings import Health as HealthSettings
from runner.settings import Retry
from runner.stop import Stop

SEEDS = 400
WINDOWS = 80
MOODS = ["well", "well", "dead", "500", "404", "busy", "reset", "old"]


@dataclass(eq=False)
class Hand:
    """A thread that was never started: what it is about to do, and until when it is busy or asleep."""

    lane: Lane
    about_to: str = "take"
    task: Task | None = None
    error: AttemptError | None = None
    until: float = 0.0
    waits_for: Condition | None = None


@dataclass(eq=False)
class Condition:
    """Stands in for ``threading.Condition``: remembers who waits, and lets them go on."""

    waiting: list[Hand] = field(default_factory=list)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def notify(self, count: int = 1) -> None:
        for hand in self.waiting[:count]:
            hand.until, hand.waits_for = 0.0, None
        del self.waiting[:count]

    def notify_all(self) -> None:
        self.notify(len(self.waiting))


class Simulation:
    """One random run. ``heals_at``: from then on each endpoint is either well or dead for good."""

    def __init__(self, seed: int, *, window: bool = False) -> None:
        self.chance = random.Random(seed)
        random.seed(seed)  # the back-off draws on it
        pick = self.chance.choice
        count, self.now = self.chance.randint(1, 5), 1000.0
        self.failover = self.chance.random() < 0.7
        prompts = [Prompt(index, f"p{index}", "x") for index in range(self.chance.randint(1, 25))]
        self.prompts = [one for one in prompts if self.chance.random() < pick([0.4, 1.0])] or prompts[:1]
        self.lanes = [
            Lane(Endpoint(index, f"http://h:{index}", f"e{index}", f"port {index}", pick([1, 1, 2, 3])), backlog)
            for index, backlog in enumerate(deal((one.index for one in self.prompts), count))
        ]
        self.ends_at = 1000.0 + self.chance.uniform(1, 150) if window else inf
        self.began: dict[str, float] = {}
        health = HealthSettings(failures_to_open=self.chance.randint(1, 3), probe_every_s=pick([1, 15]))
        retry = Retry(attempts=self.chance.randint(1, 4), backoff_s=pick([0, 1.5]))
        self.schedule = Schedule(
            self.lanes,
            prompts,
            Stop(),
            failover=self.failover,
            steal=self.chance.random() < 0.5,
            hedge=self.chance.random() < 0.5,
            retry=retry,
            health=health,
            ends_at=self.ends_at,
            clock=lambda: self.now,
        )
        for lane in self.lanes:
            lane.work = Condition()  # type: ignore[assignment]
            lane.gate.changed = Condition()  # type: ignore[assignment]
        self.hands: list[Hand] = []
        self.ended: Counter[str] = Counter()
        self.heals_at = 1000.0 + pick([0, 5, 30, 120])
        self.well = [self.chance.random() < 0.6 for _ in self.lanes]
        self.moods = [pick(MOODS) for _ in self.lanes]
        self.poison = {one.key for one in self.prompts if self.chance.random() < 0.05}

    def run(self) -> str | None:
        """Let it come to its end; return why it stopped, if it did."""
        for _ in range(100_000):
            for lane in self.schedule.to_start():
                self.hands += [Hand(lane) for _ in range(lane.hands)]
            self.check()
            ready = [hand for hand in self.hands if hand.until <= self.now]
            if ready:
                self.go_on(self.chance.choice(ready))
            elif not self.hands or self.schedule.stop.asked:
                return self.schedule.stop.reason
            else:
                self.pass_time()
        raise AssertionError("it goes round in circles")

    def pass_time(self) -> None:
        self.schedule.check()
        assert self.now < self.heals_at + 5000, "it hangs"
        self.now = max(self.now + 0.001, min(self.now + 5, *(hand.until for hand in self.hands)))
        for hand in self.hands:
            if hand.waits_for and hand.until <= self.now:
                hand.waits_for.waiting.remove(hand)
                hand.waits_for = None

    def check(self) -> None:
        """Every prompt is in one place, or has ended once; the schedule counts right."""
        places = Counter(f"p{one}" for lane in self.lanes for one in (*lane.backlog, *lane.adopted))
        places.update(task.prompt.key for lane in self.lanes for _, _, task in lane.again)
        places.update(task.prompt.key for lane in self.lanes for task, _ in lane.held)
        flying = Counter(hand.task.prompt.key for hand in self.hands if hand.task)
        assert max(flying.values(), default=0) <= 2
        places.update({*flying} - {*self.ended})
        assert places + self.ended == Counter(one.key for one in self.prompts)
        assert self.schedule.done == (len(self.prompts) == self.ended.total())
        for lane in self.lanes:
            mine = [hand for hand in self.hands if hand.lane is lane]
            assert len(mine) in (0, lane.hands) or self.schedule.done
            assert lane.gate.standing == sum(1 for hand in mine if hand.about_to == "enter")
            assert lane.asking == sum(one.wanted.count(lane) for one in self.lanes)
            assert lane.taken == sum(1 for hand in mine if hand.task)
            assert lane.gate.generating == sum(1 for hand in mine if hand.about_to == "hear") <= lane.endpoint.slots

    def go_on(self, hand: Hand) -> None:
        getattr(self, hand.about_to)(hand)

    def then(self, hand: Hand, about_to: str, *seconds: float) -> None:
        hand.about_to, hand.until = about_to, self.now + self.chance.choice(seconds or (0.0,))

    def wait(self, hand: Hand, condition: Any, seconds: float) -> None:
        hand.until, hand.waits_for = self.now + max(seconds, 0.001), condition
        condition.waiting.append(hand)

    def take(self, hand: Hand) -> None:
        if self.schedule.done or self.schedule.stop.asked:
            hand.until = inf
            if self.schedule.done:
                self.hands.remove(hand)
            return
        step = self.schedule.step(hand.lane, self.now)
        if isinstance(step, float):
            self.wait(hand, hand.lane.work, step)
        elif isinstance(step, Step):
            self.then(hand, "probe", 0.0, 0.3)
        else:
            hand.task = step
            self.then(hand, "fetch", 0.0, 0.5, 3.0)

    def probe(self, hand: Hand) -> None:
        alive = self.is_well(hand.lane)
        self.then(hand, "take")
        found = Health(hand.lane.endpoint, alive, "healthy" if alive else "refused", alive=alive, refused=not alive)
        self.hear_of(self.schedule.probed(hand.lane, found))

    def fetch(self, hand: Hand) -> None:
        assert hand.task
        if self.chance.random() < 0.1:
            hand.task.image_attempts += 1
            hand.error = ImageError("503", again=True)
            self.settle(hand)
        else:
            hand.task.image_attempts = 0
            hand.lane.gate.standing += 1
            self.then(hand, "enter")

    def enter(self, hand: Hand) -> None:
        assert hand.task
        lane, task, gate = hand.lane, hand.task, hand.lane.gate
        try:
            free = gate.may_pass()
        except (Away, Stopped) as away:
            hand.task = None
            gate.standing -= 1
            self.then(hand, "take")
            if isinstance(away, Away):
                self.hear_of(self.schedule.give_back(lane, [task]))
            else:
                self.hear_of(self.schedule.abandon(lane, [task], [self.outcome(lane, task, "interrupted")]))
            return
        if not free:
            self.wait(hand, gate.changed, gate.rule.opens_at - self.now if gate.rule.opens_at > self.now else inf)
            return
        gate.standing -= 1
        gate.generating += 1
        assert self.now < min(gate.rule.closes_at, self.ends_at), "begun too late"
        self.began[task.prompt.key] = self.now
        task.attempts.append(None)  # type: ignore[arg-type]
        self.then(hand, "hear", 0.0, 0.5, 10.0)

    def hear(self, hand: Hand) -> None:
        assert hand.task
        hand.error = self.verdict(hand.lane, hand.task)
        self.then(hand, "settle", 0.0, 0.3)
        self.as_hand(hand, lambda gate: gate.__exit__(None, hand.error, None))

    def settle(self, hand: Hand) -> None:
        assert hand.task
        lane, task, error, hand.task, hand.error = hand.lane, hand.task, hand.error, None, None
        self.then(hand, "take")
        if error is None:
            attempt = Attempt(1, lane.endpoint.name, "", generate_s=self.now - self.began[task.prompt.key])
            saving = Saving(replace(self.outcome(lane, task, "saved"), attempts=(attempt,)), Nowhere())
            self.hear_of(self.schedule.settle(lane, [task], [saving]))
        else:
            self.hear_of(self.schedule.settle(lane, [task], [Failed(error, self.outcome(lane, task, "failed"))]))
        self.as_hand(hand, Gate.settled)

    def as_hand(self, hand: Hand, do: Callable[[Gate], None]) -> None:
        """Do something with the hand's gate, as its thread."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("runner.schedule.gate.threading.get_ident", lambda: id(hand))
            do(hand.lane.gate)

    def is_well(self, lane: Lane) -> bool:
        index = lane.endpoint.index
        return self.well[index] if self.now >= self.heals_at else self.moods[index] != "dead"

    def verdict(self, lane: Lane, task: Task) -> AttemptError | None:
        index = lane.endpoint.index
        if self.now >= self.heals_at:
            mood = "well" if self.well[index] else self.chance.choice(["dead", "reset"])
        else:
            mood = self.moods[index]
            if self.chance.random() < 0.2:
                self.moods[index] = self.chance.choice(MOODS)
        if mood == "well" and task.prompt.key in self.poison:
            mood = "500"
        return {
            "dead": TransportError("refused", reached=False),
            "reset": TransportError("reset"),
            "500": StatusError("500", again=True, blame="endpoint", status=500),
            "404": StatusError("404", again=False, blame="endpoint", status=404),
            "busy": BusyError("429", wait_s=self.chance.choice([None, 3, 30])),
            "old": BusyError("old", wait_s=0),
            "well": None,
        }[mood]

    def outcome(self, lane: Lane, task: Task, kind: Any) -> Outcome:
        return Outcome(task.prompt.key, task.prompt.index, "x", kind, lane.endpoint.name, "f", 1, "p")

    def hear_of(self, events: list[Event]) -> None:
        outcomes = [event.outcome if isinstance(event, Saving) else event for event in events]
        self.ended.update(one.key for one in outcomes if isinstance(one, Outcome) and one.outcome != "dropped")


@pytest.mark.parametrize("tenth", range(10))
def test_every_prompt_ends_once_and_every_run_ends(tenth: int) -> None:
    for seed in range(tenth, SEEDS, 10):
        simulation = Simulation(seed)
        try:
            reason = simulation.run()
            if reason is None:
                assert simulation.ended.total() == len(simulation.prompts)
            else:
                assert reason == "down"
                healed = [lane for lane in simulation.lanes if simulation.well[lane.endpoint.index]]
                assert (
                    not any(lane.waiting or lane.held or simulation.failover for lane in healed) or simulation.poison
                )
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("half", range(2))
def test_with_a_window_nothing_is_begun_too_late_and_nothing_ends_for_it(half: int) -> None:
    for seed in range(half, WINDOWS, 2):
        simulation = Simulation(seed, window=True)
        try:
            reason = simulation.run()
            if reason is None:
                assert simulation.ended.total() == len(simulation.prompts)
            elif reason == "window" and simulation.now < simulation.ends_at:
                lanes = simulation.lanes
                assert not any(lane.taken or lane.held for lane in lanes), "it ended before its time"
                assert all(simulation.now >= lane.rule.closes_at for lane in lanes if lane.waiting)
            assert simulation.now < simulation.ends_at + 6, "all that is in flight has ended"
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
