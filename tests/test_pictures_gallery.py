"""The gallery: what is drawn, kept and thrown away; which results are odd; and what goes wrong around it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from server import Answer, ScriptedServer
from shapes import ball, image, sphere, splat_ply

from runner.errors import ImageError
from runner.pictures import EXPLODED, UNREADABLE, Gallery, Wanted, drawers, gallery, prompts
from runner.pictures.drawing import serve
from runner.pictures.entries import VERSION, Entry
from runner.pictures.jobs import Job, answer_of
from runner.pictures.oddities import odd_sizes
from runner.pictures.prompts import Downloads, job_of
from runner.pictures.store import Store
from runner.storage import OutputFolder

KEEP = Path(".runner/pictures")


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Folder:
    """An output folder with results, and how often one was drawn."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wanted: list[Wanted] = []
        self.told: list[tuple[int, int]] = []

    def add(self, name: str, content: bytes, *, image: str = "", sha256: str | None = None) -> Wanted:
        (self.path / name).write_bytes(content)
        key = hash_of(content) if sha256 is None else sha256
        one = Wanted(len(self.wanted), self.path / name, name.rpartition(".")[2], key, image)
        self.wanted.append(one)
        return one

    def look(self, wanted: Sequence[Wanted] | None = None, **options: Any) -> Gallery:
        """Return the gallery; ``told`` is what was said of its progress."""
        self.told = []
        usual = {"most": 100, "offline": False, "observe": lambda *one: self.told.append(one)}
        return gallery(OutputFolder(self.path), self.wanted if wanted is None else wanted, **(usual | options))

    @property
    def drawn(self) -> int:
        return len(self.told)

    def kept(self) -> set[str]:
        return {file.name for file in (self.path / KEEP).iterdir()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder whose results are drawn in this process, which is quicker, unless ``drawing`` was called."""
    monkeypatch.setattr(drawers._Drawer, "draw", drawn_here)
    return Folder(tmp_path)


def drawn_here(drawer: Any, job: Job) -> Any:
    answers = io.BytesIO()
    serve(drawer._folder, io.BytesIO(job.line()), answers)
    _, answer = answers.getvalue().splitlines(keepends=True)
    return answer_of(answer)


ELSEWHERE = drawers._Drawer.draw


def drawing(monkeypatch: pytest.MonkeyPatch, code: str = "") -> None:
    """Have processes draw, which run this first; ``look`` is theirs to change."""
    usual = drawers._code
    change = f"import os, time\nimport runner.pictures.drawing as drawing\nlook = drawing.look\n{code}\n"
    monkeypatch.setattr(drawers._Drawer, "draw", ELSEWHERE)
    monkeypatch.setattr(drawers, "_code", lambda: usual().replace("main(sys", f"{change}main(sys"))


SPLATS, MESH, PICTURE = splat_ply(ball(300)), sphere(1).export(file_type="glb"), image()


def test_every_kind_of_result_is_drawn_once_and_kept(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing(monkeypatch)
    folder.add("a.ply", SPLATS)
    folder.add("b.glb", MESH)
    folder.add("c.png", PICTURE)
    folder.add("d.txt", b"hello")
    folder.add("again.ply", SPLATS)
    folder.add("no-hash.png", image(size=(90, 90)), sha256="")
    found = folder.look()
    assert [found.pictures[row].kind for row in range(6)] == ["splats", "mesh", "image", "text", "splats", "image"]
    assert found.notes == ()
    assert folder.told == [(number, 5) for number in range(1, 6)]
    assert found.pictures[0] == found.pictures[4]
    assert found.pictures[3].words == "hello"
    assert found.pictures[0].thumbnail == folder.path / KEEP / f"{hash_of(SPLATS)}.webp"
    for row in (0, 1, 2, 5):
        with Image.open(found.pictures[row].thumbnail) as thumbnail:
            assert max(thumbnail.size) <= 192 and thumbnail.format == "WEBP"
    assert folder.look() == found
    assert folder.drawn == 0


def test_a_model_is_a_script_of_one_line(folder: Folder) -> None:
    folder.add("a.ply", SPLATS)
    folder.add("b.glb", MESH)
    found = folder.look()
    for row, kind, begin in ((0, "spz", b"NGSP"), (1, "glb", b"glTF")):
        script = found.pictures[row].model.read_text()
        key, name, content = re.fullmatch(r'runnerModel\("(\w{64})","(\w+)","([\w+/=]+)"\);\n', script).groups()
        assert (key, name) == (folder.wanted[row].sha256, kind)
        model = base64.b64decode(content, validate=True)
        assert (gzip.decompress(model) if kind == "spz" else model).startswith(begin)


def test_what_is_damaged_in_the_cache_is_drawn_again(folder: Folder) -> None:
    for number in range(3):
        folder.add(f"{number}.png", image(size=(60 + number, 50)))
    first = folder.look()
    first.pictures[0].thumbnail.write_bytes(b"")
    first.pictures[1].thumbnail.unlink()
    index = folder.path / KEEP / "index.jsonl"
    index.write_bytes(index.read_bytes() + b'{"version": 1, "of": "result", "key": "ab')
    assert folder.look() == first
    assert folder.drawn == 2
    assert folder.look() == first
    assert folder.drawn == 0


def test_foreign_lines_and_those_of_another_version_are_passed_over(folder: Folder) -> None:
    one = folder.add("a.png", PICTURE)
    index = folder.path / KEEP / "index.jsonl"
    index.parent.mkdir(parents=True)
    entry = Entry("result", one.sha256, len(PICTURE), "mesh", words="foreign").line()
    lines = [b"\xff\0\n", b"[" * 9999 + b"\n", b"{}\n", b"null\n", b'{"version": %d, "of": 7}\n' % VERSION]
    lines += [entry.replace(b'"version":%d' % VERSION, b'"version":999'), entry.replace(b'"count":0', b'"count":"x"')]
    index.write_bytes(b"".join(lines) + entry[:-9])
    assert folder.look().pictures[0].kind == "image"
    assert folder.drawn == 1
    assert index.read_bytes().count(b"\n") == 1


def test_a_line_behind_a_torn_one_is_not_lost(folder: Folder) -> None:
    index = folder.path / KEEP / "index.jsonl"
    index.parent.mkdir(parents=True)
    index.write_bytes(Entry("result", "ab", 1).line()[:-20])
    for key in ("cd", "ef"):
        store = Store(folder.path)
        store.add(Entry("result", key, 1, "text"))
        store.close()  # as if this had been interrupted: it is not tidied
    store = Store(folder.path)
    assert store.find("result", "cd", 1) and store.find("result", "ef", 1)
    assert not store.find("result", "ab")
    store.close()


def test_a_result_that_became_another_is_drawn_again(folder: Folder) -> None:
    one = folder.add("a.png", PICTURE)
    folder.look()
    one.file.write_bytes(image(size=(33, 44)))
    assert folder.look().pictures[0].count == 33 * 44


def test_pictures_of_prompts_that_are_gone_are_removed(folder: Folder) -> None:
    folder.add("a.ply", SPLATS)
    folder.add("b.png", PICTURE)
    folder.look()
    assert len(folder.kept()) == 4
    folder.look(folder.wanted[1:])
    assert folder.kept() == {"index.jsonl", f"{hash_of(PICTURE)}.webp"}
    assert len((folder.path / KEEP / "index.jsonl").read_text().splitlines()) == 1


def test_files_that_nothing_names_are_removed_once_they_are_old(folder: Folder) -> None:
    folder.add("b.png", PICTURE)
    folder.look()
    ours = [f".{'0' * 64}.webp.01234567.part", "0" * 64 + ".webp", "1" * 64 + ".js", "2" * 64 + ".prompt.webp"]
    theirs = ["notes.md", "holiday.webp", "site.js", ".x.webp.01234567.part"]
    left = ours + theirs
    for name in left:
        (folder.path / KEEP / name).touch()
    folder.look()
    assert folder.kept() >= {*left}
    for name in left:
        os.utime(folder.path / KEEP / name, (time.time() - 9999,) * 2)
    folder.look()
    assert folder.kept() == {"index.jsonl", f"{hash_of(PICTURE)}.webp", *theirs}


def test_no_more_are_drawn_than_was_said_and_the_rest_the_next_time(folder: Folder) -> None:
    for number in range(3):
        folder.add(f"{number}.png", image(size=(60 + number, 50)))
    first = folder.look(most=2)
    assert {*first.pictures} == {0, 1}
    assert first.notes == ("results that are not drawn: 1 more",)
    second = folder.look(most=1)
    assert ({*second.pictures}, second.notes, folder.drawn) == ({0, 1, 2}, (), 1)


def test_a_folder_that_can_not_be_written_has_pictures_all_the_same(folder: Folder) -> None:
    folder.add("a.png", PICTURE)
    (folder.path / ".runner").write_text("in the way")
    found = folder.look()
    assert found.pictures[0].thumbnail.is_file()
    assert found.pictures[0].thumbnail.is_relative_to(tempfile.gettempdir())
    assert "pictures can't be kept in the folder" in found.notes[0]


def test_a_disk_that_refuses_leaves_pictures_out(folder: Folder) -> None:
    folder.add("a.png", PICTURE)
    folder.add("b.txt", b"hello")
    (folder.path / KEEP / f"{hash_of(PICTURE)}.webp").mkdir(parents=True)
    found = folder.look()
    assert {*found.pictures} == {1}
    assert found.notes == ("pictures that can't be kept: 1 (Is a directory)",)


def test_results_that_are_missing_or_no_files_are_unreadable(folder: Folder) -> None:
    folder.add("a.png", PICTURE).file.unlink()
    os.mkfifo(folder.path / "pipe.ply")
    folder.wanted += [Wanted(1, folder.path / "pipe.ply", "ply", "", ""), Wanted(2, None, "", "", "")]
    found = folder.look()
    for row in (0, 1):
        assert found.pictures[row].flags == ((UNREADABLE, "it is not there, or no file that can be read"),)
    assert 2 not in found.pictures


def test_a_hash_that_is_none_is_never_part_of_a_path(folder: Folder) -> None:
    folder.add("a.png", PICTURE, sha256="../../escaped")
    found = folder.look()
    assert found.pictures[0].thumbnail.parent == folder.path / KEEP


def test_what_no_picture_is_made_of_is_noted(folder: Folder) -> None:
    text = b'{"asset": {"version": "2.0"}, "extensionsRequired": ["KHR_draco_mesh_compression"]}  '
    for number in range(2):
        content = struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text), len(text), b"JSON") + text + bytes(4 * number)
        folder.add(f"{number}.glb", content)
    assert folder.look().notes == ("no picture of a GLB that is compressed with Draco (2 results)",)


# what is odd


def test_a_result_whose_size_is_far_off_the_others_is_flagged(folder: Folder) -> None:
    for number in range(6):
        folder.add(f"{number}.ply", splat_ply(ball(60, size=1 + number / 10)))
    folder.add("huge.ply", splat_ply(ball(60, size=50)))
    assert folder.look().pictures[6].flags == ((EXPLODED, "its box is 40 × as long as that of the others"),)
    again = folder.look()
    assert folder.drawn == 0 and again.pictures[6].flags[0][0] == EXPLODED
    assert all(again.pictures[row].flags == () for row in range(6))


def test_sizes_are_judged_among_their_kind_and_only_if_there_are_others() -> None:
    usual = {row: ("splats", 1.0 + row / 10) for row in range(5)}
    assert odd_sizes({**usual, 9: ("splats", 0.1)}) == {9: "its box is 0.083 × as long as that of the others"}
    assert odd_sizes({**usual, 9: ("mesh", 0.1)}) == {}
    del usual[0]
    assert odd_sizes({**usual, 9: ("splats", 0.1)}) == {}


def test_where_sizes_differ_by_nature_none_is_odd() -> None:
    assert odd_sizes({row: ("mesh", 3.0**row) for row in range(12)}) == {}


MIXES = {
    "7 small, 5 large": [1.0 + number / 50 for number in range(7)] + [8.0 + number / 9 for number in range(5)],
    "60 small, 40 large": [1.0 + number / 500 for number in range(60)] + [40.0 + number / 9 for number in range(40)],
    "90 small, 10 large": [1.0 + number / 500 for number in range(90)] + [6.0 + number / 20 for number in range(10)],
    "10 small, one less so each": [1.0, 1.0, 1.0, 1.1, 1.1, 1.1, 1.2, 2.2, 4.0, 5.9],
}


@pytest.mark.parametrize("name", MIXES)
def test_where_there_are_two_sizes_none_is_odd(name: str) -> None:
    assert odd_sizes({row: ("mesh", size) for row, size in enumerate(MIXES[name])}) == {}


def test_a_few_of_many_are_odd_and_more_if_they_are_far_off() -> None:
    usual = {row: ("mesh", 1.0 + row / 500) for row in range(100)}
    assert {*odd_sizes({**usual, 100: ("mesh", 8.0), 101: ("mesh", 0.1), 102: ("mesh", 90.0)})} == {100, 101, 102}
    assert {*odd_sizes({**usual, **{row: ("mesh", 500.0 * row) for row in range(100, 120)}})} == {*range(100, 120)}


# processes


def test_a_result_that_a_process_dies_of_loses_no_other(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing(
        monkeypatch,
        "drawing.look = lambda path, kind: os.kill(os.getpid(), 9) if path.stem == 'b' else look(path, kind)",
    )
    for name in "abc":
        folder.add(f"{name}.txt", name.encode())
    found = folder.look()
    assert [found.pictures[row].words for row in range(3)] == ["a", "", "c"]
    assert found.pictures[1].flags == ((UNREADABLE, "drawing it ended the process (SIGKILL)"),)
    monkeypatch.undo()
    assert folder.look().pictures[1].words == "b"  # it may not have been its fault
    assert folder.drawn == 1


def test_a_result_that_takes_too_long_is_given_up(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing(monkeypatch, "drawing.look = lambda path, kind: time.sleep(60) if path.stem == 'a' else look(path, kind)")
    monkeypatch.setattr(drawers, "WITHIN_S", 1.0)
    folder.add("a.txt", b"a")
    folder.add("b.txt", b"b")
    found = folder.look()
    assert found.pictures[0].flags == ((UNREADABLE, "drawing it takes longer than 1 s"),)
    assert found.pictures[1].words == "b"


def test_without_a_process_that_draws_there_are_no_pictures_but_a_note(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing(monkeypatch, "raise ImportError")
    folder.add("a.txt", b"a")
    folder.add("b.txt", b"b")
    found = folder.look()
    assert found == Gallery(notes=("pictures that are missing: 2 (no process that draws can be started)",))


def test_many_results_are_drawn_by_several_processes(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawers, "cores", lambda: 2)
    words = (
        "from runner.pictures.look import Look; drawing.words = lambda text: time.sleep(0.05) or Look('', words=text)"
    )
    drawing(monkeypatch, f"{words}\ndrawing.look = lambda path, kind: drawing.words(str(os.getpid()))")
    for number in range(16):
        folder.add(f"{number}.txt", str(number).encode())
    found = folder.look()
    assert len({picture.words for picture in found.pictures.values()}) == 2
    assert folder.told[-1] == (16, 16)


def test_there_are_no_more_processes_than_memory_for_them(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawers, "cores", lambda: 8)
    for free, count in ((50_000_000_000, 8), (4_000_000_000, 3), (5, 1)):
        monkeypatch.setattr(drawers, "free_bytes", lambda free=free: free)
        assert drawers.Drawers(folder.path, 1000).count == count
    monkeypatch.undo()
    assert drawers.free_bytes() > 10_000_000


def test_ctrl_c_ends_it_at_once_and_keeps_what_was_drawn(
    folder: Folder, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script["images/lamp"] = [Answer(hold=(held := threading.Event()))]
    drawing(monkeypatch, "drawing.look = lambda path, kind: time.sleep(60) if path.stem == 'b' else look(path, kind)")
    folder.add("a.txt", b"a")
    folder.add("b.txt", b"b", image=server.image("lamp"))

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        folder.look(observe=interrupt)
    held.set()
    assert time.monotonic() - begun < 6
    assert folder.kept() == {"index.jsonl"}
    monkeypatch.undo()
    assert folder.look().pictures[0].words == "a"
    assert folder.drawn == 2  # the other one, and its image


# prompts' images


def test_prompt_images_are_drawn_from_here_and_from_the_web_and_kept(
    folder: Folder, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing(monkeypatch)
    server.script["images/lamp"] = [Answer(body=PICTURE)]
    (folder.path / "chair.png").write_bytes(PICTURE)
    folder.add("a.txt", b"a", image=str(folder.path / "chair.png"))
    folder.add("b.txt", b"b", image=server.image("lamp") + "?token=secret")
    folder.wanted.append(Wanted(2, None, "", "", server.image("lamp") + "?token=secret"))
    found = folder.look()
    for row in range(3):
        with Image.open(found.pictures[row].prompt) as thumbnail:
            assert thumbnail.size == (192, 128)
    assert (found.pictures[2].kind, found.pictures[2].thumbnail) == ("other", None)
    assert server.images_asked == ["lamp"]
    assert folder.look() == found
    assert (folder.drawn, server.images_asked) == (0, ["lamp"])
    assert b"secret" not in (folder.path / KEEP / "index.jsonl").read_bytes()
    assert not [name for name in folder.kept() if name.endswith(".part")]


def test_offline_nothing_is_fetched_but_what_is_kept_is_shown(folder: Folder, server: ScriptedServer) -> None:
    server.script["images/lamp"] = [Answer(body=PICTURE)]
    folder.add("a.txt", b"a", image=server.image("lamp"))
    assert folder.look(offline=True).pictures[0].prompt is None
    assert server.images_asked == []
    folder.look()
    assert folder.look(offline=True).pictures[0].prompt


def test_an_image_that_can_not_be_had_is_noted_and_tried_again(folder: Folder, server: ScriptedServer) -> None:
    server.script["images/lamp"] = [Answer(404), Answer(body=PICTURE)]
    folder.add("a.txt", b"a", image=server.image("lamp") + "?token=secret")
    found = folder.look()
    assert found.pictures[0].prompt is None
    assert found.notes == (f"1 prompt image could not be had (image: {server.image('lamp')} answers 404)",)
    assert folder.look().pictures[0].prompt


def test_after_failures_in_a_row_no_more_images_are_tried(
    folder: Folder, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "AT_A_TIME", 1)
    monkeypatch.setattr(prompts, "FAILURES_MAX", 3)
    server.script["images/lamp"] = [*[Answer(404)] * 9]
    for number in range(6):
        folder.wanted.append(Wanted(number, None, "", "", f"{server.image('lamp')}?{number}"))
    (note,) = folder.look().notes
    assert note.startswith("3 prompt images could not be had")
    assert note.endswith("; 3 more were not tried after that")
    assert len(server.images_asked) == 3


def test_what_is_no_image_makes_no_other_wait(folder: Folder, server: ScriptedServer) -> None:
    server.script["images/lamp"] = [Answer(body=b"<svg/>"), Answer(body=PICTURE)]
    (folder.path / "chair.svg").write_bytes(b"<svg/>")
    (folder.path / "chair.png").write_bytes(PICTURE)
    for number, one in enumerate((folder.path / "chair.svg", server.image("lamp"), folder.path / "chair.png")):
        folder.wanted.append(Wanted(number, None, "", "", str(one)))
    note = "prompt images that can't be drawn: {} (no images, damaged, or of a format like SVG)"
    assert folder.look(most=1).notes == (note.format(1),)
    assert folder.look(most=1).notes == (note.format(2),)
    found = folder.look(most=1)
    assert (found.notes, {*found.pictures}) == ((note.format(2),), {2})
    (folder.path / "chair.svg").write_bytes(PICTURE)
    assert {*folder.look().pictures} == {0, 2}
    assert server.images_asked == ["lamp"]
    later = Store(folder.path, now_s=lambda: time.time() + 86400 + 9)
    assert not later.find("prompt", job_of(server.image("lamp")).key)
    later.close()


class Silent:
    """A client that gets no whole answer from every second URL, after ten seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[str] = []

    def fetch(self, url: str) -> Any:
        self.asked.append(url)
        if len(self.asked) % 2:
            self.now += 10
            raise ImageError(f"image: {url}: took longer than image_s (10 s)", again=True)
        return SimpleNamespace(content=b"an image")


@pytest.mark.parametrize(("hosts", "waits"), [(1, 5), (100, 6)])
def test_hosts_that_hang_are_given_up_though_some_images_come(hosts: int, waits: int) -> None:
    client = Silent()
    downloads = Downloads(clock=lambda: client.now)
    downloads.close()
    downloads._client = client
    drawers = SimpleNamespace(draw=lambda job: Entry("prompt", job.key, 0, thumbnail_bytes=9))
    for number in range(200):
        downloads.draw(job_of(f"http://host-{number % hosts}/{number}"), drawers)
    assert (client.now, len(client.asked)) == (10 * waits, 2 * waits - 1)
    assert downloads.note() == (
        f"{waits} prompt images could not be had (image: http://host-0/0: took longer than 10 s);"
        f" {201 - 2 * waits} more were not tried after that"
    )


def test_an_image_that_is_too_large_is_not_drawn(
    folder: Folder, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "IMAGE_MAX_BYTES", 1000)
    server.script["images/lamp"] = [Answer(body=PICTURE)]
    folder.add("a.txt", b"a", image=server.image("lamp"))
    (note,) = folder.look().notes
    assert "more than" in note


def test_only_http_and_paths_are_followed(folder: Folder) -> None:
    (folder.path / "chair.png").write_bytes(PICTURE)
    for address in (f"file://{folder.path}/chair.png", "data:image/png;base64,AA==", "\0", str(folder.path)):
        folder.add(f"{len(folder.wanted)}.txt", b"x", image=address)
    found = folder.look()
    assert all(picture.prompt is None for picture in found.pictures.values())
    assert found.notes == ()


def test_importing_the_room_imports_none_of_its_libraries(environment: dict[str, str]) -> None:
    code = "import sys, runner.pictures; print({'numpy', 'PIL', 'trimesh'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "set()\n"
