"""The built bundles of the HTML report, in a real Chromium, under the report's own content security policy."""

import base64
import gzip
import hashlib
import io
import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
import zstandard
from browser import Tab, fresh_tab
from conftest import REPOSITORY

from runner.server.image import Subject
from runner.server.splat import generate

pytest_plugins = ["browser"]
pytestmark = pytest.mark.browser

VENDOR = REPOSITORY / "runner" / "page" / "vendor"
POLICY = (
    "default-src 'none'; script-src 'nonce-n1' 'wasm-unsafe-eval'; worker-src blob:; img-src data: blob: file:; "
    "connect-src data: blob:; style-src 'unsafe-inline'"
)
PAGE = """<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<title>A view</title><style>body{{margin:0}} #view{{width:320px;height:240px}}</style><div id="view"></div>
<script type="application/octet-stream+gzip" id="bundle">{bundle}</script>
<script nonce="n1">
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
async function unpack(id) {{
  const packed = new Blob([bytesOf(document.getElementById(id).textContent)]);
  const script = document.createElement("script");
  script.nonce = "n1";
  script.textContent = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.head.append(script);
}}
const ready = unpack("bundle");
async function show(text, format, up) {{
  await ready;
  const options = {{ bytes: bytesOf(text), format, up, background: "#ffffff" }};
  window.view = await RunnerViewer.open(document.getElementById("view"), options);
  await view.drawn;
  return [view.kind, view.count, options.bytes.length];
}}
async function why(text, format) {{
  try {{ await show(text, format, "y"); }} catch (error) {{ return error.message; }}
  return "it opened";
}}
</script>"""


def splats(side: int = 24) -> bytes:
    """A cushion of splats from the reference server, red above and blue below (its up is -y)."""
    colour = np.zeros((side, side, 3), dtype="f4")
    colour[: side // 2, :, 0] = colour[side // 2 :, :, 2] = 0.9
    mask = np.pad(np.ones((side - 2, side - 2), dtype=bool), 1)
    return generate(Subject(colour, mask, mask * side / 6.0), seed=1)


def spz(container: str = "gzip", count: int = 600) -> bytes:
    """A cube of splats as SPZ, red above and blue below: one attribute after the other, all quantised.

    In ``gzip`` (version 2) and in ``streams`` (version 4) y is up, as Niantic has it; in ``zstd`` it is down.
    """
    places = np.random.default_rng(1).uniform(-1, 1, size=(count, 3))
    colours = np.where(places[:, 1:2] > 0, (200, 60, 60), (60, 60, 200)).astype("u1")
    if container == "zstd":
        places *= (1, -1, -1)
    fixed = np.round(places * 4096).astype("<i4").view("u1").reshape(count, 3, 4)[:, :, :3]
    scales = np.full((count, 3), int((np.log(0.08) + 10) * 16), dtype="u1")
    turns = np.full((count, 3), 128, dtype="u1")
    if container == "streams":
        turns = np.full(count, 3 << 30, dtype="<u4")
    parts = [one.tobytes() for one in (fixed, np.full(count, 250, dtype="u1"), colours, scales, turns)]
    content = struct.pack("<4sIIBBBB", b"NGSP", 2, count, 0, 12, 0, 0) + b"".join(parts)
    if container == "gzip":
        return gzip.compress(content, mtime=0)
    if container == "zstd":
        return zstandard.compress(content)
    packed = [zstandard.compress(part) for part in parts]
    table = b"".join(struct.pack("<QQ", len(small), len(part)) for small, part in zip(packed, parts, strict=True))
    return struct.pack("<4sIIBBBBI12x", b"NGSP", 4, count, 0, 12, 0, 5, 32) + table + b"".join(packed)


def gaussians(places: np.ndarray, size: float) -> bytes:
    """Round grey splats as PLY."""
    names = [*"xyz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", *(f"scale_{k}" for k in range(3))]
    names += [f"rot_{k}" for k in range(4)]
    rest = np.tile([0, 0, 0, 6, *[np.log(size)] * 3, 1, 0, 0, 0], (len(places), 1))
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(places)}\n"
    header += "".join(f"property float {name}\n" for name in names) + "end_header\n"
    return header.encode() + np.c_[places, rest].astype("<f4").tobytes()


