"""Files at a URL: what arrives, what is refused, what is tried again, and what nobody ever sees."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3 import OTHERS, READER, client
from s3proxy import S3Proxy

from runner.errors import UsageError
from runner.remote import Entry, RemoteError, Store, refusals
from runner.remote import s3 as remote_s3
from runner.settings import Upload
from runner.stop import Fence

QUICK = Upload(attempts=4, backoff_s=0.01, backoff_max_s=0.02, part_bytes=5 * 1024 * 1024)
LARGE = random.Random(8).randbytes(11 * 1024 * 1024)
"""Three parts."""


@pytest.fixture(params=["s3", "memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of each kind that nobody used before."""
    if request.param == "s3":
        return f"s3://{request.getfixturevalue('bucket')}/night"
    return f"memory://{tmp_path.name}-{id(tmp_path)}/night" if request.param == "memory" else f"file://{tmp_path}/far"


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    """Writes a local file and returns its path."""

    def write(content: bytes, name: str = "local") -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return write


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def uploads_in(s3_url: str, bucket: str) -> list[Any]:
    return client(s3_url).list_multipart_uploads(Bucket=bucket).get("Uploads", [])


def keys_in(s3_url: str, bucket: str) -> list[str]:
    return [one["Key"] for one in client(s3_url).list_objects_v2(Bucket=bucket).get("Contents", [])]


# Every kind of store


