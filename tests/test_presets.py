"""Every preset, whole runs against servers that behave as the real ones: well, full, failing, and half-written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ledger_of, results_of
from simulated import SERVERS, ImageHost, prompt_image

from runner import Summary, load_config, run
from runner.client import Client
from runner.protocols import Block, Protocol
from runner.protocols import block as blocks
from runner.protocols.template import NAMES
from runner.recognition import recognise
from runner.sections import Section

PRESETS = sorted(SERVERS)
JOBS = [name for name in PRESETS if hasattr(SERVERS[name], "too_many")]
UNKNOWN = ("hunyuan3d-job", "comfyui", "gradio")
"""Servers that do not say of a job that they don't know it."""
SEED = 42
PROMPTS = [f"p{number}" for number in range(6)]
QUICK_POLL: dict[str, Any] = {"every_s": 0.02, "deadline_s": 20}


class Rig:
    """Some simulated servers of one preset, and prompts for them in a folder."""

    def __init__(self, stack: ExitStack, preset: str, folder: Path, count: int) -> None:
        self.preset = preset
        self.folder = folder
        self.servers = [stack.enter_context(SERVERS[preset]()) for _ in range(count)]
        self.images = stack.enter_context(ImageHost())
        self.kind = self.servers[0]

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def run(self, prompts: list[str] = PROMPTS, *, attempts: int = 3, **overrides: Any) -> Summary:
        """Run the prompts to their end; ``overrides`` are the protocol's."""
        return run(load_config(self.config(prompts, attempts, overrides)))

    def config(self, prompts: list[str], attempts: int, overrides: dict[str, Any]) -> Path:
        if self.preset in JOBS or self.preset == "404-batch":
            overrides = {**overrides, "poll": {**QUICK_POLL, **overrides.get("poll", {})}}
        headers = {"Authorization": f"Bearer {self.kind.key}"} if self.kind.key else {}
        config = {
            "endpoints": [{"url": server.url, "headers": headers} for server in self.servers],
            "prompts": str(self._prompts(prompts)),
            "output_folder": str(self.results),
            "seed": SEED,
            "protocol": {"preset": self.preset, **overrides},
            "retry": {"attempts": attempts, "backoff_s": 0.01, "backoff_max_s": 0.02},
        }
        path = self.folder / "run.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        return path

    def _prompts(self, names: list[str]) -> Path:
        listed = self.folder / "prompts.jsonl"
        listed.write_text("".join(json.dumps({"key": name, **self._prompt(name)}) + "\n" for name in names))
        return listed

    def _prompt(self, name: str) -> dict[str, str]:
        match self.kind.prompts:
            case "text":
                return {"text": name}
            case "url":
                return {"image": self.images.image(name)}
        file = self.folder / "images" / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(prompt_image(name))
        return {"image": str(file)}

    def assert_all_saved(self, summary: Summary, prompts: list[str] = PROMPTS) -> None:
        """Every prompt has its own whole artefact, and nothing else is there."""
        assert (summary.total, summary.saved, summary.failed, summary.pending) == (len(prompts), len(prompts), 0, 0)
        extension = self.kind.extension
        expected = {f"{name}.{extension}": self.kind.artefact(name, SEED) for name in prompts}
        assert results_of(self.results) == expected
        assert not any(server.leaks for server in self.servers)

    def generations(self, name: str) -> int:
        return sum(server.generations[name] for server in self.servers)

    def attempts(self) -> dict[str, list[dict[str, Any]]]:
        return {line["key"]: line["attempts"] for line in ledger_of(self.results)}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture(params=PRESETS)
def rig(request: pytest.FixtureRequest, stack: ExitStack, tmp_path: Path) -> Rig:
    """Two servers of every preset."""
    return Rig(stack, request.param, tmp_path, 2)


@pytest.fixture(params=PRESETS)
def single(request: pytest.FixtureRequest, stack: ExitStack, tmp_path: Path) -> Rig:
    """One server of every preset."""
    return Rig(stack, request.param, tmp_path, 1)


@pytest.fixture(params=JOBS)
def job(request: pytest.FixtureRequest, stack: ExitStack, tmp_path: Path) -> Rig:
    """One server of every preset with jobs."""
    return Rig(stack, request.param, tmp_path, 1)


