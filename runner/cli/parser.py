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
        usage="runner COMMAND ...",
        description=texts.ABOUT,
        epilog=texts.MAIN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-V", "--version", action="version", version=f"runner {__version__}", help="print the version"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name, room, about, add_flags, page in _COMMANDS:
        one = commands.add_parser(
            name,
            help=about,
            usage=f"runner {name} {page.synopsis}".rstrip(),
            description=page.about,
            epilog=page.closing(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.set_defaults(room=room)
        add_flags(one)
    return parser


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of every command by its name, in the order of ``--help``."""
    (commands,) = (action for action in arguments_of(parser) if isinstance(action.choices, dict))
    return dict(commands.choices or {})


def abouts() -> dict[str, str]:
    """Return the line that says what a command does, by its name."""
    return {name: about for name, _, about, *_ in _COMMANDS}


def arguments_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return what a parser takes, ``-h`` included."""
    return list(parser._actions)


def _completes(action: argparse.Action, kind: str) -> None:
    """Let ``runner completion`` know that an argument is a ``file`` or a ``directory``."""
    vars(action)["complete"] = kind


def _add_config(parser: argparse.ArgumentParser) -> None:
    _completes(parser.add_argument("config", metavar="CONFIG", help="the YAML file"), "file")


def _add_folder(parser: argparse.ArgumentParser, *, what: str = "the output folder of a run, or its URL") -> None:
    _completes(parser.add_argument("folder", metavar="FOLDER", help=what), "directory")


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    _add_overrides(parser)
    _add_running(parser)


def _add_generate(parser: argparse.ArgumentParser) -> None:
    _add_overrides(parser, required=True)
    _add_running(parser)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    _add_overrides(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    _add_overrides(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")


def _add_protocols(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this preset (default: list all)")


def _add_status(parser: argparse.ArgumentParser) -> None:
    _add_folder(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    missing_file = parser.add_argument(
        "--missing-file",
        metavar="F",
        help="write the prompts without a result to F, one a line; to F.jsonl if they are more than images; "
        "- is stdout (default: not written)",
    )
    _completes(missing_file, "file")


def _add_monitor(parser: argparse.ArgumentParser) -> None:
    config = parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="the YAML file; its prompts need not be there (default: none)"
    )
    _completes(config, "file")
    parser.add_argument(
        "--endpoint",
        action="append",
        metavar="URL",
        help="look at this one, not at CONFIG's; repeatable (default: CONFIG's)",
    )
    folder = parser.add_argument(
        "--folder", metavar="DIR", help="the output folder whose run is shown (default: CONFIG's, or results)"
    )
    _completes(folder, "directory")
    parser.add_argument("--once", action="store_true", help="look once: 1 if an endpoint is down, else 0")
    parser.add_argument("--json", action="store_true", help="one JSON object a look, on one line, instead of a table")
    parser.add_argument("--every", type=float, default=2.0, metavar="S", help="look every S seconds (default: 2)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other option of the YAML, such as protocol=404-mesh; repeatable (default: what the YAML says)",
    )


def _add_report(parser: argparse.ArgumentParser) -> None:
    _add_folder(parser)
    parser.add_argument(
        "--format",
        choices=("html", "text", "json", "md"),
        default="html",
        help="html: a page to look at, in FOLDER; the others go to stdout; json: one object (default: html)",
    )
    output = parser.add_argument(
        "--output",
        metavar="F",
        help="write to F instead; - is stdout, for all but html (default: FOLDER/report.html)",
    )
    _completes(output, "file")
    parser.add_argument(
        "--thumbnails",
        type=int,
        metavar="N",
        help="draw N results anew at the most; what was drawn is kept (default: 2500)",
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help="don't fetch prompts' images again from their URLs (default: those of what is drawn, for the page)",
    )


def _add_verify(parser: argparse.ArgumentParser) -> None:
    _add_folder(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument(
        "--discard", action="store_true", help="remove damaged files, so that the next run makes them again"
    )


def _add_prune(parser: argparse.ArgumentParser) -> None:
    _add_folder(parser)
    parser.add_argument("--yes", action="store_true", help="remove them; without it they are only listed")
    parser.add_argument(
        "--only",
        action="append",
        choices=("earlier", "unknown", "temp"),
        help="only results of earlier prompts, files that the ledger does not know, or temp files; repeatable "
        "(default: all three)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def _add_upload(parser: argparse.ArgumentParser) -> None:
    _add_folder(parser, what="the output folder of a run, on this machine")
    parser.add_argument(
        "url", nargs="?", metavar="URL", help="where to, such as s3://bucket/night (default: upload.to of its config)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port", type=int, default=10006, metavar="N", help="the port to listen on; 0: any free one (default: 10006)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="HOST",
        help="the address to listen on (default: 127.0.0.1, this machine only)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.0,
        metavar="S",
        help="let each generation take at least S seconds, as a GPU would (default: 0)",
    )


def _add_init(parser: argparse.ArgumentParser) -> None:
    file = parser.add_argument(
        "file",
        nargs="?",
        default="runner.yaml",
        metavar="FILE",
        help="what to write; - is stdout (default: runner.yaml)",
    )
    _completes(file, "file")


def _add_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell that reads it")


def _add_overrides(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    group = parser.add_argument_group("what to run" if required else "instead of what the config says")
    told = "required" if required else "default: the config's"
    prompts_file = group.add_argument(
        "--prompts-file",
        action="append",
        required=required,
        metavar="F",
        help="a list (.txt, one image URL or path a line; .csv, .tsv, .jsonl, .json; .gz), the URL of one, an image, "
        f"a folder, a glob, or - for stdin; repeatable ({told})",
    )
    _completes(prompts_file, "file")
    group.add_argument(
        "--endpoint",
        action="append",
        required=required,
        metavar="URL",
        help=f"a generation server, such as http://127.0.0.1:10006; repeatable ({told})",
    )
    group.add_argument("--seed", type=int, metavar="N", help="sent with every request (default: 42)")
    output_folder = group.add_argument(
        "--output-folder", metavar="DIR", help="where the results go (default: results)"
    )
    _completes(output_folder, "directory")
    group.add_argument(
        "--shard",
        metavar="N/M",
        help="do a share of the list only, by its keys, such as 3/8; auto/8, or auto, in an array of jobs of Slurm, "
        "Kubernetes or AWS Batch (default: all of it)",
    )
    group.add_argument("--attempts", type=int, metavar="N", help="requests per prompt at the most (default: 3)")
    group.add_argument(
        "--max-failures", type=int, metavar="N", help="stop early after N failed prompts (default: never)"
    )
    group.add_argument(
        "--max-runtime-s",
        type=float,
        metavar="S",
        help="begin nothing that can't end within S seconds; exit 75 if work is left (default: no limit)",
    )
    group.add_argument(
        "--until",
        metavar="HH:MM",
        help="the same by the local time of day, when it is that next, such as 06:30 (default: no limit)",
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
        help="any other option of the YAML, such as retry.backoff_s=2; repeatable (default: what the YAML says)",
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to run")
    group.add_argument("--dry-run", action="store_true", help="print the plan and send nothing")
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="make results again that were made with other parameters, such as another seed",
    )
    group.add_argument(
        "--report",
        action="store_true",
        default=None,
        help="write report.html into the output folder at the end (default: the config's; false)",
    )
    group = parser.add_argument_group("what is said")
    group.add_argument("-v", "--verbose", action="store_true", help="log more, with times")
    group.add_argument("-q", "--quiet", action="store_true", help="log only warnings and errors, no progress")
    group.add_argument(
        "--log-level",
        choices=["auto", "debug", "info", "warning", "error"],
        help="what to log on stderr; auto: info on a terminal; elsewhere `run` says one line, if anything is wrong "
        "(default: auto)",
    )
    group.add_argument("--log-format", choices=["text", "json"], help="json: one object a line (default: text)")
    log_file = group.add_argument(
        "--log-file", metavar="F", help="append the log to F too, with times (default: none)"
    )
    _completes(log_file, "file")


def _add_nothing(parser: argparse.ArgumentParser) -> None:
    pass


_COMMANDS: tuple[tuple[str, str, str, Callable[[argparse.ArgumentParser], None], texts.Page], ...] = (
    ("run", "running", "run the prompts of a config (the main job)", _add_run, texts.RUN),
    ("generate", "running", "the same job from flags alone", _add_generate, texts.GENERATE),
    ("plan", "running", "show which prompt goes to which endpoint", _add_plan, texts.PLAN),
    ("check", "servers", "check a config, every endpoint's health and its protocol", _add_check, texts.CHECK),
    ("protocols", "servers", "list the kinds of servers known by name", _add_protocols, texts.PROTOCOLS),
    ("status", "folders", "say how an output folder stands, by whom, and why", _add_status, texts.STATUS),
    ("report", "folders", "make a page to look at of what happened, or say it", _add_report, texts.REPORT),
    ("verify", "folders", "read every result again: size, SHA-256, structure", _add_verify, texts.VERIFY),
    ("prune", "folders", "list or remove files that belong to no prompt", _add_prune, texts.PRUNE),
    ("upload", "uploading", "bring an output folder's results into a bucket", _add_upload, texts.UPLOAD),
    ("monitor", "monitoring", "watch the endpoints, and the run that goes on with them", _add_monitor, texts.MONITOR),
    ("serve", "servers", "run the reference generation server", _add_serve, texts.SERVE),
    ("init", "beginning", "write a commented config to start from", _add_init, texts.INIT),
    ("schema", "beginning", "print the config's JSON schema, for editors", _add_nothing, texts.SCHEMA),
    ("completion", "beginning", "print a completion script for a shell", _add_completion, texts.COMPLETION),
)
"""Every command: its name, the room here with a function of that name, a line for the list, its flags, its page."""
