#!/usr/bin/env python3
"""Test the runner against real server packages, each in a virtual environment of its own under ``.servers/``.

    scripts/test_servers.py [NAME ...]        # bentoml cog gradio litserve mlserver runpod; all by default

An environment is made when it is missing or its pins (``tests/servers/requirements-NAME.txt``) have changed; all six
are some 1.2 GB. Exit code: that of pytest.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TESTS = REPOSITORY / "tests" / "servers"
ENVIRONMENTS = REPOSITORY / ".servers"


def main() -> int:
    names = sorted(file.stem.removeprefix("requirements-") for file in TESTS.glob("requirements-*.txt"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=" ".join(names))
    chosen = parser.parse_args().names or names
    if unknown := set(chosen) - set(names):
        parser.error(f"{' '.join(sorted(unknown))}: not one of {' '.join(names)}")
    for name in chosen:
        install(name)
    tests = [str(TESTS / f"test_{name}.py") for name in chosen]
    return subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], cwd=REPOSITORY).returncode


def install(name: str) -> None:
    """Make the environment of this server, unless it is there with these pins."""
    pins = TESTS / f"requirements-{name}.txt"
    folder = ENVIRONMENTS / name
    installed = folder / "installed.txt"
    if installed.exists() and installed.read_text() == pins.read_text():
        return
    print(f"Installing {name} into {folder.relative_to(REPOSITORY)} …", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(pins)], check=True)
    shutil.copyfile(pins, installed)


if __name__ == "__main__":
    sys.exit(main())
