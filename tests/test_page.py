"""The page: whole and readable without scripts, deaf to hostile names, within its budgets."""

import base64
import gzip
import json
import random
import re
import string
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import chronicles
import pytest

from runner.chronicle import STATES, Attempts, Chronicle, Turn
from runner.errors import StorageError
from runner.page import packing, verdict, write
from runner.page.links import folder_link
from runner.pictures.records import Gallery, Picture

SECTIONS = "verdict timeline distributions sheet failures changes endpoints".split()
HOSTILE = "</script><img src=x onerror=alert(1)>\"'`{{ 7 * 7 }}\u202e\n\x1b[2J\udcff\u2066"
NO_PICTURES = Gallery()


class Page(HTMLParser):
    """What stands in a page: its elements with their attributes' names, its texts, and what is packed in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.elements: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.values: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.seen: list[str] = []
        self.packed: dict[str, str] = {}
        self._within = ""
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag, tuple(name for name, _ in attrs)] += 1
        self.values += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self._within = dict(attrs).get("id") or tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within:
            self.packed[self._within] = self.packed.get(self._within, "") + data
        elif data.strip():
            self.seen.append(" ".join(data.split()))

    @property
    def words(self) -> str:
        return " ".join(self.seen)

    @property
    def content(self) -> dict[str, object]:
        return json.loads(gzip.decompress(base64.b64decode(self.packed["data"])))


def page_of(tmp_path: Path, told: Chronicle, gallery: Gallery = NO_PICTURES) -> Page:
    path = tmp_path / "report.html"
    assert write(path, told, gallery) == path.stat().st_size
    return Page(path)


def killed() -> Chronicle:
    told = chronicles.chronicle(20, 2, pending=5)
    run = replace(told.runs[0], ended="killed", skipped=None, pending=None, total=None, command=None)
    return replace(told, runs=(run,))


def going() -> Chronicle:
    told = chronicles.chronicle(20, 2, pending=5)
    return replace(told, runs=(replace(told.runs[0], ended=None),))


def resting() -> Chronicle:
    """A folder whose only run asked no endpoint for anything."""
    told = chronicles.chronicle(0, 0, runs=1)
    return replace(told, runs=(replace(told.runs[0], turns=(), seconds=0.0),))


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (chronicles.empty(), "Nothing has run in this folder yet"),
        (resting(), "There was no prompt to work on"),
        (chronicles.chronicle(1, 1), "The one prompt has a verified result"),
        (chronicles.chronicle(12, 4), "All 12 prompts have a verified result"),
        (chronicles.chronicle(10, 3, failing=1.0), "0 of 10 prompts saved · 10 failed"),
        (killed(), "15 of 20 prompts saved · 5 pending"),
        (going(), "15 of 20 prompts saved · 5 still to do"),
        (chronicles.chronicle(1500, 300, runs=2, failing=0.01), "1,485 of 1,500 prompts saved · 15 failed"),
    ],
    ids=["empty", "resting", "one", "demo", "all failed", "killed", "going on", "many endpoints"],
)
def test_every_section_is_there_and_the_verdict_comes_first(tmp_path: Path, told: Chronicle, says: str) -> None:
    page = page_of(tmp_path, told)
    assert [one for one in page.ids if one in SECTIONS] == SECTIONS
    assert page.words.index(says) < page.words.index("A row an endpoint" if told.runs else "No run, no timeline")
    assert len(page.ids) == len(set(page.ids))
    assert len(page.content["rows"]["keys"]) == told.total  # type: ignore[index]


def test_a_killed_run_says_so_and_names_no_count_that_nobody_knows(tmp_path: Path) -> None:
    words = page_of(tmp_path, killed()).words
    assert "was killed: it left no summary" in words
    assert "None" not in words


def unanswered() -> Chronicle:
    """A run that has just begun."""
    told = chronicles.chronicle(20, 2, pending=20)
    turns = tuple(Turn(place, idle={"unheard": 3.0}) for place in range(2))
    run = replace(told.runs[0], ended=None, saved=0, attempts=0, seconds=3.0, bytes=0, share=0.0, turns=turns)
    return replace(told, runs=(run,), attempts=Attempts(), idle=())


def test_a_run_of_which_no_generation_has_ended_shows_no_zero_that_is_a_guess(tmp_path: Path) -> None:
    told = unanswered()
    words = page_of(tmp_path, told).words
    assert "No generation of this run has ended yet" in words and "asked no endpoint" not in words
    figures = {one.name: one.value.replace("\u202f", " ") for one in verdict.figures(told)}
    assert figures == {
        **dict.fromkeys(("Throughput", "Endpoints busy", "Received"), "–"),
        "Duration": "3.00 s",
        "Endpoints": "2",
    }
    assert "0\u202f%" not in words and "at work or idle, it was not heard of since" in words


def test_a_run_from_before_trails_were_kept_is_not_called_killed(tmp_path: Path) -> None:
    told = chronicles.chronicle(5, 2)
    words = page_of(tmp_path, replace(told, runs=(replace(told.runs[0], ended="unknown"),))).words
    assert "no word of how it ended" in words and "killed" not in words


def test_names_from_outside_make_no_element_and_no_attribute(tmp_path: Path) -> None:
    def shape(name: str) -> Page:
        told = chronicles.renamed(chronicles.chronicle(30, 3, runs=2, failing=0.2, pending=2), name)
        told = replace(told, what=name)
        pictures = {row: Picture("text", words=name, flags=((name, name),)) for row in range(30)}
        return page_of(tmp_path, told, Gallery(pictures, (name,)))

    harmless, hostile = shape("harmless"), shape(HOSTILE)
    assert hostile.elements == harmless.elements
    assert hostile.ids == harmless.ids
    assert "<img" not in hostile.text
    assert "<img src=x onerror=alert(1)>" in hostile.words
    assert "{{ 7 * 7 }}" in hostile.words


def test_what_would_turn_or_hide_text_is_spelled_out(tmp_path: Path) -> None:
    told = chronicles.renamed(chronicles.chronicle(6, 2, runs=2, failing=0.5), HOSTILE)
    page = page_of(tmp_path, told, Gallery({0: Picture("text", words=HOSTILE)}))
    hidden = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
    assert not re.search(hidden, page.text)
    assert not re.search(hidden, json.dumps(page.content, ensure_ascii=False))
    assert "\\u202e\\n\\x1b[2J\\udcff\\u2066" in page.words


def test_secrets_of_images_stay_out(tmp_path: Path) -> None:
    told = chronicles.chronicle(5, 2)
    told.rows.images[:] = ["https://images.example/a.png?token=hunter2"] * 5
    page = page_of(tmp_path, told)
    assert "hunter2" not in page.text + json.dumps(page.content)


def test_nothing_in_the_page_asks_the_network(tmp_path: Path) -> None:
    page = page_of(tmp_path, chronicles.chronicle(12, 4, runs=2, failing=0.2))
    links = [value for name, value in page.values if name in ("src", "href", "action", "srcset", "data")]
    assert links and all(one.startswith(("#", "data:")) for one in links)
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:)", page.packed["style"])
    policy = next(value for name, value in page.values if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'; script-src 'nonce-")
    assert "unsafe-eval'" not in policy.replace("'wasm-unsafe-eval'", "")
    assert not [name for name, _ in page.values if name.startswith("on")]


def test_scripts_make_text_only_and_find_what_they_look_for(tmp_path: Path) -> None:
    page = page_of(tmp_path, chronicles.chronicle(12, 4, runs=2))
    script = page.packed["script"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script)
    assert "</script" not in script
    wanted = set(re.findall(r'byId\("([a-z-]+)"\)', script))
    assert wanted and wanted <= set(page.ids)


def test_a_page_is_the_same_but_for_its_nonce(tmp_path: Path) -> None:
    told = chronicles.chronicle(40, 3, runs=2, failing=0.1)
    first, second = page_of(tmp_path, told).text, page_of(tmp_path, told).text
    assert first != second
    nonce = re.compile(r"nonce[-=]\"?[A-Za-z0-9_-]+")
    assert nonce.sub("", first) == nonce.sub("", second)


def test_columns_arrive_as_they_were(tmp_path: Path) -> None:
    told = chronicles.chronicle(50, 3, failing=0.1)
    content = page_of(tmp_path, told).content
    start = content["attempts"]["start_s"]  # type: ignore[index]
    assert start["t"] == "f32"
    assert base64.b64decode(start["b"]) == told.attempts.start_s.tobytes()
    assert content["rows"]["keys"] == told.rows.keys  # type: ignore[index]


def test_the_attempts_of_the_oldest_runs_give_way_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = chronicles.chronicle(400, 3, runs=4, failing=0.1)
    whole = page_of(tmp_path, told)
    monkeypatch.setattr(packing, "PACKED_BYTES", len(whole.packed["data"]) - 2000)
    page = page_of(tmp_path, told)
    assert len(page.packed["data"]) <= packing.PACKED_BYTES
    kept = base64.b64decode(page.content["attempts"]["run"]["b"])  # type: ignore[index]
    first = page.content["first_run"]
    assert first and min(kept[::2]) == first and max(kept[::2]) == 3
    assert f"The attempts of the {first} oldest runs are not in this page" in page.words
    assert page.content["rows"]["prompts"] == whole.content["rows"]["prompts"]  # type: ignore[index]


def test_a_page_with_far_too_much_still_has_every_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = chronicles.chronicle(300, 3, runs=2)
    monkeypatch.setattr(packing, "PACKED_BYTES", 1000)
    page = page_of(tmp_path, told, chronicles.gallery(told, tmp_path / "pictures", drawn=20))
    assert len(page.content["rows"]["keys"]) == 300  # type: ignore[index]
    assert "What was asked is not in this page" in page.words


@pytest.mark.parametrize("flagged", [False, True], ids=["texts", "flagged"])
def test_texts_give_way_before_the_page_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flagged: bool
) -> None:
    told = chronicles.chronicle(600, 2)
    draw = random.Random(1)
    texts = {row: "".join(draw.choices(string.ascii_letters, k=300)) for row in range(600)}
    pictures = {
        row: Picture("text", words="" if flagged and row else words, flags=(("odd", words),) if flagged else ())
        for row, words in texts.items()
    }
    empty = len(page_of(tmp_path, told).packed["data"])
    for most in (60_000, 20_000):
        monkeypatch.setattr(packing, "PACKED_BYTES", empty + most)
        page = page_of(tmp_path, told, Gallery(pictures))
        assert len(page.packed["data"]) <= packing.PACKED_BYTES
        left = page.content["pictures"]["words"]  # type: ignore[index]
        if flagged:
            assert len(page.content["pictures"]["flags"]) == 600  # type: ignore[index]
            assert "Of some results only a word says here what is wrong" in page.words
        elif most == 60_000:
            assert left == {str(row): f"{words[:59]}…" for row, words in texts.items()}
            assert "Of texts only the beginning stands in this page" in page.words
        else:
            assert len(left) == 150
            assert "450 texts can't be read in this page, of others only the beginning" in page.words
    assert pictures[599].flags == ((("odd", texts[599]),) if flagged else ())


def test_pictures_of_what_is_odd_stand_in_the_page_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = chronicles.chronicle(200, 3, failing=0.02, folder=str(tmp_path))
    gallery = chronicles.gallery(told, tmp_path / ".runner" / "pictures", drawn=200)
    monkeypatch.setattr("runner.page.album.THUMBNAILS_BYTES", 60_000)
    page = page_of(tmp_path, told, gallery)
    assert 0 < len(page.packed["thumbnails"]) <= 60_000
    pictures = page.content["pictures"]
    until = memoryview(base64.b64decode(pictures["prompt"]["until"]["b"])).cast("I")  # type: ignore[index]
    failed = [row for row in range(200) if told.rows.state[row] == STATES.index("failed")]
    odd = [row for row in range(200) if gallery.pictures[row].flags]
    assert failed and odd and all(until[row] for row in failed + odd)
    assert not all(until)
    outside = next(row for row in range(200) if not until[row])
    placed = pictures["prompt"]  # type: ignore[index]
    assert placed["folder"] + placed["names"][str(outside)] == f".runner/pictures/{outside:06d}-prompt.webp"


def test_names_that_are_digests_stand_as_bytes_once(tmp_path: Path) -> None:
    told = chronicles.chronicle(3, 1, folder=str(tmp_path))
    cache = tmp_path / ".runner" / "pictures"
    digests = [f"{place:x}" * 64 for place in (1, 2, 3)]
    pictures = {
        row: Picture("mesh", cache / f"{one}.webp", None, cache / f"{one}.js") for row, one in enumerate(digests)
    }
    content = page_of(tmp_path, told, Gallery(pictures)).content["pictures"]
    assert base64.b64decode(content["digests"]["b"]).hex() == "".join(digests)  # type: ignore[index]
    for name, ending in (("thumbnail", ".webp"), ("model", ".js")):
        placed = content[name]  # type: ignore[index]
        assert (placed["folder"], placed["ending"], placed["names"]) == (".runner/pictures/", ending, {})
        assert list(memoryview(base64.b64decode(placed["digest"]["b"])).cast("I")) == [1, 2, 3]


def test_a_model_is_taken_out_of_its_script(tmp_path: Path) -> None:
    told = chronicles.chronicle(3, 1, folder=str(tmp_path))
    page = page_of(tmp_path, told, chronicles.gallery(told, tmp_path / "models", drawn=3, model=b"ply\n1234"))
    model = page.content["pictures"]["model"]  # type: ignore[index]
    begin, end = (memoryview(base64.b64decode(model[name]["b"])).cast("I") for name in ("from", "until"))
    assert base64.b64decode(page.packed["models"][begin[1] : end[1]]) == b"ply\n1234"
    assert model["formats"] == ["ply"]


def test_a_picture_that_is_gone_is_no_reason_to_fail(tmp_path: Path) -> None:
    told = chronicles.chronicle(2, 1, folder=str(tmp_path))
    gone = {0: Picture("splats", thumbnail=tmp_path / "gone.webp", model=tmp_path / "gone.js")}
    assert page_of(tmp_path, told, Gallery(gone)).packed.get("thumbnails", "") == ""


def test_results_are_linked_as_bytes_from_wherever_the_page_lies(tmp_path: Path) -> None:
    told = chronicles.chronicle(3, 1, folder=str(tmp_path / "a b"))
    told.rows.files[0] = "c d#\udcff.ply"
    content = page_of(tmp_path, told).content
    assert content["root"] == "a%20b/"
    assert content["rows"]["files"] == {"0": "c%20d%23%FF.ply"}  # type: ignore[index]
    assert folder_link(tmp_path, tmp_path / "report.html") == ""
    assert folder_link(tmp_path / "out", tmp_path / "pages" / "report.html") == "../out/"


def test_a_disk_that_refuses_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("runner.storage.writing.os.fsync", refuse)
    with pytest.raises(StorageError, match="No space left"):
        write(path, chronicles.empty(), NO_PICTURES)
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_figures_stand_beside_those_of_the_run_before() -> None:
    told = chronicles.chronicle(100, 3, runs=2)
    last, run = told.runs
    slower = replace(run, seconds=200.0, saved=50, share=0.5, bytes=50_000)
    told = replace(told, runs=(replace(last, seconds=100.0, saved=50, share=0.75, bytes=50_000), slower))
    changes = {one.name: (one.change.replace("\u202f", " "), one.tone) for one in verdict.figures(told)}
    assert changes == {
        "Duration": ("▲ 1 min 40 s longer than before", "even"),
        "Throughput": ("▼ 50 % slower than before (30.0)", "bad"),
        "Endpoints busy": ("▼ 25 points less than before", "bad"),
        "Received": ("a result as large as before", "even"),
        "Endpoints": ("as many as before", "even"),
    }


def test_failures_are_told_with_the_servers_words_and_the_command(tmp_path: Path) -> None:
    told = chronicles.chronicle(20, 2, failing=0.2)
    page = page_of(tmp_path, told)
    assert "answers 500: CUDA out of memory. Tried to allocate 2.31 GiB" in page.words
    assert ("data-copy", told.runs[0].command) in page.values
    assert ("href", "#key=chair-0") in page.values
    without = replace(told, runs=(replace(told.runs[0], command=None),))
    assert "The command that began the run, given again, tries just these" in page_of(tmp_path, without).words


def test_failures_have_a_heading_that_people_read(tmp_path: Path) -> None:
    words = page_of(tmp_path, chronicles.chronicle(20, 2, failing=0.2)).words
    assert "answers 500: CUDA out of memory" in words and "the image can't be read" in words
    assert not re.search(r"<\d+>|\bURL\b", words)


def test_the_story_says_what_was_asked_for(tmp_path: Path) -> None:
    told = replace(chronicles.chronicle(12, 4), what="404-splat, seed 42")
    assert "It asked 4 endpoints (404-splat, seed 42) in 1" in page_of(tmp_path, told).words


def test_only_changes_that_there_are_have_a_colour(tmp_path: Path) -> None:
    text = page_of(tmp_path, chronicles.chronicle(12, 4)).text
    assert re.findall(r'class="change (\w+)"', text) == ["saved", "none", "none"]


def test_the_folder_is_named_so_that_it_can_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = page_of(tmp_path, replace(chronicles.chronicle(3, 1), folder="results"))
    assert ("data-copy", str(tmp_path / "results")) in page.values
    assert f"{tmp_path.name}/results" in page.seen


def test_the_table_explains_only_what_it_shows(tmp_path: Path) -> None:
    told = chronicles.chronicle(12, 4)
    shown = set(re.findall(r'<li><i class="why-(\w+)"', page_of(tmp_path, told).text))
    assert shown == {"busy", *(name for turn in told.runs[0].turns for name in turn.idle)}
