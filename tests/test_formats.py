import gzip
import io
import json
import struct
from pathlib import Path
from typing import get_args

import numpy as np
import plyfile
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from server import splat_ply

from runner.errors import ResultError
from runner.formats import FORMATS, UNKNOWN_EXTENSION, describe, satisfies, verify
from runner.settings import Output


def verified(path: Path, expected: str) -> str:
    with open(path, "rb") as file:
        return verify(file, expected)


def written(mesh: trimesh.Trimesh, kind: str, **options: object) -> bytes:
    return bytes(trimesh.exchange.export.export_mesh(mesh, None, kind, **options))


def mixed_polygons(byte_order: str, count_type: str = "u1", text: bool = False) -> bytes:
    vertices = np.zeros(6, dtype=[("x", "f4"), ("y", "f4"), ("z", "f8")])
    faces = np.empty(50, dtype=[("flags", "u1"), ("vertex_indices", object), ("material", "i2")])
    for number in range(50):
        faces[number] = (1, np.arange(3 + number % 3, dtype="i4"), number)
    elements = [
        plyfile.PlyElement.describe(vertices, "vertex", comments=["from plyfile"]),
        plyfile.PlyElement.describe(
            faces, "face", val_types={"vertex_indices": "i4"}, len_types={"vertex_indices": count_type}
        ),
    ]
    stream = io.BytesIO()
    plyfile.PlyData(elements, byte_order=byte_order, text=text, obj_info=["x"]).write(stream)
    return stream.getvalue()


BOX = trimesh.creation.box()
WHOLE = {
    "splat": ("ply", splat_ply()),
    "mesh ply little": ("ply", written(BOX, "ply")),
    "mesh ply ascii": ("ply", written(BOX, "ply", encoding="ascii")),
    "polygons little": ("ply", mixed_polygons("<")),
    "polygons big, counts of 2 bytes": ("ply", mixed_polygons(">", "u2")),
    "polygons ascii": ("ply", mixed_polygons("=", text=True)),
    "mesh glb": ("glb", written(BOX, "glb")),
}


def check(content: bytes) -> str:
    size = len(content)
    known = next(one for one in FORMATS.values() if one.magic and one.magic.match(content))
    known.check(io.BytesIO(content), size)
    return known.name


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_of_other_writers_are_accepted(name: str, tmp_path: Path) -> None:
    kind, content = WHOLE[name]
    (tmp_path / "file").write_bytes(content)
    assert verified(tmp_path / "file", "auto") == kind
    assert verified(tmp_path / "file", kind) == kind


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_cut_at_any_byte_is_refused(name: str, tmp_path: Path) -> None:
    _, content = WHOLE[name]
    for end in range(4, len(content)):
        with pytest.raises(ResultError):
            check(content[:end])


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_with_more_behind_it_is_refused(name: str) -> None:
    with pytest.raises(ResultError):
        check(WHOLE[name][1] + b"1")


def test_a_large_mesh_of_triangles_is_checked_in_blocks() -> None:
    rng = np.random.default_rng(1)
    mesh = trimesh.Trimesh(rng.random((1000, 3)), rng.integers(0, 1000, (300_000, 3)), process=False)
    content = written(mesh, "ply")
    assert check(content) == "ply"
    for wrong in (content[:-1], content[:-13], content + b"\0"):
        with pytest.raises(ResultError):
            check(wrong)


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_damage_never_raises_anything_but_a_result_error(at: int, noise: bytes) -> None:
    for _, content in WHOLE.values():
        start = 4 + at % (len(content) - 4)
        damaged = content[:start] + noise + content[start + len(noise) :]
        try:
            check(damaged)
        except ResultError:
            continue


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 0\nproperty float x\nend_header\n", "no vertices"),
        (b"ply\nformat binary_little_endian 1.0\nend_header\n", "no vertices"),
        (b"ply\nelement vertex 1\nproperty float x\nend_header\n0000", "names no format"),
        (b"ply\nformat binary_middle_endian 1.0\nend_header\n", "has the line"),
        (b"ply\nformat ascii 1.0\nelement vertex -5\nend_header\n", "has the line"),
        (b"ply\nformat ascii 1.0\nproperty float x\nend_header\n", "has the line"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty floaty x\nend_header\n", "has the property"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty list float int x\nend_header\n", "has the property"),
        (b"ply\nformat ascii 1.0\n" + b"comment x\n" * 40000, "no end_header"),
        (b"ply\nformat ascii 1.0\nelement vertex " + b"9" * 400 + b"\n", "has the line"),
    ],
)
def test_a_ply_header_that_is_none_is_refused_with_the_reason(header: bytes, said: str) -> None:
    with pytest.raises(ResultError, match=said):
        check(header)


def test_a_splat_without_all_its_properties_is_refused() -> None:
    with pytest.raises(ResultError, match="a splat without rot_3"):
        check(splat_ply().replace(b"property float rot_3\n", b"property float other\n"))


