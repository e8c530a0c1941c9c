"""A job: submitted, asked for until it is done, and fetched. It is never generated twice where it is still known.

What an endpoint has taken on stays with the task, and in the ledger: if this run, or the next, comes back to that
endpoint, the job is asked for instead of another one being submitted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from runner.client import Answer
from runner.clock import since, utc_age_s, utc_now
from runner.errors import AttemptError, BusyError, ResultError, StatusError, TransportError
from runner.protocols import Document, Values, paths, saved, shown
from runner.records import Job, Submitted, Task
from runner.schedule import Lane
from runner.worker.polling import GoneError, LateError, ask, has_ended, poll_block, polled, wait_on
from runner.worker.tools import (
    FETCHES,
    RESULTS_MAX,
    ImageOf,
    Piece,
    Tell,
    Tools,
    begin,
    dropped_unless_all,
    note,
    of_the_result,
)

_EVENTS_MAX_BYTES = 64 * 1024 * 1024


def generate(tools: Tools, task: Task, lane: Lane, image: ImageOf, tell: Tell) -> list[Piece]:
    """Submit, unless the endpoint has a job for the task already, and return the verified results.

    The slot is held from the submission until the job has ended there.
    """
    return _Job(tools, task, lane, image, tell).generate()


@dataclass(frozen=True, slots=True)
class _Asking:
    """A submission that is ready to be sent, and what the upload before it gave."""

    uploaded: dict[str, Any]
    prepared: Any


class _Job:
    """One attempt at a task whose protocol is ``job``."""

    def __init__(self, tools: Tools, task: Task, lane: Lane, image: ImageOf, tell: Tell) -> None:
        self._tools = tools
        self._protocol = tools.protocol
        self._block = tools.protocol.block
        self._poll = poll_block(tools)
        self._task = task
        self._lane = lane
        self._image = image
        self._tell = tell

    def generate(self) -> list[Piece]:
        known = self._task.jobs.get(self._lane.endpoint.name)
        asking = None if known else self._asking()
        ready = time.monotonic()
        with self._lane.gate:
            begin(self._task, self._lane, ready, sent := time.monotonic())
            try:
                job, last = self._of_before(known) if known else self._afresh(asking)
            finally:
                note(self._task, generate_s=since(sent))
            if self._block.release == "body":
                return self._results(job, last)
        return self._results(job, last)

    def _of_before(self, known: Job) -> tuple[Job, Document]:
        """Wait for a job that was submitted before; for a new one, if the endpoint has forgotten that.

        The end of one that is told by events is told once; who asks again is told of an error.
        """
        try:
            return known, self._waited_for(known)
        except (GoneError, LateError):
            pass
        except ResultError:
            if self._poll.format != "sse":
                raise
        self._lane.gate.check()
        return self._afresh(self._asking())

    def _asking(self) -> _Asking:
        """Do what comes before a submission, and build its bytes."""
        uploaded = self._uploaded()
        values = self._tools.values(self._task, self._image(), saved=uploaded)
        client = self._tools.clients[self._lane.endpoint.index]
        return _Asking(uploaded, client.prepare(self._protocol.generation(values)))

    def _afresh(self, asking: _Asking | None) -> tuple[Job, Document]:
        job = self._submitted(asking or self._asking())
        return job, self._waited_for(job)

    def _uploaded(self) -> dict[str, Any]:
        """Send what comes before the submission; return what is needed of the answer."""
        values = self._tools.values(self._task, self._image())
        request = self._protocol.upload(values)
        if request is None or self._block.upload is None:
            return {}
        try:
            with self._document(self._tools.asked(self._lane, request)) as document:
                return saved(document, self._block.upload.save, values)[0]
        except AttemptError as error:
            begin(self._task, self._lane, now := time.monotonic(), now)
            note(self._task, status=error.status)
            raise

    def _submitted(self, asking: _Asking) -> Job:
        values = self._tools.values(self._task, None, saved=asking.uploaded)
        answer = self._tools.clients[self._lane.endpoint.index].send(asking.prepared)
        note(self._task, status=answer.status)
        with self._document(self._tools.checked(answer)) as document:
            found = paths.first(document.value, self._block.id or "", values)
            if not isinstance(found, str | int) or found == "":
                raise ResultError(f"expected the job's id at {self._block.id} of the answer {shown(document.value)}")
        job = Job(found, asking.uploaded, utc_now())
        self._task.jobs[self._lane.endpoint.name] = job
        outcome = self._tools.outcomes.of(self._task, self._lane, "submitted", self._image(), job=job)
        self._tell(Submitted(outcome))
        return job

    def _waited_for(self, job: Job) -> Document:
        """Return the document that says that a job is done; who asks for it closes it.

        A job that has failed, takes too long or is not known any more is forgotten. One whose endpoint can't be
        reached is not: it may be done meanwhile. Raises AttemptError.
        """
        try:
            return self._heard(job) if self._poll.format == "sse" else self._polled(job)
        except TransportError as error:
            if error.reached and not self._tools.abandoned.is_set():
                self._forget()
            raise
        except AttemptError:
            self._forget()
            raise

    def _is_done(self, state: Any) -> bool:
        return self._protocol.stands(state) == "done"

    def _polled(self, job: Job) -> Document:
        return polled(
            self._tools,
            self._lane,
            self._values(job),
            f"the job {job.id}",
            until=self._is_done,
            give_up_at=self._give_up_at(job),
        )

    def _give_up_at(self, job: Job) -> float:
        """Return when a job is late; that of an earlier run counts from its submission too."""
        return time.monotonic() + self._poll.deadline_s - utc_age_s(job.submitted_at)

    def _heard(self, job: Job) -> Document:
        """Listen to server-sent events until one ends the job (WHATWG HTML, section 9.2)."""
        give_up_at = self._give_up_at(job)
        what = f"the job {job.id}"
        name, said = "message", bytearray()
        with self._listening(job, give_up_at) as answer:
            for line in answer.lines(self._poll.timeout_s, _EVENTS_MAX_BYTES):
                field, _, value = line.rstrip(b"\r").partition(b":")
                if field == b"event":
                    name = value.strip().decode(errors="replace")
                elif field == b"data":
                    said += value.removeprefix(b" ") + b"\n"
                elif not field and not value:
                    if self._protocol.stands(name) in ("done", "failed"):
                        document = Document(BytesIO(said), len(said))
                        has_ended(self._tools, document, name, what, until=self._is_done)
                        return document
                    name, said = "message", bytearray()
                if time.monotonic() > give_up_at:
                    break
        raise ResultError(f"the events of {what} ended without its result")

    def _listening(self, job: Job, give_up_at: float) -> Answer:
        """Ask for the events until the server is ready to tell them."""
        what = f"the job {job.id}"
        while True:
            try:
                request = self._protocol.poll(self._values(job))
                left_s = max(1.0, give_up_at - time.monotonic())
                return ask(self._tools, self._lane, request, what, total_s=left_s)
            except GoneError:
                raise
            except (BusyError, StatusError):
                wait_on(self._tools, give_up_at, what)

    def _results(self, job: Job, last: Document) -> list[Piece]:
        """Return the results, verified; one that is not whole is fetched again before it is generated again."""
        try:
            for left in range(FETCHES - 1, -1, -1):
                try:
                    return self._fetched(job, last)
                except AttemptError as error:
                    if not error.reached:
                        raise  # the endpoint is gone for a while, and may know the job when it is back
                    if not left or self._tools.abandoned.is_set():
                        self._forget()
                        raise of_the_result(error) from error
                self._tools.pause(self._poll.every_s)
                if self._poll.format == "json" and self._block.fetch is None:
                    last.close()
                    last = self._polled(job)
            raise AssertionError
        finally:
            last.close()

    def _fetched(self, job: Job, last: Document) -> list[Piece]:
        tools, values = self._tools, self._values(job)
        if self._block.fetch is None:
            return tools.pieces_of(self._task, self._lane, values, last)
        named = saved(last, self._poll.save, values)
        if len(named) > RESULTS_MAX:
            raise ResultError(f"expected at most {RESULTS_MAX} results of the job {job.id}, got {len(named)}")
        pieces: list[Piece] = []
        with dropped_unless_all(pieces):
            for some in named:
                values = tools.values(self._task, None, id=job.id, saved={**job.saved, **some})
                request = self._protocol.fetch(values)
                assert request is not None
                answer = tools.asked(self._lane, request)
                pieces += tools.pieces(self._task, self._lane, values, answer, number=len(pieces))
        return pieces

    def _values(self, job: Job) -> Values:
        return self._tools.values(self._task, None, id=job.id, saved=job.saved)

    def _document(self, answer: Answer) -> Document:
        document = self._tools.document(answer)
        try:
            return self._tools.judged(document, answer.status)
        except BaseException:
            document.close()
            raise

    def _forget(self) -> None:
        self._task.jobs.pop(self._lane.endpoint.name, None)
