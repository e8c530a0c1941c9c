"""What a worker needs, in this process or in another."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from runner.client import Client, WebClient
from runner.protocols import Protocol
from runner.records import Endpoint, Outcome, Task
from runner.remote import Far, Folder, folder_of
from runner.schedule import Lane
from runner.settings import Output, Timeouts
from runner.shards import Shard
from runner.storage import new_mark
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
    far: Far | None = None
    shard: Shard | None = None
    mark: str = field(default_factory=new_mark)

    @contextmanager
    def open(self, endpoints: Sequence[Endpoint], abandoned: threading.Event | None = None) -> Iterator[Worker]:
        """Open long-lived sessions, one for each of these endpoints and two for the rest; close them at the end."""
        abandoned = abandoned or threading.Event()
        with ExitStack() as sessions:
            clients = {
                one.index: Client(one, self.timeouts, connections=one.hands, abandoned=abandoned) for one in endpoints
            }
            hands = sum(one.hands for one in endpoints) or 1
            images = WebClient(self.timeouts, connections=hands)
            downloads = WebClient(self.timeouts, connections=hands)
            for close in (images.close, downloads.close, *(one.close for one in clients.values())):
                sessions.callback(close)
            folder = self._folder(abandoned)
            folder.prepare()
            tools = Tools(
                clients=clients,
                downloads=downloads,
                folder=folder,
                abandoned=abandoned,
                protocol=self.protocol,
                seed=self.seed,
                output=self.output,
                timeouts=self.timeouts,
                outcomes=self._outcomes,
            )
            yield Worker(tools, Images(images))

    def clean(self, tasks: Sequence[Task]) -> None:
        """Remove the unfinished files of these tasks that its worker left. Raises StorageError."""
        folder = self._folder()
        for task in tasks:
            folder.clean(task.prompt.key, task.mark)

    def interrupted(self, task: Task, lane: Lane) -> Outcome:
        return self._outcomes.of(task, lane, "interrupted", error=STOPPED)

    def lost(self, task: Task, lane: Lane, error: str) -> Outcome:
        return self._outcomes.of(task, lane, "failed", error=error, blame="prompt")

    def _folder(self, abandoned: threading.Event | None = None) -> Folder:
        return folder_of(self.folder, self.far, self.mark, abandoned, shard=self.shard)

    @property
    def _outcomes(self) -> Outcomes:
        names = [one.name for one in self.endpoints]
        return Outcomes(lane_names=names, seed=self.seed, protocol=self.protocol.name)
