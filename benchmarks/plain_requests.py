"""The peer: the script people write first. A thread an endpoint, a session a thread, round-robin, whole bodies.

python benchmarks/plain_requests.py PROMPTS_FILE OUTPUT_FOLDER ENDPOINT [ENDPOINT …]
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import requests


def work(endpoint: str, urls: list[str], folder: Path) -> None:
    session = requests.Session()
    for url in urls:
        image = session.get(url, timeout=60).content
        answer = session.post(
            f"{endpoint}/generate",
            files={"prompt_image_file": ("image.png", image, "image/png")},
            data={"seed": "42"},
            timeout=300,
        )
        answer.raise_for_status()
        (folder / f"{Path(urlsplit(url).path).stem}.ply").write_bytes(answer.content)


def main() -> None:
    prompts, folder, endpoints = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    urls = prompts.read_text().split()
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(endpoints)) as pool:
        for number, endpoint in enumerate(endpoints):
            pool.submit(work, endpoint, urls[number :: len(endpoints)], folder)


if __name__ == "__main__":
    main()
