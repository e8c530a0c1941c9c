"""``init``, ``schema`` and ``completion``: what one needs once, before the first run."""

from __future__ import annotations

import sys
from argparse import Namespace
from importlib import resources

from runner import config
from runner.cli.parser import abouts, arguments_of, build_parser, commands_of
from runner.errors import UsageError
from runner.protocols import presets


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


def completion(arguments: Namespace) -> int:
    """Print the script that completes commands, flags, files and presets in a shell."""
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise UsageError(
            f"runner completion needs {error.name}: install the extra with pip install 'multiport-runner[completion]'"
        ) from error
    parser = build_parser()
    for name, command in commands_of(parser).items():
        command.description = abouts()[name]  # what fish shows beside it, in one line
    for argument in arguments_of(commands_of(parser)["protocols"]):
        if argument.dest == "name":
            argument.choices = presets.names()  # only here: argparse would say less of a wrong one than we do
    script = shtab.complete(parser, shell=arguments.shell)
    sys.stdout.write(script.rstrip() + "\n")
    return 0