def test_a_run_over_two_endpoints_saves_every_prompts_own_result_and_generates_each_once(rig: Rig) -> None:
    rig.assert_all_saved(rig.run())
    assert [rig.generations(name) for name in PROMPTS] == [1] * 6
    for lane, server in enumerate(rig.servers):
        assert set(server.generations) == {f"p{number}" for number in range(lane, 6, 2)}


def test_busy_is_nobodys_fault_and_uses_up_no_attempt(rig: Rig) -> None:
    for server in rig.servers:
        server.misbehave("busy", 2)
    rig.assert_all_saved(rig.run(attempts=1))
    assert [rig.generations(name) for name in PROMPTS] == [1] * 6


def test_a_failure_in_the_servers_own_way_is_an_attempt_and_the_next_one_succeeds(single: Rig) -> None:
    if single.preset == "hunyuan3d-job":  # its dead jobs never say so
        single.servers[0].misbehave("hang")
        single.assert_all_saved(single.run(poll={"deadline_s": 0.5}))
    else:
        single.servers[0].misbehave("failure")
        single.assert_all_saved(single.run())
    tried = sorted(len(attempts) for attempts in single.attempts().values())
    assert tried == [1, 1, 1, 1, 1, 2]


def test_a_failure_is_no_result_if_there_are_no_attempts_left(single: Rig) -> None:
    if single.preset == "hunyuan3d-job":
        single.servers[0].misbehave("hang")
    else:
        single.servers[0].misbehave("failure")
    summary = single.run(PROMPTS[:3], attempts=1, **({"poll": {"deadline_s": 0.5}} if single.preset in JOBS else {}))
    assert (summary.saved, summary.failed) == (2, 1)
    assert len(results_of(single.results)) == 2


def test_a_half_written_result_is_never_saved(single: Rig) -> None:
    single.servers[0].misbehave("torn")
    single.assert_all_saved(single.run())
    if single.preset in (*JOBS, "404-batch"):  # fetched again, not generated again
        assert [single.generations(name) for name in PROMPTS] == [1] * 6


def test_polls_that_hiccup_cost_nothing(job: Rig) -> None:
    job.servers[0].misbehave("poll 500", 3)
    job.servers[0].misbehave("poll 429", 3)
    job.assert_all_saved(job.run(attempts=1))
    assert [job.generations(name) for name in PROMPTS] == [1] * 6


def test_a_job_that_is_never_done_ends_by_its_deadline_as_an_attempt(job: Rig) -> None:
    job.servers[0].misbehave("hang")
    job.assert_all_saved(job.run(PROMPTS[:2], poll={"deadline_s": 0.5}), PROMPTS[:2])
    assert sorted(len(attempts) for attempts in job.attempts().values()) == [1, 2]


@pytest.mark.parametrize("preset", [name for name in JOBS if name not in UNKNOWN])
def test_a_job_that_the_server_forgot_is_submitted_again_at_once(
    preset: str, stack: ExitStack, tmp_path: Path
) -> None:
    rig = Rig(stack, preset, tmp_path, 1)
    rig.servers[0].misbehave("forget")
    summary = rig.run(PROMPTS[:2])
    rig.assert_all_saved(summary, PROMPTS[:2])
    assert summary.seconds < QUICK_POLL["deadline_s"] / 2  # a 404 is its last word: no deadline is waited for


def test_a_stream_that_breaks_off_before_the_final_event_is_no_end(stack: ExitStack, tmp_path: Path) -> None:
    rig = Rig(stack, "gradio", tmp_path, 1)
    rig.servers[0].misbehave("cut", 2)
    rig.assert_all_saved(rig.run(PROMPTS[:2]), PROMPTS[:2])


def test_a_shared_slot_is_kept_until_the_result_is_fetched(stack: ExitStack, tmp_path: Path) -> None:
    rig = Rig(stack, "trellis", tmp_path, 1)
    rig.assert_all_saved(rig.run())
    assert rig.servers[0].overwritten == 0


