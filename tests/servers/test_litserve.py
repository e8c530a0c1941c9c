"""LitServe, which no preset knows: described in YAML alone. And the preset ``openai-chat`` against its OpenAI API."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from third_party import (
    Started,
    assert_each_has_its_own,
    assert_one_is_given_up,
    config_for,
    config_of,
    expected,
    ledger_of,
    results_of,
    started,
)

from runner import run

PROTOCOL = """
kind: sync
request:
  path: /predict
  encoding: multipart
  files: {image: image}
  body: {seed: "{seed}"}
result: {from: body}
error: detail
health: {path: /health}
"""
CHAT = """
preset: openai-chat
health: {path: /health}
"""


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Started]]:
    with started("litserve", "python litserve_api.py {port}") as both:
        yield both


@pytest.fixture(scope="module")
def chats() -> Iterator[list[Started]]:
    with started("litserve", "python litserve_chat.py {port}") as both:
        yield both


def test_every_picture_ends_as_the_bytes_that_belong_to_it(servers: list[Started], tmp_path: Path) -> None:
    assert_each_has_its_own(servers, tmp_path, PROTOCOL)


def test_an_api_that_raises_is_a_500_that_is_tried_again_and_then_given_up(
    servers: list[Started], tmp_path: Path
) -> None:
    assert_one_is_given_up(servers, tmp_path, PROTOCOL, words="Internal server error", statuses=[500, 500])


def test_a_504_of_a_request_that_waited_too_long_there_is_tried_again(servers: list[Started], tmp_path: Path) -> None:
    names = ["slow-a", "slow-b"]
    summary = run(config_for(tmp_path, servers[:1], PROTOCOL, names, endpoint={"slots": 2}))
    assert summary.success
    assert results_of(tmp_path) == expected(names)
    attempts = [[one["status"] for one in line["attempts"]] for line in ledger_of(tmp_path).values()]
    assert sorted(attempts) == [[200], [504, 200]]


def test_every_question_gets_its_own_answer_by_the_preset_for_chat(chats: list[Started], tmp_path: Path) -> None:
    questions = [f"question {number}" for number in range(6)]
    (tmp_path / "prompts.jsonl").write_text(
        "".join(f'{{"text": "{one}", "key": "{one[-1]}"}}\n' for one in questions)
    )
    summary = run(config_of(tmp_path, chats, CHAT, prompts="prompts.jsonl"))
    assert summary.success
    assert results_of(tmp_path) == {f"{one[-1]}.txt": f"You said: {one}".encode() for one in questions}


def test_a_chat_that_raises_is_a_500_that_is_tried_again_and_then_given_up(
    chats: list[Started], tmp_path: Path
) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"text": "hello", "key": "a"}\n{"text": "this fails", "key": "b"}\n')
    summary = run(config_of(tmp_path, chats, CHAT, prompts="prompts.jsonl"))
    assert (summary.saved, summary.failed) == (1, 1)
    assert results_of(tmp_path) == {"a.txt": b"You said: hello"}
    assert [attempt["status"] for attempt in ledger_of(tmp_path)["b"]["attempts"]] == [500, 500]
