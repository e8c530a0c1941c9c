"""The metrics by name: what each is called, what it means, and where its values come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from runner.metrics.counts import Counts, Histogram, Last, OfEndpoint, as_label
from runner.version import __version__

BEGUN_AT = "runner_run_start_timestamp_seconds"
ENDED_AT = "runner_run_end_timestamp_seconds"
EXIT_CODE = "runner_run_exit_code"
SUCCEEDED_AT = "runner_last_success_timestamp_seconds"

_Batches = Mapping[str, Counts]
_Kind = Literal["gauge", "counter"]
_Values = Iterable[tuple[tuple[str, ...], float]]

_OF_ENDPOINT: tuple[tuple[_Kind, str, str, Callable[[OfEndpoint], float]], ...] = (
    ("gauge", "runner_endpoint_up", "1 if the endpoint gets prompts, 0 if it is out.", lambda one: one.up),
    ("gauge", "runner_endpoint_slots", "Generations the endpoint runs at a time.", lambda one: one.slots),
    ("counter", "runner_endpoint_outages", "Times the endpoint went out.", lambda one: one.outages),
    ("counter", "runner_endpoint_busy_seconds", "Seconds the endpoint generated for us.", lambda one: one.busy_s),
    ("counter", "runner_attempts", "Requests for a generation that have ended.", lambda one: one.attempts),
    ("counter", "runner_retries", "Attempts that failed and were followed by another.", lambda one: one.retries),
    ("counter", "runner_saved_prompts", "Prompts whose verified result was saved.", lambda one: one.saved),
    ("counter", "runner_failed_prompts", "Prompts that ended without a result.", lambda one: one.failed),
    ("counter", "runner_result_bytes", "Bytes of the results.", lambda one: one.size_bytes),
)  # fmt: skip
"""Of each endpoint, in this run. A counter's name is without its ``_total``."""


class Families:
    """Yields the metrics of ``batches``, and how these and others ended ``last``."""

    def __init__(self, batches: _Batches, last: Mapping[str, Last]) -> None:
        self._batches = batches
        self._last = last

    def collect(self) -> Iterator[Metric]:
        yield from self._of_runs()
        yield from self._of_ends()
        for kind, name, text, value in _OF_ENDPOINT:
            yield _simple(kind, name, text, ("batch", "endpoint"), self._per_endpoint(value))
        yield _histogram(
            "runner_generation_seconds",
            "Seconds from a request to its answer's headers, of attempts that succeeded.",
            ("batch", "endpoint"),
            [((batch, name), one.generations) for batch, name, one in self._endpoints()],
        )
        images = [((batch,), counts.images) for batch, counts in self._batches.items()]
        saves = [((batch,), counts.saves) for batch, counts in self._batches.items()]
        yield _histogram("runner_image_fetch_seconds", "Seconds to read or download an image.", ("batch",), images)
        yield _histogram("runner_save_seconds", "Seconds to verify and save a result.", ("batch",), saves)

    def _of_runs(self) -> Iterator[Metric]:
        runs = self._batches.items()
        states = [((batch, state), count) for batch, one in runs for state, count in one.prompts.items()]
        yield _gauge(
            "runner_build_info", "The version.", [((batch, __version__), 1) for batch in self._batches], "version"
        )
        yield _gauge("runner_prompts", "Prompts of the batch by how they stand.", states, "outcome")
        yield _gauge(
            "runner_run_seconds", "What the run took so far.", [((name,), one.seconds) for name, one in runs]
        )
        yield _gauge(BEGUN_AT, "When the run began.", [((name,), one.begun_at) for name, one in runs])

    def _of_ends(self) -> Iterator[Metric]:
        ended = [(batch, one) for batch, one in self._last.items() if one.ended_at]
        succeeded = [((batch,), one.succeeded_at) for batch, one in self._last.items() if one.succeeded_at]
        yield _gauge(ENDED_AT, "When a run last ended.", [((batch,), one.ended_at) for batch, one in ended])
        yield _gauge(
            EXIT_CODE, "How the run that ended last did.", [((batch,), one.exit_code) for batch, one in ended]
        )
        yield _gauge(SUCCEEDED_AT, "When a run last ended with a result for every prompt.", succeeded)

    def _endpoints(self) -> Iterator[tuple[str, str, OfEndpoint]]:
        for batch, counts in self._batches.items():
            for name, one in counts.endpoints.items():
                yield batch, name, one

    def _per_endpoint(self, value: Callable[[OfEndpoint], float]) -> _Values:
        return [((batch, name), value(one)) for batch, name, one in self._endpoints()]


def _gauge(name: str, text: str, values: _Values, *more_labels: str) -> Metric:
    return _simple("gauge", name, text, ("batch", *more_labels), values)


def _simple(kind: _Kind, name: str, text: str, labels: tuple[str, ...], values: _Values) -> Metric:
    family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
    for of, value in values:
        family.add_metric([*map(as_label, of)], value)
    return family


def _histogram(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], Histogram]]
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for of, one in values:
        names = [*map(str, one.bounds), "+Inf"]
        family.add_metric([*map(as_label, of)], list(zip(names, accumulate(one.counts), strict=True)), one.total_s)
    return family
