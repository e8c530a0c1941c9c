"""``init`` and ``schema``: what a config is begun with."""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib import resources

from runner import config
from runner.errors import UsageError


def init(arguments: Namespace) -> int:
    """Write the starter config; never over an existing file."""
    text = resources.files("runner.cli").joinpath("starter.yaml").read_text(encoding="utf-8")
    if arguments.file == "-":
        sys.stdout.write(text)
        return 0
    try:
        with open(arguments.file, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(f"{arguments.file} exists already; name another file, or - to print it") from error
    except OSError as error:
        raise UsageError(f"{arguments.file} can't be written: {error.strerror}") from error
    print(f"Wrote {arguments.file}. Edit its endpoints and prompts, then: runner run {arguments.file} --dry-run")
    return 0


def schema(arguments: Namespace) -> int:
    """Print the JSON schema of the config."""
    sys.stdout.write(config.json_schema())
    return 0
