"""The README's examples, run as they stand against a local server."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY, results_of
from server import ScriptedServer

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def as_read(servers: Callable[..., list[ScriptedServer]], here: Path) -> Callable[[str], str]:
    """Puts the test's servers in the place of the README's ports and hosts; run.yaml and prompts.txt lie ready."""
    four = servers(4)
    replaced = {f":{10006 + number}": f":{server.port}" for number, server in enumerate(four)}
    replaced["https://example.com/"] = f"{four[0].url}/images/"

    def adapt(text: str) -> str:
        for old, new in replaced.items():
            text = text.replace(old, new)
        return text

    (config,) = [text for language, text in BLOCKS if language == "yaml"]
    (here / "run.yaml").write_text(adapt(config))
    (here / "prompts.txt").write_text("".join(f"{four[0].image(name)}\n" for name in "abcdef"))
    return adapt


def test_the_commands_work(as_read: Callable[[str], str], runner: Callable[..., object], here: Path) -> None:
    text = "\n".join(text for language, text in BLOCKS if language == "sh" and "make demo" not in text)
    commands = [shlex.split(line, comments=True) for line in as_read(text).replace("\\\n", " ").splitlines()]
    commands = [command for command in commands if command]
    assert len(commands) == 6
    for command in commands:
        assert command[0] == "runner"
        done = runner(*command[1:])
        assert done.returncode == 0, done.stderr
    assert len(results_of(here / "results")) == 6 + len(["report.html"])
    assert (here / "todo.txt").read_text() == ""


def test_the_python_example_works(
    as_read: Callable[[str], str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = [text for language, text in BLOCKS if language == "python"]
    exec(compile(as_read(example), "README.md", "exec"), {})
    assert capsys.readouterr().out == "6 0 True\n"
    assert "chair.ply" in results_of(here / "results")


def test_it_fits_two_screens() -> None:
    assert len(README.splitlines()) <= 100
