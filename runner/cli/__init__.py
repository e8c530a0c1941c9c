"""The command line: parse, call, and turn what comes back into text and an exit code.

Only here something is printed. Heavy rooms are imported when a command needs them, so ``--help`` is quick.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import import_module

from runner.cli.parser import build_parser
from runner.errors import RunnerError, UsageError

_BUG = 3


def entry() -> None:
    """Run the command line and end the process, even with a thread stuck in a socket."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - closed by the shell's >&-
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal can't show is no reason to fail
    code = main()
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
        print(f"runner: error: {error}", file=sys.stderr)
        if arguments.command in ("run", "generate"):
            _answer(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        print("runner: interrupted", file=sys.stderr)
        if arguments.command in ("run", "generate"):
            _answer("interrupted; nothing was sent")
        return 130
    except BrokenPipeError:
        return 141
    except Exception:  # noqa: BLE001 - the last border: a bug gets its traceback and its exit code
        traceback.print_exc()
        print("runner: this is a bug in runner; please report it with the lines above", file=sys.stderr)
        if arguments.command in ("run", "generate"):
            _answer("a bug in runner: see the traceback on stderr")
        return _BUG


def _answer(error: str) -> None:
    """Print the JSON line of a run that never began."""
    from runner import report
    from runner.records import Summary

    print(report.answer_json(Summary(0, 0, 0, 0, 0, 0.0, "", error=error)))
