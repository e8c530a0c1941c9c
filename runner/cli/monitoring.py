"""``monitor``: the endpoints on a screen, in a log, or as JSON lines."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from runner.cli import looks
from runner.errors import StorageError, UsageError
from runner.yamlfile import assigned, merged

if TYPE_CHECKING:
    from runner.monitor import Look, Monitor

_EVERY_S = (0.1, 86_400.0)
_NO_READER = (errno.EPIPE, errno.EIO, errno.ENXIO)
"""What the system says of a pipe, or a terminal, that is gone."""

_CLEAR, _HIDE_CURSOR, _SHOW_CURSOR = "\x1b[H\x1b[2J", "\x1b[?25l", "\x1b[?25h"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"

_SIZE = (80, 24)

Show = Callable[["Look"], None]


def monitor(arguments: Namespace) -> int:
    """Show how the endpoints are, once or until it is stopped; 1 if one was down at the last look."""
    from runner.monitor import Monitor, config_of

    if arguments.config is None and not arguments.endpoint:
        raise UsageError("monitor: expected a CONFIG, or --endpoint URL")
    least, most = _EVERY_S
    if not least <= arguments.every <= most:
        raise UsageError(f"--every: expected seconds from {least:g} to {most:g}, got {arguments.every:g}")
    chosen = config_of(arguments.config, _overrides(arguments))
    with closing(Monitor(chosen)) as watching:
        if arguments.once:
            return _once(watching, _show_json if arguments.json else _show_table)
        return _watch(watching, arguments.every, as_json=arguments.json)


def _overrides(arguments: Namespace) -> dict[str, Any]:
    flags = {"endpoints": arguments.endpoint, "output_folder": arguments.folder}
    chosen: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    for assignment in arguments.set:
        chosen = merged(chosen, assigned(assignment))
    return chosen


def _once(watching: Monitor, show: Show) -> int:
    watching.ask()
    watching.wait()
    look = watching.look()
    show(look)
    return 0 if look.all_up else 1


def _watch(watching: Monitor, every_s: float, *, as_json: bool) -> int:
    """Show a look every ``every_s``, whoever is slow, until SIGINT or SIGTERM."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    last = None
    try:
        with _shown(as_json=as_json) as show:
            due = time.monotonic()
            while True:
                due = max(due + every_s, time.monotonic())
                watching.ask()
                watching.wait(due - time.monotonic())
                last = watching.look()
                show(last)
                time.sleep(max(0.0, due - time.monotonic()))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends now; a second one would only tear that
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0 if (last or watching.look()).all_up else 1


@contextmanager
def _shown(*, as_json: bool) -> Iterator[Show]:
    """Give what shows a look: a screen on a terminal that can be one, else lines."""
    if as_json:
        yield _show_json
    elif not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield lambda look: _show_table(look, behind="\n")
    else:
        _write(_HIDE_CURSOR + _CLEAR + "asking the endpoints …")
        try:
            yield _show_on_screen
        finally:
            _write(_SHOW_CURSOR + "\n")


def _show_json(look: Look) -> None:
    from runner.monitor import document

    _write(json.dumps(document(look), ensure_ascii=False) + "\n")


def _show_table(look: Look, behind: str = "") -> None:
    width = _size()[0] if sys.stdout.isatty() else None
    _write("\n".join(looks.lines(look, width=width)) + "\n" + behind)


def _show_on_screen(look: Look) -> None:
    """Write over the last look, line by line, and erase what it had more: nothing flickers."""
    width, height = _size()
    lines = looks.lines(look, width=width, height=height - 1)
    _write(_HOME + "".join(f"{line}{_END_OF_LINE}\n" for line in lines) + _END_OF_SCREEN)


def _size() -> tuple[int, int]:
    """Return the terminal's columns and lines as they are now, not as COLUMNS and LINES say they were."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns, rows = 0, 0
    return columns or _SIZE[0], rows or _SIZE[1]  # a serial line says 0


def _write(text: str) -> None:
    """Write and flush. Raises BrokenPipeError if nobody reads any more, StorageError if a disk refuses."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        if error.errno in _NO_READER:
            raise BrokenPipeError from error
        raise StorageError(f"stdout can't be written: {error.strerror}") from error
