"""The metrics file, read back by the library's parser and by a stricter reader of our own."""

import logging
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import QUICK
from prometheus_client.parser import text_string_to_metric_families
from server import Answer, ScriptedServer

from runner import batch
from runner.config import config_from
from runner.metrics import KEPT_S, Metrics
from runner.records import Attempt, Back, Endpoint, Event, Out, Outcome, Prompt, Retrying, Summary
from runner.report import Tally

GPU_0, GPU_1 = ENDPOINTS = (
    Endpoint(0, "http://h:1", "gpu-0", "port 1", slots=2),
    Endpoint(1, "http://h:2", "gpu-1", "port 2"),
)
LAST_SUCCESS = "runner_last_success_timestamp_seconds"


class Clocks:
    """Both of ``Metrics``' clocks."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runner.prom"


@pytest.fixture
def new(file: Path, clocks: Clocks) -> Callable[[], Metrics]:
    """Makes what a process has that was just started."""
    return lambda: Metrics(file, every_s=15, clock=clocks, now=clocks)


def saved(
    endpoint: str = "gpu-0", *, generate_s: float = 5.0, attempts: Sequence[Attempt] = (), **more: object
) -> Outcome:
    tried = (*attempts, Attempt(len(attempts) + 1, endpoint, "", generate_s=generate_s))
    fields = {"outcome": "saved", "size_bytes": 1000, "image_s": 0.2, "save_s": 0.004} | more
    return Outcome(
        key="a",
        index=0,
        prompt="a",
        endpoint=endpoint,
        fingerprint="",
        seed=1,
        protocol="p",
        attempts=tried,
        **fields,
    )


def tally_of(total: int = 10, skipped: int = 0) -> Tally:
    return Tally(run="r", total=total, skipped=skipped, endpoints=ENDPOINTS)


def summary_of(tally: Tally, **more: str) -> Summary:
    return tally.summary(output_folder="results", **more)


def follow(metrics: Metrics, tally: Tally, events: Sequence[Event | None], name: str = "results") -> None:
    for event in events:
        tally.add(event)
        metrics.observe(name, tally, event)


_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*"'
_SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (\S+)")


def families_of(text: str) -> dict[str, tuple[str, list[str]]]:
    """Read the text format as strictly as Go's parser and promtool do, and return type and samples by name."""
    found: dict[str, tuple[str, list[str]]] = {}
    name = ""
    assert text.endswith("\n")
    for line in text.removesuffix("\n").split("\n"):
        if line.startswith("# HELP "):
            _, _, name, said = line.split(" ", 3)
            assert name not in found, f"{name} stands in two places"
            assert said.endswith("."), name
            found[name] = ("", [])
        elif line.startswith("# TYPE "):
            assert line.split(" ")[2] == name and found[name] == ("", [])
            found[name] = (line.split(" ")[3], [])
        else:
            match = _SAMPLE.fullmatch(line)  # no time stamp: node_exporter refuses a file with one
            assert match, line
            ours, _, value = match.groups()
            kind, samples = found[name]
            ends = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            assert ours in [f"{name}{end}" for end in ends], line
            assert name.endswith("_total") == (kind == "counter") and not name.endswith("_created")
            assert float(value) >= 0
            series = line.rpartition(" ")[0]
            assert series not in [sample.rpartition(" ")[0] for sample in samples], series
            samples.append(line)
    return found


