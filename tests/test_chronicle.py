"""What happened in a folder: runs, attempts, outages, idle times, rows and changes, by what runs leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from folders import Folder
from server import Answer, ScriptedServer

from runner import chronicle, run
from runner.chronicle import (
    CHANGES,
    ENDS,
    NO_PROMPT,
    NONE,
    STATES,
    Chronicle,
    chronicle_of,
    markdown_lines,
    text_lines,
    verdict,
)  # fmt: skip
from runner.chronicle.idle import Bar, gaps, slots_of
from runner.clock import utc_now
from runner.config import config_from
from runner.errors import UsageError
from runner.records import Back, Endpoint, Out, Summary
from runner.trail import Trail

FIRST = "2026-01-01T22:00:00.000Z-0001"
SECOND = "2026-01-02T22:00:00.000Z-0002"
NAMES = ("one:1", "two:1")


def at(seconds: float, run: str = FIRST) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{run[:14]}{int(minutes):02}:{rest:06.3f}Z"


class Lines:
    """Writes ledger lines as a run does, at times of one's choice."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.run = FIRST

    def saved(self, key: str, begin_s: float, seconds: float = 4.0, **more: Any) -> None:
        body = b"ply of " + key.encode()
        file = self.folder.path / f"{key}.ply"
        file.write_bytes(body)
        told = {"file": file.name, "format": "ply", "size_bytes": len(body), "mtime_ns": file.stat().st_mtime_ns}
        self.line(key, "saved", [self.attempt(1, begin_s, seconds)], **told, **more)

    def failed(self, key: str, begin_s: float, error: str = "answers 500", **more: Any) -> None:
        self.line(key, "failed", [self.attempt(1, begin_s, 1.0, error=error, status=500)], error=error, **more)

    def attempt(self, number: int, begin_s: float, seconds: float, **more: Any) -> dict[str, Any]:
        times = {"wait_s": 0.0, "generate_s": seconds, "receive_s": 0.5, "status": 200, "error": None}
        begun = {"number": number, "endpoint": "one:1", "started_at": at(begin_s, self.run)}
        return begun | times | more

    def line(self, key: str, kind: str, attempts: list[dict[str, Any]], **more: Any) -> None:
        said: dict[str, Any] = dict.fromkeys(("file", "format", "size_bytes", "mtime_ns", "sha256", "image", "error"))
        said |= {"key": key, "outcome": kind, "fingerprint": self._fingerprint(key), "run": self.run, "index": 0}
        said |= {"prompt": f"https://h/{key}.png", "endpoint": "one:1", "seed": 42, "protocol": "404-splat"}
        said |= {"image_s": 0.25, "save_s": 0.125, "seconds": 5.0, "finished_at": at(50, self.run)}
        said |= {"moved_from": None, "attempts": attempts}
        with open(self.folder.ledger, "a") as file:
            file.write(json.dumps(said | more) + "\n")

    def _fingerprint(self, key: str) -> str:
        from runner.prompts import fingerprint
        from runner.records import Prompt

        return fingerprint(Prompt(0, key, f"https://h/{key}.png"), seed=42, protocol="404-splat")


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """An empty folder whose runs are over after a minute."""
    folder = Folder(tmp_path, "a", "b", "c", endpoints=["http://one:1", "http://two:1"])
    folder.run = FIRST
    found = Lines(folder)
    monkeypatch.setattr("runner.trail.utc_now", lambda: at(60, found.run))
    return found


def trail(lines: Lines, *, slots: int = 1, command: str | None = None) -> Trail:
    found = Trail(lines.folder.state, lines.run, str)
    endpoints = [Endpoint(place, f"http://{name}", name, "", slots) for place, name in enumerate(NAMES)]
    found.began(endpoints, total=3, skipped=0, command=command)
    return found


def told(lines: Lines) -> Chronicle:
    return chronicle_of(lines.folder.path)


def summary(lines: Lines, **more: Any) -> Summary:
    counts: dict[str, Any] = {"total": 3, "saved": 3, "skipped": 0, "failed": 0, "pending": 0, "seconds": 60.0}
    return Summary(**(counts | {"output_folder": "results", "run": lines.run} | more))


def test_every_prompt_has_a_row_and_what_failed_comes_first(lines: Lines) -> None:
    lines.saved("c", 1)
    lines.failed("b", 6, "no object", blame="prompt")
    found = told(lines)
    rows = found.rows
    assert [*zip(rows.keys, (STATES[one] for one in rows.state), strict=True)] == [
        ("b", "failed"), ("a", "pending"), ("c", "saved"),
    ]  # fmt: skip
    assert (found.total, found.saved, found.failed, found.pending) == (3, 1, 1, 1)
    assert [found.errors[one] for one in rows.error] == ["no object", "", ""]
    assert (rows.files[2], rows.size_bytes[2], rows.generate_s[2], rows.image_s[2]) == ("c.ply", 8.0, 4.0, 0.25)
    assert rows.images == [f"https://h/{key}.png" for key in "bac"]
    assert [rows.run[0], rows.run[1]] == [0, NONE]
    assert verdict(found) == "1 of 3 prompts have a verified result, 1 failed, 1 are pending"


