"""What a run does when this machine lets it have few open files."""

import subprocess
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest
import yaml
from server import ScriptedServer

from runner.limits import HANDS_EACH, open_files, share_out


def shared(processes: object, endpoints: int, **options: float) -> int:
    usual = {"average_bytes": 0, "processors": 8, "most_files": inf}
    return share_out(processes, [2] * endpoints, **(usual | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 3, 400])
def test_a_given_number_is_kept_as_far_as_there_are_endpoints(count: int) -> None:
    assert shared(count, 4) == min(count, 4)


def test_auto_is_one_until_hands_bytes_or_files_ask_for_more() -> None:
    assert shared("auto", 4) == shared("auto", HANDS_EACH // 2) == 1
    assert shared("auto", HANDS_EACH // 2 + 1) == 2
    assert shared("auto", 1000) == 8 and shared("auto", 1000, processors=2) == 2
    assert shared("auto", 4, average_bytes=100e6) == 1
    assert shared("auto", 16, average_bytes=100e6) == 2
    few = shared("auto", 1000, processors=2, most_files=1024)
    assert few > 2 and open_files(-(-2000 // few)) <= 1024 < open_files(-(-2000 // (few - 1)))


def test_no_number_of_processes_makes_room_for_one_endpoint_that_needs_more_than_all() -> None:
    assert share_out("auto", [1025, 2, 2], average_bytes=0, processors=8, most_files=4096) == 3


def limited(
    limit: str, here: Path, environment: dict[str, str], *arguments: object
) -> subprocess.CompletedProcess[str]:
    command = f'ulimit {limit}; exec "$0" -m runner "$@"'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, *map(str, arguments)],
        cwd=here, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture
def many(server: ScriptedServer, here: Path) -> Callable[..., str]:
    """Writes a config with so many endpoints, and a prompt for each; returns its name."""

    def write(count: int, slots: int = 1) -> str:
        (here / "prompts.txt").write_text("".join(f"{server.image(f'p{i}')}\n" for i in range(count)))
        endpoints = [{"url": f"{server.url}/{number}", "name": f"e{number}"} for number in range(count)]
        endpoints[0]["slots"] = slots
        (here / "run.yaml").write_text(yaml.safe_dump({"endpoints": endpoints, "prompts": "prompts.txt"}))
        return "run.yaml"

    return write


def test_a_soft_limit_is_raised(many, here: Path, environment: dict[str, str]) -> None:
    done = limited("-Sn 64", here, environment, "run", many(30), "-q")
    assert done.returncode == 0, done.stderr


def test_a_hard_limit_that_is_too_low_is_told_before_anything_is_sent(
    many, here: Path, server: ScriptedServer, environment: dict[str, str]
) -> None:
    done = limited("-n 300", here, environment, "run", many(30))
    assert done.returncode == 2
    assert (
        "60 hands (slots + 1 for each endpoint) may need 496 open files in one process, and this system allows 300: "
        "raise that limit (ulimit -Hn, LimitNOFILE= of systemd), set processes: 6, or use fewer "
        "endpoints. Nothing was sent."
    ) in done.stderr
    assert not server.received and not server.probes


def test_what_that_sentence_recommends_works(many, here: Path, environment: dict[str, str]) -> None:
    done = limited("-n 300", here, environment, "run", many(30), "-q", "--set", "processes=6")
    assert done.returncode == 0, done.stderr


def test_the_process_with_most_slots_counts(many, here: Path, environment: dict[str, str]) -> None:
    done = limited("-n 500", here, environment, "run", many(4, slots=100), "--set", "processes=4")
    assert done.returncode == 2
    assert "may need 660 open files in each of 4 processes, and this system allows 500" in done.stderr
    assert "systemd), or use fewer slots or endpoints" in done.stderr, "no number of processes would do"
