"""What does one slow endpoint cost? A list by plain modulo, by ``assignment: steal``, and by a plain requests script.

    python benchmarks/steal.py [--prompts 100] [--seconds 0.3] [--slow 3] [--rounds 3] [--json FILE]

Four simulated endpoints, the last one ``--slow`` times slower. "ideal" is the time in which all four together could
make all generations without a pause. Each round runs every peer in turn on fresh servers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median

from simulated import servers

_HERE = Path(__file__).parent
_PEERS = ("steal", "modulo", "plain requests")


def seconds_of(peer: str, options: argparse.Namespace, folder: Path) -> float:
    """Return the time from the first generation's begin to the last one's end, as the servers see it."""
    simulated = ["--seconds", str(options.seconds), "--slow", str(options.slow), "--result-bytes", "100000"]
    with servers(simulated) as urls:
        listed = folder / "prompts.txt"
        listed.write_text("".join(f"{urls[i % len(urls)]}/image/p{i}.png\n" for i in range(options.prompts)))
        results = folder / f"{peer}-{time.monotonic_ns()}"
        if peer == "plain requests":
            command = [sys.executable, str(_HERE / "plain_requests.py"), str(listed), str(results), *urls]
        else:
            command = [sys.executable, "-m", "runner", "generate", "-q", "--prompts-file", str(listed)]
            command += ["--output-folder", str(results), "--set", f"assignment={peer}"]
            command += [word for url in urls for word in ("--endpoint", url)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        assert len(list(results.glob("*.ply"))) == options.prompts
        return span_s(urls)


def span_s(urls: list[str]) -> float:
    """Return how long the servers were at work together."""
    with urllib.request.urlopen(f"{urls[0]}/times") as answer:
        times = [one for lane in json.load(answer) for one in lane]
    return max(end for _, end in times) - min(begin for begin, _ in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.3, help="one generation")
    parser.add_argument("--slow", type=float, default=3, help="the last endpoint is so many times slower")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    ideal_s = options.prompts * options.seconds / (3 + 1 / options.slow)
    found: dict[str, list[float]] = {peer: [] for peer in _PEERS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for peer in _PEERS:
                found[peer].append(seconds_of(peer, options, Path(folder)) / ideal_s)
    print(f"{'peer':16}{'time ÷ ideal':>14}{'lowest':>9}{'highest':>9}   (ideal {ideal_s:.2f} s)")
    for peer, ratios in found.items():
        print(f"{peer:16}{median(ratios):14.3f}{min(ratios):9.3f}{max(ratios):9.3f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"ideal_s": ideal_s, "ratios": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
