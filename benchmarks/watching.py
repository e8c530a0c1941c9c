"""Looks at a run from outside while it goes on: the CPU of each of its threads, its memory, its ledger."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Look:
    """What was there at one moment. CPU in seconds since the start: of the main thread, and of all others."""

    at: float
    main_s: float
    others_s: float
    threads: int
    memory_mb: float
    results: int
    ledger_bytes: int
    serving_s: float = 0.0
    beside_s: Mapping[str, float] = field(default_factory=dict)

    def since(self, first: Look) -> dict[str, float]:
        """Return what happened from an earlier look to this one, a result and a second."""
        seconds = self.at - first.at
        results = self.results - first.results
        beside = {f"{name}_ms": 1000 * (now - first.beside_s[name]) / results for name, now in self.beside_s.items()}
        return beside | {
            "looked_s": seconds,
            "results": results,
            "rate": results / seconds,
            "main_ms": 1000 * (self.main_s - first.main_s) / results,
            "hands_ms": 1000 * (self.others_s - first.others_s) / results,
            "cores": (self.main_s + self.others_s - first.main_s - first.others_s) / seconds,
            "main_cores": (self.main_s - first.main_s) / seconds,
            "ledger_bytes": (self.ledger_bytes - first.ledger_bytes) / results,
            "threads": self.threads,
            "memory_mb": self.memory_mb,
            "serving_cores": (self.serving_s - first.serving_s) / seconds,
        }


def look(pid: int, ledger: Path, serving_s: float = 0.0, beside: Mapping[str, int] | None = None) -> Look:
    """Look at a process, all its threads alive, and its ledger; ``serving_s`` is the CPU of what answers it.

    ``beside`` names other processes; of these the CPU is noted.
    """
    main_s, others_s = 0.0, 0.0
    threads = os.listdir(f"/proc/{pid}/task")
    for thread in threads:
        try:
            ran_s = int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0]) / 1e9
        except OSError:
            continue
        if int(thread) == pid:
            main_s = ran_s
        else:
            others_s += ran_s
    resident = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert resident
    content = ledger.read_bytes()
    return Look(
        time.monotonic(), main_s, others_s, len(threads), int(resident[1]) * 1024 / 1e6, content.count(b"\n"),
        len(content), serving_s, {name: _cpu_s(one) for name, one in (beside or {}).items()},
    )  # fmt: skip


def _cpu_s(pid: int) -> float:
    """Return the CPU that a process has used, in seconds (proc(5))."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
