"""The story of a run: read, replay, deal, work, record, summarise.

(The function is ``runner.run``; a room of that name would hide it.)
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner import ledger, pool, report
from runner.client import Client, ImageClient
from runner.clock import utc_now
from runner.config import Config
from runner.errors import RunnerError, UsageError
from runner.lanes import deal
from runner.prompts import prompts_from, read_prompts
from runner.protocols import PRESETS
from runner.records import Event, Outcome, Prompt, Retrying, Started, Summary
from runner.redact import Redactor, public_url
from runner.resume import Standing, standing
from runner.stop import Stop
from runner.storage import OutputFolder, refusals
from runner.worker import Worker

log = logging.getLogger("runner")
log.addHandler(logging.NullHandler())  # the library never prints

SUMMARY = "summary.json"
CONFIG = "config.yaml"
PROMPTS = "prompts.txt"
RUN_LOG = "run.log"
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"

Observe = Callable[[report.Tally, Event | None], None]
"""Called on the calling thread with every event, and with None when time passed without one."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What every step of the story needs."""

    name: str
    config: Config
    folder: OutputFolder
    stop: Stop


def run(
    config: Config,
    *,
    images: Iterable[str] | None = None,
    overwrite: bool = False,
    stop: Stop | None = None,
    observe: Observe | None = None,
) -> Summary:
    """Bring every prompt to a verified result on disk, as far as it goes, and return the truth about it.

    ``images`` (URLs and paths) stand in for the config's ``prompts``. Prompts whose result is there already are
    skipped; ``overwrite`` makes those again that were made with other parameters. The log goes to the logger
    ``runner`` and to ``run.log``. Before anything is sent it may raise UsageError, LockedError (another run
    holds the folder) or StorageError; when the disk refuses later on, ``Summary.error`` says so.
    """
    prompts = read_all(config, images)
    this = _Run(_run_name(), config, OutputFolder(config.output_folder), stop or Stop())
    this.folder.prepare()
    with ledger.locked(this.folder.state / ledger.LOCK), _run_log(this):
        found = _standing(this, prompts, overwrite=overwrite)
        _announce(config, found, total=len(prompts))
        _keep_config(this, prompts, given=images is not None)
        tally = report.Tally(run=this.name, total=len(prompts), skipped=len(found.done), endpoints=config.endpoints)
        error = _work(this, found.pending, tally, observe or _nobody)
        return _close(this, tally, error)


def read_all(config: Config, images: Iterable[str] | None = None) -> list[Prompt]:
    """Return every prompt of the run, done or not. Raises UsageError."""
    keys = config.settings.output.keys
    if images is not None:
        return prompts_from(images, base=Path.cwd(), keys=keys, where="image_urls")
    return read_prompts(config.settings.prompts, base=config.base, keys=keys)


def standing_of(config: Config, prompts: Sequence[Prompt], *, overwrite: bool = False) -> Standing:
    """Say which prompts are done and which are to do. Only reads."""
    folder = OutputFolder(config.output_folder)
    history = ledger.replay(folder.state / ledger.LEDGER)
    if history.unreadable:
        log.warning("%s: %d unreadable lines ignored", folder.state / ledger.LEDGER, history.unreadable)
    settings = config.settings
    return standing(
        prompts, history, folder.files(), seed=settings.seed, protocol=settings.protocol, overwrite=overwrite
    )


def _standing(this: _Run, prompts: Sequence[Prompt], *, overwrite: bool) -> Standing:
    if swept := this.folder.sweep():
        log.info("Removed %d unfinished files of a run that died", swept)
    found = standing_of(this.config, prompts, overwrite=overwrite)
    if found.conflicts:
        raise UsageError(
            f"{_near(this.folder.path)} holds results made with other parameters:",
            *(f"  {text}" for text in found.conflict_text()),
            "Make these again with --overwrite, or choose another --output-folder. Nothing was sent.",
        )
    return found


def _work(this: _Run, pending: Sequence[Prompt], tally: report.Tally, observe: Observe) -> RunnerError | None:
    """Work through ``pending``, and write down every event; return the error that ended it early, if one did."""
    endpoints = this.config.endpoints
    labels = {endpoint.name: endpoint.label for endpoint in endpoints}
    backlogs = deal(pending, len(endpoints))
    lanes = [pool.Lane(endpoint, backlog) for endpoint, backlog in zip(endpoints, backlogs, strict=True)]
    said_so = False
    try:
        with _open_ledger(this) as lines, _worker(this, lanes) as work:
            for event in pool.work_through(lanes, work, this.stop):
                if isinstance(event, Outcome):
                    lines.append(event)
                    tally.add(event)
                _log_event(event, labels)
                _check_limits(this, tally)
                said_so = said_so or _say_stop(this.stop)
                observe(tally, event)
    except RunnerError as error:
        this.stop.leave("error")
        return error
    return None


@contextmanager
def _open_ledger(this: _Run) -> Iterator[ledger.Ledger]:
    path = this.folder.state / ledger.LEDGER
    with closing(ledger.Ledger(path, run=this.name, redact=this.config.redactor.text)) as lines:
        yield lines


