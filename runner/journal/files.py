"""Where the log goes: handlers that write a batch of events at once, and files that don't grow for ever."""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from runner import settings
from runner.redact import Redactor
from runner.storage import not_for_all, refusals

log = logging.getLogger("runner")
log.addHandler(logging.NullHandler())  # the library never prints

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


@contextmanager
def heard_by(handler: logging.Handler) -> Iterator[None]:
    """Let a handler have the log for a while, and close it."""
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


@contextmanager
def written_to(path: Path, redactor: Redactor, limits: settings.Log) -> Iterator[None]:
    """Copy the log to the file at ``path`` for a while, and keep secrets out of every copy. Raises StorageError."""
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)
    with refusals(f"{path} can't be written"):
        handler = LogFile(path, limits)
    secret = _Secretless(redactor)
    log.addFilter(secret)
    try:
        with heard_by(handler):
            yield
    finally:
        log.removeFilter(secret)


class Held(logging.Handler):
    """A handler whose ``write`` gets the lines of a batch of events at once."""

    holding = False

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._lines: list[str] = []

    def write(self, lines: str) -> None:
        """Write lines that are separated by newlines, the last one without."""
        raise NotImplementedError

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))
        if not self.holding:
            self.flush()

    def flush(self) -> None:
        with self.lock or nullcontext():  # other threads may log too
            lines, self._lines = self._lines, []
            if lines:
                self.write("\n".join(lines))


@contextmanager
def together() -> Iterator[None]:
    """Let what is logged in the block be written when it ends."""
    handlers = [one for one in log.handlers if isinstance(one, Held)]
    for one in handlers:
        one.holding = True
    try:
        yield
    finally:
        for one in handlers:
            one.holding = False
            one.flush()


class LogFile(Held):
    """Appends the log to a file, with times. A disk that is full loses lines, and ends nothing.

    When it would get longer than ``limits.max_bytes`` it becomes ``PATH.1``, that becomes ``PATH.2``, and so on;
    ``limits.keep`` of them stay. Raises OSError if the file can't be opened.
    """

    def __init__(self, path: str | Path, limits: settings.Log) -> None:
        self._path = path
        self._limits = limits
        self._open()
        super().__init__()
        self.setFormatter(logging.Formatter(LOG_FORMAT))

    def write(self, lines: str) -> None:
        if self._file.closed:
            return  # of another run in this process, which ended as this one wrote
        line = f"{lines}\n".encode(errors="backslashreplace")
        with suppress(OSError):
            if self._size_bytes and self._size_bytes + len(line) > self._limits.max_bytes:
                self._try_to_put_aside()
            self._file.write(line)
            self._size_bytes += len(line) if self._is_file else 0

    def _open(self) -> None:
        self._file = open(self._path, "ab", buffering=0, opener=not_for_all)  # noqa: SIM115 - closed in close()
        status = os.fstat(self._file.fileno())
        self._is_file = stat.S_ISREG(status.st_mode)  # nothing else can be put aside, nor has it a size
        self._size_bytes = status.st_size if self._is_file else 0

    def _try_to_put_aside(self) -> None:
        """Begin a new file. If that can't be, the old one goes on, and it is not tried again."""
        try:
            self._put_aside()
        except OSError:
            self._is_file, self._size_bytes = False, 0

    def _put_aside(self) -> None:
        for number in range(self._limits.keep, 0, -1):
            older = f"{self._path}.{number - 1}" if number > 1 else self._path
            with suppress(FileNotFoundError):
                os.replace(older, f"{self._path}.{number}")
        if not self._limits.keep:
            os.unlink(self._path)
        before = self._file
        self._open()
        before.close()

    def close(self) -> None:
        with self.lock or nullcontext(), suppress(OSError):
            self._file.close()
        super().close()


class _Secretless(logging.Filter):
    """Takes known secrets out of every record, before any handler sees it."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._redactor.text(record.getMessage()), ()
        if fields := getattr(record, "fields", None):
            hide = self._redactor.text
            record.fields = {name: hide(one) if isinstance(one, str) else one for name, one in fields.items()}
        return True


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, message, and what it is about: event, key, endpoint …"""

    def __init__(self, *, ascii_only: bool = False) -> None:
        super().__init__()
        self._ascii_only = ascii_only

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"time": f"{at}.{int(record.msecs):03}Z", "level": record.levelname.lower()}
        line |= {"message": record.getMessage()} | getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=self._ascii_only, default=str)
