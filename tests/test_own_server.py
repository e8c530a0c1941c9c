"""A server that no preset knows, described in YAML only: an odd request, links, failures, several results."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ledger_of, results_of
from simulated.artefacts import glb, half, named_png
from simulated.base import Answer, Call, Listener, Storage, said

from runner import Summary, load_config, run
from runner.errors import UsageError
from runner.worker.tools import RESULTS_MAX


class Foundry(Listener):
    """PUTs of a form, 201, links to files on itself and elsewhere; says 201 to failures."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.fails: set[str] = set()
        self.torn: Counter[str] = Counter()
        self.leaks = 0
        self.elsewhere = Storage(self)  # type: ignore[arg-type]
        super().__init__()

    def __exit__(self, *arguments: object) -> None:
        self.elsewhere.__exit__()
        super().__exit__(*arguments)

    def file(self, path: str) -> Answer:
        content = glb(path.strip("/"))
        if self.torn[path]:
            self.torn[path] -= 1
            content = half(content)
        return Answer(200, content, chunked=True)

    def _answer(self, call: Call) -> Answer:
        if call.path.startswith("/files/"):
            return self.file(call.path.removeprefix("/files"))
        if (call.method, call.path) == ("GET", "/readyz"):
            return said({"checks": {"gpu": "idle"}})
        if (call.method, call.path) != ("PUT", "/v9/cast") or call.query != {"quality": "best"}:
            return Answer(404, b"no such page")
        if call.headers.get("x-kind") != "seed-5":
            return Answer(400, b"X-Kind?")
        fields = dict(pair.split("=") for pair in call.body.decode().split("&"))
        self.asked[fields["want"]] += 1
        if fields["want"] in self.fails:
            return said({"outcome": "bad", "why": {"text": "the mould broke"}}, 201)
        here, there = "/files/%s-a.glb", self.elsewhere.url + "/%s-b.glb"
        links = [{"href": here % fields["want"]}, {"href": there % fields["want"]}][: int(fields["how_many"])]
        return Answer(201, json.dumps({"outcome": "good", "casts": links}).encode(), "application/json")


PROTOCOL = """
protocol:
  kind: sync
  request:
    method: PUT
    path: /v9/cast?quality={params.quality}
    encoding: form
    body: {want: "{text}", how_many: "{params.many}"}
    headers: {X-Kind: "seed-{seed}"}
  result: {from: json, path: casts.*.href, decode: url}
  status: {ok: [201, 200], busy: [423]}
  fail_when: {path: outcome, not_in: [good]}
  error: why.text
  health: {path: /readyz, json: {checks.gpu: [idle, busy]}}
"""


@pytest.fixture
def foundry() -> Iterator[Foundry]:
    with Foundry() as one:
        yield one


Cast = Callable[..., Summary]


@pytest.fixture
def cast(foundry: Foundry, tmp_path: Path) -> Cast:
    """Runs the foundry's prompts."""

    def complete(prompts: str = "text,many,quality,seed\nbell,1,best,5\ncup,2,best,5\n") -> Summary:
        (tmp_path / "prompts.csv").write_text(prompts)
        endpoint = f"endpoints: [{{url: '{foundry.url}', headers: {{Authorization: secret}}}}]"
        retry = "retry: {attempts: 2, backoff_s: 0.01}"
        (tmp_path / "run.yaml").write_text(f"{endpoint}\nprompts: prompts.csv\n{retry}\n{PROTOCOL}")
        return run(load_config(tmp_path / "run.yaml"))

    return complete


def test_it_is_described_in_yaml_only(cast: Cast, foundry: Foundry, tmp_path: Path) -> None:
    assert cast().success
    assert results_of(tmp_path / "results") == {
        "bell.glb": glb("bell-a.glb"),
        "cup-0.glb": glb("cup-a.glb"),
        "cup-1.glb": glb("cup-b.glb"),
    }
    assert foundry.leaks == 0, "another host got the endpoint's credentials"


def test_every_file_of_a_prompt_with_several_counts_when_the_run_is_resumed(
    cast: Cast, foundry: Foundry, tmp_path: Path
) -> None:
    cast()
    assert (cast().skipped, foundry.asked["cup"]) == (2, 1)
    (tmp_path / "results" / "cup-1.glb").unlink()
    assert (cast().saved, foundry.asked["cup"], foundry.asked["bell"]) == (1, 2, 1)
    assert len(results_of(tmp_path / "results")) == 3
    (line, _) = [one for one in ledger_of(tmp_path / "results") if one["key"] == "cup"]
    assert (line["file"], [one["file"] for one in line["more"]]) == ("cup-0.glb", ["cup-1.glb"])


