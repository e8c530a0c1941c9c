import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import REPOSITORY

from runner.errors import LockedError
from runner.ledger import Ledger, locked, replay
from runner.records import Attempt, Outcome
from runner.redact import Redactor
from runner.storage import NO_STAMP, Stamp

SAVED = Outcome(
    key="chair",
    index=3,
    prompt="https://h/chair.png",
    outcome="saved",
    endpoint="one",
    fingerprint="f",
    seed=42,
    protocol="404-splat",
    attempts=(Attempt(1, "one", "2026-01-01T00:00:00.000Z", status=200),),
    file="chair.ply",
    format="ply",
    size_bytes=7,
    mtime_ns=1,
    sha256="s",
)
FAILED = replace(SAVED, outcome="failed", file=None, size_bytes=None, error="500", attempts=SAVED.attempts * 3)


def write(path: Path, *outcomes: Outcome, redact: Redactor | None = None) -> None:
    ledger = Ledger(path, run="r1", redact=(redact or Redactor()).text)
    for outcome in outcomes:
        ledger.append([outcome])
    ledger.close()


def test_what_was_appended_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, SAVED, replace(FAILED, key="lamp"))
    history = replay(path)
    assert history.saved["chair"].file == "chair.ply"
    assert history.saved["chair"].size_bytes == 7
    assert history.failed["lamp"].attempts == 3
    assert history.failed["lamp"].error == "500"
    assert history.unreadable == 0


def test_each_outcome_is_one_line_of_json_naming_its_run(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, replace(SAVED, prompt="https://h/caf\u00e9\n.png"))
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["run"] == "r1"
    assert json.loads(line)["attempts"][0]["status"] == 200


def test_a_line_is_readable_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, run="r1", redact=str)
    ledger.append([SAVED])
    assert "chair" in replay(path).saved
    ledger.close()


def test_a_later_success_forgets_the_failure_and_a_later_failure_keeps_the_result(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, FAILED, SAVED)
    assert dict(replay(path).failed) == {}
    write(path, FAILED)
    assert replay(path).saved["chair"].file == "chair.ply"
    assert replay(path).failed["chair"].error == "500"


@pytest.mark.parametrize("keep", [1, 50, -1])
def test_a_torn_last_line_is_passed_over_and_cut_before_the_next_is_written(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, SAVED)
    whole = path.read_bytes()
    line = whole.replace(b"chair", b"torn")
    path.write_bytes(whole + line[:keep])
    assert replay(path).unreadable == 1 or keep == -1
    write(path, replace(SAVED, key="lamp"))
    history = replay(path)
    assert sorted(history.saved) == ["chair", "lamp"]
    assert history.unreadable == 0


def test_a_ledger_that_is_one_torn_line_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"x" * 200_000)
    write(path, SAVED)
    assert replay(path).unreadable == 0
    assert list(replay(path).saved) == ["chair"]


def test_lines_that_are_no_outcome_are_counted_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, SAVED)
    huge = path.read_bytes().replace(b'"size_bytes":7', b'"size_bytes":' + b"9" * 30).replace(b"chair", b"lamp")
    odd = path.read_bytes().replace(b'"size_bytes":7', b'"size_bytes":7.5').replace(b"chair", b"lamp")
    path.write_bytes(b'{"key": "x"}\nnonsense\n[1]\n\xff\xfe\n' + huge + odd + path.read_bytes())
    assert replay(path).unreadable == 6
    assert list(replay(path).saved) == ["chair"]


@pytest.mark.parametrize("image", [None, {"size_bytes": 5, "mtime_ns": 6, "sha256": 64 * "a"}])
def test_the_usual_line_is_read_without_a_json_parser(
    tmp_path: Path, image: dict[str, object] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, replace(SAVED, fingerprint=64 * "f", sha256=64 * "0", image=image))
    monkeypatch.setattr("runner.ledger.history._recorded", None)
    history = replay(path)
    own = Stamp(5, 6) if image else NO_STAMP

    def vouches(key: bytes, bits: int, image: Stamp, kind: str = "ply", *, there: bool = True) -> bool:
        unchanged = history.voucher([kind], lambda *file: there and file == (b"chair.ply", 7, 1))
        return unchanged(key, bytes([bits] * 32), image)

    assert vouches(b"chair", 255, own)
    assert not vouches(b"chair", 255, own, "glb")
    assert not vouches(b"chair", 0, own)
    assert not vouches(b"chair", 255, Stamp(5, 7))
    assert not vouches(b"chair", 255, own, there=False)
    assert not vouches(b"lamp", 255, own)


def test_no_ledger_is_no_history(tmp_path: Path) -> None:
    assert not replay(tmp_path / "none.jsonl").saved


def test_known_secrets_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, replace(FAILED, error="401: Bearer hunter2hunter2"), redact=Redactor({"TOKEN": "hunter2hunter2"}))
    assert "hunter2" not in path.read_text()
    assert replay(path).failed["chair"].error == "401: Bearer ${TOKEN}"


_HOLD = "import sys; from pathlib import Path; from runner.ledger import locked\n"
_HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def test_a_folder_is_held_by_one_process_and_a_dead_one_holds_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    path = tmp_path / "lock"
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=REPOSITORY,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=f"pid {other.pid} on"), locked(path):
            pass
    finally:
        other.kill()
        other.communicate()
    with locked(path):
        assert "pid" in path.read_text()


def test_the_files_of_all_results_are_known_without_reading_their_lines_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, SAVED, replace(SAVED, key="lamp", file="lamp.bin"), replace(FAILED, key="x"))
    history = replay(path)
    path.unlink()
    assert sorted(filter(None, history.files())) == ["chair.ply", "lamp.bin"]
    assert history.file("x") is None


@pytest.mark.parametrize(
    "edited",
    [
        b'"image":"x"', b'"image":[1]', b'"key":5', b'"key":null', b'"format":5', b'"format":["ply"]',
        b'"fingerprint":null', b'"fingerprint":5', b'"key":"\xff\xfe"', b'"file":7',
    ],
)  # fmt: skip
def test_a_line_that_was_edited_into_something_else_is_passed_over(tmp_path: Path, edited: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, replace(SAVED, fingerprint=64 * "f", sha256=64 * "0"))
    name = edited.partition(b":")[0]
    line = re.sub(name + rb':(?:"[^"]*"|null|[0-9]+)', lambda _: edited, path.read_bytes())
    assert edited in line
    path.write_bytes(line)
    write(path, replace(SAVED, key="lamp"))
    history = replay(path)
    assert (history.unreadable, list(history.saved), list(history.failed)) == (1, ["lamp"], [])


def test_a_line_whose_torn_rest_is_another_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, replace(SAVED, fingerprint=64 * "f"), replace(SAVED, key="lamp"))
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first[: first.index(b'"sha256"') + 12] + second)
    history = replay(path)
    assert history.saved.get("chair") is None
