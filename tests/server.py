"""A scripted fault server on loopback: a generation server and image host that misbehaves on command.

    with ScriptedServer() as server:
        server.script["chair"] = [Answer(status=503), Answer(body=b"<html>")]     # then whole results
        ...
        assert server.asked("chair") == 3

``POST /generate`` answers by the script of the uploaded image's stem, one entry a request; when that is used up, with
``server.usual``, at first a whole splat PLY. ``GET /images/NAME.png`` is a prompt image, scripted under
``images/NAME``; ``/health`` and ``/version`` are scripted under these names. The server notes every request (path
and headers in ``heads``), and how many generations ran at once.

What one answer can do wrong is in ``Answer``; ready-made ones are in ``FAULTS``. What a server can do wrong:

    server.usual = FAULTS["500"]           # every generation fails
    server.die()                           # refuses connections and resets those there are
    server.rise()                          # listens again on the same port
    ScriptedServer(dies_after=3)           # dies instead of answering the fourth generation
    server.script["/health"] = [Answer(status=503)] * 9
    ScriptedServer(generation_s=0.5)       # slow

``with ScriptedServer(certificate=...)`` speaks TLS (an ``ssl.SSLContext``).
"""

from __future__ import annotations

import email.parser
import email.policy
import socket
import ssl
import struct
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.message import Message
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath

SPLAT_FIELDS = "x y z f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3".split()
IMAGE = b"\x89PNG\r\n\x1a\n not really, but no server of the tests looks"


def splat_ply(count: int = 10, value: float = 0.5) -> bytes:
    """Return a whole binary splat PLY."""
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [f"property float {name}" for name in SPLAT_FIELDS]
    row = struct.pack(f"<{len(SPLAT_FIELDS)}f", *[value] * len(SPLAT_FIELDS))
    return "\n".join([*header, "end_header", ""]).encode() + row * count


@dataclass
class Answer:
    """One scripted answer.

    ``cut`` closes the connection after so many bytes of the body. ``length``: ``exact`` (Content-Length), ``none``
    (ends with the connection) or ``chunked``. ``drip_s`` is the pause behind each byte of the body,
    ``drip_head_s`` behind each byte of an endless header. ``hold`` is waited for before the headers, ``hold_body``
    between headers and body. ``reset`` closes the connection with a TCP reset instead of answering, ``raw`` sends
    these bytes instead of HTTP.
    """

    status: int = 200
    body: bytes = field(default_factory=splat_ply)
    length: str = "exact"
    cut: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drip_s: float = 0.0
    drip_head_s: float = 0.0
    hold: threading.Event | None = None
    hold_body: threading.Event | None = None
    reset: bool = False
    raw: bytes | None = None


HALF = splat_ply(500)[:-7]
FAULTS = {
    "500": Answer(status=500, body=b"CUDA error"),
    "502 html": Answer(status=502, body=b"<html><h1>502 Bad Gateway</h1></html>"),
    "503": Answer(status=503, body=b"overloaded"),
    "408": Answer(status=408, body=b""),
    "reset": Answer(reset=True),
    "no http": Answer(raw=b"\x00\x01\x02 this is no HTTP\r\n\r\n"),
    "html": Answer(body=b"<html>502 Bad Gateway</html>"),
    "json": Answer(body=b'{"detail": "out of memory"}'),
    "nothing": Answer(body=b""),
    "short ply": Answer(body=HALF),
    "no splats": Answer(body=splat_ply(0)),
    "cut, announced": Answer(body=splat_ply(500), cut=len(HALF)),
    "cut, chunked": Answer(body=splat_ply(500), length="chunked", cut=len(HALF)),
    "cut, to the close": Answer(body=HALF, length="none"),
}
"""Answers that are the endpoint's fault, or may be; all at once. Those that take their time the tests make."""


def busy(status: int = 429, *, seconds: int = 1, date: bool = False) -> Answer:
    """Return an answer with Retry-After, in seconds or as a date."""
    said = formatdate(time.time() + seconds, usegmt=True) if date else str(seconds)
    return Answer(status=status, body=b"", headers={"Retry-After": said})


@dataclass(frozen=True)
class Received:
    """A generation request as it came: the image's stem, the form's fields, the image and the headers."""

    stem: str
    fields: dict[str, str]
    image: bytes
    headers: dict[str, str]
    at: float


