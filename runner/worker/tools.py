"""What every way of asking an endpoint shares: its client, and how results come to the disk."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import urljoin

from runner import formats
from runner.client import Answer, Client, WebClient, origin
from runner.clock import since, utc_now
from runner.errors import AttemptError, Blame, BusyError, ResultError, StatusError, TransportError
from runner.protocols import Document, Protocol, Values, shown
from runner.records import Attempt, Event, Image, Reply, Request, Task
from runner.redact import public_url
from runner.remote import Folder
from runner.schedule import Lane
from runner.settings import Output, Timeouts
from runner.storage import Temp, refusals
from runner.worker.outcomes import Outcomes

T = TypeVar("T")

ImageOf = Callable[[], Image | None]
"""Reads a task's image, the first time it is called; None if the protocol sends none."""

Tell = Callable[[Event], None]
"""Takes what is to be told before a task ends."""

FETCHES = 3
"""A result that is not whole, or not there yet, is asked for so often before it is generated again."""

RESULTS_MAX = 1000
"""So many results a prompt may have."""

_PAUSE_S = 0.5
_PROMPT_STATUSES = (400, 413, 415, 422)
"""What a server answers to a bad prompt; any other failure is the endpoint's."""

_REDIRECTS_MAX = 5
_DOCUMENT_SHARE = 2
"""A document may be so many times as long as its result: base64 takes four thirds."""


class Piece(NamedTuple):
    """A verified result in its temp file, settled."""

    temp: Temp
    kind: str
    reply: Reply
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Tools:
    """What the hands of a worker share."""

    clients: Mapping[int, Client]
    downloads: WebClient
    folder: Folder
    protocol: Protocol
    seed: int
    output: Output
    timeouts: Timeouts
    outcomes: Outcomes
    abandoned: threading.Event = field(default_factory=threading.Event)

    def values(self, task: Task, image: Image | None, **known: Any) -> Values:
        """Return what the placeholders stand for."""
        seed = self.seed if task.prompt.seed is None else task.prompt.seed
        return Values(task.prompt, seed, image, **known)

    def pause(self, seconds: float) -> None:
        """Wait, unless everything is cut meanwhile. Raises TransportError then."""
        if self.abandoned.wait(seconds):
            raise TransportError("abandoned")

    def checked(self, answer: Answer) -> Answer:
        """Return an answer with a good status; else close it and raise what it stands for."""
        retry_after_s = answer.retry_after_s
        meaning = self.protocol.meaning(answer.status, retry_after=retry_after_s is not None)
        if meaning == "ok":
            return answer
        with answer:
            said = formats.words(answer.head())
        text = f"{answer.url} answers {answer.status}" + (f": {said}" if said else "")
        if meaning == "busy":
            raise BusyError(text, status=answer.status, wait_s=retry_after_s or None)
        blame: Blame = "prompt" if meaning == "permanent" and answer.status in _PROMPT_STATUSES else "endpoint"
        raise StatusError(text, again=meaning == "retry", blame=blame, status=answer.status)

    def document(self, answer: Answer) -> Document:
        """Receive a JSON answer whole; who asks for it closes it. Raises ResultError if it is none."""
        with answer:
            scratch = self.folder.scratch()
            try:
                answer.receive(scratch, _DOCUMENT_SHARE * self.output.max_bytes)
                return Document(scratch.settled(), scratch.size_bytes)
            except BaseException:
                scratch.close()
                raise

    def judged(self, document: Document, status: int | None = None) -> Document:
        """Return a document that is no failure. Raises ResultError if it is one, whatever the status said."""
        if said := self.protocol.failure(document):
            raise ResultError(f"the server says it failed: {said}", status=status)
        return document

    def asked(
        self, lane: Lane, request: Request, *, timeout_s: float | None = None, total_s: float | None = None
    ) -> Answer:
        """Ask an endpoint something that takes no generation. Raises AttemptError for a status that is no success."""
        client = self.clients[lane.endpoint.index]
        return self.checked(client.send(client.prepare(request), timeout_s=timeout_s, total_s=total_s))

    def pieces(self, task: Task, lane: Lane, values: Values, answer: Answer, number: int = 0) -> list[Piece]:
        """Return the results that an answer holds, verified, in temp files; the first is the prompt's ``number``."""
        if self.protocol.block.result.source == "body":
            return [self.received(task, answer, number)]
        arrived = time.monotonic()
        with self.document(answer) as document:
            note(task, receive_s=since(arrived))
            return self.pieces_of(task, lane, values, self.judged(document, answer.status), number)

    def pieces_of(self, task: Task, lane: Lane, values: Values, document: Document, number: int = 0) -> list[Piece]:
        """Return the results that a document holds or names, verified, in temp files. Raises ResultError if none."""
        found = self.protocol.results(document, values)
        path = self.protocol.block.result.path
        if not found:
            raise ResultError(f"there is no result at {path} of the answer {shown(document.value)}")
        if len(found) > 1 and not self.protocol.several:
            raise ResultError(f"expected one result at {path}, got {len(found)}")
        if len(found) > RESULTS_MAX:
            raise ResultError(f"expected at most {RESULTS_MAX} results at {path}, got {len(found)}")
        pieces: list[Piece] = []
        with dropped_unless_all(pieces):
            for place, one in enumerate(found, number):
                pieces.append(self._decoded(task, lane, document, one, place))
        return pieces

    def received(self, task: Task, answer: Answer, number: int = 0) -> Piece:
        """Receive the body of an answer, and verify it."""
        with answer:
            return self._body(task, answer, number)

    def kept(self, task: Task, chunks: Iterable[bytes], number: int = 0, *, expected: str | None = None) -> Piece:
        """Write chunks down, and verify them."""
        digest = hashlib.sha256()
        temp = self.folder.temp(task.prompt.key, task.mark, number)
        with _dropped_if_not_whole(temp):
            size_bytes = 0
            for chunk in chunks:
                size_bytes += len(chunk)
                if size_bytes > self.output.max_bytes:
                    raise ResultError(f"the result is longer than output.max_bytes ({self.output.max_bytes})")
                digest.update(chunk)
                temp.write(chunk)
            return self._verified(task, temp, Reply(size_bytes, digest.hexdigest()), expected)

    def _body(self, task: Task, answer: Answer, number: int) -> Piece:
        temp = self.folder.temp(task.prompt.key, task.mark, number)
        with _dropped_if_not_whole(temp):
            arrived = time.monotonic()
            try:
                reply = answer.receive(temp, self.output.max_bytes)
            finally:
                note(task, receive_s=since(arrived))
            return self._verified(task, temp, reply, None)

    def _verified(self, task: Task, temp: Temp, reply: Reply, expected: str | None) -> Piece:
        received = time.monotonic()
        if self.output.verify != "auto" or expected is None:
            expected = self.output.verify
        if expected == "auto":
            expected = self.protocol.format or "auto"
        with refusals(f"{temp.path} can't be read"), temp.read() as file:
            self._refuse_failures(file, reply.size_bytes)
            kind = formats.verify(file, expected)
        stamp = temp.settled()
        task.save_s = since(received)
        return Piece(temp, kind, reply, stamp.mtime_ns)

    def _there(self, answer: Answer) -> Answer:
        """Return an answer that holds a result; what a protocol takes for good is not about downloads."""
        return answer if answer.status == 200 else self.checked(answer)

    def _refuse_failures(self, file: BinaryIO, size_bytes: int) -> None:
        """Raise ResultError if a body that should be a result is a document that says it failed."""
        if self.protocol.block.fail_when:
            head = file.read(512)
            file.seek(0)
            if formats.text_kind(head) == "JSON":
                self.judged(Document(file, size_bytes))
                file.seek(0)

    def _decoded(self, task: Task, lane: Lane, document: Document, value: Any, number: int) -> Piece:
        match self.protocol.block.result.decode:
            case "url":
                return self._downloaded(task, lane, document.text(value), number)
            case "text":
                return self.kept(task, [document.text(value).encode(errors="surrogatepass")], number)
            case "json":
                return self.kept(task, [_json(document, value)], number)
        return self.kept(task, document.decoded(value), number)

    def _downloaded(self, task: Task, lane: Lane, url: str, number: int) -> Piece:
        """Download a result, a few times if it is not there yet or not whole."""
        return self.again(lambda: self.received(task, self._at(lane, url), number))

    def again(self, attempt: Callable[[], T]) -> T:
        """Do what gets a result that exists already, up to ``FETCHES`` times. Raises the last AttemptError."""
        for left in range(FETCHES - 1, -1, -1):
            try:
                return attempt()
            except AttemptError as error:
                if not left or self.abandoned.is_set():
                    raise of_the_result(error) from error
            self.pause(_PAUSE_S * (FETCHES - left))
        raise AssertionError

    def _linked(self, url: str) -> Answer:
        """Ask another server than the endpoint; that it can't be reached says nothing of the endpoint."""
        try:
            return self._there(self.downloads.result(url, self.timeouts))
        except TransportError as error:
            raise ResultError(f"the result: {error}", status=error.status) from error

    def _at(self, lane: Lane, url: str) -> Answer:
        """Ask for a result where the server says it is; only its own host gets the endpoint's credentials."""
        for _ in range(_REDIRECTS_MAX):
            if url.startswith(("http://", "https://")) and origin(url) != origin(lane.endpoint.url):
                return self._linked(url)
            path = url if url.startswith(("http://", "https://", "/")) else f"/{url}"
            client = self.clients[lane.endpoint.index]
            answer = client.send(client.prepare(Request("GET", path)))
            if not answer.location:
                return self._there(answer)
            with answer:
                url = urljoin(path if "://" in path[:8] else lane.endpoint.url + path, answer.location)
        raise ResultError(f"more than {_REDIRECTS_MAX} redirects from {public_url(url)}")


