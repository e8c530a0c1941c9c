"""What docs/scaling.md says in figures: measured costs, and a model of 10,000 endpoints that is checked against runs.

    python benchmarks/scaling.py [CASE …] [--docs] [--json FILE]

Cases: costs, check, waiting, cluster, night, limits; all without any. Costs are measured with 4 and 40 endpoints;
what the model makes of them is checked with 10, 100 and 1,000. ``night`` and ``limits`` only compute, from the costs
of the last time if ``costs`` is not among the cases. ``--docs`` writes the tables into docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import into_docs, shown
from ceiling import Costs, Run, machines, requests_of_upload
from cluster import bucket as bucket_of
from cluster import dask, requests_in
from whole_runs import Load, watched

from runner.ledger import Ledger
from runner.records import Attempt, Outcome

_PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
_RATE = 10_000 / 45
"""Results a second of 10,000 endpoints that take 45 s. Fewer endpoints with shorter generations give as many."""

_NIGHT_S = 8 * 3600
_SMALL, _LARGE = 1000, 50_000_000


Known = dict[str, float]
"""What was measured, this time or before, by its name in ``Costs``."""


@dataclass
class Table:
    """Cells of one case, as they stand in the docs."""

    case: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)

    def markdown(self) -> str:
        head = f"| {' | '.join(self.columns)} |\n|{'---|' * len(self.columns)}\n"
        return head + "".join(f"| {' | '.join(row)} |\n" for row in self.rows)


def at_rate(endpoints: int, size_bytes: int = _SMALL, rate: float = _RATE, lasts_s: float = 15.0) -> Load:
    """Return the load of so many endpoints that give so many results a second together."""
    return Load(endpoints, endpoints / rate, size_bytes, lasts_s)


# What is measured.


def costs(known: Known) -> Table:
    """Measure what the model needs, with few endpoints."""
    small = watched(at_rate(4))
    more = watched(at_rate(40))
    large = watched(at_rate(4, _LARGE, rate=4))
    flat = watched(Load(40, 0.001, _SMALL, lasts_s=0.1))
    waiting = _waiting(4)
    large_ms = large["hands_ms"] - small["hands_ms"]
    lane_mb = (more["memory_mb"] - small["memory_mb"]) / 36
    found = Costs(
        main_ms=small["main_ms"],
        hands_ms=small["hands_ms"],
        mb_ms=large_ms / (_LARGE / 1e6),
        waiting_ms=waiting["hands_ms"],
        base_mb=small["memory_mb"] - 4 * lane_mb,
        lane_mb=lane_mb,
        buffers_mb=max(0.0, large["memory_mb"] - small["memory_mb"]),
        line_bytes=small["ledger_bytes"],
        pause_s=small["idle_share"] * 4 / _RATE,
        most_rate=flat["rate"],
        lines_rate=lines_rate(),
    )
    known.update({name: value for name, value in asdict(found).items() if not math.isnan(value)})
    table = Table("costs", ["of one coordinator, without worker processes", "measured"])
    table.rows += [
        ["CPU a result, in the main thread: ledger, log, tally", shown(found.main_ms, "ms")],
        ["CPU a result of 1 KB, in its hands: image, request, answer, verification", shown(found.hands_ms, "ms")],
        ["CPU a result, in hands that only wait for a worker", shown(found.waiting_ms, "ms")],
        ["CPU a MB received, hashed, verified, written (from results of 50 MB)", shown(found.mb_ms, "ms")],
        ["memory of a run", shown(found.base_mb, "MB")],
        ["more for each endpoint", shown(1000 * found.lane_mb, "KB")],
        ["more for results of some MB", shown(found.buffers_mb, "MB")],
        ["a line of the ledger", shown(found.line_bytes, "bytes")],
        ["pause between two generations of an endpoint", shown(1000 * found.pause_s, "ms")],
        ["most results a second, 40 endpoints that need no time", shown(found.most_rate, "")],
        ["lines a second that the ledger takes alone", shown(found.lines_rate, "")],
    ]
    return table


def costs_of(known: Known) -> Costs:
    """Return what was measured the last time. Raises SystemExit if nothing was."""
    try:
        return Costs(**{name: known[name] for name in Costs.__dataclass_fields__ if name in known})
    except TypeError as error:
        raise SystemExit(f"costs are not measured yet ({error}): run the case costs first") from error


def lines_rate(count: int = 50_000, together: int = 4) -> float:
    """Return how many lines a second the ledger takes, a few at a time."""
    attempt = Attempt(1, "10.0.0.1:10006", "2026-11-23T00:00:00Z", 0.1, 45.0, 0.5, 200)
    outcome = Outcome(
        key="chair-1234567", index=1234567, prompt="https://example.com/images/chair-1234567.png", outcome="saved",
        endpoint="10.0.0.1:10006", fingerprint="0" * 32, seed=42, protocol="404-splat", file="chair-1234567.ply",
        format="ply", size_bytes=50_000_000, mtime_ns=1, sha256="0" * 64, attempts=(attempt,),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.jsonl", run="20261123T000000Z-0000", redact=str)
        begun = time.monotonic()
        for _ in range(count // together):
            ledger.append([outcome] * together)
        ledger.close()
        return count / (time.monotonic() - begun)


def _waiting(endpoints: int, *, rounds: int | None = None, **options: object) -> dict[str, float]:
    """Run coordinator.py with so many endpoints at the rate of 10,000; return what it says."""
    seconds = endpoints / _RATE
    words = ["--endpoints", str(endpoints), "--seconds", str(seconds)]
    words += ["--rounds", str(rounds or max(8, int(15 / seconds)))]
    for name, value in options.items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("coordinator.py")), *words],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def check(known: Known) -> Table:
    """Compare the model with whole runs that it was not made from."""
    cost = costs_of(known)
    columns = ["results a second", "processors in use", "memory", "threads", "ledger a second", "idle share"]
    table = Table("check", ["run", *columns, "stand-in servers"])
    loads = [
        at_rate(10),
        at_rate(100),
        at_rate(10, 1_000_000, rate=100),
        at_rate(100, 1_000_000, rate=100),
        at_rate(10, 20_000_000, rate=8),
        at_rate(100, 20_000_000, rate=8, lasts_s=60),
        at_rate(1000, lasts_s=25),
    ]
    for load in loads:
        run = Run(load.endpoints, load.seconds, load.size_mb)
        seen = watched(load)
        size = "1 KB" if load.size_bytes == _SMALL else f"{load.size_mb:,.0f} MB"
        ledger_kb = seen["rate"] * seen["ledger_bytes"] / 1e3
        table.rows.append([
            f"{load.endpoints:,} × {load.seconds:.2g} s, {size}",
            _beside(run.rate(cost), seen["rate"]),
            _beside(run.cores(cost), seen["cores"]),
            _beside(run.memory_mb(cost), seen["memory_mb"], "MB"),
            _beside(run.threads(), seen["threads"]),
            _beside(run.rate(cost) * cost.line_bytes / 1e3, ledger_kb, "KB"),
            f"{shown(100 * run.idle_share(cost), '')} → {shown(100 * seen['idle_share'], '%')}",
            shown(seen["serving_cores"], ""),
        ])  # fmt: skip
        print(" | ".join(table.rows[-1]), file=sys.stderr, flush=True)
    return table


def _beside(predicted: float, measured: float, unit: str = "") -> str:
    """Return what was predicted, what was measured, and by how much the former is more."""
    off = f"{100 * (predicted - measured) / measured:+.0f}".replace("-", "−")
    return f"{shown(predicted, '')} → {shown(measured, unit)} ({off} %)"


def waiting(known: Known) -> Table:
    """Measure a coordinator whose hands only wait, with up to 10,000 endpoints."""
    names = {
        "start_s": ("until all endpoints were at work", "s"),
        "rate": ("results a second (222 wanted)", ""),
        "main_ms": ("CPU a result, main thread", "ms"),
        "hands_ms": ("CPU a result, hands", "ms"),
        "cores": ("processors in use", ""),
        "stall_s": ("longest pause of the main thread", "s"),
        "memory_mb": ("memory", "MB"),
        "threads": ("threads", ""),
        "late_s": ("the run, longer than its generations", "s"),
    }
    seen = []
    for endpoints, rounds in ((10, None), (100, None), (1000, 8), (10_000, 7)):
        found = _waiting(endpoints, rounds=rounds, begin=0.75, end=0.85)
        seen.append(found | {"late_s": found["run_s"] - found["ideal_s"]})
    known["waiting_ms_10000"] = seen[-1]["hands_ms"] + seen[-1]["main_ms"]
    known["waiting_memory_mb_10000"] = seen[-1]["memory_mb"]
    table = Table("waiting", ["", *(f"{one['endpoints']:,} × {one['seconds_each']:.3g} s" for one in seen)])
    table.rows += [[what, *(shown(one[name], unit) for one in seen)] for name, (what, unit) in names.items()]
    return table


def cluster(known: Known) -> Table:
    """Measure what is more with Dask's workers, and on the way into a bucket."""
    small, large = at_rate(40, rate=40), at_rate(20, 20_000_000, rate=4, lasts_s=20)
    table = Table("cluster", ["CPU a result", "in one process", "two Dask workers", "… into a bucket"])
    with tempfile.TemporaryDirectory() as name, bucket_of(Path(name)) as (url, log):
        for title, load in (("1 KB", small), ("20 MB", large)):
            found, asked = [watched(load)], requests_in(log)
            for to in (None, f"{url}-{load.size_bytes}"):
                with dask(Path(name), 2) as (address, pids):
                    asked = requests_in(log)
                    found.append(watched(load, pids, to, engine={"kind": "dask", "address": address}))
            asked = requests_in(log) - asked
            rows = {
                "main thread": [one["main_ms"] for one in found],
                "other threads of the coordinator": [one["hands_ms"] for one in found],
                "scheduler": [one.get("scheduler_ms", math.nan) for one in found],
                "workers": [one.get("worker 1_ms", math.nan) + one.get("worker 2_ms", 0) for one in found],
            }
            table.rows += [[f"{title}: {what}", *map(_or_none, seen)] for what, seen in rows.items()]
            said = [f"{count / load.results:.2g} {what}" for what, count in sorted(asked.items())]
            table.rows.append([f"{title}: requests to the bucket, a result", "–", "–", ", ".join(said)])
            if load is small:
                known["dask_scheduler_ms"] = rows["scheduler"][1]
                known["dask_coordinator_ms"] = rows["main thread"][1] + rows["other threads of the coordinator"][1]
            else:
                known["put_ms_mb"] = (rows["workers"][2] - rows["workers"][1]) / load.size_mb
    return table