def glb(document: object, binary: bytes = b"", version: int = 2) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if binary:
        chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", version, 12 + len(chunks)) + chunks


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (glb({"asset": {}}, version=1), "version 2"),
        (glb({"no": "asset"}), "no glTF document"),
        (glb([1]), "no glTF document"),
        (glb({"asset": {}, "buffers": [{"byteLength": 8}]}, b"1234"), "has 4 bytes, buffers\\[0\\] needs 8"),
        (glb({"asset": {}, "buffers": [{"byteLength": "x"}]}, b"1234"), "needs x"),
        (glb({"asset": {}, "buffers": 5}), "list of buffers"),
        (struct.pack("<4sII", b"glTF", 2, 12), "expected JSON"),
        (struct.pack("<4sIII4s", b"glTF", 2, 24, 4, b"JSON") + b"{{{{", "does not parse"),
        (struct.pack("<4sIII4s", b"glTF", 2, 24, 400, b"JSON") + b"{  }", "passes the end"),
    ],
)
def test_a_glb_that_contradicts_itself_is_refused_with_the_reason(content: bytes, said: str) -> None:
    with pytest.raises(ResultError, match=said):
        check(content)


def test_a_glb_with_no_or_an_outside_buffer_needs_no_binary_chunk() -> None:
    assert check(glb({"asset": {}})) == "glb"
    assert check(glb({"asset": {}, "buffers": [{"byteLength": 8, "uri": "x.bin"}]})) == "glb"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "an empty body"),
        (b"<html><h1>502 Bad Gateway</h1>", "an HTML page: <html><h1>502 Bad Gateway</h1>"),
        (b'{"detail": "CUDA out of memory"}', 'JSON: {"detail": "CUDA out of memory"}'),
        (b"\0\1\2", "3 bytes that start with"),
    ],
)
def test_what_is_no_result_is_described(body: bytes, said: str, tmp_path: Path) -> None:
    assert describe(body, len(body)).startswith(said)
    (tmp_path / "file").write_bytes(body)
    with pytest.raises(ResultError, match="expected a PLY, GLB, SPZ, PNG, JPG, WEBP or ZIP file, got"):
        verified(tmp_path / "file", "auto")


def test_another_format_than_the_expected_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(splat_ply())
    for expected in ("glb", "spz", "png", "jpg", "webp", "zip"):
        with pytest.raises(ResultError, match=f"expected a {expected.upper()} file, got a PLY file"):
            verified(tmp_path / "file", expected)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"\x89PNG\r\n\x1a\n", "a PNG file of 900 bytes"),
        (b"\xff\xd8\xff\xe0", "a JPG file of 900 bytes"),
        (b"RIFF\n\n\n\nWEBP", "a WEBP file of 900 bytes"),
        (b"RIFF\n\n\n\nWAVE", "900 bytes that start with b'RIFF"),
        (b"PK\3\4", "a ZIP file of 900 bytes"),
        (b"NGSP", "a SPZ file of 900 bytes"),
        (b"\x1f\x8b", "gzip data of 900 bytes"),
        (b"\x28\xb5\x2f\xfd", "zstd data of 900 bytes"),
    ],
)
def test_a_body_of_any_known_format_is_described_by_its_first_bytes(head: bytes, said: str) -> None:
    assert describe(head, 900).startswith(said)


def test_the_formats_are_those_that_a_config_may_ask_for() -> None:
    assert set(get_args(Output.model_fields["verify"].annotation)) == {"auto", *FORMATS, "none"}


def test_jpeg_and_text_are_taken_for_the_names_of_their_extensions() -> None:
    assert (Output(verify="jpeg").verify, Output(verify="text").verify) == ("jpg", "txt")


def test_a_recorded_format_satisfies_auto_itself_and_none() -> None:
    for name in FORMATS:
        assert satisfies(name, "auto") and satisfies(name, name) and satisfies(name, "none")
        assert not any(satisfies(name, other) for other in FORMATS if other != name)
    assert satisfies(None, "none") and not satisfies(None, "auto") and not satisfies(UNKNOWN_EXTENSION, "auto")


@pytest.mark.parametrize(
    ("body", "accepted"),
    [(b"anything", "bin"), (splat_ply(), "ply"), (b'{"mesh": 1}', "bin"), (b"", ""), (b"<html>", ""),
     (b'{"mesh": 1, "error": null}', "bin"), (gzip.compress(b"a log", mtime=0), "bin"), (b"\x28\xb5\x2f\xfd", "bin"),
     (splat_ply()[:-1], "bin"),
     (b'{"detail": "x"}', ""), (b'{"error_code": 7}', ""), (b'{"error": "' + b"x" * 600 + b'"}', "")],
)  # fmt: skip
def test_verify_none_refuses_only_nothing_and_error_answers(body: bytes, accepted: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(body)
    if accepted:
        assert verified(tmp_path / "file", "none") == accepted
    else:
        with pytest.raises(ResultError, match="expected a result"):
            verified(tmp_path / "file", "none")
