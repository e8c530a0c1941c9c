"""Everything that docs/performance.md says in figures, measured anew: the runner beside what people write themselves.

    python benchmarks/bench.py [CASE …] [--json FILE] [--docs]

Cases: pause, cpu, profile, memory, million, steal, processes, thousand; all without any (some fifteen minutes).
Every peer of a case works on the same list against the same kind of simulated servers, in turn. ``--docs`` writes the
tables and the chart into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median

from finished import finish
from peers import PLAIN, POOL, RUNNER, Watched, command, listed, pauses_ms, run, span_s, times_of
from profiling import parts
from simulated import servers

_DOCS = Path(__file__).parents[1] / "docs"


@dataclass
class Table:
    """Figures of one case. ``rows``: what is measured, its unit, what was asked for, and a value a column."""

    case: str
    columns: list[str]
    rows: list[tuple[str, str, str, list[float | None]]] = field(default_factory=list)

    def add(self, what: str, unit: str, asked: str, *values: float | None) -> None:
        self.rows.append((what, unit, asked, list(values)))

    def markdown(self) -> str:
        head = f"| | asked | {' | '.join(self.columns)} |\n|---|---|{'---|' * len(self.columns)}\n"
        return head + "".join(
            f"| {what} | {asked} | {' | '.join(shown(value, unit) for value in values)} |\n"
            for what, unit, asked, values in self.rows
        )


def shown(value: float | None, unit: str) -> str:
    """Return a value with its unit, as exact as it is of use."""
    if value is None:
        return "–"
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {unit}".strip()


@contextmanager
def results_in(folder: Path) -> Iterator[Path]:
    """Give a folder for one run's results, and take it away afterwards."""
    path = folder / f"results-{time.monotonic_ns()}"
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def measure(
    peer: str, simulated: list[str], endpoints: int, prompts: int, folder: Path, **options: object
) -> tuple[Watched, list[list[list[float]]]]:
    """Run a peer over a list on fresh servers; return what it took, and when the servers generated."""
    with servers(simulated, endpoints) as urls, results_in(folder) as results:
        watched = run(command(peer, urls, listed(urls, prompts, folder), results, **options))
        made = sum(1 for entry in os.scandir(results) if entry.name.endswith(".ply"))
        assert made == prompts, f"{peer}: {made} of {prompts}"
        return watched, times_of(urls)


def pause(folder: Path) -> Table:
    table = Table("pause", [RUNNER, PLAIN, POOL])
    cases = [
        ("local: 0.2 s a generation, 1 MiB", "≤ 5 ms", 4, 100, ["--seconds", "0.2"], 1),
        (
            "remote: 0.3 s, 4 MB at 40 MB/s, images 50 ms away", "≤ 5 ms", 4, 100,
            ["--seconds", "0.3", "--result-bytes", "4000000", "--rate", "40e6", "--image-delay", "0.05"], 1,
        ),
        ("servers that queue, `slots: 2`: 0.2 s, 1 MiB", "≤ 1 ms", 4, 100, ["--seconds", "0.2"], 2),
        (
            "64 endpoints: 0.5 s ± 10 %, 20 KB", "≤ 5 ms", 64, 1280,
            ["--seconds", "0.5", "--jitter", "0.1", "--result-bytes", "20000"], 1,
        ),
        (
            "64 endpoints in lockstep: 0.5 s, 20 KB", "≤ 5 ms", 64, 1280,
            ["--seconds", "0.5", "--result-bytes", "20000"], 1,
        ),
    ]  # fmt: skip
    for what, asked, endpoints, prompts, simulated, slots in cases:
        found = []
        for peer in table.columns:
            _, times = measure(peer, simulated, endpoints, prompts, folder, **({"slots": slots} if slots > 1 else {}))
            found.append(mean(pauses_ms(times)))
        table.add(what, "ms", asked, *found)
    return table


def cpu(folder: Path) -> Table:
    table = Table("cpu", [RUNNER, POOL])
    found: dict[str, list[float]] = {RUNNER: [], POOL: []}
    for _ in range(3):
        for peer in table.columns:
            watched, _ = measure(peer, ["--seconds", "0", "--result-bytes", "2000"], 4, 2000, folder)
            found[peer].append(1000 * watched.cpu_s / 2000)
    values = [median(found[peer]) for peer in table.columns]
    table.add("CPU a prompt: 2,000 of 2 KB, start-up included", "ms", "≤ 1.0 × the pool", *values)
    table.add("the same as a ratio", "", "≤ 1.0", values[0] / values[1], 1.0)
    bare = _start_up([sys.executable, "-c", "pass"])
    start_up = _start_up([sys.executable, "-m", "runner", "--help"]) - bare
    table.add("start-up of `--help` over `python -c pass`", "ms", "≤ 150 ms", start_up, None)
    return table