def _or_none(milliseconds: float) -> str:
    return shown(None if math.isnan(milliseconds) else milliseconds, "ms")


# What is computed.


def night(known: Known) -> Table:
    """Say what 10,000 endpoints of 45 s and 50 MB take."""
    cost = costs_of(known)
    rate, size_mb = _RATE, 50.0
    mb_s = rate * size_mb
    requests = requests_of_upload(size_mb * 1e6)
    put_ms = size_mb * known.get("put_ms_mb", math.nan)
    into_ms = cost.hands_ms + size_mb * cost.mb_ms

    def cores(milliseconds: float) -> str:
        return shown(None if math.isnan(milliseconds) else rate * milliseconds / 1000, "processors")

    def a_night(each: float, unit: str, per: float) -> str:
        return shown(rate * each * _NIGHT_S / per, unit)

    table = Table("night", ["", "a second", "in a night of 8 hours"])
    table.rows += [
        ["results", shown(rate, ""), a_night(1, "million", 1e6)],
        ["bytes in, and once more out to the bucket", shown(mb_s / 1e3, "GB"), a_night(size_mb, "TB", 1e6)],
        ["the same on the network, in each direction", shown(mb_s * 8 / 1e3, "Gbit"), ""],
        ["requests to endpoints and image hosts", shown(2 * rate, ""), a_night(2, "million", 1e6)],
        [
            f"requests to the bucket, {requests} a result",
            shown(rate * requests, ""),
            a_night(requests, "million", 1e6),
        ],
        ["ledger", shown(rate * cost.line_bytes / 1e3, "KB"), a_night(cost.line_bytes, "GB", 1e9)],
        ["workers: to receive, hash, verify and write", cores(into_ms), ""],
        ["workers: to send it to the bucket", cores(put_ms), ""],
        ["coordinator, with hands that wait", cores(known.get("waiting_ms_10000", math.nan)), ""],
        ["coordinator and its messages with Dask", cores(known.get("dask_coordinator_ms", math.nan)), ""],
        ["Dask's scheduler", cores(known.get("dask_scheduler_ms", math.nan)), ""],
    ]
    for gbit_s in (10, 25, 100):
        count = machines(mb_s, gbit_s)
        each = f"{10_000 / count:,.0f} endpoints, {mb_s / count / 1e3:.2g} GB/s each"
        table.rows.append([f"machines with {gbit_s} Gbit/s, 70 % of it counted on", str(count), each])
    return table


