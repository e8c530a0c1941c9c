"""PNG, JPEG and WebP as Pillow writes them, and what Pillow makes of the same files cut."""

import io
import os
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from runner.errors import ResultError
from runner.formats import FORMATS, verify


def check(kind: str, content: bytes) -> None:
    FORMATS[kind].check(io.BytesIO(content), len(content))


def refused(kind: str, content: bytes) -> str:
    with pytest.raises(ResultError) as error:
        check(kind, content)
    return str(error.value)


def picture(mode: str, size: int = 24, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 4), dtype="u1")
    noise[: size // 2] //= 64
    return Image.fromarray(noise, "RGBA").convert(mode)


def written(kind: str, mode: str = "RGB", size: int = 24, **options: object) -> bytes:
    stream = io.BytesIO()
    picture(mode, size).save(stream, kind, **options)
    return stream.getvalue()


def frames(kind: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    others = [picture(mode, seed=seed) for seed in (1, 2)]
    picture(mode).save(stream, kind, save_all=True, append_images=others, duration=50, **options)
    return stream.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


SIGNATURE = b"\x89PNG\r\n\x1a\n"


def interlaced() -> bytes:
    """Return a PNG of 8 × 8 gray pixels in the seven passes of Adam7: Pillow reads such files, but writes none."""
    passes = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)]
    rows = b"".join(b"\0" + bytes(range(width)) for width, height in passes for _ in range(height))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)


def with_thumbnail() -> bytes:
    """Return a JPEG with another one, whole, in a segment before its own image data."""
    content, thumbnail = written("JPEG"), written("JPEG", size=8)
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + content[2:]


def with_fill_bytes() -> bytes:
    content = written("JPEG", restart_marker_blocks=1)
    restart = content.index(b"\xff\xd1")
    return (
        content[:2]
        + b"\xff\xff\xff"
        + content[2:restart]
        + b"\xff"
        + content[restart:-2]
        + b"\xff\xff"
        + content[-2:]
    )


WHOLE = {
    **{f"png {mode}": ("png", written("PNG", mode)) for mode in ("RGB", "RGBA", "L", "P", "1", "I;16")},
    "png interlaced": ("png", interlaced()),
    "png animated": ("png", frames("PNG")),
    "png of several IDAT": ("png", written("PNG", size=150)),
    "jpeg": ("jpg", written("JPEG")),
    "jpeg gray": ("jpg", written("JPEG", "L")),
    "jpeg cmyk": ("jpg", written("JPEG", "CMYK")),
    "jpeg progressive": ("jpg", written("JPEG", progressive=True, quality=95)),
    "jpeg with restarts": ("jpg", written("JPEG", restart_marker_blocks=1)),
    "jpeg with a comment and a profile": (
        "jpg",
        written("JPEG", comment=b"\xff\xd9", icc_profile=b"\xff\xd9" * 40_000),
    ),
    "jpeg with a thumbnail": ("jpg", with_thumbnail()),
    "jpeg with fill bytes": ("jpg", with_fill_bytes()),
    "webp lossy": ("webp", written("WEBP", quality=50)),
    "webp lossy with alpha": ("webp", written("WEBP", "RGBA", quality=50)),
    "webp lossless": ("webp", written("WEBP", "RGBA", lossless=True)),
    "webp with metadata": ("webp", written("WEBP", icc_profile=b"123", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")),
    "webp animated": ("webp", frames("WEBP")),
    "webp animated, lossless": ("webp", frames("WEBP", "RGBA", lossless=True)),
}


def places(content: bytes) -> list[int]:
    """Return every place of a small file to cut it at; of a larger one both ends and some between."""
    if len(content) < 8000:
        return list(range(12, len(content)))
    return [*range(12, 200), *range(200, len(content) - 200, 1009), *range(len(content) - 200, len(content))]


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_image_is_accepted_and_pillow_reads_it(name: str) -> None:
    kind, content = WHOLE[name]
    assert verify(io.BytesIO(content), "auto") == verify(io.BytesIO(content), kind) == kind
    Image.open(io.BytesIO(content)).load()


@pytest.mark.parametrize("name", WHOLE)
def test_an_image_cut_at_any_byte_is_refused(name: str) -> None:
    kind, content = WHOLE[name]
    for end in places(content):
        refused(kind, content[:end])


@pytest.mark.parametrize(
    ("kind", "content"),
    [("png", written("PNG")[:-12]), ("png", written("PNG") + b"1"), ("jpg", written("JPEG") + b"1"),
     ("webp", written("WEBP") + b"1")],
)  # fmt: skip
def test_pillow_reads_some_files_that_are_not_whole_and_are_refused_here(kind: str, content: bytes) -> None:
    Image.open(io.BytesIO(content)).load()
    refused(kind, content)


@pytest.mark.parametrize("name", WHOLE)
def test_an_image_with_more_behind_it_is_refused(name: str) -> None:
    kind, content = WHOLE[name]
    for more in (b"\0", b"\n", b"\0\0", content):
        refused(kind, content + more)


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith("png")])
def test_every_flipped_bit_of_a_png_is_found(name: str) -> None:
    kind, content = WHOLE[name]
    for at in range(len(content)) if len(content) < 4000 else range(0, len(content), 37):
        for bit in range(8):
            refused(kind, content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])