def box_glb(node: dict[str, Any]) -> bytes:
    """A box without a material, with one joint and three places for copies, as this node has it."""
    box = trimesh.creation.box((2, 1, 1))
    arrays = [box.vertices.astype("<f4"), np.zeros((8, 4), "u1"), np.tile(np.array([255, 0, 0, 0], "u1"), (8, 1))]
    arrays += [box.faces.astype("<u2"), np.array([[0, 0, 0], [6, 0, 0], [0, 6, 0]], "<f4")]
    binary = b"".join(one.tobytes() for one in arrays)
    begins = np.cumsum([0, *(one.nbytes for one in arrays)])
    views = [{"buffer": 0, "byteOffset": int(begins[n]), "byteLength": one.nbytes} for n, one in enumerate(arrays)]
    kinds = [("VEC3", 5126, 8), ("VEC4", 5121, 8), ("VEC4", 5121, 8), ("SCALAR", 5123, 36), ("VEC3", 5126, 3)]
    accessors: list[dict[str, Any]] = [
        {"bufferView": n, "type": kind, "componentType": part, "count": count}
        for n, (kind, part, count) in enumerate(kinds)
    ]
    accessors[0] |= {"min": [-1, -0.5, -0.5], "max": [1, 0.5, 0.5]}
    accessors[2] |= {"normalized": True}
    said = {
        "asset": {"version": "2.0"},
        "extensionsUsed": ["EXT_mesh_gpu_instancing"],
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [{"mesh": 0, **node}, {}],
        "skins": [{"joints": [1]}],
        "meshes": [
            {"primitives": [{"attributes": {"POSITION": 0, "JOINTS_0": 1, "WEIGHTS_0": 2}, "indices": 3}]},
        ],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(said).encode()
    chunks = [(b"JSON", text + b" " * (-len(text) % 4)), (b"BIN\0", binary + bytes(-len(binary) % 4))]
    body = b"".join(struct.pack("<I4s", len(content), name) + content for name, content in chunks)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def mesh() -> trimesh.Trimesh:
    """A ring, each corner of its own colour."""
    ring = trimesh.creation.torus(1, 0.4)
    ring.visual.vertex_colors = np.c_[ring.vertices * 60 + 128, np.full(len(ring.vertices), 255)].astype("u1")
    return ring


def points() -> bytes:
    ring = mesh()
    return trimesh.PointCloud(ring.vertices, colors=ring.visual.vertex_colors).export(file_type="ply")


def plain_ply(faces: str, *vertices: str) -> bytes:
    header = f"ply\nformat ascii 1.0\nelement vertex {len(vertices)}\n" + "".join(
        f"property float {a}\n" for a in "xyz"
    )
    face = "element face 1\nproperty list uchar int vertex_indices\n" if faces else ""
    if faces.count(" ") > 3:
        face += "property list uchar float texcoord\n"
    return "\n".join([header + face + "end_header", *vertices, faces, ""]).encode()


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """The page with the viewer's bundle, as a reader has it: open for long."""
    page = tmp_path_factory.mktemp("view") / "view.html"
    page.write_text(
        PAGE.format(policy=POLICY, bundle=base64.b64encode((VENDOR / "viewer.js.gz").read_bytes()).decode())
    )
    with fresh_tab(browser) as tab:
        tab.open(page)
        assert tab.files == ["view.html"]
        tab.assert_quiet()
        yield tab


@pytest.fixture
def viewer(opened: Tab) -> Iterator[Tab]:
    """That page without a view in it."""
    opened.forget()
    yield opened
    opened.page.evaluate("window.view?.dispose()")


def shown(viewer: Tab, content: bytes, kind: str, up: str | None = "y") -> tuple[str, int, np.ndarray]:
    """Open it; return what the view says it is, how much of it there is, and the picture."""
    text = base64.b64encode(content).decode()
    name, count, left = viewer.page.evaluate("(one) => show(...one)", [text, kind, up])
    assert left == len(content), "the caller's bytes were taken away"
    return name, count, viewer.picture("#view").astype(int)


def drawn(picture: np.ndarray) -> tuple[float, int]:
    """Return which part of a picture is not background, and how many colours (of 4096) that has."""
    ink = (picture < 240).any(axis=2)
    return ink.mean(), len(np.unique(picture[ink] // 16, axis=0))


def of_colour(picture: np.ndarray, channel: int) -> float:
    """Return how far down (0 to 1) the pixels of this colour lie on average."""
    others = [other for other in range(3) if other != channel]
    rows = np.nonzero(picture[:, :, channel] > picture[:, :, others].max(axis=2) + 80)[0]
    return rows.mean() / len(picture)


@pytest.mark.parametrize(
    ("make", "kind", "up", "name", "count"),
    [
        (splats, "ply", "-y", "splats", None),
        (spz, "spz", "-y", "splats", 600),
        (lambda: mesh().export(file_type="glb"), "glb", "z", "mesh", 2048),
        (lambda: mesh().export(file_type="ply"), "ply", "z", "mesh", 2048),
        (points, "ply", "z", "points", 1024),
    ],
    ids=["splats PLY", "SPZ", "GLB", "mesh PLY", "points PLY"],
)
def test_a_file_is_drawn_without_any_request(
    viewer: Tab, make: Callable[[], bytes], kind: str, up: str, name: str, count: int | None
) -> None:
    got, counted, picture = shown(viewer, make(), kind, up)
    assert (got, counted) == (name, count or counted)
    ink, colours = drawn(picture)
    assert 0.1 < ink < 0.9
    assert colours > 5
    viewer.assert_quiet()
    assert viewer.files == []


def test_up_turns_the_object(viewer: Tab) -> None:
    _, _, right_way = shown(viewer, splats(), "ply", "-y")
    assert of_colour(right_way, 0) < 0.45 < 0.55 < of_colour(right_way, 2)
    viewer.page.evaluate("view.dispose()")
    _, _, upside_down = shown(viewer, splats(), "ply", "y")
    assert of_colour(upside_down, 2) < 0.45 < 0.55 < of_colour(upside_down, 0)


@pytest.mark.parametrize("container", ["gzip", "zstd", "streams"])
def test_an_spz_in_any_container_stands_the_right_way_up(viewer: Tab, container: str) -> None:
    name, count, picture = shown(viewer, spz(container), "spz", None)
    assert (name, count) == ("splats", 600)
    assert of_colour(picture, 0) < 0.45 < 0.55 < of_colour(picture, 2)
    assert viewer.page.evaluate("view.up") == ("-y" if container == "zstd" else "y")


def test_few_large_splats_are_whole_in_the_picture(viewer: Tab) -> None:
    rng = np.random.default_rng(3)
    _, _, picture = shown(viewer, gaussians(rng.uniform(-1, 1, size=(40, 3)), 0.4), "ply")
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert edge.min() > 225, "they are cut at the edge"
    assert drawn(picture)[0] > 0.2


COPIES = {"extensions": {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 4}}}}


@pytest.mark.parametrize(
    ("node", "count", "least"),
    [({"skin": 0, "translation": [50, 0, 0]}, 12, 0.1), (COPIES, 36, 0.02)],
    ids=["at its joint, not at its node", "at all its places"],
)
def test_a_mesh_is_seen_where_it_stands_and_without_a_material(
    viewer: Tab, node: dict[str, Any], count: int, least: float
) -> None:
    name, counted, picture = shown(viewer, box_glb(node), "glb")
    assert (name, counted) == ("mesh", count)
    assert least < drawn(picture)[0] < 0.5
    assert np.median(picture[(picture < 240).any(axis=2)]) < 225, "white on white is not seen"
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert edge.min() == 255, "it is cut at the edge"


def test_a_ply_whose_faces_have_texture_coordinates_is_a_mesh(viewer: Tab) -> None:
    square = plain_ply("4 0 1 2 3 8 0 0 1 0 1 1 0 1", "0 0 0", "1 0 0", "1 1 0", "0 1 0")
    name, count, picture = shown(viewer, square, "ply")
    assert (name, count) == ("mesh", 2)
    assert drawn(picture)[0] > 0.1


def test_what_is_at_no_place_is_left_out_without_a_word_in_the_console(viewer: Tab) -> None:
    ring = mesh()
    ring.vertices[:20] = np.nan
    whole = trimesh.Trimesh(ring.vertices, ring.faces, process=False)
    name, count, picture = shown(viewer, whole.export(file_type="ply"), "ply")
    assert name == "mesh" and 1900 < count < 2048 and drawn(picture)[0] > 0.1
    viewer.page.evaluate("view.dispose()")
    name, count, picture = shown(viewer, trimesh.PointCloud(ring.vertices).export(file_type="ply"), "ply")
    assert (name, count) == ("points", 1004) and drawn(picture)[0] > 0.1
    viewer.assert_quiet()


def test_positions_of_64_bits_far_from_the_origin_keep_their_shape(viewer: Tab) -> None:
    ring = mesh().vertices
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(ring)}\n"
    header += "".join(f"property double {axis}\n" for axis in "xyz") + "end_header\n"
    clouds = [header.encode() + (ring + far).astype("<f8").tobytes() for far in (0, 5e7)]
    inks = []
    for cloud in clouds:
        inks.append(drawn(shown(viewer, cloud, "ply")[2])[0])
        viewer.page.evaluate("view.dispose()")
    assert inks[0] > 0.2 and abs(inks[0] - inks[1]) < 0.01