@contextmanager
def _worker(this: _Run, lanes: Sequence[pool.Lane]) -> Iterator[Worker]:
    """Open the long-lived sessions: one for each endpoint that has work, one for all images."""
    settings = this.config.settings
    with ExitStack() as sessions:
        clients = {
            lane.endpoint.index: Client(lane.endpoint, settings.timeouts, connections=lane.hands)
            for lane in lanes
            if lane.backlog
        }
        images = ImageClient(settings.timeouts, connections=sum(lane.hands for lane in lanes) or 1)
        sessions.callback(images.close)
        for client in clients.values():
            sessions.callback(client.close)
        yield Worker(
            clients=clients,
            images=images,
            folder=this.folder,
            protocol=PRESETS[settings.protocol],
            seed=settings.seed,
            retry=settings.retry,
            output=settings.output,
            stop=this.stop,
        )


def _close(this: _Run, tally: report.Tally, error: RunnerError | None) -> Summary:
    """Write the summary and the last lines of the log."""
    folder = _near(this.folder.path)
    summary = tally.summary(output_folder=folder, stopped=this.stop.reason, error=str(error) if error else None)
    try:
        this.folder.write(SUMMARY, this.config.redactor.text(report.summary_json(summary)))
    except RunnerError as refused:
        error = error or refused
        summary = tally.summary(output_folder=folder, stopped="error", error=str(error))
    level = logging.INFO if summary.success else logging.ERROR
    log.log(level, "%s", report.verdict(summary))
    log.info("Generation completed")
    return summary


def _check_limits(this: _Run, tally: report.Tally) -> None:
    """Ask to stop when the failures or the time are used up."""
    settings = this.config.settings
    if this.stop.asked:
        return
    if settings.max_failures is not None and tally.failed >= settings.max_failures:
        this.stop.ask("failures")
    elif settings.max_runtime_s is not None and tally.seconds >= settings.max_runtime_s:
        this.stop.ask("window")


def _say_stop(stop: Stop) -> bool:
    if stop.asked:
        log.warning("Stopping (%s): nothing new is started, what is in flight is finished", report.why(stop.reason))
    return stop.asked


def _log_event(event: Event | None, labels: Mapping[str, str]) -> None:
    match event:
        case Started():
            log.info("Prompt %s → endpoint %s", event.prompt.key, event.endpoint.label)
        case Retrying():
            log.warning(
                "Prompt %s [%s] attempt %d failed: %s; trying again in %.1fs",
                event.prompt.key, event.endpoint.label, event.attempt, event.error, event.wait_s,
            )  # fmt: skip
        case Outcome(outcome="saved"):
            log.info(
                "Prompt %s [%s] generation completed in %.1fs",
                event.key, labels[event.endpoint], event.attempts[-1].generate_s,
            )  # fmt: skip
        case Outcome(outcome="failed"):
            tried = f" after {len(event.attempts)} attempts" if len(event.attempts) > 1 else ""
            log.error("Prompt %s [%s] failed%s: %s", event.key, labels[event.endpoint], tried, event.error)


def _announce(config: Config, found: Standing, *, total: int) -> None:
    endpoints = config.endpoints
    log.info("Found %d prompts to process", total)
    if found.done:
        log.info("Skipping %d prompts saved by an earlier run, %d to do", len(found.done), len(found.pending))
    if len(endpoints) == 1:
        log.info("Using single endpoint: %s", public_url(endpoints[0].url))
    else:
        log.info("Using %d endpoints for load balancing:", len(endpoints))
        for number, endpoint in enumerate(endpoints, 1):
            log.info("  %d. %s", number, public_url(endpoint.url))
        log.info("Multi-port mode: %d endpoints configured", len(endpoints))
    slots = sum(endpoint.slots for endpoint in endpoints)
    log.info("Concurrency: %d concurrent requests, %d max in-flight", slots, slots + len(endpoints))
    if config.ignored:
        log.warning("This version does not act on %s yet", ", ".join(config.ignored))


def _keep_config(this: _Run, prompts: Sequence[Prompt], *, given: bool) -> None:
    """Write the resolved config; with prompts that can't be read a second time, the list as well."""
    snapshot = None
    if given or "-" in this.config.settings.prompts:
        this.folder.write(PROMPTS, "".join(f"{prompt.image}\n" for prompt in prompts))
        snapshot = [str(this.folder.state / PROMPTS)]
    this.folder.write(CONFIG, this.config.resolved_yaml(snapshot))


@contextmanager
def _run_log(this: _Run) -> Iterator[None]:
    """Copy the log to ``run.log`` while the run lasts, without its secrets."""
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)
    path = this.folder.state / RUN_LOG
    with refusals(f"{path} can't be written"):
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    secret = _Secretless(this.config.redactor)
    log.addFilter(secret)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.removeFilter(secret)
        handler.close()


class _Secretless(logging.Filter):
    """Takes known secrets out of every record, before any handler sees it."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._redactor.text(record.getMessage()), ()
        return True


def _near(path: Path) -> str:
    """Return ``path`` as a user in the current folder would type it."""
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near


def _run_name() -> str:
    return f"{utc_now()}-{secrets.token_hex(2)}"


def _nobody(tally: report.Tally, event: Event | None) -> None:
    """Observe nothing."""