def test_a_result_that_is_gone_is_pending_and_missing(lines: Lines) -> None:
    lines.saved("a", 1)
    (lines.folder.path / "a.ply").unlink()
    found = told(lines)
    assert found.pending == 3
    assert [found.rows.missing[found.rows.keys.index(key)] for key in "ab"] == [1, 0]


def test_attempts_stand_by_endpoint_and_time_with_how_each_ended(lines: Lines) -> None:
    two = {"endpoint": "two:1"}
    lines.saved("b", 9)
    tries = [lines.attempt(1, 1, 2.0, error="reset", status=None), lines.attempt(2, 4, 3.0, **two)]
    lines.line("a", "failed", tries, endpoint="two:1", moved_from="one:1", error="x")
    lines.line("c", "interrupted", [lines.attempt(1, 2, 1.0, **two)], endpoint="two:1")
    found = told(lines).attempts
    assert [*found.endpoint] == [0, 0, 1, 1]
    assert [round(one, 3) for one in found.start_s] == [1, 9, 2, 4]
    assert [ENDS[one] for one in found.end] == ["retried", "saved", "interrupted", "failed"]
    assert [*found.moved] == [0, 0, 0, 1] and [*found.status] == [0, 200, 200, 200]
    keys = told(lines).rows.keys
    assert [keys[one] for one in found.prompt] == ["a", "b", "c", "a"]


def test_the_endpoints_stand_as_the_config_has_them_and_then_those_of_earlier_runs(lines: Lines) -> None:
    lines.line("a", "saved", [lines.attempt(1, 1, 1.0, endpoint="old:1")], endpoint="old:1", size_bytes=1)
    lines.line("b", "saved", [lines.attempt(1, 1, 1.0, endpoint="two:1")], endpoint="two:1", size_bytes=1)
    assert [one.name for one in told(lines).endpoints] == ["one:1", "two:1", "old:1"]


def test_each_run_is_told_of_beside_the_one_before(lines: Lines) -> None:
    trail(lines, command="runner run x.yaml").ended(summary(lines, saved=1, failed=1, pending=1, stopped="window"))
    lines.saved("a", 1, 4.0)
    lines.failed("b", 6)
    lines.run = SECOND
    trail(lines).ended(summary(lines, saved=1, skipped=1, failed=1))
    lines.saved("c", 1, 8.0)
    lines.failed("b", 10)
    found = told(lines)
    assert (found.shown, found.before) == (1, 0)
    first, second = found.runs
    assert (first.ended, first.why, first.command, first.pending) == (
        "stopped", "the time window is over", "runner run x.yaml", 1,
    )  # fmt: skip
    assert (second.ended, second.saved, second.skipped, second.failed, second.seconds) == ("done", 1, 1, 1, 60.0)
    assert (second.turns[0].median_s, second.turns[0].before_s) == (8.0, 4.0)
    assert second.turns[0].busy_s == 9.0 and second.turns[0].share == 0.15
    assert second.share == 0.075, "of two endpoints, one did nothing"
    assert second.a_minute == 1.0


def test_changes_are_against_all_that_was_before(lines: Lines) -> None:
    lines.saved("a", 1)
    lines.failed("b", 6)
    lines.failed("c", 8)
    lines.run = SECOND
    lines.saved("a", 1)  # made again
    lines.failed("b", 6)
    lines.saved("c", 8)
    found = told(lines)
    assert (found.changes.newly_saved_keys, found.changes.failed_again_keys) == (("c",), ("b",))
    assert (found.changes.newly_saved, found.changes.newly_failed, found.changes.failed_again) == (1, 0, 1)
    changed = dict(zip(found.rows.keys, (CHANGES[one] for one in found.rows.change), strict=True))
    assert changed == {"a": "", "b": "failed again", "c": "newly saved"}


def test_what_failed_though_it_was_saved_or_never_tried_before_is_newly_failed(lines: Lines) -> None:
    lines.saved("a", 1)
    lines.run = SECOND
    (lines.folder.path / "a.ply").unlink()
    lines.failed("a", 1)
    lines.failed("b", 3)
    changes = told(lines).changes
    assert (changes.newly_failed, changes.newly_failed_keys) == (2, ("a", "b"))


