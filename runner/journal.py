"""The log of a run: its words (the ancestor's, because people grep them), and ``run.log``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from runner import report
from runner.config import Config
from runner.records import Back, Endpoint, Event, Job, Met, Out, Outcome, Retrying, Started, Submitted, Summary
from runner.redact import Redactor, public_url
from runner.resume import Standing
from runner.stop import Stop
from runner.storage import not_for_all, refusals

log = logging.getLogger("runner")
log.addHandler(logging.NullHandler())  # the library never prints

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(message)s"


def announce(config: Config, found: Standing, *, total: int, processes: int = 1) -> None:
    """Say what is to be done, and by whom."""
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
    for endpoint in endpoints:
        if endpoint.verify is False:
            log.warning("Endpoint %s: its certificate is not verified (verify: false)", endpoint.label)
    slots = sum(endpoint.slots for endpoint in endpoints)
    log.info("Concurrency: %d concurrent requests, %d max in-flight", slots, slots + len(endpoints))
    if processes > 1:
        log.info("Processes: the endpoints are shared out over %d worker processes", processes)


class Words:
    """Says what happens, event by event."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._labels = {endpoint.name: endpoint.label for endpoint in endpoints}
        self._versions: dict[str, str] = {}

    def tell(self, event: Event | None) -> None:
        """Say one event."""
        match event:
            case Started(instead_of=None):
                log.info("Prompt %s → endpoint %s", event.prompt.key, event.endpoint.label)
            case Started(instead_of=Endpoint() as home):
                log.info(
                    "Prompt %s → endpoint %s (instead of %s)", event.prompt.key, event.endpoint.label, home.label
                )
            case Retrying():
                where = "" if event.next is event.endpoint else f" on {event.next.label}"
                log.warning(
                    "Prompt %s [%s] attempt %d failed: %s; trying again in %.1fs%s",
                    event.prompt.key, event.endpoint.label, event.attempt, event.error, event.wait_s, where,
                )  # fmt: skip
            case Submitted(outcome=Outcome(job=Job() as job)):
                label = self._labels[event.outcome.endpoint]
                log.info("Prompt %s [%s] submitted as %s", event.outcome.key, label, job.id)
            case Outcome(outcome="saved"):
                log.info(
                    "Prompt %s [%s] generation completed in %.1fs",
                    event.key, self._labels[event.endpoint], event.attempts[-1].generate_s,
                )  # fmt: skip
            case Outcome(outcome="failed"):
                tried = f" after {len(event.attempts)} attempts" if len(event.attempts) > 1 else ""
                log.error("Prompt %s [%s] failed%s: %s", event.key, self._labels[event.endpoint], tried, event.error)
            case Outcome(outcome="dropped"):
                log.info("Prompt %s [%s] dropped: %s", event.key, self._labels[event.endpoint], event.error)
            case Out():
                moved = f"; others take the prompts that wait for it ({event.moved})" if event.moved else ""
                log.error("Endpoint %s is out: %s%s", event.endpoint.label, event.why, moved)
            case Back():
                log.warning("Endpoint %s is back after %.1fs", event.endpoint.label, event.out_s)
            case Met():
                self._compare(event)

    def tell_slow(self, slow: report.Slow) -> None:
        """Say that an endpoint is slow."""
        log.warning(
            "Endpoint %s is slow: %.1fs a generation, the median of the others is %.1fs",
            self._labels[slow.name], slow.median_s, slow.others_s,
        )  # fmt: skip

    def _compare(self, met: Met) -> None:
        """Warn of an endpoint whose version differs from those seen so far."""
        if self._versions and met.version not in self._versions:
            others = ", ".join(f"{label} runs {version}" for version, label in self._versions.items())
            log.warning(
                "Endpoint %s runs version %s, but %s: results may differ", met.endpoint.label, met.version, others
            )
        self._versions.setdefault(met.version, met.endpoint.label)


def tell_stop(stop: Stop) -> bool:
    """Say that and why the run is ending, if it is; return whether."""
    if stop.asked:
        log.warning("Stopping (%s): nothing new is started, what is in flight is finished", report.why(stop.reason))
    return stop.asked


def conclude(summary: Summary) -> None:
    """Say how the run ended."""
    log.log(logging.INFO if summary.success else logging.ERROR, "%s", report.verdict(summary))
    log.info("Generation completed")


@contextmanager
def written_to(path: Path, redactor: Redactor) -> Iterator[None]:
    """Copy the log to the file at ``path`` for a while, and keep secrets out of every copy. Raises StorageError."""
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)
    with refusals(f"{path} can't be written"):
        handler = LogFile(path)
    secret = _Secretless(redactor)
    log.addFilter(secret)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.removeFilter(secret)
        handler.close()


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

    Raises OSError if the file can't be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = open(path, "ab", buffering=0, opener=not_for_all)  # noqa: SIM115 - closed in close()
        super().__init__()
        self.setFormatter(logging.Formatter(LOG_FORMAT))

    def write(self, lines: str) -> None:
        with suppress(OSError):
            self._file.write(f"{lines}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()
        super().close()


class _Secretless(logging.Filter):
    """Takes known secrets out of every record, before any handler sees it."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._redactor.text(record.getMessage()), ()
        return True
