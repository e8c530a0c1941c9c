"""Whole runs against real local servers."""

import json
import logging
import os
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trimesh
from conftest import QUICK, REPOSITORY, ledger_of, results_of
from server import IMAGE, Answer, ScriptedServer, splat_ply

from runner import load_config, run
from runner.batch import run as batch_run
from runner.config import Config, config_from
from runner.errors import LockedError, StorageError, UsageError
from runner.ledger import locked
from runner.records import Endpoint, Event, Outcome, Started, Summary
from runner.report import Tally
from runner.stop import Stop

Servers = Callable[..., list[ScriptedServer]]


def config_for(servers: list[ScriptedServer], names: list[str], folder: Path, **options: Any) -> Config:
    """A config that sends the images of these names, hosted by the first server, to all servers."""
    listed = folder / "prompts.txt"
    listed.write_text("".join(f"{servers[0].image(name)}\n" for name in names))
    return config_from(
        {
            "endpoints": [server.url for server in servers],
            "prompts": [str(listed)],
            "output_folder": str(folder / "results"),
            **QUICK,
            **options,
        }
    )


def names(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


def counts(summary: Summary) -> tuple[int, int, int, int, int]:
    return summary.total, summary.saved, summary.skipped, summary.failed, summary.pending


def test_every_prompt_ends_as_a_verified_file_in_the_lane_of_its_index(servers: Servers, tmp_path: Path) -> None:
    three = servers(3)
    summary = run(config_for(three, names(10), tmp_path))
    assert counts(summary) == (10, 10, 0, 0, 0)
    assert summary.success and summary.exit_code == 0
    assert results_of(tmp_path / "results") == {f"{name}.ply": splat_ply() for name in names(10)}
    for lane, server in enumerate(three):
        assert {one.stem for one in server.received} == {f"p{number}" for number in range(lane, 10, 3)}
        assert server.most_at_once == 1
        assert {one.fields["seed"] for one in server.received} == {"42"}
        assert {one.image for one in server.received} == {IMAGE}


def test_the_slot_is_free_at_the_headers_so_the_next_request_comes_while_the_body_is_on_its_way(
    server: ScriptedServer, tmp_path: Path
) -> None:
    body = threading.Event()
    server.script["p0"] = [Answer(hold_body=body)]
    server.script["p1"] = [Answer(hold_body=body)]
    done: list[Summary] = []
    thread = threading.Thread(target=lambda: done.append(run(config_for([server], names(4), tmp_path))))
    thread.start()
    server.wait_for(requests=2)  # neither body has sent a byte
    assert server.most_at_once == 1
    body.set()
    thread.join(20)
    assert counts(done[0]) == (4, 4, 0, 0, 0)


def test_while_a_prompt_is_generated_the_next_image_is_there_already(server: ScriptedServer, tmp_path: Path) -> None:
    hold = threading.Event()
    first: list[str] = []
    server.script["p0"] = [Answer(hold=hold)]
    server.script["p1"] = [Answer(hold=hold)]

    def watch(tally: Tally, event: Event | None) -> None:
        if event is None and len(server.images_asked) == 2 and not first:
            first.extend(server.images_asked)
            hold.set()

    assert run(config_for([server], names(2), tmp_path), observe=watch).success
    assert sorted(first) == names(2)
    assert server.most_at_once == 1


def test_the_same_again_sends_nothing(server: ScriptedServer, tmp_path: Path) -> None:
    config = config_for([server], names(5), tmp_path)
    run(config)
    before = results_of(tmp_path / "results")
    assert counts(run(config)) == (5, 0, 5, 0, 0)
    assert len(server.received) == 5
    assert len(server.images_asked) == 5
    assert results_of(tmp_path / "results") == before


def test_editing_and_reordering_the_list_skips_just_what_is_saved(server: ScriptedServer, tmp_path: Path) -> None:
    run(config_for([server], ["b", "c", "d"], tmp_path))
    summary = run(config_for([server], ["a", "d", "b", "e"], tmp_path))
    assert counts(summary) == (4, 2, 2, 0, 0)
    assert [one.stem for one in server.received[3:]] in (["a", "e"], ["e", "a"])


def test_a_result_that_is_gone_or_has_another_size_is_made_again(server: ScriptedServer, tmp_path: Path) -> None:
    config = config_for([server], names(3), tmp_path)
    run(config)
    (tmp_path / "results" / "p0.ply").unlink()
    (tmp_path / "results" / "p1.ply").write_bytes(b"ply torn")
    assert counts(run(config)) == (3, 2, 1, 0, 0)
    assert results_of(tmp_path / "results")["p1.ply"] == splat_ply()


HALF = splat_ply(500)[:-7]
BOX = bytes(trimesh.exchange.export.export_mesh(trimesh.creation.box(), None, "glb"))
BAD = {
    "503": Answer(status=503, body=b"busy"),
    "500": Answer(status=500, body=b"CUDA error"),
    "408": Answer(status=408, body=b""),
    "html": Answer(body=b"<html>502 Bad Gateway</html>"),
    "json": Answer(body=b'{"detail": "out of memory"}'),
    "nothing": Answer(body=b""),
    "half, announced": Answer(body=splat_ply(500), cut=len(HALF)),
    "half, chunked": Answer(body=splat_ply(500), length="chunked", cut=len(HALF)),
    "half, to the close": Answer(body=HALF, length="none"),
    "half, well-formed": Answer(body=HALF),
    "half a glb": Answer(body=BOX[:-1]),
    "no splats": Answer(body=splat_ply(0)),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_answer_is_a_failed_attempt_and_the_next_one_counts(
    server: ScriptedServer, tmp_path: Path, kind: str
) -> None:
    server.script["p0"] = [BAD[kind]]
    assert run(config_for([server], ["p0"], tmp_path)).success
    (line,) = ledger_of(tmp_path / "results")
    assert [attempt["error"] is None for attempt in line["attempts"]] == [False, True]
    assert results_of(tmp_path / "results") == {"p0.ply": splat_ply()}
    assert server.images_asked == ["p0"], "the image is fetched once a prompt"


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_answer_every_time_is_a_failed_prompt_and_leaves_no_file(
    server: ScriptedServer, tmp_path: Path, kind: str
) -> None:
    server.script["p0"] = [BAD[kind]] * 3
    summary = run(config_for([server], ["p0", "p1"], tmp_path))
    assert counts(summary) == (2, 1, 0, 1, 0)
    assert (summary.success, summary.exit_code) == (False, 1)
    assert summary.failures[0].key == "p0"
    assert summary.failures[0].attempts == 3
    assert server.asked("p0") == 3
    assert list(results_of(tmp_path / "results")) == ["p1.ply"]
    assert sorted(file.name for file in (tmp_path / "results").iterdir()) == [".runner", "p1.ply"]


@pytest.mark.parametrize(
    ("status", "blame"), [(400, "prompt"), (413, "prompt"), (422, "prompt"), (401, "endpoint"), (404, "endpoint")]
)
def test_what_is_permanent_is_asked_once(server: ScriptedServer, tmp_path: Path, status: int, blame: str) -> None:
    server.script["p0"] = [Answer(status=status, body=b'{"detail": "no face found"}')] * 3
    summary = run(config_for([server], ["p0"], tmp_path))
    assert counts(summary) == (1, 0, 0, 1, 0)
    assert server.asked("p0") == 1
    assert "no face found" in summary.failures[0].error
    assert ledger_of(tmp_path / "results")[0]["blame"] == blame


def test_failed_prompts_are_tried_again_by_the_next_run_and_saved_ones_are_not(
    server: ScriptedServer, tmp_path: Path
) -> None:
    server.script["p1"] = [Answer(status=500)] * 3
    config = config_for([server], names(3), tmp_path)
    assert counts(run(config)) == (3, 2, 0, 1, 0)
    assert counts(run(config)) == (3, 1, 2, 0, 0)


def test_an_image_that_is_not_there_fails_its_prompt_and_costs_no_generation(
    server: ScriptedServer, tmp_path: Path
) -> None:
    server.script["images/p0"] = [Answer(status=404, body=b"")]
    server.script["images/p1"] = [Answer(status=503, body=b""), Answer(cut=3)]
    summary = run(config_for([server], names(3), tmp_path))
    assert counts(summary) == (3, 2, 0, 1, 0)
    assert "answers 404" in summary.failures[0].error
    assert server.asked("p0") == 0
    assert server.images_asked.count("p1") == 3


def test_local_images_are_sent_and_a_missing_one_fails_alone(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    (tmp_path / "empty.png").touch()
    (tmp_path / "list.txt").write_text("a.png\nmissing.png\nempty.png\n")
    config = config_for([server], [], tmp_path, prompts=[str(tmp_path / "list.txt")])
    summary = run(config)
    assert counts(summary) == (3, 1, 0, 2, 0)
    assert {failure.key: "No such file" in failure.error for failure in summary.failures} == {
        "missing": True,
        "empty": False,
    }
    assert server.received[0].image == IMAGE


def test_the_extension_follows_the_content(server: ScriptedServer, tmp_path: Path) -> None:
    server.script["p1"] = [Answer(body=BOX)]
    run(config_for([server], names(2), tmp_path))
    assert sorted(results_of(tmp_path / "results")) == ["p0.ply", "p1.glb"]


def test_a_result_of_another_format_than_wanted_is_a_failed_attempt(server: ScriptedServer, tmp_path: Path) -> None:
    server.script["p0"] = [Answer(body=BOX)]
    run(config_for([server], ["p0"], tmp_path, output={"verify": "ply", "extension": "splat"}))
    assert list(results_of(tmp_path / "results")) == ["p0.splat"]
    assert "expected a PLY file, got a GLB file" in ledger_of(tmp_path / "results")[0]["attempts"][0]["error"]


def test_a_result_over_max_bytes_is_a_failed_attempt(server: ScriptedServer, tmp_path: Path) -> None:
    summary = run(config_for([server], ["p0"], tmp_path, output={"max_bytes": 100}))
    assert "max_bytes" in summary.failures[0].error


def test_the_ledger_tells_the_whole_story_of_each_prompt(server: ScriptedServer, tmp_path: Path) -> None:
    import hashlib

    run(config_for([server], ["p0"], tmp_path))
    (line,) = ledger_of(tmp_path / "results")
    assert (line["key"], line["index"], line["outcome"], line["file"]) == ("p0", 0, "saved", "p0.ply")
    assert line["prompt"] == server.image("p0")
    assert (line["size_bytes"], line["sha256"]) == (len(splat_ply()), hashlib.sha256(splat_ply()).hexdigest())
    assert (line["format"], line["seed"], line["protocol"]) == ("ply", 42, "404-splat")
    (attempt,) = line["attempts"]
    assert attempt["status"] == 200
    assert attempt["generate_s"] > 0
    assert line["seconds"] >= attempt["generate_s"]


def test_summary_json_names_endpoints_and_failures(servers: Servers, tmp_path: Path) -> None:
    two = servers(2)
    two[1].script["p1"] = [Answer(status=422)]
    run(config_for(two, names(4), tmp_path))
    summary = json.loads((tmp_path / "results" / ".runner" / "summary.json").read_text())
    assert summary["success"] is False
    assert [one["saved"] for one in summary["endpoints"]] == [2, 1]
    assert [one["failed"] for one in summary["endpoints"]] == [0, 1]
    assert summary["failures"][0]["key"] == "p1"
    assert summary["saved"] + summary["skipped"] + summary["failed"] + summary["pending"] == summary["total"] == 4


def test_the_log_has_the_ancestors_lines(servers: Servers, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    two = servers(2)
    two[0].script["p0"] = [Answer(status=503)]
    with caplog.at_level(logging.INFO, logger="runner"):
        run(config_for(two, names(2), tmp_path))
    said = [record.getMessage() for record in caplog.records]
    ports = [server.port for server in two]
    assert said[:6] == [
        "Found 2 prompts to process",
        "Using 2 endpoints for load balancing:",
        f"  1. {two[0].url}",
        f"  2. {two[1].url}",
        "Multi-port mode: 2 endpoints configured",
        "Concurrency: 2 concurrent requests, 4 max in-flight",
    ]
    assert f"Prompt p1 → endpoint port {ports[1]}" in said
    assert f"Prompt p0 → endpoint port {ports[1]} (instead of port {ports[0]})" in said
    assert any(line.startswith(f"Prompt p0 [port {ports[1]}] generation completed in 0.") for line in said)
    assert any(line.startswith(f"Prompt p0 [port {ports[0]}] attempt 1 failed: ") for line in said)
    assert said[-1] == "Generation completed"
    logged = (tmp_path / "results" / ".runner" / "run.log").read_text()
    assert "Found 2 prompts to process" in logged and "Generation completed" in logged


def test_one_endpoint_is_announced_as_one(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="runner"):
        run(config_for([server], names(1), tmp_path))
    assert f"Using single endpoint: {server.url}" in caplog.text


def test_a_folder_made_with_another_seed_is_refused_before_anything_is_sent(
    server: ScriptedServer, tmp_path: Path
) -> None:
    run(config_for([server], names(2), tmp_path))
    with pytest.raises(UsageError, match="p0, p1: made with seed 42, not 7") as refused:
        run(config_for([server], names(3), tmp_path, seed=7))
    assert "--overwrite" in str(refused.value) and "--output-folder" in str(refused.value)
    assert len(server.received) == 2
    (tmp_path / "results" / ".runner" / "run.log").unlink()
    assert counts(run(config_for([server], names(3), tmp_path, seed=7), overwrite=True)) == (3, 3, 0, 0, 0)
    assert counts(run(config_for([server], names(3), tmp_path, seed=7), overwrite=True)) == (3, 0, 3, 0, 0)


def test_an_overwrite_that_fails_leaves_the_older_result(server: ScriptedServer, tmp_path: Path) -> None:
    run(config_for([server], ["p0"], tmp_path))
    server.script["p0"] = [Answer(status=500)] * 3
    run(config_for([server], ["p0"], tmp_path, seed=7), overwrite=True)
    assert results_of(tmp_path / "results") == {"p0.ply": splat_ply()}
    with pytest.raises(UsageError, match="made with seed 42, not 7"):
        run(config_for([server], ["p0"], tmp_path, seed=7))


def test_two_prompts_with_one_key_stop_the_run_before_the_first_request(
    server: ScriptedServer, tmp_path: Path
) -> None:
    config = config_for([server], ["a", "b", "a"], tmp_path)
    with pytest.raises(UsageError, match=r"prompts\.txt:3"):
        run(config)
    assert not server.received and not server.images_asked
    config = config_for([server], ["a", "b", "a"], tmp_path, output={"keys": "index-name"})
    assert run(config).success
    assert sorted(results_of(tmp_path / "results")) == ["000000-a.ply", "000001-b.ply", "000002-a.ply"]


def test_an_empty_list_is_a_success_that_asks_nobody(server: ScriptedServer, tmp_path: Path) -> None:
    summary = run(config_for([server], [], tmp_path))
    assert counts(summary) == (0, 0, 0, 0, 0)
    assert summary.success
    assert not server.received


def test_a_held_folder_is_refused(server: ScriptedServer, tmp_path: Path) -> None:
    config = config_for([server], names(1), tmp_path)
    (tmp_path / "results" / ".runner").mkdir(parents=True)
    with locked(tmp_path / "results" / ".runner" / "lock"), pytest.raises(LockedError, match="held by another run"):
        run(config)
    assert not server.received


def test_max_failures_stops_early_and_leaves_the_rest_pending(server: ScriptedServer, tmp_path: Path) -> None:
    for name in names(20):
        server.script[name] = [Answer(status=422)]
    summary = run(config_for([server], names(20), tmp_path, max_failures=3))
    assert 3 <= summary.failed <= 5
    assert summary.pending == 20 - summary.failed
    assert (summary.stopped, summary.exit_code) == ("failures", 1)


def test_the_time_window_leaves_the_rest_pending_and_says_try_again_later(
    server: ScriptedServer, tmp_path: Path
) -> None:
    hold = threading.Event()
    server.script["p0"] = [Answer(hold=hold)]

    def watch(tally: Tally, event: Event | None) -> None:
        if tally.seconds > 0.35:
            hold.set()

    config = config_for([server], names(9), tmp_path, max_runtime_s=0.3)
    summary = run(config, observe=watch)
    assert summary.saved >= 1, "what is in flight is finished and saved"
    assert summary.failed == 0
    assert summary.pending == 9 - summary.saved > 0
    assert (summary.stopped, summary.exit_code) == ("window", 75)


def test_a_stop_ends_a_back_off_and_leaves_the_prompt_pending(server: ScriptedServer, tmp_path: Path) -> None:
    server.script["p0"] = [Answer(status=503)]
    stop = Stop()

    def watch(tally: Tally, event: Event | None) -> None:
        if event is None:
            stop.ask("SIGTERM")

    retry = {"attempts": 3, "backoff_s": 600, "backoff_max_s": 600}
    summary = run(config_for([server], ["p0"], tmp_path, retry=retry), stop=stop, observe=watch)
    assert counts(summary) == (1, 0, 0, 0, 1)
    assert summary.exit_code == 143
    assert ledger_of(tmp_path / "results")[0]["outcome"] == "interrupted"
    assert summary.seconds < 10


def test_a_disk_that_refuses_ends_the_run_with_the_reason_and_nothing_half_written(
    server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "results" / "p1.ply").mkdir(parents=True)  # a name that can't be replaced
    summary = run(config_for([server], names(2), tmp_path))
    assert summary.error is not None and "p1.ply can't be written" in summary.error
    assert (summary.success, summary.exit_code, summary.stopped) == (False, 1, "error")
    assert summary.saved + summary.pending == 2
    assert not list((tmp_path / "results").glob(".*.part"))


def test_a_folder_that_cant_be_made_is_one_clear_error(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="can't be made"):
        run(config_for([server], names(1), tmp_path, output_folder=str(tmp_path / "file" / "x")))


def test_variables_outside_headers_are_parameters_and_leave_the_ledger_alone(
    server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / "rocket.txt").write_text(f"{server.image('rocket')}\n")
    (tmp_path / "run.yaml").write_text(f'endpoints: "{server.url}"\nprompts: "${{SET}}.txt"\nseed: "${{SEED}}"\n')
    config = load_config(tmp_path / "run.yaml", environ={"SET": "rocket", "SEED": "20250101"})
    assert counts(run(config)) == (1, 1, 0, 0, 0)
    assert counts(run(config)) == (1, 0, 1, 0, 0)
    assert ledger_of(tmp_path / "results")[0]["seed"] == 20250101


def test_an_overwritten_file_is_not_vouched_for_by_the_older_line(server: ScriptedServer, tmp_path: Path) -> None:
    run(config_for([server], ["p0"], tmp_path))
    lines = (tmp_path / "results" / ".runner" / "ledger.jsonl").read_bytes()
    server.script["p0"] = [Answer(body=splat_ply(value=0.7))]
    run(config_for([server], ["p0"], tmp_path, seed=7), overwrite=True)
    (tmp_path / "results" / ".runner" / "ledger.jsonl").write_bytes(lines)  # killed between rename and line
    assert counts(run(config_for([server], ["p0"], tmp_path))) == (1, 1, 0, 0, 0)
    assert results_of(tmp_path / "results")["p0.ply"] == splat_ply()


def test_a_copied_folder_keeps_its_results(server: ScriptedServer, tmp_path: Path) -> None:
    run(config_for([server], names(2), tmp_path))
    shutil.copytree(tmp_path / "results", tmp_path / "copy", copy_function=shutil.copyfile)
    config = config_for([server], names(2), tmp_path, output_folder=str(tmp_path / "copy"))
    assert counts(run(config)) == (2, 0, 2, 0, 0)


@pytest.mark.parametrize(
    "headers",
    [{"Location": "http://[bad"}, {"Location": "/\xff"}, {"Content-Length": "5"}],
    ids=["location", "bytes", "two lengths"],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # urllib3 lets such a socket go
def test_malformed_headers_fail_their_prompt_and_not_the_run(
    server: ScriptedServer, tmp_path: Path, headers: dict[str, str]
) -> None:
    status = 302 if "Location" in headers else 200
    server.script["p0"] = [Answer(status=status, headers=headers)] * 3
    server.script["images/p1"] = [Answer(status=status, headers=headers)] * 3
    summary = run(config_for([server], names(4), tmp_path))
    assert counts(summary) == (4, 2, 0, 2, 0)


def test_an_image_that_drips_is_given_up_after_image_s(server: ScriptedServer, tmp_path: Path) -> None:
    server.script["images/p0"] = [Answer(body=b"x" * 1000, drip_s=0.05)]
    config = config_for([server], ["p0"], tmp_path, timeouts={"image_s": 0.2}, retry={"attempts": 1})
    summary = run(config)
    assert "took longer than image_s (0.2 s)" in summary.failures[0].error
    assert summary.seconds < 10


def test_a_bug_ends_the_run_with_true_counts(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise ZeroDivisionError("here")

    monkeypatch.setattr("runner.formats.verify", broken)
    summary = run(config_for([server], names(5), tmp_path))
    assert (summary.exit_code, summary.total, summary.pending) == (3, 5, 5)
    assert "ZeroDivisionError: here" in str(summary.error)
    assert "Traceback" in (tmp_path / "results" / ".runner" / "run.log").read_text()


def test_an_output_folder_that_vanishes_ends_the_run_with_the_reason(server: ScriptedServer, tmp_path: Path) -> None:
    def watch(tally: Tally, event: Event | None) -> None:
        if tally.saved == 1:
            shutil.rmtree(tmp_path / "results", ignore_errors=True)

    summary = run(config_for([server], names(50), tmp_path), observe=watch)
    assert summary.exit_code == 1
    assert summary.error and "can't be" in summary.error


def test_secrets_of_the_config_reach_the_server_and_nothing_else(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run.yaml").write_text(
        f'endpoints: [{{url: "{server.url}", headers: {{Authorization: "Bearer ${{TOKEN}}"}}}}]\n'
        f"prompts: {tmp_path}/list.txt\n"
    )
    (tmp_path / "list.txt").write_text(f"{server.image('p0')}?sig=sweetsecret\n")
    server.script["p0"] = [Answer(status=401, body=b"bad token: hunter2hunter2")]
    with caplog.at_level(logging.INFO, logger="runner"):
        summary = run(load_config(tmp_path / "run.yaml", environ={"TOKEN": "hunter2hunter2"}))
    assert server.received[0].headers["Authorization"] == "Bearer hunter2hunter2"
    assert summary.failed == 1
    for file in (tmp_path / "results" / ".runner").iterdir():
        assert "hunter2" not in file.read_text(), file.name
        assert "sweetsecret" not in file.read_text(), file.name
    assert "hunter2" not in caplog.text and "sweetsecret" not in caplog.text


def test_events_come_on_the_calling_thread(server: ScriptedServer, tmp_path: Path) -> None:
    seen: list[type] = []

    def watch(tally: Tally, event: Event | None) -> None:
        assert threading.current_thread() is threading.main_thread()
        seen.append(type(event))

    batch_run(config_for([server], names(3), tmp_path), observe=watch)
    assert seen.count(Started) == seen.count(Outcome) == 3


def test_nothing_a_run_writes_is_world_writable_even_without_a_umask(server: ScriptedServer, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        run(config_for([server], names(2), tmp_path, output_folder=str(tmp_path / "new" / "results")))
    finally:
        os.umask(before)
    written = [tmp_path / "new", *(tmp_path / "new").rglob("*")]
    assert {path.name for path in written} >= {"results", "p0.ply", "ledger.jsonl", "run.log", "lock", "config.yaml"}
    assert [path.name for path in written if path.stat().st_mode & stat.S_IWOTH] == []


def test_a_servers_words_with_a_signed_url_are_written_without_the_signature(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.script["p0"] = [Answer(status=422, body=b"can't read https://cdn/p0.png?X-Amz-Signature=sweetsecret")]
    with caplog.at_level(logging.INFO, logger="runner"):
        run(config_for([server], ["p0"], tmp_path))
    assert "https://cdn/p0.png" in ledger_of(tmp_path / "results")[0]["error"]
    for file in (tmp_path / "results" / ".runner").iterdir():
        assert "sweetsecret" not in file.read_text(), file.name
    assert "sweetsecret" not in caplog.text


def test_a_slow_endpoint_is_named_in_log_and_summary(
    servers: Servers, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quick, slow = servers(2)
    slow.generation_s = 0.2
    summary = run(config_for([quick, slow], names(10), tmp_path))
    assert [one.slow for one in summary.endpoints] == [False, True]
    assert summary.endpoints[1].median_s >= 0.2
    told = [record for record in caplog.messages if "is slow" in record]
    assert len(told) == 1 and told[0].startswith(f"Endpoint port {slow.port} is slow: 0.2s a generation")


def test_stealing_is_written_down_and_modulo_is_strict(servers: Servers, tmp_path: Path) -> None:
    for assignment in ("steal", "modulo"):
        quick, slow = servers(2)
        slow.generation_s = 0.1
        folder = tmp_path / assignment
        folder.mkdir()
        assert run(config_for([quick, slow], names(12), folder, assignment=assignment)).success
        moved = [line for line in ledger_of(folder / "results") if line["moved_from"]]
        assert bool(moved) == (assignment == "steal")
        for line in moved:
            assert line["moved_from"] == f"127.0.0.1:{slow.port}" and line["endpoint"] == f"127.0.0.1:{quick.port}"


def outcomes_of(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Return, for each key, what the ledger says became of it where."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in ledger_of(folder):
        found.setdefault(line["key"], []).append((line["outcome"], line["endpoint"]))
    return {key: sorted(said) for key, said in found.items()}


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("half", [True, False], ids=["in its body", "in its generation"])
def test_a_generation_that_hangs_at_the_end_is_repeated_elsewhere(
    servers: Servers, tmp_path: Path, half: bool, processes: int
) -> None:
    two = servers(2)
    hold = threading.Event()
    two[0].script["p0"] = [Answer(hold_body=hold, body=splat_ply(900)) if half else Answer(hold=hold)]
    summary = run(config_for(two, names(2), tmp_path, hedge=True, processes=processes))
    hold.set()
    assert counts(summary) == (2, 2, 0, 0, 0) and summary.exit_code == 0
    stuck, quick = (f"127.0.0.1:{server.port}" for server in two)
    assert outcomes_of(tmp_path / "results") == {
        "p0": [("dropped", stuck), ("saved", quick)],
        "p1": [("saved", quick)],
    }
    (dropped,) = [line for line in ledger_of(tmp_path / "results") if line["outcome"] == "dropped"]
    assert dropped["error"] == f"{quick} was first" and dropped["file"] is None
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [".runner", "p0.ply", "p1.ply"]
    again = run(config_for(two, names(2), tmp_path, hedge=True))
    assert counts(again) == (2, 0, 2, 0, 0)


def test_a_whole_result_that_comes_second_leaves_no_trace_in_the_files(servers: Servers, tmp_path: Path) -> None:
    three = servers(3)
    bodies = [splat_ply(10, value) for value in (0.1, 0.2, 0.3)]
    holds = {(key, lane): threading.Event() for key, home in (("p0", 0), ("p2", 2)) for lane in (home, 1)}
    for (key, lane), hold in holds.items():
        three[lane].script[key] = [Answer(hold=hold, body=bodies[lane])]
    doubled: list[str] = []
    seen: list[list[str]] = []

    def observe(tally: Tally, event: Event | None) -> None:
        match event:
            case Started(instead_of=Endpoint()):
                doubled.append(event.prompt.key)
                holds[doubled[0], 1].set()
            case Outcome(outcome="saved") if event.key in doubled:
                holds[event.key, int(event.key[1])].set()
            case Outcome(outcome="dropped"):
                seen.append(sorted(path.name for path in (tmp_path / "results").iterdir()))
                for hold in holds.values():
                    hold.set()

    summary = run(config_for(three, names(3), tmp_path, hedge=True), observe=observe)
    assert counts(summary) == (3, 3, 0, 0, 0)
    assert seen[0] == [".runner", *sorted(["p1.ply", f"{doubled[0]}.ply"])]
    assert results_of(tmp_path / "results")[f"{doubled[0]}.ply"] == bodies[1]


def test_a_system_that_gives_no_more_threads_ends_the_run_and_fails_no_prompt(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def no_hands(thread: threading.Thread) -> None:
        if thread.name.startswith("hand"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", no_hands)
    summary = run(config_for([server], names(3), tmp_path))
    assert (summary.saved, summary.failed, summary.pending, summary.exit_code) == (0, 0, 3, 1)
    assert summary.error and summary.error.startswith("this system lets the run start no more threads")


@pytest.mark.parametrize("by", ["name", "link"])
def test_a_result_never_replaces_the_image_of_a_prompt(server: ScriptedServer, tmp_path: Path, by: str) -> None:
    images = tmp_path / "images"
    images.mkdir()
    picture = (REPOSITORY / "configs" / "images" / "apple.png").read_bytes()
    for name in ("a", "b"):
        (images / f"{name}.png").write_bytes(picture)
    server.script["a"] = [Answer(body=(REPOSITORY / "configs" / "images" / "cactus.png").read_bytes())]
    folder = images
    if by == "link":
        folder = tmp_path / "link"
        folder.symlink_to(images)
    config = config_from(
        {
            "endpoints": [server.url],
            "prompts": [str(images)],
            "output_folder": str(folder),
            "output": {"verify": "auto"},
        }
    )
    summary = run(config)
    assert (summary.saved, summary.failed, summary.exit_code) == (1, 1, 1)
    assert "its result a.png would replace the image a.png of a prompt" in summary.failures[0].error
    assert server.asked("a") == 1
    assert results_of(images) == {"a.png": picture, "b.png": picture, "b.ply": splat_ply()}
    assert [line["outcome"] for line in ledger_of(images) if line["key"] == "a"] == ["failed"]
    assert not [one for one in images.iterdir() if one.name.endswith(".part")]


def test_an_empty_list_does_not_hide_what_the_folder_is_of(server: ScriptedServer, tmp_path: Path) -> None:
    run(config_for([server], names(2), tmp_path))
    (tmp_path / "none.txt").write_text("")
    run(config_for([server], names(2), tmp_path, prompts=[str(tmp_path / "none.txt")]))
    kept = (tmp_path / "results" / ".runner" / "config.yaml").read_text()
    assert "prompts.txt" in kept and "none.txt" not in kept


def test_a_list_from_a_pipe_is_kept(server: ScriptedServer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    text = "".join(f"{server.image(name)}\n" for name in names(2))
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text(text))
    writer.start()
    run(config_for([server], names(2), tmp_path, prompts=[str(tmp_path / "pipe")]))
    writer.join()
    assert (tmp_path / "results" / ".runner" / "prompts.txt").read_text() == text


@pytest.mark.parametrize("processes", [1, 2])
def test_who_lost_against_another_endpoint_counts_once_although_it_would_replace_an_image(
    servers: Servers, tmp_path: Path, processes: int
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    picture = (REPOSITORY / "configs" / "images" / "apple.png").read_bytes()
    (images / "a.png").write_bytes(picture)
    (images / "b.png").write_bytes(picture)
    two = servers(2)
    hold = threading.Event()
    for server in two:
        server.usual = Answer(body=picture)
    two[0].script["a"] = [Answer(body=picture, hold=hold)]

    def watch(tally: Tally, event: Event | None) -> None:
        if two[1].asked("a"):
            hold.set()

    endpoints = [server.url for server in two]
    options = {"endpoints": endpoints, "prompts": [str(images)], "output_folder": str(images), "hedge": True}
    summary = run(config_from({**options, "processes": processes}), observe=watch)
    assert two[1].asked("a") == 1, "an idle endpoint repeated it"
    assert counts(summary) == (2, 0, 0, 2, 0)
    assert results_of(images) == {"a.png": picture, "b.png": picture}
