"""Whose fault a failure is, and what becomes of the prompt and of its endpoint.

A failure that is certainly the endpoint's (nothing reached it) uses up none of a prompt's attempts. One that
may be either's is charged to the prompt, and counts against the endpoint unless that prompt had failed before. If the
endpoint then goes out, its charges are taken back, once for each prompt and endpoint. A prompt whose attempts are
used up while its last endpoint is in doubt is held until that endpoint has shown, by a result or by its health, whose
fault it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from runner import settings
from runner.errors import AttemptError, BusyError, ImageError
from runner.lanes import next_choice
from runner.records import Back, Event, Failed, Out, Outcome, Retrying, Saving, Task
from runner.retry import back_off, wait_before_next
from runner.schedule.lane import Lane, wake_all
from runner.schedule.queues import Queues
from runner.stop import Stop


class Blame:
    """Settles what failed and what succeeded. The schedule's lock is held.

    ``open``: so many prompts have not ended. ``down_s``: so long no endpoint was of use; ``seen_alive``: one was.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        queues: Queues,
        stop: Stop,
        *,
        failover: bool,
        retry: settings.Retry,
        clock: Callable[[], float],
    ) -> None:
        self.open = sum(len(lane.backlog) for lane in lanes)
        self.down_s = 0.0
        self.seen_alive = False
        self._lanes = lanes
        self._queues = queues
        self._stop = stop
        self._failover = failover
        self._retry = retry
        self._clock = clock

    def failed(self, lane: Lane, task: Task, verdict: Failed, *, counts: bool = True) -> list[Event]:
        """Decide what becomes of a task that failed: another attempt, the end, or a wait for its endpoint's proof."""
        error = verdict.error
        events: list[Event] = []
        cut = self._stop.asked and isinstance(error, ImageError) and error.again
        if self._stop.now or cut:
            return self.end(self._interrupted(verdict))
        if isinstance(error, ImageError):
            wait_s = wait_before_next(error, task.image_attempts, self._retry)
            target: Lane | None = lane
        else:
            task.asked.append(lane.endpoint.index)
            if error.blame == "prompt":
                answered = self.succeeded(lane) if error.status is not None else []
                return [*answered, *self.end(verdict.outcome)]
            if isinstance(error, BusyError):
                wait_s, target = self.cool(lane, task, error, counts=counts)
            else:
                events = self.charge(lane, task, error, counts=counts)
                wait_s, target = self._after_charge(lane, task, error)
        if wait_s is None or target is None:
            if error.blame == "endpoint" and error.again and lane.breaker.state == "in" and lane.breaker.failures:
                lane.held.append((task, verdict.outcome))
                wake_all(self._lanes)
                return events
            return [*events, *self.end(verdict.outcome)]
        if self._stop.asked:
            return [*events, *self.end(self._interrupted(verdict))]
        if target.breaker.state != "in":
            target = self._queues.target(target, task, self._clock())
        self._queues.put(target, task, self._clock() + wait_s)
        number = task.image_attempts if isinstance(error, ImageError) else len(task.attempts)
        return [Retrying(task.prompt, lane.endpoint, str(error), number, wait_s, target.endpoint), *events]

    def succeeded(self, lane: Lane) -> list[Event]:
        """Take note that the endpoint does what it should: what failed before was the prompts' fault."""
        out_s = self._clock() - lane.breaker.out_since
        back = lane.breaker.succeed()
        self.seen_alive = True
        self.down_s = 0.0
        lane.unsettled.clear()
        held, lane.held = lane.held, []
        events: list[Event] = [event for _, outcome in held for event in self.end(outcome)]
        if back:
            lane.last_error = ""
            self._queues.redeal(self._clock())
            wake_all(self._lanes)
            events.append(Back(lane.endpoint, out_s))
        return events

    def went_out(self, lane: Lane) -> list[Event]:
        """Do what follows when an endpoint goes out: take back its charges, and deal its prompts to the others."""
        self._forgive(lane)
        held, lane.held = lane.held, []  # it has forgiven them before
        events: list[Event] = [event for _, outcome in held for event in self.end(outcome)]
        before = len(lane.backlog) + len(lane.adopted) + len(lane.again)
        self._queues.redeal(self._clock())
        moved = before - len(lane.backlog) - len(lane.adopted) - len(lane.again)
        wake_all(self._lanes)
        return [Out(lane.endpoint, lane.last_error, moved), *events]

    def end(self, event: Saving | Outcome) -> list[Event]:
        """Count a prompt as ended."""
        self.open -= 1
        if not self.open:
            wake_all(self._lanes)
        return [event]

    def cool(self, lane: Lane, task: Task, error: BusyError, *, counts: bool = True) -> tuple[float, Lane]:
        """Let a full endpoint be for a while, once a batch; return the wait and the lane for the task."""
        now = self._clock()
        if error.wait_s == 0:
            return 0.0, lane
        if counts:
            lane.breaker.cool(now, error.wait_s)
        lane.last_error = str(error)
        wake_all(self._lanes)
        target = self._queues.target(lane, task, self._clock())
        return max(0.0, target.breaker.cool_until - now), target

    def charge(self, lane: Lane, task: Task, error: AttemptError, *, counts: bool = True) -> list[Event]:
        """Lay a failure at the endpoint's door, and at the prompt's where it may be its fault."""
        lane.last_error = str(error)
        suspect = bool(task.charged or task.forgiven)
        if error.reached:
            task.charged.append(lane.endpoint.index)
            lane.unsettled.append(task)
        opened = lane.breaker.fail(self._clock(), counts=counts and not (error.reached and suspect))
        if opened:
            return self.went_out(lane)
        if lane.breaker.state == "out":
            self._forgive(lane)
        wake_all(self._lanes)
        return []

    def _after_charge(self, lane: Lane, task: Task, error: AttemptError) -> tuple[float | None, Lane | None]:
        """Return when and where the task has another attempt; None if it has none."""
        used = len(task.charged)
        if used >= self._retry.attempts:
            return None, None
        if not error.again:
            return self._elsewhere(task)
        target = self._queues.target(lane, task, self._clock())
        if target is not lane and not error.reached:
            return 0.0, target
        return back_off(max(used, 1), self._retry), target

    def _elsewhere(self, task: Task) -> tuple[float | None, Lane | None]:
        """Return when and where a task that has a final answer may be asked for again: where it was not yet."""
        fresh = [one for one in self._queues.serving() if one not in task.asked] if self._failover else []
        choice = next_choice(task.prompt.index, len(self._lanes), task.asked, fresh)
        return (None, None) if choice is None else (0.0, self._lanes[choice])

    def _forgive(self, lane: Lane) -> None:
        """Take back what was charged for failures of this endpoint, once for each prompt."""
        index, now = lane.endpoint.index, self._clock()
        for task in lane.unsettled:
            if index not in task.forgiven:
                task.forgiven.add(index)
                task.charged[:] = [one for one in task.charged if one != index]
        lane.unsettled.clear()
        for one in self._lanes:
            freed = [held for held in one.held if len(held[0].charged) < self._retry.attempts]
            if freed:
                one.held = [held for held in one.held if held not in freed]
                for task, _ in freed:
                    self._queues.put(self._queues.target(one, task, now), task, now)

    def _interrupted(self, verdict: Failed) -> Outcome:
        return replace(verdict.outcome, outcome="interrupted", blame=None, error=f"stopped ({self._stop.reason})")
