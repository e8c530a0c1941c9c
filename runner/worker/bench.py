"""What a worker needs, in this process or in another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from runner.client import Client, WebClient
from runner.protocols import Protocol
from runner.records import Endpoint, Outcome, Task
from runner.schedule import Lane
from runner.settings import Output, Timeouts
from runner.shards import Shard
from runner.storage import OutputFolder, new_mark
from runner.worker.images import Images
from runner.worker.outcomes import STOPPED, Outcomes
from runner.worker.tools import Tools
from runner.worker.work import Worker


@dataclass(frozen=True, slots=True)
class Workbench:
    """What a worker needs, in this process or, pickled, in another: ``endpoints`` are all of the run's."""

    endpoints: tuple[Endpoint, ...]
    timeouts: Timeouts
    output: Output
    seed: int
    protocol: Protocol
    folder: Path
    shard: Shard | None = None
    mark: str = field(default_factory=new_mark)

    @contextmanager
    def open(self, endpoints: Sequence[Endpoint]) -> Iterator[Worker]:
        """Open long-lived sessions, one for each of these endpoints and two for the rest; close them at the end."""
        with ExitStack() as sessions:
            clients = {one.index: Client(one, self.timeouts, connections=one.slots + 1) for one in endpoints}
            hands = sum(one.slots + 1 for one in endpoints) or 1
            images = WebClient(self.timeouts, connections=hands)
            downloads = WebClient(self.timeouts, connections=hands)
            for close in (images.close, downloads.close, *(one.close for one in clients.values())):
                sessions.callback(close)
            tools = Tools(
                clients=clients,
                downloads=downloads,
                folder=OutputFolder(self.folder, self.mark, shard=self.shard),
                protocol=self.protocol,
                seed=self.seed,
                output=self.output,
                timeouts=self.timeouts,
                outcomes=self._outcomes,
            )
            yield Worker(tools, Images(images))

    def clean(self, tasks: Sequence[Task]) -> None:
        """Remove the unfinished files of these tasks that its worker left. Raises StorageError."""
        folder = OutputFolder(self.folder, self.mark, shard=self.shard)
        for task in tasks:
            folder.clean(task.prompt.key, task.mark)

    def interrupted(self, task: Task, lane: Lane) -> Outcome:
        return self._outcomes.of(task, lane, "interrupted", error=STOPPED)

    def lost(self, task: Task, lane: Lane, error: str) -> Outcome:
        return self._outcomes.of(task, lane, "failed", error=error, blame="prompt")

    @property
    def _outcomes(self) -> Outcomes:
        names = [one.name for one in self.endpoints]
        return Outcomes(lane_names=names, seed=self.seed, protocol=self.protocol.name)
