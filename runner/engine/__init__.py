"""The engine: a schedule and work in, events out on the calling thread. Knows neither HTTP nor files.

``threads`` is the pool whose hands work through the schedule. ``processes`` is work that is done elsewhere: each hand
then only waits for the hand of a worker process that does it (``child``).
"""

from runner.engine.processes import Processes
from runner.engine.threads import work_through
from runner.engine.work import Bench, Work

__all__ = ["Bench", "Processes", "Work", "work_through"]