def values(file: Path, name: str) -> dict[tuple[str, ...], float]:
    """Return what the library's parser reads of one metric, by its labels' values in the order of their names."""
    text = file.read_bytes().decode()
    families_of(text)
    return {
        tuple(sample.labels[label] for label in sorted(sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def value(file: Path, name: str, *labels: str) -> float:
    return values(file, name)[labels]


def test_a_run_is_folded_into_counts_of_its_prompts_and_endpoints(new, file: Path, clocks: Clocks) -> None:
    metrics, tally = new(), tally_of(total=10, skipped=3)
    metrics.begin("results", ENDPOINTS)
    broken = Attempt(1, "gpu-1", "", generate_s=2.0, status=500, error="500")
    prompt = Prompt(0, "a")
    events = [
        saved(),
        Retrying(prompt, GPU_1, "500", 1, 0.5, GPU_0),
        Out(GPU_1, "500"),
        saved(attempts=[broken], generate_s=7.0),
        saved("gpu-1", outcome="failed", size_bytes=None, generate_s=0.0, image_s=0.0),
        saved("gpu-1", outcome="interrupted", size_bytes=None),
        None,
    ]
    follow(metrics, tally, events)
    clocks.now += 60
    follow(metrics, tally, [None])
    states = {
        outcome: value(file, "runner_prompts", "results", outcome) for outcome in ("saved", "skipped", "failed")
    }
    assert states == {"saved": 2, "skipped": 3, "failed": 1}
    assert value(file, "runner_prompts", "results", "pending") == 4
    assert value(file, "runner_image_fetch_seconds_count", "results") == 3  # one had no image to fetch
    for name, of_0, of_1 in (
        ("runner_endpoint_up", 1, 0),
        ("runner_endpoint_slots", 2, 1),
        ("runner_endpoint_outages_total", 0, 1),
        ("runner_endpoint_busy_seconds_total", 12.0, 7.0),
        ("runner_attempts_total", 2, 3),
        ("runner_retries_total", 0, 1),
        ("runner_saved_prompts_total", 2, 0),
        ("runner_failed_prompts_total", 0, 1),
        ("runner_result_bytes_total", 2000, 0),
    ):
        assert values(file, name) == {("results", "gpu-0"): of_0, ("results", "gpu-1"): of_1}, name
    metrics.observe("results", tally, Back(GPU_1, 3.0))
    metrics.end("results", summary_of(tally), exit_code=1)
    assert value(file, "runner_endpoint_up", "results", "gpu-1") == 1


def test_the_counts_of_the_endpoints_are_those_of_the_summary(new, file: Path) -> None:
    metrics, tally = new(), tally_of()
    metrics.begin("results", ENDPOINTS)
    failed = Attempt(1, "gpu-1", "", generate_s=0.5, error="reset")
    follow(metrics, tally, [saved(attempts=[failed]), saved("gpu-1"), saved(outcome="dropped"), Out(GPU_0, "x")])
    metrics.end("results", summary_of(tally), exit_code=1)
    for one in summary_of(tally).endpoints:
        told = [
            value(file, f"runner_{name}_total", "results", one.name)
            for name in (
                "saved_prompts", "failed_prompts", "attempts", "endpoint_busy_seconds", "result_bytes",
                "endpoint_outages",
            )
        ]  # fmt: skip
        assert told == [one.saved, one.failed, one.attempts, one.busy_s, one.bytes, one.outages]


def test_a_histogram_counts_what_was_at_most_its_bound_and_only_generations_that_succeeded(new, file: Path) -> None:
    metrics, tally = new(), tally_of()
    metrics.begin("results", ENDPOINTS)
    refused = Attempt(1, "gpu-0", "", generate_s=0.0, error="refused")
    follow(metrics, tally, [saved(generate_s=s, attempts=[refused]) for s in (5.0, 5.1, 44.0, 4000.0)])
    metrics.end("results", summary_of(tally), exit_code=1)
    buckets = values(file, "runner_generation_seconds_bucket")
    counts = [buckets["results", "gpu-0", bound] for bound in ("2.5", "5.0", "10.0", "45.0", "1800.0", "+Inf")]
    assert counts == [0, 1, 2, 3, 3, 4]
    assert value(file, "runner_generation_seconds_count", "results", "gpu-0") == 4
    assert value(file, "runner_generation_seconds_sum", "results", "gpu-0") == pytest.approx(4054.1)
    assert value(file, "runner_save_seconds_count", "results") == 4
    assert value(file, "runner_image_fetch_seconds_bucket", "results", "0.25") == 4
    for name, (kind, samples) in families_of(file.read_text()).items():
        if kind == "histogram" and samples:
            rows = [float(line.rpartition(" ")[2]) for line in samples if 'endpoint="gpu-1"' not in line]
            assert rows[:-2] == sorted(rows[:-2]) and rows[-3] == rows[-2], name


def test_the_file_is_written_as_a_run_begins_then_now_and_then_and_as_it_ends(
    new, file: Path, clocks: Clocks
) -> None:
    metrics, tally = new(), tally_of()
    metrics.begin("results", ENDPOINTS)
    assert value(file, "runner_run_start_timestamp_seconds", "results") == clocks.now
    assert values(file, "runner_prompts") == {}
    clocks.now += 14.9
    follow(metrics, tally, [saved()])
    assert values(file, "runner_prompts") == {}
    clocks.now += 0.1
    follow(metrics, tally, [None])
    assert value(file, "runner_prompts", "results", "saved") == 1
    follow(metrics, tally, [saved()])
    metrics.end("results", summary_of(tally), exit_code=1)
    assert value(file, "runner_prompts", "results", "saved") == 2
    assert value(file, "runner_run_exit_code", "results") == 1
    assert value(file, "runner_run_end_timestamp_seconds", "results") == clocks.now
    assert values(file, LAST_SUCCESS) == {}


def test_writing_that_takes_long_is_done_less_often(new, file: Path, clocks: Clocks, monkeypatch) -> None:
    monkeypatch.setattr("runner.metrics.textfile.write", lambda *_: setattr(clocks, "now", clocks.now + 2))
    metrics, tally = new(), tally_of()
    metrics.begin("results", ENDPOINTS)
    clocks.now += 99
    before = clocks.now
    follow(metrics, tally, [None])
    assert clocks.now == before
    clocks.now += 1
    follow(metrics, tally, [None])
    assert clocks.now == before + 3


def test_the_last_success_outlives_nights_that_fail_and_runs_of_other_batches(
    new, file: Path, clocks: Clocks
) -> None:
    first = clocks.now
    for name, code in (("results/a", 0), ("results/b", 0), ("results/b", 1), ("results/c", 75)):
        metrics, tally = new(), tally_of(total=0)
        metrics.begin(name, ENDPOINTS)
        follow(metrics, tally, [None], name)
        metrics.end(name, summary_of(tally), exit_code=code)
        clocks.now += 86_400
    assert values(file, LAST_SUCCESS) == {("results/a",): first, ("results/b",): first + 86_400}
    assert values(file, "runner_run_exit_code") == {("results/a",): 0, ("results/b",): 1, ("results/c",): 75}
    assert values(file, "runner_run_start_timestamp_seconds").keys() == {("results/c",)}


def test_two_batches_of_one_run_stand_side_by_side(new, file: Path) -> None:
    metrics = new()
    for name in ("results/a", "results/b"):
        tally = tally_of(total=1)
        metrics.begin(name, ENDPOINTS)
        follow(metrics, tally, [saved()], name)
        metrics.end(name, summary_of(tally), exit_code=0)
    assert values(file, "runner_attempts_total")["results/a", "gpu-0"] == 1
    assert {batch for batch, _ in values(file, "runner_attempts_total")} == {"results/a", "results/b"}
    assert values(file, LAST_SUCCESS).keys() == {("results/a",), ("results/b",)}
    assert len(values(file, "runner_build_info")) == 2


def test_a_batch_that_is_no_longer_run_is_forgotten_but_not_one_that_only_fails(
    new, file: Path, clocks: Clocks
) -> None:
    for name in ("results/monday", "results/list"):
        new().end(name, summary_of(tally_of(0)), exit_code=0)
    succeeded = clocks.now
    clocks.now += KEPT_S + 1
    metrics = new()
    metrics.begin("results/other", ENDPOINTS)
    assert values(file, LAST_SUCCESS) == {}
    metrics.begin("results/list", ENDPOINTS)
    assert values(file, LAST_SUCCESS) == {("results/list",): succeeded}


def test_an_end_that_another_process_wrote_meanwhile_is_not_lost(new, file: Path, clocks: Clocks) -> None:
    mine, other = new(), new()
    mine.begin("results/a", ENDPOINTS)
    clocks.now += 5
    other.end("results/b", summary_of(tally_of(0)), exit_code=0)
    mine.end("results/a", summary_of(tally_of(0)), exit_code=0)
    assert values(file, LAST_SUCCESS).keys() == {("results/a",), ("results/b",)}


def test_a_file_from_the_future_is_not_believed(new, file: Path, clocks: Clocks) -> None:
    clocks.now += 1e9
    new().end("results", summary_of(tally_of(0)), exit_code=0)
    clocks.now -= 1e9
    new().end("results", summary_of(tally_of(0)), exit_code=1)
    assert value(file, "runner_run_exit_code", "results") == 1
    assert values(file, LAST_SUCCESS) == {}


def test_a_run_with_nothing_to_do_tells_what_was_there(new, file: Path) -> None:
    metrics = new()
    metrics.begin("results", ENDPOINTS)
    metrics.end("results", summary_of(tally_of(total=5, skipped=5)), exit_code=0)
    assert value(file, "runner_prompts", "results", "skipped") == 5


def test_a_run_that_never_began_tells_its_end_and_no_counts(new, file: Path) -> None:
    new().end("results", Summary(0, 0, 0, 0, 0, 0.0, "", error="no such file"), exit_code=2)
    assert value(file, "runner_run_exit_code", "results") == 2
    assert values(file, "runner_prompts") == {}


GARBLED = [
    b"",
    b"\xff\xfe\x00 not text",
    b"runner_last_success_timestamp_seconds{batch=\"a",
    b"runner_last_success_timestamp_seconds{batch=\"a\"}",
    b"runner_last_success_timestamp_seconds{batch=\"a\"} x",
    b"runner_last_success_timestamp_seconds{batch=\"\xff\"} 5",
    b"runner_last_success_timestamp_seconds{} 5",
    b"runner_last_success_timestamp_seconds{=} 5",
    b"runner_last_success_timestamp_seconds{batch} 5",
    b"runner_last_success_timestamp_seconds{batch=\"a\"} NaN",
    b"runner_run_exit_code{batch=\"a\"} +Inf",
    b"runner_run_exit_code{batch=\"a\"} 1e400",
    b"runner_last_success_timestamp_seconds{" + b"," * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("old", GARBLED, ids=range(len(GARBLED)))
def test_an_old_file_that_is_garbled_is_no_error_and_what_is_whole_in_it_is_kept(
    new, file: Path, clocks: Clocks, old: bytes
) -> None:
    whole = f'{LAST_SUCCESS}{{batch="b"}} {clocks.now}\n'
    whole += f'runner_run_end_timestamp_seconds{{batch="b"}} {clocks.now}\n'
    file.write_bytes(old + b"\n" + whole.encode())
    new().begin("results", ENDPOINTS)
    assert values(file, LAST_SUCCESS) == {("b",): clocks.now}


@pytest.mark.parametrize(
    "name", ['with "quotes"', "a\nb\r\\n", "ü 日本 \U0001f600", "{a=}", 'x",y="z', "\\", "a#b # c", " a ", "\u2028,}"]
)
def test_names_of_any_kind_come_back_as_they_were(new, file: Path, name: str) -> None:
    metrics, tally = new(), Tally(run="r", total=1, skipped=0, endpoints=[Endpoint(0, "http://h", name, "h")])
    metrics.begin(name, [Endpoint(0, "http://h", name, "h")])
    follow(metrics, tally, [saved(name)], name)
    metrics.end(name, summary_of(tally), exit_code=0)
    assert value(file, "runner_attempts_total", name, name) == 1
    new().begin("another", ENDPOINTS)
    assert values(file, LAST_SUCCESS).keys() == {(name,)}


def test_a_folder_whose_name_is_no_text_has_one_name_in_the_file(new, file: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    for _ in range(2):
        metrics = new()
        metrics.begin(name, [Endpoint(0, "http://h", name, "h")])
        metrics.observe(name, tally_of(), None)
        metrics.end(name, summary_of(tally_of(0)), exit_code=0)
    assert values(file, LAST_SUCCESS).keys() == {("caf\\udce9",)}


def test_the_file_is_for_the_exporters_user_and_nothing_is_left_beside_it(new, file: Path) -> None:
    before = os.umask(0o077)
    try:
        new().begin("results", ENDPOINTS)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert os.listdir(file.parent) == ["runner.prom"]


def test_a_write_that_fails_is_said_once_and_leaves_the_old_file(
    new, file: Path, clocks: Clocks, caplog, monkeypatch
) -> None:
    metrics, tally = new(), tally_of()
    metrics.begin("results", ENDPOINTS)
    old = file.read_bytes()
    beside = []

    def refuse(part: Path, target: Path) -> None:
        beside.append(os.path.basename(part))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with caplog.at_level(logging.WARNING, "runner"):
        for _ in range(3):
            clocks.now += 20
            follow(metrics, tally, [saved()])
        metrics.end("results", summary_of(tally), exit_code=1)
    assert caplog.messages == [f"The metrics can't be written to {file}: No space left on device"]
    assert file.read_bytes() == old and os.listdir(file.parent) == ["runner.prom"]
    assert len(beside) == 4 and not any(name.endswith(".prom") for name in beside)


def test_a_whole_run_can_be_read_in_its_metrics(here: Path, servers) -> None:
    one: ScriptedServer
    one, _ = both = servers(2)
    one.script["a0"] = [Answer(status=500, body=b"")]
    one.script["a2"] = [Answer(status=422, body=b"")]
    (here / "prompts.txt").write_text("".join(f"{one.image(f'a{number}')}\n" for number in range(6)))
    endpoints = [{"url": server.url, "name": f"gpu-{number}"} for number, server in enumerate(both)]
    config = config_from({"endpoints": endpoints, "prompts": ["prompts.txt"]} | QUICK)
    file = here / "runner.prom"
    metrics = Metrics(file, every_s=0.01)
    metrics.begin("results", config.endpoints)
    summary = batch.run(config, observe=lambda tally, event: metrics.observe("results", tally, event))
    metrics.end("results", summary, exit_code=summary.exit_code)
    prompts = {outcome: count for (_, outcome), count in values(file, "runner_prompts").items()}
    assert prompts == {"saved": 5, "skipped": 0, "failed": 1, "pending": 0}
    assert values(file, "runner_retries_total") == {("results", "gpu-0"): 1, ("results", "gpu-1"): 0}
    assert sum(values(file, "runner_attempts_total").values()) == 7
    assert sum(values(file, "runner_generation_seconds_count").values()) == 5
    assert sum(values(file, "runner_result_bytes_total").values()) == sum(
        found.stat().st_size for found in (here / "results").iterdir() if found.is_file()
    )
    assert values(file, "runner_image_fetch_seconds_count") == {("results",): 6}
    assert values(file, "runner_run_exit_code") == {("results",): 1}
