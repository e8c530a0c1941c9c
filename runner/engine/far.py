"""Work that is done elsewhere, by children: what is the same wherever they are, and whoever carries the messages.

The hands of the thread pool ask, and wait; the hands that work are a child's (``child``), and so is the lane's gate:
between two generations nobody waits for this process. When a child is lost, what its hands had is given back
unharmed.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from runner.engine import wire
from runner.engine.work import Bench, Tell
from runner.errors import AttemptError, RunnerError
from runner.health import Health
from runner.records import Endpoint, Event, Failed, Outcome, Submitted, Task, Verdict
from runner.schedule import Away, Gate, Lane, Rule, Schedule, Stopped
from runner.stop import Stop

LOSSES_MAX = 5
"""A prompt that so many worker processes died with is not tried again: it may be what kills them."""

_WRITTEN = ("attempts", "image_s", "save_s", "image_attempts", "excused", "jobs", "alone")
"""What the hands that work write into a task."""

Answer = wire.Done | wire.Found | wire.Raised
Told = Answer | wire.Told


@dataclass(frozen=True, slots=True)
class Question:
    """What a hand has asked; ``answers`` brings what is told and at last the answer, None if there will be none."""

    asked: wire.Do | wire.Probe
    answers: queue.SimpleQueue[Told | None] = field(default_factory=queue.SimpleQueue)

    @property
    def load(self) -> Sequence[Task]:
        return self.asked.load if isinstance(self.asked, wire.Do) else ()

    @property
    def losses(self) -> int:
        """How often a child was lost with one of its tasks."""
        return max((len(task.losses) for task in self.load), default=0)

    def give_back(self, why: str = "") -> None:
        """Answer that its load goes back as it came, and an endpoint goes out if there is a ``why``.

        A probe is asked for again.
        """
        is_load = isinstance(self.asked, wire.Do)
        self.answers.put(wire.Raised(self.asked.hand, Away(why), "", self.load) if is_load else None)


class Carrier(Protocol):
    """Brings messages to the child of a seat, and puts another in its place when it is lost.

    All of it is called with the seat's ``changed`` held.
    """

    @property
    def number(self) -> int:
        """Tells what was lost with the child from what is lost another time."""

    def post(self, message: object) -> None:
        """Bring a message to the child, and wait for nothing."""

    def want(self, lane: int) -> bool:
        """Ask for a task that a hand of the lane only holds ready; tell whether there may be one."""

    def is_gone(self) -> bool:
        """Tell whether there is no child, and will be none."""

    def beside(self) -> tuple[Iterable[Question], int]:
        """Return what is open with all that would be lost together with the child, and how many hands that has."""


class Seat:
    """Where one child sits after another, for the same lanes; and what hands have asked, and wait for.

    ``changed`` guards it, and may guard other seats as well.
    """

    def __init__(self, lanes: Sequence[Lane], stop: Stop, carrier: Carrier, changed: threading.Condition) -> None:
        self.lanes = lanes
        self.carrier = carrier
        self.changed = changed
        self.open: dict[int, Question] = {}
        self.unsettled: set[int] = set()
        self.broken: Exception | None = None
        self._stop = stop
        self._told_stop = False

    def ask(self, asked: wire.Do | wire.Probe, tell: Tell | None = None) -> Answer | None:
        """Return the answer; None if the child was lost, or won't be asked. Raises what broke it all.

        ``tell`` takes, from this thread, what is to be told before the answer comes.
        """
        question = Question(asked)
        with self.changed:
            while question.losses and not self._may_share(question) and not self.leaving:
                self.changed.wait()
            if self.broken:
                raise self.broken
            if self.carrier.is_gone():
                return None
            self.open[asked.hand] = question
            self.carrier.post(asked)
        while isinstance(found := question.answers.get(), wire.Told):
            if tell:
                tell(found.event)
        if found is None and self.broken:
            raise self.broken
        return found

    def heard(self, message: Told) -> None:
        """Pass on what the child has to tell a hand. Raises KeyError if that waits for nothing."""
        if isinstance(message, wire.Told):
            self.open[message.hand].answers.put(message)
            return
        with self.changed:
            question = self.open.pop(message.hand)
            self.changed.notify_all()
        question.answers.put(message)

    def tell(self, message: object) -> None:
        with self.changed:
            self.carrier.post(message)

    def stop(self) -> None:
        """Let the child's hands know that the run should stop, once."""
        with self.changed:
            if not self._told_stop:
                self._told_stop = True
                self.carrier.post("stop")
                self.changed.notify_all()

    def break_off(self, error: Exception) -> None:
        """Let go who waits for an answer, for good."""
        with self.changed:
            self.broken = self.broken or error
            lost, self.open = self.open, {}
            self.changed.notify_all()
        let_go(lost.values())

    @property
    def leaving(self) -> bool:
        """Tell whether nothing more should be begun there."""
        return self.carrier.is_gone() or self._stop.asked or self.broken is not None

    def _may_share(self, question: Question) -> bool:
        """Tell whether a load may be worked on beside what is in hand.

        Of those that children were lost with, the fewer are in hand together the more often that was: one of them may
        be what kills, and the others must not be given up for it.
        """
        beside, hands = self.carrier.beside()
        others = [one.losses for one in beside if one.losses]
        return len(others) < max(1, hands >> 2 * max([question.losses, *others]))