class TestBatches:
    """What only the 404 batch API knows."""

    @pytest.fixture
    def rig(self, stack: ExitStack, tmp_path: Path) -> Rig:
        return Rig(stack, "404-batch", tmp_path, 1)

    def server(self, rig: Rig) -> Any:
        return rig.servers[0]

    def test_a_lane_is_sent_in_batches_of_size(self, rig: Rig) -> None:
        rig.assert_all_saved(rig.run(size=4))
        assert sorted(len(batch) for batch in self.server(rig).batches) == [2, 4]

    def test_a_pod_that_warms_up_is_waited_for(self, rig: Rig) -> None:
        self.server(rig).misbehave("warming", 3)
        rig.assert_all_saved(rig.run(attempts=1))

    def test_a_prompt_in_neither_place_is_a_failed_attempt(self, rig: Rig) -> None:
        self.server(rig).misbehave("lost")
        rig.assert_all_saved(rig.run())
        assert sorted(len(attempts) for attempts in rig.attempts().values()) == [1, 1, 1, 1, 1, 2]

    def test_a_batch_that_the_pod_gave_up_has_no_results(self, rig: Rig) -> None:
        self.server(rig).misbehave("replace")
        summary = rig.run(PROMPTS[:2], attempts=1)
        assert (summary.saved, summary.failed) == (0, 2)
        assert not results_of(rig.results)
        again = run(load_config(rig.config(PROMPTS[:2], 1, {}), {"health": {"all_down_s": 0.1}}))
        assert (again.failed, again.pending) == (0, 2), "a pod that wants to be replaced is no prompt's fault"
        assert len(self.server(rig).batches) == 1

    def test_a_batch_that_failed_is_not_taken_for_its_repetition(self, stack: ExitStack, tmp_path: Path) -> None:
        class Renewed(SERVERS["404-batch"]):  # type: ignore[name-defined, misc]
            """Gives a batch up once, and goes on."""

            def _status(self) -> Any:
                answer = super()._status()
                if self.state == "replace":
                    self.state = "complete"
                return answer

        rig = Rig(stack, "404-batch", tmp_path, 1)
        rig.servers = [stack.enter_context(Renewed())]
        self.server(rig).misbehave("replace")
        assert rig.run(PROMPTS[:2], size=2).success
        assert (self.server(rig).repeated, rig.generations("p0")) == (0, 2)

    def test_a_name_with_a_path_leads_nowhere(self, rig: Rig) -> None:
        self.server(rig).misbehave("slip")
        rig.assert_all_saved(rig.run())
        assert not list(rig.folder.glob("*.js"))

    def test_one_prompt_that_failed_alone_is_generated_again_though_its_stems_are_the_same(self, rig: Rig) -> None:
        self.server(rig).misbehave("failure", 2)
        rig.assert_all_saved(rig.run(PROMPTS[:1]), PROMPTS[:1])
        assert rig.generations("p0") == 3

    def test_another_seed_is_not_answered_with_the_last_ones_results(self, rig: Rig) -> None:
        rig.assert_all_saved(rig.run(PROMPTS[:2]), PROMPTS[:2])
        path = rig.config(PROMPTS[:2], 3, {})
        config = json.loads(path.read_text()) | {"seed": 7, "output_folder": str(rig.folder / "others")}
        path.write_text(json.dumps(config))
        run(load_config(path))
        expected = {f"{name}.js": rig.kind.artefact(name, 7) for name in PROMPTS[:2]}
        assert results_of(rig.folder / "others") == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_begins_with_a_line_that_says_what_it_is_for(preset: str) -> None:
    shipped = Path(__file__).parents[1] / "runner" / "protocols" / "presets" / f"{preset}.yaml"
    first, second, *_ = shipped.read_text().splitlines()
    assert first.startswith("# ") and second.startswith("# ")
    assert len(first) <= 110


def test_every_shipped_preset_has_its_simulated_server() -> None:
    folder = Path(__file__).parents[1] / "runner" / "protocols" / "presets"
    assert {file.stem for file in folder.glob("*.yaml")} == set(SERVERS)


def test_the_page_on_servers_has_a_section_and_a_config_for_every_preset() -> None:
    page = (Path(__file__).parents[1] / "docs" / "servers.md").read_text()
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    for preset in PRESETS:
        config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", sections[preset], re.DOTALL).group(1))
        protocol = config.get("protocol", "404-splat")
        assert (protocol if isinstance(protocol, str) else protocol["preset"]) == preset


