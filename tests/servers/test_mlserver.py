"""The preset ``kserve-v2`` against MLServer."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import requests
from third_party import (
    Started,
    assert_each_has_its_own,
    assert_one_is_given_up,
    config_for,
    expected,
    ledger_of,
    results_of,
    started,
)

from runner import run

PROTOCOL = """
preset: kserve-v2
request: {path: /v2/models/maker/infer}
"""


def mlservers(**options: object) -> AbstractContextManager[list[Started]]:
    settings = {"HTTP_PORT": "{port}", "GRPC_PORT": "{second}", "METRICS_PORT": "{third}", "HOST": "127.0.0.1"}
    settings |= {"PARALLEL_WORKERS": "0", "DEBUG": "false"}
    variables = {f"MLSERVER_{key}": value for key, value in settings.items()}
    return started("mlserver", "mlserver start mlserver-model", **variables, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Started]]:
    with mlservers(ready="/v2/health/ready") as both:
        yield both


def test_every_picture_ends_as_the_bytes_that_belong_to_it(servers: list[Started], tmp_path: Path) -> None:
    assert_each_has_its_own(servers, tmp_path, PROTOCOL)


def test_a_model_that_raises_is_a_500_that_is_tried_again_and_then_given_up(
    servers: list[Started], tmp_path: Path
) -> None:
    assert_one_is_given_up(servers, tmp_path, PROTOCOL, statuses=[500, 500])


def test_a_model_that_is_nowhere_fails_with_the_words_of_the_server(servers: list[Started], tmp_path: Path) -> None:
    wrong = PROTOCOL.replace("maker", "builder")
    summary = run(config_for(tmp_path, servers, wrong, ["a"]))
    assert summary.failed == 1
    line = ledger_of(tmp_path)["a"]
    assert "Model builder not found" in line["error"]
    assert [attempt["status"] for attempt in line["attempts"]] == [
        404,
        404,
    ]  # another server may have it


def test_two_at_once_are_taken(servers: list[Started], tmp_path: Path) -> None:
    names = ["slow-1", "slow-2"]
    summary = run(config_for(tmp_path, servers[:1], PROTOCOL, names, endpoint={"slots": 2}, retry={"attempts": 1}))
    assert summary.success
    assert results_of(tmp_path) == expected(names)


def test_a_run_that_begins_while_the_model_is_loaded_waits_for_it(tmp_path: Path) -> None:
    with mlservers(count=1, ready=None) as loading:
        loading[0].wait(lambda answer: answer.status_code == 400, "/v2/health/ready")
        early = requests.post(f"{loading[0].url}/v2/models/maker/infer", json={"inputs": []}, timeout=5)
        assert (early.status_code, early.json()) == (400, {"error": "Model maker is not ready yet."})
        summary = run(config_for(tmp_path, loading, PROTOCOL, ["a"], health={"wait_ready_s": 60}))
    assert summary.success
    assert results_of(tmp_path) == expected(["a"])
