"""One summary of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runner.records import EndpointTotals, Summary
from runner.report.tally import FAILURES_KEPT


def together(runs: Sequence[Summary], *, seconds: float, output_folder: str) -> Summary:
    """Return the truth about several runs that came one after another; ``seconds`` is what all of it took."""
    return Summary(
        total=sum(one.total for one in runs),
        saved=sum(one.saved for one in runs),
        skipped=sum(one.skipped for one in runs),
        failed=sum(one.failed for one in runs),
        pending=sum(one.pending for one in runs),
        seconds=round(seconds, 1),
        output_folder=output_folder,
        stopped=next((one.stopped for one in reversed(runs) if one.stopped), None),
        started_at=next((one.started_at for one in runs if one.started_at), ""),
        endpoints=_endpoints(runs),
        failures=tuple(one for summary in runs for one in summary.failures)[:FAILURES_KEPT],
        runs=tuple(runs),
    )


def _endpoints(runs: Sequence[Summary]) -> tuple[EndpointTotals, ...]:
    """Return what each endpoint did in all of them; how it is, the last one says."""
    found: dict[str, EndpointTotals] = {}
    for one in (one for summary in runs for one in summary.endpoints):
        before = found.get(one.name)
        found[one.name] = _added(before, one) if before else one
    return tuple(found.values())


def _added(before: EndpointTotals, one: EndpointTotals) -> EndpointTotals:
    return replace(
        one,
        saved=before.saved + one.saved,
        failed=before.failed + one.failed,
        attempts=before.attempts + one.attempts,
        busy_s=round(before.busy_s + one.busy_s, 3),
        bytes=before.bytes + one.bytes,
        outages=before.outages + one.outages,
        retries=before.retries + one.retries,
        median_s=before.median_s if one.median_s is None else one.median_s,
        result_s=before.result_s if one.result_s is None else one.result_s,
        out=one.out or (before.out and not one.attempts),  # a run that asked nobody doesn't know better
    )