@pytest.mark.parametrize("name", [name for name in WHOLE if not name.startswith("png")])
def test_in_a_jpeg_or_webp_every_byte_that_carries_structure_is_found_when_it_changes(name: str) -> None:
    kind, content = WHOLE[name]
    structure = range(2) if kind == "jpg" else (*range(4), *range(4, 12))
    ends = range(len(content) - 1, len(content)) if kind == "jpg" else ()
    for at in (*structure, *ends):
        for bit in range(8):
            refused(kind, content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_damage_never_raises_anything_but_a_result_error(name: str, at: int, noise: bytes) -> None:
    kind, content = WHOLE[name]
    start = at % len(content)
    damaged = content[:start] + noise + content[start + len(noise) :]
    try:
        check(kind, damaged)
    except ResultError:
        return
    assert kind != "png" or damaged == content


@given(
    st.sampled_from(["png RGB", "png RGBA", "png interlaced", "webp lossy", "webp lossless", "webp animated"]),
    st.integers(0, 10**6),
    st.integers(1, 500),
)
def test_bytes_left_out_of_a_png_or_webp_are_found(name: str, at: int, count: int) -> None:
    kind, content = WHOLE[name]
    start = at % (len(content) - 1)
    refused(kind, content[:start] + content[start + count :])


def riff(*chunks: tuple[bytes, bytes], length: int | None = None) -> bytes:
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2) for kind, part in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) if length is None else length) + body