def limits(known: Known) -> Table:
    """Say with how many endpoints of 45 s and 50 MB each limit is met."""
    cost = costs_of(known)
    each_mb_s = 50 / 45
    core_ms = (cost.main_ms + cost.hands_ms + 50 * cost.mb_ms) / 45
    table = Table("limits", ["what one machine has", "is met with so many endpoints"])
    table.rows += [
        ["1,024 open files (the usual soft limit; a run raises it to the hard one)", f"{(1024 - 256) // 8:,}"],
        ["a link of 1 Gbit/s, 70 % of it", f"{125 * 0.7 / each_mb_s:,.0f}"],
        ["a disk that writes 500 MB/s", f"{500 / each_mb_s:,.0f}"],
        ["a link of 10 Gbit/s, 70 % of it", f"{1250 * 0.7 / each_mb_s:,.0f}"],
        ["one processor's time for what arrives", f"{1000 / core_ms:,.0f}"],
        ["20,000 open files", f"{(20_000 - 256) // 8:,}"],
        ["a link of 25 Gbit/s, 70 % of it", f"{3125 * 0.7 / each_mb_s:,.0f}"],
        ["one interpreter's results a second", f"{cost.most_rate * 45:,.0f}"],
        ["32,768 threads (pid_max of many systems)", f"{32_768 // 2:,}"],
        ["the ledger's lines a second", f"{cost.lines_rate * 45:,.0f}"],
    ]
    table.rows.sort(key=lambda row: int(row[1].replace(",", "")))
    return table


CASES: dict[str, Callable[[Known], Table]] = {
    one.__name__: one for one in (costs, check, waiting, cluster, night, limits)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/out/scaling.json"), help="where the figures go")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/scaling.md")
    options = parser.parse_args()
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    known: Known = json.loads(options.json.read_text()) if options.json.exists() else {}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for name in options.cases or CASES:
        begun = time.monotonic()
        table = CASES[name](known)
        print(f"## {name} ({time.monotonic() - begun:.0f} s)\n\n{table.markdown()}", flush=True)
        options.json.write_text(json.dumps(known, indent=2) + "\n")
        if options.docs:
            _PAGE.write_text(into_docs([table], _PAGE.read_text()))  # type: ignore[list-item]


if __name__ == "__main__":
    main()