def test_the_page_on_the_block_names_all_its_keys() -> None:
    page = (Path(__file__).parents[1] / "docs" / "protocol.md").read_text()
    sections = [Block, *(one for one in vars(blocks).values() if isinstance(one, type) and one.__name__ != "Section")]
    keys = {
        field.alias or name
        for section in sections
        if issubclass(section, Section) and section is not blocks.Clocks
        for name, field in section.model_fields.items()
    }
    assert not {key for key in keys if f"`{key}" not in page and f" {key}: " not in page and f"{{{key}: " not in page}
    assert {*re.findall(r"`\{([a-z0-9_.]+)\}`", page)} >= {*NAMES}


@pytest.mark.parametrize("name", ["servers.md", "protocol.md"])
def test_every_config_in_the_docs_is_valid(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / name).read_text()
    for name in set(re.findall(r"\$\{(\w+)\}", page)):
        monkeypatch.setenv(name, "secret")
    (tmp_path / "prompts.csv").write_text("key,image,text,style\np0,http://127.0.0.1/p0.png,a chair,plain\n")
    for number, config in enumerate(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)):
        path = tmp_path / f"{number}.yaml"
        endpoints = "" if "endpoints:" in config else "endpoints: [http://127.0.0.1:1]\n"
        path.write_text(f"{config}{endpoints}prompts: prompts.csv\n")
        load_config(path)


class TestCheck:
    """What ``runner check`` makes of a server, without a generation."""

    def check(self, tmp_path: Path, url: str, preset: str, key: str | None = None) -> Any:
        (tmp_path / "p.jsonl").write_text('{"image": "http://127.0.0.1/x.png", "text": "a chair"}\n')
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        path = tmp_path / "run.yaml"
        endpoints = [{"url": url, "headers": headers}]
        path.write_text(json.dumps({"endpoints": endpoints, "prompts": "p.jsonl", "protocol": preset}))
        config = load_config(path)
        with closing(Client(config.endpoints[0], config.timeouts, connections=1)) as client:
            return recognise(Protocol(config.settings.protocol), client)

    @pytest.mark.parametrize("name", PRESETS)
    def test_the_right_preset_fits(self, name: str, tmp_path: Path) -> None:
        with SERVERS[name]() as server:
            found = self.check(tmp_path, server.url, name, server.key)
            in_doubt = name == "trellis"  # it answers 500 to a form without a file
            assert (found.fits, found.likely) == (None if in_doubt else True, ())
            assert not server.generations

    @pytest.mark.parametrize("name", [name for name in PRESETS if name not in ("404-splat", "404-mesh", "hunyuan3d")])
    def test_a_wrong_preset_is_recognised_with_the_likely_right_one(self, name: str, tmp_path: Path) -> None:
        with SERVERS[name]() as server:
            found = self.check(tmp_path, server.url, "404-splat", server.key)
            assert (found.fits, found.likely) == (False, (name,))
            assert not server.generations

    def test_the_field_that_a_server_misses_is_named(self, tmp_path: Path) -> None:
        with SERVERS["stable-fast-3d"]() as server:
            assert self.check(tmp_path, server.url, "404-splat").found == (
                "POST /generate answers 422 field required: file"
            )

    def test_servers_that_look_alike_are_both_named(self, tmp_path: Path) -> None:
        with SERVERS["404-mesh"]() as server:
            found = self.check(tmp_path, server.url, "openai-chat")
            assert (found.fits, found.likely) == (False, ("404-mesh", "404-splat"))

    def test_a_server_that_just_fails_is_in_doubt(self, tmp_path: Path) -> None:
        with SERVERS["hunyuan3d"]() as server:
            found = self.check(tmp_path, server.url, "404-splat")
            assert found.fits is None and "hunyuan3d" in found.likely

    def test_a_wrong_key_is_said_so(self, tmp_path: Path) -> None:
        with SERVERS["runpod"]() as server:
            found = self.check(tmp_path, server.url, "runpod", "wrong")
            assert found.fits is None and "are the credentials right?" in found.found
