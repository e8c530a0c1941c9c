"""What every hand does next: whose prompt, on which endpoint, and when. Knows neither HTTP nor files.

One lock guards it all. Prompts wait in the backlog of their lane; while an endpoint is out the others adopt its
prompts, by modulo over those that serve, and give back what they have not begun when it returns. A task is a prompt
in the hands of a thread, or one that waits for another attempt: never a sleeping thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from statistics import median
from typing import Any

from runner import settings
from runner.errors import BusyError, ImageError
from runner.health import Breaker, Health
from runner.lanes import lane_of
from runner.records import (
    Event,
    Failed,
    Job,
    Met,
    Outcome,
    Prompt,
    Saving,
    Started,
    Task,
    Verdict,
)
from runner.schedule.blame import Blame
from runner.schedule.flights import Flights
from runner.schedule.gate import Away, Gate, Rule, Stopped
from runner.schedule.lane import LOOK_AGAIN_S, Lane, Load, Step, wake_all
from runner.schedule.queues import Queues
from runner.schedule.window import Window
from runner.stop import Stop

__all__ = ["Away", "Gate", "Lane", "Load", "Rule", "Schedule", "Step", "Stopped"]

_LANES_A_SECOND = 200
"""With more lanes than this the idle ones look again less often: each look is at all of them."""

_TOGETHER_S = 0.25
"""What is due so soon is worked on with a load that begins now."""

_LATEST_SHARE = 0.3
"""What the latest generation counts for in a lane's pace."""

MEET_S = 0.5
"""The first requests wait so long at most for every endpoint to say who it is."""