def test_points_of_a_glb_are_as_large_as_those_of_a_ply(viewer: Tab) -> None:
    inks = []
    for kind in ("ply", "glb"):
        ring = mesh()
        cloud = trimesh.PointCloud(ring.vertices, colors=ring.visual.vertex_colors)
        inks.append(drawn(shown(viewer, cloud.export(file_type=kind), kind)[2])[0])
        viewer.page.evaluate("view.dispose()")
    assert inks[0] > 0.2 and abs(inks[0] - inks[1]) < 0.02


FRAMES = """async () => {
  const own = requestAnimationFrame;
  let asked = 0;
  window.requestAnimationFrame = (draw) => (asked++, own(draw));
  for (let frame = 0; frame < 10; frame++) await new Promise(own);
  window.requestAnimationFrame = own;
  return asked;
}"""
"""How many frames a view asks for while ten go by."""


def test_a_view_rests_when_nothing_changes_and_draws_when_it_is_turned(viewer: Tab) -> None:
    _, _, before = shown(viewer, points(), "ply")
    assert viewer.page.evaluate(FRAMES) == 0
    viewer.page.mouse.move(160, 120)
    viewer.page.mouse.down()
    viewer.page.mouse.move(260, 120, steps=3)
    viewer.page.mouse.up()
    assert (viewer.picture("#view").astype(int) != before).any(axis=2).mean() > 0.05


