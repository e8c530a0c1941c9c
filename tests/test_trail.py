"""The trail of a folder's runs: what each one leaves as it goes on, and what is read of it."""

import json
from pathlib import Path

import pytest

from runner import trail
from runner.records import Back, Endpoint, Out, Summary
from runner.trail import TRAIL, Trail, traces_in

ONE = Endpoint(0, "http://me:pw@one:1/?token=x", "one", "port 1", slots=2)


def begun(state: Path, run: str, command: str | None = None) -> Trail:
    found = Trail(state, run, lambda text: text.replace("hush", "***"))
    found.began([ONE], total=5, skipped=2, command=command)
    return found


def test_a_run_leaves_who_it_asked_who_was_out_and_how_it_ended(tmp_path: Path) -> None:
    run = begun(tmp_path, "2026-a", "runner run --set x=hush")
    run.tell(Out(ONE, "hush is wrong", moved=3))
    run.tell(None)
    run.tell(Back(ONE, 2.0))
    run.tell(Out(ONE, "again"))
    run.ended(Summary(5, 2, 2, 1, 0, 7.5, "results"))
    (found,) = traces_in(tmp_path)
    assert (found.run, found.total, found.skipped, found.command) == ("2026-a", 5, 2, "runner run --set x=***")
    assert found.endpoints == (("one", "http://one:1/", 2),)
    assert [(one.endpoint, one.why, one.back_at is None) for one in found.gone] == [
        ("one", "*** is wrong", False),
        ("one", "again", True),
    ]
    assert found.ended is not None and (found.ended["saved"], found.ended["seconds"]) == (2, 7.5)


def test_a_killed_run_has_no_end_and_the_next_one_begins_on_a_line_of_its_own(tmp_path: Path) -> None:
    begun(tmp_path, "2026-a")
    with open(tmp_path / TRAIL, "a") as file:
        file.write('{"run": "2026-a", "what": "ou')
    begun(tmp_path, "2026-b").ended(Summary(5, 5, 0, 0, 0, 1.0, "results"))
    first, second = traces_in(tmp_path)
    assert (first.run, first.ended) == ("2026-a", None)
    assert second.ended is not None and second.total == 5


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "null",
        "{}",
        '{"run": 5}',
        '{"run": "2026-a", "what": "began", "at": "x", "endpoints": 7}',
        "\0",
        "[" * 9000,
    ],
)
def test_what_nobody_can_read_is_passed_over(tmp_path: Path, line: str) -> None:
    begun(tmp_path, "2026-a")
    with open(tmp_path / TRAIL, "a") as file:
        file.write(f"{line}\n")
    (found,) = traces_in(tmp_path)
    assert found.total == 5


def test_a_trail_that_grows_too_long_loses_its_older_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "BYTES_MAX", 2000)
    for number in range(100):
        begun(tmp_path, f"2026-{number:03}")
    assert (tmp_path / TRAIL).stat().st_size < 2400
    assert traces_in(tmp_path)[-1].run == "2026-099"
    assert all(json.loads(line) for line in (tmp_path / TRAIL).read_text().splitlines())


def test_a_disk_that_refuses_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / TRAIL).mkdir()
    begun(tmp_path, "2026-a").tell(Out(ONE, "x"))
    assert (tmp_path / TRAIL).is_dir()


def test_there_may_be_no_trail(tmp_path: Path) -> None:
    assert traces_in(tmp_path / "nothing") == []