def test_what_was_put_is_there_and_comes_back(url: str, file: Callable[..., str], tmp_path: Path) -> None:
    store = Store(url, QUICK)
    for name, content in {"a b#é.ply": b"small", "empty.ply": b"", "large.ply": LARGE}.items():
        store.put(file(content), name, sha256=sha256(content))
        store.fetch(name, str(tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == content
        assert store.entry(name) == Entry(name, len(content), pytest.approx(time.time(), abs=60))
    assert store.entry("another.ply") is None
    assert [one for one in os.listdir(tmp_path) if one.endswith(".part")] == []


def test_small_files_are_written_and_read_whole(url: str) -> None:
    store = Store(url, QUICK)
    assert store.read("summary.json") is None
    store.write("summary.json", b"{}")
    store.write("summary.json", b"{1}")
    assert store.read("summary.json") == b"{1}"
    store.write(".runner/ledger.jsonl", b"line")
    assert store.read(".runner/ledger.jsonl") == b"line"


def test_a_file_is_created_once(url: str) -> None:
    store = Store(url, QUICK)
    assert store.create("lock", b"mine")
    assert not store.create("lock", b"yours")
    assert store.read("lock") == b"mine"
    store.remove(["lock"])
    assert store.create("lock", b"yours")


def test_a_folder_lists_its_files_and_its_folders(url: str) -> None:
    store = Store(url, QUICK)
    for name in ("a.ply", "b.ply", ".runner/ledger.jsonl", ".runner/deep/x", "other/c.ply"):
        store.write(name, b"12345")
    assert sorted(one.name for one in store.entries()) == ["a.ply", "b.ply"]
    assert {one.size_bytes for one in store.entries()} == {5}
    assert [one.name for one in store.entries(".runner")] == [".runner/ledger.jsonl"]
    assert sorted(store.folders()) == [".runner", "other"]
    assert list(store.folders(".runner")) == [".runner/deep"]
    assert list(store.entries("nowhere")) == list(store.folders("nowhere")) == []


def test_a_listing_is_never_an_old_one(url: str) -> None:
    store = Store(url, QUICK)
    store.write("a", b"1")
    assert len(list(store.entries())) == 1
    Store(url, QUICK).write("b", b"2")
    assert len(list(store.entries())) == 2
    Store(url, QUICK).remove(["a", "b"])
    assert list(store.entries()) == [] and store.entry("a") is None


def test_what_is_removed_need_not_be_there(url: str) -> None:
    store = Store(url, QUICK)
    for name in "abcde":
        store.write(name, b"x")
    store.remove(["a", "gone"])
    store.remove(["b", "c", "d", "gone", "e"])
    assert list(store.entries()) == []


def test_a_file_that_changed_since_it_was_verified_is_refused(url: str, file: Callable[..., str]) -> None:
    store = Store(url, QUICK)
    for content in (b"other", LARGE):
        with pytest.raises(RemoteError, match="has changed since it was verified"):
            store.put(file(content), "a.ply", sha256=sha256(b"verified"))
    assert list(store.entries()) == []


def test_a_local_file_that_is_gone_is_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"gone\.ply can't be read: No such file"):
        Store(url, QUICK).put(str(tmp_path / "gone.ply"), "gone.ply")


def test_a_local_disk_that_refuses_a_download_is_named(url: str, tmp_path: Path) -> None:
    store = Store(url, QUICK)
    store.write("a", b"1")
    with pytest.raises(RemoteError, match=r"nowhere/a can't be written: No such file or directory"):
        store.fetch("a", str(tmp_path / "nowhere" / "a"))


def test_what_is_missing_leaves_the_local_file_as_it_was(url: str, file: Callable[..., str]) -> None:
    path = file(b"before")
    with pytest.raises(RemoteError, match="can't be read"):
        Store(url, QUICK).fetch("none", path)
    assert Path(path).read_bytes() == b"before"


@pytest.mark.parametrize(
    ("url", "said"), [("gs://bucket/x", "gs://bucket/x: .*gcsfs"), ("foo://bucket/x", "nothing speaks foo://")]
)
def test_a_scheme_that_nothing_speaks_is_named_at_once(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Store(url, QUICK)


# On filesystems


def test_a_reader_of_a_filesystem_never_sees_half_a_file(tmp_path: Path, file: Callable[..., str]) -> None:
    store = Store(f"file://{tmp_path}/far", QUICK)
    store.write("large.ply", b"before")
    seen, over = set(), threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.add((tmp_path / "far" / "large.ply").stat().st_size)

    reader = threading.Thread(target=look)
    reader.start()
    store.put(file(LARGE), "large.ply")
    over.set()
    reader.join()
    assert seen <= {6, len(LARGE)}
    assert os.listdir(tmp_path / "far") == ["large.ply"]


def test_a_filesystem_that_refuses_keeps_what_was_there(tmp_path: Path, file: Callable[..., str]) -> None:
    (tmp_path / "far" / "taken").mkdir(parents=True)
    with pytest.raises(RemoteError, match=r"far/taken can't be written"):
        Store(f"file://{tmp_path}/far", QUICK).put(file(b"x"), "taken")
    assert os.listdir(tmp_path / "far") == ["taken"]


def test_a_copy_that_differs_is_noticed_where_no_checksum_is_told(
    tmp_path: Path, file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.local import LocalFileSystem

    left = [b"spoil1", b"spoil2"]

    def copied(self: Any, source: str, target: str, **_: Any) -> None:
        Path(target).write_bytes(left.pop() if left else Path(source).read_bytes())

    monkeypatch.setattr(LocalFileSystem, "put_file", copied)
    store = Store(f"file://{tmp_path}/far", QUICK)
    store.put(file(b"better"), "a")
    assert store.read("a") == b"better" and not left
    left += [b"spoil1"] * 9
    with pytest.raises(RemoteError, match="its size or checksum there is not that of the file, 4 times"):
        store.put(file(b"better"), "b")
    assert os.listdir(tmp_path / "far") == ["a"]


# A bucket, and what goes wrong on the way


BROKEN = ("InternalError", "SlowDown", "reset", "cut", "spoil")


def test_parts_that_fail_are_sent_again_and_no_others(s3: S3Proxy, bucket: str, file: Callable[..., str]) -> None:
    for do in BROKEN:
        s3.fail("part", do)
    policy = QUICK.model_copy(update={"attempts": 9})
    Store(f"s3://{bucket}/night", policy).put(file(LARGE), "large.ply")
    assert client(s3.there).get_object(Bucket=bucket, Key="night/large.ply")["Body"].read() == LARGE
    assert s3.counts["part"] == 3 + len(BROKEN) and s3.counts["begin"] == s3.counts["head"] == 1


@pytest.mark.parametrize("do", BROKEN)
def test_a_small_file_that_fails_is_sent_again(s3: S3Proxy, bucket: str, file: Callable[..., str], do: str) -> None:
    s3.fail("put", do, times=2)
    Store(f"s3://{bucket}", QUICK).put(file(b"small"), "small.ply")
    assert client(s3.there).get_object(Bucket=bucket, Key="small.ply")["Body"].read() == b"small"
    assert s3.counts["put"] == 3


def test_the_store_is_told_the_checksum_of_what_is_sent(s3: S3Proxy, bucket: str, file: Callable[..., str]) -> None:
    Store(f"s3://{bucket}", QUICK).put(file(b"small"), "small.ply")
    Store(f"s3://{bucket}", QUICK).put(file(LARGE), "large.ply")
    assert s3.headers["put"]["Content-MD5"] and s3.headers["part"]["Content-MD5"]


def test_an_object_that_is_not_what_was_sent_is_removed_and_sent_again(
    s3: S3Proxy, s3_url: str, bucket: str, file: Callable[..., str]
) -> None:
    there = client(s3_url)
    s3.rotting = lambda where, key, body: there.put_object(Bucket=where, Key=key, Body=body)
    s3.fail("put", "rot")
    Store(f"s3://{bucket}", QUICK).put(file(b"small"), "a.ply")
    assert there.get_object(Bucket=bucket, Key="a.ply")["Body"].read() == b"small"
    assert (s3.counts["put"], s3.counts["delete"], s3.counts["get"]) == (2, 1, 1)
    s3.fail("put", "rot", times=99)
    with pytest.raises(RemoteError, match=r"b\.ply can't be written: its size or checksum there is not that of"):
        Store(f"s3://{bucket}", QUICK).put(file(b"small"), "b.ply")
    assert keys_in(s3_url, bucket) == ["a.ply"]


def test_an_object_that_another_has_put_there_meanwhile_is_not_removed(
    s3: S3Proxy, s3_url: str, bucket: str, file: Callable[..., str]
) -> None:
    s3.fail("head", "stall")
    path, there = file(b"small"), client(s3_url)

    def put() -> None:
        with pytest.raises(RemoteError, match="its size or checksum there is not that of the file"):
            Store(f"s3://{bucket}", QUICK.model_copy(update={"attempts": 1})).put(path, "a.ply")

    upload = threading.Thread(target=put)
    upload.start()
    assert s3.stalled.wait(20)
    there.put_object(Bucket=bucket, Key="a.ply", Body=b"SMALL")
    s3.go_on.set()
    upload.join(20)
    assert there.get_object(Bucket=bucket, Key="a.ply")["Body"].read() == b"SMALL"
    Store(f"s3://{bucket}", QUICK).put(path, "a.ply")
    assert there.get_object(Bucket=bucket, Key="a.ply")["Body"].read() == b"small"


def test_an_object_of_many_parts_that_is_not_what_was_sent_is_sent_again(
    s3: S3Proxy, s3_url: str, bucket: str, file: Callable[..., str]
) -> None:
    there = client(s3_url)
    s3.rotting = lambda where, key, _: there.put_object(Bucket=where, Key=key, Body=LARGE[:-1] + b"?")
    s3.fail("complete", "rot")
    Store(f"s3://{bucket}", QUICK).put(file(LARGE), "a.ply")
    assert there.get_object(Bucket=bucket, Key="a.ply")["Body"].read() == LARGE
    assert (s3.counts["complete"], s3.counts["delete"], s3.counts["get"]) == (2, 1, 3)


def test_an_object_whose_etag_is_no_checksum_is_read_back(
    s3: S3Proxy, bucket: str, file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from runner.remote import parts

    monkeypatch.setattr(parts, "etag_of", lambda _: "as with a key of KMS")
    Store(f"s3://{bucket}", QUICK).put(file(LARGE), "large.ply")
    assert s3.counts["get"] == 3 and s3.counts["delete"] == 0


def test_an_upload_that_fails_leaves_nothing_behind(
    s3: S3Proxy, s3_url: str, bucket: str, file: Callable[..., str]
) -> None:
    s3.fail("part", "InternalError", times=99)
    with pytest.raises(RemoteError, match=rf"s3://{bucket}/large\.ply can't be written: InternalError .*, 4 times; "):
        Store(f"s3://{bucket}", QUICK).put(file(LARGE), "large.ply")
    assert s3.counts["abort"] == 1
    assert uploads_in(s3_url, bucket) == keys_in(s3_url, bucket) == []


def test_an_end_of_the_upload_whose_answer_got_lost_is_looked_up(
    s3: S3Proxy, bucket: str, file: Callable[..., str]
) -> None:
    s3.fail("complete", "cut")
    Store(f"s3://{bucket}", QUICK).put(file(LARGE), "large.ply")
    assert s3.counts["part"] == 3 and s3.counts["begin"] == 1


def test_an_upload_that_somebody_ended_begins_anew(
    s3: S3Proxy, s3_url: str, bucket: str, file: Callable[..., str]
) -> None:
    s3.fail("complete", "NoSuchUpload")
    Store(f"s3://{bucket}", QUICK).put(file(LARGE), "large.ply")
    assert s3.counts["begin"] == 2
    assert uploads_in(s3_url, bucket) == []
    assert keys_in(s3_url, bucket) == ["large.ply"]


def test_a_reader_of_a_bucket_never_sees_half_an_object(
    s3: S3Proxy, s3_url: str, bucket: str, file: Callable[..., str]
) -> None:
    store = Store(f"s3://{bucket}", QUICK)
    store.write("large.ply", b"before")
    s3.fail("complete", "stall")
    upload = threading.Thread(target=store.put, args=(file(LARGE), "large.ply"))
    upload.start()
    assert s3.stalled.wait(20)
    assert [one.size_bytes for one in Store(f"s3://{bucket}", QUICK).entries()] == [6]
    assert client(s3_url).get_object(Bucket=bucket, Key="large.ply")["Body"].read() == b"before"
    s3.go_on.set()
    upload.join()
    assert [one.size_bytes for one in store.entries()] == [len(LARGE)]


def test_an_expired_credential_is_read_anew_until_it_was_renewed(
    s3: S3Proxy, bucket: str, file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.expired.add("AKIDRUNNER")
    policy = QUICK.model_copy(update={"attempts": 99})
    upload = threading.Thread(target=Store(f"s3://{bucket}", policy).put, args=(file(LARGE), "large.ply"))
    upload.start()
    while s3.counts["begin"] < 3:
        time.sleep(0.01)
    for name, value in OTHERS.items():
        monkeypatch.setenv(name, value)
    upload.join()
    assert client(s3.there).head_object(Bucket=bucket, Key="large.ply")["ContentLength"] == len(LARGE)


def test_a_profile_file_that_was_renewed_is_read_anew(
    s3: S3Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def write(keys: dict[str, str]) -> None:
        lines = (f"{name.lower()} = {value}\n" for name, value in keys.items())
        (tmp_path / "profiles").write_text("[night]\n" + "".join(lines))

    for name in OTHERS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "profiles"))
    monkeypatch.setenv("AWS_PROFILE", "night")
    write({"AWS_ACCESS_KEY_ID": "AKIDOLD", "AWS_SECRET_ACCESS_KEY": "old"})
    s3.expired.add("AKIDOLD")
    store = Store(f"s3://{bucket}", QUICK)
    with pytest.raises(RemoteError, match=r"ExpiredToken \(the test said so\), 4 times; renew the credentials"):
        store.write("a", b"1")
    write(OTHERS)
    store.write("a", b"1")
    assert store.read("a") == b"1"


def test_an_expired_credential_is_said_of_a_question_without_words(s3: S3Proxy, bucket: str) -> None:
    s3.expired.add("AKIDRUNNER")
    s3.fail("head", "ExpiredToken", times=99)
    with pytest.raises(RemoteError, match="ExpiredToken"):
        Store(f"s3://{bucket}", QUICK).entry("a")


@pytest.mark.parametrize("ask", ["put", "entries", "read", "entry", "create", "remove"])
def test_a_bucket_that_is_not_there_is_named_after_one_try(s3: S3Proxy, file: Callable[..., str], ask: str) -> None:
    store = Store("s3://no-such-bucket/night", QUICK)
    asked: dict[str, Callable[[], Any]] = {
        "put": lambda: store.put(file(b"x"), "a"),
        "entries": lambda: list(store.entries()),
        "read": lambda: store.read("a"),
        "entry": lambda: store.entry("a"),
        "create": lambda: store.create("a", b""),
        "remove": lambda: store.remove(["a"]),
    }
    with pytest.raises(
        RemoteError, match=r"s3://no-such-bucket/night.* can't be .*NoSuchBucket.*make the bucket, or"
    ):
        asked[ask]()
    assert s3.counts.total() <= 2


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (READER, "AccessDenied .*these credentials may not do that"),
        ({**OTHERS, "AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch .*correct the credentials"),
        ({**OTHERS, "AWS_ACCESS_KEY_ID": "AKIDNOBODY"}, "InvalidAccessKeyId .*correct the credentials"),
    ],
)
def test_credentials_that_may_not_are_said_after_one_try(
    s3: S3Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], said: str
) -> None:
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RemoteError, match=rf"^s3://{bucket}/a can't be written: {said}") as raised:
        Store(f"s3://{bucket}", QUICK).write("a", b"x")
    assert s3.counts["put"] == 1
    assert keys["AWS_SECRET_ACCESS_KEY"] not in str(raised.value)


def test_no_credentials_at_all_are_said_before_anything_is_sent(
    s3: S3Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OTHERS:
        monkeypatch.delenv(name)
    with pytest.raises(RemoteError, match="no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET"):
        Store(f"s3://{bucket}", QUICK).write("a", b"x")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(RemoteError, match=r"ProfileNotFound .*correct AWS_PROFILE"):
        Store(f"s3://{bucket}", QUICK).write("a", b"x")
    assert s3.counts.total() == 0


def test_a_store_where_nobody_answers_is_tried_again(s3: S3Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(RemoteError, match="nobody answers there, 4 times; do it again later"):
        Store("s3://bucket-1", QUICK).write("a", b"x")


def test_a_file_whose_creation_was_not_answered_is_ours_all_the_same(s3: S3Proxy, bucket: str) -> None:
    store = Store(f"s3://{bucket}", QUICK)
    s3.fail("put", "cut")
    assert store.create("lock", b"mine")
    s3.fail("put", "reset")
    assert not store.create("lock", b"yours")


def test_a_listing_goes_on_over_pages_and_resets(
    s3: S3Proxy, s3_url: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"s3://{bucket}/n", QUICK)
    there = client(s3_url)
    for number in range(9):
        there.put_object(Bucket=bucket, Key=f"n/{number}", Body=b"")
    monkeypatch.setattr(remote_s3, "_PAGE", 4)
    monkeypatch.setattr(remote_s3, "_REMOVED_AT_ONCE", 5)
    s3.fail("list", "reset", times=2)
    assert [one.name for one in store.entries()] == list("012345678")
    assert s3.counts["list"] == 5
    store.remove([one.name for one in store.entries()])
    assert keys_in(s3_url, bucket) == [] and s3.counts["delete-many"] == 2


def test_a_page_of_a_listing_is_asked_for_when_it_is_needed(s3: S3Proxy, bucket: str) -> None:
    store = Store(f"s3://{bucket}", QUICK)
    listing = store.entries()
    assert s3.counts["list"] == 0
    assert list(listing) == [] and s3.counts["list"] == 1


def test_waits_end_when_the_run_does(s3: S3Proxy, s3_url: str, bucket: str, file: Callable[..., str]) -> None:
    abandoned = threading.Event()
    store = Store(f"s3://{bucket}", Upload(backoff_s=60, part_bytes=QUICK.part_bytes), abandoned)
    s3.fail("part", "InternalError", times=2)
    s3.fail("part", "stall")
    failed: list[RemoteError] = []

    def put() -> None:
        with pytest.raises(RemoteError) as raised:
            store.put(file(LARGE), "large.ply")
        failed.append(raised.value)

    upload = threading.Thread(target=put)
    upload.start()
    assert s3.stalled.wait(20)
    abandoned.set()
    upload.join(10)
    assert failed and "large.ply can't be written" in str(failed[0])
    assert uploads_in(s3_url, bucket) == []


@pytest.mark.parametrize(("content", "places"), [(b"small", (0, 1, 2)), (LARGE, (0, 1, 2, 7, 11))])
def test_nothing_goes_up_once_it_should_not_though_nobody_could_say_so(
    s3: S3Proxy, bucket: str, file: Callable[..., str], content: bytes, places: tuple[int, ...]
) -> None:
    path, here = file(content), threading.Lock()

    def put(stopped_at: int) -> int:
        """Upload, in a process that goes on after a stop at one of many places; return how many those are."""
        looks = 0

        def passed() -> bool:
            nonlocal looks
            with here:
                looks += 1
                return looks > stopped_at

        Store(f"s3://{bucket}", QUICK, Fence(passed)).put(path, "a.ply")
        return looks

    s3.fail("complete", "InternalError")
    assert put(10**6) > places[-1] + 1
    remove = client(s3.there).delete_object
    for stopped_at in places:
        remove(Bucket=bucket, Key="a.ply")
        s3.counts.clear()
        with pytest.raises(RemoteError):
            put(stopped_at)
        assert keys_in(s3.there, bucket) == [] and uploads_in(s3.there, bucket) == []
        assert stopped_at or not s3.counts


def test_many_threads_share_a_store_and_few_connections(s3: S3Proxy, bucket: str, file: Callable[..., str]) -> None:
    store = Store(f"s3://{bucket}", QUICK)
    path = file(b"small")
    before = threading.active_count()
    threads = [threading.Thread(target=store.put, args=(path, f"{number}.ply")) for number in range(150)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(list(store.entries())) == 150
    assert s3.most_at_once <= 64
    assert threading.active_count() - before < 80  # the proxy has a thread for each connection


def test_parts_go_up_at_once_but_no_more_than_they_may(s3: S3Proxy, bucket: str, file: Callable[..., str]) -> None:
    Store(f"s3://{bucket}", QUICK.model_copy(update={"at_once": 2})).put(file(LARGE * 2), "large.ply")
    assert s3.counts["part"] == 5 and s3.most_at_once == 2


def test_an_interpreter_ends_without_a_word(s3: S3Proxy, bucket: str, environment: dict[str, str]) -> None:
    s3.fail("put", "ExpiredToken")
    code = (
        "from runner.remote import Store; from runner.settings import Upload; "
        f"store = Store('s3://{bucket}', Upload(backoff_s=0.01)); store.write('a', b'1'); print(store.read('a'))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout) == (0, "b'1'\n"), done.stderr
    assert done.stderr == ""


def test_asking_for_a_store_imports_nothing_heavy(environment: dict[str, str]) -> None:
    code = "import runner.remote, sys; print([one for one in ('fsspec', 's3fs', 'botocore') if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "[]\n"


def test_what_google_and_azure_say_of_an_object_is_compared() -> None:
    import base64
    import io

    from runner.remote.sums import is_known_same, md5_of, sums_of

    sums = sums_of(io.BytesIO(b"hello"))
    for md5, same in ((md5_of(b"hello"), True), (md5_of(b"other"), False)):
        assert is_known_same({"size": 5, "md5Hash": base64.b64encode(md5).decode()}, sums) is same
        assert is_known_same({"size": 5, "content_settings": {"content_md5": bytearray(md5)}}, sums) is same
    assert is_known_same({"size": 4}, sums) is False
    assert is_known_same({"size": 5, "content_settings": {"content_md5": None}}, sums) is None


def test_errors_of_other_libraries_are_read_by_their_codes() -> None:
    class HttpResponseError(Exception):
        status_code = 404
        error_code = "ContainerNotFound"

    class HttpError(Exception):
        code = 403

    assert refusals.refusal_of(HttpResponseError("no container")).kind == "never"
    assert refusals.refusal_of(HttpError("forbidden")).kind == "never"
    assert refusals.refusal_of(NotImplementedError()).kind == "never"
    assert refusals.refusal_of(TimeoutError("timed out")).kind == "again"
    assert refusals.refusal_of(OSError(errno.EISDIR, "Is a directory")).kind == "local"
    assert refusals.refusal_of(OSError(28, "No space left on device")).advice == "make space there, or allow it"
