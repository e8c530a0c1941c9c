"""A lane on Dask's workers: which of them has its child, and how it moves to another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from math import inf

from runner.engine import wire
from runner.engine.far import FarGate, Question, Seat, from_afar, let_go
from runner.engine.link import Link
from runner.errors import StorageError
from runner.health import Health
from runner.schedule import Lane, Rule, Schedule


class Berth:
    """Carries the messages of one lane's child. ``changed`` guards it, and is one for all lanes.

    What is asked while there is no child waits for the next one. Before a lane moves, its gate is closed: hands that
    stand there come back with Away, and what the endpoint generates ends where it began. So a lane never has two
    owners at once.
    """

    def __init__(
        self,
        lane: Lane,
        schedule: Schedule,
        changed: threading.Condition,
        *,
        new_child: Callable[[Berth], int],
        company: Callable[[Link], Sequence[Berth]],
    ) -> None:
        """``new_child`` returns a number for one, ``company`` all lanes that a Dask worker has."""
        self.lane = lane
        self.seat = Seat([lane], schedule.stop, self, changed)
        self.link: Link | None = None
        self.target: Link | None = None
        """Where it moves to, once nothing is in hand any more."""
        self.number = 0
        self.absent = ""
        """Why nobody will be there for it for now, as far as anybody knows: then its endpoint is out."""
        self.free_at = 0.0
        """When its last owner has surely let go of its endpoint, on the monotonic clock."""
        self._schedule = schedule
        self._stop = schedule.stop
        self._new_child = new_child
        self._child = 0
        self._sent: set[int] = set()
        self._company = company
        lane.gate = FarGate(self.seat, lane, schedule)

    # What is asked of a carrier; ``changed`` is held.

    def post(self, message: object) -> None:
        if self.absent and isinstance(message, wire.Do | wire.Probe):
            self._turn_down(self.seat.open.pop(message.hand))
            return
        if self.link is None or self.target:
            if message == "stop":
                self._drop_what_waits()
            if self.link is None or isinstance(message, wire.Do | wire.Probe | wire.Obey):
                return  # the next child is told
        if isinstance(message, wire.Do | wire.Probe):
            self._sent.add(message.hand)
        self.link.put(self._child, message)

    def want(self, lane: int) -> bool:
        if self.link and not self.target:
            self.link.put(self._child, wire.Want(lane))
            return True
        for hand, question in self.seat.open.items():
            if hand not in self._sent and isinstance(question.asked, wire.Do):
                del self.seat.open[hand]
                question.give_back()
                return True
        return False

    def is_gone(self) -> bool:
        return self.link is None and self._stop.asked

    def beside(self) -> tuple[Iterable[Question], int]:
        berths = self._company(self.link) if self.link else [self]
        return (
            [one for berth in berths for one in berth.seat.open.values()],
            sum(berth.lane.hands for berth in berths),
        )

    # What the event loop does, with ``changed`` held.

    def sit(self, link: Link) -> None:
        """Begin a child on a worker, and ask it what waits."""
        self.link, self.target, self._child, self.absent = link, None, self._new_child(self), ""
        self.number = link.number
        link.put(self._child, wire.Begin(self.lane.endpoint, self.lane.rule))
        self._ask_what_waits()

    def move(self, target: Link) -> None:
        """Begin to leave for another worker, or don't leave if it is the same."""
        if self.link is None or target is self.link:
            if self.target and self.link:
                self.target = None
                self.link.put(self._child, wire.Obey(self.lane.endpoint.index, self.lane.rule))
                self._ask_what_waits()
            return
        if not self.target:
            closed = Rule(self.lane.endpoint.slots, closed_until=inf)
            self.link.put(self._child, wire.Obey(self.lane.endpoint.index, closed))
        self.target = target
        self._go_if_free()

    def give_up(self, why: str) -> None:
        """Answer all that waits, and will be asked before there is a worker, that there is none."""
        self.absent = why
        for hand in [hand for hand in self.seat.open if hand not in self._sent]:
            self._turn_down(self.seat.open.pop(hand))

    def lost(self, free_at: float) -> list[Question]:
        """Take note that the worker is gone; return what it had in hand."""
        self.free_at = free_at
        gone = [self.seat.open.pop(hand) for hand in self._sent if hand in self.seat.open]
        self._sent.clear()
        self.seat.unsettled.clear()
        self.link = self.target = None
        if self._stop.asked:
            self._drop_what_waits()
        return gone

    @property
    def waits(self) -> bool:
        """Tell whether something was asked, and there is nobody to do it."""
        return self.link is None and bool(self.seat.open)

    # What the event loop does.

    def heard(self, child: int, message: object) -> None:
        """Pass on what a child has said. Raises what kept it from beginning, and what is its Dask worker's fault."""
        match message:
            case wire.Declined():  # that of an earlier one, too: somebody waits for it
                self._schedule.declined(self.lane)
            case _ if child != self._child:
                return
            case wire.Unseated() | wire.Raised(error=StorageError()):
                raise from_afar(message.error, message.trace)
            case wire.Told() | wire.Done() | wire.Found() | wire.Raised():
                with suppress(KeyError):  # nobody waits for it any more
                    self.seat.heard(message)
                if not isinstance(message, wire.Told):
                    with self.seat.changed:
                        self._sent.discard(message.hand)
                        self._go_if_free()

    def decline(self) -> None:
        """Answer all lanes that asked for a task that a hand of this one held ready: it was lost."""
        while self.lane.wanted:
            self._schedule.declined(self.lane)

    def _go_if_free(self) -> None:
        if self.target and self.link and not self._sent:
            self.link.put(self._child, wire.End())
            if self._stop.asked:
                self.link = self.target = None
                self._drop_what_waits()
            else:
                self.sit(self.target)

    def _ask_what_waits(self) -> None:
        assert self.link
        for hand, question in self.seat.open.items():
            if hand not in self._sent:
                self._sent.add(hand)
                self.link.put(self._child, question.asked)

    def _turn_down(self, question: Question) -> None:
        if isinstance(question.asked, wire.Do):
            question.give_back(self.absent)
            return
        health = Health(self.lane.endpoint, healthy=False, status=self.absent, refused=True)
        question.answers.put(wire.Found(question.asked.hand, health))

    def _drop_what_waits(self) -> None:
        waiting = [hand for hand in self.seat.open if hand not in self._sent]
        let_go([self.seat.open.pop(hand) for hand in waiting])
