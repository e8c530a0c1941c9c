"""The processes that draw. One that dies or hangs is replaced, and only the picture that it was at is lost."""

from __future__ import annotations

import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from runner.errors import RunnerError
from runner.pictures.entries import Entry
from runner.pictures.jobs import READY, Job, Refused, answer_of
from runner.pictures.records import UNREADABLE

COUNT_MAX = 8
_EACH_BYTES = 1_200_000_000
"""So much a process may need for the largest files that are drawn."""

_FEW = 8
"""So many pictures are not worth another process."""

WITHIN_S = 60.0
"""A picture that takes longer is given up."""

_START_S = 60.0
_BLOCK = 64 * 1024
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""There is a process a core already."""


class DrawersError(RunnerError):
    """No process that draws can be started, or they were ended."""


class Drawers:
    """Drawing processes for about so many ``pictures``. Use it as a context manager: leaving it ends them.

    ``end`` ends them at once, whoever waits for a picture.
    """

    def __init__(self, folder: Path, pictures: int) -> None:
        self.count = max(1, min(cores(), COUNT_MAX, pictures // _FEW, free_bytes() // _EACH_BYTES))
        self._idle: queue.SimpleQueue[_Drawer] = queue.SimpleQueue()
        self._all = [_Drawer(folder, WITHIN_S) for _ in range(self.count)]
        for one in self._all:
            self._idle.put(one)

    def __enter__(self) -> Drawers:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._all:
            one.end()
            one.close()

    def end(self) -> None:
        for one in self._all:
            one.end()

    def draw(self, job: Job) -> Entry | Refused:
        """Have a picture drawn, from any thread. Raises DrawersError."""
        drawer = self._idle.get()
        try:
            return drawer.draw(job)
        finally:
            self._idle.put(drawer)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_bytes() -> int:
    """Return how much memory may be taken; where nobody tells, as much as all processes may need."""
    with suppress(OSError, ValueError, IndexError), open("/proc/meminfo", "rb") as file:
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024
    return COUNT_MAX * _EACH_BYTES


class _Drawer:
    """One process after another."""

    def __init__(self, folder: Path, within_s: float) -> None:
        self._folder = folder
        self._within_s = within_s
        self._lock = threading.Lock()  # of starting and ending it
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def draw(self, job: Job) -> Entry | Refused:
        process = self._started()
        assert process.stdin
        line: bytes | None = b""
        with suppress(BrokenPipeError):
            process.stdin.write(job.line())
            process.stdin.flush()
            line = _line(process, self._within_s)
        if line and (answer := answer_of(line)):
            return answer
        how = self._lost(process, hangs=line is None)
        if self._ended:
            raise DrawersError("the pictures are not finished")
        flag = (UNREADABLE, f"drawing it {how}")
        return Entry(job.of, job.key, job.size_bytes, flags=(flag,), kept=False)

    def end(self) -> None:
        with self._lock:
            self._ended = True
            if self._process:
                self._process.kill()

    def close(self) -> None:
        """Wait for its end; nobody may wait for a picture of it any more."""
        if self._process:
            _ended(self._process)

    def _started(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._ended:
                raise DrawersError("the pictures are not finished")
            if self._process is None:
                self._process = _start(self._folder)
                if _line(self._process, _START_S) != READY:
                    self._process.kill()
                    _ended(self._process)
                    self._process = None
                    self._ended = True
                    raise DrawersError("no process that draws can be started")
            return self._process

    def _lost(self, process: subprocess.Popen[bytes], *, hangs: bool) -> str:
        """End a process that does not answer, and say what became of it."""
        with self._lock:
            if hangs:
                process.kill()
            code = _ended(process)
            self._process = None
        if hangs:
            return f"takes longer than {self._within_s:g} s"
        return f"ended the process ({_how(code)})"


def _start(folder: Path) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own: Ctrl-C is not its business. Raises DrawersError."""
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _code(), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | dict.fromkeys(_ONE_THREAD, "1"),
            start_new_session=True,
        )
    except OSError as error:
        raise DrawersError(f"no process that draws can be started: {error}") from error


def _code() -> str:
    """Return the Python code that such a process runs, with the paths of this one."""
    paths = [one for one in sys.path if isinstance(one, str)]
    return f"import sys; sys.path[:] = {paths!r}\nfrom runner.pictures.drawing import main\nmain(sys.argv[1])"


def _line(process: subprocess.Popen[bytes], within_s: float) -> bytes | None:
    """Return the line that a process answers; b"" if it ended, None if it takes too long."""
    assert process.stdout
    descriptor, until, line = process.stdout.fileno(), time.monotonic() + within_s, b""
    while not line.endswith(b"\n"):
        if not select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
            return None
        found = os.read(descriptor, _BLOCK)
        if not found:
            return b""
        line += found
    return line


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process that ends, and close what led to it."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(OSError):
                pipe.close()
    return process.wait()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
