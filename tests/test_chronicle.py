"""What happened in a folder: runs, attempts, outages, idle times, rows and changes, by what runs leave."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
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
    REASONS,
    STATES,
    Chronicle,
    chronicle_of,
    markdown_lines,
    text_lines,
    verdict,
)  # fmt: skip
from runner.chronicle.idle import Bar, Ending, Gap, disjoint, gaps, slots_of
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
        self.line(key, "saved", [self.attempt(1, begin_s, seconds)], **(told | more))

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
    assert verdict(found) == "1 of 3 prompts have a verified result, 1 failed, 1 pending"


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
    assert changed == {"a": "made again", "b": "failed again", "c": "newly saved"}


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
    assert "had nothing to do" in "\n".join(text_lines(found))


def test_a_run_in_which_no_endpoint_answered_is_told_of_all_the_same(lines: Lines) -> None:
    trail(lines).ended(summary(lines, saved=1, pending=2, stopped="window"))
    lines.saved("a", 1)
    lines.run = SECOND
    later = trail(lines)
    later.tell(Out(Endpoint(0, "http://one:1", "one:1", ""), "refused"))
    later.ended(summary(lines, saved=0, skipped=1, pending=2, stopped="down"))
    found = told(lines)
    assert found.run is not None and (found.run.name, found.run.ended) == (SECOND, "stopped")
    assert found.previous is not None and found.previous.name == FIRST
    assert "no endpoint could be used" in "\n".join(text_lines(found))


def test_a_run_whose_images_could_not_be_had_is_told_of_and_why_its_endpoints_were_idle(lines: Lines) -> None:
    lines.saved("a", 1)
    lines.run = SECOND
    trail(lines).ended(summary(lines, saved=0, skipped=1, failed=1, pending=1))
    lines.line("b", "failed", [], error="image: no answer", image_s=30.0, seconds=30.0, finished_at=at(40, SECOND))
    found = told(lines)
    assert found.run is not None and (found.run.name, found.run.failed) == (SECOND, 1)
    assert found.changes.newly_failed_keys == ("b",)
    assert found.run.turns[0].idle["image"] == 30.0


def test_a_job_that_was_submitted_is_a_trace_of_its_run(lines: Lines) -> None:
    trail(lines)
    lines.line("a", "submitted", [], finished_at=at(45))
    found = told(lines)
    assert found.run is not None and (found.run.ended, round(found.run.seconds)) == ("killed", 45)
    assert found.run.turns[0].idle == {"unheard": 45.0} and found.run.share == 0.0


def test_what_an_endpoint_does_when_it_was_heard_of_last_is_not_held_against_it(lines: Lines) -> None:
    trail(lines)
    lines.saved("a", 0, 30.0, finished_at=at(30))
    lines.line("b", "saved", [lines.attempt(1, 0, 60.0, endpoint="two:1")], endpoint="two:1", finished_at=at(60))
    turns = told(lines).runs[0].turns
    assert [turn.idle for turn in turns] == [{"unheard": 30.0}, {}]
    assert [turn.share for turn in turns] == [1.0, 1.0]


def test_what_had_failed_before_its_run_was_stopped_was_not_interrupted(lines: Lines) -> None:
    tries = [lines.attempt(1, 1, 1.0, error="answers 500", status=500), lines.attempt(2, 3, 1.0, error="abandoned")]
    lines.line("a", "interrupted", tries[:1], error="stopped before it was generated")
    lines.line("b", "interrupted", tries, error="stopped before it was generated")
    assert [ENDS[one] for one in told(lines).attempts.end] == ["retried", "retried", "interrupted"]


def test_an_outage_ends_with_the_request_that_shows_it(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([at(0), at(10), at(40), at(60)])
    monkeypatch.setattr("runner.trail.utc_now", lambda: next(times))
    endpoint = Endpoint(0, "http://one:1", "one:1", "")
    traced = trail(lines)
    traced.tell(Out(endpoint, "refused"))
    traced.tell(Back(endpoint, 30.0))
    traced.ended(summary(lines))
    lines.saved("a", 25, 15.0)
    (outage,) = told(lines).outages
    assert (outage.from_s, outage.until_s) == (10.0, 25.0)


def test_slots_are_those_of_the_run(lines: Lines) -> None:
    trail(lines, slots=1).ended(summary(lines))
    lines.saved("a", 0, 30.0)
    lines.run = SECOND
    trail(lines, slots=4).ended(summary(lines))
    lines.saved("b", 0, 30.0)
    assert [(run.turns[0].slots, run.turns[0].share) for run in told(lines).runs] == [(1, 0.5), (4, 0.125)]


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


DONE = Ending()


def why(*bars: Bar, known: Sequence[Gap] = (), ending: Ending = DONE) -> list[tuple[float, str]]:
    """Return length and reason of each gap in a run of 100 s."""
    return [(round(one.until_s - one.from_s, 3), one.why) for one in gaps(bars, known, 100, ending)]


@pytest.mark.parametrize(
    ("before", "bar", "reason"),
    [
        (Bar(0, 10), Bar(14, 100, image_s=3), "image"),
        (Bar(0, 10), Bar(14, 100, image_s=3, wait_s=4), "wait"),
        (Bar(0, 10, status=429), Bar(14, 100), "wait"),
        (Bar(0, 10), Bar(14, 100, number=2, pause_s=9), "wait"),
        (Bar(0, 10), Bar(14, 100, moved=True), "over"),
        (Bar(0, 10), Bar(14, 100), "client"),
        (Bar(0, 10), Bar(10.2, 100, wait_s=9), "client"),
        (Bar(0, 10, receive_s=4), Bar(14, 100, wait_s=13), "receive"),
        (Bar(0, 10, receive_s=1), Bar(14, 100, wait_s=13), "wait"),
    ],
)
def test_a_gap_has_the_reason_that_took_most_of_it(before: Bar, bar: Bar, reason: str) -> None:
    assert why(before, bar) == [(round(bar.begin_s - 10, 3), reason)]


def test_who_waits_for_another_endpoint_to_give_up_has_nothing_to_do_until_then() -> None:
    late = Bar(20, 100, number=2, pause_s=1, moved=True)
    assert why(Bar(0, 10), late) == [(9, "over"), (1, "wait")]


def test_the_first_and_the_last_gap_are_told_apart_from_the_others() -> None:
    assert why(Bar(5, 95)) == [(5, "start"), (5, "over")]
    assert why(Bar(5, 95, image_s=4.9)) == [(5, "image"), (5, "over")]
    assert why() == [(100, "over")]


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (Ending("early", 90.0), [(10, "end")]),
        (Ending("early", 95.0, left=True), [(5, "image"), (5, "end")]),
        (Ending("early", 95.0), [(10, "over")]),
        (Ending("early", 95.0, left=False), [(10, "over")]),
        (Ending("early", left=True), [(10, "end")]),
        (Ending("early"), [(10, "end")]),
        (Ending("unheard"), [(10, "unheard")]),
        (Ending("unheard", left=False), [(10, "over")]),
    ],
)
def test_why_nothing_came_at_the_end_depends_on_how_the_run_ended(
    ending: Ending, said: list[tuple[float, str]]
) -> None:
    assert why(Bar(0, 90), ending=ending) == said


def test_a_run_that_is_stopped_before_or_between_attempts_says_what_it_waited_for() -> None:
    assert why(ending=Ending("early", 60.0)) == [(60, "start"), (40, "end")]
    assert why(Bar(0, 10, failed=True), ending=Ending("early", 60.0)) == [(50, "wait"), (40, "end")]
    assert why(Bar(0, 10), ending=Ending("early")) == [(90, "over")], "it had nothing left long before the end"


def test_what_is_known_of_a_time_is_cut_out_of_whatever_gap_it_falls_into() -> None:
    known = disjoint([Gap(8, 20, "out"), Gap(30, 40, "image"), Gap(35, 45, "out"), Gap(36, 38, "image")])
    assert why(Bar(0, 10), Bar(60, 100), known=known) == [
        (10, "out"), (10, "client"), (5, "image"), (10, "out"), (15, "client"),
    ]  # fmt: skip


def test_thousands_of_fetches_and_outages_are_looked_at_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    known = disjoint([Gap(place, place + 0.5, "image") for place in range(20_000)])
    looked = 0

    def until(gap: Gap) -> float:
        nonlocal looked
        looked += 1
        return gap.until_s

    monkeypatch.setattr("runner.chronicle.idle._UNTIL", until)
    bars = [Bar(place, place + 1) for place in range(0, 20_000, 2)]
    found = [*gaps(bars, known, 20_000, DONE)]
    assert len(found) == 20_000 and looked < 20 * len(bars)


@pytest.mark.parametrize("seed", range(20))
def test_bars_and_gaps_of_a_slot_fill_its_run(seed: int) -> None:
    dice = random.Random(seed)
    bars, at = [], 0.0
    for _ in range(dice.randrange(6)):
        begin = at + dice.choice([0, 0.1, 3])
        at = begin + dice.uniform(0, 5)
        odd = {"number": dice.choice([1, 2]), "status": dice.choice([200, 429, 0]), "moved": dice.random() < 0.3}
        times = {name: dice.uniform(0, 4) for name in ("wait_s", "image_s", "pause_s", "receive_s")}
        bars.append(Bar(begin, at, failed=dice.random() < 0.3, **times, **odd))
    known = [
        Gap(begin, begin + dice.uniform(0, 30), dice.choice(["out", "image"]))
        for begin in (dice.uniform(0, 90) for _ in range(3))
    ]
    ending = Ending(dice.choice(["over", "early", "unheard"]), dice.choice([None, 50.0]), dice.choice([None, True]))
    found = [*gaps(bars, disjoint(known), 100, ending)]
    assert all(one.until_s > one.from_s and one.why in REASONS for one in found)
    assert sum(one.until_s - one.from_s for one in found) + sum(bar.end_s - bar.begin_s for bar in bars) == (
        pytest.approx(100)
    )


def test_bars_that_overlap_are_in_slots_of_their_own() -> None:
    assert slots_of([Bar(0, 4), Bar(1, 3), Bar(3.02, 5), Bar(4.1, 6)], 2) == [0, 1, 1, 0]
    assert slots_of([Bar(0, 1), Bar(1, 2), Bar(2, 3)], 3) == [0, 0, 0], "the first that is free"
    assert slots_of([Bar(0, 4), Bar(1, 3), Bar(2, 5)], 2) == [0, 1, 1], (
        "more than there are slots: the one free first"
    )


def test_a_batch_is_drawn_as_one_after_another(lines: Lines) -> None:
    for number, key in enumerate("abc"):
        begun = 2 + number / 1000  # each was noted a moment later
        lines.line(key, "failed", [lines.attempt(1, begun, 5.000001, error="x")], error="x")
    assert [round(one, 1) for one in told(lines).attempts.start_s] == [2, 7, 12]
    assert told(lines).runs[0].turns[0].busy_s == pytest.approx(15.0, abs=0.01)


def test_a_clock_that_was_set_meanwhile_does_not_make_a_run_longer(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([at(0), "2026-01-01T23:30:00.000Z"])
    monkeypatch.setattr("runner.trail.utc_now", lambda: next(times))
    trail(lines).ended(summary(lines, seconds=60.0))
    lines.saved("a", 1)
    assert told(lines).runs[0].seconds == 60.0


def test_a_run_that_goes_on_takes_until_now(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.chronicle.runs.utc_age_s", lambda then: 90.0)
    monkeypatch.setattr("runner.status.lastly.holder", lambda state: 1)
    trail(lines)
    (lines.folder.state / "lists.jsonl").write_text("")
    lines.saved("a", 1)
    (run,) = told(lines).runs
    assert (run.ended, run.seconds, run.turns[0].idle["unheard"]) == (None, 90.0, 85.0)


def test_an_empty_list_is_not_taken_for_an_empty_folder(lines: Lines) -> None:
    lines.saved("a", 1)
    (lines.folder.here / "prompts.txt").write_text("")
    assert told(lines).notes == ("the list is empty now; the ledger knows of 1 prompts",)


@pytest.mark.parametrize(
    "odd",
    [
        {"number": -1}, {"status": -1}, {"generate_s": 10**400}, {"number": 10**400}, {"status": 10**400},
        {"wait_s": float("inf")}, {"receive_s": -5},
    ],
)  # fmt: skip
def test_a_number_that_somebody_wrote_into_an_attempt_does_no_harm(lines: Lines, odd: dict[str, Any]) -> None:
    lines.line("a", "failed", [lines.attempt(1, 1, 1.0, error="x") | odd], error="x")
    assert len(told(lines).attempts) <= 1


@pytest.mark.parametrize("odd", [{"size_bytes": 10**400}, {"file": "a\0b"}, {"file": "\ud800"}, {"seed": None}])
def test_a_value_that_somebody_wrote_into_a_line_does_no_harm(lines: Lines, odd: dict[str, Any]) -> None:
    lines.saved("a", 1, **odd)
    assert [*text_lines(told(lines))] and [*markdown_lines(told(lines))]


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
    assert len(found.attempts) == 2 and any("can't be read: 1;" in note for note in found.notes)


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
