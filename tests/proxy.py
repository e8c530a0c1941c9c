"""A forward proxy on loopback: http in absolute form, https through CONNECT, with or without a password.

with ForwardProxy(password="me:pw") as proxy:
    ...
    assert proxy.asked == ["CONNECT 127.0.0.1:8443"]
"""

from __future__ import annotations

import base64
import http.client
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOPS = ("proxy-authorization", "proxy-connection", "connection", "transfer-encoding", "content-length")


class ForwardProxy:
    """Listens on a port of its own; use it as a context manager.

    ``password`` (``name:password``) is asked for. ``drip`` is said byte for byte instead of an answer to CONNECT.
    ``connections`` counts the clients' connections.
    """

    def __init__(self, *, password: str | None = None, drip: bytes | None = None) -> None:
        self.asked: list[str] = []
        self.connections = 0
        self.stop = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                proxy.connections += 1

            def log_message(self, *_: object) -> None:
                pass

            def do_CONNECT(self) -> None:
                if not self._allowed():
                    return
                self.close_connection = True
                if drip is not None:
                    self._drip(drip)
                    return
                host, _, port = self.path.rpartition(":")
                with socket.create_connection((host, int(port))) as there:
                    self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
                    back.start()
                    _pump(self.connection, there)
                    back.join()

            def do_GET(self) -> None:
                self._forward()

            def do_POST(self) -> None:
                self._forward()

            def _allowed(self) -> bool:
                proxy.asked.append(f"{self.command} {self.path}")
                expected = None if password is None else f"Basic {base64.b64encode(password.encode()).decode()}"
                if expected in (None, self.headers["Proxy-Authorization"]):
                    return True
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                self.send_response(407, "Proxy Authentication Required")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return False

            def _drip(self, said: bytes) -> None:
                for start in range(len(said)):
                    if proxy.stop.wait(0.02):
                        return
                    with suppress(OSError):
                        self.wfile.write(said[start : start + 1])

            def _forward(self) -> None:
                if not self._allowed():
                    return
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                there = http.client.HTTPConnection(url.hostname or "", url.port)
                there.putrequest(
                    self.command,
                    url._replace(scheme="", netloc="").geturl(),
                    skip_host=True,
                    skip_accept_encoding=True,
                )
                for name, value in self.headers.items():
                    if name.lower() not in _HOPS:
                        there.putheader(name, value)
                there.putheader("Content-Length", str(len(body)))
                there.endheaders(body)
                answer = there.getresponse()
                content = answer.read()
                there.close()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOPS:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # a client that went away

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> ForwardProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def with_user(self, info: str) -> str:
        """Return its URL with user info."""
        return self.url.replace("//", f"//{info}@")


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
