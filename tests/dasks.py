"""A real Dask scheduler and real workers of it on loopback, and a server that notices who has left it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from conftest import REPOSITORY
from server import Answer, ScriptedServer, _parse

_PAUSE_S = 0.01


class PatientServer(ScriptedServer):
    """Ends a generation when who asked for it has left: ``most_at_once`` is what living clients asked for."""

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        received = _parse(handler)
        with self.arrived:
            self.received.append(received)
            self._at_work = {one for one in self._at_work if _is_there(one)} | {handler.connection}
            self.most_at_once = max(self.most_at_once, len(self._at_work))
            answer = self._next(received.stem) or self.usual
            self.arrived.notify_all()
        ends_at = time.monotonic() + self.generation_s
        while time.monotonic() < ends_at or (answer.hold and not answer.hold.is_set()):
            if not _is_there(handler.connection):
                handler.close_connection = True
                break
            time.sleep(_PAUSE_S)
        with self.arrived:
            self._at_work.discard(handler.connection)
        with suppress(OSError):
            self._send(handler, Answer(answer.status, answer.body))

    _at_work: set[socket.socket] = set()


def _is_there(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


class Dasks:
    """A scheduler, and the workers that were started; leaving it ends all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._start("scheduler", ["scheduler", "--host", "127.0.0.1", "--port", "0"])
        self.address = self._said("scheduler", r"Scheduler at:\s+(tcp://\S+)")

    def __enter__(self) -> Dasks:
        return self

    def __exit__(self, *_: object) -> None:
        for name in [*self.processes]:
            self.kill(name)

    def add(self, *names: str, nanny: bool = False, before: str = "", cwd: Path | None = None) -> None:
        """Start workers, and wait until the scheduler has them. ``before``: a folder to import from first."""
        for name in names:
            how = ["worker", self.address, "--name", name, "--nthreads", "1", "--host", "127.0.0.1"]
            how += ["--local-directory", str(self._folder), *([] if nanny else ["--no-nanny"])]
            self._start(name, how, before=before, cwd=cwd)
        for name in names:
            self._said(name, r"(Registered to):")

    def kill(self, name: str) -> None:
        """End one as by SIGKILL, with what it has started."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self, name: str) -> None:
        """Ask a worker to end in good order, as Slurm, Kubernetes or systemd do."""
        self.processes[name].send_signal(signal.SIGTERM)

    def log_of(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def _start(self, name: str, how: list[str], *, before: str = "", cwd: Path | None = None) -> None:
        path = os.pathsep.join(filter(None, [before, str(REPOSITORY)]))
        with open(self._folder / f"{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *how, "--no-dashboard"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, "PYTHONPATH": path}, cwd=cwd or self._folder,
            )  # fmt: skip

    def _said(self, name: str, pattern: str) -> str:
        until = time.monotonic() + 40
        while not (found := re.search(pattern, self.log_of(name))):
            assert time.monotonic() < until and self.processes[name].poll() is None, self.log_of(name)
            time.sleep(0.05)
        return found.group(1)
