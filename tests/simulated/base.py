"""What the simulated servers share: HTTP, one GPU, wishes to misbehave, and what was counted."""

from __future__ import annotations

import email.parser
import email.policy
import itertools
import json
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from simulated.artefacts import glb, half, prompt_image


@dataclass(frozen=True)
class Call:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @cached_property
    def document(self) -> Any:
        """The body as JSON; None if it is none."""
        if not self.headers.get("content-type", "").startswith("application/json"):
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @cached_property
    def form(self) -> tuple[dict[str, str], dict[str, bytes]]:
        """The fields and the files of a multipart body; both empty if it is none."""
        kind = self.headers.get("content-type", "")
        if not kind.startswith("multipart/form-data"):
            return {}, {}
        head = f"Content-Type: {kind}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + self.body)
        fields: dict[str, str] = {}
        files: dict[str, bytes] = {}
        for part in message.iter_parts():
            name = str(part.get_param("name", header="content-disposition"))
            content = part.get_payload(decode=True)
            if part.get_filename():
                files[name] = content
            else:
                fields[name] = content.decode()
        return fields, files


@dataclass(frozen=True)
class Answer:
    """One answer. ``body`` as pieces is sent chunked, as it comes; ``chunked`` sends bytes so."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    content_type: str = "application/octet-stream"
    headers: dict[str, str] = field(default_factory=dict)
    chunked: bool = False


class Refused(Exception):
    """The request is answered with this instead."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


