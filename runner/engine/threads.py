"""The thread pool: its hands work through the schedule, and what they tell comes out on the calling thread.

``slots + 1`` hands work on a lane. While one has the slot, the other saves the last result and makes the next
request ready, so the endpoint never waits for the runner. A hand takes its next prompt only when it has finished the
last: nothing is taken from the schedule long before its turn, however long the list is.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass

from runner.engine.work import Work
from runner.records import Event, Saving
from runner.schedule import Away, Lane, Schedule, Step, Stopped

TICK_S = 0.2
"""How long the calling thread waits for an event before it looks at the clock and for signals."""

GATHER_S = 0.005
"""The calling thread wakes no more often than this: what comes meanwhile is written down together."""

_ROOM = 64

_ENTERING = 4
"""So many hands wake up at a time when all begin."""

_CROWD = 500
"""With more hands than this the interpreter is asked for less often: each thread that waits for it looks 200 times a
second whether it is free, and when thousands wait at once that is all that the processors do."""

_PATIENCE_MAX_S = 0.1

LEAVE_S = 2.0
"""How long hands may take to end once everything they wait for was cut."""


def work_through(schedule: Schedule, work: Work) -> Iterator[list[Event]]:
    """Work through the schedule and yield the events as they come, and [] whenever ``TICK_S`` passes without one.

    Ends when every prompt has ended; or, once a stop was asked, when what was in flight has. When ``stop.leave_at``
    has come or ``stop.now`` is set, all exchanges are cut and their prompts left pending. What a hand raises stops
    the run like ``stop.ask``, and is raised at the end. When the caller closes the iterator early, everything is cut.
    """
    pool = _Pool(schedule, work)
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(max(usual_s, min(usual_s * pool.most / _CROWD, _PATIENCE_MAX_S)))
    try:
        yield from pool.events()
    finally:
        sys.setswitchinterval(usual_s)


@dataclass(frozen=True, slots=True)
class _Ended:
    """A hand has nothing more to do, or has ``raised`` what ends the run."""

    raised: BaseException | None


class _Pool:
    def __init__(self, schedule: Schedule, work: Work) -> None:
        self._schedule = schedule
        self._stop = schedule.stop
        self._work = work
        self.most = sum(lane.hands for lane in schedule.lanes)
        self._events: queue.Queue[Event | _Ended] = queue.Queue(maxsize=max(_ROOM, 4 * self.most))
        self._executor = ThreadPoolExecutor(max_workers=self.most or 1, thread_name_prefix="hand")
        self._futures: list[Future[None]] = []
        self._refused: RuntimeError | None = None
        self._hands = 0
        self._door = threading.Semaphore(0)
        self._is_open = False
        self._left = False
        self._hurried = False
        self._leave_at = float("inf")
        self._next_look = self._next_gather = 0.0
        self._raised: BaseException | None = None

    def events(self) -> Iterator[list[Event]]:
        try:
            while self._start_hands():
                self._look()
                if time.monotonic() >= self._leave_at:
                    break
                yield self._gathered()
            if left := self._leftovers():
                yield left
            if self._raised is not None:
                raise self._raised
        except BaseException:
            self._stop.leave("error")
            self._schedule.check()
            self._work.abandon()
            self._left = True
            self._open()
            wait(self._futures, LEAVE_S)  # so that nobody is at work with what the caller closes next
            raise
        finally:
            self._left = True
            self._open()
            self._drop_what_nobody_took()
            self._executor.shutdown(wait=False, cancel_futures=True)

    def _gathered(self) -> list[Event]:
        """Return what has come since the last time; wait for it up to ``TICK_S``."""
        found: list[Event] = []
        with suppress(queue.Empty):
            first = self._events.get(timeout=TICK_S)
            time.sleep(max(0.0, self._next_gather - time.monotonic()))
            self._next_gather = time.monotonic() + GATHER_S
            self._sort(first, found)
            while True:
                self._sort(self._events.get_nowait(), found)
        return found

    def _sort(self, event: Event | _Ended, found: list[Event]) -> None:
        if not isinstance(event, _Ended):
            found.append(event)
            return
        self._hands -= 1
        if event.raised is not None:
            self._raised = self._raised or event.raised
            self._stop.ask("error")

    def _start_hands(self) -> int:
        """Start the hands of lanes that have got work; return how many hands there are."""
        if not self._stop.asked:
            if lanes := self._schedule.to_start():
                starter = threading.Thread(target=self._submit, args=[lanes], daemon=True)
                starter.start()  # whom a daemon starts is one too; others look at all there are before they begin
                starter.join()
            self._open()
        if self._refused:
            raise self._refused
        return self._hands

    def _submit(self, lanes: Sequence[Lane]) -> None:
        try:
            for lane in lanes:
                for _ in range(lane.hands):
                    self._futures.append(self._executor.submit(self._hand, lane))
                    self._hands += 1
        except RuntimeError as error:  # no thread for it
            self._refused = error

    def _open(self) -> None:
        """Let the hands begin: threads that work already would slow the start of every further one."""
        if not self._is_open:
            self._is_open = True
            self._door.release(_ENTERING)

    def _look(self) -> None:
        """Look at the clock and for a stop, every now and then."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + TICK_S
        self._schedule.check()
        if not self._stop.asked and not self._schedule.done:
            return
        if not self._hurried:
            self._hurried = True
            self._work.hurry()
        if now >= self._stop.leave_at:
            self._stop.leave("grace")
        if (self._stop.now or self._schedule.outdone) and self._leave_at == float("inf"):
            self._leave_at = now + LEAVE_S
            self._work.abandon()

    def _leftovers(self) -> list[Event]:
        """Return what nobody will work on any more."""
        found: list[Event] = []
        if self._hands:  # some could not be cut; theirs is as if the run had been killed
            with suppress(queue.Empty):
                while True:
                    self._sort(self._events.get_nowait(), found)
        tasks, outcomes = self._schedule.leftovers()
        return [*found, *outcomes, *(self._work.interrupted(task, lane) for lane, task in tasks)]

    def _drop_what_nobody_took(self) -> None:
        """Remove the results that are still in the queue, when the caller has left early."""
        with suppress(queue.Empty):
            while True:
                event = self._events.get_nowait()
                if isinstance(event, Saving):
                    event.part.drop()

    def _tell(self, event: Event | _Ended) -> None:
        """Wait for room in the queue, but for nobody who has left."""
        while not self._left:
            with suppress(queue.Full):
                self._events.put(event, timeout=TICK_S)
                if self._left:  # meanwhile, and perhaps looked before this was in
                    self._drop_what_nobody_took()
                return
        if isinstance(event, Saving):
            event.part.drop()

    def _hand(self, lane: Lane) -> None:
        """Work for a lane, and tell how it ended."""
        raised: BaseException | None = None
        self._door.acquire()
        self._door.release()  # each lets the next one in
        try:
            self._work_for(lane)
        except BaseException as error:  # noqa: BLE001 - raised again on the calling thread
            raised = error
        self._tell(_Ended(raised))

    def _work_for(self, lane: Lane) -> None:
        """Do step after step of the lane until there are none."""
        schedule = self._schedule
        while (step := schedule.take(lane)) is not Step.END:
            if isinstance(step, Step):
                events = schedule.probed(lane, self._work.probe(lane.endpoint))
            else:
                for task in step:
                    self._tell(schedule.started(lane, task))
                try:
                    events = schedule.settle(lane, step, self._work(step, lane, self._tell))
                    lane.gate.settled()
                except Away as away:
                    events = schedule.give_back(lane, step, away.why)
                except Stopped:
                    outcomes = [self._work.interrupted(task, lane) for task in step]
                    events = schedule.abandon(lane, step, outcomes)
            for event in events:
                self._tell(event)
