"""Whole runs against servers that misbehave: every kind of fault, in the first attempt only and in every one."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from conftest import QUICK, ledger_of, results_of
from server import FAULTS, IMAGE, Answer, ScriptedServer, busy, splat_ply

from runner import run
from runner.config import Config, config_from
from runner.records import Summary
from runner.status import status_of

Servers = Callable[..., list[ScriptedServer]]
IMPATIENT = {"connect_s": 5, "first_byte_s": 0.3, "stall_s": 0.3, "total_s": 0.6, "image_s": 0.3}
WATCHFUL = {"probe_every_s": 0.2, "all_down_s": 0.5}


def config_for(
    servers: list[ScriptedServer],
    names: list[str],
    folder: Path,
    images: ScriptedServer | None = None,
    **options: Any,
) -> Config:
    """A config that sends the images of these names, hosted by ``images`` or the first server, to all servers."""
    (folder / "prompts.txt").write_text("".join(f"{(images or servers[0]).image(name)}\n" for name in names))
    given = {"timeouts": IMPATIENT, "health": WATCHFUL, **QUICK} | options
    return config_from(
        {
            "endpoints": [server.url for server in servers],
            "prompts": [str(folder / "prompts.txt")],
            "output_folder": str(folder / "results"),
            **given,
        }
    )


def names(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


def counts(summary: Summary) -> tuple[int, int, int]:
    assert summary.saved + summary.skipped + summary.failed + summary.pending == summary.total
    return summary.saved, summary.failed, summary.pending


@dataclass(frozen=True)
class Kind:
    """A fault, and what is to become of a prompt that meets it: ``once``, and ``always``."""

    answer: Answer
    said: str
    always: str = "failed"
    asked_once: int = 2
    asked_always: int = 3
    blame: str = "endpoint"
    image: bool = False


KINDS = {
    **{name: Kind(answer, "") for name, answer in FAULTS.items()},
    "hangs": Kind(Answer(hold=threading.Event()), "no answer within first_byte_s (0.3 s)"),
    "headers drip": Kind(Answer(drip_head_s=0.02), "no answer within first_byte_s (0.3 s)"),
    "body stalls": Kind(Answer(hold_body=threading.Event()), "no byte within stall_s (0.3 s)"),
    "body drips": Kind(Answer(drip_s=0.02), "no whole answer within total_s (0.6 s)"),
    "body drips, no length": Kind(Answer(drip_s=0.02, length="none"), "no whole answer within total_s (0.6 s)"),
    "too long": Kind(Answer(body=splat_ply(5000)), "longer than output.max_bytes"),
    "400": Kind(Answer(status=400, body=b"no"), "answers 400: no", asked_once=1, asked_always=1, blame="prompt"),
    "413": Kind(Answer(status=413, body=b"no"), "answers 413", asked_once=1, asked_always=1, blame="prompt"),
    "415": Kind(Answer(status=415, body=b"no"), "answers 415", asked_once=1, asked_always=1, blame="prompt"),
    "422": Kind(Answer(status=422, body=b"no"), "answers 422", asked_once=1, asked_always=1, blame="prompt"),
    "401": Kind(Answer(status=401, body=b"no"), "answers 401", asked_once=1, asked_always=1),
    "404": Kind(Answer(status=404, body=b"no"), "answers 404", asked_once=1, asked_always=1),
    "302": Kind(Answer(status=302, headers={"Location": "/"}), "answers 302", asked_once=1, asked_always=1),
    "busy": Kind(Answer(status=429, body=b""), "answers 429", always="pending"),
    "busy for a second": Kind(busy(503, seconds=1), "answers 503", always="pending"),
    "busy until a date": Kind(busy(429, seconds=2, date=True), "answers 429", always="pending"),
    "image 404": Kind(
        Answer(status=404, body=b""), "answers 404", asked_once=0, asked_always=0, blame="prompt", image=True
    ),
    "image 503": Kind(
        Answer(status=503, body=b""), "answers 503", asked_once=1, asked_always=0, blame="prompt", image=True
    ),
    "image cut": Kind(Answer(body=IMAGE, cut=9), "was cut", asked_once=1, asked_always=0, blame="prompt", image=True),
    "image drips": Kind(
        Answer(body=IMAGE * 9, drip_s=0.02), "image_s", asked_once=1, asked_always=0, blame="prompt", image=True
    ),
    "image is a page": Kind(
        Answer(body=b"<html>Not found</html>"),
        "is no image, but an HTML page",
        asked_once=0,
        asked_always=0,
        blame="prompt",
        image=True,
    ),
}


@pytest.fixture(autouse=True)
def let_go() -> Any:
    """Let servers that hang go on at the end of a test."""
    yield
    for kind in KINDS.values():
        for hold in (kind.answer.hold, kind.answer.hold_body):
            if hold:
                hold.set()
                hold.clear()


def script(server: ScriptedServer, kind: Kind, times: int) -> None:
    server.script["images/p0" if kind.image else "p0"] = [replace(kind.answer)] * times


@pytest.mark.parametrize("name", KINDS)
def test_a_fault_in_the_first_attempt(server: ScriptedServer, tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    script(server, kind, 1)
    options = {"output": {"max_bytes": 50_000}, "health": {"probe_every_s": 0.2}}
    summary = run(config_for([server], names(2), tmp_path, **options))
    final = kind.asked_once < 2 and not (kind.image and kind.asked_once)
    assert counts(summary) == ((1, 1, 0) if final else (2, 0, 0))
    assert summary.exit_code == (1 if final else 0)
    assert server.asked("p0") == kind.asked_once
    (line,) = [one for one in ledger_of(tmp_path / "results") if one["key"] == "p0"]
    errors = [attempt["error"] for attempt in line["attempts"]]
    assert len(errors) == kind.asked_once
    if final:
        assert kind.said in line["error"] and line["blame"] == kind.blame
    elif not kind.image:
        assert kind.said in errors[0] and errors[1] is None
    good = {"p1.ply": splat_ply()} if final else {"p0.ply": splat_ply(), "p1.ply": splat_ply()}
    assert results_of(tmp_path / "results") == good
    assert not list((tmp_path / "results").glob(".*.part"))


@pytest.mark.parametrize("name", KINDS)
def test_a_fault_in_every_attempt(server: ScriptedServer, tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    script(server, kind, 99)
    health = {"probe_every_s": 0.2, "all_down_s": 1.3}
    summary = run(config_for([server], names(2), tmp_path, output={"max_bytes": 50_000}, health=health))
    assert counts(summary) == ((1, 1, 0) if kind.always == "failed" else (1, 0, 1))
    assert summary.exit_code == (1 if kind.always == "failed" else 75)
    assert results_of(tmp_path / "results") == {"p1.ply": splat_ply()}
    assert not list((tmp_path / "results").glob(".*.part"))
    (line,) = [one for one in ledger_of(tmp_path / "results") if one["key"] == "p0"]
    assert all(kind.said in attempt["error"] for attempt in line["attempts"])
    if kind.always == "failed":
        old_connections = 2 if name == "reset" else 0  # an answer like that of one that was closed before
        assert kind.asked_always <= server.asked("p0") <= kind.asked_always + old_connections
        assert line["outcome"] == "failed" and line["blame"] == kind.blame and kind.said in line["error"]
    else:
        assert line["outcome"] == "interrupted" and summary.stopped == "down"


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.asked_always == 3])
def test_a_fault_of_one_endpoint_is_made_up_for_by_another(servers: Servers, tmp_path: Path, name: str) -> None:
    good, bad = servers(2)
    bad.usual = KINDS[name].answer
    summary = run(config_for([good, bad], names(12), tmp_path, output={"max_bytes": 50_000}))
    assert counts(summary) == (12, 0, 0)
    assert results_of(tmp_path / "results") == {f"{name}.ply": splat_ply() for name in names(12)}
    lines = ledger_of(tmp_path / "results")
    moved = {line["key"] for line in lines if line["moved_from"] == f"127.0.0.1:{bad.port}"}
    assert moved == {f"p{number}" for number in range(1, 12, 2)}
    assert all(line["endpoint"] == f"127.0.0.1:{good.port}" for line in lines)


def test_one_of_four_that_refuses_is_made_up_for_and_said(
    servers: Servers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    four = servers(4)
    four[2].die()
    with caplog.at_level(logging.INFO, logger="runner"):
        summary = run(config_for(four, names(60), tmp_path))
    assert counts(summary) == (60, 0, 0)
    assert [one.outages for one in summary.endpoints] == [0, 0, 1, 0]
    assert f"Endpoint port {four[2].port} is out: Connection refused" in caplog.text
    assert re.search(r"others take the prompts that wait for it \(1[345]\)", caplog.text), "15 but for those in hands"
    assert caplog.text.count(f"(instead of port {four[2].port})") == 15
    asked = [len(one.received) for one in four]
    assert asked == [20, 20, 0, 20], "spread by modulo"


def test_one_of_four_that_always_answers_500_gets_few_requests(servers: Servers, tmp_path: Path) -> None:
    four = servers(4, generation_s=0.02)
    four[3].usual = FAULTS["500"]
    summary = run(config_for(four, names(60), tmp_path, health={}))
    assert counts(summary) == (60, 0, 0)
    assert len(four[3].received) <= 12
    assert summary.endpoints[3].outages == 1


def test_one_thatdies_after_three_and_comes_back_goes_on_with_its_prompts(servers: Servers, tmp_path: Path) -> None:
    others = servers(3, generation_s=0.05)
    (dying,) = servers(1, generation_s=0.05, dies_after=3)

    def watch(tally: Any, event: Any) -> None:
        if type(event).__name__ == "Out":
            dying.rise()

    config = config_for([*others, dying], names(60), tmp_path, images=others[0], health={"probe_every_s": 0.05})
    summary = run(config, observe=watch)
    assert counts(summary) == (60, 0, 0)
    assert summary.endpoints[3].saved > 3
    assert results_of(tmp_path / "results") == {f"{name}.ply": splat_ply() for name in names(60)}


def test_one_that_hangs_is_made_up_for(servers: Servers, tmp_path: Path) -> None:
    four = servers(4, generation_s=0.02)
    four[0].usual = KINDS["hangs"].answer
    summary = run(config_for(four, names(60), tmp_path))
    assert counts(summary) == (60, 0, 0)
    assert len(four[0].received) <= 12


def test_when_all_are_down_at_the_start_the_run_waits_for_them(servers: Servers, tmp_path: Path) -> None:
    images, *four = servers(5)
    for server in four:
        server.die()
    out: list[str] = []

    def watch(tally: Any, event: Any) -> None:
        if type(event).__name__ == "Out":
            out.append(event.endpoint.name)
            if len(out) == 4:
                for server in four:
                    server.rise()

    config = config_for(four, names(20), tmp_path, images=images, health={"probe_every_s": 0.1})
    assert counts(run(config, observe=watch)) == (20, 0, 0)


@pytest.mark.parametrize("prompts", [1, 2, 20])
def test_when_all_go_down_in_the_middle_nothing_fails(servers: Servers, tmp_path: Path, prompts: int) -> None:
    images, *two = servers(3, generation_s=0.02)
    two[0].dies_after = two[1].dies_after = prompts // 4
    out: set[str] = set()

    def watch(tally: Any, event: Any) -> None:
        if type(event).__name__ == "Out":
            out.add(event.endpoint.name)
            for server in two:
                if server.url.endswith(event.endpoint.name):
                    threading.Timer(0.3, server.rise).start()

    config = config_for(two, names(prompts), tmp_path, images=images, health={"probe_every_s": 0.1})
    assert counts(run(config, observe=watch)) == (prompts, 0, 0)


def test_when_all_stay_down_the_rest_is_pending_and_try_again_later(servers: Servers, tmp_path: Path) -> None:
    images, one, other = servers(3)
    config = config_for([one, other], names(10), tmp_path, images=images)
    one.die()
    other.dies_after = 2
    summary = run(config)
    saved, failed, pending = counts(summary)
    assert (saved <= 2, failed, pending) == (True, 0, 10 - saved)
    assert (summary.stopped, summary.exit_code) == ("down", 75)
    one.rise()
    assert counts(run(config)) == (pending, 0, 0)


def test_strict_lanes_leave_the_prompts_of_a_dead_endpoint_pending(servers: Servers, tmp_path: Path) -> None:
    good, dead = servers(2)
    dead.die()
    summary = run(config_for([good, dead], names(10), tmp_path, failover=False))
    assert counts(summary) == (5, 0, 5)
    assert summary.exit_code == 75
    assert len(good.received) == 5


def test_a_server_that_is_still_loading_gets_nothing_before_it_is_ready(servers: Servers, tmp_path: Path) -> None:
    ready, loading = servers(2, generation_s=0.05)
    loading.script["/health"] = [Answer(body=b'{"status": "loading"}')] * 3
    config = config_for([ready, loading], names(40), tmp_path, health={"wait_ready_s": 60, "probe_every_s": 0.1})
    summary = run(config)
    assert counts(summary) == (40, 0, 0)
    assert loading.probes == 4
    assert summary.endpoints[1].saved > 0
    assert summary.endpoints[1].attempts == summary.endpoints[1].saved


def test_a_flapping_endpoint_loses_nothing(servers: Servers, tmp_path: Path) -> None:
    steady, flapping = servers(2, generation_s=0.01)
    over = threading.Event()

    def flap() -> None:
        while not over.wait(0.1):
            flapping.die()
            if over.wait(0.1):
                break
            flapping.rise()

    thread = threading.Thread(target=flap)
    thread.start()
    config = config_for([steady, flapping], names(100), tmp_path, health={"probe_every_s": 0.05})
    summary = run(config)
    over.set()
    thread.join()
    assert counts(summary) == (100, 0, 0)
    assert results_of(tmp_path / "results") == {f"{name}.ply": splat_ply() for name in names(100)}


def test_different_versions_are_warned_about_before_the_first_prompt_is_sent(
    servers: Servers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = servers(2)
    other.script["/version"] = [Answer(body=b'{"version": "2.0"}')]
    with caplog.at_level(logging.INFO, logger="runner"):
        run(config_for([one, other], names(4), tmp_path))
    assert "results may differ" in caplog.text
    assert "version 2.0" in caplog.text or "runs 2.0" in caplog.text
    assert caplog.text.index("results may differ") < caplog.text.index("generation completed")


def test_a_busy_endpoint_holds_up_no_other(servers: Servers, tmp_path: Path) -> None:
    free, full = servers(2)
    full.script["p1"] = [busy(503, seconds=30)]
    summary = run(config_for([free, full], names(20), tmp_path))
    assert counts(summary) == (20, 0, 0)
    assert len(full.received) <= 2, "another may have been sent before"
    assert summary.seconds < 20
    assert summary.endpoints[1].outages == 0


def test_of_forty_prompts_with_faults_of_eleven_kinds_all_is_saved_that_can_be(
    servers: Servers, tmp_path: Path
) -> None:
    four = servers(4, generation_s=0.01)
    healing = ["500", "reset", "hangs", "html", "short ply", "cut, to the close", "busy", "image 503"]
    for number, name in enumerate(healing):
        kind = KINDS[name]
        index = 3 * number
        server = four[0] if kind.image else four[index % 4]
        server.script[f"images/p{index}" if kind.image else f"p{index}"] = [kind.answer]
    lost = {"p1": "422", "p7": "400", "p13": "500", "p19": "short ply", "p25": "image 404", "p31": "image is a page"}
    for stem, name in lost.items():
        kind = KINDS[name]
        for server in four:
            server.script[f"images/{stem}" if kind.image else stem] = [kind.answer] * 99
    summary = run(config_for(four, names(40), tmp_path))
    assert counts(summary) == (34, 6, 0)
    assert summary.exit_code == 1
    assert {failure.key for failure in summary.failures} == set(lost)
    told = json.loads((tmp_path / "results" / ".runner" / "summary.json").read_text())
    assert {failure["key"] for failure in told["failures"]} == set(lost)
    assert sum(server.asked("p1") for server in four) == 1
    assert results_of(tmp_path / "results") == {f"{name}.ply": splat_ply() for name in names(40) if name not in lost}
    todo = status_of(tmp_path / "results").to_do().split()
    assert todo == [four[0].image(stem) for stem in lost]
    assert {one.outages for one in summary.endpoints} == {0}


@pytest.mark.parametrize("prompts", [1, 5, 12])
def test_three_of_eight_that_answer_500_cost_no_prompt_however_few_there_are(
    servers: Servers, tmp_path: Path, prompts: int
) -> None:
    eight = servers(8)
    for server in eight[:3]:
        server.usual = FAULTS["500"]
    assert counts(run(config_for(eight, names(prompts), tmp_path, images=eight[7]))) == (prompts, 0, 0)


@pytest.mark.parametrize("page", [b"[" * 4000, b'{"status": "\\u001b[31m\\n' + b"x" * 3000 + b'"}'])
def test_a_hostile_health_page_ends_no_run_and_writes_no_line_of_its_own(
    servers: Servers, tmp_path: Path, caplog: pytest.LogCaptureFixture, page: bytes
) -> None:
    good, bad = servers(2)
    bad.script["/health"] = bad.script["/version"] = [Answer(body=page)] * 9
    with caplog.at_level(logging.INFO, logger="runner"):
        summary = run(config_for([good, bad], names(4), tmp_path))
    assert counts(summary) == (4, 0, 0)
    assert "\x1b" not in caplog.text and "x" * 300 not in caplog.text


def test_a_health_page_that_hangs_holds_up_no_finished_run(server: ScriptedServer, tmp_path: Path) -> None:
    hold = threading.Event()
    server.script["/version"] = [Answer(hold=hold)]
    summary = run(config_for([server], names(4), tmp_path))
    hold.set()
    assert counts(summary) == (4, 0, 0)
    assert summary.seconds < 5


def test_what_is_in_flight_when_the_window_ends_is_finished_whatever_the_grace(
    server: ScriptedServer, tmp_path: Path
) -> None:
    server.generation_s = 0.6
    config = config_for([server], names(4), tmp_path, max_runtime_s=0.4, grace_s=0, timeouts={})
    assert counts(run(config)) == (1, 0, 3)


def test_a_pipe_or_a_device_in_the_list_is_no_image_and_blocks_nobody(server: ScriptedServer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "list.txt").write_text(f"pipe.png\n/dev/zero\n{server.image('p0')}\n")
    summary = run(config_for([server], [], tmp_path, prompts=[str(tmp_path / "list.txt")]))
    assert counts(summary) == (1, 2, 0)
    assert {failure.error.rpartition("is ")[2] for failure in summary.failures} == {"no regular file"}


def test_a_ledger_that_is_removed_under_a_run_is_an_error(server: ScriptedServer, tmp_path: Path) -> None:
    def watch(tally: Any, event: Any) -> None:
        if tally.saved == 1:
            (tmp_path / "results" / ".runner" / "ledger.jsonl").unlink(missing_ok=True)

    summary = run(config_for([server], names(4), tmp_path), observe=watch)
    assert summary.exit_code == 1 and "ledger.jsonl can't be written" in str(summary.error)


def test_a_ledger_line_nested_without_end_is_passed_over(server: ScriptedServer, tmp_path: Path) -> None:
    config = config_for([server], names(2), tmp_path)
    run(config)
    with open(tmp_path / "results" / ".runner" / "ledger.jsonl", "ab") as ledger:
        ledger.write(b"[" * 100_000 + b"\n")
    assert run(config).skipped == 2


def test_a_password_in_an_endpoints_url_is_written_in_no_form(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    echo = b"Basic bWU6cEBzc3cwcmQ= for p@ssw0rd or p%40ssw0rd"
    server.usual = Answer(status=422, body=echo)
    config = config_for([server], names(1), tmp_path, endpoints=[server.url.replace("//", "//me:p%40ssw0rd@")])
    with caplog.at_level(logging.INFO, logger="runner"):
        run(config)
    texts = [file.read_text() for file in (tmp_path / "results" / ".runner").iterdir()] + [caplog.text]
    for text in texts:
        assert "p@ssw0rd" not in text and "p%40ssw0rd" not in text and "bWU6cEBzc3cwcmQ" not in text


def test_a_redirect_of_an_image_to_nowhere_is_final_and_its_secrets_are_not_written(
    server: ScriptedServer, tmp_path: Path
) -> None:
    location = {"Location": "foo://127.0.0.1/z?sig=sweetsecret"}
    server.script["images/p0"] = [Answer(status=302, body=b"", headers=location)] * 3
    summary = run(config_for([server], names(1), tmp_path))
    assert counts(summary) == (0, 1, 0)
    assert len(server.images_asked) == 1
    for file in (tmp_path / "results" / ".runner").iterdir():
        assert "sweetsecret" not in file.read_text(), file.name


def test_status_can_read_the_folder_of_any_run(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XX", "boom")
    (tmp_path / "a${XX}.png").write_bytes(IMAGE)
    (tmp_path / "ca.pem").write_bytes(trustme.CA().cert_pem.bytes())
    users = [server.url.replace("//", f"//{name}:pw@") for name in ("me", "you")]
    endpoints = [{"url": url, "name": url[7:10], "verify": str(tmp_path / "ca.pem")} for url in users]
    config = config_for([server], [], tmp_path, prompts=[str(tmp_path / "a${XX}.png")], endpoints=endpoints)
    assert counts(run(config)) == (1, 0, 0)
    (tmp_path / "ca.pem").unlink()
    assert status_of(tmp_path / "results").saved == 1
