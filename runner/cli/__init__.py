"""The command line: parse, call, and turn what comes back into text and an exit code.

Only here something is printed. Heavy rooms are imported when a command needs them, so ``--help`` is quick.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from runner.cli.parser import build_parser
from runner.errors import RunnerError, UsageError

_BUG = 3
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def entry() -> None:
    """Run the command line and end the process, even with a thread stuck in a socket."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - closed by the shell's >&-
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal can't show is no reason to fail
    try:
        code = main()
    except KeyboardInterrupt:  # before there was anything to interrupt
        code = 130
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads, or the disk is full; Python would try again, and change the exit code
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        os._exit(code)  # the executor would join its threads, and a dead server's socket may hold one for minutes
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error becomes one here."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    try:
        arguments = parser.parse_args(words)
    except SystemExit as done:
        if done.code == 2 and words[:1] in (["run"], ["generate"]):
            _answer("wrong usage: see the message on stderr")
        return int(done.code or 0)
    try:
        if not os.path.isdir(os.curdir):
            raise UsageError("the current folder does not exist any more")
        return int(getattr(import_module(f"runner.cli.{arguments.room}"), arguments.command)(arguments))
    except RunnerError as error:
        _say(f"runner: error: {error}")
        if arguments.command in ("run", "generate"):
            _answer(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _say("runner: interrupted")
        if arguments.command in ("run", "generate"):
            _answer("interrupted; nothing was sent")
        return 130
    except BrokenPipeError:
        return 141
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "runner":
            raise
        _say(f"runner: error: {error.name} is not installed for {sys.executable}: pip install multiport-runner")
        return 2
    except Exception as error:  # noqa: BLE001 - the last border: a bug gets its traceback and its exit code
        if isinstance(error, OSError) and error.errno in _DISK_FULL:  # of stdout: all else is said by its room
            _say(f"runner: error: stdout can't be written: {error.strerror}")
            return 1
        with suppress(OSError):
            traceback.print_exc()
        _say("runner: this is a bug in runner; please report it with the lines above")
        if arguments.command in ("run", "generate"):
            _answer("a bug in runner: see the traceback on stderr")
        return _BUG


def _say(text: str) -> None:
    """Say it on stderr; if nobody can hear it, the exit code still tells the truth."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr)


def _answer(error: str) -> None:
    """Print the JSON line of a run that never began."""
    from runner.cli.output import print_answer
    from runner.records import Summary

    print_answer(Summary(0, 0, 0, 0, 0, 0.0, "", error=error))
