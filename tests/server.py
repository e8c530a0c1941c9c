"""A scripted generation server and image host on loopback, for whole runs against something real.

    with ScriptedServer() as server:
        server.script["chair"] = [Answer(status=503), Answer(body=b"<html>")]     # then whole results
        ...
        assert server.asked("chair") == 3

``POST /generate`` answers by the script of the uploaded image's stem, one entry a request, and with a whole splat
PLY when the script is used up. ``GET /images/NAME.png`` is a prompt image, scripted under ``images/NAME``.
The server notes every request, and how many generations ran at once.
"""

from __future__ import annotations

import email.parser
import email.policy
import struct
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
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
    (ends with the connection) or ``chunked``. ``drip_s`` is the pause behind each byte of the body. ``hold`` is
    waited for before the headers, ``hold_body`` between headers and body.
    """

    status: int = 200
    body: bytes = field(default_factory=splat_ply)
    length: str = "exact"
    cut: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drip_s: float = 0.0
    hold: threading.Event | None = None
    hold_body: threading.Event | None = None


@dataclass(frozen=True)
class Received:
    """A generation request as it came: the image's stem, the form's fields, the image and the headers."""

    stem: str
    fields: dict[str, str]
    image: bytes
    headers: dict[str, str]


class ScriptedServer:
    """Listens on a port of its own from construction on; use it as a context manager."""

    def __init__(self, port: int = 0, *, generation_s: float = 0.0) -> None:
        self.script: dict[str, list[Answer]] = defaultdict(list)
        self.received: list[Received] = []
        self.images_asked: list[str] = []
        self.connections = 0
        self.most_at_once = 0
        self.arrived = threading.Condition()
        self.generation_s = generation_s
        self._generating = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                server.connections += 1

            def do_GET(self) -> None:
                server._get(self)

            def do_POST(self) -> None:
                server._post(self)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that was killed
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
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
            self._send(handler, self._next(f"images/{path.stem}") or Answer(body=IMAGE))
        else:
            self._send(handler, self._next(str(path)) or Answer(body=b'{"status": "healthy", "version": "test-1"}'))

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        received = _parse(handler)
        with self.arrived:
            self.received.append(received)
            self._generating += 1
            self.most_at_once = max(self.most_at_once, self._generating)
            answer = self._next(received.stem) or Answer()
            self.arrived.notify_all()
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
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if answer.length == "exact":
            handler.send_header("Content-Length", str(len(answer.body)))
        elif answer.length == "chunked":
            handler.send_header("Transfer-Encoding", "chunked")
        handler.close_connection = answer.length == "none" or answer.cut is not None
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
        else:
            step = 1 if answer.drip_s else len(body) or 1
            for start in range(0, len(body), step):
                handler.wfile.write(body[start : start + step])
                time.sleep(answer.drip_s)


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
    return Received(stem, fields, image, dict(handler.headers.items()))