def said(document: Any, status: int = 200, **headers: str) -> Answer:
    """Answer with a JSON document."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps(document).encode(), "application/json", named)


def missing(*location: str) -> Refused:
    """Refuse as FastAPI refuses a request without a required field."""
    detail = [{"type": "missing", "loc": ["body", *location], "msg": "Field required", "input": None}]
    return Refused(said({"detail": detail}, 422))


class Listener:
    """Answers HTTP on a loopback port of its own, from construction on, until closed."""

    def __init__(self) -> None:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                _send(self, listener._answer(_read(self)))

            do_GET = do_POST = do_PUT = _serve

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that went away

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _answer(self, call: Call) -> Answer:
        raise NotImplementedError


class ImageHost(Listener):
    """Hosts prompt images: ``/NAME.png`` for any name."""

    def image(self, name: str) -> str:
        """Return the URL of a prompt image."""
        return f"{self.url}/{name}.png"

    def _answer(self, call: Call) -> Answer:
        return Answer(200, prompt_image(call.path.strip("/").removesuffix(".png")), "image/png")


class Storage(Listener):
    """The file store of a hosted service: signed links; as S3 does, it refuses who sends credentials besides."""

    def __init__(self, server: Simulated) -> None:
        self._server = server
        super().__init__()

    def _answer(self, call: Call) -> Answer:
        if "authorization" in call.headers:
            self._server.leaks += 1
            return Answer(400, b"<Error><Code>InvalidArgument</Code></Error>", "application/xml")
        return self._server.file(call.path)


class Simulated(Listener, ABC):
    """A server of one kind with one GPU.

    ``submissions`` counts the requests for a generation (with jobs: those accepted), ``polls``, ``fetches`` and
    ``probes`` the others, ``generations`` what ran, by prompt, ``leaks`` the credentials that went where they should
    not.
    """

    preset: ClassVar[str]
    prompts: ClassVar[str] = "image"
    """What it takes: ``image``, ``url`` (an image it can reach) or ``text``."""
    extension: ClassVar[str] = "glb"
    seeded: ClassVar[bool] = True
    key: ClassVar[str | None] = None
    """The API key it wants as a bearer token."""

    def __init__(self, generation_s: float = 0.02) -> None:
        self.generation_s = generation_s
        self.submissions = self.polls = self.fetches = self.probes = self.leaks = 0
        self.generations: Counter[str] = Counter()
        self._wishes: dict[str, int] = defaultdict(int)
        self._guard = threading.Lock()
        self._gpu = threading.Lock()
        self._closed = threading.Event()
        super().__init__()

    def __exit__(self, *arguments: object) -> None:
        self._closed.set()
        super().__exit__(*arguments)

    def misbehave(self, how: str, times: int = 1) -> None:
        """Misbehave so for the next ``times``.

        Everyone knows ``busy``, ``failure`` and ``torn`` (the next result is half-written at its first fetch). Those
        with jobs also know ``poll 500``, ``poll 429``, ``hang`` (the job is never done) and ``forget`` (the job is
        gone when it is asked for); Gradio ``cut`` (the stream of events breaks off).
        """
        with self._guard:
            self._wishes[how] += times

    @contextmanager
    def busy_gpu(self) -> Iterator[None]:
        """Let no generation begin, or end, within the block."""
        with self._gpu:
            yield

    @classmethod
    def artefact(cls, prompt: str, seed: int | None) -> bytes:
        """Return the bytes a prompt with this seed gives."""
        return cls.make(f"{prompt} #{seed if cls.seeded else None}")

    @staticmethod
    def make(label: str) -> bytes:
        """Return the artefact of a label."""
        return glb(label)

    @abstractmethod
    def serve(self, call: Call) -> Answer:
        """Answer a request; Refused is an answer too."""

    def file(self, path: str) -> Answer:
        """Answer for a file of a result."""
        return Answer(404, b"no such file", "text/plain")

    def _answer(self, call: Call) -> Answer:
        if self.key and call.headers.get("authorization") != f"Bearer {self.key}":
            return self.unauthorized()
        try:
            return self.serve(call)
        except Refused as refused:
            return refused.answer

    def unauthorized(self) -> Answer:
        """Answer to who has no key."""
        return said({"detail": "Unauthorized"}, 401)

    def not_found(self) -> Answer:
        """Answer for a page that is not there."""
        return said({"detail": "Not Found"}, 404)

    def _granted(self, how: str) -> bool:
        with self._guard:
            if not self._wishes[how]:
                return False
            self._wishes[how] -= 1
            return True

    def _count(self, what: str) -> None:
        with self._guard:
            setattr(self, what, getattr(self, what) + 1)

    def _generate(self, prompt: str, seed: int | None) -> bytes:
        """Take the one GPU for a generation."""
        with self._gpu:
            with self._guard:
                self.generations[prompt] += 1
            self._closed.wait(self.generation_s)
            return self.artefact(prompt, seed)

    def _whole_or_torn(self, content: bytes) -> bytes:
        return half(content) if self._granted("torn") else content


@dataclass
class Job:
    """A submitted job: ``state`` is waiting, done or failed."""

    id: str
    prompt: str
    seed: int | None
    fails: bool
    hangs: bool
    state: str = "waiting"
    result: bytes = b""
    over: threading.Event = field(default_factory=threading.Event)
    told: bool = False


class Jobs(Simulated):
    """A server that takes jobs and does one after the other."""

    def __init__(self, generation_s: float = 0.02) -> None:
        self.jobs: dict[str, Job] = {}
        self._numbers = itertools.count(1)
        self._line: queue.Queue[Job] = queue.Queue()
        super().__init__(generation_s)
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()

    def __exit__(self, *arguments: object) -> None:
        super().__exit__(*arguments)
        self._worker.join()

    def _submit(self, prompt: str, seed: int | None) -> Job:
        self._count("submissions")
        name = f"job-{id(self):x}-{next(self._numbers)}"
        job = Job(name, prompt, seed, fails=self._granted("failure"), hangs=self._granted("hang"))
        self.jobs[job.id] = job
        if not job.hangs:
            self._line.put(job)
        return job

    def _work(self) -> None:
        while not self._closed.is_set():
            with suppress(queue.Empty):
                job = self._line.get(timeout=0.02)
                job.result = self._generate(job.prompt, job.seed)
                job.state = "failed" if job.fails else "done"
                job.over.set()

    def _asked(self, identity: str) -> Job | None:
        """Count a poll, misbehave if wanted, and return the job; None if it is not known."""
        self._count("polls")
        if self._granted("poll 500"):
            raise Refused(Answer(500, b"Internal Server Error", "text/plain"))
        if self._granted("poll 429"):
            raise Refused(self.too_many())
        if self._granted("forget"):
            self.jobs.pop(identity, None)
        return self.jobs.get(identity)

    def too_many(self) -> Answer:
        """Answer to who asks too often."""
        return said({"detail": "Too Many Requests"}, 429)


def _read(handler: BaseHTTPRequestHandler) -> Call:
    parts = urlsplit(handler.path)
    query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    headers = {name.lower(): value for name, value in handler.headers.items()}
    body = handler.rfile.read(int(headers.get("content-length", 0)))
    return Call(handler.command, unquote(parts.path), query, headers, body)


def _send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    handler.send_response(answer.status)
    handler.send_header("Content-Type", answer.content_type)
    for name, value in answer.headers.items():
        handler.send_header(name, value)
    if isinstance(answer.body, bytes) and not answer.chunked:
        handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        handler.wfile.write(answer.body)
        return
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for piece in _pieces(answer.body):
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    handler.wfile.write(b"0\r\n\r\n")


def _pieces(body: bytes | Iterable[bytes]) -> Iterator[bytes]:
    if isinstance(body, bytes):
        yield from (body[start : start + 256] for start in range(0, len(body), 256))
    else:
        yield from body


def moment() -> float:
    """Return a Unix time, for answers that hold one."""
    return time.time()
