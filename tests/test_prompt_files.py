"""Lists with named fields, gzipped lists and lists at URLs: what they give, and how bad ones are refused."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server import Answer, ScriptedServer

from runner.client import fetch_list
from runner.errors import TransportError, UsageError
from runner.prompts import Fetch, Prompts, encode, local_image, needs_json, read_prompts, remote, written
from runner.prompts.naming import safe_key
from runner.records import Page, Prompt
from runner.settings import Timeouts

Read = Callable[..., Prompts]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a list with this name and content."""

    def reading(name: str, content: str | bytes, **options: Any) -> Prompts:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_prompts([name], base=tmp_path, **options)

    return reading


def refused(read: Read, name: str, content: str | bytes, **options: Any) -> list[str]:
    with pytest.raises(UsageError) as raised:
        read(name, content, **options)
    assert all(problem and "\n" not in problem and len(problem) < 400 for problem in raised.value.problems)
    return list(raised.value.problems)


ALL_FIELDS = [
    ("list.csv", 'image_url, key ,seed,style\nhttps://h/a.png,chair,7,"oil, on\ncanvas"\nhttps://h/b.png,,,\n'),
    ("list.tsv", 'image\tstem\tseed\tstyle\nhttps://h/a.png\tchair\t7\t"oil, on\ncanvas"\nhttps://h/b.png\t\t\t\n'),
    (
        "list.jsonl",
        '{"image_url": "https://h/a.png", "key": "chair", "seed": 7, "style": "oil, on\\ncanvas"}\n\n'
        '{"image": "https://h/b.png", "seed": null, "style": ""}\n',
    ),
    (
        "list.json",
        '[{"prompt": "https://h/a.png", "key": "chair", "seed": 7, "style": "oil, on\\ncanvas"},\n'
        '{"image": "https://h/b.png", "style": ""}]',
    ),
]


@pytest.mark.parametrize(("name", "content"), ALL_FIELDS, ids=lambda given: given[:10])
@pytest.mark.parametrize("as_it_is", ["plain", "gz", "bom", "crlf"])
def test_every_format_has_the_same_fields(read: Read, name: str, content: str, as_it_is: str) -> None:
    if as_it_is == "crlf":
        content = content.replace("on\ncanvas", "on canvas").replace("on\\ncanvas", "on canvas").replace("\n", "\r\n")
    written = content.encode("utf-8-sig" if as_it_is == "bom" else "utf-8")
    prompts = read(f"{name}.gz", gzip.compress(written)) if as_it_is == "gz" else read(name, written)
    style = "oil, on canvas" if as_it_is == "crlf" else "oil, on\ncanvas"
    assert list(prompts) == [
        Prompt(0, "chair", "https://h/a.png", seed=7, params={"style": style}),
        Prompt(1, "b", "https://h/b.png", params={"style": ""}),
    ]
    assert prompts[0] == next(iter(prompts))


def test_a_text_file_may_be_gzipped(read: Read) -> None:
    assert [one.key for one in read("list.txt.gz", gzip.compress(b"https://h/a.png\n#\nb.png\n"))] == ["a", "b"]
    assert [one.key for one in read("LIST.GZ", gzip.compress(b"https://h/a.png\n"))] == ["a"]


def test_the_document_of_the_batch_server_gives_stems_and_the_seed_of_all_without_one(read: Read) -> None:
    entries = [
        {"stem": "ab", "image_url": "https://h/1.png"},
        {"stem": "c", "image_url": "https://h/2.png", "seed": 0},
    ]
    assert list(read("list.json", json.dumps({"prompts": entries, "seed": 42}))) == [
        Prompt(0, "ab", "https://h/1.png", seed=42),
        Prompt(1, "c", "https://h/2.png", seed=0),
    ]


