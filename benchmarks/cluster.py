"""A Dask scheduler with workers, and an S3 server, on loopback: for runs that are measured."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

BUCKET = "runner-bench"
_REQUEST = re.compile(r'"(GET|PUT|POST|HEAD|DELETE) (\S+)')


@contextmanager
def dask(folder: Path, workers: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Start a scheduler and workers; give its address, and the pid of each: ``scheduler``, ``worker 1`` …"""
    port = _free_port()
    address = f"tcp://127.0.0.1:{port}"
    program = str(Path(sys.executable).with_name("dask"))
    here = ["--host", "127.0.0.1", "--no-dashboard"]
    with ExitStack() as stack:
        pids = {}
        scheduler = [program, "scheduler", *here, "--port", str(port)]
        pids["scheduler"] = stack.enter_context(_started(scheduler, folder / "scheduler.log"))
        _wait(port)
        for number in range(1, workers + 1):
            words = [program, "worker", address, *here, "--no-nanny", "--name", f"worker-{number}"]
            words += ["--local-directory", str(folder)]
            pids[f"worker {number}"] = stack.enter_context(_started(words, folder / f"worker-{number}.log"))
        yield address, pids


@contextmanager
def bucket(folder: Path) -> Iterator[tuple[str, Path]]:
    """Start moto's server with an empty bucket, and let this process and its children speak to it.

    Gives the URL of a folder in it, and the log of the server, which has every request.
    """
    import boto3

    port = _free_port()
    log = folder / "bucket.log"
    words = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    given = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    given |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    with _started(words, log):
        _wait(port)
        os.environ.update(given)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}/results", log


def requests_in(log: Path) -> Counter[str]:
    """Count what the S3 server was asked for, by what it is about: results, or the state of the run."""
    found: Counter[str] = Counter()
    for verb, path in _REQUEST.findall(log.read_text(errors="replace")):
        about = "result" if re.search(r"/p\d+\.ply", path) else "state"
        found[f"{about} {verb}"] += 1
    return found


@contextmanager
def _started(words: list[str], log: Path) -> Iterator[int]:
    with log.open("w") as out, subprocess.Popen(words, stdout=out, stderr=out) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait(port: int) -> None:
    for _ in range(300):
        with socket.socket() as one:
            if not one.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port} after 30 s")
