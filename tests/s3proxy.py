"""A proxy in front of an object store that refuses, cuts, stalls and spoils what it is told to, and counts requests.

with S3Proxy(store_url) as proxy:
    proxy.fail("part", times=2, code="InternalError", status=500)
    ...
    assert proxy.counts["part"] == 5
"""

from __future__ import annotations

import http.client
import re
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_STATUS = {"SlowDown": 503, "InternalError": 500, "ExpiredToken": 400, "AccessDenied": 403, "NoSuchUpload": 404}


@dataclass
class Fault:
    """What to do to the next ``times`` requests of a kind (``*``: any) whose key ends in ``named``.

    ``do`` is a code of S3, or ``reset``: before the body is read; ``cut``: the store has done it, and nobody hears of
    it; ``spoil``: a byte of the body is another when it arrives; ``rot``: it arrives well, is another a moment
    later, and the store takes that for what it got; ``stall``: it waits for ``go_on``.
    """

    kind: str
    do: str
    times: int
    named: str = ""


class S3Proxy:
    """Listens on a port of its own; use it as a context manager. ``there`` is the URL behind it.

    Kinds are put, part, begin, complete, abort, head, get, list, delete, delete-many, uploads, other. ``counts``
    counts them, ``seen`` are kind and path in their order. Requests signed with a key in ``expired`` are refused.
    """

    def __init__(self, url: str) -> None:
        self.counts: Counter[str] = Counter()
        self.seen: list[tuple[str, str]] = []
        self.expired: set[str] = set()
        self.headers: dict[str, dict[str, str]] = {}
        self.at_once = self.most_at_once = 0
        self.stalled = threading.Event()
        self.go_on = threading.Event()
        self.rotting: Callable[[str, str, bytes], dict[str, Any]] | None = None
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self.there = url
        self._there = urlsplit(url)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle_expect_100(self) -> bool:
                return True  # it is told later, once it is clear that the body is wanted

            def _any(self) -> None:
                with proxy._lock:
                    proxy.at_once += 1
                    proxy.most_at_once = max(proxy.most_at_once, proxy.at_once)
                try:
                    proxy._answer(self)
                finally:
                    with proxy._lock:
                        proxy.at_once -= 1

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, *_: Any) -> None:
                pass  # a client that went away

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> S3Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def fail(self, kind: str, do: str, *, times: int = 1, named: str = "") -> None:
        """Do something to the next requests of a kind, of those whose key ends in ``named``."""
        self._faults.append(Fault(kind, do, times, named))

    def heal(self) -> None:
        """Do nothing to any request from now on."""
        with self._lock:
            self._faults.clear()
            self.expired.clear()
        self.go_on.set()

    def _fault(self, kind: str, key: str) -> str:
        with self._lock:
            self.counts[kind] += 1
            self.seen.append((kind, key))
            for one in self._faults:
                if one.kind in (kind, "*") and one.times > 0 and key.endswith(one.named):
                    one.times -= 1
                    return one.do
        return ""

    def _answer(self, asked: BaseHTTPRequestHandler) -> None:
        url = urlsplit(asked.path)
        kind = _kind_of(asked.command, url.path, parse_qs(url.query, keep_blank_values=True))
        do = self._fault(kind, unquote(url.path))
        self.headers[kind] = dict(asked.headers.items())
        if do == "reset":
            asked.close_connection = True
            asked.connection.close()
            return
        if do == "stall":
            self.stalled.set()
            self.go_on.wait(30)
        if asked.headers.get("Expect"):
            asked.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = asked.rfile.read(int(asked.headers["Content-Length"] or 0))
        signer = re.search(r"Credential=([^/]+)/", asked.headers.get("Authorization", ""))
        if signer and signer[1] in self.expired:
            do = "ExpiredToken"
        if do in _STATUS:
            self._refuse(asked, do)
            return
        if do == "spoil":
            body = bytes([body[0] ^ 1]) + body[1:]
        self._forward(asked, body, do)

    def _refuse(self, asked: BaseHTTPRequestHandler, code: str) -> None:
        said = f"<Error><Code>{code}</Code><Message>the test said so</Message></Error>".encode()
        asked.send_response(_STATUS[code])
        asked.send_header("Content-Type", "application/xml")
        asked.send_header("Content-Length", str(len(said)))
        asked.end_headers()
        if asked.command != "HEAD":
            asked.wfile.write(said)

    def _forward(self, asked: BaseHTTPRequestHandler, body: bytes, do: str) -> None:
        there = http.client.HTTPConnection(self._there.hostname or "", self._there.port)
        there.putrequest(asked.command, asked.path, skip_host=True, skip_accept_encoding=True)
        for name, value in asked.headers.items():
            if name.lower() not in ("connection", "content-length", "expect", "transfer-encoding"):
                there.putheader(name, value)
        there.putheader("Content-Length", str(len(body)))
        there.endheaders(body)
        answer = there.getresponse()
        content = answer.read()
        there.close()
        headers = dict(answer.getheaders())
        if do == "rot" and self.rotting:
            bucket, _, key = unquote(urlsplit(asked.path).path).lstrip("/").partition("/")
            rotten = self.rotting(bucket, key, bytes([body[0] ^ 1]) + body[1:])["ETag"]
            headers = {name: rotten if name.lower() == "etag" else value for name, value in headers.items()}
            content = re.sub(rb"<ETag>[^<]*</ETag>", f"<ETag>{rotten}</ETag>".encode(), content)
        if do == "cut":
            asked.close_connection = True
            asked.connection.close()
            return
        asked.send_response_only(answer.status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                asked.send_header(name, value)
        length = answer.getheader("Content-Length") if asked.command == "HEAD" else str(len(content))
        asked.send_header("Content-Length", length or "0")
        asked.end_headers()
        with suppress(OSError):
            asked.wfile.write(content)


def _kind_of(method: str, path: str, query: dict[str, list[str]]) -> str:
    is_object = "/" in path.strip("/")
    if method == "PUT":
        return "part" if "partNumber" in query else "put" if is_object else "other"
    if method == "POST":
        return "begin" if "uploads" in query else "complete" if "uploadId" in query else "delete-many"
    if method == "DELETE":
        return "abort" if "uploadId" in query else "delete"
    if method == "HEAD":
        return "head"
    return "get" if is_object else "uploads" if "uploads" in query else "list"
