import asyncio
import threading
from pathlib import Path

import pytest
from conftest import QUICK, results_of
from server import Answer, ScriptedServer

from runner import Generator, RunnerError
from runner.status import status_of


def test_the_ancestors_example_works(server: ScriptedServer, here: Path) -> None:
    said: list[str] = []
    generator = Generator(endpoint=[server.url], seed=42, output_folder=Path("results"), echo=said.append)
    summary = asyncio.run(generator.generate_all([server.image("a"), server.image("b")]))
    assert summary.success
    assert sorted(results_of(here / "results")) == ["a.ply", "b.ply"]
    assert "Found 2 prompts to process" in said
    assert said[-1] == "Generation completed"


def test_one_url_as_a_string_and_a_synchronous_run(server: ScriptedServer, here: Path) -> None:
    summary = Generator(server.url, 7, "out").run([server.image("a")])
    assert (summary.saved, summary.output_folder) == (1, "out")
    assert server.received[0].fields["seed"] == "7"


def test_a_second_run_skips_what_is_saved_and_status_knows_the_list(server: ScriptedServer, here: Path) -> None:
    server.script["b"] = [Answer(status=422)]
    generator = Generator(server.url, output_folder="out", **QUICK)
    assert generator.run([server.image("a"), server.image("b")]).failed == 1
    assert status_of(here / "out").to_do() == f"{server.image('b')}\n"
    assert generator.run([server.image("a"), server.image("b")]).skipped == 1


def test_the_library_prints_nothing(server: ScriptedServer, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server.script["a"] = [Answer(status=422)]
    Generator(server.url).run([server.image("a")])
    assert capfd.readouterr() == ("", "")


def test_a_wrong_option_is_refused_at_once() -> None:
    with pytest.raises(RunnerError, match="sed: unknown key; did you mean 'seed'"):
        Generator("http://h:1", sed=5)


def test_a_url_that_a_path_has_torn_is_refused() -> None:
    said = "Generator: output_folder: expected a URL such as s3://.*, got 's3:/bucket/night': give it as a text"
    with pytest.raises(RunnerError, match=said):
        Generator("http://h:1", output_folder=Path("s3://bucket/night"))


def test_a_cancelled_task_finishes_what_is_in_flight(server: ScriptedServer, here: Path) -> None:
    hold = threading.Event()
    for name in "abcdef":
        server.script[name] = [Answer(hold=hold)]
    generator = Generator(server.url, output_folder="out")

    async def cancel() -> None:
        task = asyncio.create_task(generator.generate_all([server.image(name) for name in "abcdef"]))
        await asyncio.to_thread(server.wait_for, 1)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, hold.set)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert list(results_of(here / "out")) in (["a.ply"], ["b.ply"])