def test_json_types_are_kept_in_params_and_csv_gives_texts(read: Read) -> None:
    line = '{"image": "https://h/a.png", "steps": 20, "size": {"w": [1, 2.5, true, null]}}'
    assert read("list.jsonl", line)[0].params == {"steps": 20, "size": {"w": [1, 2.5, True, None]}}
    assert read("list.csv", "image,steps\nhttps://h/a.png,20\n")[0].params == {"steps": "20"}


def test_a_protocol_that_takes_texts_reads_them_from_every_format(read: Read) -> None:
    wanted = ["a red chair", '{"not": "json', "ein Stuhl, größer"]
    text = "# chairs\n\n  a red chair \n" + "\n".join(wanted[1:])
    assert [one.text for one in read("list.txt", text, what="text")] == wanted
    assert [one.text for one in read("list.json", json.dumps(wanted), what="text")] == wanted
    assert [one.text for one in read("list.jsonl", "\n".join(map(json.dumps, wanted)), what="text")] == wanted
    table = 'prompt\na red chair\n"{""not"": ""json"\n"ein Stuhl, größer"\n'
    assert [one.text for one in read("list.csv", table, what="text")] == wanted
    assert [(one.key, one.image) for one in read("list.txt", text, what="text")] == [
        ("a-red-chair", ""),
        ('{"not":-"json', ""),
        ("ein-Stuhl,-größer", ""),
    ]


def test_an_entry_may_be_an_image_and_a_text(read: Read) -> None:
    line = '{"prompt": "https://h/a.png", "text": "more\\nlegs"}'
    assert list(read("list.jsonl", line)) == [Prompt(0, "a", "https://h/a.png", "more\nlegs")]
    line = '{"prompt": "more legs", "image": "https://h/a.png"}'
    assert list(read("list.jsonl", line, what="text")) == [Prompt(0, "a", "https://h/a.png", "more legs")]


def test_a_long_text_has_a_short_key_of_its_own(read: Read) -> None:
    long = "a chair with many legs and " * 9
    one, two = read("list.txt", f"{long} one\n{long} two\n", what="text")
    assert one.key != two.key and one.key.startswith("a-chair-with-many-legs-and-a-chair")
    assert max(len(one.key.encode()), len(two.key.encode())) <= 80


