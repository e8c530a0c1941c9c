"""The reference server: real splats of real images."""

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import plyfile
import pytest
import requests
import uvicorn
from conftest import REPOSITORY
from PIL import Image
from server import SPLAT_FIELDS

from runner.formats import FORMATS
from runner.pictures.blend import blended
from runner.pictures.ply import read
from runner.pictures.shapes import Splats
from runner.pictures.view import View
from runner.server import build_app
from runner.server.image import BadImage, read_subject
from runner.server.splat import generate

IMAGES = sorted((REPOSITORY / "configs" / "images").glob("*.png"))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    served = uvicorn.Server(uvicorn.Config(build_app(), port=0, log_level="error"))
    thread = threading.Thread(target=served.run, daemon=True)
    thread.start()
    while not served.started:
        thread.join(0.01)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{served.servers[0].sockets[0].getsockname()[1]}"
    served.should_exit = True
    thread.join()


def ask(url: str, content: bytes, **fields: object) -> requests.Response:
    return requests.post(f"{url}/generate", files={"prompt_image_file": ("a.png", content)}, data=fields, timeout=30)


def splats_of(content: bytes) -> np.ndarray:
    return plyfile.PlyData.read(io.BytesIO(content))["vertex"].data


def test_it_answers_health_and_version(url: str) -> None:
    assert requests.get(f"{url}/health", timeout=5).json() == {"status": "healthy", "busy": False, "queue": 0}
    assert requests.get(f"{url}/version", timeout=5).json()["version"]


def test_its_health_says_whether_it_generates_and_how_many_wait(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()
    monkeypatch.setattr("runner.server.app._generate", lambda *_: hold.wait(20) and b"")
    asking = [threading.Thread(target=ask, args=(url, b"any")) for _ in range(3)]
    for one in asking:
        one.start()
    until = time.monotonic() + 20
    while (said := requests.get(f"{url}/health", timeout=5).json())["queue"] < 2 and time.monotonic() < until:
        pass
    assert said == {"status": "healthy", "busy": True, "queue": 2}
    hold.set()
    for one in asking:
        one.join()
    assert requests.get(f"{url}/health", timeout=5).json() == {"status": "healthy", "busy": False, "queue": 0}


def test_an_image_becomes_a_splat_ply_sent_in_chunks(url: str) -> None:
    answer = ask(url, IMAGES[0].read_bytes(), seed=42)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert "Content-Length" not in answer.headers
    FORMATS["ply"].check(io.BytesIO(answer.content), len(answer.content))
    assert set(SPLAT_FIELDS) < set(splats_of(answer.content).dtype.names)


def front_of(ply: Path, side: int) -> np.ndarray:
    """Return what is seen of splats along +z, as ``side``² pixels of RGBA, 0 to 255."""
    with ply.open("rb") as file:
        splats = read(file)
    assert isinstance(splats, Splats)
    fine = blended(splats, View(np.eye(3, dtype="f4"), np.zeros(3, dtype="f4"), 3 * side, 3 * side))
    pixels = fine.reshape(side, 3, side, 3, 4).mean(axis=(1, 3))
    colour = pixels[..., :3] / np.maximum(pixels[..., 3:], 1e-6)
    return np.concatenate([colour, pixels[..., 3:]], axis=2) * 255


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_a_splat_seen_from_the_front_looks_like_its_image(image: Path, tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(generate(read_subject(image.read_bytes()), seed=42))
    drawn = front_of(tmp_path / "a.ply", 160)
    prompt = np.asarray(Image.open(image).convert("RGBA").resize((160, 160)), dtype=float)
    mask = read_subject(image.read_bytes()).mask[1:-1, 1:-1]
    covered = drawn[..., 3] > 127
    overlap = (covered & mask).sum() / (covered | mask).sum()
    assert overlap > 0.93
    inside = covered & mask
    assert np.abs(drawn[inside][:, :3] - prompt[inside][:, :3]).mean() < 14  # of 255


def test_splats_are_ordinary(tmp_path: Path) -> None:
    splats = splats_of(generate(read_subject(IMAGES[0].read_bytes()), seed=1))
    position = np.stack([splats["x"], splats["y"], splats["z"]], axis=1)
    assert np.isfinite(np.array(splats.tolist())).all()
    assert np.abs(position).max() <= 0.6
    assert splats["z"].min() < -0.05 < 0.05 < splats["z"].max(), "it has a front and a back"
    opacity = 1 / (1 + np.exp(-splats["opacity"]))
    assert opacity.min() > 0.85 and opacity.max() < 1
    assert np.exp(splats["scale_0"]).max() < 0.02
    turns = np.stack([splats[f"rot_{axis}"] for axis in range(4)], axis=1)
    assert np.allclose(np.linalg.norm(turns, axis=1), 1, atol=1e-5)


def test_the_thin_axis_of_a_splat_stands_on_the_surface() -> None:
    splats = splats_of(generate(read_subject(IMAGES[0].read_bytes()), seed=1))
    w, x, y, z = (splats[f"rot_{axis}"] for axis in range(4))
    third_axis = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)
    normal = np.stack([splats["nx"], splats["ny"], splats["nz"]], axis=1)
    assert np.abs((third_axis * normal).sum(axis=1)).min() > 0.999
    assert (splats["scale_2"] < splats["scale_0"]).all()


def test_the_seed_makes_it_reproducible_and_another_seed_different(url: str) -> None:
    content = IMAGES[1].read_bytes()
    one, same, other = (ask(url, content, seed=seed).content for seed in (7, 7, 8))
    assert one == same
    assert one != other
    assert ask(url, content, seed=-1).status_code == 200


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the image is empty"),
        (b"not an image", "no image in a known format"),
        (IMAGES[0].read_bytes()[:200], "can't be decoded"),
        (png(Image.new("RGB", (50, 50), "white")), "shows no object"),
        (png(Image.new("RGBA", (50, 50), (9, 9, 9, 0))), "shows no object"),
    ],
)
def test_a_broken_image_is_a_422_that_says_why(url: str, content: bytes, said: str) -> None:
    answer = ask(url, content)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (640, 480), (17, 16), (4000, 20), (10, 3000)])
def test_any_shape_of_image_is_taken_or_refused_with_a_reason(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "white")
    image.paste("red", (size[0] // 4, size[1] // 4, size[0] * 3 // 4 + 1, size[1] * 3 // 4 + 1))
    try:
        content = generate(read_subject(png(image)), seed=1)
    except BadImage:
        return
    FORMATS["ply"].check(io.BytesIO(content), len(content))


def test_a_missing_field_is_a_422(url: str) -> None:
    assert requests.post(f"{url}/generate", data={"seed": 1}, timeout=5).status_code == 422
    assert ask(url, IMAGES[0].read_bytes(), seed="x").status_code == 422
