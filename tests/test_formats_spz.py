"""SPZ in its three containers, beside gsply (gzip version 3 and NGSP version 4)."""

import gzip
import io
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import gsply
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import ResultError
from runner.formats import FORMATS, verify

HARMONICS = (0, 3, 8, 15, 24)


def check(content: bytes) -> None:
    FORMATS["spz"].check(io.BytesIO(content), len(content))


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)  # the same in every worker of pytest


def refused(content: bytes) -> str:
    with pytest.raises(ResultError) as error:
        check(content)
    return str(error.value)


def attributes(version: int, points: int, degree: int) -> list[bytes]:
    each = (6 if version == 1 else 9, 1, 3, 3, 4 if version >= 3 else 3, 3 * HARMONICS[degree])
    noise = np.random.default_rng(points)
    return [noise.integers(0, 64, size * points, dtype="u1").tobytes() for size in each]


def packed(version: int, *, points: int = 7, degree: int = 1, flags: int = 0, behind: bytes = b"") -> bytes:
    header = struct.pack("<4sIIBBBB", b"NGSP", version, points, degree, 12, flags, 0)
    return header + b"".join(attributes(version, points, degree)) + behind


def record(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content


def streams(*, points: int = 7, degree: int = 1, flags: int = 0, extensions: bytes = b"", version: int = 4) -> bytes:
    parts = [part for part in attributes(4, points, degree) if part]
    frames = [zstandard.compress(part) for part in parts]
    start = struct.pack(
        "<4sIIBBBBI12x", b"NGSP", version, points, degree, 12, flags, len(parts), 32 + len(extensions)
    )
    table = b"".join(struct.pack("<QQ", len(frame), len(part)) for frame, part in zip(frames, parts, strict=True))
    return start + extensions + table + b"".join(frames)


def by_gsply(version: int, bands: int, points: int, folder: Path) -> bytes:
    rng = np.random.default_rng(bands)

    def some(*shape: int) -> np.ndarray:
        return rng.random(shape, dtype="f4")

    splat = gsply.GSData(
        means=some(points, 3), scales=some(points, 3), quats=some(points, 4), opacities=some(points),
        sh0=some(points, 3), shN=some(points, HARMONICS[bands], 3),
    )  # fmt: skip
    gsply.write_spz(folder / "written.spz", splat, version=version)
    return (folder / "written.spz").read_bytes()


RECORD = record(0xADBE0002, b"123456789012")
WHOLE = {
    **{f"gzip version {version}": gzipped(packed(version)) for version in (1, 2, 3)},
    **{f"gzip degree {degree}": gzipped(packed(3, degree=degree)) for degree in range(5)},
    "gzip with a name in its header": gzipped(packed(2))[:3]
    + b"\x08" + gzipped(packed(2))[4:10] + b"a.spz\0" + gzipped(packed(2))[10:],
    "gzip with extensions": gzipped(packed(3, flags=2, behind=RECORD + record(9, b""))),
    "gzip with levels of detail": gzipped(packed(3, flags=0x80, behind=bytes(7 * 6))),
    **{f"streams degree {degree}": streams(degree=degree) for degree in range(5)},
    "streams with extensions": streams(flags=2, extensions=RECORD),
    "zstd": zstandard.compress(packed(2)),
    "zstd version 1": zstandard.compress(packed(1)),
    "zstd without its size": zstandard.ZstdCompressor(write_content_size=False).compress(packed(2)),
    "zstd with a checksum": zstandard.ZstdCompressor(write_checksum=True).compress(packed(2)),
    "zstd by two threads": zstandard.ZstdCompressor(threads=2, level=1).compress(packed(2, points=90_000)),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_spz_is_accepted(name: str) -> None:
    assert verify(io.BytesIO(WHOLE[name]), "auto") == verify(io.BytesIO(WHOLE[name]), "spz") == "spz"
    assert verify(io.BytesIO(WHOLE[name]), "none") == "spz"


@pytest.mark.parametrize("name", WHOLE)
def test_an_spz_cut_at_any_byte_is_refused(name: str) -> None:
    content = WHOLE[name]
    step = 1 if len(content) < 5000 else 9973
    for end in range(4, len(content), step):
        refused(content[:end])


@pytest.mark.parametrize("name", WHOLE)
def test_an_spz_with_more_behind_it_is_refused(name: str) -> None:
    for more in (b"\0", b"1", WHOLE[name]):
        refused(WHOLE[name] + more)


@pytest.mark.parametrize("name", [*(name for name in WHOLE if name.startswith("gzip")), "zstd with a checksum"])
def test_every_flipped_bit_is_found_where_a_checksum_is_unless_the_content_is_the_same(name: str) -> None:
    content = WHOLE[name]
    zipped = name.startswith("gzip")
    start = (
        6 if not zipped else 16 if content[3] else 10
    )  # time, system and name in a gzip header are under no checksum
    for at in range(start, len(content)):
        for bit in range(8):
            flipped = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
            try:
                check(flipped)
            except ResultError:
                continue
            found = zlib.decompress(flipped, 31) if zipped else zstandard.decompress(flipped)
            assert found == (gzip.decompress(content) if zipped else zstandard.decompress(content)), (at, bit)


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_damage_never_raises_anything_but_a_result_error(name: str, at: int, noise: bytes) -> None:
    content = WHOLE[name]
    start = 4 + at % (len(content) - 4)
    try:
        check(content[:start] + noise + content[start + len(noise) :])
    except ResultError:
        return


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("bands", [0, 1, 2, 3])
def test_what_gsply_writes_is_accepted_and_what_is_accepted_gsply_reads(
    version: int, bands: int, tmp_path: Path
) -> None:
    content = by_gsply(version, bands, 40, tmp_path)
    check(content)
    made = gzipped(packed(3, degree=bands)) if version == 3 else streams(degree=bands)
    (tmp_path / "ours.spz").write_bytes(made)
    assert len(gsply.read_spz(tmp_path / "ours.spz")) == 7
    for end in range(4, len(content), 7):
        refused(content[:end])
        (tmp_path / "cut.spz").write_bytes(content[:end])
        with pytest.raises((ValueError, zstandard.ZstdError)):
            gsply.read_spz(tmp_path / "cut.spz")


def test_one_gzip_member_that_gsply_deflates_in_parts_is_accepted(tmp_path: Path) -> None:
    check(by_gsply(3, 3, 40_000, tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            gzipped(b'{"detail": "out of memory"}'),
            'expected an SPZ, got gzip data of something else: {"detail"',
        ),
        (gzipped(b"\x89PNG" + bytes(30)), r"gzip data of something else: b'\\x89PNG"),
        (gzipped(b""), "gzip data of something else"),
        (zstandard.compress(b"a tar, maybe"), "zstd data of something else: a tar, maybe"),
        (gzipped(packed(2)[:10]), "cut in its header"),
        (gzipped(packed(2)[:-1]), "7 points need 212 bytes, it unpacks to 211"),
        (gzipped(packed(2) + b"1"), "unpacks to more than the 212 bytes"),
        (zstandard.compress(packed(2)[:-1]), "7 points need 212 bytes, it unpacks to 211"),
        (zstandard.compress(packed(2)[:-1]) + zstandard.compress(b"1"), "behind the end of its zstd data"),
        (gzipped(packed(2)) + gzipped(b""), "behind the end of its compressed data"),
        (gzipped(packed(4)), "expected version 1 to 3 in gzip data, got 4"),
        (gzipped(packed(2))[:-8] + bytes(8), "damaged: .* incorrect data check"),
        (streams(version=3), "expected version 4 without gzip, got 3"),
        (gzipped(b"NGSP" + struct.pack("<IIBBBB", 2, 0, 0, 12, 0, 0)), "no points"),
        (gzipped(b"NGSP" + struct.pack("<IIBBBB", 2, 2**32 - 1, 3, 12, 0, 0)), "claims 4294967295 points"),
        (gzipped(b"NGSP" + struct.pack("<IIBBBB", 2, 1, 5, 12, 0, 0)), "harmonics of degree 5"),
        (gzipped(packed(3, flags=2, behind=RECORD[:7])), "cut in its extensions"),
        (gzipped(packed(3, flags=2, behind=RECORD[:-1])), "an extension ends at byte 20 of 19"),
        (gzipped(packed(3, behind=RECORD)), "unpacks to more than"),
        (gzipped(packed(3, flags=0x80)), "7 points need 261 bytes, it unpacks to 219"),
        (streams(extensions=RECORD), "20 bytes between its header and its table"),
        (streams(flags=2, extensions=RECORD[:-1]), "an extension ends at byte 20 of 19"),
    ],
)
def test_an_spz_that_is_none_is_refused_with_the_reason(content: bytes, said: str) -> None:
    with pytest.raises(ResultError, match=said):
        check(content)


def changed(at: int, form: str, value: int) -> bytes:
    content = bytearray(streams())
    struct.pack_into(form, content, at, value)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (changed(8, "<I", 8), "table of streams does not fit 8 points of degree 1"),
        (changed(12, "<B", 0), "expected 5 streams, its header says 6"),
        (changed(15, "<B", 5), "expected 6 streams, its header says 5"),
        (changed(16, "<I", 31), "-1 bytes between"),
        (changed(16, "<I", 2**32 - 1), "bytes between"),
        (changed(32, "<Q", 2**63), "its streams end at byte"),
        (changed(40, "<Q", 64), "does not fit"),
    ],
)
def test_a_header_of_streams_that_contradicts_them_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(ResultError, match=said):
        check(content)


