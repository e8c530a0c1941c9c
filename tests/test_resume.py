from dataclasses import replace
from pathlib import Path

import pytest

from runner.ledger import History, Recorded
from runner.prompts import fingerprint
from runner.records import Prompt
from runner.resume import Standing, standing, unknown_files
from runner.storage import Stamp

PROMPT = Prompt(0, "chair", "https://h/chair.png")


def saved(prompt: Prompt = PROMPT, seed: int = 42, **changes: object) -> Recorded:
    recorded = Recorded(
        key=prompt.key,
        index=prompt.index,
        prompt=prompt.image,
        outcome="saved",
        endpoint="one",
        fingerprint=fingerprint(prompt, seed=seed, protocol="404-splat"),
        seed=seed,
        protocol="404-splat",
        attempts=1,
        file=f"{prompt.key}.ply",
        format="ply",
        size_bytes=7,
        mtime_ns=1,
        sha256="s",
        image=None,
        error=None,
    )
    return replace(recorded, **changes)


def never(name: str) -> str:
    raise AssertionError(f"{name} was read for nothing")


def stand(prompt: Prompt, recorded: Recorded | None, files: dict[str, int], **options: object) -> Standing:
    history = History(saved={recorded.key: recorded} if recorded else {})
    stamps = {name: Stamp(size, 1) for name, size in files.items()}
    return standing([prompt], history, stamps, **({"seed": 42, "protocol": "404-splat", "digest": never} | options))


def test_done_is_a_ledger_line_and_the_file_of_that_size() -> None:
    assert stand(PROMPT, saved(), {"chair.ply": 7}).done == [PROMPT]


@pytest.mark.parametrize(
    ("recorded", "files"),
    [(None, {"chair.ply": 7}), (saved(), {}), (saved(), {"chair.ply": 6}), (saved(), {"chair.glb": 7})],
)
def test_one_without_the_other_is_pending(recorded: Recorded | None, files: dict[str, int]) -> None:
    assert stand(PROMPT, recorded, files).pending == [PROMPT]


def test_the_index_plays_no_part() -> None:
    moved = Prompt(17, "chair", "https://h/chair.png")
    assert stand(moved, saved(), {"chair.ply": 7}).done == [moved]


def test_a_result_of_another_seed_is_a_conflict_that_says_so_and_overwrite_makes_it_pending() -> None:
    found = stand(PROMPT, saved(seed=41), {"chair.ply": 7})
    assert found.conflict_text() == ["chair: made with seed 41, not 42"]
    assert not found.pending and not found.done
    assert stand(PROMPT, saved(seed=41), {"chair.ply": 7}, overwrite=True).pending == [PROMPT]


def test_a_result_of_another_prompt_with_the_same_key_is_a_conflict() -> None:
    found = stand(Prompt(0, "chair", "https://other/chair.png"), saved(), {"chair.ply": 7})
    assert found.conflict_text() == ["chair: made with the prompt https://h/chair.png, not https://other/chair.png"]


def test_a_local_image_counts_as_changed_only_if_its_content_did(tmp_path: Path) -> None:
    import hashlib

    image = tmp_path / "chair.png"
    image.write_bytes(b"pixels")
    prompt = Prompt(0, "chair", str(image))
    noted = {"size_bytes": 6, "mtime_ns": 1, "sha256": hashlib.sha256(b"pixels").hexdigest()}
    recorded = saved(prompt, image=noted)
    assert stand(prompt, recorded, {"chair.ply": 7}).done == [prompt]
    image.write_bytes(b"others")
    assert "another content" in stand(prompt, recorded, {"chair.ply": 7}).conflict_text()[0]
    image.unlink()
    assert stand(prompt, recorded, {"chair.ply": 7}).done == [prompt]


def test_many_conflicts_of_one_kind_are_one_sentence() -> None:
    prompts = [Prompt(index, f"k{index}", f"https://h/k{index}.png") for index in range(9)]
    history = History(saved={prompt.key: saved(prompt, seed=1) for prompt in prompts})
    files = {f"{prompt.key}.ply": Stamp(7, 1) for prompt in prompts}
    found = standing(prompts, history, files, seed=42, protocol="404-splat", digest=never)
    assert found.conflict_text() == ["k0, k1, k2 and 6 more: made with seed 1, not 42"]


@pytest.mark.parametrize(("digest", "done"), [("s", True), ("other", False)])
def test_a_file_of_another_time_is_believed_only_if_its_content_is_the_recorded_one(digest: str, done: bool) -> None:
    history = History(saved={"chair": saved()})
    later = {"chair.ply": Stamp(7, 2)}
    found = standing([PROMPT], history, later, seed=42, protocol="404-splat", digest=lambda name: digest)
    assert (found.done == [PROMPT], found.pending == [PROMPT]) == (done, not done)


def test_a_result_that_never_passed_what_is_asked_now_is_pending() -> None:
    unchecked = saved(format="bin")
    assert stand(PROMPT, unchecked, {"chair.ply": 7}, verify="none").done == [PROMPT]
    assert stand(PROMPT, unchecked, {"chair.ply": 7}, verify="auto").pending == [PROMPT]
    assert stand(PROMPT, saved(), {"chair.ply": 7}, verify="glb").pending == [PROMPT]


def test_another_path_with_nothing_there_is_a_mistake_in_the_list_and_not_done(tmp_path: Path) -> None:
    recorded = saved(Prompt(0, "chair", "/old/chair.png"))
    wrong = Prompt(0, "chair", str(tmp_path / "chair.png"))
    assert stand(wrong, recorded, {"chair.ply": 7}).pending == [wrong]


def test_files_the_ledger_does_not_know_are_unknown() -> None:
    history = History(saved={"chair": saved()})
    assert unknown_files(history, ["chair.ply", "b.txt", "a.ply"]) == ["a.ply", "b.txt"]
