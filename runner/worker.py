"""One prompt's whole life: read the image, ask the endpoint (as often as it takes), verify, save."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runner import formats
from runner.client import IMAGE_MAX_BYTES, Answer, Client, ImageClient
from runner.clock import since, utc_now
from runner.errors import AttemptError, ImageError, StatusError
from runner.pool import Lane, Tell
from runner.prompts import fingerprint, shown
from runner.protocols import Protocol, generation_request, status_class
from runner.records import Attempt, Image, Kind, Outcome, Prompt, Retrying
from runner.retry import wait_before_next
from runner.settings import Output, Retry
from runner.stop import Stop
from runner.storage import OutputFolder, refusals

_PROMPT_STATUSES = (400, 413, 415, 422)
"""What a server answers to a bad prompt; any other failure is the endpoint's."""


class _Stopped(Exception):
    """The run should stop, and this prompt is not on its endpoint: leave it pending."""


@dataclass(slots=True)
class _Job:
    """What is known so far of a prompt that a hand is working on."""

    prompt: Prompt
    lane: Lane
    tell: Tell
    begun: float = field(default_factory=time.monotonic)
    attempts: list[Attempt] = field(default_factory=list)
    image: Image | None = None
    image_s: float = 0.0
    save_s: float = 0.0

    def note(self, **known: Any) -> None:
        """Write what became known into the record of the attempt under way."""
        self.attempts[-1] = replace(self.attempts[-1], **known)


class Worker:
    """The ``work`` function of a run; its hands share it. Raises StorageError, never AttemptError."""

    def __init__(
        self,
        *,
        clients: Mapping[int, Client],
        images: ImageClient,
        folder: OutputFolder,
        protocol: Protocol,
        seed: int,
        retry: Retry,
        output: Output,
        stop: Stop,
    ) -> None:
        self._clients = clients
        self._images = images
        self._folder = folder
        self._protocol = protocol
        self._seed = seed
        self._retry = retry
        self._output = output
        self._stop = stop

    def __call__(self, prompt: Prompt, lane: Lane, tell: Tell) -> Outcome:
        """Return how it ended. The image is read once, whatever the number of attempts."""
        job = _Job(prompt, lane, tell)
        try:
            job.image = self._image(job)
            return self._generate(job, job.image)
        except AttemptError as error:
            return self._outcome(job, "failed", error=str(error), blame=error.blame)
        except _Stopped:
            return self._outcome(job, "interrupted", error=f"stopped ({self._stop.reason})")

    def _image(self, job: _Job) -> Image:
        attempt = 1
        begun = time.monotonic()
        while True:
            try:
                if not job.prompt.is_url:
                    return _read_image(job.prompt.image)
                return self._images.fetch(job.prompt.image)
            except ImageError as error:
                self._wait(job, error, attempt)
            finally:
                job.image_s = since(begun)
            attempt += 1

    def _generate(self, job: _Job, image: Image) -> Outcome:
        client = self._clients[job.lane.endpoint.index]
        prepared = client.prepare(generation_request(self._protocol, image, self._seed))
        while True:
            try:
                with self._ask(job, lambda: client.send(prepared)) as answer:
                    return self._result(job, answer)
            except AttemptError as error:
                job.note(error=str(error))
                self._wait(job, error, len(job.attempts))

    def _ask(self, job: _Job, send: Callable[[], Answer]) -> Answer:
        """Wait for the slot and hold it until the answer's headers are there: then the endpoint is free again."""
        ready = time.monotonic()
        with job.lane.slot:
            if self._stop.asked:
                raise _Stopped
            sent = time.monotonic()
            job.attempts.append(Attempt(len(job.attempts) + 1, job.lane.endpoint.name, utc_now(), since(ready, sent)))
            try:
                answer = send()
            finally:
                job.note(generate_s=since(sent))
        job.note(status=answer.status)
        return answer

    def _result(self, job: _Job, answer: Answer) -> Outcome:
        """Receive, verify and save the body of an answer."""
        if status_class(answer.status) != "ok":
            raise _status_error(answer)
        with self._folder.temp(job.prompt.key) as temp:
            arrived = time.monotonic()
            try:
                reply = answer.receive(temp, self._output.max_bytes)
            finally:
                job.note(receive_s=since(arrived))
            received = time.monotonic()
            with refusals(f"{temp.path} can't be read"):
                kind = formats.verify(temp.flushed(), self._output.verify)
            extension = kind if self._output.extension == "auto" else self._output.extension
            name = f"{job.prompt.key}.{extension}"
            stamp = temp.keep(name)
            job.save_s = since(received)
        return self._outcome(
            job,
            "saved",
            file=name,
            format=kind,
            size_bytes=reply.size_bytes,
            mtime_ns=stamp.mtime_ns,
            sha256=reply.sha256,
        )

    def _wait(self, job: _Job, error: AttemptError, attempt: int) -> None:
        """Wait before the next attempt, or raise ``error`` if there should be none. Stopping ends the wait."""
        wait_s = wait_before_next(error, attempt, self._retry)
        if wait_s is None:
            raise error
        job.tell(Retrying(job.prompt, job.lane.endpoint, str(error), attempt, wait_s))
        if self._stop.wait(wait_s):
            raise _Stopped

    def _outcome(self, job: _Job, kind: Kind, **results: Any) -> Outcome:
        prompt = job.prompt
        return Outcome(
            key=prompt.key,
            index=prompt.index,
            prompt=shown(prompt),
            outcome=kind,
            endpoint=job.lane.endpoint.name,
            fingerprint=fingerprint(prompt, seed=self._seed, protocol=self._protocol.name),
            seed=self._seed,
            protocol=self._protocol.name,
            attempts=tuple(job.attempts),
            image=_local_image(job),
            image_s=job.image_s,
            save_s=job.save_s,
            seconds=since(job.begun),
            finished_at=utc_now(),
            **results,
        )


def _read_image(path: str) -> Image:
    try:
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_size > IMAGE_MAX_BYTES:
                raise ImageError(f"image: {path} has {stat.st_size} bytes, more than {IMAGE_MAX_BYTES}")
            content = file.read()
    except OSError as error:
        raise ImageError(f"image: {path}: {error.strerror}") from error
    if not content:
        raise ImageError(f"image: {path} is empty")
    name = os.path.basename(path).encode(errors="replace").decode()
    return Image(name, content, hashlib.sha256(content).hexdigest(), stat.st_mtime_ns)


def _local_image(job: _Job) -> dict[str, object] | None:
    if job.image is None or job.prompt.is_url:
        return None
    image = job.image
    return {"size_bytes": image.size_bytes, "mtime_ns": image.mtime_ns, "sha256": image.sha256}


def _status_error(answer: Answer) -> StatusError:
    said = formats.words(answer.head())
    return StatusError(
        f"{answer.url} answers {answer.status}" + (f": {said}" if said else ""),
        again=status_class(answer.status) == "retry",
        blame="prompt" if answer.status in _PROMPT_STATUSES else "endpoint",
        status=answer.status,
    )
