"""The peer: the twenty lines that many endpoints lead to. One pool, one session, round-robin, whole bodies.

python benchmarks/pool_script.py PROMPTS_FILE OUTPUT_FOLDER ENDPOINT [ENDPOINT …]
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

urls, folder, endpoints = Path(sys.argv[1]).read_text().split(), Path(sys.argv[2]), sys.argv[3:]
folder.mkdir(parents=True, exist_ok=True)
session = requests.Session()
session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=1024, pool_maxsize=1024))


def work(number: int) -> None:
    image = session.get(urls[number], timeout=60).content
    files = {"prompt_image_file": ("image.png", image, "image/png")}
    endpoint = endpoints[number % len(endpoints)]
    answer = session.post(f"{endpoint}/generate", files=files, data={"seed": "42"}, timeout=300)
    answer.raise_for_status()
    (folder / f"{Path(urls[number]).stem}.ply").write_bytes(answer.content)


with ThreadPoolExecutor(2 * len(endpoints)) as pool:
    list(pool.map(work, range(len(urls))))
