import json
from pathlib import Path
from typing import Any

import pytest
from server import ScriptedServer

from runner import Generator, load_config, run
from runner.config import config_from
from runner.errors import StorageError
from runner.lists import LISTS, Listed, lists_in


def noted(folder: Path) -> list[Listed]:
    return lists_in(folder / ".runner")


def test_a_run_notes_its_list_its_sources_and_its_config(server: ScriptedServer, here: Path, listed: Any) -> None:
    name = listed("a", "b")
    run(load_config(name))
    (one,) = noted(here / "results")
    assert (one.total, one.sources, one.config) == (2, (str(here / "prompts.txt"),), str(here / name))
    assert len(one.sha256) == 64 and one.run.startswith("20") and one.at.startswith("20")


def test_an_edited_list_stays_one_list_and_another_is_noted_before_the_last(
    server: ScriptedServer, here: Path, listed: Any
) -> None:
    run(load_config(listed("a", "b")))
    (here / "todo.txt").write_text(f"{server.image('b')}\n")
    run(load_config("run.yaml", {"prompts": ["todo.txt"]}))
    run(load_config(listed("a", "b", "c")))
    todo, last = noted(here / "results")
    assert ([Path(one).name for one in todo.sources or ()], last.total) == (["todo.txt"], 3)
    assert last.may_be_another(todo)


def test_lists_that_can_not_be_read_again_are_told_apart_by_their_keys(server: ScriptedServer, here: Path) -> None:
    for keys in ("ab", "ab", "bc"):
        Generator(server.url, output_folder="out").run(map(server.image, keys))
    first, last = noted(here / "out")
    assert first.sources is last.sources is None
    assert last.may_be_another(first)


def test_what_was_run_before_anything_was_noted_may_have_been_another_list(
    server: ScriptedServer, here: Path, listed: Any
) -> None:
    run(load_config(listed("a")))
    (here / "results" / ".runner" / LISTS).unlink()
    run(load_config("run.yaml"))
    unknown, last = noted(here / "results")
    assert last.may_be_another(unknown) and not last.may_be_another(last)


def test_a_line_that_nobody_can_read_is_a_list_that_nobody_knows(here: Path) -> None:
    known = {"run": "r", "at": "t", "total": 1, "sha256": "0", "sources": ["/a"], "config": None}
    for line in ("{half", "[]", "null", '{"run": 1}', json.dumps(known | {"total": "x"}), "[" * 50_000):
        (here / LISTS).write_text(f"{line}\n{json.dumps(known)}\n")
        unknown, last = lists_in(here)
        assert last.may_be_another(unknown) and last.sources == ("/a",)


def test_a_folder_without_lists_has_none_and_one_that_can_not_be_read_says_so(here: Path) -> None:
    assert lists_in(here) == lists_in(here / "nowhere") == []
    (here / LISTS).mkdir()
    with pytest.raises(StorageError, match="can't be read"):
        lists_in(here)


def test_the_same_list_by_another_way_is_one_list(server: ScriptedServer, here: Path) -> None:
    (here / "prompts.txt").write_text(f"{server.image('a')}\n")
    (here / "below").mkdir()
    for source in ("prompts.txt", "below/../prompts.txt"):
        run(config_from({"endpoints": [server.url], "prompts": [source], "output_folder": "out"}))
    assert len(noted(here / "out")) == 1
