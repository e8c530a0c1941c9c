"""One attempt at one prompt: read the image, ask the endpoint, verify what it sends."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runner import formats
from runner.client import IMAGE_MAX_BYTES, Answer, Client, ImageClient
from runner.clock import since, utc_now
from runner.errors import AttemptError, Blame, BusyError, ImageError, StatusError, TransportError
from runner.health import Health, probe
from runner.lanes import lane_of
from runner.prompts import Fingerprints, shown
from runner.protocols import PRESETS, Protocol, generation_request, status_class
from runner.records import Attempt, Endpoint, Failed, Image, Kind, Outcome, Prompt, Saving, Task, Verdict
from runner.schedule import Away, Lane
from runner.settings import Output, Timeouts
from runner.storage import OutputFolder, new_mark, refusals

_KEPT_BYTES = 32 * 1024 * 1024

_STOPPED = "stopped before it was generated"

_PROMPT_STATUSES = (400, 413, 415, 422)
"""What a server answers to a bad prompt; any other failure is the endpoint's."""


class Worker:
    """The work of a run; its hands share it. Raises StorageError, never AttemptError."""

    def __init__(
        self,
        *,
        clients: Mapping[int, Client],
        images: ImageClient,
        folder: OutputFolder,
        protocol: Protocol,
        seed: int,
        output: Output,
        outcomes: Outcomes,
    ) -> None:
        self._clients = clients
        self._images = images
        self._folder = folder
        self._protocol = protocol
        self._seed = seed
        self._output = output
        self._outcome = outcomes.of
        self._read = _Images()

    def __call__(self, task: Task, lane: Lane) -> Verdict:
        """Work on a task once; its image is kept for another attempt. Raises what ``lane.gate`` raises."""
        image: Image | None = None
        try:
            image = self._image(task)
            with self._ask(task, lane, image) as answer:
                return self._result(task, lane, image, answer)
        except AttemptError as raised:
            error = self._second_thoughts(task, raised)
            if task.attempts and not isinstance(error, ImageError):
                _note(task, error=str(error))
            self._read.keep(task, image if error.again else None)
            return Failed(error, self._outcome(task, lane, "failed", image, error=str(error), blame=error.blame))
        except Away:
            self._read.keep(task, image)
            raise

    def _second_thoughts(self, task: Task, error: AttemptError) -> AttemptError:
        """Let an old connection be an excuse once a prompt: one that breaks connections must come to an end."""
        if not isinstance(error, BusyError) or error.wait_s != 0:
            return error
        if task.excused:
            return TransportError(str(error))
        task.excused = True
        return error

    def interrupted(self, task: Task, lane: Lane) -> Outcome:
        """Return the outcome of a task that is left pending because the run ends."""
        return self._outcome(task, lane, "interrupted", None, error=_STOPPED)

    def probe(self, endpoint: Endpoint) -> Health:
        """Ask an endpoint how it is."""
        return probe(endpoint, self._protocol, self._clients[endpoint.index])

    def hurry(self) -> None:
        """End downloads of images and probes: no generation depends on them."""
        self._images.abandon()
        for client in self._clients.values():
            client.hurry()

    def abandon(self) -> None:
        """Cut every exchange under way, so that every hand ends."""
        self._images.abandon()
        for client in self._clients.values():
            client.abandon()

    def _image(self, task: Task) -> Image:
        kept = self._read.take(task)
        if kept is not None:
            return kept
        begun = time.monotonic()
        task.image_attempts += 1
        try:
            image = self._images.fetch(task.prompt.image) if task.prompt.is_url else _read_image(task.prompt.image)
        finally:
            task.image_s += since(begun)
        head = image.content[:1024]
        if page := formats.text_kind(head):
            raise ImageError(f"image: {shown(task.prompt)} is no image, but {page}: {formats.words(head)}")
        task.image_attempts = 0
        return image

    def _ask(self, task: Task, lane: Lane, image: Image) -> Answer:
        """Wait for the slot and hold it until the answer's headers are there: then the endpoint is free again."""
        client = self._clients[lane.endpoint.index]
        prepared = client.prepare(generation_request(self._protocol, image, self._seed))
        ready = time.monotonic()
        with lane.gate:
            sent = time.monotonic()
            task.attempts.append(
                Attempt(len(task.attempts) + 1, lane.endpoint.name, utc_now(), wait_s=since(ready, sent))
            )
            try:
                answer = client.send(prepared)
            finally:
                _note(task, generate_s=since(sent))
            _note(task, status=answer.status)
            if status_class(answer.status) != "ok":
                with answer:
                    raise _status_error(answer)
        return answer

    def _result(self, task: Task, lane: Lane, image: Image, answer: Answer) -> Saving:
        """Receive and verify the body of an answer; it is named when its line is in the ledger."""
        temp = self._folder.temp(task.prompt.key, task.mark)
        try:
            arrived = time.monotonic()
            try:
                reply = answer.receive(temp, self._output.max_bytes)
            finally:
                _note(task, receive_s=since(arrived))
            received = time.monotonic()
            with refusals(f"{temp.path} can't be read"), temp.read() as file:
                kind = formats.verify(file, self._output.verify)
            extension = kind if self._output.extension == "auto" else self._output.extension
            stamp = temp.settled()
            task.save_s = since(received)
        except BaseException:
            temp.drop()
            raise
        name = f"{task.prompt.key}.{extension}"
        outcome = self._outcome(
            task,
            lane,
            "saved",
            image,
            file=name,
            format=kind,
            size_bytes=reply.size_bytes,
            mtime_ns=stamp.mtime_ns,
            sha256=reply.sha256,
        )
        return Saving(outcome, temp.part(name))