def test_a_stream_that_unpacks_to_something_else_than_its_table_says_is_refused() -> None:
    frame, other = zstandard.compress(bytes(63)), zstandard.compress(bytes(64))
    content = streams(degree=0, points=7)
    first = struct.unpack_from("<Q", content, 32)[0]
    table_end = 32 + 5 * 16
    for replacement in (other, zstandard.compress(bytes(62))):
        wrong = bytearray(content[:table_end] + replacement + content[table_end + first :])
        struct.pack_into("<Q", wrong, 32, len(replacement))
        assert "SPZ: it unpacks to more" in (said := refused(bytes(wrong))) or "a stream unpacks to 62 bytes" in said
    right = bytearray(content[:table_end] + frame + content[table_end + first :])
    struct.pack_into("<Q", right, 32, len(frame))
    check(bytes(right))


def zeros(compress: Any, size: int) -> bytes:
    block = bytes(1 << 20)
    return b"".join([*(compress.compress(block) for _ in range(size >> 20)), compress.flush()])


def test_a_bomb_is_inflated_no_further_than_its_header_implies() -> None:
    start = packed(3, points=7)
    compress = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = compress.compress(start) + zeros(compress, 1 << 27)
    tracemalloc.start()
    began = time.perf_counter()
    assert "unpacks to more than" in refused(bomb)
    assert time.perf_counter() - began < 1
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_zstd_bomb_is_unpacked_a_block_at_a_time() -> None:
    header = packed(2)
    start = b"\x28\xb5\x2f\xfd\x00\x58" + (len(header) << 3).to_bytes(3, "little") + header
    rle = (2**17 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    bomb = start + rle * 20_000 + (1).to_bytes(3, "little")
    tracemalloc.start()
    assert "unpacks to more than" in refused(bomb)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_large_spz_is_checked_without_being_held() -> None:
    content = zlib.compress(packed(3, points=300_000, degree=3), 1, 31)
    tracemalloc.start()
    check(content)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
