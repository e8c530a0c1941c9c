"""Protocol blocks: placeholders, paths, documents, presets, and what is said of a wrong block."""

from __future__ import annotations

import base64
import json
import tempfile
import tracemalloc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.config import config_from
from runner.errors import AttemptError, NoDocumentError, ResultError, StorageError, UsageError
from runner.protocols import Document, Protocol, Values, documents, paths, preset, presets, saved, stem_of
from runner.protocols.block import Block
from runner.protocols.template import in_url, placeholders, render
from runner.records import Image, Prompt
from runner.worker.tools import Tools

PNG = Image("chair.png", b"\x89PNG\r\n\x1a\n123", "0")
VALUES = Values(
    Prompt(3, "Chair 7", "http://h/chair.png", text="a chair", params={"style": "low/poly", "n": 2}),
    42,
    PNG,
    id="a/b",
)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(), some, max_size=3),
    max_leaves=8,
)


def block(**keys: Any) -> Block:
    return Block.model_validate({"request": {"path": "/make"}, **keys})


def document(value: Any) -> Document:
    return document_of(json.dumps(value).encode())


OPEN: list[IO[bytes]] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the files of all documents."""
    yield
    while OPEN:
        OPEN.pop().close()


def document_of(content: bytes) -> Document:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed after the test
    OPEN.append(file)
    file.write(content)
    return Document(file, len(content))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{seed}", 42),
        ("seed {seed}", "seed 42"),
        ("{params.n}", 2),
        ("{{seed}}", "{seed}"),
        ("{index}-{key}", "3-Chair 7"),
        ("{text}", "a chair"),
        ("{image.url}", "http://h/chair.png"),
        ("{image.base64}", base64.b64encode(PNG.content).decode()),
        ("{image.data_url}", "data:image/png;base64," + base64.b64encode(PNG.content).decode()),
        ("{image.bytes}", PNG.content),
        ("{stem}", stem_of("Chair 7")),
        ({"a": ["{seed}", True, None, 1.5]}, {"a": [42, True, None, 1.5]}),
        ('{"json": "in text"}', '{"json": "in text"}'),
    ],
)
def test_a_placeholder_alone_keeps_its_type_and_within_a_text_becomes_text(template: Any, expected: Any) -> None:
    assert render(template, VALUES) == expected


def test_a_value_can_not_change_the_shape_of_a_path() -> None:
    assert in_url("/status/{id}?style={params.style}", VALUES) == "/status/a%2Fb?style=low%2Fpoly"
    assert in_url("{saved.next}", Values(VALUES.prompt, 1, saved={"next": "http://h/q?x=1"})) == "http://h/q?x=1"


def test_a_value_that_is_not_there_is_named() -> None:
    with pytest.raises(ResultError, match=r"\{saved.token\}"):
        render("{saved.token}", VALUES)


@given(st.text(alphabet="abz09-_ ü/.", min_size=1, max_size=120), st.text(alphabet="abz09-_ ü/.", min_size=1))
def test_a_stem_is_plain_and_another_one_for_another_key(key: str, other: str) -> None:
    assert stem_of(key).isalnum() and stem_of(key).isascii() and stem_of(key) == stem_of(key).lower()
    assert (stem_of(key) == stem_of(other)) == (key == other)


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        ({"a": {"b": [1, 2]}}, "a.b.1", [2]),
        ({"a": {"b": [1, 2]}}, "a.b.-1", [2]),
        ({"a": {"b": [1, 2]}}, "a.*.0", [1]),
        ({"a": {"0": "key"}}, "a.0", ["key"]),
        ([{"u": 1}, {"v": 2}, {"u": 3}], "*.u", [1, 3]),
        ({"a": None}, "a", [None]),
        ({"a": None}, "a.b", []),
        ([1], "1", []),
        ({"a": 1}, "", [{"a": 1}]),
        ({"a/b": {"x": 5}}, "{id}.x", [5]),
    ],
)
def test_a_path_finds_what_stands_there(value: Any, path: str, expected: Any) -> None:
    assert paths.find(value, path, VALUES) == expected


def test_save_gives_one_mapping_for_each_where_a_path_has_a_star() -> None:
    files = document({"type": "output", "files": [{"n": "a"}, {"n": "b"}]})
    assert saved(files, {"name": "files.*.n", "type": "type"}, VALUES) == [
        {"name": "a", "type": "output"},
        {"name": "b", "type": "output"},
    ]
    with pytest.raises(ResultError, match="gone"):
        saved(files, {"name": "gone"}, VALUES)


def decoded(text: str, **options: Any) -> bytes:
    found = document_of(
        json.dumps({"before": "x" * 70_000, "b64": text, "after": [1, {"é": "ü"}]}, **options).encode()
    )
    assert found.value["after"] == [1, {"é": "ü"}]
    return b"".join(found.decoded(found.value["b64"]))


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=64), st.sampled_from([1, 1_000, 40_000]), st.booleans(), st.booleans())
def test_base64_is_decoded_however_long_it_is_and_however_it_is_written(
    some: bytes, times: int, urlsafe: bool, is_data_url: bool
) -> None:
    content = some * times
    text = (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(content).decode()
    assert decoded(("data:model/gltf-binary;base64," if is_data_url else "") + text) == content
    assert decoded(text.rstrip("=")) == content
    wrapped = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    assert decoded(wrapped) == content


def test_escaped_slashes_in_long_base64_are_slashes() -> None:
    content = b"\xff\xef\xbe" * 1_000_000
    text = base64.b64encode(content).decode().replace("/", "\\/")
    raw = document_of(b'{"b64":"' + text.encode() + b'"}')
    assert b"".join(raw.decoded(raw.value["b64"])) == content


@pytest.mark.parametrize("bad", ["abc$", "ab=cdefg" * 20_000, "a", "=" * 8, "ü" * 80_000])
def test_what_is_no_base64_is_no_result(bad: str) -> None:
    with pytest.raises(ResultError, match="base64"):
        decoded(bad)


@settings(max_examples=15, deadline=None)
@given(JSON)
def test_a_document_with_long_texts_is_the_same_document(value: Any) -> None:
    whole = {"long": 'a"\\\n\u2028é' * 100_000, "value": value, "other": ["b" * 90_000, value]}
    for ascii_only in (True, False):
        found = document_of(json.dumps(whole, ensure_ascii=ascii_only).encode(errors="surrogatepass"))
        assert found.plain(found.value) == whole


def test_a_text_that_looks_like_a_mark_is_a_text() -> None:
    whole = {"mark": "\ue000long 7", "long": "x" * 2_000_000}
    found = document_of(json.dumps(whole).encode())
    assert found.plain(found.value) == whole


def test_a_long_result_is_never_in_memory_as_a_whole() -> None:
    content = bytes(range(256)) * 160_000  # 41 MB
    with tempfile.TemporaryFile() as file:
        file.write(b'{"model_base64": "' + base64.b64encode(content) + b'"}')
        size_bytes = file.tell()
        tracemalloc.start()
        try:
            found = Document(file, size_bytes)
            length = sum(map(len, found.decoded(found.value["model_base64"])))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert length == len(content)
    assert peak < 8_000_000


@pytest.mark.parametrize("content", [b"", b"<html>502", b'{"a": 1', b'{"a": "' + b"x" * 2_000_000, b"[" * 100_000])
def test_what_is_no_json_is_said_so(content: bytes) -> None:
    with pytest.raises(NoDocumentError, match="expected JSON"):
        document_of(content)


@pytest.mark.parametrize(
    ("status", "retry_after", "meaning"),
    [
        (200, False, "ok"),
        (201, False, "permanent"),
        (429, False, "busy"),
        (409, False, "busy"),
        (503, False, "busy"),
        (500, False, "retry"),
        (504, False, "retry"),
        (408, False, "retry"),
        (404, False, "permanent"),
        (302, False, "permanent"),
    ],
)
def test_a_status_has_the_class_that_the_table_says(status: int, retry_after: bool, meaning: str) -> None:
    assert Protocol(block()).meaning(status, retry_after=retry_after) == meaning


def test_keys_under_status_replace_just_that_class() -> None:
    protocol = Protocol(block(status={"busy": [430], "ok": ["2xx"]}))
    assert [protocol.meaning(one) for one in (204, 429, 430, 503, 500)] == [
        "ok",
        "permanent",
        "busy",
        "retry",
        "retry",
    ]


def test_a_503_that_says_when_to_come_back_is_busy_for_a_server_that_never_says_it_bare() -> None:
    splat = preset("404-splat")
    assert (splat.meaning(503), splat.meaning(503, retry_after=True)) == ("retry", "busy")


@pytest.mark.parametrize(
    ("rule", "answer", "words"),
    [
        ({"path": "status", "in": ["FAILED"]}, {"status": "FAILED", "error": "no memory"}, "no memory"),
        ({"path": "status", "in": ["FAILED"]}, {"status": "FAILED"}, 'status is "FAILED"'),
        ({"path": "status", "in": ["FAILED"]}, {"status": "DONE"}, None),
        ({"path": "code", "not_in": [0]}, {"code": 0}, None),
        ({"path": "code", "not_in": [0]}, {"code": 7}, "code is 7"),
        ({"path": "code", "not_in": [0]}, {}, "code is missing"),
        ([{"path": "a", "in": [1]}, {"path": "b", "in": [1]}], {"b": 1}, "b is 1"),
    ],
)
def test_a_good_status_can_be_a_failure(rule: Any, answer: Any, words: str | None) -> None:
    assert Protocol(block(fail_when=rule, error=["error", "detail"])).failure(document(answer)) == words


def test_every_preset_is_a_valid_block_under_its_own_name() -> None:
    for name in presets.names():
        assert preset(name).name == name
        config_from({"endpoints": ["http://h:1"], "prompts": ["x"], "protocol": name})


def test_what_shapes_a_result_is_in_the_name_and_clocks_and_headers_are_not() -> None:
    def name(**overrides: Any) -> str:
        return Protocol(Block.model_validate(presets.expanded({"preset": "runpod", **overrides}))).name

    assert name() == "runpod"
    assert name(poll={"every_s": 9}, timeouts={"total_s": 5}, health=None) == "runpod"
    assert name(request={"headers": {"X-Key": "secret"}, "query": {"api_key": "secret"}}) == "runpod"
    other = name(request={"body": {"input": {"steps": 30}}})
    assert other.startswith("runpod-") and other != name(request={"body": {"input": {"steps": 31}}})


def test_an_override_is_merged_deep_and_a_null_in_a_body_takes_away_what_the_preset_has_there() -> None:
    whole = presets.expanded(
        {"preset": "openai-images", "request": {"body": {"seed": None, "size": "64x64", "user": None}}}
    )
    assert "seed" not in whole["request"]["body"]
    assert whole["request"]["body"]["user"] is None
    assert (whole["request"]["body"]["size"], whole["request"]["body"]["n"]) == ("64x64", 1)
    assert whole["request"]["path"] == "/v1/images/generations"


def said_of(protocol: Any) -> list[str]:
    with pytest.raises(UsageError) as caught:
        config_from({"endpoints": ["http://h:1"], "prompts": ["x"], "protocol": protocol})
    return [one.removeprefix("the command line: ") for one in caught.value.problems]


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("runpot", "protocol: expected a preset's name or a mapping, got 'runpot'; did you mean 'runpod'?"),
        (
            {"preset": "runpot"},
            "protocol: expected a preset's name or a mapping, got 'runpot'; did you mean 'runpod'?",
        ),
        (7, "protocol: expected a preset's name or a mapping, got 7"),
        ({"kind": "sync"}, "protocol.request: required, but missing"),
        (
            {"request": {"path": "/m"}, "result": {"path": "a"}},
            "protocol.result: expected from: json beside path and decode",
        ),
        (
            {"request": {"path": "/m", "body": {"a": "{Seed}"}}},
            "protocol.request: unknown placeholder {Seed}; write {{Seed}} for the text itself",
        ),
        (
            {"request": {"path": "/m", "body": {"a": {"seed": None}}}},
            'protocol.request.body: {seed} without quotes is a mapping to YAML; write "{seed}"',
        ),
        (
            {"request": {"path": "/m"}, "error": "errors[0].text"},
            "protocol.error: expected steps separated by dots, such as data.0.url, got 'errors[0].text'",
        ),
        ({"request": {"path": "make"}}, "protocol.request.path: expected a path that begins with /, got 'make'"),
        ({"request": {"path": "/m", "bdy": 1}}, "protocol.request.bdy: unknown key; did you mean 'body'?"),
        (
            {"request": {"path": "/m"}, "result": {"form": "json"}},
            "protocol.result.form: unknown key; did you mean 'from'?",
        ),
        (
            {"request": {"path": "/m", "body": {"a": "{sed}"}}},
            "protocol.request: unknown placeholder {sed}; write {{sed}} for the text itself",
        ),
        ({"request": {"path": "/m/{id}"}}, "protocol.request: {id} stands for nothing here"),
        (
            {"request": {"path": "/m", "files": {"a": "image"}}},
            "protocol.request: expected files with encoding: multipart only, got json",
        ),
        (
            {"request": {"path": "/m", "encoding": "json", "body": "{image.bytes}"}},
            "protocol.request.encoding: expected raw with a body of {image.bytes}, got json",
        ),
        ({"request": {"path": "/m"}, "kind": "job"}, "protocol: expected id and poll with kind: job"),
        ({"request": {"path": "/m"}, "id": "x"}, "protocol: expected no id with kind: sync"),
        (
            {"request": {"path": "/m"}, "result": {"from": "json"}},
            "protocol.result: expected a path with from: json",
        ),
        (
            {"request": {"path": "/m"}, "status": {"ok": [99]}},
            "protocol.status.ok[0]: expected a status such as 503, or a class such as 5xx, got 99",
        ),
        (
            {"request": {"path": "/m"}, "fail_when": {"path": "a"}},
            "protocol.fail_when[0]: expected either in or not_in",
        ),
        (
            {
                "kind": "batch",
                "request": {"path": "/m", "body": {"items": "{items}"}},
                "item": {"image": "{image.base64}"},
                "poll": {"path": "/s", "state": "s", "ready": ["r"], "done": ["d"]},
                "results": {"path": "/r", "member": "{stem}.js"},
            },
            "protocol.item: expected {image.url} or texts: a batch sends no images, it names them",
        ),
    ],
)  # fmt: skip
def test_a_wrong_block_is_one_clear_sentence(protocol: Any, said: str) -> None:
    assert said_of(protocol) == [said]


def test_placeholders_are_found_wherever_they_stand() -> None:
    assert {*placeholders({"a": ["{seed}", {"b": "x {text} {{not}}"}]})} == {"seed", "text"}


def test_an_image_type_is_known_by_its_first_bytes_whatever_its_name() -> None:
    assert [Image("x.jpg", content, "").content_type for content in (PNG.content, b"\xff\xd8\xff", b"?")] == [
        "image/png", "image/jpeg", "image/jpeg",
    ]  # fmt: skip
    assert Image("x", b"?", "").content_type == "application/octet-stream"


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='ab"\\\n', max_size=30), st.integers(0, 9), st.text(alphabet='"\\x', max_size=4))
def test_strings_are_told_apart_wherever_blocks_end(text: str, shift: int, other: str) -> None:
    whole = {"pad": "p" * shift, "long": text * 40, "other": [other, text], "last": "z" * 30}
    content = json.dumps(whole).encode()
    with (
        pytest.MonkeyPatch.context() as patched,
        tempfile.TemporaryFile() as file,
    ):
        for name, value in {"_BLOCK": 7, "_LONG_BYTES": 12, "_SMALL_BYTES": 0}.items():
            patched.setattr(documents, name, value)
        file.write(content)
        found = Document(file, len(content))
        assert found.plain(found.value) == whole
        assert isinstance(found.value["last"], documents.Long)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X Bad": "v"}, "'X Bad' is no valid header (RFC 9110)"),
        ({"X-Bad": "a\nb: c"}, "'X-Bad' is no valid header (RFC 9110)"),
        ({"content-length": "3"}, "'content-length' follows from what is sent and can't be given"),
    ],
)
def test_a_header_that_can_not_be_sent_is_a_config_error(headers: dict[str, str], said: str) -> None:
    assert said_of({"preset": "404-splat", "request": {"headers": headers}}) == [f"protocol.request.headers: {said}"]


@pytest.mark.parametrize("part", ["headers", "query"])
@pytest.mark.parametrize("given", [{"X-Api-Key": ["sk-secret-1"]}, "X-Api-Key: sk-secret-1"])
def test_no_error_shows_the_credentials_of_a_protocol(part: str, given: Any) -> None:
    for asked in ({"path": "/g", part: given}, [{"path": "/g", part: given}]):
        with pytest.raises(UsageError) as caught:
            config_from({"endpoints": ["http://h:1"], "prompts": ["x"], "protocol": {"request": asked, "x": 1}})
        assert "sk-secret-1" not in str(caught.value)


@pytest.mark.parametrize("text", ["two\nlines", "party 🎉"])
def test_a_text_that_no_header_can_hold_is_its_prompts_fault_and_final(text: str) -> None:
    block = Block.model_validate({"request": {"path": "/g", "headers": {"X-Prompt": "{text}"}}})
    with pytest.raises(AttemptError) as caught:
        Protocol(block).generation(Values(Prompt(0, "k", text=text), 1))
    assert (caught.value.again, caught.value.blame) == (False, "prompt")
    assert "X-Prompt" in str(caught.value)


def test_base64_may_be_escaped_in_any_way_json_knows() -> None:
    content = b"\xfb\xef\xbe\xff" * 300_000
    for old, new in (("+", "\\u002b"), ("/", "\\/"), ("A", "\\u0041")):
        text = base64.b64encode(content + b"\0\0").decode().replace(old, new)
        found = document_of(b'{"b64":"' + text.encode() + b'"}')
        assert b"".join(found.decoded(found.value["b64"])) == content + b"\0\0"


def test_an_answer_that_there_is_no_room_for_is_closed() -> None:
    class Full:
        def scratch(self) -> None:
            raise StorageError("no space left")

    ended: list[bool] = []

    class Arrived:
        def __enter__(self) -> None:
            ended.append(False)

        def __exit__(self, *_: object) -> None:
            ended.append(True)

    tools: Any = SimpleNamespace(folder=Full())
    answer: Any = Arrived()
    with pytest.raises(StorageError):
        Tools.document(tools, answer)
    assert ended == [False, True]
