"""Run a config: its one list of prompts, or each of its ``runs``, one after another on the same endpoints.

Failures of one do not stop the next. What is common to all of them ends all: the time window, a signal, and
endpoints none of which can be used. Whoever watches from outside is told here: metrics while it goes on, a notice at
the end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import inf

from runner import batch, notice, report
from runner.batch import Observe
from runner.config import Config
from runner.errors import LockedError, RunnerError, StorageError, UsageError
from runner.journal import JsonLines, LogFile, heard_by, log
from runner.onlookers import Onlookers
from runner.prompts import Prompts
from runner.records import Summary
from runner.stop import Stop


def run(
    config: Config,
    *,
    prompts: Prompts | None = None,
    overwrite: bool = False,
    stop: Stop | None = None,
    observe: Observe | None = None,
    ends_at: float | None = None,
    command: str | None = None,
) -> Summary:
    """Bring every prompt to a verified result on disk, as far as it goes, and return the truth about it.

    ``prompts`` spares reading the config's own, or stands in for its ``-``. Prompts whose result is there already are
    skipped; ``overwrite`` makes those again that were made with other parameters. The log goes to the logger
    ``runner``, to ``run.log`` and to ``log.file``. ``observe`` is called on the calling thread with the counts so far
    and every event. ``ends_at`` (on the monotonic clock) is the end of a window that has begun before. ``command`` is
    what was typed, for the report. Before anything is sent it may raise UsageError, LockedError (another run holds
    the folder) or StorageError; of several ``runs`` such an error is that one's, in ``Summary.runs``. When the disk
    refuses later on, ``Summary.error`` says so.
    """
    ends_at = batch.window_end(config.settings) if ends_at is None else ends_at
    with telling(config), _log_file(config):
        stop = stop or Stop()
        watcher = Onlookers(config, observe, stop)
        if config.parts:
            summary = _several(config, watcher, ends_at, overwrite=overwrite, stop=stop, command=command)
        else:
            summary = batch.run(
                config,
                prompts=prompts,
                overwrite=overwrite,
                stop=stop,
                observe=watcher.observing(config),
                ends_at=ends_at,
                command=command,
            )
            watcher.ended(config, summary)
            watcher.report(config, summary)
        return replace(summary, warnings=(*watcher.problems, *_tell(config, summary)))


@contextmanager
def telling(config: Config) -> Iterator[None]:
    """Tell, by metrics and notice, of an error that keeps a run from beginning."""
    try:
        yield
    except RunnerError as error:
        refused = _refused(config, error)
        if not config.parts and not isinstance(error, LockedError):  # else it is another's to tell
            Onlookers(config, None, Stop()).ended(config, refused)
        _tell(config, refused)
        raise


def _tell(config: Config, summary: Summary) -> list[str]:
    """Send the notice, if one is due; return what went wrong with that."""
    redact, code = config.redactor.text, summary.exit_code
    notify = config.settings.notify
    wrong = notice.notify(notify, summary, exit_code=code, name=config.name, redact=redact, folder=config.folder)
    for problem in wrong:
        log.warning("%s", problem)
    return wrong


def _several(
    config: Config, watcher: Onlookers, ends_at: float, *, overwrite: bool, stop: Stop, command: str | None
) -> Summary:
    begun = time.monotonic()
    untils = [batch.until(one.settings) for one in config.parts]  # later it would be the next day's
    done: list[Summary] = []
    closed: str | None = None
    usual_s: dict[str, dict[str, float]] = {}
    for number, part in enumerate(config.parts, 1):
        if stop.now or any(one.stopped == "bug" for one in done):
            done.append(_not_begun(part, stop.reason or "bug"))
            continue
        log.info("Run %d of %d: %s", number, len(config.parts), batch.near(part.shown_folder))
        inner = Stop(around=stop)
        closed = closed or ("window" if time.monotonic() >= ends_at else None)
        if closed:
            inner.ask(closed)  # it is counted, and nothing is begun; so it is after a signal
        kind = part.protocol.name
        lasts_s = inf if part.settings.max_runtime_s is None else part.settings.max_runtime_s
        own_end = min(time.monotonic() + lasts_s, untils[number - 1])
        try:
            found = batch.run(
                part,
                overwrite=overwrite,
                stop=inner,
                observe=watcher.observing(part),
                ends_at=min(ends_at, own_end),
                usual_s=usual_s.get(kind),
                command=command,
            )
            watcher.ended(part, found)
        except RunnerError as error:
            log.error("%s", error)
            found = _refused(part, error)
            if not isinstance(error, LockedError):  # else it is another's to tell
                watcher.ended(part, found)
        done.append(found)
        usual_s.setdefault(kind, {}).update(_usual_s(found))
        if found.stopped == "down" or (found.stopped == "window" and own_end >= ends_at):
            closed = closed or found.stopped
    seconds = time.monotonic() - begun
    for part, found in zip(config.parts, done, strict=True):
        watcher.report(part, found)  # only now: the endpoints would have waited for it
    return report.together(done, seconds=seconds, output_folder=_common(config))


def _usual_s(found: Summary) -> Mapping[str, float]:
    """Return what a result took lately on each endpoint, in seconds, by the endpoint's name."""
    return {one.name: one.result_s for one in found.endpoints if one.result_s is not None}


def _not_begun(part: Config, why: str) -> Summary:
    return Summary(0, 0, 0, 0, 0, 0.0, batch.near(part.shown_folder), error=f"not begun ({why})", stopped=why)


def _refused(part: Config, error: RunnerError) -> Summary:
    """Return what is to be said of a run that never began."""
    stopped = {UsageError: "usage", LockedError: "locked", StorageError: "error"}.get(type(error), "error")
    said = part.redactor.text(str(error))
    return Summary(0, 0, 0, 0, 0, 0.0, batch.near(part.shown_folder), error=said, stopped=stopped)


def _common(config: Config) -> str:
    """Return the folder that all output folders are in."""
    first, *others = (one.shown_folder.split("/") for one in config.parts)
    count = next((n for n in range(len(first), 0, -1) if all(one[:n] == first[:n] for one in others)), 0)
    return batch.near("/".join(first[:count]) or "/")


@contextmanager
def _log_file(config: Config) -> Iterator[None]:
    """Copy the log to ``log.file``, if there is to be one. Raises UsageError."""
    chosen = config.settings.log
    if chosen.file is None:
        yield
        return
    path = os.path.join(config.here, os.path.expanduser(chosen.file))
    try:
        handler = LogFile(path, chosen)
    except OSError as error:
        raise UsageError(f"log.file or --log-file {chosen.file}: can't be written: {error.strerror}") from error
    if chosen.format == "json":
        handler.setFormatter(JsonLines())
    with heard_by(handler):
        yield
