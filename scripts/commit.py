#!/usr/bin/env python3
"""The ancestor's command line: its ``generate`` goes on working, by the runner.

    python commit.py [-v] generate --prompts-file F --endpoint URL [--endpoint URL …] --seed 42 [--output-folder DIR]
    python commit.py [-v] generate --prompts-json F --endpoint URL [--seed 42] [--output-folder DIR]

The first form is for servers that take an image each (404-splat), the second for pods that take batches (404-batch).
Every flag of `runner generate` may be added; see `python commit.py generate --help`. -v logs more, with times.
It works in this repository, and copied to anywhere for a Python that the runner is installed in.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import NoReturn

NOT_HERE = (
    ("commit-hash", "commit-repo-cdn", "list-all", "stop-pods")
    + ("start-generator", "start-renderer", "render", "start-judge", "judge")
)  # fmt: skip


def translated(words: list[str]) -> list[str]:
    """Return the runner's command line for the ancestor's. Raises SystemExit if there is none."""
    words = list(words)
    verbose = []
    while words and re.fullmatch(r"-v+|--verbose", words[0]):
        verbose = ["--verbose"]
        del words[0]
    if words[:1] in (["--help"], ["-h"], []):
        print((__doc__ or "").strip(), file=sys.stdout if words else sys.stderr)
        raise SystemExit(0 if words else 2)
    if words[0] != "generate":
        is_known = words[0] in NOT_HERE
        why = "generates nothing, so use the ancestor's own commit.py for it" if is_known else "is no command"
        _refuse(f"{words[0]} {why}; here is only: generate")
    return ["generate", *verbose, *_flags(words[1:])]


def _flags(words: list[str]) -> list[str]:
    """Put ``--prompts-file`` and the protocol of the pods in the place of ``--prompts-json``."""
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--prompts-json")
    before.add_argument("--seed")
    known, _ = before.parse_known_args(words)
    if known.prompts_json is None:
        return words
    _check_seed(known.prompts_json, known.seed)
    flags = [re.sub(r"^--prompts-json(?==|$)", "--prompts-file", word) for word in words]
    return [*flags, "--set", "protocol=404-batch"]


def _check_seed(file: str, seed: str | None) -> None:
    """Refuse a seed that the file contradicts: for the runner the file's wins, for the ancestor the flag did."""
    try:
        own = json.loads(Path(file).read_text(encoding="utf-8-sig")).get("seed")
    except (OSError, ValueError, AttributeError):
        return  # the runner says what is wrong with the file
    if seed is not None and own is not None and str(own) != seed:
        _refuse(f'{file} has "seed": {own}, and --seed is {seed}; take the one out of the file, or leave --seed away')


def _refuse(why: str) -> NoReturn:
    print(f"commit.py: {why}", file=sys.stderr)
    raise SystemExit(2)


def main() -> None:
    sys.argv = ["runner", *translated(sys.argv[1:])]
    if importlib.util.find_spec("runner") is None:
        sys.path.append(str(Path(__file__).resolve().parents[1]))  # this repository, if it was not copied
    try:
        from runner.cli import entry
    except ImportError as error:
        _refuse(f"{error}; install the runner for {sys.executable}: pip install FOLDER")
    entry()


if __name__ == "__main__":
    main()
