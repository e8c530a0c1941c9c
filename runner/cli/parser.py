"""Every command and flag, with the help a user reads."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from runner.cli import texts
from runner.version import __version__


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; the chosen command's name is in ``command``, its room in ``room``."""
    parser = argparse.ArgumentParser(
        prog="runner",
        description=texts.ABOUT,
        epilog=texts.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"runner {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name, room, about, add_flags, examples in _COMMANDS:
        one = commands.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.set_defaults(room=room)
        add_flags(one)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="the YAML file")
    _add_overrides(parser)
    _add_running(parser)


def _add_generate(parser: argparse.ArgumentParser) -> None:
    _add_overrides(parser, required=True)
    _add_running(parser)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="the YAML file")
    _add_overrides(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="the YAML file")
    _add_overrides(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")


def _add_protocols(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this preset, to copy and change")


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the output folder of a run")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument(
        "--missing-file",
        metavar="F",
        help="write the prompts without a result to F, one a line; to F.jsonl if they are more than images "
        "(- for stdout)",
    )


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the output folder of a run")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument(
        "--discard", action="store_true", help="remove damaged files, so that the next run makes them again"
    )


def _add_prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the output folder of a run")
    parser.add_argument("--yes", action="store_true", help="remove them; without it they are only listed")
    parser.add_argument(
        "--only",
        action="append",
        choices=("earlier", "unknown", "temp"),
        help="only results of earlier prompts, files that the ledger does not know, or temp files; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=10006, metavar="N", help="default: 10006")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.0,
        metavar="S",
        help="let each generation take at least S s, as a GPU would",
    )


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", default="runner.yaml", metavar="FILE", help="default: runner.yaml; - prints it"
    )


def _add_overrides(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    group = parser.add_argument_group("what to run" if required else "instead of what the config says")
    group.add_argument(
        "--prompts-file",
        action="append",
        required=required,
        metavar="F",
        help="a list (.txt, one image URL or path a line; .csv, .tsv, .jsonl, .json; .gz), the URL of one, an image, "
        "a folder, a glob, or - for stdin; repeatable",
    )
    group.add_argument(
        "--endpoint", action="append", required=required, metavar="URL", help="a generation server; repeatable"
    )
    group.add_argument("--seed", type=int, metavar="N", help="sent with every request (default: 42)")
    group.add_argument("--output-folder", metavar="DIR", help="where the results go (default: results)")
    group.add_argument("--attempts", type=int, metavar="N", help="requests per prompt at the most (default: 3)")
    group.add_argument("--max-failures", type=int, metavar="N", help="stop early after N failed prompts")
    group.add_argument(
        "--max-runtime-s", type=float, metavar="S", help="start nothing new after S seconds; exit 75 if work is left"
    )
    group.add_argument(
        "--grace-s",
        type=float,
        metavar="S",
        help="after Ctrl-C or SIGTERM wait at most S seconds for what is in flight (default: timeouts.first_byte_s)",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other option of the YAML, for example retry.backoff_s=2; repeatable",
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print the plan and send nothing")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="make results again that were made with other parameters, such as another seed",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, with times")
    parser.add_argument("-q", "--quiet", action="store_true", help="log only warnings and errors, no progress")
    parser.add_argument("--log-file", metavar="F", help="append the log to F too, with times")


def _add_nothing(parser: argparse.ArgumentParser) -> None:
    pass


_COMMANDS: tuple[tuple[str, str, str, Callable[[argparse.ArgumentParser], None], str], ...] = (
    ("run", "running", "run the prompts of a config (the main job)", _add_run, texts.RUN_EXAMPLES),
    ("generate", "running", "the same job from flags alone", _add_generate, texts.GENERATE_EXAMPLES),
    ("plan", "running", "show which prompt goes to which endpoint", _add_plan, ""),
    (
        "check",
        "servers",
        "check a config, every endpoint's health, and whether it speaks the protocol",
        _add_check,
        "",
    ),
    ("protocols", "servers", "list the kinds of servers known by name, or print one as YAML", _add_protocols, ""),
    ("status", "folders", "say how an output folder stands, by whom, and why", _add_status, texts.STATUS_EXAMPLES),
    ("verify", "folders", "read every result again: size, SHA-256, structure", _add_verify, texts.VERIFY_EXAMPLES),
    ("prune", "folders", "list or remove files that belong to no prompt", _add_prune, texts.PRUNE_EXAMPLES),
    ("serve", "servers", "run the reference generation server (image to 3D splat, on the CPU)", _add_serve, ""),
    ("init", "beginning", "write a commented config to start from", _add_init, ""),
    ("schema", "beginning", "print the config's JSON schema, for editors", _add_nothing, ""),
)
"""Every command: its name, the room here with a function of that name, what it does, its flags, its closing text."""
