from dataclasses import replace
from pathlib import Path

import pytest

from runner.ledger import History, Recorded
from runner.prompts import fingerprint
from runner.records import Prompt
from runner.resume import Standing, standing, unknown_files

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
        size_bytes=7,
        sha256="s",
        image=None,
        error=None,
    )
    return replace(recorded, **changes)


def stand(prompt: Prompt, recorded: Recorded | None, files: dict[str, int], **options: object) -> Standing:
    history = History(saved={recorded.key: recorded} if recorded else {})
    return standing([prompt], history, files, seed=42, protocol="404-splat", **options)


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
    files = {f"{prompt.key}.ply": 7 for prompt in prompts}
    found = standing(prompts, history, files, seed=42, protocol="404-splat")
    assert found.conflict_text() == ["k0, k1, k2 and 6 more: made with seed 1, not 42"]


def test_files_of_no_current_prompt_are_unknown() -> None:
    history = History(saved={"chair": saved()})
    assert unknown_files([PROMPT], history, {"chair.ply": 7, "b.txt": 1, "a.ply": 2}) == ["a.ply", "b.txt"]
