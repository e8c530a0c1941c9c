"""Which waiting prompt goes to which lane, while some endpoints serve and others don't. No locks, no clock."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from runner.lanes import lane_of, next_choice, stand_in
from runner.records import Job, Prompt, Task
from runner.schedule.lane import LOOK_AGAIN_S, Lane

_NEAR_THE_END = 16
"""With a longer queue of its own a lane takes its next prompt without a look at the others."""


class Queues:
    """The queues of all lanes. ``wake`` is called with every lane that gets something.

    Only lanes that are in serve. Those that are out keep their prompts if there is no ``failover``, or nobody else.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        prompts: Sequence[Prompt],
        *,
        failover: bool,
        steal: bool,
        wake: Callable[[Lane], None],
    ) -> None:
        self._lanes = lanes
        self._prompts = prompts
        self._failover = failover
        self._steal = steal
        self._wake = wake
        self._serial = itertools.count()
        self._doubted: dict[int, Lane] = {}

    def recall(self, jobs: Mapping[int, tuple[str, Job]], now: float) -> None:
        """Let prompts that an endpoint took on in an earlier run go there first, in their order."""
        if not jobs:
            return
        lanes = {lane.endpoint.name: lane for lane in self._lanes}
        recalled = {index: job for index, job in jobs.items() if job[0] in lanes}
        for lane in self._lanes:
            waiting = [index for index in lane.backlog if index not in recalled]
            for index in sorted({*lane.backlog} & {*recalled}):
                name, job = recalled[index]
                task = self._task(index)
                task.jobs[name] = job
                task.recalled = True
                self.put(lanes[name], task, now)
            lane.backlog = deque(waiting)

    def next_task(self, lane: Lane, now: float) -> Task | None:
        """Take a task: one whose time for another attempt has come, else a prompt in the order of the input."""
        trial = lane.breaker.state == "trial"
        queues = [queue for queue in (lane.backlog, lane.adopted) if queue]
        another = queues and (trial or lane.breaker.busy)  # rather than the one that just met with trouble here
        if lane.again and lane.again[0][0] <= now and not another:
            return heapq.heappop(lane.again)[2]
        if self._steal and not trial and self._sooner_elsewhere(lane, now):
            return None
        if queues:
            return self._task(min(queues, key=_first).popleft())
        if self._steal and not trial:
            return self._stolen(lane, now)
        if self._failover:
            needy = [one for one in (self._lanes if trial else self._needy(now)) if one is not lane]
            queues = [queue for one in needy for queue in (one.backlog, one.adopted) if queue]
            if queues:
                return self._task(max(queues, key=len).pop())
            waiting = [one for one in needy if one.again and one.breaker.state == "out"]
            if trial and waiting:
                return heapq.heappop(waiting[0].again)[2]
        return None

    def _stolen(self, lane: Lane, now: float) -> Task | None:
        """Take from the end of the longest queue; with all empty, ask for what a hand elsewhere only holds ready."""
        lanes = [one for one in self._lanes if self._failover or one.breaker.state == "in"]
        queues = [queue for one in lanes for queue in (one.backlog, one.adopted) if queue]
        if queues:
            return self._task(max(queues, key=len).pop())
        if not lane.asking and not lane.taken:
            held = [
                one
                for one in self._lanes
                if one is not lane
                and one.taken > one.endpoint.slots + len(one.wanted)
                and now - one.refused_at > LOOK_AGAIN_S
            ]
            for slowest in sorted(held, key=_pace, reverse=True):
                if slowest.gate.want():
                    slowest.wanted.append(lane)
                    lane.asking, lane.asked_at = True, now
                    break
        return None

    def hand_over(self, lane: Lane, task: Task, now: float) -> bool:
        """Give a task that a hand of ``lane`` held ready to the lane that asked for it, if one did.

        It is no part of a queue there: the hand that gave it would be the first to steal it.
        """
        other = self.decline(lane)
        if other is None or task.attempts or task.losses or task.jobs or other.breaker.state != "in":
            lane.refused_at = now
            return False
        self.put(other, task, now)
        return True

    def decline(self, lane: Lane) -> Lane | None:
        """Forget the one that first asked for what a hand of ``lane`` holds ready, and return it."""
        if not lane.wanted:
            return None
        other = lane.wanted.popleft()
        other.asking = False
        return other

    def _sooner_elsewhere(self, lane: Lane, now: float) -> bool:
        """Tell whether the others would be done with all that waits before this lane is with one prompt more.

        The quickest lane never says so, and nobody before paces are known. Who is stuck does not count.
        """
        if not lane.pace_s or len(lane.backlog) > _NEAR_THE_END:
            return False
        others = [one for one in self._lanes if one is not lane and one.pace_s and one.breaker.takes(now)]
        others = [one for one in others if not one.stuck(now)]
        if not others:
            return False
        waiting = sum(len(one.backlog) + len(one.adopted) for one in self._lanes)
        rate = sum(one.endpoint.slots / one.pace_s for one in others)
        rounds = 2 if lane.taken >= lane.endpoint.slots else 1
        return rounds * lane.pace_s > waiting / rate + min(map(_pace, others))

    def doubt(self, lane: Lane) -> None:
        """Take note that a lane may need help from now on."""
        self._doubted[lane.endpoint.index] = lane

    def _needy(self, now: float) -> list[Lane]:
        """Return the lanes that need help. Of ten thousand most do well, and each idle hand asks for the others."""
        self._doubted = {index: one for index, one in sorted(self._doubted.items()) if self._needs_help(one, now)}
        return [*self._doubted.values()]

    def _needs_help(self, lane: Lane, now: float) -> bool:
        """Tell whether lanes with nothing to do should take from this one: it is full, or in doubt."""
        return bool(lane.breaker.failures) or not lane.breaker.takes(now)

    def give_back(self, lane: Lane, task: Task, now: float) -> None:
        """Put a task back that ``lane`` took and does not take now."""
        if task.attempts or task.losses or task.jobs:
            stays = not task.attempts and lane.breaker.takes(now)
            self.put(lane if stays else self.target(lane, task, now), task, now)
            return
        queue = lane.backlog if self._home(task.prompt.index) is lane else lane.adopted
        queue.appendleft(task.prompt.index)
        self.redeal(now)

    def put(self, lane: Lane, task: Task, due: float) -> None:
        """Let a task wait for another attempt on a lane, not before ``due``."""
        heapq.heappush(lane.again, (due, next(self._serial), task))
        self._wake(lane)

    def keep_together(self, load: Sequence[Task]) -> None:
        """Let the tasks of a load that wait for another attempt on one lane wait equally long: as one load again."""
        for lane in self._lanes:
            dues = [due for due, _, task in lane.again if task in load]
            if len(dues) > 1:
                lane.again = [(max(dues) if task in load else due, number, task) for due, number, task in lane.again]
                heapq.heapify(lane.again)

    def target(self, lane: Lane, task: Task, now: float) -> Lane:
        """Return the lane for the next attempt at a task that was on ``lane``."""
        if not self._failover:
            return lane
        serving = self.serving()
        for index in serving:
            if self._lanes[index].endpoint.name in task.jobs:  # it is asked for, not generated again
                return self._lanes[index]
        lanes = self._lanes
        ready = [index for index in serving if lanes[index].breaker.takes(now) and now < lanes[index].rule.closes_at]
        calm = [index for index in ready if not self._lanes[index].breaker.failures]
        proven = [index for index in calm if self._lanes[index].breaker.proven]
        asked = task.asked or [lane.endpoint.index]
        choice = next_choice(task.prompt.index, len(self._lanes), asked, proven, calm, ready, ready or serving)
        return lane if choice is None else self._lanes[choice]

    def redeal(self, now: float) -> None:
        """Give every waiting prompt to its own lane if that serves, else to one that does."""
        serving = self.serving()
        if not self._failover or not serving:
            return
        moving: list[int] = []
        for lane in self._lanes:
            moving += lane.adopted
            lane.adopted.clear()
            if lane.breaker.state != "in":
                moving += lane.backlog
                lane.backlog.clear()
                waiting, lane.again = lane.again, []
                for due, _, task in waiting:
                    self.put(self.target(lane, task, now), task, due)
        touched: set[int] = set()
        for prompt in moving:
            chosen = stand_in(prompt, len(self._lanes), serving)
            lane = self._lanes[chosen]
            (lane.backlog if self._home(prompt) is lane else lane.adopted).append(prompt)
            touched.add(chosen)
        for chosen in touched:
            lane = self._lanes[chosen]
            lane.backlog = deque(sorted(lane.backlog))
            lane.adopted = deque(sorted(lane.adopted))
            self._wake(lane)

    def serving(self) -> list[int]:
        """Return the lanes whose endpoints are in, by their index."""
        return [lane.endpoint.index for lane in self._lanes if lane.breaker.state == "in"]

    def _home(self, index: int) -> Lane:
        return self._lanes[lane_of(index, len(self._lanes))]

    def _task(self, index: int) -> Task:
        return Task(self._prompts[index])


def _pace(lane: Lane) -> float:
    return lane.pace_s


def _first(queue: deque[int]) -> int:
    return queue[0]