def test_relative_images_are_relative_to_their_list(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.csv").write_text("image,seed\n../images/chair.png,1\n")
    assert read_prompts(["lists/list.csv"], base=tmp_path)[0].image == str(tmp_path / "images" / "chair.png")


def test_a_key_is_made_safe_and_two_that_become_equal_clash(read: Read) -> None:
    lines = ['{"image": "a.png", "key": "../../etc/passwd"}', '{"image": "b.png", "key": ".."}']
    first, second = read("list.jsonl", "\n".join(lines))
    assert first.key == "_.._etc_passwd"
    assert second.key.startswith("prompt-")
    problems = refused(read, "list.csv", "image,key\na.png,x/y\nb.png,x_y\n")
    assert problems[0] == "list.csv:3: its result would have the name 'x_y', as that of list.csv:2"


def test_a_place_in_a_json_document_is_the_index_of_its_entry(read: Read) -> None:
    assert refused(read, "list.json", '["a.png", "b.png", "x/a.png"]')[0].startswith("list.json[2]: its result")
    assert refused(read, "list.json", '{"prompts": ["a.png", 7]}')[0].startswith("list.json: prompts[1]: expected")


@pytest.mark.parametrize("numbered", [False, True])
def test_results_of_a_prompt_that_may_have_several_never_meet_those_of_another(read: Read, numbered: bool) -> None:
    table = "image,key\na.png,chair\nb.png,chair-1\nc.png,chair-01\nd.png,table-1\n"
    assert len(read("list.csv", table)) == 4
    if numbered:
        assert len(read("list.csv", table, several=True, keys="index-name")) == 4
        return
    problems = refused(read, "list.csv", table, several=True)
    assert problems[0] == "list.csv:3: its result would have the name 'chair-1', as one of those of list.csv:2 may"
    assert len(problems) == 2 and "index-name" in problems[1]


BAD = [
    ("e.csv", "", "e.csv: expected a header that names the columns, got an empty file"),
    ("e.json", " \n", "e.json: expected JSON, got an empty file"),
    ("e.txt.gz", b"", "prompts: e.txt.gz: the gzip file is empty"),
    ("n.csv.gz", b"image\na.png\n", "prompts: n.csv.gz: the gzip file is damaged, or none"),
    ("c.txt.gz", gzip.compress(b"https://h/a.png\n", mtime=0)[:-3], "prompts: c.txt.gz: the gzip file is cut short"),
    ("x.zip.gz", b"", "got a .zip.gz file"),
    ("h.csv", "https://u:pw@h/a.png\n", "h.csv:1: expected a header with a column prompt, image_url, image or text"),
    ("h.csv", "image;seed\na.png;7\n", "are the columns separated by something else?"),
    ("h.csv", "image,image\na.png,b.png\n", "h.csv:1: the column image stands twice in the header"),
    ("h.csv", "image,,x\na.png,1,2\n", "h.csv:1: expected a name for each column, got none for column 2"),
    ("r.csv", "image,x\n\na.png\n", "r.csv:3: expected 2 fields as in the header, got 1"),
    ("r.csv", "image,x\na.png,1,2\n", "r.csv:2: expected 2 fields as in the header, got 3"),
    ("q.csv", 'image,x\n"a\nb.png,y\n', "q.csv:2: a quotation mark is never closed"),
    ("q.csv", 'image\n"a"b\n', "q.csv:2: no valid CSV: ',' expected after '\"'"),
    ("q.csv", "image,x\na.png," + "x" * 200_000, "q.csv:2: expected fields of at most 131072 characters"),
    ("f.csv", "image,image_url\na.png,b.png\n", "f.csv:2: image_url and image are both given; expected one of them"),
    ("f.csv", "image,key,stem\na.png,x,y\n", "f.csv:2: key and stem are both given; expected one of them"),
    ("f.csv", "image,text\n,a chair\n", "f.csv:2: expected an image (image_url, image or prompt), got only a text"),
    ("f.csv", "image,x\n,1\n", "f.csv:2: expected an image (image_url, image or prompt), got neither image nor text"),
    ("s.csv", "image,seed\na.png,1.5\n", 's.csv:2: seed: expected an integer, got "1.5"'),
    ("s.csv", "image,seed\na.png,1_0\n", 's.csv:2: seed: expected an integer, got "1_0"'),
    ("s.csv", "image,seed\na.png,18446744073709551616\n", "s.csv:2: seed: expected an integer of at most 64 bits"),
    ("s.jsonl", '{"image": "a.png", "seed": true}', "s.jsonl:1: seed: expected an integer, got true"),
    ("s.jsonl", '{"image": "a.png", "seed": "7"}', 's.jsonl:1: seed: expected an integer, got "7"'),
    ("s.jsonl", '{"image": "a.png", "seed": ' + "9" * 5000 + "}", "s.jsonl:1: expected numbers of at most 4000"),
    ("k.jsonl", '{"image": "a.png", "key": 7}', "k.jsonl:1: key: expected a text, got 7"),
    ("i.jsonl", '{"image": ["a.png"]}', 'i.jsonl:1: image: expected a text, got ["a.png"]'),
    ("i.jsonl", '{"image": "ftp://h/a.png"}', "i.jsonl:1: expected an http or https URL or a path, got ftp://h/a.png"),
    ("i.jsonl", '{"image": "a\\u0000.png"}', "i.jsonl:1: expected an image's URL or path, got one with control"),
    ("t.csv", "image,x\na.png,a\0b\n", "a zero character (NUL)"),
    ("u.jsonl", '{"image": "https://h/\\ud800.png"}', "u.jsonl:1: the image: expected Unicode"),
    ("u.jsonl", '{"image": "a.png", "x": ["\\udc00"]}', "u.jsonl:1: x: expected Unicode"),
    ("u.jsonl", b"\xe9\n", "prompts: u.jsonl: expected UTF-8 text, got byte 0xe9 in line 1"),
    ("u.csv", "image\na.png".encode("utf-16"), "it seems to be UTF-16: save it as UTF-8"),
    ("l.txt", b"https://h/a.png" + b"\n" * 90_000 + b"\xe9\n", "got byte 0xe9 in line 90001"),
    ("j.jsonl", '{"image": "a.png"', "j.jsonl:1: no valid JSON: Expecting ',' delimiter, column 18 (cut short?)"),
    ("j.jsonl", "\n[1]\n", "j.jsonl:2: expected a text, or fields"),
    ("j.jsonl", '{"image": "a.png", "x": NaN}', "j.jsonl:1: no valid JSON: NaN is no number"),
    ("j.jsonl", '{"image": "a.png", "x": 1e999}', "j.jsonl:1: expected numbers that are finite"),
    ("j.jsonl", '{"image": "a.png", "x": {"y": 1, "y": 2}}', 'j.jsonl:1: "y" stands twice in one object'),
    ("j.jsonl", '{"image": "a.png", "x": ' + "[" * 70 + "]" * 70 + "}", "x: expected at most 64 levels of nesting"),
    ("j.json", "[" * 100_000, "j.json: expected fewer levels of nesting"),
    ("j.json", '{"a": 1}', 'j.json: expected a list, or {"prompts": [a list], "seed": 42}, got {"a": 1}'),
    ("j.json", '{"prompts": [], "sed": 1}', 'j.json: expected prompts and seed, got "sed" beside them'),
    ("j.json", '{"prompts": [], "seed": 0.5}', "j.json: seed: expected an integer, got 0.5"),
    ("j.json", '["a.png", " "]', "j.json[1]: expected an image"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "said"), BAD, ids=lambda given: str(given)[:40])
def test_a_bad_list_is_refused_in_one_sentence(read: Read, name: str, content: str | bytes, said: str) -> None:
    (problem,) = refused(read, name, content)
    assert said in problem
    assert "pw" not in problem


@pytest.mark.parametrize("name", ["e.txt", "e.jsonl", "e.txt.gz", "h.csv", "h.json"])
def test_a_list_may_hold_nothing(read: Read, name: str) -> None:
    content = {"h.csv": b"image,seed\n\n,\n", "h.json": b"[]", "e.txt.gz": gzip.compress(b"")}.get(name, b"")
    assert list(read(name, content)) == []


def test_all_problems_of_all_sources_are_reported_and_many_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,seed,key\n" + "a.png,x,\n" * 15)
    (tmp_path / "b.txt").write_text("ftp://h/a.png\n" * 10)
    with pytest.raises(UsageError) as raised:
        read_prompts(["a.csv", "gone.txt", "b.txt"], base=tmp_path)
    begun = [problem[:8] for problem in raised.value.problems]
    assert begun[14:] == ["a.csv:16", "prompts:", "b.txt:1:", "b.txt:2:", "b.txt:3:", "b.txt:4:", "… and 6 "]


def test_images_for_a_protocol_that_takes_texts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for source in (".", "a.png", "*.png"):
        with pytest.raises(UsageError, match="expected texts, as the protocol takes these, got images"):
            read_prompts([source], base=tmp_path, what="text")


def test_stdin_may_be_json_lines(tmp_path: Path) -> None:
    given = io.StringIO('{"text": "a chair", "seed": 7}\n{"text": "two chairs"}\n')
    prompts = read_prompts(["-"], base=tmp_path, stdin=given, what="text")
    assert [(one.text, one.seed) for one in prompts] == [("a chair", 7), ("two chairs", None)]
    texts = read_prompts(["-"], base=tmp_path, stdin=io.StringIO('{"a": 1}\n'), what="text")
    assert texts[0].text == '{"a": 1}'


def paged(content: bytes, content_type: str = "", url: str = "") -> Fetch:
    return lambda asked: Page(io.BytesIO(content), url or asked, content_type)


@pytest.mark.parametrize(
    ("url", "content_type", "content"),
    [
        ("https://h/set/list.csv", "text/plain", b"image\nimg/a.png\n"),
        ("https://h/set/list?format=csv", "text/csv; charset=utf-8", b"image\nimg/a.png\n"),
        ("https://h/set/list", "application/x-ndjson", b'{"image": "img/a.png"}'),
        ("https://h/set/list", "application/json", b'["img/a.png"]'),
        ("https://h/set/list", "application/octet-stream", b"# mine\nimg/a.png\n"),
        ("https://h/set/list.json.gz", "application/gzip", gzip.compress(b'["img/a.png"]', mtime=0)),
        ("https://h/set/list.json.gz", "application/json", b'["img/a.png"]'),
    ],
)
def test_a_list_at_a_url_has_its_format_from_suffix_or_type_and_images_relative_to_it(
    url: str, content_type: str, content: bytes, tmp_path: Path
) -> None:
    prompts = read_prompts([url], base=tmp_path, fetch=paged(content, content_type))
    assert list(prompts) == [Prompt(0, "a", "https://h/set/img/a.png")]
    moved = read_prompts([url], base=tmp_path, fetch=paged(content, content_type, "http://cdn/7/x"))
    assert moved[0].image == "http://cdn/7/img/a.png"


def test_a_place_in_a_list_at_a_url_is_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"https://h/lists/:2: .* 'a', as that of https://h/lists/:1"):
        read_prompts(["https://h/lists/"], base=tmp_path, fetch=paged(b"a.png\nb/a.png\n"))


