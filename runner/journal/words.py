"""The words of the log: the ancestor's, because people grep them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from runner import report
from runner.config import Config
from runner.journal.files import log
from runner.records import Back, Endpoint, Event, Job, Met, Out, Outcome, Retrying, Started, Submitted, Summary
from runner.redact import public_url
from runner.resume import Standing
from runner.stop import Stop


def announce(config: Config, found: Standing, *, total: int, of: int = 0, processes: int = 1) -> None:
    """Say what is to be done, and by whom; ``of`` counts the prompts of all shards."""
    endpoints = config.endpoints
    if config.shard:
        log.info("Shard %d of %d: %d of %d prompts", config.shard.number, config.shard.count, total, of)
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
        """Say one event, if there is anything to say of it."""
        said = self._said(event)
        if said:
            level, text, *values = said
            log.log(level, text, *values, extra={"fields": _fields(event)})

    def _said(self, event: Event | None) -> tuple[Any, ...] | None:
        """Return the level, the words, and what stands in them."""
        match event:
            case Started(instead_of=None):
                return logging.INFO, "Prompt %s → endpoint %s", event.prompt.key, event.endpoint.label
            case Started(instead_of=Endpoint() as home):
                said = "Prompt %s → endpoint %s (instead of %s)"
                return logging.INFO, said, event.prompt.key, event.endpoint.label, home.label
            case Retrying():
                where = "" if event.next is event.endpoint else f" on {event.next.label}"
                said = "Prompt %s [%s] attempt %d failed: %s; trying again in %.1fs%s"
                place = event.prompt.key, event.endpoint.label, event.attempt
                return logging.WARNING, said, *place, event.error, event.wait_s, where
            case Submitted(outcome=Outcome(job=Job() as job)):
                label = self._labels[event.outcome.endpoint]
                return logging.INFO, "Prompt %s [%s] submitted as %s", event.outcome.key, label, job.id
            case Outcome(outcome="saved"):
                said = "Prompt %s [%s] generation completed in %.1fs"
                return logging.INFO, said, event.key, self._labels[event.endpoint], event.attempts[-1].generate_s
            case Outcome(outcome="failed"):
                tried = f" after {len(event.attempts)} attempts" if len(event.attempts) > 1 else ""
                said = "Prompt %s [%s] failed%s: %s"
                return logging.ERROR, said, event.key, self._labels[event.endpoint], tried, event.error
            case Outcome(outcome="dropped"):
                return (
                    logging.INFO,
                    "Prompt %s [%s] dropped: %s",
                    event.key,
                    self._labels[event.endpoint],
                    event.error,
                )
            case Out():
                moved = f"; others take the prompts that wait for it ({event.moved})" if event.moved else ""
                return logging.ERROR, "Endpoint %s is out: %s%s", event.endpoint.label, event.why, moved
            case Back():
                return logging.WARNING, "Endpoint %s is back after %.1fs", event.endpoint.label, event.out_s
            case Met():
                return self._differing(event)
        return None

    def tell_slow(self, slow: report.Slow) -> None:
        """Say that an endpoint is slow."""
        log.warning(
            "Endpoint %s is slow: %.1fs a generation, the median of the others is %.1fs",
            self._labels[slow.name], slow.median_s, slow.others_s,
        )  # fmt: skip

    def _differing(self, met: Met) -> tuple[Any, ...] | None:
        """Return a warning of an endpoint whose version differs from those seen so far."""
        others = ", ".join(f"{label} runs {version}" for version, label in self._versions.items())
        differs = others and met.version not in self._versions
        self._versions.setdefault(met.version, met.endpoint.label)
        if not differs:
            return None
        said = "Endpoint %s runs version %s, but %s: results may differ"
        return logging.WARNING, said, met.endpoint.label, met.version, others


def tell_stop(stop: Stop) -> bool:
    """Say that and why the run is ending, if it is; return whether."""
    if stop.asked:
        log.warning("Stopping (%s): nothing new is started, what is in flight is finished", report.why(stop.reason))
    return stop.asked


def conclude(summary: Summary) -> None:
    """Say how the run ended."""
    log.log(logging.INFO if summary.success else logging.ERROR, "%s", report.verdict(summary))
    log.info("Generation completed")


def _fields(event: Event | None) -> dict[str, Any]:
    """Return what an event is about, for logs that programs read; endpoints by their names."""
    match event:
        case Started():
            moved = {"instead_of": event.instead_of.name} if event.instead_of else {}
            return {"event": "started", "key": event.prompt.key, "endpoint": event.endpoint.name} | moved
        case Retrying():
            place = {"event": "retrying", "key": event.prompt.key, "endpoint": event.endpoint.name}
            what = {"attempt": event.attempt, "error": event.error, "wait_s": event.wait_s}
            return {**place, **what, "next": event.next.name}
        case Submitted():
            return _fields(event.outcome)
        case Outcome():
            found: dict[str, Any] = {"event": event.outcome, "key": event.key, "endpoint": event.endpoint}
            found |= {"attempts": len(event.attempts), "seconds": event.seconds}
            more = {"size_bytes": event.size_bytes, "file": event.file, "error": event.error}
            return found | {name: value for name, value in more.items() if value is not None}
        case Out():
            return {"event": "out", "endpoint": event.endpoint.name, "error": event.why, "moved": event.moved}
        case Back():
            return {"event": "back", "endpoint": event.endpoint.name, "out_s": round(event.out_s, 3)}
        case Met():
            return {"event": "met", "endpoint": event.endpoint.name, "version": event.version}
    return {}