LOSSY = written("WEBP", quality=50)[20:]
HEADER = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("png", SIGNATURE + png_chunk(b"IHDR", HEADER) + png_chunk(b"IEND", b""), "no image data"),
        ("png", SIGNATURE + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b""), "expected IHDR as its first chunk"),
        ("png", SIGNATURE + png_chunk(b"IHDR", HEADER) * 2, "expected IHDR as its first chunk and no other"),
        ("png", SIGNATURE + png_chunk(b"IHDR", bytes(13)), "no width and height"),
        ("png", SIGNATURE + png_chunk(b"IHDR", HEADER[:12]), "no width and height"),
        ("png", SIGNATURE + b"\xff\xff\xff\xffIHDR" + bytes(40), "a chunk of 4294967295 bytes at 8 passes the end"),
        ("jpg", b"\xff\xd8\xff\xd9", "no image data"),
        ("jpg", b"\xff\xd8\xff\xe0\0\x02\xff\xd9", "no image data"),
        ("jpg", b"\xff\xd8\xff\xda\0\x02\xff\xd9", "no image data"),
        ("jpg", b"\xff\xd8\xff\xc0\0\x02\xff\xda\0\x02 \xff\0 \xff\xd0 ", "cut in a scan"),
        ("jpg", b"\xff\xd8\xff\xc0\0\x01", "a segment of 1 bytes"),
        ("jpg", b"\xff\xd8\xff\xc0\xff\xff", "a segment of 65535 bytes"),
        ("jpg", b"\xff\xd8\xff\xd8\xff\xd9", "the marker D8 outside a scan"),
        ("jpg", b"\xff\xd8\xff\xff\xff", "no EOI"),
        ("jpg", b"\xff\xd8\xff\xe0\0\x02<html>", "expected a marker"),
        ("webp", riff(), "no image data"),
        ("webp", riff((b"VP8X", bytes(10))), "no image data"),
        ("webp", riff((b"EXIF", b"12")), "its first chunk is b'EXIF'"),
        ("webp", riff((b"VP8 ", LOSSY), length=8), "its header says 16 bytes, the file has"),
        ("webp", riff((b"VP8 ", LOSSY[:8])), "damaged lossy image data"),
        ("webp", riff((b"VP8 ", LOSSY[:12])), "damaged lossy image data"),
        ("webp", riff((b"VP8 ", bytes(20))), "damaged lossy image data"),
        ("webp", riff((b"VP8L", b"\x30" + bytes(9))), "damaged lossless image data"),
        ("webp", riff((b"VP8X", bytes(10)), (b"ANMF", bytes(4))), "a frame of 4 bytes"),
        ("webp", riff((b"VP8X", bytes(10)), (b"ANMF", bytes(16))), "has 0 images"),
        ("webp", riff((b"VP8X", bytes(10)), (b"ANMF", bytes(20))), "cut in a chunk header"),
        ("webp", riff((b"VP8X", bytes(10)), (b"ANMF", bytes(16) + b"VP8L\xff\0\0\0")), "passes its end"),
        ("webp", b"RIFF\x0c\0\0\0WEBPVP8 \xff\0\0\0", "passes its end|has 20"),
    ],
)  # fmt: skip
def test_an_image_that_contradicts_itself_is_refused_with_the_reason(kind: str, content: bytes, said: str) -> None:
    with pytest.raises(ResultError, match=said):
        check(kind, content)


def test_a_last_chunk_of_odd_length_may_lack_its_padding() -> None:
    content = riff((b"VP8 ", LOSSY + b"\0" * (len(LOSSY) % 2)), (b"XMP ", b"odd"))
    check("webp", content)
    without = content[:-1]
    check("webp", without[:4] + struct.pack("<I", len(without) - 8) + without[8:])


def test_a_marker_that_two_blocks_share_is_found() -> None:
    start = b"\xff\xd8\xff\xc0\0\x02\xff\xda\0\x02"
    for size in range(2**20 - 3, 2**20 + 3):
        check("jpg", start + b"x" * size + b"\xff\xd9")
        check("jpg", start + b"x" * size + b"\xff\0\xff\xd7\xff\xd9")
        check("jpg", start + b"x" * size + b"\xff\xff\xff\xd9")
        refused("jpg", start + b"x" * size + b"\xff")


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_fifty_megabytes_are_checked_in_well_under_a_second_and_not_held(kind: str) -> None:
    noise = os.urandom(50_000_000)
    if kind == "png":
        content = SIGNATURE + png_chunk(b"IHDR", HEADER) + png_chunk(b"IDAT", noise) + png_chunk(b"IEND", b"")
    elif kind == "jpg":
        content = b"\xff\xd8\xff\xc0\0\x02\xff\xda\0\x02" + noise.replace(b"\xff", b"\xff\0") + b"\xff\xd9"
    else:
        content = riff((b"VP8L", b"\x2f" + noise))
    stream = io.BytesIO(content)
    began = time.process_time()
    FORMATS[kind].check(stream, len(content))
    assert time.process_time() - began < 1
    tracemalloc.start()
    stream.seek(0)
    FORMATS[kind].check(stream, len(content))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