def profile(folder: Path, count: int = 4000) -> Table:
    table = Table("profile", ["CPU a prompt"])
    options = ["--seconds", "0", "--result-bytes", "2000"]
    watched, _ = measure(RUNNER, options, 4, count, folder)
    with servers(options, 4) as urls, results_in(folder) as results:
        found = parts(command(RUNNER, urls, listed(urls, count, folder), results), folder)
    found[_WITHOUT_LOCK] = max(0.0, watched.cpu_s - sum(found.values()))
    for name, seconds in found.items():
        table.add(name, "µs", "", 1e6 * seconds / count)
    return table


_WITHOUT_LOCK = "without the lock: system calls, hashes (all CPU time less the above)"


def _start_up(words: list[str]) -> float:
    taken = []
    for _ in range(15):
        begun = time.monotonic()
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        taken.append(1000 * (time.monotonic() - begun))
    return median(taken)


def memory(folder: Path) -> Table:
    table = Table("memory", [RUNNER, PLAIN, POOL])
    large = ["--seconds", "0.2", "--result-bytes", "100000000"]
    found = [measure(peer, large, 4, 40, folder)[0] for peer in table.columns]
    table.add("peak, 40 results of 100 MB, 4 endpoints", "MB", "≤ 80 MB", *(one.peak_mb for one in found))
    table.add("speed", "MB/s", "", *(40 * 100 / one.seconds for one in found))
    small = ["--seconds", "0.5", "--jitter", "0.1", "--result-bytes", "20000"]
    more = []
    for peer in table.columns:
        few, many = (measure(peer, small, count, count * 10, folder)[0].peak_mb for count in (4, 104))
        more.append(many - few)
    table.add("more for 100 more endpoints", "MB", "≤ 150 MB", *more)
    return table


def million(folder: Path, count: int = 1_000_000) -> Table:
    table = Table("million", [RUNNER, POOL])
    first: list[float] = []
    peaks: list[float] = []
    for peer in table.columns:
        with servers(["--seconds", "0.5", "--result-bytes", "2000"], 4) as urls, results_in(folder) as results:
            prompts = listed(urls, count, folder)
            asked = threading.Event()
            watcher = threading.Thread(target=_tell_when_asked, args=[urls, asked])
            begun = time.monotonic()
            watcher.start()
            watched = run(command(peer, urls, prompts, results), until=asked)
            watcher.join()
            first.append(min(lane[0][0] for lane in times_of(urls) if lane) - begun)
            peaks.append(watched.peak_mb)
    table.add("first request after", "s", "≤ 5 s", *first)
    table.add("peak until then", "MB", "≤ 300 MB", *peaks)
    with servers(["--seconds", "0.5"], 4) as urls, results_in(folder) as results:
        prompts = listed(urls, count, folder)
        finish(prompts, results, urls)
        watched = run(command(RUNNER, urls, prompts, results))
        assert not any(times_of(urls)), "it was not finished"
    table.add("resume of a finished one", "s", "≤ 10 s", watched.seconds, None)
    table.add("peak", "MB", "≤ 300 MB", watched.peak_mb, None)
    return table


def _tell_when_asked(urls: list[str], asked: threading.Event) -> None:
    while not any(times_of(urls)):
        time.sleep(0.05)
    asked.set()


def steal(folder: Path) -> Table:
    table = Table("steal", ["assignment: steal", "modulo", PLAIN, POOL])
    simulated = ["--seconds", "0.2", "--slow", "3", "--result-bytes", "100000"]
    ideal_s = 100 * 0.2 / (3 + 1 / 3)
    runs = [(RUNNER, {"assignment": "steal"}), (RUNNER, {}), (PLAIN, {}), (POOL, {})]
    found = [span_s(measure(peer, simulated, 4, 100, folder, **options)[1]) / ideal_s for peer, options in runs]
    table.add("time ÷ ideal, one of four endpoints three times slower, 100 prompts", "", "≤ 1.08", *found)
    return table


