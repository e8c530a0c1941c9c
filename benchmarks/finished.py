"""Make the output folder of a run that is done, as the runner leaves it: a tiny result and a line for each prompt."""

from __future__ import annotations

import os
from collections import deque
from hashlib import sha256
from pathlib import Path

from simulated import ply_of

from runner.ledger import LEDGER, Ledger
from runner.prompts import read_prompts
from runner.records import Attempt, Endpoint, Outcome, Task
from runner.schedule import Lane
from runner.worker import Outcomes

_BATCH = 1000
_MTIME_NS = 1_700_000_000_000_000_000


def finish(prompts: Path, results: Path, urls: list[str]) -> None:
    """Let every prompt of the file have a result in ``results``, made with the defaults of the config."""
    endpoints = [Endpoint(index, url, url.removeprefix("http://"), "") for index, url in enumerate(urls)]
    lanes = [Lane(endpoint, deque()) for endpoint in endpoints]
    outcomes = Outcomes(lane_names=[one.name for one in endpoints], seed=42, protocol="404-splat")
    body = ply_of(200)
    digest = sha256(body).hexdigest()
    (results / ".runner").mkdir(parents=True)
    ledger = Ledger(results / ".runner" / LEDGER, run="20261123T000000Z-0000", redact=str)
    lines: list[Outcome] = []
    for index, prompt in enumerate(read_prompts([str(prompts)], base=prompts.parent, keys="name")):
        lane = lanes[index % len(lanes)]
        name = f"{prompt.key}.ply"
        descriptor = os.open(results / name, os.O_WRONLY | os.O_CREAT, 0o664)
        os.write(descriptor, body)
        os.close(descriptor)
        os.utime(results / name, ns=(_MTIME_NS, _MTIME_NS))
        attempt = Attempt(1, lane.endpoint.name, "2026-11-23T00:00:00Z", 0.1, 12.345678, 0.123456, 200)
        saved = {"file": name, "format": "ply", "size_bytes": len(body), "mtime_ns": _MTIME_NS, "sha256": digest}
        lines.append(outcomes.of(Task(prompt, attempts=[attempt]), lane, "saved", None, **saved))
        if len(lines) == _BATCH:
            ledger.append(lines)
            lines.clear()
    ledger.append(lines)
    ledger.close()
    os.sync()  # such a run ended hours ago: nothing of it is still on its way to the disk