def test_the_url_of_an_image_is_a_prompt(tmp_path: Path) -> None:
    assert list(read_prompts(["https://h/a.png?v=1"], base=tmp_path)) == [Prompt(0, "a", "https://h/a.png?v=1")]


@pytest.mark.parametrize(
    ("content", "content_type", "said"),
    [
        (b"/data/a.png\n", "", "https://h/list.txt:1: expected a URL, or one relative to that of the list, got the"),
        (b"x\\a.png\n", "", "got the path x\\a.png"),
        (b"<html>", "text/html", "prompts: https://h/list.txt: expected a list of prompts, got text/html; nothing"),
        (gzip.compress(b"a.png\n" * 1000, mtime=0), "", "expected at most 1000 bytes, unpacked"),
        (gzip.compress(b"a.png\n", mtime=0)[:-2], "", "the gzip file is cut short"),
        (b"a.png\nb/a.png\n", "", "https://h/list.txt:2: its result would have the name 'a', as that of https://h/"),
    ],
)  # fmt: skip
def test_a_bad_list_at_a_url_is_refused_without_its_secrets(
    content: bytes, content_type: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_MOST_BYTES", 1000)
    url = "https://u:hunter2@h/list.txt?code=hunter2"
    with pytest.raises(UsageError) as raised:
        read_prompts([url], base=tmp_path, fetch=paged(content, content_type))
    assert said in raised.value.problems[0]
    assert "hunter2" not in str(raised.value)


def test_a_list_is_downloaded_through_redirects(server: ScriptedServer, tmp_path: Path) -> None:
    server.script["/old"] = [Answer(status=302, body=b"", headers={"Location": "/lists/new.csv"})]
    server.script["/lists/new.csv"] = [
        Answer(body=b"image,seed\na.png,7\n", length="chunked", headers={"Content-Type": "text/csv"})
    ]
    page = fetch_list(f"{server.url}/old", Timeouts())
    assert (page.url, page.content_type) == (f"{server.url}/lists/new.csv", "text/csv")
    assert page.file.read() == b"image,seed\na.png,7\n"
    page.file.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(status=404, body=b"gone"), "/list.txt answers 404"),
        (Answer(body=b"x" * 900, cut=100), "the body was cut"),
        (Answer(body=b"x" * 2000), "is longer than 1000 bytes"),
        (Answer(body=b"x" * 900, drip_s=0.02), "took longer than total_s"),
        (Answer(status=302, headers={"Location": "/list.txt"}), "/list.txt answers 404"),
        (Answer(status=302, headers={"Location": "http://u:hunter2@h:99999/?code=hunter2"}), "http://h:99999/"),
    ],
)
def test_a_list_that_can_not_be_fetched_is_one_sentence_without_secrets(
    server: ScriptedServer, tmp_path: Path, answer: Answer, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.client.web.LIST_MAX_BYTES", 1000)
    server.script["/list.txt"] = [answer, Answer(status=404)]
    url = f"{server.url.replace('//', '//u:hunter2@')}/list.txt?code=hunter2"
    with pytest.raises(UsageError) as raised:
        read_prompts([url], base=tmp_path, fetch=lambda url: fetch_list(url, Timeouts(total_s=0.5)))
    (problem,) = raised.value.problems
    assert said in problem and problem.endswith("nothing was sent")
    assert "hunter2" not in problem


def test_nobody_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"prompts: http://127.0.0.1:1/list.txt: Connection refused; nothing was sent"
    ):
        read_prompts(["http://127.0.0.1:1/list.txt"], base=tmp_path, fetch=lambda url: fetch_list(url, Timeouts()))
    with pytest.raises(TransportError):
        fetch_list("http://127.0.0.1:1/", Timeouts())


