"""Disks that refuse: full, nearly full, read-only, gone."""

import base64
import json
import logging
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ledger_of, results_of
from server import Answer, ScriptedServer, splat_ply
from simulated import SERVERS, ImageHost

from runner import Summary, run
from runner.config import Config, config_from
from runner.errors import StorageError

MEGABYTE = splat_ply(18_000)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 5 MB. (Only who may mount one has it.)"""
    path = tmp_path / "disk"
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", path], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def config_for(server: ScriptedServer, disk: Path, count: int = 9) -> Config:
    listed = disk.parent / "prompts.txt"
    listed.write_text("".join(f"{server.image(f'p{number}')}\n" for number in range(count)))
    return config_from({"endpoints": server.url, "prompts": str(listed), "output_folder": str(disk / "results")})


def test_a_full_disk_ends_the_run_with_the_reason_and_the_same_command_goes_on_after_space_is_made(
    server: ScriptedServer, disk: Path, runner: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    server.usual = Answer(body=MEGABYTE)
    prompts, folder = disk.parent / "prompts.txt", disk / "results"
    prompts.write_text("".join(f"{server.image(f'p{number}')}\n" for number in range(9)))
    command = ["generate", "--prompts-file", prompts, "--endpoint", server.url, "--output-folder", folder]
    full = runner(*command)
    said = json.loads(full.stdout)
    assert full.returncode == 1
    assert "No space left on device" in said["error"] and "No space left on device" in full.stderr
    assert 1 <= said["saved"] <= 5
    assert said["saved"] + said["pending"] == 9 and said["failed"] == 0
    kept = results_of(folder)
    assert len(kept) == said["saved"]
    assert set(kept.values()) == {MEGABYTE}
    assert not list(folder.glob(".*.part"))
    told = json.loads((folder / ".runner" / "summary.json").read_text())
    assert (told["saved"], told["stopped"]) == (said["saved"], "error")
    assert "Traceback" not in full.stderr

    remount(disk, "size=50m")
    again = runner(*command)
    assert again.returncode == 0, again.stderr
    said = json.loads(again.stdout)
    assert (said["skipped"], said["saved"]) == (len(kept), 9 - len(kept))
    assert set(results_of(folder).values()) == {MEGABYTE}
    assert sorted(line["key"] for line in ledger_of(folder) if line["outcome"] == "saved") == [
        f"p{number}" for number in range(9)
    ]


def documents_for(url: str, prompts: list[str], disk: Path, protocol: object) -> Config:
    listed = disk.parent / "prompts.txt"
    listed.write_text("".join(f"{one}\n" for one in prompts))
    folder = str(disk / "results")
    return config_from({"endpoints": url, "prompts": str(listed), "output_folder": folder, "protocol": protocol})


def assert_the_disk_is_to_blame(summary: Summary, disk: Path) -> None:
    assert summary.exit_code == 1 and "No space left on device" in (summary.error or "")
    assert (summary.failed, summary.saved + summary.pending) == (0, 9)
    assert not [*(disk / "results").glob(".*.part")]


def test_a_disk_that_is_full_of_a_document_is_no_endpoints_fault(server: ScriptedServer, disk: Path) -> None:
    server.usual = Answer(body=json.dumps({"b64": base64.b64encode(MEGABYTE).decode()}).encode())
    result = {"from": "json", "path": "b64", "decode": "base64"}
    protocol = {"request": {"path": "/generate", "body": {"image": "{image.url}"}}, "result": result}
    prompts = [server.image(f"p{number}") for number in range(9)]
    assert_the_disk_is_to_blame(run(documents_for(server.url, prompts, disk, protocol)), disk)


def test_a_disk_that_is_full_of_an_archive_is_no_endpoints_fault(disk: Path) -> None:
    class Large(SERVERS["404-batch"]):  # type: ignore[name-defined, misc]
        @staticmethod
        def make(label: str) -> bytes:
            return b"x = '%b';" % random.Random(label).randbytes(1_000_000).hex().encode()

    with Large() as pod, ImageHost() as host:
        protocol = {"preset": "404-batch", "size": 9, "poll": {"every_s": 0.02}}
        prompts = [host.image(f"p{number}") for number in range(9)]
        assert_the_disk_is_to_blame(run(documents_for(pod.url, prompts, disk, protocol)), disk)


def test_with_no_room_for_one_more_result_nothing_is_sent(server: ScriptedServer, disk: Path) -> None:
    server.usual = Answer(body=MEGABYTE)
    run(config_for(server, disk, count=2))
    (disk / "other").write_bytes(bytes(2_200_000))
    with pytest.raises(StorageError, match=r"only 1\.0 MB are free, and a result needs about 1\.0 MB"):
        run(config_for(server, disk, count=4))
    assert len(server.received) == 2
    assert run(config_for(server, disk, count=2)).success, "what is saved needs no room"


def test_too_little_room_for_all_is_said_before_anything_is_sent(
    server: ScriptedServer, disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.usual = Answer(body=MEGABYTE)
    run(config_for(server, disk, count=1))
    with caplog.at_level(logging.INFO, logger="runner"):
        run(config_for(server, disk))
    assert "8 results of about 1.0 MB need 8 MB, but only 4 MB" in caplog.text
    assert caplog.text.index("the run ends when it is full") < caplog.text.index("p1 → endpoint")


def test_a_read_only_disk_is_one_clear_error(server: ScriptedServer, disk: Path) -> None:
    run(config_for(server, disk, count=1))
    remount(disk, "ro")
    with pytest.raises(StorageError, match="Read-only file system"):
        run(config_for(server, disk, count=2))
    assert len(server.received) == 1


def test_an_output_folder_that_may_not_be_written_is_one_clear_error(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "results").symlink_to("/proc/self")  # not even root may make a folder there
    with pytest.raises(StorageError, match="can't be made"):
        run(config_for(server, tmp_path / "disk", count=1))
    assert not server.received