def let_go(lost: Iterable[Question]) -> None:
    """Answer that there is no answer."""
    for question in lost:
        question.answers.put(None)


class Far:
    """The work of the children in these seats, which are given for each lane, by its endpoint's index."""

    def __init__(self, seats: Mapping[int, Seat], stop: Stop, bench: Bench) -> None:
        self._seats = seats
        self._stop = stop
        self._bench = bench

    def __call__(self, load: Sequence[Task], lane: Lane, tell: Tell) -> Sequence[Verdict]:
        """Have a load worked on once. Raises what the work raises; Away if its child is lost."""
        index = lane.endpoint.index
        seat = self._seats[index]

        def told(event: Event) -> None:
            if isinstance(event, Submitted):  # so that it is not lost with the child
                _remember(load, lane, event)
            tell(event)

        answer = seat.ask(wire.Do(threading.get_ident(), index, load), told)
        if answer is None:
            return self._lost(load, lane)
        assert not isinstance(answer, wire.Found)
        for task, written in zip(load, answer.load, strict=False):  # an error may bring none back
            for name in _WRITTEN:
                setattr(task, name, getattr(written, name))
        if isinstance(answer, wire.Raised):
            raise from_afar(answer.error, answer.trace)
        if any(isinstance(verdict, Failed) for verdict in answer.verdicts):
            seat.unsettled.add(threading.get_ident())
        return answer.verdicts

    def _lost(self, load: Sequence[Task], lane: Lane) -> list[Verdict]:
        if self._stop.asked:
            raise Stopped
        for task in load:
            task.losses.append(self._seats[lane.endpoint.index].carrier.number)
        if any(len(task.losses) < LOSSES_MAX for task in load):
            raise Away
        error = f"{LOSSES_MAX} worker processes died while they worked on it"
        return [
            Failed(AttemptError(error, again=False, blame="prompt"), self._bench.lost(task, lane, error))
            for task in load
        ]

    def interrupted(self, task: Task, lane: Lane) -> Outcome:
        return self._bench.interrupted(task, lane)

    def probe(self, endpoint: Endpoint) -> Health:
        question, seat = wire.Probe(threading.get_ident(), endpoint.index), self._seats[endpoint.index]
        answer = seat.ask(question)
        while answer is None and not seat.leaving:  # that its child is lost says nothing about an endpoint
            answer = seat.ask(question)
        if isinstance(answer, wire.Raised):
            raise from_afar(answer.error, answer.trace)
        if isinstance(answer, wire.Found):
            return answer.health
        return Health(endpoint, healthy=False, status="not asked: the run ends")

    def hurry(self) -> None:
        self._tell_all("hurry")

    def abandon(self) -> None:
        self._tell_all("abandon")

    def _tell_all(self, order: wire.Order) -> None:
        for seat in dict.fromkeys(self._seats.values()):
            seat.tell(order)


class FarGate(Gate):
    """Stands for a child's gate."""

    def __init__(self, seat: Seat, lane: Lane, schedule: Schedule) -> None:
        super().__init__(lane.endpoint.slots, schedule.stop)
        self._seat = seat
        self._index = lane.endpoint.index

    def obey(self, rule: Rule) -> None:
        self._seat.tell(wire.Obey(self._index, rule))

    def want(self) -> bool:
        with self._seat.changed:
            return self._seat.carrier.want(self._index)

    def settled(self) -> None:
        hand = threading.get_ident()
        if hand in self._seat.unsettled:
            self._seat.unsettled.discard(hand)
            self._seat.tell(wire.Settled(hand))

    def look(self) -> None:
        self._seat.stop()


class _ElsewhereError(Exception):
    """The traceback of an error that was raised in a child."""


def _remember(load: Sequence[Task], lane: Lane, event: Submitted) -> None:
    for task in load:
        if event.outcome.job and task.prompt.key == event.outcome.key:
            task.jobs[lane.endpoint.name] = event.outcome.job


def from_afar(error: BaseException, trace: str) -> BaseException:
    """Return what a child raised; a bug with its traceback there."""
    if not isinstance(error, RunnerError | Away | Stopped):
        error.__cause__ = _ElsewhereError(f"in a worker process:\n{trace}")
    return error
