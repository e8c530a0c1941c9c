"""Answers that nobody expects: none of them is a bug in runner, and none costs more than its prompt."""

from __future__ import annotations

import base64
import io
import json
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from simulated.artefacts import glb
from simulated.base import Answer, Call, Listener, said

from runner.errors import ResultError
from runner.protocols import Document
from runner.worker.archive import Archive

GLB = glb("x")


class Server(Listener):
    """Makes ``document`` of every POST, and gives ``files``."""

    def __init__(self, document: Any, files: dict[str, Answer] | None = None) -> None:
        self.document = document
        self.files = files or {}
        self.posts = 0
        super().__init__()

    def _answer(self, call: Call) -> Answer:
        if call.method == "POST":
            self.posts += 1
            return said(self.document)
        return self.files.get(call.path, Answer(404))


def config(here: Path, url: str, protocol: dict[str, Any]) -> Path:
    (here / "texts.txt").write_text("a chair\n")
    path = here / "run.yaml"
    block = {"health": None, "request": {"path": "/run", "body": {"text": "{text}"}}} | protocol
    whole = {"endpoints": [url], "prompts": "texts.txt", "protocol": block, "retry": {"attempts": 1}}
    path.write_text(json.dumps(whole))
    return path


JOB = {
    "kind": "job",
    "id": "id",
    "poll": {"path": "/status/{id}", "every_s": 0.02, "state": "status", "done": ["done"], "failed": ["failed"]},
    "result": {"from": "json", "path": "out"},
    "error": "error",
}
LINK = {"result": {"from": "json", "path": "url", "decode": "url"}}


def test_an_id_that_is_no_unicode_fails_its_prompt_only(here: Path, start: Any) -> None:
    with Server({"id": "a\ud800"}) as server:
        process = start("run", config(here, server.url, JOB))
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1, err


def test_the_words_of_a_failure_are_one_short_line(here: Path, start: Any) -> None:
    said_so = said({"status": "failed", "error": "Traceback:\n\x1b[31mfailed " + "z" * 100_000})
    with Server({"id": 1}, {"/status/1": said_so}) as server:
        out, err = start("run", config(here, server.url, JOB)).communicate(timeout=30)
    assert "\x1b" not in err and max(map(len, err.splitlines())) < 1000 and len(out) < 2000


def test_a_link_that_leads_nowhere_is_an_attempt(here: Path, start: Any) -> None:
    with Server({"url": "http://127.0.0.1:9/x"}) as server:
        process = start("run", config(here, server.url, LINK))
        _, err = process.communicate(timeout=30)
    assert (process.returncode, server.posts) == (1, 1), err


@pytest.mark.parametrize("target", ["/api/r/x.glb", "x.glb", "../r/x.glb"])
def test_a_redirect_is_relative_to_where_it_came_from(target: str, here: Path, start: Any) -> None:
    moved = Answer(302, headers={"Location": target})
    with Server({"url": "r/1"}, {"/api/r/1": moved, "/api/r/x.glb": Answer(200, GLB)}) as server:
        process = start("run", config(here, f"{server.url}/api", LINK))
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


@pytest.mark.parametrize("padding", [0, 1_100_000])
def test_a_deep_document_is_no_document(padding: int) -> None:
    whole = b"[" * 900 + b"]" * 900 + b" " * padding
    with tempfile.TemporaryFile() as file:
        file.write(whole)
        file.seek(0)
        with suppress(ResultError):
            Document(file, len(whole))


def test_a_broken_lzma_member_is_a_broken_member() -> None:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.js", base64.b64encode(bytes(range(256)) * 8))
    content = bytearray(written.getvalue())
    for place in range(60, 90):
        content[place] ^= 0x5A
    with pytest.raises(ResultError):
        b"".join(Archive(io.BytesIO(bytes(content))).chunks("a.js"))
