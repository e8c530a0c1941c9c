"""How much memory does a run with large results need? Peak resident size of the runner (VmHWM, Linux).

    python benchmarks/memory.py [--prompts 40] [--megabytes 100]

Four simulated servers answer 0.2 s after the request; every result is received, hashed, verified and saved.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from simulated import servers


def peak_mb(process: subprocess.Popen[bytes]) -> float:
    """Watch a process until it ends; return the highest resident size it reported, in MB."""
    peak = 0
    while process.poll() is None:
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        except (FileNotFoundError, ProcessLookupError):
            break
        peak = max(peak, int(found.group(1)) if found else 0)
        time.sleep(0.02)
    process.wait()
    return peak * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--megabytes", type=int, default=100)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(["--seconds", "0.2", "--result-bytes", str(options.megabytes * 10**6)]) as urls,
    ):
        listed = Path(folder) / "prompts.txt"
        listed.write_text("".join(f"{urls[0]}/image/p{i}.png\n" for i in range(options.prompts)))
        command = [sys.executable, "-m", "runner", "generate", "-q", "--prompts-file", str(listed)]
        command += ["--output-folder", f"{folder}/results"]
        for url in urls:
            command += ["--endpoint", url]
        begun = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            peak = peak_mb(process)
        seconds = time.monotonic() - begun
        saved = len(list(Path(folder, "results").glob("*.ply")))
    rate = saved * options.megabytes / seconds
    print(
        f"{saved} of {options.prompts} results of {options.megabytes} MB: peak {peak:.0f} MB, "
        f"{seconds:.1f} s, {rate:.0f} MB/s"
    )


if __name__ == "__main__":
    main()
