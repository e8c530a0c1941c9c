import hashlib
import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import UsageError
from runner.prompts import fingerprint, identity, key_of, naming, prompts_from, read_prompts, shown, sources
from runner.prompts.complaints import Complaints
from runner.prompts.images import Home
from runner.prompts.naming import PLAIN
from runner.records import Prompt


def keys(prompts: Iterable[Prompt]) -> list[str]:
    return [prompt.key for prompt in prompts]


def test_a_text_file_gives_one_prompt_a_line_and_skips_blank_lines_comments_bom_and_crlf(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(
        b"\xef\xbb\xbfhttps://h/a.png\r\n\r\n# a comment\r\n  https://h/b.png  \r\nHTTP://h/c.png"
    )
    prompts = read_prompts(["list.txt"], base=tmp_path)
    assert list(prompts) == [
        Prompt(0, "a", "https://h/a.png"),
        Prompt(1, "b", "https://h/b.png"),
        Prompt(2, "c", "http://h/c.png"),
    ]


def test_a_relative_image_in_a_list_is_relative_to_the_list(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.txt").write_text("../images/chair.png\n")
    assert read_prompts(["lists/list.txt"], base=tmp_path)[0].image == str(tmp_path / "images" / "chair.png")


def test_a_folder_gives_its_images_by_name_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    assert keys(read_prompts([str(tmp_path)], base=Path("/"))) == ["a", "b"]


def test_a_glob_gives_its_matches_in_order_and_the_index_runs_through_all_sources(tmp_path: Path) -> None:
    for name in ("y.png", "x.png", "z.webp"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("https://h/first.png\n")
    prompts = read_prompts(["list.txt", "*.png", "z.webp"], base=tmp_path)
    assert [(prompt.index, prompt.key) for prompt in prompts] == [(0, "first"), (1, "x"), (2, "y"), (3, "z")]


def test_stdin_is_a_text_file(tmp_path: Path) -> None:
    assert keys(read_prompts(["-"], base=tmp_path, stdin=io.StringIO("https://h/a.png\nlocal.png\n"))) == [
        "a",
        "local",
    ]


def test_a_closed_stdin_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="stdin is closed"):
        read_prompts(["-"], base=tmp_path)


def test_a_glob_works_below_a_folder_with_brackets(tmp_path: Path) -> None:
    (tmp_path / "set [v2]").mkdir()
    (tmp_path / "set [v2]" / "a.png").touch()
    assert keys(read_prompts(["*.png"], base=tmp_path / "set [v2]")) == ["a"]


def test_a_file_name_with_a_line_break_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\nb.png").touch()
    with pytest.raises(UsageError, match="control characters"):
        read_prompts([str(tmp_path)], base=tmp_path)


def test_an_empty_list_has_no_prompts(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# nothing yet\n\n")
    assert list(read_prompts(["list.txt"], base=tmp_path)) == []


@pytest.mark.parametrize(
    ("image", "key"),
    [
        ("https://h/set/chair.png", "chair"),
        ("https://h/a.b.png", "a.b"),
        ("https://h/a%20b.png?x=1.2#frag.png", "a b"),
        ("https://h/photo", "photo"),
        ("https://h/dir/", "dir"),
        ("https://h/..%2f..%2fetc%2fpasswd.png", "_.._etc_passwd"),
        ("https://h/%2e%2e", "prompt-"),
        ("https://h/%00%0a.png", "__"),
        ("https://h/.htaccess", "htaccess"),
        ("https://h/.%20.a.png", "a"),
        ("https://h/a%5Cb.png", "a_b"),
        ("https://h/%E2%80%AEgnp.exe.png", "_gnp.exe"),
        ("/data/caf\u00e9.png", "caf\u00e9"),
        ("/data/cafe\u0301.png", "caf\u00e9"),
        ("https://h/CON.png", "_CON"),
        ("https://h/nul.tar.gz", "_nul.tar"),
        ("https://h/lpt1", "_lpt1"),
        ("https://h/console.png", "console"),
        ("https://h/a%EF%BC%8Fb\u2215c.png", "a_b_c"),
        ("https://h/%252e%252e%252fpasswd", "%2e%2e%2fpasswd"),
        ("https://h/a%00b%E2%80%AEgnp.png", "a_b_gnp"),
        ("https://h", "prompt-"),
        ("https://h/?id=3", "prompt-"),
    ],
)
def test_the_key_is_the_last_segment_without_its_last_extension_made_safe(image: str, key: str) -> None:
    made = key_of(image)
    assert made == key or (key.endswith("-") and made.startswith(key))


def test_a_long_name_keeps_its_start_and_stays_different_from_its_like() -> None:
    one, two = key_of(f"https://h/{'é' * 150}1.png"), key_of(f"https://h/{'é' * 150}2.png")
    assert one != two
    assert len(one.encode()) <= 200
    assert one.startswith("é" * 90)


@given(st.text(min_size=1))
def test_no_name_makes_a_key_that_leaves_the_folder_or_hides_in_it(name: str) -> None:
    for image in (f"https://host/{name}", f"/data/{name}"):
        key = key_of(image.replace("\x00", ""))
        assert key
        assert os.sep not in key and "\\" not in key and "\0" not in key
        assert not key.startswith(".")
        assert len(key.encode()) <= 200
        assert key.isprintable() or "\u00a0" in key or any(character.isspace() for character in key)


def test_two_prompts_with_one_key_stop_the_run_naming_both_lines_and_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("https://h/a.png\n# x\nhttps://other/a.jpg\n")
    with pytest.raises(UsageError) as refused:
        read_prompts(["list.txt"], base=tmp_path)
    assert "list.txt:3" in str(refused.value)
    assert "list.txt:1" in str(refused.value)
    assert "index-name" in str(refused.value)


def test_index_name_keys_are_numbered_and_never_clash(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("https://h/a.png\nhttps://other/a.jpg\n")
    assert keys(read_prompts(["list.txt"], base=tmp_path, keys="index-name")) == ["000000-a", "000001-a"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing.txt", "does not exist"),
        ("*.nothing", "matches no file"),
        ("https://h/list.txt", "can't be fetched here"),
        ("ftp://h/list.txt", "an http(s) URL, got ftp://h/list.txt"),
        ("list.csv", "list.csv:1: expected a header with a column prompt, image_url, image or text, got a, b"),
        ("list.xlsx", "got a .xlsx file"),
        ("binary.txt", "expected UTF-8 text"),
        ("scheme.txt", "scheme.txt:1: expected an http or https URL"),
        ("nohost.txt", "names no host"),
        ("control.txt", "control characters"),
    ],
)
def test_what_is_no_prompts_input_is_refused_with_its_place(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "list.csv").write_text("a,b\n")
    (tmp_path / "list.xlsx").touch()
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00a")
    (tmp_path / "scheme.txt").write_text("file:///etc/passwd\n")
    (tmp_path / "nohost.txt").write_text("https:///a.png\n")
    (tmp_path / "control.txt").write_bytes(b"https://h/a\x01.png\n")
    with pytest.raises(UsageError, match=re.escape(said)):
        read_prompts([source], base=tmp_path)


def test_prompts_from_python_follow_the_same_rules(tmp_path: Path) -> None:
    assert prompts_from(["https://h/a.png", "b.png"], base=tmp_path)[1].image == str(tmp_path / "b.png")
    with pytest.raises(UsageError, match="image_urls:2"):
        prompts_from(["https://h/a.png", "ftp://h/b.png"], base=tmp_path, where="image_urls")


def test_the_fingerprint_changes_with_what_shapes_the_result_and_not_with_place_or_signature() -> None:
    prompt = Prompt(0, "a", "https://h/a.png?v=1&X-Amz-Signature=old")
    same = fingerprint(prompt, seed=1, protocol="404-splat")
    assert (
        fingerprint(Prompt(9, "a", "https://h/a.png?v=1&X-Amz-Signature=new"), seed=1, protocol="404-splat") == same
    )
    assert fingerprint(Prompt(0, "a", "https://h/a.png?v=2"), seed=1, protocol="404-splat") != same
    assert fingerprint(prompt, seed=2, protocol="404-splat") != same
    assert fingerprint(prompt, seed=1, protocol="other") != same
    moved = [fingerprint(Prompt(0, "a", f"/{folder}/a.png"), seed=1, protocol="p") for folder in ("x", "y")]
    assert moved[0] == moved[1]


DEVICES = ["", "a.png", "con.png", "CON.x.png", "com1.png", ".png", "..png", "a.png ", " a.png", "x.", "a?b.c"]
SEGMENTS = st.text(st.sampled_from("aZ09._-~ %+@=:?#&/é\\"), max_size=12)


@given(st.sampled_from(["", "/", "https://h/", "http://h.x:80/a/", "HTTP://h/"]), SEGMENTS, st.sampled_from(DEVICES))
def test_a_plain_line_gives_what_the_rules_give(start: str, middle: str, end: str) -> None:
    text = start + middle + end
    plain = PLAIN.fullmatch(text)
    if plain:
        assert plain["key"] == naming._key_of(text)
        home = Home.of("/lists")
        usual = next(sources.lines_of([text], "l", home, Complaints()))
        assert usual[2] == home.image(text, "l")


@pytest.mark.parametrize(
    "line", ["https://h/set/a.b.png", "https://h:8080/a.png?X-Sig=%2F&b=c", "/data/x.png", "a/b c/x.y.png"]
)
def test_the_usual_lines_are_plain(line: str) -> None:
    assert PLAIN.fullmatch(line)


def test_a_repeated_key_in_a_long_list_is_found_and_both_lines_are_named(tmp_path: Path) -> None:
    lines = [f"https://h/p{index}.png" for index in range(2000)] + ["", "https://other/p7.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    with pytest.raises(UsageError, match=r"list.txt:2002: .* 'p7', as that of list.txt:8"):
        read_prompts(["list.txt"], base=tmp_path)


def test_of_a_list_that_is_nothing_but_repetitions_the_first_are_named_and_the_others_counted() -> None:
    with pytest.raises(UsageError) as raised:
        prompts_from(["https://h/chair.png"] * 2000, base=Path("/"))
    first, *_, more, advice = raised.value.problems
    assert first == "prompts:2: its result would have the name 'chair', as that of prompts:1"
    assert (len(raised.value.problems), more) == (22, "… and 1979 more")
    assert advice.startswith("Remove or rename")


def test_a_place_in_a_folder_is_the_file(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name in ("a.jpg", "a.png"):
        (tmp_path / "set" / name).touch()
    with pytest.raises(UsageError, match=r"set/a.png: .* 'a', as that of set/a.jpg"):
        read_prompts(["set"], base=tmp_path)


def test_prompts_are_a_sequence() -> None:
    prompts = prompts_from(["https://h/a.png", "https://h/b.png", "https://h/\ud800.png"], base=Path("/"))
    assert [prompts[0], prompts[1], prompts[-1]] == list(prompts) == prompts[:]
    with pytest.raises(IndexError):
        prompts[3]


@pytest.mark.parametrize("numbered", ["name", "index-name"])
@pytest.mark.parametrize(
    "odd",
    [
        "https://h/up%2Fdown.png",
        "https://h/caf\u00e9.png",
        f"https://h/{'deep/' * 20_000}x.png",
        "/data/caf\udce9.png",
        "/data/.hidden.png",
    ],
)
def test_a_long_list_keeps_every_image_and_its_key(odd: str, numbered: Literal["name", "index-name"]) -> None:
    images = [f"https://h/{number}/p{number}.png" for number in range(1100)]
    images[700] = odd
    prompts = prompts_from(images, base=Path("/"), keys=numbered)
    expected = [
        f"{index:06d}-{key_of(image)}" if numbered == "index-name" else key_of(image)
        for index, image in enumerate(images)
    ]
    assert [packed for _, packed in prompts.named()] == images
    assert [key for key, _ in prompts.named()] == keys(prompts) == expected


@given(
    st.sampled_from(["https://h/", "http://u:p@h/", "https://h/a?v=1&sig=", "/data/", "https://h/#"]),
    st.text(max_size=9),
)
def test_the_fingerprint_is_that_of_the_json_whatever_the_image(start: str, rest: str) -> None:
    document = {"params": {}, "prompt": identity(start + rest), "protocol": "404-splat", "seed": 42}
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    assert fingerprint(Prompt(0, "x", start + rest), seed=42, protocol="404-splat") == digest


def test_the_fingerprints_of_ledgers_that_there_are_stay_valid() -> None:
    prompt = Prompt(0, "a", "https://h/ä.png?v=1&sig=x")
    pinned = "4038c1c81d91142bc7ce14fd01243f11ec44a16722722b94fe31302b7e2383e9"
    assert fingerprint(prompt, seed=42, protocol="404-splat") == pinned
    assert fingerprint(replace(prompt, key="named"), seed=42, protocol="404-splat") == pinned
    assert fingerprint(replace(prompt, seed=42), seed=41, protocol="404-splat") == pinned


def test_the_fingerprint_of_more_than_an_image_holds_text_seed_and_params() -> None:
    prompt = Prompt(0, "a", "/data/ä.png", "more\nlegs", 7, {"b": 1.5, "a": {"d": [None], "c": True}})
    document = {"params": prompt.params, "prompt": "file:ä.png", "protocol": "p", "seed": 7, "text": "more\nlegs"}
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    assert fingerprint(prompt, seed=42, protocol="p") == digest
    document = {"params": {}, "prompt": "", "protocol": "p", "seed": 42, "text": "x"}
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    assert fingerprint(Prompt(0, "x", text="x"), seed=42, protocol="p") == digest


def test_a_text_is_shown_on_one_line_and_cut() -> None:
    assert shown(Prompt(0, "x", text="two\n  lines")) == "two lines"
    assert shown(Prompt(0, "x", text="long " * 100)) == ("long " * 40)[:199] + "…"
    assert shown(Prompt(0, "x", "https://u:p@h/a.png", "text")) == "https://h/a.png"


def test_a_text_from_python_is_one_whatever_it_begins_with(tmp_path: Path) -> None:
    texts = [one.text for one in prompts_from(["a chair", "# x", ""], base=tmp_path, what="text")]
    assert texts == ["a chair", "# x"]