def test_a_run_that_asked_nobody_is_not_the_one_that_is_shown(lines: Lines) -> None:
    trail(lines).ended(summary(lines))
    lines.saved("a", 1)
    lines.run = SECOND
    trail(lines).ended(summary(lines, saved=0, skipped=3, seconds=0.1))
    lines.folder.run = SECOND
    lines.folder.ran()
    (lines.folder.state / "summary.json").write_text(json.dumps({"run": SECOND, "seconds": 0.1, "skipped": 3}))
    found = told(lines)
    assert [one.name for one in found.runs] == [FIRST, SECOND] and found.shown == 0
    assert "asked no endpoint for anything" in "\n".join(text_lines(found))


def test_a_killed_run_is_told_of_until_its_last_trace(lines: Lines) -> None:
    trail(lines).tell(Out(Endpoint(0, "http://one:1", "one:1", ""), "refused"))
    lines.saved("a", 1, finished_at=at(30))
    found = told(lines)
    assert found.run is not None and (found.run.ended, found.run.total) == ("killed", 3)
    assert "left no summary" in "\n".join(text_lines(found))


def test_outages_are_on_the_clock_of_their_run(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([at(0), at(10), at(25), at(40), at(60)])
    monkeypatch.setattr("runner.trail.utc_now", lambda: next(times))
    endpoint = Endpoint(1, "http://two:1", "two:1", "")
    traced = trail(lines)
    traced.tell(Out(endpoint, "connection refused"))
    traced.tell(Back(endpoint, 15.0))
    traced.tell(Out(endpoint, "again"))
    traced.ended(summary(lines))
    lines.saved("a", 1)
    found = told(lines)
    assert [(one.endpoint, one.from_s, one.until_s, one.why) for one in found.outages] == [
        (1, 10.0, 25.0, "connection refused"), (1, 40.0, None, "again"),
    ]  # fmt: skip
    assert found.run is not None
    assert (found.run.turns[1].outages, found.run.turns[1].idle) == (2, {"out": 35.0, "over": 25.0})


def why(*bars: Bar, outages: list[tuple[float, float]] | None = None, early: bool = False) -> list[tuple[float, str]]:
    """Return length and reason of each gap in a run of 100 s."""
    return [
        (round(one.until_s - one.from_s, 3), one.why) for one in gaps(bars, outages or [], 100, ended_early=early)
    ]


@pytest.mark.parametrize(
    ("before", "bar", "reason"),
    [
        (Bar(0, 10), Bar(14, 100, image_s=3), "image"),
        (Bar(0, 10), Bar(14, 100, image_s=3, wait_s=4), "wait"),
        (Bar(0, 10, status=429), Bar(14, 100), "wait"),
        (Bar(0, 10), Bar(14, 100, number=2), "wait"),
        (Bar(0, 10), Bar(14, 100, moved=True), "over"),
        (Bar(0, 10), Bar(14, 100), "client"),
        (Bar(0, 10), Bar(10.2, 100, wait_s=9), "client"),
    ],
)
def test_a_gap_has_the_reason_that_took_most_of_it(before: Bar, bar: Bar, reason: str) -> None:
    assert why(before, bar) == [(round(bar.begin_s - 10, 3), reason)]


def test_the_first_and_the_last_gap_are_told_apart_from_the_others() -> None:
    assert why(Bar(5, 95)) == [(5, "start"), (5, "over")]
    assert why(Bar(5, 95, image_s=4.9)) == [(5, "image"), (5, "over")]
    assert why(Bar(0, 90), early=True) == [(10, "end")]
    assert why(Bar(0, 10), early=True) == [(90, "over")], "it had nothing left long before the end"
    assert why() == [(100, "over")]


def test_an_outage_is_cut_out_of_whatever_gap_it_falls_into() -> None:
    assert why(Bar(0, 10), Bar(60, 100), outages=[(8, 20), (30, 40)]) == [
        (10, "out"), (10, "out"), (10, "client"), (20, "client"),
    ]  # fmt: skip


def test_bars_that_overlap_are_in_slots_of_their_own() -> None:
    assert slots_of([Bar(0, 4), Bar(1, 3), Bar(3.02, 5), Bar(4.1, 6)], 2) == [0, 1, 1, 0]
    assert slots_of([Bar(0, 4), Bar(1, 3), Bar(2, 5)], 2) == [0, 1, 1], (
        "more than there are slots: the one free first"
    )


def test_a_batch_is_drawn_as_one_after_another(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a", "b", protocol="404-batch")
    folder.run = FIRST
    found = Lines(folder)
    for key in "ab":
        found.line(key, "failed", [found.attempt(1, 2, 5.0, error="x")], error="x")
    assert [round(one, 2) for one in told(found).attempts.start_s] == [2, 7]


def test_a_list_that_can_not_be_read_leaves_what_the_ledger_knows(lines: Lines) -> None:
    lines.saved("a", 1)
    lines.failed("b", 6)
    (lines.folder.here / "prompts.txt").unlink()
    found = told(lines)
    assert (found.total, found.saved, found.failed) == (2, 1, 1)
    assert any("can't be read" in note for note in found.notes)
    assert [one.count for one in found.causes] == [1] and found.rows.images[0] == "https://h/b.png"


@pytest.mark.parametrize(
    "line",
    ['{"key": "a"', "[]", '{"key": "a", "outcome": "saved", "attempts": 7}', '{"key": "z", "outcome": "what"}', "\0"],
)
def test_a_line_that_nobody_can_read_is_counted_and_spoils_no_other(lines: Lines, line: str) -> None:
    lines.saved("a", 1)
    with open(lines.folder.ledger, "a") as file:
        file.write(f"{line}\n")
    lines.saved("b", 6)
    found = told(lines)
    assert len({len(getattr(found.attempts, name)) for name in type(found.attempts).__slots__}) == 1
    assert len(found.attempts) == 2 and any("1 lines of the ledger" in note for note in found.notes)


def test_numbers_that_are_none_do_no_harm(lines: Lines) -> None:
    odd = lines.attempt(999, 1, float("nan"), wait_s=-1, receive_s=1e300, status=10**9)
    lines.line("a", "saved", [odd], size_bytes=1)
    found = told(lines).attempts
    assert (found.number[0], found.generate_s[0], found.wait_s[0], found.receive_s[0]) == (255, 0.0, 0.0, 0.0)


def test_only_the_latest_attempts_are_listed_and_all_are_counted(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chronicle.telling, "ATTEMPTS_MOST", 2)
    monkeypatch.setattr(chronicle.telling, "ROWS_MOST", 2)
    for place, key in enumerate("abc"):
        lines.saved(key, 10 * place)
    found = told(lines)
    assert [round(one) for one in found.attempts.start_s] == [10, 20] and found.attempts.prompt[1] == NO_PROMPT
    assert found.run is not None and found.run.attempts == 3 and found.run.turns[0].busy_s == 12.0
    assert found.notes == (
        "2 of 3 prompts are shown, those that failed first; all of them are counted",
        "the timeline shows the latest 2 of 3 attempts; all of them are counted",
    )


def test_errors_beyond_number_are_told_apart_by_their_causes_only(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chronicle.reading, "ERRORS_TOLD_APART", 2)
    for number in range(20):
        lines.failed("a", number, f"no answer in {number} s")
    assert told(lines).errors == ["", "no answer in 0 s", "no answer in 1 s", "no answer in N s"]


def test_what_was_never_a_run_s_folder_has_no_chronicle(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no output folder of a run"):
        chronicle_of(tmp_path)


def test_a_real_run_is_told_as_it_was(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("".join(f"{server.image(key)}\n" for key in "abcd"))
    server.script["b"] = [Answer(status=503), Answer(status=503)]
    server.script["c"] = [Answer(status=422, body=b"no object")]
    options = {"endpoints": [server.url], "prompts": [str(tmp_path / "prompts.txt")], "retry": {"backoff_s": 0}}
    run(config_from(options | {"output_folder": str(tmp_path / "out")}), command="runner run x.yaml")
    found = chronicle_of(tmp_path / "out")
    assert verdict(found) == "3 of 4 prompts have a verified result, 1 failed"
    assert sorted(ENDS[one] for one in found.attempts.end) == [
        "failed",
        "retried",
        "retried",
        "saved",
        "saved",
        "saved",
    ]
    assert found.run is not None and (found.run.ended, found.run.command) == ("done", "runner run x.yaml")
    assert found.run.attempts == 6 and found.run.turns[0].idle.get("wait", 0) >= 0
    assert 0 < found.run.share <= 1 and found.run.seconds > 0
    assert found.causes[0].key == "c" and found.changes.newly_saved == 3
    assert found.made_at <= utc_now()


HOSTILE = "[x](javascript:alert) | <b>`*_\x1b[2J\n# "


def test_text_and_markdown_show_what_came_from_outside_as_it_is(lines: Lines) -> None:
    lines.failed("a", 1, HOSTILE)
    lines.run = SECOND
    lines.failed("a", 1, HOSTILE)
    found = told(lines)
    text, page = "\n".join(text_lines(found)), "\n".join(markdown_lines(found))
    assert "\x1b" not in text and "\x1b" not in page
    assert r"\[x\](javascript:alert) \| \<b\>\`\*\_" in page
    assert "1 failed again: a" in text and "- 1 failed again: a" in page
    (cells,) = {line.count("|") - line.count(r"\|") for line in page.splitlines() if line.startswith("| ")}
    assert cells == 12