class Schedule:
    """The one place that decides what runs next."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        prompts: Sequence[Prompt],
        stop: Stop,
        *,
        failover: bool,
        steal: bool = False,
        hedge: bool = False,
        retry: settings.Retry,
        health: settings.Health,
        load_size: int = 1,
        jobs: Mapping[int, tuple[str, Job]] | None = None,
        ends_at: float = inf,
        usual_s: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``load_size``: so many prompts are worked on at once, if so many wait.

        ``jobs``: what endpoints (by their name) took on in an earlier run, by the index of the prompt.
        ``ends_at``: when the time window is over, by the clock. ``usual_s``: what a generation took lately on each
        endpoint, by its name.
        """
        self.lanes = lanes
        self.stop = stop
        self._failover = failover
        self._steal = steal
        self._flights = Flights() if hedge else None
        self._look_again_s = LOOK_AGAIN_S * max(1.0, len(lanes) / _LANES_A_SECOND) if steal or hedge else inf
        self._health = health
        self._clock = clock
        self._lock = threading.Lock()
        self._load_size = load_size
        self._window = Window(ends_at, lanes, usual_s or {}, load_size=load_size)
        self._queues = Queues(lanes, prompts, failover=failover, steal=steal, wake=self._wake)
        self._blame = Blame(lanes, self._queues, stop, failover=failover, retry=retry, clock=clock)
        self._meet_until = clock() + MEET_S
        self._looked_at = clock()
        self._unmet = 0
        idle_too = (steal or hedge) and self._blame.open
        self._to_start = [lane for lane in lanes if lane.backlog or idle_too]
        for lane in lanes:
            lane.breaker = Breaker(health, partial(self._queues.doubt, lane))
            lane.work = threading.Condition(self._lock)
            lane.gate = Gate(lane.endpoint.slots, stop, clock)
            lane.rule = Rule(lane.endpoint.slots)
        with self._lock:
            self._queues.recall(jobs or {}, clock())

    # What hands ask.

    def take(self, lane: Lane) -> list[Task] | Step:
        """Return the lane's next load or step; block until there is one."""
        looks = False
        with self._lock:
            while True:
                if looks:
                    lane.looking = False
                if self.stop.asked or not self._blame.open:
                    return Step.END
                step = self.step(lane, self._clock())
                if not isinstance(step, float):
                    if not lane.looking and self._look_again_s < inf:
                        lane.work.notify()  # another may look now
                    return step if isinstance(step, Step) else self._load(lane, step)
                looks, lane.looking = not lane.looking, True
                lane.work.wait(None if step == inf else max(step, 0.001))

    def started(self, lane: Lane, task: Task) -> Started:
        """Return the event that a hand of ``lane`` has begun with ``task``."""
        home = self.lanes[lane_of(task.prompt.index, len(self.lanes))]
        return Started(task.prompt, lane.endpoint, None if home is lane else home.endpoint)

    def settle(self, lane: Lane, load: Sequence[Task], verdicts: Sequence[Verdict]) -> list[Event]:
        """Decide what becomes of the tasks of a load that was worked on; return what is to be told.

        Results come first: an endpoint that made some of a batch did its work, and the others' failures don't count
        against it. If it made none, that is one failure.
        """
        with self._lock:
            events: list[Event] = []
            saved = [pair for pair in zip(load, verdicts, strict=True) if isinstance(pair[1], Saving)]
            failed = [pair for pair in zip(load, verdicts, strict=True) if not isinstance(pair[1], Saving)]
            for number, (task, verdict) in enumerate(saved + failed):
                events += self._settled(lane, task, verdict, counts=not number)
            if len(failed) > 1:
                self._queues.keep_together(load)
            self._rule(lane)
            return events

    def give_back(self, lane: Lane, load: Sequence[Task], why: str = "") -> list[Event]:
        """Take back a load that its endpoint doesn't take just now; nothing was sent. ``why`` takes it out."""
        with self._lock:
            events = self._shut(lane, why) if why else []
            for task in reversed(load):
                lane.taken -= 1
                if self._landed(task):
                    self._queues.decline(lane)
                elif not self._queues.hand_over(lane, task, now := self._clock()):
                    self._queues.give_back(lane, task, now)
            wake_all(self.lanes)
            return events

    def abandon(self, lane: Lane, load: Sequence[Task], outcomes: Sequence[Outcome]) -> list[Event]:
        """Take note that the tasks of a load are left pending because the run stops."""
        with self._lock:
            lane.taken -= len(load)
            events: list[Event] = []
            for task, outcome in zip(load, outcomes, strict=True):
                events += [self._dropped(task, outcome)] if self._landed(task) else self._blame.end(outcome)
            return events

    def probed(self, lane: Lane, found: Health) -> list[Event]:
        """Take note of how an endpoint says it is."""
        with self._lock:
            now = self._clock()
            lane.probing = False
            lane.work.notify_all()
            if self.stop.asked:  # the question may have been cut
                return []
            events = self._probed(lane, found, now)
            self._rule(lane)
            return events

    def expect(self, lane: Lane) -> None:
        """Let an endpoint that is out be asked at once how it is: there is reason to hope."""
        with self._lock:
            if lane.breaker.state == "out":
                lane.breaker.probe_at = self._clock()
                lane.work.notify_all()

    def declined(self, lane: Lane) -> None:
        """Take note that no hand of a lane has got the task ready that an idle one asked for."""
        with self._lock:
            self._queues.decline(lane)

    # What the calling thread asks.

    def to_start(self) -> list[Lane]:
        """Return the lanes that have got work and have no hands yet, each once."""
        with self._lock:
            lanes, self._to_start = [one for one in dict.fromkeys(self._to_start) if not one.started], []
            for lane in lanes:
                lane.started = True
                self._unmet += 1
                self._rule(lane)
            return lanes

    def check(self) -> None:
        """Look at the clock: if no endpoint was of use for too long, ask to stop. Wake who waits if so asked.

        The time counts since the last result, and only while every endpoint is out, on trial or full: a generation
        that takes long is no outage, and an endpoint that always says it is full comes to an end all the same.
        """
        with self._lock:
            now = self._clock()
            passed_s, self._looked_at = now - self._looked_at, now
            if not self._in_use(now):
                self._blame.down_s += passed_s
            patience_s = max(self._health.all_down_s, 0 if self._blame.seen_alive else self._health.wait_ready_s)
            at_work = any(lane.taken for lane in self.lanes)
            if self._blame.open and not at_work and not self._in_use(now) and self._blame.down_s >= patience_s:
                self.stop.ask("down")
            if self._blame.open and self._window.is_over(self.lanes, now, shared=self._steal):
                self.stop.ask("window")
            if self._window.ends_at < inf:
                for lane in self.lanes:  # what those take that have made nothing themselves, the others tell
                    self._rule(lane)
            if self.stop.asked:
                wake_all(self.lanes)
                for lane in self.lanes:
                    lane.gate.look()

    def leftovers(self) -> tuple[list[tuple[Lane, Task]], list[Outcome]]:
        """Return, once no hand is at work, the tasks that wait for another attempt, and the outcomes still held."""
        with self._lock:
            waiting = [(lane, task) for lane in self.lanes for _, _, task in lane.again if task.attempts]
            return waiting, [outcome for lane in self.lanes for _, outcome in lane.held]

    def loads(self) -> list[Load]:
        """Return what each endpoint has before it."""
        with self._lock:
            return [lane.load for lane in self.lanes]

    @property
    def done(self) -> bool:
        """Tell whether every prompt has ended; hands may still wait for a health page."""
        return not self._blame.open

    @property
    def outdone(self) -> bool:
        """Tell whether all that is still in flight has lost against another endpoint."""
        return self._flights is not None and self.done

    def why_down(self) -> str:
        """Say what the endpoints that are out suffer from."""
        with self._lock:
            out = [lane for lane in self.lanes if lane.last_error]
            return "; ".join(f"{lane.endpoint.label}: {lane.last_error}" for lane in out[:3])

    # Below, the lock is held.

    def step(self, lane: Lane, now: float) -> Task | Step | float:
        """Return what a free hand of the lane should do, or the seconds to wait for something to do."""
        breaker = lane.breaker
        if not lane.met and not lane.probing:
            return self._probe(lane)
        if breaker.state == "out":
            if now < breaker.probe_at:
                return breaker.probe_at - now
            return inf if lane.probing else self._probe(lane)
        if now < breaker.cool_until:
            return breaker.cool_until - now
        if now >= lane.rule.closes_at:
            needs_proof = lane.held and not lane.taken and not lane.probing
            return self._probe(lane) if needs_proof else inf
        if breaker.state == "trial" and lane.taken:
            return inf
        task = self._queues.next_task(lane, now)
        if task is None and self._flights and self._is_idle(lane, now) and self._nothing_waits():
            paces = [one.pace_s for one in self.lanes if one.pace_s]
            task = self._flights.double(lane, now, usual_s=median(paces)) if paces else None
        if task:
            if not lane.taken:
                lane.moved_at = now
            lane.taken += 1
            if self._flights:
                self._flights.begin(lane, task, now)
            return task
        if lane.held and not lane.taken and not lane.probing:
            return self._probe(lane)
        wait_s = inf if lane.looking else self._look_again_s
        return min(wait_s, lane.again[0][0] - now) if lane.again else wait_s

    def _load(self, lane: Lane, first: Task) -> list[Task]:
        """Return a load that begins with a task: what else waits for the lane, as far as it fits."""
        now = self._clock()
        load = [first]
        while len(load) < self._load_size and not first.alone and lane.breaker.state != "trial":
            task = self._queues.next_task(lane, now + _TOGETHER_S)  # what failed together is due a moment apart
            if task is None:
                break
            if task.alone or _job_id(task, lane) != _job_id(first, lane):  # another batch of an earlier run
                self._queues.put(lane, task, now)
                break
            lane.taken += 1
            if self._flights:
                self._flights.begin(lane, task, now)
            load.append(task)
        return load

    def _settled(self, lane: Lane, task: Task, verdict: Verdict, *, counts: bool) -> list[Event]:
        lane.taken -= 1
        lane.moved_at = self._clock()
        self._window.add(lane, verdict.outcome, recalled=task.recalled)
        elsewhere = self._landed(task)
        if isinstance(verdict, Saving):
            task.asked.append(lane.endpoint.index)
            self._time(lane, verdict.outcome)
            first = self._flights is None or self._flights.win(lane, task)
            last = self._blame.end(verdict) if first else [Saving(self._dropped(task, verdict.outcome), verdict.part)]
            if not verdict.outcome.attempts:  # an earlier run had asked for it: that says nothing of the endpoint now
                return [*last]
            return [*self._blame.succeeded(lane), *last]
        if elsewhere:
            return self._outdone(lane, task, verdict)
        return self._blame.failed(lane, task, verdict, counts=counts)

    def _probe(self, lane: Lane) -> Step:
        lane.probing = True
        return Step.PROBE

    def _is_idle(self, lane: Lane, now: float) -> bool:
        """Tell whether a lane has nothing in hand, and is not about to get it."""
        about_to = lane.asking and now - lane.asked_at <= LOOK_AGAIN_S  # whom it asked may stand still
        return not lane.taken and not about_to and lane.breaker.state == "in"

    def _nothing_waits(self) -> bool:
        return not any(lane.waiting for lane in self.lanes)

    def _landed(self, task: Task) -> bool:
        """Take note that a task is in nobody's hands; return whether its prompt ends, or has ended, without it."""
        return self._flights is not None and self._flights.end(task)

    def _outdone(self, lane: Lane, task: Task, verdict: Failed) -> list[Event]:
        """Drop a failed task while another endpoint is asked for its prompt, or has got it done."""
        error = verdict.error
        events: list[Event] = []
        if self._winner(task) is None and not self.stop.now and not isinstance(error, ImageError):
            task.asked.append(lane.endpoint.index)
            if isinstance(error, BusyError):
                self._blame.cool(lane, task, error)
            elif error.blame == "endpoint":
                events = self._blame.charge(lane, task, error)
        return [self._dropped(task, verdict.outcome), *events]

    def _winner(self, task: Task) -> str | None:
        return self._flights.winner(task) if self._flights else None

    def _dropped(self, task: Task, outcome: Outcome) -> Outcome:
        """Return the outcome of a task whose prompt is another's."""
        winner = self._winner(task)
        error = f"{winner} was first" if winner else f"{outcome.error}; another endpoint is asked for it too"
        nothing = {"file": None, "format": None, "size_bytes": None, "mtime_ns": None, "sha256": None}
        return replace(outcome, outcome="dropped", blame=None, error=error, **nothing)  # type: ignore[arg-type]

    def _rule(self, lane: Lane) -> None:
        """Let the lane's gate know what it may do now, if that is new."""
        breaker = lane.breaker
        rule = Rule(
            slots=lane.endpoint.slots if breaker.state == "in" else 1,
            opens_at=self._meet_until if self._unmet else 0.0,
            closed_until=inf if breaker.state == "out" else breaker.cool_until,
            closes_at=self._window.closes_at(lane),
            unknown=self._window.unknown(lane),
        )
        if rule != lane.rule:
            if rule.closes_at > lane.rule.closes_at:
                lane.work.notify_all()
            lane.rule = rule
            lane.gate.obey(rule)

    def _time(self, lane: Lane, outcome: Outcome) -> None:
        """Remember what a generation takes."""
        if outcome.attempts:
            took_s = outcome.attempts[-1].generate_s
            lane.pace_s += (took_s - lane.pace_s) * (_LATEST_SHARE if lane.pace_s else 1)

    def _probed(self, lane: Lane, found: Health, now: float) -> list[Event]:
        if not lane.met:
            return self._meet(lane, found, now)
        if lane.breaker.state == "out":
            lane.breaker.probed(now, alive=found.alive)
            return []
        if not lane.held:
            return []
        if found.alive:  # then the prompts are to blame
            return self._blame.succeeded(lane)
        lane.last_error = found.status
        lane.breaker.open(now)
        return self._blame.went_out(lane)

    def _meet(self, lane: Lane, found: Health, now: float) -> list[Event]:
        lane.met = True
        self._unmet -= 1
        if not self._unmet and self._clock() < self._meet_until:  # else nobody waits for it any more
            for one in self.lanes:
                self._rule(one)
        events: list[Event] = [Met(lane.endpoint, found.version)] if found.version else []
        if found.refused and lane.breaker.state == "in":
            lane.last_error = found.status
            lane.breaker.open(now)
            events += self._blame.went_out(lane)
        return events

    def _shut(self, lane: Lane, why: str) -> list[Event]:
        """Take out a lane that nobody can ask, unless it is."""
        before = lane.breaker.state
        if before == "out":
            return []
        lane.last_error = why
        lane.breaker.open(self._clock())
        events = self._blame.went_out(lane) if before == "in" else []
        self._rule(lane)
        return events

    def _wake(self, lane: Lane) -> None:
        if not lane.started:
            self._to_start.append(lane)
        lane.work.notify_all()

    def _in_use(self, now: float) -> bool:
        """Tell whether an endpoint that is in works on a prompt, or can take one of those that are left.

        A trial is no use yet: only its success is.
        """
        return any(
            lane.breaker.state == "in"
            and (lane.taken or (lane.breaker.takes(now) and (self._failover or lane.waiting or lane.held)))
            for lane in self.lanes
        )


def _job_id(task: Task, lane: Lane) -> Any:
    """Return the id of what the lane's endpoint has taken on for a task, None if it has nothing."""
    job = task.jobs.get(lane.endpoint.name)
    return job.id if job else None