def test_a_few_strays_do_not_make_the_rest_small(viewer: Tab) -> None:
    ring = mesh().vertices
    strays = np.concatenate([ring, [[900, 0, 0], [0, -5000, 1]]])
    _, count, picture = shown(viewer, trimesh.PointCloud(strays).export(file_type="ply"), "ply")
    assert count == len(ring) + 2
    assert drawn(picture)[0] > 0.1


GLB = mesh().export(file_type="glb")
OVERSTATED = struct.pack("<4sII", b"NGSP", 3, 0xFFFFFFFF) + bytes(4000)
BROKEN = {
    "splats cut short": (
        splats()[:-100],
        "ply",
        r"ends early: [\d,]+ bytes follow its header, which promises [\d,]+",
    ),
    "too many": (plain_ply("", "0 0 0").replace(b"vertex 1", b"vertex 4000000000"), "ply", "ends early"),
    "no header's end": (b"ply\nformat ascii 1.0\n", "ply", "no end of its header"),
    "no vertex": (plain_ply(""), "ply", "nothing that can be shown"),
    "a face of nothing": (plain_ply("3 0 1 99", "0 0 0", "1 0 0", "0 1 0"), "ply", "a face names vertex 99 of 3"),
    "splats in text": (splats().replace(b"binary_little_endian", b"ascii"), "ply", "as ascii"),
    "splats in two dimensions": (splats().replace(b"scale_2", b"scale_x"), "ply", "holds flat splats"),
    "a web page": (b"<html>502 Bad Gateway</html>", "spz", "no SPZ file"),
    "an SPZ that says more than it holds": (gzip.compress(OVERSTATED), "spz", "unpacks to 4,012 bytes"),
    "an SPZ of tomorrow": (b"NGSP\5" + bytes(60), "spz", "version 5; this view reads 1 to 4"),
    "streams cut short": (spz("streams")[:-9], "spz", "ends early"),
    "streams that hold more than they say": (spz("streams").replace(b"X\2\0\0", b"W\2\0\0", 1), "spz", "more than"),
    "a frame cut short": (spz("zstd")[:-9], "spz", "damaged or ends early"),
    "a frame of something else": (zstandard.compress(b"no splats at all"), "spz", "no SPZ file"),
    "no numbers": (plain_ply("", "nan 0 0", "0 nan 0"), "ply", "its positions are no numbers"),
    "a GLB cut short": (GLB[:-100], "glb", "ends early"),
    "a GLB without sense": (GLB.replace(b'"bufferViews"', b'"bufferViewZ"'), "glb", "cannot be read"),
    "a GLB in pieces": (GLB.replace(b'{"byteLength"', b'{"uri":"x","n"', 1), "glb", "another file"),
    "an odd splat": (b"12345", "splat", "no multiple of 32"),
    "another format": (b"", "obj", "does not read obj"),
}


