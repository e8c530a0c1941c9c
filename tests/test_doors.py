"""The ancestor's doors: its command line and its class go on working, from here and copied elsewhere."""

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from conftest import REPOSITORY, results_of
from server import ScriptedServer

from runner import Generator, RunnerError


def door(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"door_{name}", REPOSITORY / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


commit = door("commit")


def test_the_ancestors_command_line_works_from_a_copy(
    server: ScriptedServer, here: Path, environment: dict[str, str]
) -> None:
    shutil.copy(REPOSITORY / "scripts/commit.py", here)
    (here / "prompts.txt").write_text(f"{server.image('a.b')}\n")
    command = [sys.executable, "commit.py", "-vv", "generate", "--prompts-file", "prompts.txt"]
    command += ["--endpoint", server.url, "--seed", "42", "--output-folder", "./out"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["success"] is True
    assert f"Using single endpoint: {server.url}" in done.stderr
    assert list(results_of(here / "out")) == ["a.b.ply"]
    assert server.received[0].fields["seed"] == "42"


def test_flags_are_those_of_generate_and_v_may_stand_before_it() -> None:
    assert commit.translated(["generate", "--seed", "1"]) == ["generate", "--seed", "1"]
    for verbose in (["-v"], ["-vvv"], ["-v", "-v"], ["--verbose"]):
        assert commit.translated([*verbose, "generate", "--seed=1"]) == ["generate", "--verbose", "--seed=1"]


def test_a_json_of_prompts_goes_to_pods_that_take_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompts.json"
    file.write_text('{"prompts": [], "seed": 42}')
    expected = ["generate", "--prompts-file", str(file), "--seed", "42", "--set", "protocol=404-batch"]
    assert commit.translated(["generate", "--prompts-json", str(file), "--seed", "42"]) == expected
    expected = ["generate", f"--prompts-file={file}", "--set", "protocol=404-batch"]
    assert commit.translated(["generate", f"--prompts-json={file}"]) == expected
    with pytest.raises(SystemExit) as stopped:
        commit.translated(["generate", "--prompts-json", str(file), "--seed", "7"])
    assert stopped.value.code == 2
    assert 'has "seed": 42, and --seed is 7; take the one out of the file' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["-v", "commit-hash", "--hash", "x"],
            2,
            "commit-hash generates nothing, so use the ancestor's own commit.py",
        ),
        (["genrate"], 2, "genrate is no command; here is only: generate"),
        ([], 2, "generate --prompts-file F"),
        (["--help"], 0, "generate --prompts-file F"),
    ],
)
def test_what_is_not_here_is_said(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        commit.translated(words)
    assert stopped.value.code == code
    out, err = capsys.readouterr()
    assert said in (err if code else out)


def test_the_ancestors_class_takes_urls_and_items(server: ScriptedServer, here: Path) -> None:
    module = door("generator")
    said: list[str] = []
    generator = module.Generator(endpoint=server.url, seed=42, output_folder=Path("results"), echo=said.append)
    assert asyncio.run(generator.generate_all([server.image("a")])).success
    items = [module.PromptItem(image_url=server.image("b"), stem="chair1"), module.PromptItem(server.image("c"))]
    assert asyncio.run(generator.generate_all(items)).success
    assert sorted(results_of(here / "results")) == ["a.ply", "c.ply", "chair1.ply"]
    assert said[-1] == "Generation completed"


def test_entries_may_be_mappings_with_the_fields_of_a_list(server: ScriptedServer, here: Path) -> None:
    entries = [{"image_url": server.image("a"), "seed": 7}, {"prompt": server.image("b"), "key": "second"}]
    assert Generator(server.url).run(entries).saved == 2
    assert sorted(results_of(here / "results")) == ["a.ply", "second.ply"]
    assert sorted(one.fields["seed"] for one in server.received) == ["42", "7"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([7], "image_urls: expected URLs, or objects with image_url and stem, got int"),
        (
            ["http://h/a.png", {"prompt": "b"}],
            "image_urls: expected only texts, or only entries with fields, got both",
        ),
        ([{"prompt": "http://h/a.png"}, "b"], "image_urls:2: expected an entry with fields as the first, got a text"),
        ([SimpleNamespace(image_url=None, stem="a")], "image_urls:1: expected an image (image_url, image or prompt)"),
        ([SimpleNamespace(image_url="http://h/a.png", stem=3)], "image_urls:1: stem: expected a text, got 3"),
    ],
)
def test_a_wrong_entry_is_named_before_anything_is_sent(given: list[object], said: str, here: Path) -> None:
    with pytest.raises(RunnerError) as refused:
        Generator("http://127.0.0.1:9").run(given)
    assert said in str(refused.value)
