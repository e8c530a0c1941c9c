"""Runs of shards that belong together, told of as one."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from runner.clock import utc_now
from runner.monitor import going_on
from runner.progress import progress_in, together
from runner.shards import Shard
from runner.status import last_run, rounds_in, told_runs
from runner.storage import OutputFolder


def run_name(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.000Z-0000"


def leave(state: Path, second: int, *, lasts: int | None = 10, total: int = 5, saved: int = 5, **ended: Any) -> None:
    """Leave the trail and the summary of a shard's run that began at this second; None: it was killed."""
    state.mkdir(parents=True, exist_ok=True)
    name = run_name(second)
    lines = [
        {"run": name, "what": "began", "at": name[:24], "total": total, "skipped": 0, "command": f"run {second}",
         "endpoints": [[f"gpu-{state.name}", "http://h", 1]]}
    ]  # fmt: skip
    if lasts is not None:
        counts = {"total": total, "saved": saved, "skipped": 0, "failed": 0, "pending": total - saved}
        said = counts | {"seconds": float(lasts), "stopped": None, "error": None} | ended
        lines.append({"run": name, "what": "ended", "at": run_name(second + lasts)[:24]} | said)
        (state / "summary.json").write_text(json.dumps({"run": name} | said))
    with open(state / "runs.jsonl", "a") as file:
        file.writelines(f"{json.dumps(one)}\n" for one in lines)


def told(path: Path) -> list[list[tuple[str, int]]]:
    """Return of each round the shards and at which second each began."""
    return [[(str(part.shard), round(part.began_s) % 3600) for part in one.parts] for one in rounds_in(path)]


def states(path: Path, of: int = 3) -> list[Path]:
    return [OutputFolder(path, shard=Shard(number, of)).state for number in range(1, of + 1)]


def test_the_shards_of_an_array_are_one_round_and_those_of_the_next_night_another(tmp_path: Path) -> None:
    one, two, three = states(tmp_path)
    for night in (0, 1000):
        leave(one, night)
        leave(three, night + 1)
        leave(two, night + 300)
    assert told(tmp_path) == [
        [("1/3", 0), ("3/3", 1), ("2/3", 300)],
        [("1/3", 1000), ("3/3", 1001), ("2/3", 1300)],
    ]
    last = last_run(tmp_path, {})
    assert last is not None and (last.run, last.began_at) == (run_name(1300), run_name(1000)[:24])
    assert (last.ended, last.error, last.seconds) == ("done", None, 310)
    traces, names = told_runs(tmp_path)
    assert [trace.run for trace in traces] == [run_name(300), run_name(1300)]
    assert names[run_name(1001)] == run_name(1300)
    found = traces[1]
    assert (found.total, found.skipped, found.shards, found.command) == (15, 0, 3, "run 1000")
    assert [name for name, _, _ in found.endpoints] == ["gpu-1-of-3", "gpu-2-of-3", "gpu-3-of-3"]
    assert found.ended and (found.ended["saved"], found.ended["seconds"], found.ended["error"]) == (15, 310.0, None)


def test_a_shard_that_was_put_in_again_takes_the_place_of_its_killed_run(tmp_path: Path) -> None:
    one, two, three = states(tmp_path)
    leave(one, 0, lasts=200)
    leave(two, 1, lasts=200)
    leave(three, 2, lasts=None)
    assert [trace.ended for trace in told_runs(tmp_path)[0]] == [None]
    leave(three, 100)
    assert told(tmp_path) == [[("1/3", 0), ("2/3", 1), ("3/3", 100)]]
    traces, _ = told_runs(tmp_path)
    assert [(one.run, one.total, one.ended is None) for one in traces] == [
        (run_name(2), 5, True),
        (run_name(100), 15, False),
    ]
    leave(three, 400)
    assert told(tmp_path)[1:] == [[("3/3", 400)]], "the others had ended: this is another"
    last = last_run(tmp_path, {})
    assert last is not None and last.ended == "done", "the others are done, as an earlier round tells"