def test_a_broken_file_gives_a_readable_message(viewer: Tab) -> None:
    for name, (content, kind, reason) in BROKEN.items():
        said = viewer.page.evaluate("(one) => why(...one)", [base64.b64encode(content).decode(), kind])
        assert re.search(reason, said), f"{name}: {said}"
    assert viewer.page.locator("canvas").count() == 0
    viewer.assert_quiet()
    assert shown(viewer, splats(), "ply")[0] == "splats", "none of them broke what comes after"


def test_opening_many_one_after_another_leaks_no_context(viewer: Tab) -> None:
    again = """async ([times, text]) => {
      const kept = [];  // or the garbage collector would free them
      while (times--) {
        await show(text, "ply", "y");
        kept.push(document.querySelector("canvas").getContext("webgl2"));
        view.dispose();
      }
      await new Promise(requestAnimationFrame);
      return kept.every((context) => context.isContextLost());
    }"""
    assert viewer.page.evaluate(again, [3, base64.b64encode(splats(8)).decode()])
    # Chromium keeps 16 contexts, and says so in the console when it takes one away.
    assert viewer.page.evaluate(again, [17, base64.b64encode(points()).decode()])
    assert viewer.page.locator("canvas").count() == 0
    viewer.page.evaluate("view.dispose()")  # twice is no mistake
    viewer.assert_quiet()


