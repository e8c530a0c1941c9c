#!/usr/bin/env python3
"""Images over several servers, from Python: an example to copy.

    make start-servers                     four reference servers on ports 10006 to 10009
    .venv/bin/python scripts/example_multi_port.py
    make stop-servers

Run it again, and what is saved is skipped. With arguments: other servers (--endpoint URL, repeatable), other images
(--images FOLDER), another folder for the results (--output-folder DIR).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from runner import Generator, RunnerError

REPOSITORY = Path(__file__).resolve().parents[1]
FOUR = [f"http://127.0.0.1:{port}" for port in range(10006, 10010)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint", action="append", help="default: ports 10006 to 10009 of this machine")
    parser.add_argument("--images", type=Path, default=REPOSITORY / "configs/images")
    parser.add_argument("--output-folder", type=Path, default=Path("results/example"))
    options = parser.parse_args()

    images = sorted(map(str, options.images.glob("*.png")))  # paths or URLs
    try:
        generator = Generator(
            endpoint=options.endpoint or FOUR,
            seed=42,
            output_folder=options.output_folder,
            echo=print,  # every line of the log; without it nothing is printed
            retry={"attempts": 3},  # any option of the YAML
        )
        summary = generator.run(images)  # in a coroutine: await generator.generate_all(images)
    except RunnerError as error:  # a wrong option, a folder that another run holds, a full disk
        print(error, file=sys.stderr)
        return error.exit_code

    print()
    for endpoint in summary.endpoints:
        print(f"{endpoint.name}: {endpoint.saved} saved, {endpoint.failed} failed, {endpoint.busy_s:.1f} s at work")
    for failure in summary.failures:
        print(f"failed: {failure.key}: {failure.error}")
    print(f"{summary.saved} saved and {summary.skipped} skipped of {summary.total} in {summary.seconds:.1f} s")
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main())
