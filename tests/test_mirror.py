"""A folder's copy in a bucket: as results arrive, later, after a crash, and when the bucket is not what it was."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ledger_of, results_of
from folders import PLY, Folder
from s3 import client
from s3proxy import S3Proxy
from server import Answer, ScriptedServer, splat_ply

from runner import Summary, batch, run
from runner.cli import main
from runner.config import config_from, load_config
from runner.errors import UsageError
from runner.mirror import Mirror, uploads
from runner.mirror.behind import STATE_FILES
from runner.records import Outcome
from runner.remote import Entry, Store
from runner.settings import Upload
from runner.shards import number_of
from runner.stop import Stop

cluster = pytest.mark.cluster
QUICK = {"attempts": 3, "backoff_s": 0.01, "backoff_max_s": 0.02}
STATE = {f".runner/{name}" for name in ("ledger.jsonl", "lists.jsonl", "runs.jsonl", "config.yaml", "summary.json")}


def there(s3: S3Proxy, bucket: str) -> dict[str, bytes]:
    """Everything in a bucket."""
    listed = client(s3.there).list_objects_v2(Bucket=bucket).get("Contents", [])
    return {one["Key"]: client(s3.there).get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in listed}


@pytest.fixture
def mirrored(server: ScriptedServer, bucket: str, here: Path) -> Callable[..., Summary]:
    """Runs a list of these images, mirrored into the bucket."""

    def go(*names: str, stop: Stop | None = None, to: str | None = None, **options: Any) -> Summary:
        (here / "prompts.txt").write_text("".join(f"{server.image(name)}\n" for name in names))
        upload = {**QUICK, "to": to or f"s3://{bucket}/night"}
        given = {"endpoints": [server.url], "prompts": "prompts.txt", "upload": upload}
        return run(config_from(given | options), stop=stop)

    return go


def test_a_mirrored_run_leaves_a_whole_folder_in_the_bucket(
    s3: S3Proxy, bucket: str, mirrored: Callable[..., Summary], here: Path
) -> None:
    summary = mirrored("a", "b", "c")
    assert summary.success, summary.error
    found = there(s3, bucket)
    results = results_of(here / "results")
    assert set(found) == {f"night/{name}" for name in {*results} | STATE}
    assert {name: found[f"night/{name}"] for name in results} == results
    for name in STATE:
        assert found[f"night/{name}"] == (here / "results" / name).read_bytes()
    assert json.loads(found["night/.runner/summary.json"])["saved"] == 3
    lines = [json.loads(line) for line in (here / "results" / ".runner" / "uploads.jsonl").read_text().splitlines()]
    by_name = {one["file"]: one for one in ledger_of(here / "results")}
    for said in lines[:3]:
        assert (said["size_bytes"], said["sha256"]) == (len(PLY), by_name[said["file"]]["sha256"])
        assert said["url"] == f"s3://{bucket}/night/{said['file']}"


@cluster
def test_results_go_up_while_the_run_goes_on(
    s3: S3Proxy, server: ScriptedServer, mirrored: Callable[..., Summary]
) -> None:
    server.generation_s = 0.2
    mirrored("a", "b", "c", "d")
    results = [key for kind, key in s3.seen if kind == "put" and ".runner" not in key]
    assert len(results) == 4
    at = [number for number, (kind, key) in enumerate(s3.seen) if kind == "put" and "ledger" in key]
    assert at and at[0] > max(number for number, one in enumerate(s3.seen) if one[1] in results)


def test_the_next_run_uploads_only_what_is_missing(
    s3: S3Proxy, bucket: str, mirrored: Callable[..., Summary]
) -> None:
    mirrored("a", "b")
    client(s3.there).delete_object(Bucket=bucket, Key="night/b.ply")
    s3.seen.clear()
    assert mirrored("a", "b", "c").success
    put = [key.rpartition("/")[2] for kind, key in s3.seen if kind == "put" and ".runner" not in key]
    assert sorted(put) == ["b.ply", "c.ply"]
    s3.seen.clear()
    assert mirrored("a", "b", "c").success
    assert sorted(key.rpartition("/")[2] for kind, key in s3.seen if kind == "put") == [
        *("lists.jsonl", "runs.jsonl", "summary.json")  # the ledger is as it was
    ]


@cluster
def test_what_was_there_before_the_mirror_is_caught_up(
    s3: S3Proxy, bucket: str, mirrored: Callable[..., Summary], here: Path
) -> None:
    mirrored("a", "b", upload={})
    assert s3.counts.total() == 0
    assert mirrored("a", "b", "c").success
    assert {"night/a.ply", "night/b.ply", "night/c.ply"} < set(there(s3, bucket))


def test_a_result_that_is_made_again_goes_up_again(
    s3: S3Proxy, server: ScriptedServer, bucket: str, mirrored: Callable[..., Summary], here: Path
) -> None:
    mirrored("a")
    (here / "results" / "a.ply").unlink()
    server.usual = Answer(body=splat_ply(77))
    assert mirrored("a").success
    assert there(s3, bucket)["night/a.ply"] == (here / "results" / "a.ply").read_bytes() == splat_ply(77)


@cluster
def test_a_report_goes_up_too(s3: S3Proxy, bucket: str, mirrored: Callable[..., Summary], here: Path) -> None:
    assert mirrored("a", report=True).warnings == ()
    assert there(s3, bucket)["night/report.html"] == (here / "results" / "report.html").read_bytes()


def test_a_bucket_that_fails_for_a_while_is_tried_again(
    s3: S3Proxy, bucket: str, mirrored: Callable[..., Summary]
) -> None:
    s3.fail("put", "SlowDown", times=2)
    s3.fail("put", "InternalError", times=4, named="b.ply")
    assert mirrored("a", "b", "c").success  # b.ply used all its tries, and went up in the end
    assert {"night/a.ply", "night/b.ply", "night/c.ply"} < set(there(s3, bucket))


@cluster
def test_what_is_not_up_is_an_error_though_all_is_saved_here(
    s3: S3Proxy, bucket: str, mirrored: Callable[..., Summary], here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    s3.fail("put", "InternalError", times=999, named="b.ply")
    summary = mirrored("a", "b", "c")
    assert (summary.saved, summary.pending, summary.success, summary.exit_code) == (3, 0, False, 1)
    assert summary.error.startswith(f"1 result is not in s3://{bucket}/night: s3://{bucket}/night/b.ply can't be")
    assert summary.error.endswith(f"; runner upload results s3://{bucket}/night does it again")
    assert len(results_of(here / "results")) == 3
    assert json.loads((here / "results" / ".runner" / "summary.json").read_text())["error"] == summary.error
    assert any("Not uploaded: s3://" in one.getMessage() for one in caplog.records)
    s3.heal()
    assert mirrored("a", "b", "c").success


def test_a_bucket_that_is_not_there_is_asked_no_more_and_the_run_goes_on(
    s3: S3Proxy, mirrored: Callable[..., Summary]
) -> None:
    summary = mirrored(*"abcdefgh", to="s3://no-such-bucket/night")
    assert (summary.saved, summary.exit_code) == (8, 1)
    assert summary.error.startswith("8 results are not in s3://no-such-bucket/night: ")
    assert "NoSuchBucket" in summary.error
    assert s3.counts.total() < 8


def test_a_dead_bucket_does_not_hold_the_end_of_the_run_for_each_file(
    s3: S3Proxy, mirrored: Callable[..., Summary]
) -> None:
    s3.fail("*", "InternalError", times=9999)
    summary = mirrored(*"abcdefghijklmnop", upload={**QUICK, "to": "s3://bucket-1/n", "at_once": 1})
    assert (summary.saved, summary.exit_code) == (16, 1)
    assert summary.error.startswith("16 results are not in s3://bucket-1/n: s3://bucket-1/n can't be listed: Inter")
    assert s3.counts["put"] <= 3 * 16


@cluster
def test_a_second_signal_does_not_wait_for_uploads(
    s3: S3Proxy, bucket: str, server: ScriptedServer, start: Callable[..., subprocess.Popen[str]], here: Path,
    listed: Callable[..., str],
) -> None:  # fmt: skip
    s3.fail("put", "stall", times=99, named=".ply")
    process = start("run", listed("a", "b", upload=f"s3://{bucket}/night"), "--grace-s", "600")
    assert s3.stalled.wait(30)
    server.wait_for(requests=2)
    process.send_signal(signal.SIGINT)
    while "a second signal" not in (line := process.stderr.readline()):
        assert line
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    answer = json.loads(out)
    assert process.returncode == 130
    assert "not in s3://" in answer["error"] and "not waited for" in answer["error"]
    s3.heal()
    assert client(s3.there).list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


@cluster
def test_uploads_end_with_the_grace_of_a_signal_and_the_next_run_does_the_rest(
    s3: S3Proxy, bucket: str, start: Callable[..., subprocess.Popen[str]], here: Path, listed: Callable[..., str]
) -> None:
    s3.fail("put", "stall", times=99, named=".ply")
    process = start("run", listed("a", "b", upload=f"s3://{bucket}/night"), "--grace-s", "0.3")
    assert s3.stalled.wait(30)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 143 and json.loads(out)["error"]
    s3.heal()
    assert run(load_config("run.yaml")).success
    assert {"night/a.ply", "night/b.ply", "night/.runner/summary.json"} < set(there(s3, bucket))


@cluster
def test_a_killed_run_costs_nothing_but_what_was_in_flight(
    s3: S3Proxy, bucket: str, server: ScriptedServer, start: Callable[..., subprocess.Popen[str]], here: Path,
    listed: Callable[..., str],
) -> None:  # fmt: skip
    s3.fail("put", "stall", times=99, named="b.ply")
    upload = {"to": f"s3://{bucket}/night"}
    process = start("run", listed("a", "b", upload=upload))
    assert s3.stalled.wait(30)
    lines = here / "results" / ".runner" / "uploads.jsonl"
    for _ in range(200):
        if lines.exists() and "a.ply" in lines.read_text():
            break
        threading.Event().wait(0.02)
    process.kill()
    process.communicate()
    with lines.open("a") as file:
        file.write('{"file": "torn')
    s3.heal()
    s3.seen.clear()
    assert run(load_config("run.yaml")).success
    assert [key for kind, key in s3.seen if kind == "put" and key.endswith("a.ply")] == []
    assert "night/b.ply" in there(s3, bucket)
    assert [json.loads(line) for line in lines.read_text().splitlines() if "torn" not in line]


@cluster
def test_upload_brings_a_folder_into_a_bucket_and_says_so(
    s3: S3Proxy, bucket: str, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    folder = Folder(here, "a", "b", "c")
    for key in "abc":
        folder.save(key)
    folder.save("d", several=2)
    assert main(["upload", "results", f"s3://{bucket}/night"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"results: all 5 results are in s3://{bucket}/night; 8 files uploaded (") and err == ""
    assert {"night/a.ply", "night/d-1.ply", "night/.runner/ledger.jsonl"} < set(there(s3, bucket))
    assert main(["upload", "results", f"s3://{bucket}/night", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "success": True, "folder": "results", "to": f"s3://{bucket}/night", "results": 5, "uploaded": 0, "bytes": 0,
        "left": 0, "why": None,
    }  # fmt: skip


def test_upload_says_what_is_not_there(
    s3: S3Proxy, bucket: str, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    folder = Folder(here, "a", "b", upload={**QUICK, "to": f"s3://{bucket}/night"})
    folder.save("a")
    folder.save("b").write_bytes(PLY[:-1] + b"!")  # of the right size, and damaged
    assert main(["upload", "results", "--json"]) == 1
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert (said["success"], said["results"], said["left"]) == (False, 2, 1)
    assert "results/b.ply has changed since it was verified" in said["why"]
    assert err.startswith("warning: Not uploaded: ")
    assert "night/a.ply" in there(s3, bucket) and "night/b.ply" not in there(s3, bucket)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("results",), "name a URL such as s3://bucket/prefix"),
        (("results", "/srv/copy"), "URL: expected a URL such as s3://bucket/prefix, got '/srv/copy'"),
        (("results", "s3://me:secret@bucket"), "credentials come from the environment"),
        (("results", "foo://bucket/x"), "nothing speaks foo://"),
        (("nowhere", "s3://bucket/x"), "nowhere is no output folder of a run"),
        (
            ("s3://me:secret@a", "s3://b"),
            "FOLDER: expected an output folder on this machine, whose results go to URL, got s3://",
        ),
    ],
)
def test_upload_refuses_what_is_no_folder_or_no_url(
    capsys: pytest.CaptureFixture[str], here: Path, arguments: tuple[str, ...], said: str
) -> None:
    Folder(here, "a").save("a")
    assert main(["upload", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err and "secret" not in err


def test_upload_waits_for_no_run(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    from runner.ledger import LOCK, locked

    folder = Folder(here, "a")
    with locked(folder.state / LOCK):
        assert main(["upload", "results", "s3://bucket/x"]) == 75
    assert "is held by another run" in capsys.readouterr().err


def test_another_filesystem_is_a_mirror_as_well(mirrored: Callable[..., Summary], here: Path) -> None:
    assert mirrored("a", "b", to=f"file://{here}/copy").success
    assert results_of(here / "copy") == results_of(here / "results")
    assert {one.name for one in (here / "copy" / ".runner").iterdir()} == {name.split("/")[1] for name in STATE}


def test_the_state_that_goes_up_is_all_that_a_reader_needs() -> None:
    assert {batch.CONFIG, batch.SUMMARY, batch.PROMPTS, batch.RICH_PROMPTS} < {*STATE_FILES}


def test_saved_results_are_never_waited_for_and_never_forgotten(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.mirror import mirror as room

    monkeypatch.setattr(room, "_WAITING_MOST", 2)
    folder = Folder(here, *"abcdef")
    one = Mirror(folder.path, f"file://{here}/copy", Upload(), Stop(), print, run=folder.state)
    for key in "abcdef":
        folder.save(key)
        line = ledger_of(folder.path)[-1]
        one.add(_outcome(line))
    assert len(one._queue) == 2  # nothing has begun, and nothing more is kept in mind
    one.begin()
    one.finish()
    one.close()
    assert sorted(results_of(here / "copy")) == [f"{key}.ply" for key in "abcdef"]


def _outcome(line: dict[str, Any]) -> Outcome:
    kept = ("key", "index", "prompt", "outcome", "endpoint", "fingerprint", "seed", "protocol")
    files = ("file", "format", "size_bytes", "mtime_ns", "sha256")
    return Outcome(**{name: line[name] for name in (*kept, *files)})


def test_the_last_word_on_a_name_counts_and_only_where_its_object_is(tmp_path: Path) -> None:
    from runner.ledger import SavedFile

    first, second = SavedFile("a", "ply", 5, "1" * 64), SavedFile("a", "ply", 5, "2" * 64)
    lines = uploads.Uploads(tmp_path, "s3://b/n")
    lines.add(first)
    lines.add(second)
    assert second in lines.known() and first not in lines.known()
    assert second in lines.known([Entry("a", 5, 0.0)])
    assert second not in lines.known([Entry("a", 6, 0.0)])
    assert second not in lines.known([])
    assert second not in uploads.Uploads(tmp_path, "s3://b/other").known()


def test_each_of_several_runs_has_a_place_of_its_own_in_the_bucket(here: Path) -> None:
    for name in ("red", "blue"):
        (here / f"{name}.txt").write_text("https://h/a.png\n")
    several = {"endpoints": ["http://one:1"], "runs": "*.txt", "output_folder": "results/{stem}"}
    (here / "own.yaml").write_text(json.dumps(several | {"upload": {"to": "s3://b/{stem}", "at_once": 2}}))
    assert [one.settings.upload.to for one in load_config("own.yaml").runs] == ["s3://b/blue", "s3://b/red"]
    assert {one.settings.upload.at_once for one in load_config("own.yaml").runs} == {2}
    (here / "one.yaml").write_text(json.dumps(several | {"upload": "s3://b/night"}))
    with pytest.raises(UsageError, match=r"runs\.upload\.to: expected one for each run, got 's3://b/night'; two of"):
        load_config("one.yaml")


def test_a_bug_ends_the_uploads_and_not_the_run(
    mirrored: Callable[..., Summary], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("runner.mirror.mirror.Store.put", put)
    summary = mirrored("a", "b", to=f"file://{here}/copy")
    assert (summary.saved, summary.exit_code) == (2, 1)
    assert (
        "2 results are not in file://" in summary.error and "a bug in runner: ZeroDivisionError: oh" in summary.error
    )


def test_the_latest_word_on_a_name_counts_whichever_state_has_it(tmp_path: Path) -> None:
    from runner.ledger import SavedFile

    whole, shard = tmp_path / "whole", tmp_path / "1-of-2"
    for state, sha256, at in ((shard, "1" * 64, "10:00:00.000"), (whole, "2" * 64, "11:00:00.000")):
        state.mkdir()
        said = {"file": "a", "size_bytes": 5, "sha256": sha256, "url": "s3://b/n/a", "at": f"2026-11-29T{at}Z"}
        (state / uploads.UPLOADS).write_text(json.dumps(said) + "\n")
    for own in (whole, shard):
        known = uploads.Uploads(own, "s3://b/n", beside=[whole, shard]).known()
        assert SavedFile("a", "ply", 5, "2" * 64) in known
        assert SavedFile("a", "ply", 5, "1" * 64) not in known


# Shards, and a whole list after or before them.

KEYS = [*"abcdefgh"]
OF_TWO = {number: [key for key in KEYS if number_of(key.encode(), 2) == number] for number in (1, 2)}


def in_copy(here: Path) -> dict[str, bytes]:
    """The results in what stands for a bucket, where that is quicker."""
    return results_of(here / "copy") if (here / "copy").exists() else {}


def states_in_copy(here: Path) -> set[str]:
    return {one.parent.relative_to(here / "copy").as_posix() for one in (here / "copy").rglob("ledger.jsonl")}


def test_a_run_of_the_whole_list_catches_up_what_shards_saved(mirrored: Callable[..., Summary], here: Path) -> None:
    for shard in ("1/2", "2/2"):
        assert mirrored(*KEYS, upload={}, shard=shard).success
    summary = mirrored(*KEYS, to=f"file://{here}/copy")
    assert (summary.success, summary.skipped) == (True, len(KEYS))
    assert in_copy(here) == results_of(here / "results") and len(in_copy(here)) == len(KEYS)
    assert states_in_copy(here) == {".runner", ".runner/shards/1-of-2", ".runner/shards/2-of-2"}
    for state in states_in_copy(here):
        assert (here / "copy" / state / "config.yaml").exists() and (here / "copy" / state / "lists.jsonl").exists()


def test_a_shard_catches_up_what_is_of_it_whoever_saved_it(mirrored: Callable[..., Summary], here: Path) -> None:
    assert mirrored(*KEYS, upload={}).success
    assert mirrored(*KEYS, to=f"file://{here}/copy", shard="2/2").success
    assert sorted(in_copy(here)) == [f"{key}.ply" for key in OF_TWO[2]]
    assert {one.name for one in (here / "copy" / ".runner").iterdir()} == {"shards"}
    assert {one.name for one in (here / "copy" / ".runner" / "shards").iterdir()} == {"2-of-2"}
    assert mirrored(*KEYS, to=f"file://{here}/copy", shard="1/2").success
    assert in_copy(here) == results_of(here / "results")


@pytest.mark.parametrize("again", ["1/2", None])
def test_only_the_last_word_on_a_result_goes_up(
    mirrored: Callable[..., Summary], server: ScriptedServer, here: Path, again: str | None
) -> None:
    first = None if again else "1/2"
    assert mirrored(*KEYS, to=f"file://{here}/copy", shard=first).success
    for key in OF_TWO[1]:
        (here / "results" / f"{key}.ply").unlink()
    server.usual = Answer(body=PLY[:-1] + bytes([PLY[-1] ^ 1]))  # of the same size
    assert mirrored(*KEYS, upload={}, shard=again).success
    summary = mirrored(*KEYS, to=f"file://{here}/copy", shard=first)
    assert (summary.success, summary.warnings) == (True, ())
    kept = {name: body for name, body in results_of(here / "results").items() if name in in_copy(here)}
    assert in_copy(here) == kept and len(kept) == len(OF_TWO[1] if first else KEYS)


def test_what_a_run_saves_goes_up_once_though_other_ledgers_are_read_beside_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(here, *"abc")
    folder.save("a")
    other = folder.state / "shards" / "1-of-2"
    other.mkdir(parents=True)
    (folder.state / "ledger.jsonl").rename(other / "ledger.jsonl")
    folder.save("b")
    put: list[str] = []
    store_put = Store.put

    def noted(store: Store, path: str, name: str, **options: Any) -> None:
        put.append(name)
        store_put(store, path, name, **options)

    monkeypatch.setattr(Store, "put", noted)
    with (folder.state / "ledger.jsonl").open("a") as torn:
        torn.write('{"key": "torn')
    one = Mirror(folder.path, f"file://{here}/copy", Upload(), Stop(), print, run=folder.state)
    for key in "ca":  # "a" is made again, before anybody has read what was there
        folder.save(key)
        one.add(_outcome(ledger_of(folder.path)[-1]))
    one.begin()
    one.finish()
    one.close()
    assert sorted(put) == ["a.ply", "b.ply", "c.ply"]
    assert one.standing().results == 3 and one.standing().left == 0


@cluster
def test_what_a_killed_shard_had_not_brought_up_is_brought_up_by_the_whole_list(
    s3: S3Proxy, bucket: str, start: Callable[..., subprocess.Popen[str]], here: Path, listed: Callable[..., str]
) -> None:
    s3.fail("put", "stall", times=99, named=".ply")
    config = listed(*KEYS, upload=f"s3://{bucket}/night")
    process = start("run", config, "--shard", "1/2")
    assert s3.stalled.wait(30)
    process.kill()
    process.communicate()
    s3.heal()
    assert run(load_config("run.yaml")).success
    found = there(s3, bucket)
    results = results_of(here / "results")
    assert {name: found.get(f"night/{name}") for name in results} == results
    assert sorted(results) == [f"{key}.ply" for key in KEYS]
    assert "night/.runner/shards/1-of-2/ledger.jsonl" in found
