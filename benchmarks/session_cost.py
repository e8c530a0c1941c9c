"""What do requests' sessions cost per request? CPU of this process, in one run, against one simulated server.

python benchmarks/session_cost.py [--requests 1000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import requests
from requests.adapters import HTTPAdapter
from simulated import servers

_FILE = {"prompt_image_file": ("image.png", b"x" * 10_000, "image/png")}


def session(*, trust_env: bool = False, pool: int = 10) -> requests.Session:
    made = requests.Session()
    made.trust_env = trust_env
    made.mount("http://", HTTPAdapter(pool_connections=pool, pool_maxsize=pool))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    count = parser.parse_args().requests
    with servers(["--seconds", "0", "--result-bytes", "2000"], endpoints=1) as (url,):
        url += "/generate"
        plain, trusting, wide = session(), session(trust_env=True), session(pool=1000)
        prepared = plain.prepare_request(requests.Request("POST", url, files=_FILE, data={"seed": "1"}))
        ways: dict[str, Callable[[], requests.Response]] = {
            "prepared, the adapter alone": lambda: plain.get_adapter(url).send(prepared, timeout=30),
            "prepared, one session": lambda: plain.send(prepared, timeout=30),
            "one session": lambda: plain.post(url, files=_FILE, data={"seed": "1"}, timeout=30),
            "one session, pool of 1000": lambda: wide.post(url, files=_FILE, data={"seed": "1"}, timeout=30),
            "one session, trust_env": lambda: trusting.post(url, files=_FILE, data={"seed": "1"}, timeout=30),
            "a session a request": lambda: requests.post(url, files=_FILE, data={"seed": "1"}, timeout=30),
        }
        for name, send in ways.items():
            send()
            begun = time.process_time()
            for _ in range(count):
                send().content  # noqa: B018 - reads the body
            print(f"{name:28}{1e6 * (time.process_time() - begun) / count:8.0f} µs CPU a request", flush=True)


if __name__ == "__main__":
    main()
