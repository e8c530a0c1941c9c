"""A command is told: the message on its stdin and the gist of it in its environment."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from runner.formats import words

_IN_ENVIRONMENT = ("success", "exit_code", "text", "saved", "failed", "pending", "output_folder")
_VALUE_CHARACTERS = 4000
"""Linux takes no environment with a value of more than 128 KiB."""

_TAIL_BYTES = 8192
_BLOCK = 64 * 1024
_LAST_WORDS_S = 0.5


def tell_command(
    command: str | Sequence[str], told: Mapping[str, Any], content: bytes, *, timeout_s: float, folder: Path | None
) -> str | None:
    """Run a command and wait for it; return what went wrong, None if nothing did.

    It has a process group of its own, which is killed after ``timeout_s``. Of what it prints only the end is kept.
    """
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command] if isinstance(command, str) else list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            cwd=folder,
            env=os.environ | _environment(told),
            start_new_session=True,
        )
    except OSError as error:
        return f"the command can't be started: {error.strerror or error}"
    try:
        return _ended(process, content, timeout_s)
    finally:
        _kill(process)


def _ended(process: subprocess.Popen[bytes], content: bytes, timeout_s: float) -> str | None:
    """Give the command its message, wait for its end, and return what was wrong with that."""
    assert process.stdin and process.stdout
    output = _Tail(process.stdout)
    try:
        threading.Thread(target=_feed, args=(process.stdin, content), name="notify-in", daemon=True).start()
        output.start()
        code = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return f"the command took longer than timeout_s ({timeout_s:g} s) and was killed"
    except RuntimeError as error:  # the system lets us start no thread
        return f"the command can't be told: {error}"
    if code == 0:
        return None
    how = f"ended with exit code {code}" if code > 0 else f"was killed by {_signal_name(-code)}"
    last = output.last_line()
    return f"the command {how}" + (f": {last}" if last else "")


def _environment(told: Mapping[str, Any]) -> dict[str, str]:
    """Return the gist of a message as variables: ``RUNNER_SAVED`` and the like, each on one line."""
    values = {name: told[name] for name in _IN_ENVIRONMENT}
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}
    return {f"RUNNER_{name.upper()}": _one_line(text) for name, text in texts.items()}


def _one_line(text: str) -> str:
    return " ".join(text.replace("\0", " ").splitlines())[:_VALUE_CHARACTERS]


def _feed(stdin: IO[bytes], content: bytes) -> None:
    """Write a message, as far as it is read."""
    with suppress(OSError):
        left = memoryview(content)
        while left:
            left = left[stdin.write(left) :]
    with suppress(OSError):
        stdin.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command that has not ended, and its process group; one that has ended may leave others behind."""
    if process.poll() is None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _Tail(threading.Thread):
    """Reads what a command prints, however much that is, and keeps the end of it."""

    def __init__(self, output: IO[bytes]) -> None:
        super().__init__(name="notify-out", daemon=True)
        self._output = output
        self._tail = b""
        self._is_cut = False

    def run(self) -> None:
        with suppress(OSError, ValueError), self._output:
            while block := self._output.read(_BLOCK):
                whole = self._tail + block
                self._is_cut = self._is_cut or len(whole) > _TAIL_BYTES
                self._tail = whole[-_TAIL_BYTES:]

    def last_line(self) -> str:
        """Return the last line with something on it; what the command left in the background may go on printing."""
        self.join(_LAST_WORDS_S)
        tail = self._tail.partition(b"\n")[2] if self._is_cut else self._tail  # a secret may be cut at its beginning
        lines = [line for line in tail.splitlines() if line.strip()]
        return words(lines[-1]) if lines else ""
