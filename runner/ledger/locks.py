"""Who may write into an output folder: one run of the whole list, or those of the shards of one and the same count.

A run of the whole list holds ``.runner/lock`` alone. Those of shards hold it together, and each its own in its state
folder. A lock is the kernel's: it is given back when its process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

from runner.errors import LockedError, StorageError
from runner.shards import Shard
from runner.storage import SHARDS, STATE, content_of, no_pipe, refusals, states_of

LOCK = "lock"
_GATE = "gate"
"""Held for the moment in which a shard's run takes its locks, or gives them back."""

_TOGETHER = re.compile(r"shards of (?P<count>[0-9]{1,6}): .*\n")


class Place(Protocol):
    """An output folder, as far as its locks are concerned."""

    path: Path
    state: Path
    shard: Shard | None


@contextmanager
def locked_for(folder: Place) -> Iterator[None]:
    """Hold what a run of a prepared folder has to. Raises LockedError, naming the holder, StorageError."""
    if folder.shard is None:
        with locked(folder.state / LOCK):
            yield
        return
    what = f"shard {folder.shard} of {folder.path}"
    with _shared(folder.path, folder.shard), locked(folder.state / LOCK, what=what):
        yield


@contextmanager
def locked(path: Path, *, what: str | None = None) -> Iterator[None]:
    """Hold a lock that is nobody else's. Raises LockedError, naming the holder, if another living run has it.

    ``path`` is that of the lock in a state folder; ``what`` is what it is of, if not of the whole output folder.
    """
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _refusal(what or str(path.parent.parent), _holder_in(path)) from error
        _write(file, f"{_self()}\n")
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until nobody else is in a block with the same file, however long that takes. Raises StorageError."""
    with _opened(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _shared(path: Path, shard: Shard) -> Iterator[None]:
    """Hold an output folder's lock together with the runs of other shards of the same count."""
    state = path / STATE
    with _opened(state / LOCK) as file:
        with _gate(state):
            _join(file, path, shard)
        try:
            yield
        finally:
            with suppress(OSError, StorageError), _gate(state):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused as long as others are at work
                file.truncate(0)


def _join(file: IO[str], path: Path, shard: Shard) -> None:
    """Take the lock for this count, if nobody has it for another, or for the whole list. Raises LockedError."""
    said = f"shards of {shard.count}: {shard} by {_self()}\n"
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write(file, said)
    except BlockingIOError:
        pass
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _refusal(str(path), _holder_in(path / STATE / LOCK)) from error
    file.seek(0)
    others = _TOGETHER.fullmatch(file.read(300))
    if others is None or int(others["count"]) != shard.count:
        fcntl.flock(file, fcntl.LOCK_UN)
        raise _refusal(str(path), _holder_in(path / STATE / LOCK), wanted=shard)
    _write(file, said)


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    with refusals(f"{path} can't be written"):
        file = open(path, "a+", encoding="utf-8", errors="replace", opener=no_pipe)  # noqa: SIM115
    with file:
        yield file


@contextmanager
def _gate(state: Path) -> Iterator[None]:
    """Let one run at a time look at a lock that many may hold, and join it."""
    with _opened(state / SHARDS / _GATE) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(file: IO[str], text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


def _holder_in(path: Path) -> str:
    """Return who holds a lock; of shards those that are at work now, for the first of them may have ended."""
    with suppress(OSError):
        said = content_of(path)[:200].decode(errors="replace").strip()
        if found := _TOGETHER.fullmatch(f"{said}\n"):
            folders = [one for one in states_of(path.parent.parent)[1:] if one.name.endswith(f"-of-{found['count']}")]
            texts = ((one.name, _text(one / LOCK)) for one in folders if not _is_dead(one))
            at_work = [f"{name.replace('-of-', '/')} by {text}" for name, text in texts if text]
            others = " and others" if at_work[1:] else ""
            return f"shards of {found['count']}: {at_work[0]}{others}" if at_work else said
        if said:
            return said
    return "an unnamed process"


def _text(path: Path) -> str:
    with suppress(OSError):
        return content_of(path)[:200].decode(errors="replace").strip()
    return ""


def _is_dead(state: Path) -> bool:
    """Tell whether a lock is what a process of this machine has left that is no more."""
    found = _HOLDER.fullmatch(f"{_text(state / LOCK)}\n")
    return bool(found and found["host"] == socket.gethostname() and holder(state) is None)


def _refusal(what: str, holder: str, wanted: Shard | None = None) -> LockedError:
    also = f"; shards of {wanted.count} can't be at work beside them" if wanted else ""
    return LockedError(
        f"{what} is held by another run ({holder}){also}; try again when it has ended, or use another output folder"
    )


def _self() -> str:
    return f"pid {os.getpid()} on {socket.gethostname()}{since_of(os.getpid())}"


def holder(state: Path) -> int | None:
    """Return the process of this machine that a run is going on in, by what its lock says; None if there is none.

    It does not try the lock: that could turn away a run that begins at this moment. A process that began at another
    time than the lock says has only got the number of a dead one.
    """
    try:
        found = _HOLDER.fullmatch(content_of(state / LOCK).decode(errors="replace"))
    except OSError:
        return None
    if not found or found["host"] != socket.gethostname():
        return None
    pid = int(found["pid"])
    return pid if is_alive(pid, found["since"] or "") else None


def is_alive(pid: int, since: str) -> bool:
    """Tell whether a process of this machine lives, and is the one that began when ``since_of`` said so."""
    if since and since != since_of(pid):
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # it is somebody else's
    except (OSError, OverflowError):
        return False
    return True


def holder_elsewhere(state: Path) -> str | None:
    """Return the other machine that a run is at work on, by what its lock says; it may have died. Or None."""
    found = _HOLDER.fullmatch(f"{_text(state / LOCK)}\n")
    return found["host"] if found and found["host"] != socket.gethostname() else None


_HOLDER = re.compile(r"pid (?P<pid>[0-9]{1,9}) on (?P<host>[^,\n]*)(?P<since>, since tick [0-9]+)?\n")


def since_of(pid: int) -> str:
    """Say when a process began, in clock ticks since the machine did; "" where the system doesn't tell (proc(5))."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return f", since tick {file.read().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return ""