def begin(task: Task, lane: Lane, ready: float, sent: float, sent_at: str | None = None) -> None:
    """Begin the record of an attempt; ``ready`` and ``sent`` are monotonic times, ``sent_at`` is UTC."""
    number, sent_at = len(task.attempts) + 1, sent_at or utc_now()
    task.attempts.append(Attempt(number, lane.endpoint.name, sent_at, wait_s=since(ready, sent)))


def note(task: Task, **known: Any) -> None:
    """Write what became known into the record of the attempt under way."""
    task.attempts[-1] = replace(task.attempts[-1], **known)


@contextmanager
def dropped_unless_all(pieces: list[Piece]) -> Iterator[None]:
    """Remove the pieces there are if not all came."""
    try:
        yield
    except BaseException:
        for piece in pieces:
            piece.temp.drop()
        raise


@contextmanager
def _dropped_if_not_whole(temp: Temp) -> Iterator[None]:
    try:
        yield
    except BaseException:
        temp.drop()
        raise


def of_the_result(error: AttemptError) -> AttemptError:
    """Return what failed after a generation as what it is: a failed attempt, and no reason to let the endpoint be."""
    if isinstance(error, BusyError) or not error.again:
        return ResultError(str(error), status=error.status)
    return error


def _json(document: Document, value: Any) -> bytes:
    return json.dumps(document.plain(value), ensure_ascii=False, indent=1).encode(errors="surrogatepass") + b"\n"
