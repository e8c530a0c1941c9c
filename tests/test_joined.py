"""The ledgers of a folder, read as one."""

import json
import random
from pathlib import Path

import pytest

from runner.ledger import ledgers_of, replay
from runner.shards import Shard
from runner.storage import OutputFolder, states_of


def line_of(run: str, key: str, padding: int = 0) -> bytes:
    said = {
        "key": key, "outcome": "failed", "fingerprint": "0" * 64, "file": None, "format": None, "size_bytes": None,
        "mtime_ns": None, "image": None, "run": run, "index": 0, "prompt": "x" * padding, "endpoint": "one:1",
        "seed": 42, "protocol": "404-splat", "sha256": None, "image_s": 0.0, "save_s": 0.0, "seconds": 0.0,
        "finished_at": run[:24], "error": "no", "blame": "prompt", "moved_from": None, "attempts": [],
    }  # fmt: skip
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


def run_name(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.000Z-0000"


def several(path: Path, seed: int) -> list[tuple[str, bytes]]:
    """Write ledgers of runs of all lengths; return each line with its run, in the order of the runs."""
    dice = random.Random(seed)
    files = [path / ".runner", *(OutputFolder(path, shard=Shard(number, 3)).state for number in (1, 2, 3))]
    written: list[tuple[str, bytes]] = []
    for state in files:
        state.mkdir(parents=True)
    for second in range(40):
        name = run_name(second)
        count = dice.choice([1, 1, 2, 30, 400])
        lines = [line_of(name, f"{second}-{number}", dice.choice([0, 50, 900])) for number in range(count)]
        lines.insert(dice.randint(1, count), b"nobody can read this\n")
        with open(dice.choice(files) / "ledger.jsonl", "ab") as file:
            file.writelines(lines)
        written += [(name, line) for line in lines]
    return written


@pytest.mark.parametrize("seed", range(5))
def test_ledgers_are_read_as_one_in_the_order_of_their_runs(tmp_path: Path, seed: int) -> None:
    written = several(tmp_path, seed)
    ledgers = ledgers_of(tmp_path)
    found = [*ledgers.lines()]
    assert [line for _, line in found] == [line for _, line in written]
    places = [place for place, _ in found]
    assert places == sorted({*places})
    chosen = random.Random(seed).sample(found, 50)
    assert [*ledgers.lines_at(sorted(place for place, _ in chosen))] == sorted(chosen)
    assert ledgers.heard(run_name(39)) == "2026-01-01T00:00:39.000Z" and ledgers.heard("nobody") == ""
    history = replay(ledgers)
    assert len(history.failed) == len(written) - 40 and history.unreadable == 40
    assert history.failed["39-0"].key == "39-0"


def test_places_stay_what_they_are_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    several(tmp_path, 1)
    ledgers = ledgers_of(tmp_path)
    before = [*ledgers.lines()]
    for state in states_of(tmp_path):
        with open(state / "ledger.jsonl", "ab") as file:
            file.write(line_of(run_name(50), f"new-{state.name}"))
    late = OutputFolder(tmp_path, shard=Shard(1, 2))
    late.prepare()
    (late.state / "ledger.jsonl").write_bytes(line_of(run_name(51), "late"))
    ledgers.renew()
    assert [*ledgers.lines_at([place for place, _ in before])] == before
    after = [*ledgers.lines()]
    assert {*before} <= {*after} and len(after) == len(before) + 5
    assert {*replay(ledgers).failed} >= {"late", "new-.runner", "new-3-of-3"}


def test_a_torn_line_of_one_ledger_does_not_spoil_the_next(tmp_path: Path) -> None:
    for second, state in enumerate([tmp_path / ".runner", OutputFolder(tmp_path, shard=Shard(1, 1)).state]):
        state.mkdir(parents=True)
        torn = line_of(run_name(second), f"torn-{second}")[:-30]
        (state / "ledger.jsonl").write_bytes(line_of(run_name(second), f"whole-{second}") + torn)
    history = replay(ledgers_of(tmp_path))
    assert ([*history.failed], history.unreadable) == (["whole-0", "whole-1"], 2)


def test_a_ledger_that_is_gone_meanwhile_says_nothing_and_the_others_go_on(tmp_path: Path) -> None:
    written = several(tmp_path, 2)
    ledgers = ledgers_of(tmp_path)
    places = [place for place, _ in ledgers.lines()]
    (tmp_path / ".runner" / "ledger.jsonl").unlink()
    left = [line for _, line in ledgers.lines_at(places)]
    assert 0 < len(left) < len(written) and left == [line for _, line in ledgers.lines()]


@pytest.mark.parametrize("alone", [False, True])
def test_what_is_written_from_now_on_can_be_made_the_latest_whatever_the_clock_says(
    tmp_path: Path, alone: bool
) -> None:
    state, shard = tmp_path / ".runner", OutputFolder(tmp_path, shard=Shard(1, 2)).state
    shard.mkdir(parents=True)
    late, early = line_of(run_name(20), "a"), line_of(run_name(10), "a")
    (state / "ledger.jsonl").write_bytes(early)
    if not alone:
        (shard / "ledger.jsonl").write_bytes(late)
    before = [early] if alone else [early, late]
    ledgers = ledgers_of(tmp_path)
    begun = ledgers.follow(state / "ledger.jsonl")
    assert [line for place, line in ledgers.lines() if place < begun] == before
    new = line_of(run_name(0), "a")  # the clock was set back
    with open(state / "ledger.jsonl", "ab") as file:
        file.write(new)
    assert [line for _, line in ledgers.lines()] == [*before, new]
    assert replay(ledgers).failed["a"].endpoint == "one:1"
    assert replay(ledgers).place_of_failure(b"a") == begun
    assert ledgers.line(begun) == new


def test_a_ledger_that_is_not_there_yet_can_be_followed(tmp_path: Path) -> None:
    file = tmp_path / ".runner" / "ledger.jsonl"
    file.parent.mkdir()
    ledgers = ledgers_of(tmp_path)
    begun = ledgers.follow(file)
    assert [*ledgers.lines()] == []
    file.write_bytes(line := line_of(run_name(0), "a"))
    assert [*ledgers.lines()] == [(begun, line)]
