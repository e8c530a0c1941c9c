"""Every error the runner raises on purpose.

::

    RunnerError
    ├── UsageError            wrong flags, config, prompts or folder: nothing was sent      exit 2
    ├── LockedError           another run holds the output folder                           exit 75
    ├── AbsentError           no Dask scheduler, or no worker of it; later there may be     exit 75
    ├── StorageError          the disk refused: full, read-only, gone                       exit 1
    └── AttemptError          one attempt failed; becomes part of an Outcome, stops nothing
        ├── TransportError    refused, reset, timed out, cut short                          endpoint
        ├── StatusError       a status that is not a success                                either
        ├── BusyError         the endpoint is healthy and full, or our connection was old   nobody
        ├── ResultError       a 200 that holds no whole result                              endpoint
        │   └── NoDocumentError   it should be JSON, and is none                            endpoint
        └── ImageError        the prompt's image can't be had                               prompt

Whatever else is raised is a bug: traceback, exit 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

Blame = Literal["endpoint", "prompt", "nobody"]


class RunnerError(Exception):
    """The root: one sentence for the user, and the exit code that tells it to scripts."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, self.__dict__)  # not the constructor's arguments: they differ


class UsageError(RunnerError):
    """Something the user wrote is wrong; nothing was sent.

    ``problems`` holds all of them, one sentence each.
    """

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: Sequence[str] = problems


class LockedError(RunnerError):
    """Another living run holds the output folder; later it will be free."""

    exit_code = 75


class AbsentError(RunnerError):
    """Who should do the work is not there; later it may be."""

    exit_code = 75


class StorageError(RunnerError):
    """The disk refused a write. What was saved before stays saved."""

    exit_code = 1


class AttemptError(RunnerError):
    """One attempt failed in an expected way.

    ``again`` tells whether trying again may help, ``blame`` whose fault it is, and ``status`` the HTTP
    status if there was one. ``reached``: the request may have reached the endpoint, so it is not certain that the
    endpoint alone is to blame.
    """

    reached = True

    def __init__(self, message: str, *, again: bool, blame: Blame, status: int | None = None) -> None:
        super().__init__(message)
        self.again = again
        self.blame: Blame = blame
        self.status = status


class TransportError(AttemptError):
    """No complete answer came back."""

    def __init__(self, message: str, *, status: int | None = None, reached: bool = True) -> None:
        super().__init__(message, again=True, blame="endpoint", status=status)
        self.reached = reached


class StatusError(AttemptError):
    """The endpoint answered with a status that is not a success."""


class BusyError(AttemptError):
    """Nobody's fault: ask again, in ``wait_s`` seconds if the endpoint said so, and use up no attempt."""

    def __init__(self, message: str, *, status: int | None = None, wait_s: float | None = None) -> None:
        super().__init__(message, again=True, blame="nobody", status=status)
        self.wait_s = wait_s


class ResultError(AttemptError):
    """The endpoint said 200, but what it sent is no whole result."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message, again=True, blame="endpoint", status=status)


class NoDocumentError(ResultError):
    """What should be a JSON document is none."""


class ImageError(AttemptError):
    """The prompt's image can't be read or downloaded."""

    def __init__(self, message: str, *, again: bool = False, status: int | None = None) -> None:
        super().__init__(message, again=again, blame="prompt", status=status)


def _again(kind: type[RunnerError], args: tuple[Any, ...], said: dict[str, Any]) -> RunnerError:
    """Return an error that was pickled."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(said)
    return error