def processes(folder: Path) -> Table:
    table = Table("processes", ["processes: 1", "processes: 2", "processes: 4", POOL])
    runs = [(RUNNER, {"processes": 1}), (RUNNER, {"processes": 2}), (RUNNER, {"processes": 4}), (POOL, {})]
    quick = ["--seconds", "0.1", "--jitter", "0.1", "--result-bytes", "2000"]
    found = [measure(peer, quick, 200, 6000, folder, **options)[0] for peer, options in runs]
    table.add(
        "200 endpoints of 0.1 s: prompts a second (ideal: 2,000)", "", "", *(6000 / one.seconds for one in found)
    )
    table.add("CPU a prompt", "ms", "", *(one.cpu_s / 6 for one in found))
    large = ["--seconds", "0.1", "--result-bytes", "100000000"]
    for endpoints, count in ((4, 40), (16, 48)):
        best = [0.0] * len(runs)
        for _ in range(2):
            for number, (peer, options) in enumerate(runs):
                watched, _ = measure(peer, large, endpoints, count, folder, **options)
                best[number] = max(best[number], count * 100 / watched.seconds)
        table.add(f"{endpoints} endpoints, results of 100 MB, better of two runs", "MB/s", "", *best)
    return table


def thousand(folder: Path) -> Table:
    table = Table("thousand", ["processes: 1", "processes: auto", POOL])
    runs = [(RUNNER, {}), (RUNNER, {"processes": "auto"}), (POOL, {})]
    rounds = 5
    simulated = ["--seconds", "4.5", "--jitter", "0.1", "--result-bytes", "20000"]
    found = [measure(peer, simulated, 1000, 1000 * rounds, folder, **options) for peer, options in runs]
    busy = [sum(end - begin for lane in times for begin, end in lane) for _, times in found]
    ready = [sum(lane[-1][1] - lane[0][0] for lane in times if lane) for _, times in found]
    spans = [span_s(times) for _, times in found]
    own = [100 * one / at_work for one, at_work in zip(busy, ready, strict=True)]
    table.add("share of its time in which an endpoint generates, from its first to its last", "%", "", *own)
    all_ = [100 * one / 1000 / span for one, span in zip(busy, spans, strict=True)]
    table.add("the same, from the first request of all to the last result of all", "%", "", *all_)
    table.add("mean pause", "ms", "", *(mean(pauses_ms(times)) for _, times in found))
    table.add("peak memory", "MB", "", *(one.peak_mb for one, _ in found))
    table.add("threads", "", "", *(float(one.threads) for one, _ in found))
    table.add("open files of one process", "", "", *(float(one.files_of_one) for one, _ in found))
    table.add("CPU", "s", "", *(one.cpu_s for one, _ in found))
    return table


CASES: dict[str, Callable[[Path], Table]] = {
    one.__name__: one for one in (pause, cpu, profile, memory, million, steal, processes, thousand)
}


def into_docs(tables: list[Table], text: str) -> str:
    """Return the page with new tables between its markers."""
    for table in tables:
        before, begin, rest = text.partition(f"<!-- bench: {table.case} -->\n")
        _, end, after = rest.partition(f"<!-- end: {table.case} -->")
        assert begin and end, f"docs/performance.md has no place for {table.case}"
        text = f"{before}{begin}\n{table.markdown()}\n{end}{after}"
    return text


def chart(tables: list[Table], path: Path) -> None:
    """Draw the figures that have both a runner and a peer beside it, as a share of the slowest of each row."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [
        (f"{what.replace('`', '')} [{unit}]", dict(zip(table.columns, values, strict=True)))
        for table in tables
        if table.case in ("pause", "cpu")
        for what, unit, _, values in table.rows
        if unit == "ms" and len([value for value in values if value is not None]) > 1
    ]
    colours = {RUNNER: "#1b7f4d", PLAIN: "#c9a227", POOL: "#7a6ea8"}
    figure, axes = pyplot.subplots(figsize=(9, 0.5 + 0.62 * len(rows)), layout="constrained")
    for number, (_, values) in enumerate(rows):
        for step, (peer, value) in enumerate(values.items()):
            place = number + 0.27 * (step - 1)
            axes.barh(place, value, 0.25, color=colours[peer], label=peer if number == 0 else None)
            axes.text(value * 1.06, place, shown(value, ""), va="center", fontsize=7, color="#444444")
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [what for what, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title(
        "Idle time between two generations, and CPU a prompt (ms, logarithmic; less is better)", fontsize=9
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/out/bench.json"), help="where the figures go")
    parser.add_argument("--docs", action="store_true", help="write the tables and the chart into docs/")
    options = parser.parse_args()
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    tables = []
    for name in options.cases or CASES:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            tables.append(CASES[name](Path(folder)))
        print(f"## {name} ({time.monotonic() - begun:.0f} s)\n\n{tables[-1].markdown()}", flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps([asdict(table) for table in tables], indent=2, ensure_ascii=False) + "\n")
    if options.docs:
        page = _DOCS / "performance.md"
        page.write_text(into_docs(tables, page.read_text()))
        if {"pause", "cpu"} <= {table.case for table in tables}:
            chart(tables, _DOCS / "performance.svg")


if __name__ == "__main__":
    main()
