"""The preset ``gradio`` against a Gradio app with a queue of one."""

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from made import picture
from third_party import (
    Started,
    assert_each_has_its_own,
    assert_one_is_given_up,
    config_for,
    expected,
    results_of,
    started,
)

from runner import run

PROTOCOL = """
preset: gradio
request: {path: /gradio_api/call/generate}
poll: {path: "/gradio_api/call/generate/{id}"}
"""


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Started]]:
    settings = {
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": "{port}",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    with started("gradio", "python gradio_app.py", ready="/config", **settings) as both:
        yield both


def submit(server: Started, words: str) -> requests.Response:
    upload = {"files": ("a.png", picture(words), "image/png")}
    [path] = requests.post(f"{server.url}/gradio_api/upload", files=upload, timeout=5).json()
    document: dict[str, Any] = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, 1]}
    return requests.post(f"{server.url}/gradio_api/call/generate", json=document, timeout=5)


def stream(server: Started, event: str) -> str:
    return requests.get(f"{server.url}/gradio_api/call/generate/{event}", timeout=30).text


def test_every_picture_ends_as_the_bytes_that_belong_to_it(servers: list[Started], tmp_path: Path) -> None:
    assert_each_has_its_own(servers, tmp_path, PROTOCOL)


def test_an_error_event_is_a_failed_attempt_with_the_words_of_the_app(servers: list[Started], tmp_path: Path) -> None:
    assert_one_is_given_up(servers, tmp_path, PROTOCOL, words="this picture has no shape")


def test_a_full_queue_is_waited_for_and_uses_up_no_attempt(servers: list[Started], tmp_path: Path) -> None:
    events = []
    while (answer := submit(servers[0], f"slow {len(events)}")).ok:
        events.append(answer.json()["event_id"])
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith("Queue is full.")
    listeners = [Thread(target=stream, args=(servers[0], event)) for event in events]
    for listener in listeners:
        listener.start()
    summary = run(config_for(tmp_path, servers[:1], PROTOCOL, ["a"], retry={"attempts": 1}))
    for listener in listeners:
        listener.join()
    assert summary.success
    assert results_of(tmp_path) == expected(["a"])


def test_the_end_is_told_once_and_an_unknown_event_is_an_error_event_in_a_broken_body(servers: list[Started]) -> None:
    event = submit(servers[0], "a").json()["event_id"]
    assert stream(servers[0], event).startswith("event: complete\ndata: [{")
    address = f"{servers[0].url}/gradio_api/call/generate/"
    with pytest.raises(requests.ConnectionError, match="timed out"):
        requests.get(address + event, timeout=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(address + "unknown", timeout=5)
    with requests.get(address + "unknown", timeout=5, stream=True) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_lines()) == b"event: error"
