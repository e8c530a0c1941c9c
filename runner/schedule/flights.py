"""The end game: prompts that two endpoints are asked for, because one of these has nothing else to do."""

from __future__ import annotations

from math import inf

from runner.records import Task
from runner.schedule.lane import OVERDUE, Lane


class Flights:
    """The tasks in flight, by their prompt; two at most. The first whole result wins, the other task is dropped."""

    def __init__(self) -> None:
        self._of: dict[int, list[tuple[Lane, Task, float]]] = {}
        self._won: dict[int, str] = {}

    def begin(self, lane: Lane, task: Task, now: float) -> None:
        """Take note that a hand of ``lane`` has taken a task."""
        self._of.setdefault(task.prompt.index, []).append((lane, task, now))

    def end(self, task: Task) -> bool:
        """Take note that a hand has let go of a task; return whether its prompt ends, or has ended, without it."""
        index = task.prompt.index
        others = [one for one in self._of.pop(index) if one[1] is not task]
        if others:
            self._of[index] = others
        return bool(others) or self._won.get(index) is not None

    def win(self, lane: Lane, task: Task) -> bool:
        """Take note of a whole result; return whether it is the first one of its prompt."""
        index = task.prompt.index
        if index in self._won:
            return False
        if index in self._of:
            self._won[index] = lane.endpoint.name
        return True

    def winner(self, task: Task) -> str | None:
        """Return the name of the endpoint that had a whole result first, if one had."""
        return self._won.get(task.prompt.index)

    def double(self, lane: Lane, now: float, *, usual_s: float) -> Task | None:
        """Return a task for the prompt that is in flight longest, if ``lane`` may have its result sooner.

        That is so if the other endpoint is expected to take longer still than this one does, or is overdue. One whose
        pace is not known yet is expected to take ``usual_s``. Both tasks share what the schedule knows of the prompt.
        """
        own_s = lane.pace_s or usual_s
        chosen: tuple[float, Task] | None = None
        for flights in self._of.values():
            if len(flights) > 1:
                continue
            other, task, since = flights[0]
            asked_here = other is lane or lane.endpoint.index in task.asked or task.prompt.index in self._won
            rest_s = _rest_s(other.pace_s or usual_s, now - since)
            if not asked_here and own_s < rest_s and (not chosen or since < chosen[0]):
                chosen = since, task
        if not chosen:
            return None
        task = chosen[1]
        return Task(task.prompt, losses=task.losses, charged=task.charged, forgiven=task.forgiven, asked=task.asked)


def _rest_s(pace_s: float, flown_s: float) -> float:
    """Return how long a generation is expected to take still; inf if nobody can tell."""
    return pace_s - flown_s if flown_s < OVERDUE * pace_s else inf
