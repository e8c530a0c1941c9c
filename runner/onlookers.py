"""Whoever looks at runs from outside: the caller, the metrics of all of them, and a report of each that ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner import batch, mirror, report
from runner.batch import Observe
from runner.config import Config
from runner.errors import RunnerError
from runner.journal import log
from runner.records import Event, Summary
from runner.stop import Stop
from runner.storage import REPORT

if TYPE_CHECKING:
    from runner.metrics import Metrics


_NOT_BEGUN = ("bug", "usage", "locked")
"""Why a run ended of which there is nothing to tell."""


class _Stopped(Exception):
    """A signal came while a report was made."""


class Onlookers:
    """Shows what goes on to those who look: the caller, the metrics of all runs, and reports of what went on."""

    def __init__(self, config: Config, observe: Observe | None, stop: Stop) -> None:
        self._observe = observe
        self._stop = stop
        self._unreported: list[str] = []
        self._metrics: Metrics | None = None
        if config.textfile:
            from runner.metrics import Metrics  # it needs an extra, and takes its time

            self._metrics = Metrics(config.textfile, every_s=config.settings.metrics.every_s)

    @property
    def problems(self) -> list[str]:
        """What went wrong with metrics and reports."""
        return [*([self._metrics.problem] if self._metrics and self._metrics.problem else []), *self._unreported]

    def ended(self, part: Config, summary: Summary) -> None:
        """Take note of how a run ended."""
        if self._metrics:
            self._metrics.end(part.settings.output_folder, summary, exit_code=summary.exit_code)

    def report(self, part: Config, summary: Summary) -> None:
        """Write the report of a run that ended, if one is wanted; who stopped it by a signal wants to be gone.

        If there was nothing to do, the report there is tells all of it.
        """
        if not part.settings.report or str(summary.stopped).startswith("SIG") or summary.stopped in _NOT_BEGUN:
            return
        if summary.skipped == summary.total and (part.output_folder / REPORT).exists():
            return
        from runner.reporting import write_report  # it needs an extra, and takes its time

        log.info("Writing the report")
        try:
            found = write_report(part.output_folder, observe=self._go_on, beat=self._go_on)
            log.info("Report: %s", batch.near(found.place))
            if wrong := mirror.upload_report(part.output_folder, part.settings.upload, self._stop):
                self._complain(f"the report was not uploaded: {wrong}")
        except _Stopped:
            log.warning(
                "The report was not written: %s; runner report %s does", self._stop.reason, summary.output_folder
            )
        except RunnerError as error:
            self._complain(f"the report was not written: {error}")
        except Exception as bug:  # noqa: BLE001 - the run is done; its truth is told whatever becomes of the page
            log.error("A bug in runner keeps the report from being written", exc_info=True)
            self._complain(f"the report was not written: a bug in runner: {type(bug).__name__}: {bug}")

    def _go_on(self, *_: int) -> None:
        if self._stop.asked and str(self._stop.reason).startswith("SIG"):
            raise _Stopped

    def _complain(self, problem: str) -> None:
        log.warning("%s", problem)
        self._unreported.append(problem)

    def observing(self, part: Config) -> Observe:
        """Return what observes one run."""
        observe, metrics, batch_name = self._observe or _nobody, self._metrics, part.settings.output_folder
        if not metrics:
            return observe
        begun = False

        def observing(tally: report.Tally, event: Event | None) -> None:
            nonlocal begun
            if not begun:
                metrics.begin(batch_name, part.endpoints)
                begun = True
            metrics.observe(batch_name, tally, event)
            observe(tally, event)

        return observing


def _nobody(tally: report.Tally, event: Event | None) -> None:
    """Observe nothing."""
