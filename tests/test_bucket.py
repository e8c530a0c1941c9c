"""An output folder in a bucket: whole runs against an object store, on one machine and then on another."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from dasks import Dasks
from s3 import KEYS, client
from s3proxy import S3Proxy
from server import Answer, ScriptedServer, splat_ply
from simulated import SERVERS, ImageHost

from runner import Generator, load_config, run
from runner.batch import working
from runner.cli import main
from runner.config import Config, config_from
from runner.errors import LockedError
from runner.ledger import since_of
from runner.records import Outcome, Summary
from runner.remote import Far, FarFolder, Held, Store, working_folder
from runner.remote import lease as leases
from runner.remote.lease import Holder, Lease
from runner.remote.lines import add_missing
from runner.remote.sending import Sending
from runner.remote.state import fetch_all
from runner.settings import Upload
from runner.shards import number_of
from runner.stop import Stop
from runner.storage import OutputFolder
from runner.worker import Fit

QUICK = {"attempts": 2, "backoff_s": 0.01, "backoff_max_s": 0.02}
PLY = splat_ply()
Start = Callable[..., subprocess.Popen[str]]

cluster = pytest.mark.cluster


class Night:
    """A folder in a bucket and a list for it, on machines that know nothing of each other."""

    def __init__(self, here: Path, patch: pytest.MonkeyPatch, server: ScriptedServer, far: str, s3_url: str) -> None:
        self.url = f"{far}/night"
        self._bucket = far.removeprefix("s3://")
        self._here = here
        self._patch = patch
        self._server = server
        self._client = client(s3_url)
        self.machine("one")

    def machine(self, name: str) -> None:
        """Go on, on a machine of this name."""
        self._patch.setenv("XDG_STATE_HOME", str(self._here / name))

    def config(self, names: str, **options: Any) -> Config:
        (self._here / "prompts.txt").write_text("".join(f"{self._server.image(name)}\n" for name in names))
        document = {"endpoints": [self._server.url], "prompts": "prompts.txt", "output_folder": self.url}
        document |= {"retry": {"attempts": 1}, "upload": QUICK} | options
        (self._here / "run.yaml").write_text(yaml.safe_dump(document))
        return config_from(document)

    def run(self, names: str, **options: Any) -> Summary:
        return run(self.config(names, **options))

    @property
    def working(self) -> Path:
        """Where this machine works on it."""
        return working_folder(self.url)

    @property
    def store(self) -> Store:
        return Store(self.url, Upload(**QUICK))

    def there(self) -> dict[str, bytes]:
        """All that is in the bucket, by its name."""
        listed = self._client.list_objects_v2(Bucket=self._bucket, Prefix="night/").get("Contents", [])
        read = {one["Key"]: self._client.get_object(Bucket=self._bucket, Key=one["Key"]) for one in listed}
        return {key.removeprefix("night/"): found["Body"].read() for key, found in read.items()}

    def ledger(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.there()[".runner/ledger.jsonl"].splitlines()]

    def put(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=f"night/{name}", Body=content)

    def remove(self, name: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=f"night/{name}")

    def held(self) -> list[str]:
        """The results that wait here, or went up without a word in the ledger, by their notes."""
        return sorted(one.name[1:-5] for one in (self.working / "held").glob(".*.json"))


@pytest.fixture
def night(here: Path, monkeypatch: pytest.MonkeyPatch, server: ScriptedServer, bucket: str, s3_url: str) -> Night:
    return Night(here, monkeypatch, server, f"s3://{bucket}", s3_url)


# A run


@cluster
def test_a_run_leaves_results_and_state_in_the_bucket_and_nothing_else_here(
    night: Night, caplog: pytest.LogCaptureFixture
) -> None:
    summary = night.run("abc")
    assert (summary.saved, summary.success, summary.output_folder) == (3, True, night.url)
    found = night.there()
    state = {name.removeprefix(".runner/") for name in found if name.startswith(".runner/")}
    assert state == {
        "ledger.jsonl",
        "summary.json",
        "config.yaml",
        "lists.jsonl",
        "runs.jsonl",
        "prompts.txt",
        "run.log",
    }
    assert {name: body for name, body in found.items() if not name.startswith(".")} == dict.fromkeys(
        ("a.ply", "b.ply", "c.ply"), PLY
    )
    assert found[".runner/ledger.jsonl"] == (night.working / ".runner" / "ledger.jsonl").read_bytes()
    assert [one["mtime_ns"] for one in night.ledger()] == [0, 0, 0]
    assert not [*(night.working / "held").iterdir()]
    assert yaml.safe_load(found[".runner/config.yaml"])["output_folder"] == night.url
    assert b"Generation completed" in found[".runner/run.log"]
    assert str(night.working) not in caplog.text
    assert str(night.working).encode() not in b"".join(found.values())


@cluster
def test_a_machine_that_knows_nothing_goes_on_from_the_bucket_alone(night: Night, server: ScriptedServer) -> None:
    night.run("abcd")
    night.machine("two")
    summary = night.run("abcde")
    assert (summary.skipped, summary.saved) == (4, 1)
    assert len(server.received) == 5
    keys = [one["key"] for one in night.ledger()]
    assert (sorted(keys), keys[-1]) == ([*"abcde"], "e")
    night.machine("one")
    assert night.run("abcde").skipped == 5


@cluster
def test_a_result_that_is_gone_or_has_another_size_is_made_again(night: Night, server: ScriptedServer) -> None:
    night.run("abc")
    night.remove("a.ply")
    night.put("b.ply", b"short")
    summary = night.run("abc")
    assert (summary.skipped, summary.saved) == (1, 2)
    assert night.there()["b.ply"] == PLY


@cluster
def test_an_upload_in_parts_of_which_one_fails_is_nobodys_fault(
    night: Night, server: ScriptedServer, s3: S3Proxy
) -> None:
    server.usual = Answer(body=splat_ply(200_000))
    s3.fail("part", "InternalError")
    s3.fail("complete", "reset")
    summary = night.run("a", upload=QUICK | {"part_bytes": 5 * 1024 * 1024})
    assert (summary.saved, s3.counts["part"]) == (1, 4)
    (line,) = night.ledger()
    assert [one["error"] for one in line["attempts"]] == [None]
    assert line["save_s"] > 0
    assert len(night.there()["a.ply"]) == len(server.usual.body) == line["size_bytes"]


@cluster
def test_worker_processes_send_what_they_make(night: Night, servers: Callable[..., list[ScriptedServer]]) -> None:
    two = servers(2)
    summary = night.run("abcdef", endpoints=[one.url for one in two], processes=2)
    assert (summary.saved, summary.success) == (6, True)
    assert {name for name in night.there() if name.endswith(".ply")} == {f"{key}.ply" for key in "abcdef"}
    assert night.held() == []


@cluster
def test_results_made_with_another_seed_are_refused_before_anything_is_sent(night: Night) -> None:
    night.run("ab")
    night.machine("two")
    config = night.config("ab", seed=43)
    with pytest.raises(Exception, match=f"{night.url} holds results made with other parameters"):
        run(config)
    assert run(config, overwrite=True).saved == 2


# What a run leaves when it dies


def test_a_folder_among_the_shards_that_is_none_is_left_in_its_bucket(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket" / ".runner" / "shards"
    for name in ("1-of-2", "lost+found", "3-of-2"):
        (bucket / name).mkdir(parents=True)
        (bucket / name / "config.yaml").write_text("seed: 1\n")
    assert fetch_all(Store(f"file://{tmp_path}/bucket", Upload()), tmp_path / "here")
    assert [one.name for one in (tmp_path / "here" / ".runner" / "shards").iterdir()] == ["1-of-2"]


def _until(is_so: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


@cluster
def test_what_was_held_when_a_run_was_killed_is_sent_and_not_generated_again(
    night: Night, server: ScriptedServer, s3: S3Proxy, start: Start
) -> None:
    night.config("abcdef")
    s3.fail("put", "stall", times=9, named="b.ply")
    s3.fail("put", "stall", times=9, named="c.ply")
    s3.fail("put", "stall", times=9, named="d.ply")
    process = start("run", "run.yaml", env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))})
    _until(lambda: night.held() == [*"bcd"])
    process.send_signal(signal.SIGKILL)
    process.wait()
    s3.heal()
    asked = {name: server.asked(name) for name in "abcdef"}
    assert asked == dict.fromkeys("abcd", 1) | dict.fromkeys("ef", 0)
    summary = night.run("abcdef")
    assert (summary.skipped, summary.saved, summary.success) == (1, 5, True)
    assert all(server.asked(name) == 1 for name in "abcdef")
    lines = {one["key"]: one for one in night.ledger()}
    assert {key: len(one["attempts"]) for key, one in lines.items()} == {
        **dict.fromkeys("aef", 1), **dict.fromkeys("bcd", 0),
    }  # fmt: skip
    assert night.held() == []
    assert [name for name in night.there() if "/ledger/" in name or name.endswith("lock")] == []


@cluster
def test_a_result_that_went_up_without_a_word_in_the_ledger_gets_it_from_the_next_run(
    night: Night, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Held, "keep", lambda self: None)
        night.run("abc")
    (night.working / ".runner" / "ledger.jsonl").unlink()
    night.remove(".runner/ledger.jsonl")
    night.put("b.ply", b"of somebody else")
    summary = night.run("abc")
    assert (summary.saved, summary.success) == (3, True)
    assert [server.asked(name) for name in "abc"] == [1, 2, 1]
    assert night.there()["b.ply"] == PLY


@cluster
def test_an_old_note_does_not_vouch_for_what_another_machine_has_put_there_since(
    night: Night, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Held, "keep", lambda self: None)  # as where who writes the ledger is elsewhere
        night.run("ab", seed=1)
    night.machine("two")
    server.usual = Answer(body=splat_ply(value=0.25))
    run(night.config("ab", seed=2), overwrite=True)
    night.machine("one")
    server.usual = Answer()
    assert run(night.config("ab", seed=1), overwrite=True).saved == 2
    assert [server.asked(name) for name in "ab"] == [3, 3]
    assert {night.there()[f"{one}.ply"] for one in "ab"} == {PLY}


@cluster
def test_a_held_result_that_is_not_whole_any_more_is_made_again(night: Night, server: ScriptedServer) -> None:
    _fail_to_send(night, server, "ab")
    (night.working / "held" / "a.ply").write_bytes(PLY[:-1] + b"x")
    assert night.run("ab").success
    assert [server.asked(name) for name in "ab"] == [2, 1]
    assert night.there()["a.ply"] == PLY


@cluster
def test_a_held_result_of_other_parameters_is_made_again(night: Night, server: ScriptedServer) -> None:
    _fail_to_send(night, server, "ab")
    assert night.run("ab", seed=43).success
    assert [server.asked(name) for name in "ab"] == [2, 2]
    assert {one["seed"] for one in night.ledger()} == {43}


def test_a_machine_without_the_credentials_or_room_for_results_is_told_from_one_that_can_work(
    night: Night, s3: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = Fit(None, night.working, far=Far(night.url, Upload()))
    assert fit.problem() is None
    assert night.there() == {}
    s3.fail("put", "AccessDenied", times=9)
    assert "can't be written" in (fit.problem() or "")
    s3.heal()
    with monkeypatch.context() as patched:
        patched.delenv("AWS_ACCESS_KEY_ID")
        patched.delenv("AWS_SECRET_ACCESS_KEY")
        assert "no credentials were found" in (fit.problem() or "")
    with monkeypatch.context() as patched:
        patched.setattr(OutputFolder, "free_bytes", lambda _: 999_000)
        full = f"{night.working}: only 1.0 MB are free on that machine: make space there"
        assert fit.problem() == full
        shared = Fit(night.working, night.working / ".runner")
        shared.state.mkdir(exist_ok=True)
        with shared.shown():
            assert shared.problem() == full
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    assert "/proc/nowhere" in (fit.problem() or "")


def test_a_machine_that_only_works_for_others_forgets_what_is_long_done(night: Night) -> None:
    held = night.working / "held"
    held.mkdir(parents=True)
    note = json.dumps({"files": [{"file": "a.ply"}]})
    old = [held / ".gone.json", night.working / ".b.01234567.part"]
    new = [held / ".new.json", night.working / ".c.01234567.part"]
    for one in (*old, *new, held / "a.ply", held / ".a.json"):
        one.write_text(note if one.name == ".a.json" else '{"files": []}')
    for one in (*old, held / "a.ply", held / ".a.json"):
        os.utime(one, (time.time() - 7200,) * 2)
    assert Fit(None, night.working, far=Far(night.url)).problem() is None
    assert [one.exists() for one in (*old, *new)] == [False, False, True, True]
    assert (held / "a.ply").exists() and (held / ".a.json").exists(), "that waits for its upload"


@cluster
@pytest.mark.parametrize("who", ["another machine's worker", "a run"])
def test_what_was_made_again_elsewhere_or_waits_for_weeks_is_forgotten(
    night: Night, s3: S3Proxy, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = night.working / "held"
    held.mkdir(parents=True)
    ages_s = {"again": 600, "same": 600, "just": 60, "lonely": 600, "weeks": 31 * 86400}
    for name, age_s in ages_s.items():
        (held / f"{name}.ply").write_text("held")
        (held / f".{name}.json").write_text(json.dumps({"files": [{"file": f"{name}.ply"}]}))
        os.utime(held / f"{name}.ply", (time.time() - age_s,) * 2)
    for name, content in {"again": b"other", "same": b"held", "just": b"other"}.items():
        night.put(f"{name}.ply", content)
    if who == "a run":
        night.run("")
    else:
        assert Fit(None, night.working, far=Far(night.url)).problem() is None
    said = f"Removed what had waited 30 days in {night.working} for its upload: results of 1 prompts"
    assert said in caplog.text
    assert sorted(one.name for one in held.iterdir()) == [
        ".just.json", ".lonely.json", ".same.json", "just.ply", "lonely.ply",
    ]  # fmt: skip
    assert sorted(key.rpartition("/")[2] for kind, key in s3.seen if kind == "head" and key.endswith(".ply")) == [
        "again.ply", "just.ply", "lonely.ply", "same.ply",
    ]  # fmt: skip


def _fail_to_send(night: Night, server: ScriptedServer, names: str) -> Summary:
    """Run until the credentials expire, with the first of these results on their way."""
    hold = threading.Event()
    server.usual = Answer(hold=hold)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(night.run, names, endpoints=[{"url": server.url, "slots": len(names)}])
        server.wait_for(requests=len(names))
        proxy = PROXIES[-1]
        proxy.expired.add(KEYS["AWS_ACCESS_KEY_ID"])
        hold.set()
        summary = running.result()
        proxy.heal()
    server.usual = Answer()
    return summary


PROXIES: list[S3Proxy] = []


@pytest.fixture(autouse=True)
def proxies(s3: S3Proxy) -> None:
    PROXIES[:] = [s3]


@cluster
def test_after_a_credential_expired_the_same_command_sends_what_is_held(
    night: Night, server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = _fail_to_send(night, server, "abc")
    assert (summary.saved, summary.failed, summary.pending, summary.exit_code) == (0, 0, 3, 1)
    assert "ExpiredToken" in summary.error
    assert "waits on this machine: the same command sends it" in summary.error
    assert not [one for one in summary.endpoints if one.outages or one.out]
    assert night.held() == [*"abc"]
    main(["status", night.url])
    assert "; 3 results wait here for their upload: the next run sends them" in capsys.readouterr().out
    summary = night.run("abcd")
    assert (summary.saved, summary.success) == (4, True)
    assert [server.asked(name) for name in "abcd"] == [1, 1, 1, 1]
    assert {one["key"]: one["endpoint"] for one in night.ledger()}.keys() == {*"abcd"}
    assert not [*(night.working / "held").iterdir()]


@cluster
def test_a_bucket_that_refuses_the_ledger_is_said_and_loses_nothing(
    night: Night, server: ScriptedServer, s3: S3Proxy
) -> None:
    s3.fail("put", "AccessDenied", times=9, named="ledger.jsonl")
    summary = night.run("ab")
    assert (summary.saved, summary.exit_code) == (2, 1)
    assert "ledger.jsonl can't be written" in summary.error
    s3.heal()
    assert night.run("ab").success
    night.machine("two")
    assert night.run("ab").skipped == 2
    assert len(server.received) == 2


@cluster
def test_a_second_signal_leaves_what_is_on_its_way_held(night: Night, server: ScriptedServer, s3: S3Proxy) -> None:
    s3.fail("put", "stall", times=9, named=".ply")
    stop = Stop()
    config = night.config("ab")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, config, stop=stop)
        _until(lambda: night.held() == [*"ab"])
        stop.leave("SIGINT")
        summary = running.result()
    assert (summary.saved, summary.failed, summary.pending, summary.exit_code) == (0, 0, 2, 130)
    s3.heal()
    assert night.run("ab").success
    assert [server.asked(name) for name in "ab"] == [1, 1]


def test_a_folder_of_this_machine_can_be_named_by_its_url(night: Night, here: Path, server: ScriptedServer) -> None:
    url = (here / "far").as_uri()
    assert night.run("ab", output_folder=url).success
    night.machine("two")
    assert night.run("abc", output_folder=url).skipped == 2
    assert {one.name for one in (here / "far").iterdir()} == {"a.ply", "b.ply", "c.ply", ".runner"}


@cluster
def test_a_batch_of_which_one_result_is_refused_is_sent_by_the_next_run(
    night: Night, s3: S3Proxy, here: Path
) -> None:
    with SERVERS["404-batch"]() as pod, ImageHost() as host:
        names = ["chair", "lamp", "teapot"]
        (here / "urls.txt").write_text("".join(f"{host.image(name)}\n" for name in names))
        protocol = {"preset": "404-batch", "size": 3, "poll": {"every_s": 0.02}}
        told = {"endpoints": [pod.url], "prompts": "urls.txt", "protocol": protocol}
        s3.fail("put", "AccessDenied", named="lamp.js")
        summary = night.run("", **told)
        assert (summary.saved, summary.pending, summary.exit_code) == (0, 3, 1)
        assert night.held() == names
        assert night.run("", **told).saved == 3
        assert dict(pod.generations) == dict.fromkeys(names, 1)
        assert {name: body for name, body in night.there().items() if name.endswith(".js")} == {
            f"{name}.js": pod.artefact(name, 42) for name in names
        }


@cluster
def test_workers_on_other_machines_send_what_they_make_and_hold_it_there(
    night: Night, servers: Callable[..., list[ScriptedServer]], s3: S3Proxy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    four = servers(4)
    with Dasks(tmp_path_factory.mktemp("dask")) as dasks:
        night.machine("workers")
        dasks.add("a", "b")
        night.machine("one")
        s3.fail("put", "AccessDenied", times=2, named="c.ply")
        told = {"endpoints": [one.url for one in four], "engine": {"kind": "dask", "address": dasks.address}}
        summary = night.run("abcdefgh", **told, health={"all_down_s": 0.5})
        assert (summary.exit_code, "c.ply can't be written" in summary.error) == (75, True), "first a's, then b's"
        assert "generated waits on the machine of Dask worker" in summary.error
        assert night.held() == []
        night.machine("workers")
        assert (night.working / "held" / "c.ply").read_bytes() == PLY
        night.machine("one")
        assert night.run("abcdefgh", **told).success
    assert sum(one.asked("c") for one in four) == 1, "others may have been cut when one of the workers was taken out"
    assert {name for name in night.there() if name.endswith(".ply")} == {f"{name}.ply" for name in "abcdefgh"}


def test_what_a_worker_that_stood_still_has_replaced_is_pending_at_the_end(
    night: Night, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = working.opened_work

    def doubted(this: Any, *rest: Any) -> Any:
        this.doubted.update("abc")
        return opened(this, *rest)

    monkeypatch.setattr(working, "opened_work", doubted)

    def replaced(_: Any, event: Any) -> None:
        if isinstance(event, Outcome) and event.key in "bd":
            night.put(event.file or "", splat_ply(value=0.25))

    summary = run(night.config("abcd"), observe=replaced)
    assert (summary.saved, summary.pending, summary.failed, summary.exit_code) == (3, 1, 0, 1)
    assert "replaced what others made of b: removed" in caplog.text
    assert "b.ply" not in night.there()
    again = night.run("abcd")
    assert (again.saved, again.skipped, again.success) == (1, 3, True)
    assert night.there()["b.ply"] == PLY


# Resume


@cluster
def test_a_resume_asks_no_request_a_prompt(night: Night, here: Path, s3: S3Proxy, server: ScriptedServer) -> None:
    names = [f"p{number:04}" for number in range(1000)]
    config = night.config("")
    prompts = here / "prompts.txt"
    prompts.write_text("".join(f"{server.image(name)}\n" for name in names))
    (night.working / ".runner").mkdir(parents=True)
    _write_ledger(night.working, config)
    with ThreadPoolExecutor(16) as pool:
        [*pool.map(lambda name: night.put(f"{name}.ply", PLY), names)]
    s3.counts.clear()
    summary = run(config)
    assert (summary.skipped, summary.success) == (1000, True)
    assert s3.counts["list"] <= 12
    assert sum(s3.counts.values()) < 40, s3.counts


def _write_ledger(working: Path, config: Config) -> None:
    """Write the ledger of a run that saved every prompt of a config."""
    from collections import deque

    from runner.batch import read_all
    from runner.ledger import Ledger
    from runner.records import Attempt, Task
    from runner.schedule import Lane
    from runner.worker import Outcomes

    (endpoint,) = config.endpoints
    outcomes = Outcomes(lane_names=[endpoint.name], seed=42, protocol=config.protocol.name)
    said = {"format": "ply", "size_bytes": len(PLY), "mtime_ns": 0, "sha256": "0" * 64}
    lines = Ledger(working / ".runner" / "ledger.jsonl", run="2026-01-01T00:00:00.000Z-0000", redact=str)
    for prompt in read_all(config):
        task = Task(prompt, attempts=[Attempt(1, endpoint.name, "")])
        file = f"{prompt.key}.ply"
        lines.append([outcomes.of(task, Lane(endpoint, deque()), "saved", None, file=file, **said)])
    lines.close()


def test_files_of_two_machines_are_joined_in_their_order_and_no_line_stands_twice(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(b"1\n2\n3\n")
    there.write_bytes(b"1\n2\n4\n3\n5\n6")
    add_missing(here, there)
    assert here.read_bytes() == b"1\n2\n3\n4\n5\n"
    add_missing(here, there)
    assert here.read_bytes() == b"1\n2\n3\n4\n5\n"
    add_missing(tmp_path / "new", there)
    assert (tmp_path / "new").read_bytes() == b"1\n2\n4\n3\n5\n"


@cluster
def test_what_a_dead_machine_had_sent_of_its_ledger_is_joined_exactly(night: Night, tmp_path: Path) -> None:
    state, store = tmp_path / "w" / ".runner", night.store
    state.mkdir(parents=True)
    ledger = state / "ledger.jsonl"
    ledger.write_bytes(b"old\n")
    for number, name in enumerate(("run-1", "run-2")):
        sending = Sending(store, tmp_path / "w", ".runner", name, pytest.fail, every_s=0.01)
        sending.begin()
        with open(ledger, "ab", buffering=0) as file:
            for line in range(3):
                file.write(b"%d %d %s\n" % (number, line, b"x" * 300_000))
                sent = ledger.stat().st_size
                _until(lambda sent=sent: _bytes_there(store) == sent)
            file.write(b"torn")
        sending.stop()  # the machine is dead
        with open(ledger, "rb+") as file:
            file.truncate(ledger.stat().st_size - 4)
    assert fetch_all(store, tmp_path / "other")
    other = tmp_path / "other" / ".runner" / "ledger.jsonl"
    assert other.read_bytes() == ledger.read_bytes()
    store.put(str(ledger), ".runner/ledger.jsonl")  # and then died before the parts went
    for name in ("other", "third"):
        assert fetch_all(store, tmp_path / name)
        assert (tmp_path / name / ".runner" / "ledger.jsonl").read_bytes() == ledger.read_bytes()


def _bytes_there(store: Store) -> int:
    parts = [*store.entries(".runner/ledger"), *(one for one in [store.entry(".runner/ledger.jsonl")] if one)]
    return sum(one.size_bytes for one in parts)


# One run at a time


def _holder(**known: Any) -> bytes:
    usual = Holder("0123", "far-away", 7, "2026-01-01T00:00:00.000Z-0000", beat_at="2026-01-01T00:00:30.000Z")
    return json.dumps(asdict(replace(usual, **known))).encode()


def test_a_run_on_another_machine_has_the_folder_for_itself(night: Night, server: ScriptedServer) -> None:
    night.put(".runner/lock", _holder())
    with pytest.raises(
        LockedError, match=f"{night.url} is held by another run .pid 7 on far-away, run 2026"
    ) as found:
        night.run("a")
    assert found.value.exit_code == 75
    assert server.received == []
    assert json.loads(night.there()[".runner/lock"])["host"] == "far-away"


@cluster
def test_the_lock_of_a_dead_process_of_this_machine_does_not_block(night: Night) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    since = since_of(dead.pid)
    dead.wait()
    here = {"host": socket.gethostname(), "place": leases._place()}
    night.put(".runner/lock", _holder(pid=dead.pid, since=since, **here))
    night.put(".runner/lock-claim", _holder(pid=dead.pid, since=since, **here))  # it died as it took the lock over
    assert night.run("a").success
    night.put(".runner/lock", _holder(pid=os.getppid(), since=since_of(os.getppid()), **here))
    with pytest.raises(LockedError):
        night.run("a")


@cluster
def test_a_lock_that_nobody_renews_is_taken_over_and_its_holder_hears_of_it(night: Night) -> None:
    night.put(".runner/lock", _holder())
    with pytest.raises(LockedError, match="on far-away"):
        Lease(night.store, ".runner", "second", stale_s=3600).take()
    third = Lease(night.store, ".runner", "third", stale_s=-1)
    third.take()
    third.renew()
    assert (json.loads(night.there()[".runner/lock"])["run"], third.lost) == ("third", "")
    night.put(".runner/lock", _holder())
    third.renew()
    assert third.lost.startswith(f"{night.url} was taken over by another run (pid 7 on far-away")
    third.release()
    assert [name for name in night.there() if "lock" in name] == [".runner/lock"]


def test_a_run_whose_lock_was_taken_ends(
    night: Night, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.01)
    hold = threading.Event()
    server.usual = Answer(hold=hold)
    check = FarFolder.check
    seen: list[bool] = []

    def checked(self: FarFolder) -> None:
        if not seen:
            seen.append(True)
            self._lease.lost = f"{night.url} was taken over by another run"
        check(self)

    monkeypatch.setattr(FarFolder, "check", checked)
    threading.Timer(1, hold.set).start()
    summary = night.run("ab")
    assert summary.error == f"{night.url} was taken over by another run; this one has ended"
    assert summary.exit_code == 1


@cluster
def test_shards_share_the_folder_and_the_whole_list_waits_for_them(
    night: Night, server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    night.put(".runner/shards/1-of-2/lock", _holder())
    for shard in (None, "1/2", "1/3"):
        with pytest.raises(LockedError, match="pid 7 on far-away"):
            night.run("abcdef", shard=shard)
    assert [name for name in night.there() if name.endswith("lock")] == [".runner/shards/1-of-2/lock"]
    second = night.run("abcdef", shard="2/2")
    night.remove(".runner/shards/1-of-2/lock")
    night.machine("two")
    first = night.run("abcdef", shard="1/2")
    assert (first.success, second.success, first.saved + second.saved) == (True, True, 6)
    assert ".runner/shards/2-of-2/ledger.jsonl" in night.there()
    night.machine("three")
    assert night.run("abcdef").skipped == 6
    assert len(server.received) == 6
    assert main(["status", night.url]) == 0
    assert f"{night.url}: 6 total, 6 saved" in capsys.readouterr().out


@cluster
def test_from_python_results_go_into_a_bucket_and_a_shard_does_its_share(
    night: Night, server: ScriptedServer
) -> None:
    generator = Generator(server.url, output_folder=night.url)
    summary = generator.run([server.image("a"), server.image("b")])
    assert (summary.saved, summary.success, summary.output_folder) == (2, True, night.url)
    assert {"a.ply", "b.ply", ".runner/ledger.jsonl"} <= {*night.there()}
    night.config("abcd")
    config = load_config("run.yaml", {"shard": "1/2", "engine": {"kind": "local"}})
    own = [key for key in "abcd" if number_of(key.encode(), 2) == 1]
    assert run(config).total == len(own)


# Commands


@cluster
def test_commands_look_at_a_folder_in_a_bucket_from_any_machine(
    night: Night, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    night.run("abc")
    night.machine("two")
    assert main(["status", night.url]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{night.url}: 3 total, 3 saved, 0 failed, 0 missing, 0 earlier, 0 unknown\n")
    assert " GB free here, where results wait for the bucket\n" in said
    assert main(["verify", night.url]) == 0
    night.put("a.ply", PLY[:-1] + b"x")
    night.remove("b.ply")
    night.put("mine.txt", b"notes")
    assert main(["verify", night.url]) == 1
    out = capsys.readouterr().out
    assert "damaged     a.ply: its content is not what was saved (another SHA-256)" in out
    assert "missing     b.ply" in out
    assert main(["verify", night.url, "--discard"]) == 1
    assert "a.ply" not in night.there()
    capsys.readouterr()
    assert main(["prune", night.url]) == 0
    assert f"Going by the prompts of {night.url}/.runner/prompts.txt. Nothing was removed" in capsys.readouterr().out
    assert main(["prune", night.url, "--yes"]) == 0
    assert {name for name in night.there() if "/" not in name} == {"c.ply"}
    capsys.readouterr()
    assert main(["run", "run.yaml", "--dry-run"]) == 0
    assert "3 prompts: 1 saved, 2 pending" in capsys.readouterr().out
    assert not [*night.working.glob("**/.reading-*")]


@cluster
def test_a_report_is_written_into_the_bucket_with_pictures_of_what_is_there(
    night: Night, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    night.run("ab")
    night.machine("two")
    assert main(["report", night.url]) == 0
    assert capsys.readouterr().out.startswith(f"{night.url}/report.html: all 2 prompts have a verified result")
    assert b"<html" in night.there()["report.html"]
    assert [*(night.working / ".runner" / "pictures").glob("*.webp")]
    assert main(["report", night.url, "--output", "page.html"]) == 0
    assert (here / "page.html").exists()
    assert main(["status", night.url]) == 0
    assert "0 unknown" in capsys.readouterr().out


def test_a_url_with_nothing_there_is_no_folder_of_a_run(night: Night, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "report", "verify", "prune"):
        assert main([command, night.url]) == 2
        said = f"runner: error: {night.url} is no output folder of a run: it has no .runner/config.yaml\n"
        assert capsys.readouterr().err == said
    assert not night.working.exists()


@cluster
def test_status_knows_of_a_run_on_another_machine(
    night: Night, server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    night.run("a")
    name = "2099-01-01T00:00:00.000Z-0000"
    night.put(".runner/runs.jsonl", json.dumps({"run": name, "what": "began", "at": ""}).encode() + b"\n")
    lines = night.there()[".runner/ledger.jsonl"]
    night.put(f".runner/ledger/{name}-000001.jsonl", lines.replace(night.ledger()[0]["run"].encode(), name.encode()))
    assert main(["status", night.url]) == 0
    assert "left no summary (killed?)" in capsys.readouterr().out
    night.put(".runner/lock", _holder(run=name))
    assert main(["status", night.url]) == 0
    assert "killed" not in capsys.readouterr().out
