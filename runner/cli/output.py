"""What a person sees while a run goes on: the log on stderr, and how far it is."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tqdm import tqdm

from runner import report, settings
from runner.journal import LOG_FORMAT, Held, JsonLines, heard_by, log
from runner.records import Event, Outcome, Summary
from runner.report import Tally

LINE_EVERY_S = 30.0
"""Without a terminal there is no bar: one line of progress this often, so that a cron log stays readable."""

_BAR = "{n_fmt}/{total_fmt} |{bar}| {percentage:3.0f}% [{elapsed}<{remaining}, {rate_fmt}]{postfix}"


SILENT = logging.CRITICAL + 1
"""The level of a run that nobody watches: it says how it ended, in a line, and only if anything is wrong."""


def level_of(chosen: settings.Log, *, silent: bool) -> int:
    """Return what to say on stderr. ``silent``: with ``auto``, nothing unless stderr is a terminal."""
    if chosen.level != "auto":
        return int(getattr(logging, chosen.level.upper()))
    return SILENT if silent and not sys.stderr.isatty() else logging.INFO


@contextmanager
def logging_to_stderr(level: int, chosen: settings.Log) -> Iterator[None]:
    """Send the log to stderr, above the progress bar if there is one."""
    handler = _Stderr(level)
    if chosen.format == "json":
        handler.setFormatter(JsonLines(ascii_only=True))  # whatever a terminal can show
    else:
        handler.setFormatter(logging.Formatter(LOG_FORMAT) if level <= logging.DEBUG else _Plain())
    log.setLevel(min(level, logging.INFO))
    with heard_by(handler):
        yield


def print_answer(summary: Summary) -> None:
    """Print the line of JSON, in what stdout can say; the exit code tells the truth even to who has closed it."""
    answer = report.answer_json(summary)
    try:
        answer.encode(sys.stdout.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        answer = json.dumps(json.loads(answer))
    with suppress(OSError, ValueError):
        print(answer, flush=True)


class Progress:
    """Shows how far a run is: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._on_terminal = sys.stderr.isatty()
        self._bar: tqdm[Any] | None = None
        self._tally: Tally | None = None
        self._next_line = time.monotonic() + LINE_EVERY_S

    def observe(self, tally: Tally, event: Event | None) -> None:
        """Take note of an event, or of time that passed; another tally is of another run."""
        if self._quiet:
            return
        if tally is not self._tally:
            self.close()
            self._tally = tally
        if self._on_terminal:
            with suppress(OSError, ValueError):
                self._show_bar(tally, event)
        elif time.monotonic() >= self._next_line:
            self._next_line += LINE_EVERY_S
            log.info("%s", progress_line(tally))

    def close(self) -> None:
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.close()
            self._bar = None

    def _show_bar(self, tally: Tally, event: Event | None) -> None:
        if self._bar is None:
            self._bar = self._new_bar(tally)
        if isinstance(event, Outcome):
            self._bar.set_postfix_str(f" saved {tally.saved} failed {tally.failed}", refresh=False)
            self._bar.update(tally.total - tally.pending - self._bar.n)
        elif event is None:
            self._bar.refresh()

    def _new_bar(self, tally: Tally) -> tqdm[Any]:
        return tqdm(
            total=tally.total,
            initial=tally.skipped,
            unit="prompt",
            smoothing=0.1,
            bar_format=_BAR,
            dynamic_ncols=True,
            file=sys.stderr,
        )


class Counting:
    """Shows how many of a known number are done: a bar on a terminal, nothing elsewhere."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._on_terminal = sys.stderr.isatty()
        self._bar: tqdm[Any] | None = None

    def observe(self, done: int, total: int) -> None:
        """Take note of how many are done."""
        if not self._on_terminal:
            return
        with suppress(OSError, ValueError):
            if self._bar is None:
                self._bar = tqdm(
                    total=total,
                    unit=self._unit,
                    bar_format=_BAR,
                    dynamic_ncols=True,
                    file=sys.stderr,
                )
            self._bar.update(done - self._bar.n)

    def say(self, line: str) -> None:
        """Print a line on stdout, above the bar if there is one."""
        if self._bar is None:
            print(line)
        else:
            tqdm.write(line, file=sys.stdout)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.close()


@contextmanager
def counting(unit: str) -> Iterator[Counting]:
    """Give what shows how far something is, as long as it goes on."""
    shown = Counting(unit)
    try:
        yield shown
    finally:
        shown.close()


def progress_line(tally: Tally) -> str:
    """Say in one line how far a run is.

    >>> progress_line(Tally(run="r", total=10, skipped=2, endpoints=[]))
    'Progress: 2/10 (0 saved, 0 failed), 0.0/min, ETA unknown'
    """
    finished = tally.saved + tally.failed
    per_minute = 60 * finished / tally.seconds if tally.seconds else 0.0
    eta = tqdm.format_interval(tally.pending * 60 / per_minute) if finished else "unknown"
    done = tally.total - tally.pending
    counts = f"({tally.saved} saved, {tally.failed} failed)"
    return f"Progress: {done}/{tally.total} {counts}, {per_minute:.1f}/min, ETA {eta}"


class _Stderr(Held):
    """Writes lines to stderr without tearing the progress bar."""

    def write(self, lines: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads any more; that is no reason to end a run
            tqdm.write(lines, file=sys.stderr)


class _Plain(logging.Formatter):
    """The ancestor's lines: the message alone, with its level only if something is wrong."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"