@pytest.mark.parametrize(
    ("left", "ended", "error"),
    [
        ([{}, {}], "stopped", "shard 3/3 has not run yet"),
        ([{}], "stopped", "shards 2/3, 3/3 have not run yet"),
        ([{}, {"lasts": None}, {}], "killed", "shard 2/3 left no summary (killed?)"),
        ([{}, {"stopped": "window", "saved": 3}, {}], "stopped", "shard 2/3 was stopped: the time window is over"),
        ([{"error": "full"}, {"lasts": None}], "killed", None),
    ],
)
def test_a_round_is_done_only_if_every_shard_is(
    tmp_path: Path, left: list[dict[str, Any]], ended: str, error: str | None
) -> None:
    for second, (state, options) in enumerate(zip(states(tmp_path), left, strict=False)):
        leave(state, second, **options)
    last = last_run(tmp_path, {})
    assert last is not None and last.ended == ended
    assert error is None or last.error == error


def test_another_number_of_shards_is_another_round_and_a_run_of_the_whole_list_is_none(tmp_path: Path) -> None:
    leave(states(tmp_path)[0], 0)
    leave(states(tmp_path, 4)[0], 5)
    leave(tmp_path / ".runner", 20, saved=4)
    assert told(tmp_path) == [[("1/3", 0)], [("1/4", 5)]]
    last = last_run(tmp_path, {})
    assert last is not None and (last.run, last.error) == (run_name(20), None)


def test_an_endpoint_that_several_shards_ask_under_one_name_has_the_slots_of_all(tmp_path: Path) -> None:
    for second, state in enumerate(states(tmp_path)):
        leave(state, second)
        trail = state / "runs.jsonl"
        trail.write_text(trail.read_text().replace(f"gpu-{state.name}", "gpu"))
    ((found,), _) = told_runs(tmp_path)
    assert found.endpoints == (("gpu", "http://h", 3),)


def test_the_monitor_sees_what_several_shards_do_together(tmp_path: Path) -> None:
    for state, total in zip(states(tmp_path), (3, 4, 5), strict=True):
        state.mkdir(parents=True)
        (state / "lock").write_text(f"pid {os.getpid()} on {socket.gethostname()}\n")
        lane = {"name": state.name, "state": "in", "waiting": 1, "taken": 1, "saved": 1, "failed": 0, "retries": 0,
                "median_s": None, "last_error": ""}  # fmt: skip
        said = {"run": run_name(0), "pid": os.getpid(), "host": "h", "at": utc_now(), "total": total, "saved": 1,
                "skipped": 0, "failed": 0, "pending": total - 1, "seconds": 2.0, "endpoints": [lane]}  # fmt: skip
        (state / "progress.json").write_text(json.dumps(said))
    found = going_on(tmp_path)
    assert found is not None and (found.total, found.saved, found.pending, len(found.endpoints)) == (12, 3, 9, 3)


def test_a_run_on_another_machine_that_said_so_lately_goes_on(tmp_path: Path) -> None:
    state = states(tmp_path)[0]
    state.mkdir(parents=True)
    (state / "lock").write_text("pid 7 on elsewhere, since tick 9\n")
    said = {"run": run_name(0), "pid": 7, "host": "elsewhere", "at": utc_now(), "total": 3}
    (state / "progress.json").write_text(json.dumps(said))
    assert progress_in(tmp_path) == {state: said}
    for stale in ({"at": "2026-01-01T00:00:00.000Z"}, {"host": "another"}, {"at": 5}, {"at": None}):
        (state / "progress.json").write_text(json.dumps(said | stale))
        assert progress_in(tmp_path) == {}


def test_how_far_several_shards_are_is_added_up_as_far_as_they_make_sense() -> None:
    lane = {"name": "gpu", "state": "in", "waiting": 3, "taken": 1, "saved": 5, "failed": 1, "retries": 0,
            "median_s": 1.0, "last_error": ""}  # fmt: skip
    one = {"run": "a", "pid": 1, "host": "h", "at": "2026-01-01", "total": 10, "saved": 5, "skipped": 0, "failed": 1,
           "pending": 4, "seconds": 9.0, "endpoints": [lane]}  # fmt: skip
    assert together([]) is None and together([one]) == one
    two = one | {"at": "2026-01-02", "endpoints": [lane | {"last_error": "x"}, lane | {"name": "other"}]}
    found = together([one, two, {"total": "x"}, one | {"endpoints": 5}])
    assert found is not None
    assert (found["total"], found["pending"], found["at"], found["seconds"]) == (20, 8, "2026-01-02", 9.0)
    assert [(one["name"], one["waiting"], one["last_error"]) for one in found["endpoints"]] == [
        ("gpu", 6, "x"),
        ("other", 3, ""),
    ]
