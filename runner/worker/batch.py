"""Many prompts in one submission, and one archive with their results."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from runner.clock import since, utc_now
from runner.errors import AttemptError, ResultError, TransportError
from runner.formats import FORMATS
from runner.protocols import Document, Values, stem_of
from runner.records import Job, Submitted, Task
from runner.schedule import Lane
from runner.worker.archive import Archive
from runner.worker.polling import Until, poll_block, polled
from runner.worker.tools import Piece, Tell, Tools, begin, note

Came = list[Piece | AttemptError]
"""What came of each prompt of a batch."""


def generate(tools: Tools, load: Sequence[Task], lane: Lane, tell: Tell) -> Came:
    """Submit a load as one batch, wait for it, and return what came of each prompt.

    Raises AttemptError if nothing came of any. While nobody knows what became of a submission, the tasks keep the
    stems that it had, and so does the ledger: submitted again, in this run or after a crash, they are the same batch
    to the server, and not generated again. Once a batch has ended, what is left of it gets other stems.
    """
    return _Batch(tools, load, lane, tell).generate()


class _Batch:
    def __init__(self, tools: Tools, load: Sequence[Task], lane: Lane, tell: Tell) -> None:
        self._tools = tools
        self._load = load
        self._lane = lane
        self._tell = tell
        self._name = lane.endpoint.name
        self._what = f"the batch of {len(load)} prompts"
        self._jobs = [task.jobs[self._name] for task in load if self._name in task.jobs]
        if len(self._jobs) < len(load):
            mark = secrets.token_hex(3)
            stems = [f"{stem_of(task.prompt.key)}x{mark}" for task in load]
            self._jobs = [Job(mark, {"stem": stem}, utc_now()) for stem in stems]
        self._each = [
            tools.values(task, None, stem=job.saved["stem"]) for task, job in zip(load, self._jobs, strict=True)
        ]
        items = [tools.protocol.entry(values) for values in self._each]
        self._all = tools.values(load[0], None, items=items)

    def generate(self) -> Came:
        ready = time.monotonic()
        with self._lane.gate:
            sent, sent_at = time.monotonic(), utc_now()
            for task in self._load:
                begin(task, self._lane, ready, sent, sent_at)
            try:
                self._await_its_turn()
                self._submit()
                self._polled(self._is_done).close()
            except AttemptError as error:
                if not isinstance(error, TransportError):
                    self._forget()
                raise
            finally:
                self._share(generate_s=since(sent))
            fetched = self._fetched()  # the server has one archive: the next batch would replace it
        with closing(fetched):
            return self._results(fetched)

    def _await_its_turn(self) -> None:
        """Wait until a batch may be submitted. A state of failure is the endpoint's own: nothing was sent yet."""
        try:
            self._polled(self._may_submit, unless=self._lane.gate.check).close()
        except ResultError as error:
            raise TransportError(str(error), reached=False) from error

    def _polled(self, until: Until, unless: Callable[[], None] = lambda: None) -> Document:
        return polled(self._tools, self._lane, self._all, self._what, until=until, unless=unless)

    def _may_submit(self, state: Any) -> bool:
        return state in poll_block(self._tools).ready

    def _is_done(self, state: Any) -> bool:
        return self._tools.protocol.stands(state) == "done"

    def _submit(self) -> None:
        """Submit the batch; before that, the ledger is told how it may be submitted again as the same one."""
        tools = self._tools
        for task, job in zip(self._load, self._jobs, strict=True):
            task.jobs[self._name] = job
            self._tell(Submitted(tools.outcomes.of(task, self._lane, "submitted", None, job=job)))
        with tools.asked(self._lane, tools.protocol.generation(self._all)) as answer:
            answer.head()  # so that its connection can be used again
        for task in self._load:
            note(task, status=answer.status)

    def _fetched(self) -> Archive:
        """Fetch the archive, again if it is broken; what the endpoint had taken on ends with that."""
        try:
            return self._tools.again(self._archive)
        finally:
            if not self._tools.abandoned.is_set():
                self._forget()

    def _archive(self) -> Archive:
        tools = self._tools
        arrived = time.monotonic()
        with tools.asked(self._lane, tools.protocol.archive(self._all)) as answer:
            scratch = tools.folder.scratch()
            try:
                answer.receive(scratch, tools.output.max_bytes * len(self._load))
                self._share(receive_s=since(arrived))
                return Archive(scratch.settled())
            except BaseException:
                scratch.close()
                raise

    def _results(self, archive: Archive) -> Came:
        """Open the archive, and return what came of each prompt."""
        assert self._tools.protocol.block.results is not None
        failed = archive.failures(self._tools.protocol.block.results.failed_manifest)
        came: Came = []
        try:
            for task, values in zip(self._load, self._each, strict=True):
                came.append(self._member(task, values, archive, failed))
        except BaseException:
            for one in came:
                if isinstance(one, Piece):
                    one.temp.drop()
            raise
        return came

    def _member(self, task: Task, values: Values, archive: Archive, failed: dict[str, str]) -> Piece | AttemptError:
        name = self._tools.protocol.member(values)
        stem = name.rpartition(".")[0] or name
        try:
            if name in archive:
                return self._tools.kept(task, archive.chunks(name), expected=_format_of(name))
            for known in (stem, name, task.prompt.key):
                if known in failed:
                    return ResultError(f"the server says it failed: {failed[known] or 'no reason given'}")
            return ResultError(f"the ZIP of results holds no {name}, and says nothing of it")
        except AttemptError as error:
            return error

    def _share(self, **seconds: float) -> None:
        """Note what the batch took, shared out over its prompts: an endpoint is not busy twice at once."""
        for task in self._load:
            note(task, **{name: round(took_s / len(self._load), 6) for name, took_s in seconds.items()})

    def _forget(self) -> None:
        for task in self._load:
            task.jobs.pop(self._name, None)


def _format_of(name: str) -> str | None:
    """Return the format that a member's extension says."""
    extension = name.rpartition(".")[2].lower()
    return extension if extension in FORMATS else None
