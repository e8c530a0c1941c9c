"""One prompt's whole life, or a batch's: read the image, ask the endpoint, verify what it sends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from runner import formats
from runner.clock import utc_now
from runner.errors import AttemptError, BusyError, ImageError, StorageError, TransportError
from runner.health import Health, probe
from runner.records import Endpoint, Failed, Image, Outcome, ResultFile, Saving, Task, Verdict
from runner.resume import image_changed
from runner.schedule import Away, Lane, Stopped
from runner.worker import batch, job, sync
from runner.worker.images import Images
from runner.worker.outcomes import STOPPED
from runner.worker.tools import ImageOf, Piece, Tell, Tools, note

_Generate = Callable[[Tools, Task, Lane, ImageOf, Tell], list[Piece]]
_GENERATE: dict[str, _Generate] = {"sync": sync.generate, "job": job.generate}


class Worker:
    """The work of a run; its hands share it. Raises StorageError, never AttemptError."""

    def __init__(self, tools: Tools, images: Images) -> None:
        self._tools = tools
        self._images = images
        self._outcome = tools.outcomes.of

    def __call__(self, load: Sequence[Task], lane: Lane, tell: Tell) -> list[Verdict]:
        """Work on a load once; return a verdict on each of its tasks. Raises what ``lane.gate`` raises.

        ``tell`` takes what is to be told before that.
        """
        held = {task: saving for task in load if (saving := self._held(task, lane))}
        left = [task for task in load if task not in held]
        if self._tools.protocol.block.kind == "batch":
            made = self._batch(left, lane, tell) if left else []
        else:
            made = [self._one(task, lane, tell) for task in left]
        verdicts = dict(zip(left, made, strict=True)) | held
        return self._sent([verdicts[task] for task in load])

    def interrupted(self, task: Task, lane: Lane) -> Outcome:
        """Return the outcome of a task that is left pending because the run ends."""
        return self._outcome(task, lane, "interrupted", None, error=STOPPED)

    def probe(self, endpoint: Endpoint) -> Health:
        """Ask an endpoint how it is."""
        return probe(endpoint, self._tools.protocol, self._tools.clients[endpoint.index])

    def hurry(self) -> None:
        """End downloads of images and probes: no generation depends on them."""
        self._images.abandon()
        for client in self._tools.clients.values():
            client.hurry()

    def abandon(self) -> None:
        """Cut every exchange under way, so that every hand ends."""
        self._tools.abandoned.set()
        self._images.abandon()
        self._tools.downloads.abandon()
        for client in self._tools.clients.values():
            client.abandon()

    def _one(self, task: Task, lane: Lane, tell: Tell) -> Verdict:
        """Work on a task once; its image is kept for another attempt."""
        image = _Late(self._images, task, is_wanted=self._tools.protocol.reads_image)
        try:
            generate = _GENERATE[self._tools.protocol.block.kind]
            pieces = generate(self._tools, task, lane, image, tell)
            return self._saving(task, lane, image.for_the_record(), pieces)
        except AttemptError as raised:
            error = _second_thoughts(task, raised)
            self._images.keep(task, image.read if error.again else None)
            return self._failed(task, lane, image.read, error)
        except Away:
            self._images.keep(task, image.read)
            raise

    def _batch(self, load: Sequence[Task], lane: Lane, tell: Tell) -> list[Verdict]:
        try:
            came = batch.generate(self._tools, load, lane, tell)
        except AttemptError as raised:
            error = _second_thoughts(load[0], raised)
            if error.blame == "prompt" and len(load) > 1:  # one of them is bad, and nobody knows which
                for task in load:
                    task.alone = True
                error = BusyError(f"{error}; each is asked for alone", status=error.status, wait_s=0)
            return [self._failed(task, lane, None, error) for task in load]
        return [
            self._saving(task, lane, None, [one]) if isinstance(one, Piece) else self._failed(task, lane, None, one)
            for task, one in zip(load, came, strict=True)
        ]

    def _failed(self, task: Task, lane: Lane, image: Image | None, error: AttemptError) -> Failed:
        if task.attempts and not isinstance(error, ImageError):
            note(task, error=str(error))
        return Failed(error, self._outcome(task, lane, "failed", image, error=str(error), blame=error.blame))

    def _held(self, task: Task, lane: Lane) -> Saving | None:
        """Return what an earlier run had made of a task, and could not save."""
        outcomes = self._tools.outcomes
        held = self._tools.folder.held(task.prompt.key, outcomes.fingerprint(task.prompt))
        if held is None or image_changed(task.prompt, held.image):
            return None
        is_wanted = all(formats.satisfies(one.format, self._tools.output.verify) for one in held.files)
        return outcomes.held(task, lane, held) if is_wanted else None

    def _sent(self, verdicts: list[Verdict]) -> list[Verdict]:
        """Bring verified results to where they belong. Raises RemoteError, or Stopped if everything was cut."""
        saving = [one for one in verdicts if isinstance(one, Saving)]
        try:
            took_s = self._tools.folder.send(saving)
        except StorageError as error:
            if self._tools.abandoned.is_set():
                raise Stopped from error
            raise
        if not took_s:
            return verdicts
        return [_later(one, took_s / len(saving)) if isinstance(one, Saving) else one for one in verdicts]

    def _saving(self, task: Task, lane: Lane, image: Image | None, pieces: Sequence[Piece]) -> Saving:
        """Return verified results; in a folder they are named when their line is in the ledger."""
        numbers = [f"-{number}" for number in range(len(pieces))] if len(pieces) > 1 else [""]
        files = [self._file(task, piece, number) for piece, number in zip(pieces, numbers, strict=True)]
        first = files[0]
        outcome = self._outcome(
            task,
            lane,
            "saved",
            image,
            file=first.file,
            format=first.format,
            size_bytes=first.size_bytes,
            mtime_ns=first.mtime_ns,
            sha256=first.sha256,
            more=tuple(files[1:]),
        )
        return self._tools.folder.hold(outcome, [piece.temp for piece in pieces])

    def _file(self, task: Task, piece: Piece, number: str) -> ResultFile:
        wanted = self._tools.output.extension
        return ResultFile(
            file=f"{task.prompt.key}{number}.{piece.kind if wanted == 'auto' else wanted}",
            format=piece.kind,
            size_bytes=piece.reply.size_bytes,
            mtime_ns=piece.mtime_ns,
            sha256=piece.reply.sha256,
        )


class _Late:
    """The image of a task, read when it is first asked for."""

    def __init__(self, images: Images, task: Task, *, is_wanted: bool) -> None:
        self._images = images
        self._task = task
        self._is_wanted = is_wanted
        self.read: Image | None = None

    def __call__(self) -> Image | None:
        if self.read is None and self._is_wanted:
            self.read = self._images.of(self._task)
        return self.read

    def for_the_record(self) -> Image | None:
        """Return the image; of a job of an earlier run a local one is read now, if it is there still."""
        if not self._task.prompt.is_url:
            with suppress(ImageError):
                self()
        return self.read


def _later(saving: Saving, took_s: float) -> Saving:
    """Return a result that took longer to be saved."""
    outcome = saving.outcome
    save_s, seconds = round(outcome.save_s + took_s, 6), round(outcome.seconds + took_s, 6)
    return replace(saving, outcome=replace(outcome, save_s=save_s, seconds=seconds, finished_at=utc_now()))


def _second_thoughts(task: Task, error: AttemptError) -> AttemptError:
    """Let an old connection be an excuse once a prompt: one that breaks connections must come to an end."""
    if not isinstance(error, BusyError) or error.wait_s != 0:
        return error
    if task.excused:
        return TransportError(str(error))
    task.excused = True
    return error