def test_a_view_may_be_closed_before_it_has_drawn(viewer: Tab) -> None:
    lost = viewer.page.evaluate(
        """async (text) => {
          const options = { bytes: bytesOf(text), format: "ply", up: "-y", background: "#ffffff" };
          await ready;
          const view = await RunnerViewer.open(document.getElementById("view"), options);
          const context = document.querySelector("canvas").getContext("webgl2");
          view.dispose();
          await view.drawn;
          while (!context.isContextLost()) await new Promise(requestAnimationFrame);
          return true;
        }""",
        base64.b64encode(splats()).decode(),
    )
    assert lost
    viewer.assert_quiet()


def test_charts_draw_under_the_same_policy(tab: Tab, tmp_path: Path) -> None:
    bundle = base64.b64encode((VENDOR / "charts.js.gz").read_bytes()).decode()
    (tmp_path / "charts.html").write_text(PAGE.format(policy=POLICY, bundle=bundle))
    tab.open(tmp_path / "charts.html")
    kinds = tab.page.evaluate("""async () => {
      await ready;
      const chart = echarts.init(document.getElementById("view"), null, { renderer: "canvas" });
      const bar = echarts.graphic.extendShape({ buildPath(path, shape) { path.rect(...shape.at); } });
      echarts.graphic.registerShape("bars", bar);
      chart.setOption({
        animation: false, tooltip: {}, grid: {}, xAxis: { min: 0, max: 10 }, yAxis: { min: 0, max: 10 },
        dataZoom: [{ type: "inside" }, { type: "slider" }],
        series: [
          { type: "custom", data: [[1, 1]], renderItem: (p, api) =>
            ({ type: "bars", shape: { at: [...api.coord([1, 9]), 60, 40] }, style: { fill: "#d00" } }) },
          { type: "scatter", data: [[5, 5]], markLine: { data: [{ yAxis: 5 }] } },
          { type: "bar", data: [[8, 8]] },
          { type: "boxplot", data: [[3, 1, 2, 3, 4]] },
        ],
      });
      return chart.getOption().series.map((one) => one.type);
    }""")
    assert kinds == ["custom", "scatter", "bar", "boxplot"]
    red = (tab.picture("#view") == [0xDD, 0, 0]).all(axis=2).sum()
    assert red > 1000
    tab.assert_quiet()


def test_what_is_built_belongs_to_its_sources() -> None:
    recorded = dict(reversed(line.split("  ")) for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    sources = [*(REPOSITORY / "scripts/assets").glob("*.*js"), *(REPOSITORY / "scripts/assets").glob("*.json")]
    files = {*sources, *VENDOR.iterdir()} - {VENDOR / "SHA256SUMS"}
    assert recorded == {
        str(file.relative_to(REPOSITORY)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }, "make assets builds the bundles anew"
    assert all((VENDOR / f"{name}.js.gz").read_bytes()[4:8] == bytes(4) for name in ("charts", "viewer"))


def test_every_package_in_the_bundles_has_its_licence_named() -> None:
    lock = json.loads((REPOSITORY / "scripts/assets/package-lock.json").read_text())["packages"]
    text = (VENDOR / "LICENSES.txt").read_text()
    bundled = {path: one for path, one in lock.items() if path and not one.get("dev")}
    assert len(bundled) >= 6
    for path, one in bundled.items():
        assert f"\n{path.removeprefix('node_modules/')} {one['version']} ({one['license']})\n" in text
    assert not [path for path, one in lock.items() if "resolved" in one]
    unnamed = set(re.findall(rb"cargo/registry/src/[^/]+/([a-z0-9_-]+?)-\d", wasm())) - set(
        re.findall(rb"^    (\S+) \d", text.encode(), re.MULTILINE)
    )
    assert not unnamed


def wasm() -> bytes:
    """Return the WebAssembly inside the viewer."""
    bundle = gzip.decompress((VENDOR / "viewer.js.gz").read_bytes())
    packed = max(re.findall(rb'"(H4sI[A-Za-z0-9+/]+=*)"', bundle), key=len)
    content = gzip.GzipFile(fileobj=io.BytesIO(base64.b64decode(packed))).read()
    assert content.startswith(b"\0asm")
    return content
