"""The report of a real run, as a person gets it: in a real Chromium, from the disk, without a network."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import chronicles
import numpy as np
import pytest
import trimesh
from browser import Tab, fresh_tab
from conftest import REPOSITORY
from server import Answer, ScriptedServer, splat_ply

from runner import run
from runner.chronicle import Server
from runner.cli import main
from runner.config import config_from
from runner.page import write
from runner.pictures.records import Gallery, Picture
from runner.server.image import Subject
from runner.server.splat import generate

pytest_plugins = ["browser"]
pytestmark = pytest.mark.browser

HOSTILE = (
    '"><img src=x onerror=window.pwned=1>',
    "'-window.pwned=1-'",
    "{{ 7 * 7 }}",
    "a\u202egnp.exe",
    "x" * 180,
)
"""Keys as nobody wants them."""

NAMED = ("cushion", "mesh", "blank", "retried", "refused", "late")

WORDS = b"<script>window.pwned=1</script><img src=x onerror=window.pwned=1> no object in it"


def cushion() -> bytes:
    """A cushion of splats from the reference server, red above and blue below."""
    colour = np.zeros((24, 24, 3), dtype="f4")
    colour[:12, :, 0] = colour[12:, :, 2] = 0.9
    mask = np.zeros((24, 24), dtype=bool)
    mask[1:-1, 1:-1] = True
    return generate(Subject(mask=mask, colour=colour, height=np.where(mask, 6.0, 0).astype("f4")), 1)


def blank() -> bytes:
    """Splats none of which can be seen."""
    return splat_ply(200, value=-30.0)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two runs of a list in which something of everything happens, and their report."""
    here = tmp_path_factory.mktemp("night")
    with ScriptedServer() as server:
        server.usual = Answer(body=cushion())
        server.script["mesh"] = [Answer(body=trimesh.creation.box((1, 2, 3)).export(file_type="glb"))]
        server.script["blank"] = [Answer(body=blank())]
        server.script["retried"] = [Answer(status=500)]
        server.script["refused"] = [Answer(status=422, body=WORDS)] * 2
        server.script["late"] = [Answer(status=422, body=b"not yet")]
        picture = (REPOSITORY / "configs/images/apple.png").read_bytes()
        server.script["images/cushion"] = [Answer(body=picture)] * 2
        listed = [{"image": server.image(key)} for key in NAMED]
        listed += [{"image": server.image(f"odd{place}"), "key": key} for place, key in enumerate(HOSTILE)]
        (here / "prompts.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in listed))
        options: dict[str, Any] = {"endpoints": [server.url], "prompts": [str(here / "prompts.jsonl")]}
        options |= {"output_folder": str(here / "out"), "retry": {"backoff_s": 0}}
        for _ in range(2):
            run(config_from(options), command="runner run night.yaml")
        assert main(["report", str(here / "out")]) == 0
    yield here / "out" / "report.html"


@pytest.fixture
def page(browser: Any, night: Path) -> Iterator[Tab]:
    with fresh_tab(browser) as tab:
        tab.open(night)
        tab.page.wait_for_selector("html[data-ready]", state="attached")
        yield tab


def attempts(night: Path) -> dict[str, int]:
    """Count the attempts of each run in the ledger."""
    counts: dict[str, int] = {}
    for line in (night.parent / ".runner" / "ledger.jsonl").read_text().splitlines():
        said = json.loads(line)
        counts[said["run"]] = counts.get(said["run"], 0) + len(said["attempts"])
    return counts


def keys_shown(tab: Tab) -> list[str]:
    return tab.page.eval_on_selector_all(".card", "cards => cards.map(card => card.dataset.key)")


def test_it_opens_from_the_disk_without_a_request_or_a_word_in_the_console(page: Tab, night: Path) -> None:
    page.assert_quiet()
    assert page.files == ["report.html"]
    assert "10 of 11 prompts" in page.page.inner_text("#verdict")


def test_the_timeline_has_a_bar_for_each_attempt_of_the_run_that_is_chosen(page: Tab, night: Path) -> None:
    first, second = attempts(night).values()
    assert (first, second) == (12, 2)
    assert page.page.evaluate("window.report.bars") == second, "the last run is shown at first"
    page.page.select_option("#run", index=0)
    counts = {page.page.evaluate("window.report.bars")}
    page.page.select_option("#run", index=1)
    counts.add(page.page.evaluate("window.report.bars"))
    assert counts == {first, second}
    picture = page.picture("#timeline-view").reshape(-1, 3)
    assert len(np.unique(picture, axis=0)) > 5, "something is drawn"


def test_failures_come_first_and_say_the_servers_words(page: Tab) -> None:
    assert keys_shown(page)[0] == "refused"
    text = page.page.inner_text("#failures")
    assert "<script>window.pwned=1</script>" in text and "422" in text
    assert "runner run night.yaml" in page.page.inner_text("body")


def test_a_search_leaves_the_cards_that_match(page: Tab) -> None:
    assert len(keys_shown(page)) == 11
    page.page.fill("input#search", "CUSH")
    page.expect(".card").to_have_count(1)
    assert keys_shown(page) == ["cushion"]
    page.page.fill("input#search", "nothing like it")
    page.expect(".card").to_have_count(0)


def test_a_result_in_which_nothing_can_be_seen_is_flagged(page: Tab) -> None:
    assert "blank" in page.page.inner_text('.card[data-key="blank"]').replace("blank", "", 1)
    assert "blank" not in page.page.inner_text('.card[data-key="cushion"]')


@pytest.mark.parametrize(("key", "shades"), [("cushion", 30), ("mesh", 3)])
def test_a_click_opens_a_view_in_which_there_is_something(page: Tab, key: str, shades: int) -> None:
    page.page.click(f'.card[data-key="{key}"]')
    page.page.wait_for_selector('dialog#look .stage-3d[data-state="drawn"]')
    picture = page.picture("dialog#look .stage-canvas canvas")
    background = picture[0, 0]
    drawn = (np.abs(picture.astype(int) - background).max(axis=2) > 12).mean()
    assert 0.03 < drawn < 0.95
    assert len(np.unique(picture.reshape(-1, 3) // 8, axis=0)) >= shades
    page.assert_quiet()
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector("dialog#look", state="hidden")


def test_arrows_go_from_card_to_card_as_often_as_they_are_pressed(page: Tab) -> None:
    keys = keys_shown(page)
    page.page.click(f'.card[data-key="{keys[0]}"]')
    for key in keys[1:4]:
        page.page.keyboard.press("ArrowRight")
        page.expect("dialog#look h2").to_have_text(key)


@pytest.mark.parametrize("way", ['#failures a[href="#key=refused"]', '.card[data-key="refused"]'])
def test_the_way_back_closes_a_card(page: Tab, way: str) -> None:
    page.page.click(way)
    page.page.wait_for_selector("dialog#look[open]")
    page.page.go_back()
    page.page.wait_for_selector("dialog#look", state="hidden")


def test_a_file_from_the_disk_is_called_by_its_name_if_it_is_not_the_result(page: Tab, night: Path) -> None:
    page.page.click('.card[data-key="cushion"]')
    says = page.expect("dialog#look .stage-says")
    for key, words in (("cushion", "all of the file"), ("retried", "in retried.ply, another file than this result")):
        page.page.set_input_files("dialog#look input[type=file]", night.with_name(f"{key}.ply"))
        says.to_contain_text(words)


def test_a_file_that_cannot_be_shown_leaves_the_view_as_it_was(page: Tab, tmp_path: Path) -> None:
    (tmp_path / "web.ply").write_bytes(b"<html>502 Bad Gateway</html>")
    page.page.click('.card[data-key="cushion"]')
    page.expect("dialog#look .stage-says").to_contain_text("Drag to turn")
    before = page.picture("dialog#look .stage-canvas canvas")
    page.page.set_input_files("dialog#look input[type=file]", tmp_path / "web.ply")
    page.expect("dialog#look .stage-says").to_contain_text("no PLY")
    page.expect("dialog#look .stage-canvas").to_have_count(1)
    assert (page.picture("dialog#look .stage-canvas canvas") == before).all()


def test_a_result_without_a_picture_or_with_a_damaged_model_can_be_opened_from_the_disk(
    tab: Tab, tmp_path: Path
) -> None:
    told = chronicles.chronicle(3, 1, folder=str(tmp_path))
    told.rows.formats[:] = ["spz"] * 3
    scripts = {1: "runnerModel(", 2: 'runnerModel("0","spz","AAAA");'}
    for row, text in scripts.items():
        (tmp_path / f"{row}.js").write_text(text)
    flags = (("blank", "it is so small"),)
    pictures = {row: Picture("splats", model=tmp_path / f"{row}.js", flags=flags) for row in scripts}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.page.album.MODELS_BYTES", 0)
        write(tmp_path / "report.html", told, Gallery(pictures))
    (tmp_path / "cushion.ply").write_bytes(cushion())
    for row, words in ((1, "is damaged"), (2, "is damaged"), (0, "No small model of it")):
        tab.page.goto("about:blank")
        tab.open(tmp_path / "report.html", f"#key={told.rows.keys[row]}")
        tab.expect("dialog#look .stage-says").to_contain_text(words)
    tab.page.set_input_files("dialog#look input[type=file]", tmp_path / "cushion.ply")
    tab.expect("dialog#look .stage-says").to_contain_text("splats in cushion.ply")
    tab.expect('dialog#look [aria-pressed="true"][title]').to_have_text("−y")


def test_a_view_of_what_is_hardly_to_be_seen_says_so(tab: Tab, tmp_path: Path) -> None:
    told = chronicles.chronicle(1, 1, folder=str(tmp_path))
    model = tmp_path / "one.js"
    model.write_text(f'runnerModel("0","ply","{base64.b64encode(cushion()).decode()}");')
    write(
        tmp_path / "report.html",
        told,
        Gallery({0: Picture("splats", model=model, flags=(("exploded", "2 are far"),))}),
    )
    tab.open(tmp_path / "report.html", f"#key={told.rows.keys[0]}")
    tab.expect("dialog#look .stage-says").to_contain_text("scroll to zoom. It is marked as exploded: 2 are far.")


def test_what_does_not_fit_under_the_verdict_is_hidden_from_everybody(page: Tab) -> None:
    page.page.set_viewport_size({"width": 360, "height": 800})
    page.expect("#strip .made:visible").to_have_count(3)
    tops = page.page.eval_on_selector_all("#strip .made:not([hidden])", "pairs => pairs.map(one => one.offsetTop)")
    assert len(set(tops)) == 1


@pytest.mark.parametrize("name", ["127.0.0.1:18101", "https://gpu-17.a-long-name.datacenter.example:18101/generate"])
def test_the_table_of_endpoints_fits_a_desk(tab: Tab, tmp_path: Path, name: str) -> None:
    told = chronicles.chronicle(40, 4, runs=2, failing=0.1)
    servers = tuple(Server(f"{name}{place}", f"http://{name}/generate") for place in range(4))
    write(tmp_path / "report.html", replace(told, endpoints=servers), Gallery({}))
    tab.page.set_viewport_size({"width": 1280, "height": 800})
    tab.open(tmp_path / "report.html")
    wide, room = tab.page.eval_on_selector("#endpoints .scroll", "box => [box.scrollWidth, box.clientWidth]")
    assert wide <= room


def test_a_view_that_did_not_fit_into_the_page_is_read_from_beside_it(
    browser: Any, night: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.page.album.MODELS_BYTES", 0)
    monkeypatch.setattr("runner.page.album.THUMBNAILS_BYTES", 0)
    aside = night.with_name("small.html")
    assert main(["report", str(night.parent), "--output", str(aside), "--offline"]) == 0
    with fresh_tab(browser) as tab:
        tab.open(aside, "#key=cushion")
        tab.page.wait_for_selector('dialog#look .stage-3d[data-state="drawn"]')
        tab.assert_quiet()
        assert any(name.endswith(".js") for name in tab.files)


def test_nothing_from_outside_becomes_part_of_the_page(page: Tab) -> None:
    odd = [key for key in page.page.evaluate("window.report.told.rows.keys") if key not in NAMED]
    assert len(odd) == len(HOSTILE)
    for key in odd:
        page.page.evaluate("key => location.hash = '#key=' + encodeURIComponent(key)", key)
        page.page.wait_for_selector("dialog#look[open]")
        page.page.keyboard.press("Escape")
        page.page.wait_for_selector("dialog#look", state="hidden")
    assert page.page.evaluate("window.pwned") is None
    assert page.page.evaluate("document.querySelectorAll('[onerror], img[src=x]').length") == 0
    assert "{{ 7 * 7 }}" in page.page.inner_text("#sheet") and "49" not in keys_shown(page)
    assert "\u202e" not in page.page.inner_text("body")
    page.assert_quiet()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_a_desk_by_day_and_by_night(page: Tab, width: int, scheme: Any) -> None:
    page.page.emulate_media(color_scheme=scheme)
    page.page.set_viewport_size({"width": width, "height": 800})
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    corner = page.picture()[-1, 0].mean()
    assert corner > 200 if scheme == "light" else corner < 60


def test_it_can_be_printed(page: Tab) -> None:
    page.page.emulate_media(media="print")
    content = page.page.pdf(format="A4")
    assert content.startswith(b"%PDF") and len(content) > 20_000
    assert not page.page.is_visible("input#search")


def test_without_scripts_it_still_says_how_it_went(browser: Any, night: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(night.as_uri())
        text = page.inner_text("body")
        copies = page.locator("button:visible").count()
    finally:
        context.close()
    assert "10 of 11 prompts" in text and "no object in it" in text and "newly saved" in text
    assert not copies and "Distributions" not in text and text.count("scripts are off") == 1


def test_a_prompts_image_stands_beside_its_result(page: Tab) -> None:
    shown = page.page.eval_on_selector_all(
        '.card[data-key="cushion"] img', "images => images.map(image => [image.complete, image.naturalWidth])"
    )
    assert len(shown) == 2 and all(complete and width > 20 for complete, width in shown)


def test_the_page_is_one_file_and_not_too_long(night: Path) -> None:
    content = night.read_bytes()
    assert len(content) < 4e6
    assert io.BytesIO(content).readline().lower().startswith(b"<!doctype html>")
