"""Make the screenshots in docs/ of two reports: the demo's, and a night with an outage, a slow endpoint and failures.

    python scripts/shoot_reports.py        (after make demo; needs Chromium: make browser)

The night is real: four reference servers, one of them slow, one killed and started again; 40 prompts over two runs.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "demo" / "night"
CHROMIUM = "/usr/bin/chromium"
PORTS = (10006, 10007, 10008, 10009)
SECONDS = (1.0, 1.0, 2.4, 1.0)
SLOW_START_S = 30


class Images(SimpleHTTPRequestHandler):
    """The images of the prompts, without a log."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def image_host(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Images, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def start(place: int) -> subprocess.Popen[bytes]:
    """Start one reference server, and wait until it is well."""
    port, seconds = PORTS[place], SECONDS[place]
    command = [sys.executable, "-m", "runner", "serve", "--port", str(port), "--seconds", str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    for _ in range(SLOW_START_S * 10):
        try:
            urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return process
    process.kill()
    sys.exit(f"the server on port {port} does not start")


def listed(host: str, images: Path) -> Iterator[str]:
    """Yield 40 prompts: the demo's images under several keys, one that shows nothing and one that is not there."""
    Image.new("RGB", (128, 128), "white").save(images / "empty.png")
    stems = sorted(file.stem for file in (ROOT / "configs/images").glob("*.png"))
    for number in range(38):
        stem = stems[number % len(stems)]
        yield json.dumps({"image": f"{host}/{stem}.png", "key": f"{stem}-{number:02}"})
    yield json.dumps({"image": f"{host}/empty.png", "key": "empty-38"})
    yield json.dumps({"image": f"{host}/gone.png", "key": "gone-39"})


def a_night(host: str, images: Path) -> None:
    """Run the list twice, the second time with an outage in the middle, and make the report."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    (FOLDER / "prompts.jsonl").write_text("".join(f"{line}\n" for line in listed(host, images)))
    endpoints = [{"url": f"http://127.0.0.1:{port}", "name": f"gpu-{place}"} for place, port in enumerate(PORTS)]
    config = {"endpoints": endpoints, "prompts": "prompts.jsonl", "output_folder": "results"}
    config |= {"retry": {"backoff_s": 0.5}, "health": {"failures_to_open": 1, "probe_every_s": 0.5}}
    (FOLDER / "night.yaml").write_text(json.dumps(config))
    run = [sys.executable, "-m", "runner", "run", "night.yaml", "-q"]
    with ExitStack() as stack:
        servers = [start(place) for place in range(len(PORTS))]
        stack.callback(lambda: [(one.kill(), one.wait()) for one in servers])
        subprocess.run([*run, "--max-runtime-s", "5"], cwd=FOLDER, stdout=subprocess.DEVNULL, check=False)
        going = subprocess.Popen(run, cwd=FOLDER, stdout=subprocess.DEVNULL)
        time.sleep(2.5)
        servers[1].kill()
        servers[1].wait()
        time.sleep(2.5)
        servers[1] = start(1)
        going.wait()
        subprocess.run([sys.executable, "-m", "runner", "report", "results"], cwd=FOLDER, check=True)


def shoot(report: Path, picture: Path, height: int) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": height}, color_scheme="light")
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        page.wait_for_timeout(300)  # for the last frame
        page.screenshot(path=picture)
        browser.close()
    with Image.open(picture) as shot:
        shot.convert("RGB").save(picture, optimize=True)
    print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    demo = ROOT / "demo" / "results" / "report.html"
    if not demo.exists():
        sys.exit("there is no report of the demo: make demo")
    images = ROOT / "demo" / "night-images"
    shutil.copytree(ROOT / "configs/images", images, dirs_exist_ok=True)
    with image_host(images) as host:
        a_night(host, images)
    shoot(demo, ROOT / "docs" / "report-demo.png", 1500)
    shoot(FOLDER / "results" / "report.html", ROOT / "docs" / "report-night.png", 1500)


if __name__ == "__main__":
    main()