class ScriptedServer:
    """Listens on a port of its own from construction on; use it as a context manager."""

    def __init__(
        self,
        port: int = 0,
        *,
        generation_s: float = 0.0,
        dies_after: int | None = None,
        certificate: ssl.SSLContext | None = None,
    ) -> None:
        self.script: dict[str, list[Answer]] = defaultdict(list)
        self.usual = Answer()
        self.received: list[Received] = []
        self.heads: list[tuple[str, Message]] = []
        self.images_asked: list[str] = []
        self.image_headers: list[dict[str, str]] = []
        self.probes = 0
        self.connections = 0
        self.most_at_once = 0
        self.arrived = threading.Condition()
        self.generation_s = generation_s
        self.dies_after = dies_after
        self._certificate = certificate
        self._generating = 0
        self._open: set[socket.socket] = set()
        self._http: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._holds_port = _hold(port)
        self.port: int = self._holds_port.getsockname()[1]
        self.rise()
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._holds_port.close()

    def rise(self) -> None:
        """Listen; after ``die`` again on the same port."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                server.connections += 1
                server._open.add(self.connection)

            def finish(self) -> None:
                server._open.discard(self.connection)
                with suppress(OSError):
                    super().finish()

            def do_GET(self) -> None:
                server.heads.append((self.path, self.headers))
                server._get(self)

            def do_POST(self) -> None:
                server.heads.append((self.path, self.headers))
                server._post(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that was killed

        self._http = Server(("127.0.0.1", self.port), Handler)
        if self._certificate:
            self._http.socket = self._certificate.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def die(self) -> None:
        """Refuse connections from now on, and reset those there are."""
        self._close()
        for connection in list(self._open):
            _reset(connection)

    def _close(self) -> None:
        http, self._http = self._http, None
        if http:
            http.shutdown()
            http.server_close()
            assert self._thread
            self._thread.join()

    def image(self, name: str) -> str:
        """Return the URL of a prompt image."""
        return f"{self.url}/images/{name}.png"

    def asked(self, stem: str) -> int:
        """Return how many generations of this image were asked for."""
        return sum(1 for one in self.received if one.stem == stem)

    def wait_for(self, requests: int, timeout_s: float = 20.0) -> None:
        """Block until so many generation requests have arrived."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.received) >= requests, timeout_s), "requests never came"

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        path = PurePosixPath(handler.path.partition("?")[0])
        if path.parts[1:2] == ("images",):
            self.images_asked.append(path.stem)
            self.image_headers.append(dict(handler.headers.items()))
            self._send(handler, self._next(f"images/{path.stem}") or Answer(body=IMAGE))
        else:
            self.probes += str(path) == "/health"
            self._send(handler, self._next(str(path)) or Answer(body=b'{"status": "healthy", "version": "test-1"}'))

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        received = _parse(handler)
        with self.arrived:
            self.received.append(received)
            self._generating += 1
            self.most_at_once = max(self.most_at_once, self._generating)
            answer = self._next(received.stem) or self.usual
            dead = self.dies_after is not None and len(self.received) > self.dies_after
            self.arrived.notify_all()
        if dead:
            self.dies_after = None
            threading.Thread(target=self.die, daemon=True).start()
            answer = replace(answer, reset=True)
        if self.generation_s:
            time.sleep(self.generation_s)
        self._send(handler, answer, generation=True)

    def _next(self, name: str) -> Answer | None:
        script = self.script.get(name)
        return script.pop(0) if script else None

    def _send(self, handler: BaseHTTPRequestHandler, answer: Answer, *, generation: bool = False) -> None:
        if answer.hold:
            answer.hold.wait(30)
        if generation:
            with self.arrived:
                self._generating -= 1
        handler.close_connection = answer.length == "none" or answer.cut is not None
        if answer.reset or answer.raw is not None:
            handler.close_connection = True
            if answer.raw is not None:
                handler.wfile.write(answer.raw)
            else:
                _reset(handler.connection)
            return
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if answer.length == "exact":
            handler.send_header("Content-Length", str(len(answer.body)))
        elif answer.length == "chunked":
            handler.send_header("Transfer-Encoding", "chunked")
        if answer.drip_head_s:
            handler.flush_headers()
            _drip(handler, b"X-Endless: " + b"x" * 10_000, answer.drip_head_s)
        handler.end_headers()
        if answer.hold_body:
            answer.hold_body.wait(30)
        body = answer.body if answer.cut is None else answer.body[: answer.cut]
        if answer.length == "chunked":
            for start in range(0, len(body), 1000):
                chunk = body[start : start + 1000]
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            if answer.cut is None:
                handler.wfile.write(b"0\r\n\r\n")
        elif answer.drip_s:
            _drip(handler, body, answer.drip_s)
        else:
            handler.wfile.write(body)


def _hold(port: int) -> socket.socket:
    """Keep a port (0: a free one) from others while nobody listens there; who connects to it is refused.

    Linux lets one listener in beside it, as both have SO_REUSEADDR and this one does not listen.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", port))
    return holder


def _drip(handler: BaseHTTPRequestHandler, content: bytes, pause_s: float) -> None:
    for start in range(len(content)):
        handler.wfile.write(content[start : start + 1])
        time.sleep(pause_s)


def _reset(connection: socket.socket) -> None:
    """Close a connection with a TCP reset, as the kernel does for a process that dies with unread bytes."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RD)  # wakes the thread that reads from it, which closes it
    connection.close()


def _parse(handler: BaseHTTPRequestHandler) -> Received:
    content = handler.rfile.read(int(handler.headers["Content-Length"]))
    head = f"Content-Type: {handler.headers['Content-Type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + content)
    fields, image, stem = {}, b"", ""
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if part.get_filename():
            image, stem = part.get_payload(decode=True), PurePosixPath(str(part.get_filename())).stem
            fields[f"file:{name}"] = str(part.get_filename())
        else:
            fields[str(name)] = part.get_payload(decode=True).decode()
    return Received(stem, fields, image, dict(handler.headers.items()), time.monotonic())