class Outcomes:
    """Makes the records of how tasks end."""

    def __init__(self, *, lane_names: Sequence[str], seed: int, protocol: str) -> None:
        self._lane_names = lane_names
        self._seed = seed
        self._protocol = protocol
        self._fingerprints = Fingerprints(seed=seed, protocol=protocol)

    def of(self, task: Task, lane: Lane, kind: Kind, image: Image | None = None, **results: Any) -> Outcome:
        """Return the outcome of a task as it stands."""
        prompt = task.prompt
        home = self._lane_names[lane_of(prompt.index, len(self._lane_names))]
        return Outcome(
            key=prompt.key,
            index=prompt.index,
            prompt=shown(prompt),
            outcome=kind,
            endpoint=lane.endpoint.name,
            fingerprint=self._fingerprints.of(prompt.image.encode(errors="surrogatepass")).hex(),
            seed=self._seed,
            protocol=self._protocol,
            attempts=tuple(task.attempts),
            image=_local_image(prompt, image),
            image_s=round(task.image_s, 6),
            save_s=task.save_s,
            seconds=since(task.begun),
            finished_at=utc_now(),
            moved_from=home if home != lane.endpoint.name else None,
            **results,
        )


@dataclass(frozen=True, slots=True)
class Workbench:
    """What a worker needs, in this process or, pickled, in another: ``endpoints`` are all of the run's."""

    endpoints: tuple[Endpoint, ...]
    timeouts: Timeouts
    output: Output
    seed: int
    protocol: str
    folder: Path
    mark: str = field(default_factory=new_mark)

    @contextmanager
    def open(self, endpoints: Sequence[Endpoint]) -> Iterator[Worker]:
        """Open long-lived sessions, one for each of these endpoints and one for all images; close them at the end."""
        with ExitStack() as sessions:
            clients = {one.index: Client(one, self.timeouts, connections=one.slots + 1) for one in endpoints}
            images = ImageClient(self.timeouts, connections=sum(one.slots + 1 for one in endpoints) or 1)
            sessions.callback(images.close)
            for client in clients.values():
                sessions.callback(client.close)
            yield Worker(
                clients=clients,
                images=images,
                folder=OutputFolder(self.folder, self.mark),
                protocol=PRESETS[self.protocol],
                seed=self.seed,
                output=self.output,
                outcomes=self._outcomes,
            )

    def clean(self, tasks: Sequence[Task]) -> None:
        """Remove the unfinished files of these tasks that its worker left. Raises StorageError."""
        folder = OutputFolder(self.folder, self.mark)
        for task in tasks:
            folder.clean(task.prompt.key, task.mark)

    def interrupted(self, task: Task, lane: Lane) -> Outcome:
        return self._outcomes.of(task, lane, "interrupted", error=_STOPPED)

    def lost(self, task: Task, lane: Lane, error: str) -> Outcome:
        return self._outcomes.of(task, lane, "failed", error=error, blame="prompt")

    @property
    def _outcomes(self) -> Outcomes:
        names = [one.name for one in self.endpoints]
        return Outcomes(lane_names=names, seed=self.seed, protocol=self.protocol)


class _Images:
    """Images of tasks that wait for another attempt, the latest up to ``_KEPT_BYTES``; others are read again."""

    def __init__(self) -> None:
        self._images: dict[int, Image] = {}
        self._size_bytes = 0
        self._lock = threading.Lock()

    def keep(self, task: Task, image: Image | None) -> None:
        if image is None:
            return
        with self._lock:
            old = self._images.pop(task.prompt.index, None)
            self._images[task.prompt.index] = image
            self._size_bytes += image.size_bytes - (old.size_bytes if old else 0)
            while self._size_bytes > _KEPT_BYTES:
                self._size_bytes -= self._images.pop(next(iter(self._images))).size_bytes

    def take(self, task: Task) -> Image | None:
        with self._lock:
            image = self._images.pop(task.prompt.index, None)
            self._size_bytes -= image.size_bytes if image else 0
            return image


def _note(task: Task, **known: Any) -> None:
    """Write what became known into the record of the attempt under way."""
    task.attempts[-1] = replace(task.attempts[-1], **known)


def _read_image(path: str) -> Image:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"image: {path} is no regular file")
            content = file.read(IMAGE_MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"image: {path}: {error.strerror}") from error
    if len(content) > IMAGE_MAX_BYTES:
        raise ImageError(f"image: {path} is longer than {IMAGE_MAX_BYTES} bytes")
    if not content:
        raise ImageError(f"image: {path} is empty")
    name = os.path.basename(path).encode(errors="replace").decode()
    return Image(name, content, hashlib.sha256(content).hexdigest(), status.st_mtime_ns)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file as an ``opener``; a pipe that nobody writes to doesn't block."""
    return os.open(path, flags | os.O_NONBLOCK)


def _local_image(prompt: Prompt, image: Image | None) -> dict[str, object] | None:
    if image is None or prompt.is_url:
        return None
    return {"size_bytes": image.size_bytes, "mtime_ns": image.mtime_ns, "sha256": image.sha256}


def _status_error(answer: Answer) -> AttemptError:
    """Return the error that an answer other than 200 stands for."""
    said = formats.words(answer.head())
    text = f"{answer.url} answers {answer.status}" + (f": {said}" if said else "")
    wait_s = answer.retry_after_s
    meaning = status_class(answer.status, retry_after=wait_s is not None)
    if meaning == "busy":
        return BusyError(text, status=answer.status, wait_s=wait_s or None)
    blame: Blame = "prompt" if answer.status in _PROMPT_STATUSES else "endpoint"
    return StatusError(text, again=meaning == "retry", blame=blame, status=answer.status)
