"""ZIP as zipfile and the zip command write it, and archives that nobody should open."""

import io
import shutil
import stat
import struct
import subprocess
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import ResultError
from runner.formats import FORMATS, archive, verify
from runner.formats.inflate import inflated

TEXT = b"export const mesh = [" + b"0.5, " * 60 + b"];"


def check(content: bytes) -> None:
    FORMATS["zip"].check(io.BytesIO(content), len(content))


def refused(content: bytes) -> str:
    with pytest.raises(ResultError) as error:
        check(content)
    return str(error.value)


class Pipe(io.RawIOBase):
    """Cannot seek: what is written to it needs data descriptors."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, block: bytes) -> int:
        self.content += bytes(block)
        return len(block)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, **options: object) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method, **options) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def streamed(method: int = zipfile.ZIP_DEFLATED, *, large: bool = False) -> bytes:
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", method) as file:
        for name in ("a.js", "b.js"):
            with file.open(zipfile.ZipInfo(name), "w", force_zip64=large) as member:
                member.write(TEXT)
    return pipe.content


def zip64() -> bytes:
    """Return an archive whose end record and members use the 64-bit fields although they are small."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name in ("a.js", "b.js"):
            with file.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(TEXT)
    content = stream.getvalue()
    _, _, _, here, members, length, offset, _ = struct.unpack("<4sHHHHIIH", content[-22:])
    end = len(content) - 22
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, here, members, length, offset)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    return (
        content[:-22]
        + record
        + locator
        + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    )


def commented() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("a.js", TEXT)
        file.comment = b"3a7c made by a server"
    return stream.getvalue()


MEMBERS = {"a.js": TEXT, "_failed.json": b'{"b": "out of memory"}', "empty.txt": b"", "größe.js": b"1"}
WHOLE = {
    "deflated": zipped(MEMBERS),
    "stored": zipped(MEMBERS, zipfile.ZIP_STORED),
    "with data descriptors": streamed(),
    "stored with data descriptors": streamed(zipfile.ZIP_STORED),
    "with data descriptors of 64 bits": streamed(large=True),
    "zip64": zip64(),
    "with a comment": commented(),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_zip_is_accepted_and_zipfile_finds_no_fault(name: str) -> None:
    assert verify(io.BytesIO(WHOLE[name]), "auto") == verify(io.BytesIO(WHOLE[name]), "zip") == "zip"
    assert zipfile.ZipFile(io.BytesIO(WHOLE[name])).testzip() is None


@pytest.mark.parametrize("name", WHOLE)
def test_a_zip_cut_at_any_byte_is_refused(name: str) -> None:
    for end in range(4, len(WHOLE[name])):
        refused(WHOLE[name][:end])


@pytest.mark.parametrize("name", WHOLE)
def test_a_zip_with_more_behind_or_before_it_is_refused(name: str) -> None:
    content = WHOLE[name]
    for wrong in (content + b"\0", content + content):
        refused(wrong)
    for before in (b"#!/bin/sh\n", b"PK\3\4"):
        assert "its directory ends at byte" in refused(before + content) or "ZIP64" in refused(before + content)


@pytest.mark.parametrize("name", [name for name in WHOLE if "descriptor" in name])
def test_every_flipped_bit_in_a_data_descriptor_is_found(name: str) -> None:
    content = WHOLE[name]
    start, end = content.index(b"PK\7\x08"), content.index(b"PK\3\4", 4)
    for at in range(start, end):
        for bit in range(8):
            refused(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])


def test_a_data_descriptor_may_lack_its_signature() -> None:
    content = zipped({"a.js": TEXT})
    directory = content.index(b"PK\1\2")
    described = bytearray(content[:directory] + content[14:26] + content[directory:])
    struct.pack_into("<I", described, len(described) - 6, directory + 12)
    for at in (6, directory + 12 + 8):
        described[at] |= 8
    assert zipfile.ZipFile(io.BytesIO(described)).testzip() is None
    check(bytes(described))


@pytest.mark.parametrize("name", WHOLE)
def test_every_flipped_bit_in_the_content_of_a_member_is_found_unless_it_reads_the_same(name: str) -> None:
    content = WHOLE[name]
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = file.infolist()
    for member in members:
        head = struct.unpack_from("<4sHHHHHIIIHH", content, member.header_offset)
        start = member.header_offset + 30 + head[-2] + head[-1]
        for at in range(start, start + member.compress_size):
            for bit in range(8):
                flipped = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
                try:
                    check(flipped)
                except ResultError:
                    continue
                read = [zipfile.ZipFile(io.BytesIO(each)).read(member.filename) for each in (flipped, content)]
                assert read[0] == read[1], (member.filename, at, bit)


@pytest.mark.parametrize("name", WHOLE)
def test_a_zip_with_a_flipped_bit_that_is_accepted_has_the_same_members_for_zipfile(name: str) -> None:
    content = WHOLE[name]
    good = zipfile.ZipFile(io.BytesIO(content))
    wanted = {member.orig_filename: good.read(member) for member in good.infolist()}
    for at in range(len(content)):
        for bit in range(8):
            flipped = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
            try:
                check(flipped)
            except ResultError:
                continue
            file = zipfile.ZipFile(io.BytesIO(flipped))
            assert {member.orig_filename: file.read(member) for member in file.infolist()} == wanted, (at, bit)


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_damage_never_raises_anything_but_a_result_error(name: str, at: int, noise: bytes) -> None:
    content = WHOLE[name]
    start = at % len(content)
    try:
        check(content[:start] + noise + content[start + len(noise) :])
    except ResultError:
        return


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_result_error(noise: bytes) -> None:
    refused(b"PK\3\4" + noise)


