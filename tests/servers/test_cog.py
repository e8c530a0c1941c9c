"""The preset ``cog`` against Cog's own HTTP server."""

import base64
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
import requests
from made import picture
from third_party import (
    Started,
    assert_each_has_its_own,
    assert_one_is_given_up,
    config_for,
    expected,
    ledger_of,
    occupy,
    results_of,
    started,
)

from runner import run

PROTOCOL = "preset: cog"


def cogs(predictor: str = "Maker", **options: object) -> AbstractContextManager[list[Started]]:
    command = "python -m cog.server.http --host 127.0.0.1"
    settings = {"PORT": "{port}", "COG_PREDICT_TYPE_STUB": f"cog_predict.py:{predictor}"}
    return started("cog", command, **settings, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Started]]:
    with cogs(ready="/health-check", when=lambda answer: answer.json()["status"] == "READY") as both:
        yield both


def predict(server: Started, words: str) -> requests.Response:
    image = "data:image/png;base64," + base64.b64encode(picture(words)).decode()
    return requests.post(f"{server.url}/predictions", json={"input": {"image": image, "seed": 1}}, timeout=30)


def test_every_picture_ends_as_the_bytes_that_belong_to_it(servers: list[Started], tmp_path: Path) -> None:
    assert_each_has_its_own(servers, tmp_path, PROTOCOL)


def test_a_prediction_that_failed_is_a_200_and_is_tried_again_and_then_given_up(
    servers: list[Started], tmp_path: Path
) -> None:
    assert_one_is_given_up(servers, tmp_path, PROTOCOL, words="this picture has no shape", statuses=[200, 200])


def test_a_409_is_waited_for_and_uses_up_no_attempt(servers: list[Started], tmp_path: Path) -> None:
    keeper, answer = occupy(partial(predict, servers[0]))
    assert (answer.status_code, answer.json()["status"]) == (409, "failed")
    summary = run(config_for(tmp_path, servers[:1], PROTOCOL, ["a", "b"], retry={"attempts": 1}))
    keeper.join()
    assert summary.success
    assert results_of(tmp_path) == expected(["a", "b"])


def test_a_run_that_begins_while_setup_runs_waits_for_it(tmp_path: Path) -> None:
    with cogs(count=1, ready=None) as loading:
        summary = run(config_for(tmp_path, loading, PROTOCOL, ["a"], health={"wait_ready_s": 60}))
    assert summary.success
    assert results_of(tmp_path) == expected(["a"])
    assert len(ledger_of(tmp_path)["a"]["attempts"]) == 1


def test_a_setup_that_failed_leaves_the_prompts_pending(tmp_path: Path) -> None:
    with cogs("Broken", count=1, ready=None) as broken:
        broken[0].wait(lambda answer: answer.json()["status"] == "SETUP_FAILED", "/health-check")
        assert predict(broken[0], "a").status_code == 503
        summary = run(config_for(tmp_path, broken, PROTOCOL, ["a"], health={"all_down_s": 1}))
    assert (summary.pending, summary.exit_code) == (1, 75)
