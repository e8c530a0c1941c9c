"""Every command and flag, with the help a user reads."""

from __future__ import annotations

import argparse

from runner.version import __version__

_ABOUT = """\
Drive many generation endpoints from one YAML file, keep every one of them busy, and end with a verified result for
every prompt. Run the same command again and it does only what is not saved yet.
"""

_EXAMPLES = """\
examples:
  runner init                                   write a commented runner.yaml to start from
  runner run runner.yaml                        do it; again: only what is missing
  runner run runner.yaml --dry-run              show what would be sent where
  runner generate --prompts-file prompts.txt --endpoint http://127.0.0.1:10006 \\
                  --endpoint http://127.0.0.1:10007 --seed 42
  runner status results --missing-file todo.txt

exit codes:
  0 every prompt has a verified result     1 some failed             2 wrong usage or config, nothing was sent
  3 a bug in runner     75 try again later     129 SIGHUP     130 SIGINT     143 SIGTERM
"""

_RUN_EXAMPLES = """\
examples:
  runner run runner.yaml
  runner run runner.yaml --seed 7 --output-folder results-7
  runner run runner.yaml --endpoint http://gpu-box:10006 --set retry.attempts=5
  cat todo.txt | runner run runner.yaml --prompts-file -

stdout gets one line of JSON, stderr progress and log. Every flag wins over the YAML.
"""

_GENERATE_EXAMPLES = """\
example:
  runner generate --prompts-file prompts.txt --endpoint http://127.0.0.1:10006 \\
                  --endpoint http://127.0.0.1:10007 --seed 42 --output-folder results
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; the chosen command's name is in ``command``."""
    parser = argparse.ArgumentParser(
        prog="runner", description=_ABOUT, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"runner {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    _add_run(_add(commands, "run", "run the prompts of a config (the main job)", _RUN_EXAMPLES))
    _add_generate(_add(commands, "generate", "the same job from flags alone", _GENERATE_EXAMPLES))
    _add_plan(_add(commands, "plan", "show which prompt goes to which endpoint"))
    _add_check(_add(commands, "check", "check a config, every endpoint's health, and whether it speaks the protocol"))
    _add_protocols(_add(commands, "protocols", "list the kinds of servers known by name, or print one as YAML"))
    _add_status(_add(commands, "status", "count what is saved, failed, missing and unknown in an output folder"))
    _add_serve(_add(commands, "serve", "run the reference generation server (image to 3D splat, on the CPU)"))
    _add_init(_add(commands, "init", "write a commented config to start from"))
    _add(commands, "schema", "print the config's JSON schema, for editors")
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, about: str, examples: str = ""
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


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