def of(name: str, change: Callable[[zipfile.ZipInfo], None] | None = None, content: bytes = TEXT) -> bytes:
    member = zipfile.ZipInfo(name)
    if change:
        change(member)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr(member, content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "name", ["../a.js", "/etc/a", "x/a.js", "x/", "..", ".", "a\\b.js", "C:a.js", "a\nb", "a\x7f"]
)
def test_a_name_that_is_more_than_a_base_name_is_refused(name: str) -> None:
    assert "has no plain file name" in refused(of(name))


def test_a_name_with_a_nul_in_it_is_refused() -> None:
    assert "has no plain file name" in refused(of("a.jsXb").replace(b"a.jsXb", b"a.js\0b"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFIFO])
def test_what_is_no_plain_file_is_refused(kind: int) -> None:
    def change(member: zipfile.ZipInfo) -> None:
        member.create_system = 3
        member.external_attr = (kind | 0o777) << 16

    assert "is no plain file" in refused(of("a.js", change))


def test_two_members_of_one_name_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as file:
            file.writestr("a.js", "1")
            file.writestr("A.js", "2")
    assert "two members named" in refused(stream.getvalue())


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_than_deflate_is_refused(method: int) -> None:
    assert "is compressed by method" in refused(zipped({"a.js": TEXT}, method))


def test_one_part_of_several_is_refused() -> None:
    content = of("a.js")
    for at in (18, 16, 12):  # this disk, the directory's first one, the members of all disks
        assert "it is one part of several" in refused(content[:-at] + b"\2\0" + content[2 - at :])


def test_an_empty_zip_is_refused() -> None:
    assert "it has no members" in refused(zipped({}))


@pytest.mark.skipif(not shutil.which("zip"), reason="needs the zip command")
def test_the_zip_command_s_files_are_accepted_unless_encrypted(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_bytes(TEXT)
    for name, options in (("plain", []), ("locked", ["-P", "secret"])):
        subprocess.run(["zip", "-q", *options, f"{name}.zip", "a.js"], cwd=tmp_path, check=True)
    check((tmp_path / "plain.zip").read_bytes())
    assert "is encrypted" in refused((tmp_path / "locked.zip").read_bytes())


def test_an_encrypted_member_is_refused() -> None:
    content = bytearray(of("a.js"))
    for at in (6, content.index(b"PK\1\2") + 8):
        content[at] |= 1
    assert "is encrypted" in refused(bytes(content))


def test_a_member_that_calls_itself_something_else_where_it_stands_is_refused() -> None:
    content = of("a.js")
    assert "calls itself" in refused(content[:6] + b"\1" + content[7:])
    assert "calls itself 'b.js'" in refused(content.replace(b"a.js", b"b.js", 1))


def test_members_that_share_their_content_are_refused() -> None:
    """The bomb of David Fifield (2019): many names for one place."""
    content = zipped({"a.js": TEXT, "b.js": TEXT})
    second = content.rindex(b"PK\1\2")
    offset = struct.unpack_from("<I", content, second + 42)[0]
    overlapping = content[: second + 42] + struct.pack("<I", 0) + content[second + 46 :]
    assert offset > 0 and "expected a member at byte" in refused(overlapping)


def test_bytes_that_no_member_owns_are_refused() -> None:
    content = zipped({"a.js": TEXT})
    directory = content.index(b"PK\1\2")
    hidden = bytearray(content[:directory] + b"#" * 13 + content[directory:])
    struct.pack_into("<I", hidden, len(hidden) - 6, directory + 13)
    assert "its members end at byte" in refused(bytes(hidden))


def test_too_many_members_are_refused() -> None:
    many = zipped({f"{number}": b"" for number in range(archive.MEMBERS_MAX + 1)})
    assert "10001 members (expected at most 10000)" in refused(many)


def test_members_larger_than_the_cap_are_refused_before_they_are_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "UNPACKED_MAX", 2 * len(TEXT))
    check(zipped({"a.js": TEXT, "b.js": TEXT}))
    assert "bytes unpacked" in refused(zipped({"a.js": TEXT, "b.js": TEXT, "c.js": b"1"}))


def test_a_member_is_inflated_no_further_than_it_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(zipped({"a.js": bytes(1 << 25)}))
    for at in (22, content.index(b"PK\1\2") + 24):
        struct.pack_into("<I", content, at, 1000)
    sizes = []

    def counted(*given: object) -> Iterator[bytes]:
        for block in inflated(*given):
            sizes.append(len(block))
            yield block

    monkeypatch.setattr(archive, "inflated", counted)
    assert "expected 1000 bytes, got more" in refused(bytes(content))
    assert len(sizes) == 1 and sizes[0] <= 1 << 18
