"""How long does an endpoint stand idle between two generations? The runner beside a plain requests script.

    python benchmarks/pause.py [--prompts 100] [--json FILE]

Both peers do the same list against the same kind of simulated servers, in turn, in one run. "pause" is the mean
time from the end of one generation to the beginning of the next on the same endpoint, as the servers see it. Two
cases: local (0.2 s a generation, 1 MiB results) and remote (0.3 s, 4 MB results at 40 MB/s a stream, images 50 ms
away).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from simulated import servers

_HERE = Path(__file__).parent
_CASES = {
    "local": ["--seconds", "0.2", "--result-bytes", "1048576"],
    "remote": ["--seconds", "0.3", "--result-bytes", "4000000", "--rate", "40e6", "--image-delay", "0.05"],
}


@dataclass(frozen=True)
class Figures:
    """What one peer did in one case; times in milliseconds."""

    case: str
    peer: str
    mean_pause_ms: float
    worst_pause_ms: float
    seconds: float
    saved: int


def pauses_ms(urls: list[str]) -> list[float]:
    """Return every pause between two generations of one endpoint."""
    with urllib.request.urlopen(f"{urls[0]}/times") as answer:
        times = json.load(answer)
    return [1000 * (begin - end) for lane in times for (_, end), (begin, _) in pairwise(lane)]


def measure(case: str, peer: str, prompts: int, folder: Path) -> Figures:
    """Run one peer through one case, on fresh servers."""
    with servers(_CASES[case]) as urls:
        listed = folder / "prompts.txt"
        listed.write_text("".join(f"{urls[i % len(urls)]}/image/p{i}.png\n" for i in range(prompts)))
        results = folder / f"{case}-{peer.replace(' ', '-')}"
        if peer == "runner":
            command = [sys.executable, "-m", "runner", "generate", "-q", "--prompts-file", str(listed)]
            command += ["--output-folder", str(results)]
            for url in urls:
                command += ["--endpoint", url]
        else:
            command = [sys.executable, str(_HERE / "plain_requests.py"), str(listed), str(results), *urls]
        begun = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - begun
        pauses = pauses_ms(urls)
        saved = len(list(results.glob("*.ply")))
    return Figures(case, peer, sum(pauses) / len(pauses), max(pauses), seconds, saved)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    figures = []
    print(f"{'case':8}{'peer':16}{'pause ms':>10}{'worst ms':>10}{'seconds':>10}{'saved':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for case in _CASES:
            for peer in ("runner", "plain requests"):
                one = measure(case, peer, options.prompts, Path(folder))
                figures.append(asdict(one))
                print(
                    f"{one.case:8}{one.peer:16}{one.mean_pause_ms:10.1f}{one.worst_pause_ms:10.1f}"
                    f"{one.seconds:10.1f}{one.saved:7}",
                    flush=True,
                )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
