"""The preset ``runpod`` against RunPod's own worker package, served by its local API (``--rp_serve_api``).

The local API differs from the cloud: a status is asked with POST, and it is this question that generates; it is
answered once, and there is no health page.
"""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from made import picture
from third_party import (
    Started,
    assert_each_has_its_own,
    assert_one_is_given_up,
    started,
)

PROTOCOL = """
preset: runpod
poll: {method: POST, every_s: 0.05}
health: null
"""


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Started]]:
    command = "python runpod_handler.py --rp_serve_api --rp_api_host 127.0.0.1 --rp_api_port {port}"
    with started("runpod", command, ready="/openapi.json") as both:
        yield both


def test_every_picture_ends_as_the_bytes_that_belong_to_it(servers: list[Started], tmp_path: Path) -> None:
    assert_each_has_its_own(servers, tmp_path, PROTOCOL)


def test_a_job_that_failed_is_a_200_and_is_tried_again_and_then_given_up(
    servers: list[Started], tmp_path: Path
) -> None:
    assert_one_is_given_up(servers, tmp_path, PROTOCOL, words="this picture has no shape", statuses=[200, 200])


def test_a_job_that_was_fetched_or_never_was_is_a_200_that_failed(servers: list[Started]) -> None:
    given = {"image": base64.b64encode(picture("a")).decode(), "seed": 1}
    job = requests.post(f"{servers[0].url}/run", json={"input": given}, timeout=5).json()
    assert job["status"] == "IN_PROGRESS"
    status = f"{servers[0].url}/status/{job['id']}"
    assert requests.get(status, timeout=5).status_code == 405
    assert requests.post(status, timeout=5).json()["status"] == "COMPLETED"
    again = requests.post(status, timeout=5)
    assert again.status_code == 200
    assert again.json() == {"id": job["id"], "status": "FAILED", "error": "Job ID not found"}
