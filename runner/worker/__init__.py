"""Working on a prompt, or a batch of them, once: what to send is the protocol's, when is the schedule's.

``work`` is the trip of a load; ``sync``, ``job`` and ``batch`` are the ways to ask; ``tools`` brings results to the
disk.
"""

from runner.worker.bench import Workbench
from runner.worker.fit import Fit
from runner.worker.outcomes import Outcomes
from runner.worker.work import Worker

__all__ = ["Fit", "Outcomes", "Workbench", "Worker"]
