import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from runner.ledger import History, Recorded, replay
from runner.prompts import Prompts, encode, fingerprint, shown
from runner.records import Prompt
from runner.resume import Standing, standing, unknown_files
from runner.storage import Stamp

PROMPT = Prompt(0, "chair", "https://h/chair.png")


def saved(prompt: Prompt = PROMPT, seed: int = 42, **changes: object) -> Recorded:
    recorded = Recorded(
        key=prompt.key,
        index=prompt.index,
        prompt=shown(prompt),
        outcome="saved",
        endpoint="one",
        fingerprint=fingerprint(prompt, seed=seed, protocol="404-splat"),
        seed=seed,
        protocol="404-splat",
        attempts=0,
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


def history_of(*lines: Recorded) -> History:
    """Return what a ledger with these lines says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        path.write_text("".join(json.dumps(asdict(one) | {"attempts": []}) + "\n" for one in lines))
        history = replay(path)
        saved = dict(history.saved)
    history.saved = saved  # the file is gone
    return history


def prompts_of(*given: Prompt) -> Prompts:
    prompts = Prompts()
    prompts.extend([("list.txt", one.index + 1, encode(one).decode(), one.key) for one in given])
    return prompts


def stand(
    given: Prompt | list[Prompt], recorded: Recorded | list[Recorded] | None, files: dict[str, int], **options: Any
) -> Standing:
    prompts = prompts_of(*(given if isinstance(given, list) else [given]))
    lines = recorded if isinstance(recorded, list) else [recorded] if recorded else []
    usual = {"seed": 42, "protocol": "404-splat", "digest": never}
    usual |= {"stamp": lambda name: Stamp(files[name], 1) if name in files else None} | options
    usual["unchanged"] = lambda name, *stamp: usual["stamp"](name.decode()) == stamp
    return standing(prompts, history_of(*lines), **usual)


def test_done_is_a_ledger_line_and_the_file_of_that_size() -> None:
    assert stand(PROMPT, saved(), {"chair.ply": 7}).done.tolist() == [0]


@pytest.mark.parametrize(
    ("recorded", "files"),
    [(None, {"chair.ply": 7}), (saved(), {}), (saved(), {"chair.ply": 6}), (saved(), {"chair.glb": 7})],
)
def test_one_without_the_other_is_pending(recorded: Recorded | None, files: dict[str, int]) -> None:
    assert stand(PROMPT, recorded, files).pending.tolist() == [0]


def test_the_index_plays_no_part() -> None:
    moved = Prompt(17, "chair", "https://h/chair.png")
    assert stand(moved, saved(), {"chair.ply": 7}).done.tolist() == [0]


def test_a_result_of_another_seed_is_a_conflict_that_says_so_and_overwrite_makes_it_pending() -> None:
    found = stand(PROMPT, saved(seed=41), {"chair.ply": 7})
    assert found.conflict_text([PROMPT]) == ["chair: made with seed 41, not 42"]
    assert not found.pending and not found.done
    assert stand(PROMPT, saved(seed=41), {"chair.ply": 7}, overwrite=True).pending.tolist() == [0]


def test_a_result_of_another_prompt_with_the_same_key_is_a_conflict() -> None:
    found = stand(Prompt(0, "chair", "https://other/chair.png"), saved(), {"chair.ply": 7})
    assert found.conflict_text([PROMPT]) == [
        "chair: made with the prompt https://h/chair.png, not https://other/chair.png"
    ]


def test_a_local_image_counts_as_changed_only_if_its_content_did(tmp_path: Path) -> None:
    import hashlib

    image = tmp_path / "chair.png"
    image.write_bytes(b"pixels")
    prompt = Prompt(0, "chair", str(image))
    noted = {"size_bytes": 6, "mtime_ns": 1, "sha256": hashlib.sha256(b"pixels").hexdigest()}
    recorded = saved(prompt, image=noted)
    assert stand(prompt, recorded, {"chair.ply": 7}).done.tolist() == [0]
    image.write_bytes(b"others")
    assert "another content" in stand(prompt, recorded, {"chair.ply": 7}).conflict_text([prompt])[0]
    image.unlink()
    assert stand(prompt, recorded, {"chair.ply": 7}).done.tolist() == [0]


def test_many_conflicts_of_one_kind_are_one_sentence() -> None:
    prompts = [Prompt(index, f"k{index}", f"https://h/k{index}.png") for index in range(9)]
    files = {f"{prompt.key}.ply": 7 for prompt in prompts}
    found = stand(prompts, [saved(prompt, seed=1) for prompt in prompts], files)
    assert found.conflict_text(prompts) == ["k0, k1, k2 and 6 more: made with seed 1, not 42"]


@pytest.mark.parametrize(("digest", "done"), [("s", True), ("other", False)])
def test_a_file_of_another_time_is_believed_only_if_its_content_is_the_recorded_one(digest: str, done: bool) -> None:
    found = stand(PROMPT, saved(), {}, stamp=lambda name: Stamp(7, 2), digest=lambda name: digest)
    assert (found.done.tolist() == [0], found.pending.tolist() == [0]) == (done, not done)


def test_a_result_that_never_passed_what_is_asked_now_is_pending() -> None:
    unchecked = saved(format="bin")
    assert stand(PROMPT, unchecked, {"chair.ply": 7}, verify="none").done.tolist() == [0]
    assert stand(PROMPT, unchecked, {"chair.ply": 7}, verify="auto").pending.tolist() == [0]
    assert stand(PROMPT, saved(), {"chair.ply": 7}, verify="glb").pending.tolist() == [0]


def test_another_path_with_nothing_there_is_a_mistake_in_the_list_and_not_done(tmp_path: Path) -> None:
    recorded = saved(Prompt(0, "chair", "/old/chair.png"))
    wrong = Prompt(0, "chair", str(tmp_path / "chair.png"))
    assert stand(wrong, recorded, {"chair.ply": 7}).pending.tolist() == [0]


def test_a_short_look_at_the_ledger_says_what_a_long_one_says(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [Prompt(index, f"k{index}", f"https://h/k{index}.png") for index in range(6)]
    lines = [
        saved(one, fingerprint=fingerprint(one, seed=42, protocol="404-splat"), sha256=64 * "0") for one in prompts
    ]
    lines[1] = replace(lines[1], fingerprint=64 * "0", seed=1)
    lines[2] = replace(lines[2], format="bin", file="k2.bin")
    files = {"k0.ply": 7, "k1.ply": 7, "k2.bin": 7, "k3.ply": 8, "k5.ply": 7}
    short = stand(prompts, lines, files)
    monkeypatch.setattr(History, "voucher", lambda *_: lambda *_: False)
    assert short == stand(prompts, lines, files)
    assert (short.done.tolist(), short.pending.tolist()) == ([0, 5], [2, 3, 4])
    assert list(short.conflicts.values()) == [[1]]


def test_files_the_ledger_does_not_know_are_unknown() -> None:
    history = history_of(saved())
    assert unknown_files(history, ["chair.ply", "b.txt", "a.ply"]) == ["a.ply", "b.txt"]


TEXT = Prompt(0, "a-chair", text="a chair")


def test_texts_seeds_and_params_of_a_prompt_are_resumed_as_images_are(tmp_path: Path) -> None:
    local = tmp_path / "x.png"
    local.write_bytes(b"pixels")
    noted = {"size_bytes": 6, "mtime_ns": local.stat().st_mtime_ns, "sha256": "s"}
    for prompt, image in [
        (TEXT, None),
        (replace(PROMPT, seed=7), None),
        (replace(PROMPT, text="more legs", params={"steps": 20}), None),
        (Prompt(0, "named", str(local)), noted),
    ]:
        recorded = made(prompt, image=image)
        assert stand(prompt, recorded, {f"{prompt.key}.ply": 7}).done.tolist() == [0]


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        (replace(TEXT, seed=7), replace(TEXT, seed=8), "seed 7, not 8"),
        (replace(TEXT, seed=7), TEXT, "seed 7, not 42"),
        (replace(TEXT, params={"steps": 1}), replace(TEXT, params={"steps": 2}), "other params"),
        (replace(PROMPT, params={"steps": 1}), PROMPT, "other params"),
        (TEXT, replace(TEXT, text="two chairs"), "the prompt a chair, not two chairs"),
        (replace(PROMPT, text="a"), replace(PROMPT, text="b"), "another text, or other params"),
        (replace(TEXT, text="a" * 300), replace(TEXT, text="a" * 301), "another text, or other params"),
        (PROMPT, replace(TEXT, key="chair"), "the prompt https://h/chair.png, not a chair"),
    ],
)
def test_what_differs_between_two_prompts_of_one_key_is_said(before: Prompt, now: Prompt, difference: str) -> None:
    found = stand(now, made(before), {f"{before.key}.ply": 7})
    assert found.conflict_text([now]) == [f"{now.key}: made with {difference}"]


def made(prompt: Prompt, **changes: object) -> Recorded:
    """Return the line of a result, made with the prompt's own seed if it has one, else with the run's."""
    return replace(saved(prompt, **changes), seed=42 if prompt.seed is None else prompt.seed)
