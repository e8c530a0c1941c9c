"""JSON, JavaScript and plain text: whole as far as text can tell, and no error of the server."""

import io
import json
import tracemalloc

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runner.errors import ResultError
from runner.formats import document, verify

KINDS = ("json", "js", "txt")


def refused(content: bytes, kind: str) -> str:
    with pytest.raises(ResultError) as error:
        verify(io.BytesIO(content), kind)
    return str(error.value)


SCRIPT = "export default {größe: 3};\n".encode()
WHOLE = [
    ("json", b'{"mesh": [1, 2.5, null], "name": "gr\xc3\xb6\xc3\x9fe"}'),
    ("json", b"[]"),
    ("json", b'"a text"\n'),
    ("json", b'\xef\xbb\xbf{"mesh": NaN}'),
    ("json", b'{"error": null, "error_code": 0, "output": "x"}'),
    ("json", b'[{"detail": 1}]'),
    ("js", SCRIPT),
    ("js", b"<!-- an old way to begin a comment\n"),
    ("txt", SCRIPT),
    ("txt", b"ply, said the carpenter"),
    ("txt", b"PK\x03\x04 begins a ZIP"),
    ("txt", b"<html>a page that somebody asked for</html>"),
    ("txt", b'{"mesh": "JSON is text"}'),
    ("txt", b'{"mesh": {"detail": 1}, "cut": '),
]


@pytest.mark.parametrize(("kind", "content"), WHOLE)
def test_text_is_accepted_as_what_was_asked_for(kind: str, content: bytes) -> None:
    assert verify(io.BytesIO(content), kind) == kind


@pytest.mark.parametrize(("kind", "content"), WHOLE)
def test_auto_takes_no_text_since_servers_tell_of_errors_that_way(kind: str, content: bytes) -> None:
    if not content.startswith((b"ply", b"PK")):
        assert refused(content, "auto").startswith("expected a PLY, GLB")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "content",
    [b'{"detail": "CUDA out of memory"}', b'{"detail": ""}', b' {"error": "no"}', b'{"error_code": 7, "mesh": 1}',
     b'{"errors": [1]}', b'{"error": ""}', b'\xef\xbb\xbf{"error": "no"}', b'{"id": 3, "error": {"code": 1}}'],
)  # fmt: skip
def test_an_answer_about_an_error_is_no_result(content: bytes, kind: str) -> None:
    assert refused(content, kind).startswith("expected a result, got JSON: ")


@pytest.mark.parametrize("kind", ["js", "txt"])
def test_an_error_that_is_cut_is_no_result(kind: str) -> None:
    assert refused(b'{ "error": "no', kind).startswith("expected a result, got JSON: ")
    assert refused(b'{"error": "' + b"x" * 3_000_000 + b'"}', kind).startswith("expected a result, got JSON: ")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b" \n\t", "empty|parse"), (b"\xef\xbb\xbf\n", "empty|parse"), (b'"a\0b"', "NUL|parse"),
     (b'"\xff"', "UTF-8|utf-8"), ('"groß"'.encode("utf-16"), "UTF-8|utf-8"), (b'"gr\xc3', "middle|parse")],
)  # fmt: skip
def test_what_is_no_text_is_refused(content: bytes, said: str, kind: str) -> None:
    with pytest.raises(ResultError, match=said):
        verify(io.BytesIO(content), kind)


def test_a_page_of_a_proxy_is_no_script() -> None:
    for page in (b"<!DOCTYPE html><title>502</title>", b"\xef\xbb\xbf<html>"):
        assert "expected a script, got an HTML page" in refused(page, "js")


def test_a_json_document_cut_at_any_byte_or_with_more_behind_it_is_refused() -> None:
    content = json.dumps({"mesh": [1, 2.5, {"a": None}], "name": "größe"}, ensure_ascii=False).encode()
    for end in range(1, len(content)):
        assert "does not parse" in refused(content[:end], "json")
    for more in (b"}", b"1", content, b"\0"):
        assert "does not parse" in refused(content + more, "json")


def test_json_that_cannot_be_checked_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "_SIZE_MAX", 10)
    assert "more than 10 can't be checked" in refused(b"[1, 2, 3, 4]", "json")


def test_nested_json_is_refused_and_not_a_crash() -> None:
    assert "does not parse" in refused(b"[" * 200_000, "json")
    assert verify(io.BytesIO(b'{"a":' * 200_000), "txt") == "txt"


@pytest.mark.parametrize("before", [2**20 - 1, 2**20 - 2, 2**20])
def test_a_character_that_two_blocks_share_is_one(before: int) -> None:
    assert verify(io.BytesIO(b"x" * before + "ß€".encode()), "txt") == "txt"
    assert "NUL at byte" in refused(b"x" * before + b"y\0", "txt")
    assert "not UTF-8 near byte" in refused(b"x" * before + b"y\xff", "txt")


@given(st.binary(max_size=40), st.sampled_from(["json", "txt"]))
def test_text_is_accepted_just_if_python_decodes_it(content: bytes, kind: str) -> None:
    assume(b"{" not in content)  # perhaps an error
    try:
        text = content.decode("utf-8-sig")
        fine = bool(text.strip()) and "\0" not in text
        fine = fine and (kind != "json" or json.loads(text) is not ...)
    except ValueError:
        fine = False
    try:
        assert verify(io.BytesIO(content), kind) == kind
    except ResultError:
        assert not fine
    else:
        assert fine


def test_a_long_text_is_not_held() -> None:
    stream = io.BytesIO(b"some words " * 3_000_000)
    tracemalloc.start()
    verify(stream, "txt")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
