"""The engine: a schedule and work in, events out on the calling thread. Knows neither HTTP nor files.

``threads`` is the pool whose hands work through the schedule. ``far`` is work that is done elsewhere: each hand then
only waits for the hand of a child that does it (``child``), in a worker process (``processes``) or on one of Dask's
workers (``dask``, which is imported only where it is used).
"""

from runner.engine.processes import Processes
from runner.engine.threads import work_through
from runner.engine.work import Bench, Work

__all__ = ["Bench", "Processes", "Work", "work_through"]