@pytest.mark.parametrize("host", ["", "[x", "h:99999", "h:0", "a b", "h\n"])
def test_what_is_no_url_is_not_asked(host: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        read_prompts([f"https://u:hunter2@{host}/list.txt?code=hunter2"], base=tmp_path, fetch=paged(b"a.png"))
    assert raised.value.problems[0].startswith("prompts: expected the URL of a list, got https://")
    assert "hunter2" not in str(raised.value)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
IMAGES = st.builds(
    "{}{}.png".format,
    st.sampled_from(["https://h/", "/data/", "HTTP://u:p@h/a?b=c&d=", "x/"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=9),
)
KNOWN = ("image_url", "image", "text", "prompt", "key", "stem", "seed")
ENTRIES = st.fixed_dictionaries(
    {"image": IMAGES},
    optional={"text": TEXTS, "key": st.text(min_size=1, max_size=12), "seed": st.integers(-(2**63), 2**64 - 1)},
)
EXTRA = st.dictionaries(TEXTS.filter(lambda name: name not in KNOWN), VALUES, max_size=3)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the first draw takes a second or two
@given(st.lists(st.builds(lambda entry, extra: entry | extra, ENTRIES, EXTRA), max_size=4))
def test_what_is_written_down_reads_back_the_same(tmp_path_factory: Any, entries: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("lists")
    (folder / "given.jsonl").write_text("".join(json.dumps(one) + "\n" for one in entries))
    try:
        prompts = read_prompts(["given.jsonl"], base=folder)
    except UsageError as error:
        assert all("name" in one for one in error.problems)  # two of one key
        return
    kept = [one for _, one in prompts.named()]
    for name, as_json in (("again.jsonl", True), *([] if needs_json(kept) else [("again.txt", False)])):
        (folder / name).write_bytes("".join(written(kept, as_json=as_json)).encode())
        assert list(read_prompts([str(folder / name)], base=Path("/"))) == list(prompts)
    assert list(prompts) == [prompts[index] for index in range(len(prompts))]
    for one in prompts:
        assert local_image(encode(one)) == (None if one.is_url or not one.image else one.image)


@given(st.text(min_size=1, max_size=300))
def test_a_key_that_was_made_safe_stays_as_it_is(key: str) -> None:
    safe = safe_key(key)
    assert safe_key(safe) == safe
    assert safe and not safe.startswith(".") and "/" not in safe and len(safe.encode()) <= 200