def test_a_201_that_is_a_failure_is_told_in_the_servers_own_words(cast: Cast, foundry: Foundry) -> None:
    foundry.fails.add("cup")
    summary = cast()
    assert (summary.saved, summary.failed, foundry.asked["cup"]) == (1, 1, 2)
    assert summary.failures[0].error == "the server says it failed: the mould broke"


def test_a_link_to_half_a_file_is_asked_for_again_and_the_model_not_made_again(
    cast: Cast, foundry: Foundry, tmp_path: Path
) -> None:
    foundry.torn["/cup-b.glb"] = 1
    assert cast().success
    assert foundry.asked["cup"] == 1
    assert results_of(tmp_path / "results")["cup-1.glb"] == glb("cup-b.glb")


def test_nothing_of_several_results_is_left_if_one_can_not_be_had(
    cast: Cast, foundry: Foundry, tmp_path: Path
) -> None:
    foundry.torn["/cup-b.glb"] = 1000
    assert cast().failed == 1
    assert [*results_of(tmp_path / "results")] == ["bell.glb"]
    assert not [*(tmp_path / "results").glob(".*.part")]


def test_a_prompt_without_what_the_protocol_sends_is_named_before_anything_is_sent(
    cast: Cast, foundry: Foundry
) -> None:
    with pytest.raises(UsageError) as caught:
        cast("text,many,seed\nbell,1,5\n")
    assert caught.value.problems == (
        "prompts.csv:2: bell has no column quality",
        "The protocol sync-" + caught.value.problems[1].removeprefix("The protocol sync-"),
    )
    assert "sends {params.many}, {params.quality}. Nothing was sent." in caught.value.problems[1]
    assert not foundry.asked


def test_two_prompts_whose_results_could_have_one_name_are_refused(cast: Cast, foundry: Foundry) -> None:
    with pytest.raises(UsageError, match="cup-1"):
        cast("key,text,many,quality\ncup,a,2,best\ncup-1,b,1,best\n")
    assert not foundry.asked


class Photographer(Listener):
    """Takes the image as the raw body, and gives base64 in JSON, a data URL, or text."""

    answer = b""

    def _answer(self, call: Call) -> Answer:
        if call.method == "GET":
            return Answer(200)
        assert call.headers["content-type"] == "image/png"
        self.body = call.body
        return Answer(200, self.answer, "text/html")


@pytest.mark.parametrize(
    ("result", "answer", "name"),
    [
        ({"from": "json", "path": "images.0", "decode": "base64"}, {"images": ["@"]}, "a.png"),
        ({"from": "json", "path": "image", "decode": "data_url"}, {"image": "data:image/png;base64,@"}, "a.png"),
        ({"from": "json", "path": "words", "decode": "text"}, {"words": "a red @"}, "a.txt"),
        ({"from": "json", "path": "", "decode": "json"}, {"box": [1, 2, {"é": None}]}, "a.json"),
    ],
)
def test_results_are_decoded_as_the_block_says(result: dict, answer: dict, name: str, tmp_path: Path) -> None:
    picture = named_png("picture")
    text = json.dumps(answer).replace("@", base64.b64encode(picture).decode())
    (tmp_path / "a.png").write_bytes(picture)
    with Photographer() as server:
        server.answer = text.encode()
        request = {"path": "/", "encoding": "raw", "body": "{image.bytes}"}
        protocol = {"request": request, "result": result, "health": None}
        whole = {"endpoints": server.url, "prompts": "a.png", "protocol": protocol}
        (tmp_path / "run.yaml").write_text(json.dumps(whole))
        assert run(load_config(tmp_path / "run.yaml")).success
        assert server.body == picture
    (saved,) = results_of(tmp_path / "results").items()
    if name == "a.png":
        assert saved == (name, picture)
    elif name == "a.txt":
        assert saved == (name, json.loads(text)["words"].encode())
    else:
        assert (saved[0], json.loads(saved[1])) == (name, answer)


def test_a_prompt_has_no_more_results_than_it_may(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(named_png("a"))
    with Photographer() as server:
        server.answer = json.dumps(
            {"images": [base64.b64encode(named_png("a")).decode()] * (RESULTS_MAX + 1)}
        ).encode()
        protocol = {
            "request": {"path": "/", "encoding": "raw", "body": "{image.bytes}"},
            "result": {"from": "json", "path": "images.*", "decode": "base64"},
            "health": None,
        }
        whole = {"endpoints": server.url, "prompts": "a.png", "protocol": protocol, "retry": {"attempts": 1}}
        (tmp_path / "run.yaml").write_text(json.dumps(whole))
        summary = run(load_config(tmp_path / "run.yaml"))
    assert summary.failures[0].error == f"expected at most {RESULTS_MAX} results at images.*, got {RESULTS_MAX + 1}"
    assert not results_of(tmp_path / "results")
