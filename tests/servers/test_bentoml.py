"""BentoML, which no preset knows: its APIs and its tasks, described in YAML alone."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
import requests
from made import picture
from third_party import (
    NAMES,
    Started,
    assert_each_has_its_own,
    assert_one_is_given_up,
    config_for,
    expected,
    occupy,
    results_of,
    started,
)

from runner import run

PROTOCOL = """
kind: sync
request:
  path: /generate
  encoding: multipart
  files: {image: image}
  body: {seed: "{seed}"}
result: {from: body}
error: error
health: {path: /readyz}
"""
TASKS = """
kind: job
request:
  path: /generate/submit
  encoding: multipart
  files: {image: image}
  body: {seed: "{seed}"}
id: task_id
poll: {path: "/generate/status?task_id={id}", every_s: 0.1, state: status, done: [completed], failed: [failed]}
fetch: {path: "/generate/get?task_id={id}"}
result: {from: body}
error: error
health: {path: /readyz}
"""


def bentos(service: str) -> AbstractContextManager[list[Started]]:
    command = f"bentoml serve bentoml_service:{service} --host 127.0.0.1 --port {{port}}"
    return started("bentoml", command, ready="/readyz", BENTOML_DO_NOT_TRACK="True")


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Started]]:
    with bentos("Maker") as both:
        yield both


@pytest.fixture(scope="module")
def tasks() -> Iterator[list[Started]]:
    with bentos("Tasks") as both:
        yield both


def post(server: Started, words: str, path: str = "/generate") -> requests.Response:
    upload = {"image": ("a.png", picture(words), "image/png")}
    return requests.post(server.url + path, files=upload, data={"seed": "1"}, timeout=30)


def test_every_picture_ends_as_the_bytes_that_belong_to_it(servers: list[Started], tmp_path: Path) -> None:
    assert_each_has_its_own(servers, tmp_path, PROTOCOL)


def test_an_api_that_raises_is_a_500_that_is_tried_again_and_then_given_up(
    servers: list[Started], tmp_path: Path
) -> None:
    assert_one_is_given_up(servers, tmp_path, PROTOCOL, words="An unexpected error has occurred", statuses=[500, 500])


def test_a_429_is_waited_for_and_uses_up_no_attempt(servers: list[Started], tmp_path: Path) -> None:
    keeper, answer = occupy(partial(post, servers[0]))
    assert (answer.status_code, answer.json()) == (429, {"error": "Too many requests"})
    summary = run(config_for(tmp_path, servers[:1], PROTOCOL, ["a", "b"], retry={"attempts": 1}))
    keeper.join()
    assert summary.success
    assert results_of(tmp_path) == expected(["a", "b"])


def test_every_task_ends_as_the_bytes_that_belong_to_its_picture(tasks: list[Started], tmp_path: Path) -> None:
    summary = run(config_for(tmp_path, tasks, TASKS))
    assert summary.success
    assert results_of(tmp_path) == expected(NAMES)


def test_a_task_that_failed_is_tried_again_and_then_given_up(tasks: list[Started], tmp_path: Path) -> None:
    assert_one_is_given_up(tasks, tmp_path, TASKS)


def test_a_task_is_asked_after_again_when_even_its_status_is_a_429(tasks: list[Started], tmp_path: Path) -> None:
    held = []
    while (answer := post(tasks[0], "slow", "/generate/submit")).status_code == 200:
        held.append(answer.json()["task_id"])
    status = requests.get(f"{tasks[0].url}/generate/status?task_id={held[0]}", timeout=5)
    assert (answer.status_code, status.status_code) == (429, 429)
    names = ["slow-a", "slow-b", "c"]
    summary = run(config_for(tmp_path, tasks[:1], TASKS, names, endpoint={"slots": 3}, retry={"attempts": 1}))
    assert summary.success
    assert results_of(tmp_path) == expected(names)
