"""The simulated servers behave as the real ones: each is spoken to as its own client would."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from simulated import SERVERS, ImageHost, Simulated, prompt_image

SEED = 42
HTTP = requests.Session()
HTTP.trust_env = False


class Busy(Exception):
    """The server is full."""


class Failed(Exception):
    """The server says that this generation failed, or that the request is wrong."""


def test_there_is_one_server_a_preset() -> None:
    assert len(SERVERS) == 19


@pytest.fixture(params=sorted(SERVERS))
def server(request: pytest.FixtureRequest) -> Iterator[Simulated]:
    with SERVERS[request.param](generation_s=0.001) as one:
        yield one


def generate(server: Simulated, prompt: str = "chair") -> bytes:
    """Return one result, asking twice for one that is cut."""
    return CLIENTS[server.preset](server, prompt)


def test_a_prompt_and_a_seed_give_their_own_artefact(server: Simulated) -> None:
    assert generate(server, "chair") == server.artefact("chair", SEED)
    assert generate(server, "lamp") == server.artefact("lamp", SEED) != server.artefact("chair", SEED)
    assert server.generations == {"chair": 1, "lamp": 1}
    assert (server.artefact("lamp", 1) != server.artefact("lamp", SEED)) == server.seeded
    assert server.leaks == 0


def test_busy_is_said_as_often_as_wanted_and_generates_nothing(server: Simulated) -> None:
    server.misbehave("busy", 2)
    for _ in range(2):
        with pytest.raises(Busy):
            generate(server)
    assert not server.generations
    assert generate(server) == server.artefact("chair", SEED)


def test_a_failure_is_said_in_the_servers_own_way_once(server: Simulated) -> None:
    if server.preset == "hunyuan3d-job":
        pytest.skip("a dead job says processing for ever")
    server.misbehave("failure")
    with pytest.raises(Failed):
        generate(server)
    if server.preset == "404-batch":
        generate(server, "lamp")  # the same stems alone would be a repetition
    assert generate(server) == server.artefact("chair", SEED)


def test_a_result_is_torn_at_its_first_fetch_only(server: Simulated) -> None:
    server.misbehave("torn")
    torn: list[bytes] = []
    whole = CLIENTS[server.preset](server, "chair", torn.append)
    assert whole == server.artefact("chair", SEED)
    assert torn and torn[0] != whole
    if hasattr(server, "jobs"):
        assert server.generations["chair"] == 1


def test_a_request_without_its_image_or_text_is_refused_and_generates_nothing(server: Simulated) -> None:
    answer = {
        "404-batch": lambda: post(server, "/generate", json={"prompts": [{"stem": "A!"}], "seed": 1}),
        "comfyui": lambda: post(server, "/prompt", json={"prompt": {}}),
        "replicate": lambda: post(server, "/v1/predictions", json={"version": "x", "input": {}}),
        "tripo3d": lambda: post(server, "/task", json={"type": "image_to_model"}),
        "meshy": lambda: post(server, "/openapi/v1/image-to-3d", json={}),
        "gradio": lambda: post(server, "/gradio_api/call/predict", json={}),
        "runpod": lambda: post(server, "/run", json={}),
        "cog": lambda: post(server, "/predictions", json={"input": {}}),
        "kserve-v2": lambda: post(server, "/v2/models/model/infer", json={"inputs": []}),
        "trellis": lambda: post(server, "/generate_no_preview", data={"seed": 1}),
        "stability-3d": lambda: post(server, "/v2beta/3d/stable-fast-3d", data={"seed": 1}),
        "openai-images": lambda: post(server, "/v1/images/generations", json={"model": "default"}),
        "openai-chat": lambda: post(server, "/v1/chat/completions", json={"model": "default"}),
        "a1111": lambda: post(server, "/sdapi/v1/txt2img", json={"seed": "42"}),
        "hunyuan3d-job": lambda: post(server, "/send", data=b"no JSON"),
        "hunyuan3d": lambda: post(server, "/generate", json={"seed": 42}),
    }.get(server.preset, lambda: post(server, "/generate", data={"seed": 1}))()
    assert answer.status_code in (400, 404, 422, 500)
    assert not server.generations


@pytest.mark.parametrize("preset", [name for name, server in SERVERS.items() if server.key])
def test_a_service_wants_its_key_and_its_file_store_wants_none(preset: str) -> None:
    with SERVERS[preset]() as server:
        assert HTTP.get(server.url + "/anything").status_code == 401
        if store := getattr(server, "_store", None):
            assert HTTP.get(store.url + "/x.glb", headers=keyed(server)).status_code == 400
            assert server.leaks == 1


@pytest.mark.parametrize("preset", [name for name, server in SERVERS.items() if hasattr(server, "too_many")])
def test_a_job_hangs_is_forgotten_and_its_polls_hiccup_when_wanted(preset: str) -> None:
    with SERVERS[preset](generation_s=0.001) as server:
        server.misbehave("hang")
        job = server._submit("chair", SEED)
        server.misbehave("poll 500")
        server.misbehave("poll 429")
        page = POLLS[preset].format(id=job.id)
        assert HTTP.get(server.url + page, headers=keyed(server)).status_code == 500
        assert HTTP.get(server.url + page, headers=keyed(server)).status_code == 429
        if preset != "gradio":
            before = HTTP.get(server.url + page, headers=keyed(server))
            assert before.status_code == 200
        server.misbehave("forget")
        after = HTTP.get(server.url + page, headers=keyed(server))
        match preset:
            case "hunyuan3d-job" | "comfyui":
                assert after.json() == before.json()  # it can't be told from a job that waits
            case "gradio":
                assert after.text.startswith("event: error")
            case _:
                assert after.status_code == 404
        assert not server.generations


def test_the_batch_api_repeats_the_same_stems_and_refuses_others_while_it_generates() -> None:
    with SERVERS["404-batch"](generation_s=0.2) as server, ImageHost() as host:
        one = {"prompts": [{"stem": "chair", "image_url": host.image("chair")}], "seed": SEED}
        assert HTTP.get(server.url + "/results").status_code == 409
        assert post(server, "/generate", json=one).json() == {"accepted": 1}
        assert post(server, "/generate", json=one).json() == {"accepted": 1}
        other = post(server, "/generate", json={**one, "prompts": []})
        assert (other.status_code, other.json()["current_status"]) == (409, "generating")
        wait_for(lambda: HTTP.get(server.url + "/status").json()["status"] == "complete")
        again = post(server, "/generate", json={**one, "seed": 7})  # the seed is no part of it
        assert again.status_code == 200 and server.repeated == 2
        assert server.generations == {"chair": 1}


def keyed(server: Simulated) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.key}"} if server.key else {}


def post(server: Simulated, path: str, **content: Any) -> requests.Response:
    return HTTP.post(server.url + path, headers=keyed(server), timeout=10, **content)


def accepted(answer: requests.Response, *, busy: tuple[int, ...] = (429,)) -> requests.Response:
    """Return a good answer; Busy and Failed else."""
    if answer.status_code in busy:
        raise Busy(answer.text)
    if not answer.ok:
        raise Failed(answer.text)
    return answer


def wait_for(reached: Callable[[], Any]) -> Any:
    """Return the first true value."""
    for _ in range(2000):
        if value := reached():
            return value
    raise AssertionError("it never came")


Saw = Callable[[bytes], None]


def ignore(_: bytes) -> None: ...


def settle(server: Simulated, ask: Callable[[], bytes], saw: Saw, prompt: str) -> bytes:
    """Return what is asked for; once more if it is cut."""
    content = ask()
    if content == server.artefact(prompt, SEED):
        return content
    saw(content)
    return ask()


def image(prompt: str) -> tuple[str, bytes, str]:
    return f"{prompt}.png", prompt_image(prompt), "image/png"


def in_base64(prompt: str) -> str:
    return base64.b64encode(prompt_image(prompt)).decode()


def data_url(prompt: str) -> str:
    return f"data:image/png;base64,{in_base64(prompt)}"


def multipart(path: str, name: str) -> Callable[..., bytes]:
    def client(server: Simulated, prompt: str, saw: Saw = ignore) -> bytes:
        def ask() -> bytes:
            return accepted(post(server, path, files={name: image(prompt)}, data={"seed": SEED})).content

        return settle(server, ask, saw, prompt)

    return client


def in_json(
    path: str, document: Callable[[str], Any], read: Callable[[Any], bytes], **how: Any
) -> Callable[..., bytes]:
    def client(server: Simulated, prompt: str, saw: Saw = ignore) -> bytes:
        def ask() -> bytes:
            answer = accepted(post(server, path, json=document(prompt)), **how)
            try:
                return read(answer.json())
            except requests.JSONDecodeError:
                return answer.content

        return settle(server, ask, saw, prompt)

    return client


def of_hunyuan(server: Simulated, prompt: str, saw: Saw = ignore) -> bytes:
    def ask() -> bytes:
        return accepted(post(server, "/generate", json={"image": in_base64(prompt), "seed": SEED})).content

    return settle(server, ask, saw, prompt)


def of_trellis(server: Simulated, prompt: str, saw: Saw = ignore) -> bytes:
    sent = post(server, "/generate_no_preview", files={"file": image(prompt)}, data={"seed": SEED})
    url = server.url + accepted(sent, busy=(503,)).json()["model_url"]
    return settle(server, lambda: HTTP.get(url).content, saw, prompt)


def of_cog(answer: Any) -> bytes:
    if answer["status"] == "failed":
        raise Failed(answer["error"])
    return base64.b64decode(answer["output"].partition(",")[2])


def of_chat(answer: Any) -> bytes:
    if answer["choices"][0]["finish_reason"] != "stop":
        raise Failed("cut off")
    return answer["choices"][0]["message"]["content"].encode()


def tensors(prompt: str) -> Any:
    picture = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [in_base64(prompt)]}
    return {"inputs": [picture, {"name": "seed", "shape": [1], "datatype": "INT64", "data": [SEED]}]}


def job(
    path: str,
    document: Callable[[Simulated, str], Any],
    identity: str,
    state: Callable[[Any], str],
    ends: tuple[str, str],
    result: Callable[[Simulated, Any], bytes],
) -> Callable[..., bytes]:
    def client(server: Simulated, prompt: str, saw: Saw = ignore) -> bytes:
        answer = accepted(post(server, path, json=document(server, prompt))).json()
        name = answer.get(identity) or answer["data"][identity]

        def poll() -> Any:
            answer = HTTP.get(server.url + POLLS[server.preset].format(id=name), headers=keyed(server)).json()
            return answer if state(answer) in ends else None

        answer = wait_for(poll)
        if state(answer) == ends[1]:
            raise Failed(answer)
        polled = [answer]
        return settle(server, lambda: result(server, polled.pop() if polled else wait_for(poll)), saw, prompt)

    return client


def comfy_graph(server: Simulated, prompt: str) -> Any:
    name = post(server, "/upload/image", files={"image": image(prompt)}).json()["name"]
    load = {"class_type": "LoadImage", "inputs": {"image": name}}
    sample = {"class_type": "KSampler", "inputs": {"seed": SEED}}
    return {"prompt": {"2": load, "6": sample, "9": {"class_type": "SaveGLB", "inputs": {}}}}


def comfy_state(answer: Any) -> str:
    return next(iter(answer.values()))["status"]["status_str"] if answer else "waiting"


def comfy_view(server: Simulated, answer: Any) -> bytes:
    file = next(iter(answer.values()))["outputs"]["9"]["3d"][0]
    return HTTP.get(server.url + "/view", params=file).content


def tripo_task(server: Simulated, prompt: str) -> Any:
    token = post(server, "/upload", files={"file": image(prompt)}).json()["data"]["image_token"]
    return {"type": "image_to_model", "file": {"type": "jpg", "file_token": token}, "model_seed": SEED}


def of_gradio(server: Simulated, prompt: str, saw: Saw = ignore) -> bytes:
    path = post(server, "/gradio_api/upload", files={"files": image(prompt)}).json()[0]
    sent = post(
        server,
        "/gradio_api/call/predict",
        json={"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, SEED]},
    )
    event = accepted(sent, busy=(503,)).json()["event_id"]
    told = HTTP.get(server.url + POLLS["gradio"].format(id=event)).text.strip().split("\n\n")
    name, document = told[-1].split("\n")
    if name != "event: complete":
        raise Failed(told[-1])
    url = json.loads(document.removeprefix("data: "))[0]["url"]
    return settle(server, lambda: HTTP.get(url).content, saw, prompt)


def of_batch(server: Simulated, prompt: str, saw: Saw = ignore) -> bytes:
    with ImageHost() as host:
        batch = {"prompts": [{"stem": prompt, "image_url": host.image(prompt)}], "seed": SEED}
        accepted(post(server, "/generate", json=batch), busy=(409,))
        wait_for(lambda: HTTP.get(server.url + "/status").json()["status"] == "complete")
    content = HTTP.get(server.url + "/results").content
    if not zipfile.is_zipfile(io.BytesIO(content)):
        saw(content)
        content = HTTP.get(server.url + "/results").content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if "_failed.json" in archive.namelist():
            raise Failed(json.loads(archive.read("_failed.json"))[prompt])
        return archive.read(f"{prompt}.js")


POLLS = {
    "hunyuan3d-job": "/status/{id}",
    "comfyui": "/history/{id}",
    "runpod": "/status/{id}",
    "replicate": "/v1/predictions/{id}",
    "tripo3d": "/task/{id}",
    "meshy": "/openapi/v1/image-to-3d/{id}",
    "gradio": "/gradio_api/call/predict/{id}",
}
CLIENTS: dict[str, Callable[..., bytes]] = {
    "404-splat": multipart("/generate", "prompt_image_file"),
    "404-mesh": multipart("/generate", "prompt_image_file"),
    "404-batch": of_batch,
    "hunyuan3d": of_hunyuan,
    "hunyuan3d-job": job(
        "/send",
        lambda _, prompt: {"image": in_base64(prompt), "seed": SEED},
        "uid",
        lambda answer: answer["status"],
        ("completed", "error"),
        lambda _, answer: base64.b64decode(answer["model_base64"]),
    ),
    "trellis": of_trellis,
    "stable-fast-3d": multipart("/generate", "file"),
    "comfyui": job("/prompt", comfy_graph, "prompt_id", comfy_state, ("success", "error"), comfy_view),
    "a1111": in_json(
        "/sdapi/v1/txt2img",
        lambda prompt: {"prompt": prompt, "seed": SEED},
        lambda answer: base64.b64decode(answer["images"][0]),
    ),
    "openai-images": in_json(
        "/v1/images/generations",
        lambda prompt: {"model": "default", "prompt": prompt, "seed": SEED},
        lambda answer: base64.b64decode(answer["data"][0]["b64_json"]),
    ),
    "openai-chat": in_json(
        "/v1/chat/completions",
        lambda prompt: {"model": "default", "messages": [{"role": "user", "content": prompt}], "seed": SEED},
        of_chat,
    ),
    "runpod": job(
        "/run",
        lambda _, prompt: {"input": {"image": in_base64(prompt), "seed": SEED}},
        "id",
        lambda answer: answer["status"],
        ("COMPLETED", "FAILED"),
        lambda _, answer: base64.b64decode(answer["output"]),
    ),
    "replicate": job(
        "/v1/predictions",
        lambda _, prompt: {"version": "a/b:c", "input": {"image": data_url(prompt), "seed": SEED}},
        "id",
        lambda answer: answer["status"],
        ("succeeded", "failed"),
        lambda _, answer: HTTP.get(answer["output"]).content,
    ),
    "tripo3d": job(
        "/task",
        tripo_task,
        "task_id",
        lambda answer: answer["data"]["status"],
        ("success", "failed"),
        lambda _, answer: HTTP.get(answer["data"]["output"]["pbr_model"]).content,
    ),
    "meshy": job(
        "/openapi/v1/image-to-3d",
        lambda _, prompt: {"image_url": data_url(prompt)},
        "result",
        lambda answer: answer["status"],
        ("SUCCEEDED", "FAILED"),
        lambda _, answer: HTTP.get(answer["model_urls"]["glb"]).content,
    ),
    "stability-3d": multipart("/v2beta/3d/stable-fast-3d", "image"),
    "kserve-v2": in_json(
        "/v2/models/model/infer",
        tensors,
        lambda answer: base64.b64decode(answer["outputs"][0]["data"][0]),
        busy=(503,),
    ),
    "cog": in_json(
        "/predictions",
        lambda prompt: {"input": {"image": data_url(prompt), "seed": SEED}},
        of_cog,
        busy=(409,),
    ),
    "gradio": of_gradio,
}
