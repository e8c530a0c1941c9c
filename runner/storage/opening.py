"""State files are opened in a way that waits for nobody: what has the name of one and is none is refused.

A pipe would wait for its other end, and a device has no end.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from runner.storage.writing import FILE_MODE

_REFUSED = "expected a file, got a pipe, a socket or a device; move it away"


def no_pipe(path: str | Path, flags: int) -> int:
    """Open a file, as an ``opener``; a new one may not be written by everybody, whatever the umask.

    Raises OSError; also for a pipe or a device.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a pipe that nobody reads from, or a socket
            raise _refusal(path) from error
        raise
    if _is_none(os.fstat(descriptor)):
        os.close(descriptor)
        raise _refusal(path)
    return descriptor


def is_file(path: str | Path) -> bool:
    """Tell whether there is a file, or a folder, of this name. Raises OSError; also for a pipe or a device."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if _is_none(os.stat(path)):
            raise _refusal(path)
        return True
    return False


def content_of(path: str | Path) -> bytes:
    """Return all of a file. Raises OSError; also for a pipe or a device."""
    with open(path, "rb", opener=no_pipe) as file:
        return file.read()


def _is_none(status: os.stat_result) -> bool:
    return not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode))


def _refusal(path: str | Path) -> OSError:
    return OSError(errno.EINVAL, _REFUSED, str(path))
