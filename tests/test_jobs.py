"""Jobs and batches across crashes: what an endpoint has taken on is found again, not generated again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import ledger_of, results_of
from simulated import SERVERS, ImageHost, Simulated, prompt_image
from simulated.base import said

Start = Callable[..., subprocess.Popen[str]]
PROMPTS = ["p0", "p1", "p2", "p3"]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def config(folder: Path, servers: list[Any], preset: str, **options: Any) -> Path:
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for name in PROMPTS:
        (images / f"{name}.png").write_bytes(prompt_image(name))
    headers = {"Authorization": f"Bearer {servers[0].key}"} if servers[0].key else {}
    path = folder / "run.yaml"
    whole = {
        "endpoints": [{"url": one.url, "headers": headers} for one in servers],
        "prompts": "images",
        "protocol": {"preset": preset, "poll": {"every_s": 0.02, "deadline_s": 30}},
        "retry": {"attempts": 2, "backoff_s": 0.01},
    }
    path.write_text(json.dumps(whole | options))
    return path


def submitted(folder: Path) -> list[str]:
    path = folder / ".runner" / "ledger.jsonl"
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [line["key"] for line in lines if line["outcome"] == "submitted"]


def kill_once_submitted(process: subprocess.Popen[str], folder: Path, count: int, wait: Callable[[], None]) -> None:
    while len(submitted(folder)) < count:
        assert process.poll() is None, process.communicate()
        wait()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def moment() -> None:
    signal.sigtimedwait([], 0.01)


def artefacts(server: type[Simulated], names: list[str] = PROMPTS) -> dict[str, bytes]:
    return {f"{name}.{server.extension}": server.artefact(name, 42) for name in names}


@pytest.mark.parametrize("preset", ["runpod", "comfyui", "hunyuan3d-job", "replicate"])
def test_a_killed_run_finds_its_jobs_again_and_generates_nothing_twice(
    preset: str, stack: ExitStack, here: Path, start: Start
) -> None:
    servers = [stack.enter_context(SERVERS[preset]()) for _ in range(2)]
    path = config(here, servers, preset)
    with servers[0].busy_gpu(), servers[1].busy_gpu():
        kill_once_submitted(start("run", path), here / "results", 2, moment)
    again = start("run", path)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert results_of(here / "results") == artefacts(SERVERS[preset])
    assert [server.submissions for server in servers] == [2, 2]
    assert sum(sum(server.generations.values()) for server in servers) == 4


def test_a_job_that_the_server_lost_meanwhile_is_submitted_anew_and_costs_no_attempt(
    stack: ExitStack, here: Path, start: Start
) -> None:
    server = stack.enter_context(SERVERS["runpod"]())
    path = config(here, [server], "runpod", retry={"attempts": 1})
    with server.busy_gpu():
        kill_once_submitted(start("run", path), here / "results", 1, moment)
    server.jobs.clear()
    again = start("run", path)
    assert again.wait(60) == 0
    assert results_of(here / "results") == artefacts(SERVERS["runpod"])
    assert {len(line["attempts"]) for line in ledger_of(here / "results") if line["outcome"] == "saved"} == {1}


def test_a_job_that_is_late_since_its_submission_is_not_waited_for_again(
    stack: ExitStack, here: Path, start: Start
) -> None:
    server = stack.enter_context(SERVERS["hunyuan3d-job"]())  # says of a lost job that it is processing, for ever
    path = config(here, [server], "hunyuan3d-job", retry={"attempts": 1})
    server.misbehave("hang")
    kill_once_submitted(start("run", path), here / "results", 1, moment)
    ledger = here / "results" / ".runner" / "ledger.jsonl"
    ledger.write_text(
        re.sub(r'"submitted_at":"[^"]+"', '"submitted_at":"2020-01-01T00:00:00.000Z"', ledger.read_text())
    )
    assert start("run", path).wait(20) == 0  # poll.deadline_s is 30
    assert results_of(here / "results") == artefacts(SERVERS["hunyuan3d-job"])


def test_a_job_of_another_seed_is_not_taken_for_this_ones(stack: ExitStack, here: Path, start: Start) -> None:
    server = stack.enter_context(SERVERS["runpod"]())
    path = config(here, [server], "runpod")
    with server.busy_gpu():
        kill_once_submitted(start("run", path), here / "results", 1, moment)
    assert start("run", path, "--seed", "7").wait(60) == 0
    assert results_of(here / "results") == {f"{name}.glb": server.artefact(name, 7) for name in PROMPTS}


def test_a_killed_worker_process_leaves_its_jobs_to_the_next(stack: ExitStack, here: Path, start: Start) -> None:
    servers = [stack.enter_context(SERVERS["runpod"]()) for _ in range(2)]
    process = start("run", config(here, servers, "runpod", processes=2))
    with servers[0].busy_gpu(), servers[1].busy_gpu():
        while len(submitted(here / "results")) < 2:
            assert process.poll() is None
            moment()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert results_of(here / "results") == artefacts(SERVERS["runpod"])
    assert sum(server.submissions for server in servers) == 4


def test_an_endpoint_that_goes_away_and_comes_back_is_asked_for_its_job(
    stack: ExitStack, here: Path, start: Start
) -> None:
    server = stack.enter_context(SERVERS["runpod"]())
    path = config(here, [server], "runpod", health={"probe_every_s": 0.1})
    process = start("run", path)
    with server.busy_gpu():
        while len(submitted(here / "results")) < 1:
            assert process.poll() is None
            moment()
        server.misbehave("poll 500", 5)
    assert process.wait(60) == 0
    assert server.submissions == 4 and sum(server.generations.values()) == 4


def test_a_killed_batch_run_submits_the_same_batch_and_it_is_not_generated_again(
    stack: ExitStack, here: Path, start: Start
) -> None:
    server = stack.enter_context(SERVERS["404-batch"]())
    host = stack.enter_context(ImageHost())
    listed = here / "urls.txt"
    listed.write_text("".join(f"{host.image(name)}\n" for name in PROMPTS))
    protocol = {"preset": "404-batch", "size": 4, "poll": {"every_s": 0.02, "deadline_s": 30}}
    path = config(here, [server], "404-batch", prompts=str(listed), protocol=protocol)
    with server.busy_gpu():
        kill_once_submitted(start("run", path), here / "results", 4, moment)
    again = start("run", path)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert results_of(here / "results") == artefacts(SERVERS["404-batch"])
    assert dict(server.generations) == dict.fromkeys(PROMPTS, 1)


@pytest.mark.parametrize("preset", ["404-batch", "gradio", "runpod"])
def test_worker_processes_do_jobs_and_batches_too(preset: str, stack: ExitStack, here: Path, start: Start) -> None:
    servers = [stack.enter_context(SERVERS[preset]()) for _ in range(2)]
    host = stack.enter_context(ImageHost())
    options: dict[str, Any] = {"processes": 2}
    if preset == "404-batch":
        (here / "urls.txt").write_text("".join(f"{host.image(name)}\n" for name in PROMPTS))
        options["prompts"] = "urls.txt"
    process = start("run", config(here, servers, preset, **options))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert results_of(here / "results") == artefacts(SERVERS[preset])
    assert sum(sum(server.generations.values()) for server in servers) == 4


def batch_of(folder: Path, host: ImageHost, server: Any, names: list[str], **options: Any) -> Path:
    (folder / "urls.txt").write_text("".join(f"{host.image(name)}\n" for name in names))
    protocol = {"preset": "404-batch", "size": 4, "poll": {"every_s": 0.02, "deadline_s": 30}}
    return config(folder, [server], "404-batch", prompts="urls.txt", protocol=protocol, **options)


def test_a_batch_is_not_submitted_before_the_archive_of_the_last_is_here(
    stack: ExitStack, here: Path, start: Start
) -> None:
    server = stack.enter_context(SERVERS["404-batch"]())
    host = stack.enter_context(ImageHost())
    names = [f"q{number}" for number in range(12)]
    server.misbehave("torn")
    again = start("run", batch_of(here, host, server, names, retry={"attempts": 1}))
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert dict(server.generations) == dict.fromkeys(names, 1)


@pytest.mark.parametrize(("how", "times"), [("busy", 1), ("torn", 3)])
def test_a_batch_that_is_sent_again_is_one_batch_again_and_soon(
    how: str, times: int, stack: ExitStack, here: Path, start: Start
) -> None:
    server = stack.enter_context(SERVERS["404-batch"]())
    host = stack.enter_context(ImageHost())
    server.misbehave(how, times)
    again = start("run", batch_of(here, host, server, PROMPTS, retry={"attempts": 2, "backoff_s": 0.5}))
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert server.submissions == 2 and {len(batch) for batch in server.batches} == {4}
    assert how == "torn" or json.loads(out)["seconds"] < 1.9


def prompts_at(host: ImageHost, here: Path) -> str:
    (here / "urls.txt").write_text("".join(f"{host.image(name)}\n" for name in PROMPTS))
    return "urls.txt"


def test_a_batch_that_waits_for_a_server_to_get_ready_ends_with_the_window(
    stack: ExitStack, here: Path, start: Start
) -> None:
    server = stack.enter_context(SERVERS["404-batch"]())
    host = stack.enter_context(ImageHost())
    server.misbehave("warming", 10_000)
    path = config(here, [server], "404-batch", prompts=prompts_at(host, here), max_runtime_s=0.5)
    assert start("run", path).wait(20) == 75
    assert server.submissions == 0


def test_one_bad_prompt_does_not_fail_its_batch(stack: ExitStack, here: Path, start: Start) -> None:
    class Picky(SERVERS["404-batch"]):  # type: ignore[name-defined, misc]
        def serve(self, call: Any) -> Any:
            if call.method == "POST" and b"/p2.png" in call.body:
                return said({"detail": "p2 is no image"}, 422)
            return super().serve(call)

    server = stack.enter_context(Picky())
    host = stack.enter_context(ImageHost())
    process = start("run", config(here, [server], "404-batch", prompts=prompts_at(host, here), retry={"attempts": 1}))
    assert process.wait(30) == 1
    assert results_of(here / "results") == artefacts(SERVERS["404-batch"], ["p0", "p1", "p3"])
    (failed,) = [line for line in ledger_of(here / "results") if line["outcome"] == "failed"]
    assert failed["key"] == "p2" and "p2 is no image" in failed["error"]


def test_stealing_does_not_ask_again_and_again_for_a_job_that_can_not_move(
    stack: ExitStack, here: Path, start: Start
) -> None:
    servers = [stack.enter_context(SERVERS["runpod"]()) for _ in range(2)]
    path = config(here, servers, "runpod")
    with servers[0].busy_gpu(), servers[1].busy_gpu():
        kill_once_submitted(start("run", path), here / "results", 2, moment)
    again = start("run", config(here, servers, "runpod", assignment="steal"))
    with servers[0].busy_gpu():
        while len([line for line in ledger_of(here / "results") if line["outcome"] == "saved"]) < 2:
            assert again.poll() is None
            moment()
    _, err = again.communicate(timeout=30)
    assert again.returncode == 0, err
    assert err.count("→ endpoint") < 20


def test_a_finished_job_whose_image_is_gone_is_fetched_all_the_same(
    stack: ExitStack, here: Path, start: Start
) -> None:
    server = stack.enter_context(SERVERS["runpod"]())
    path = config(here, [server], "runpod")
    with server.busy_gpu():
        kill_once_submitted(start("run", path), here / "results", 1, moment)
    (known,) = {*submitted(here / "results")}
    (here / "images" / f"{known}.png").rename(here / f"{known}.png")
    (here / "list.txt").write_text("".join(f"images/{name}.png\n" for name in PROMPTS))
    assert start("run", config_again(here, path)).wait(30) == 0
    assert results_of(here / "results") == artefacts(SERVERS["runpod"])
    assert server.submissions == 4


def config_again(here: Path, path: Path) -> Path:
    """The same config, with the images named in a list: a folder would hold one less."""
    whole = json.loads(path.read_text()) | {"prompts": "list.txt"}
    other = here / "again.yaml"
    other.write_text(json.dumps(whole))
    return other


def test_release_body_keeps_the_slot_of_a_job_until_its_result_is_there(
    stack: ExitStack, here: Path, start: Start
) -> None:
    order: list[str] = []

    class Watched(SERVERS["comfyui"]):  # type: ignore[name-defined, misc]
        def serve(self, call: Any) -> Any:
            if call.path in ("/prompt", "/view"):
                order.append(call.path)
            return super().serve(call)

    server = stack.enter_context(Watched())
    protocol = {"preset": "comfyui", "release": "body", "poll": {"every_s": 0.02, "deadline_s": 30}}
    assert start("run", config(here, [server], "comfyui", protocol=protocol)).wait(30) == 0
    assert order == ["/prompt", "/view"] * 4
