"""What the flags say, as the YAML would."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from runner.yamlfile import assigned, merged


def overrides(arguments: Namespace) -> dict[str, Any]:
    """Return what the flags say, nested like the YAML."""
    flags = {
        "prompts": arguments.prompts_file,
        "endpoints": arguments.endpoint,
        "seed": arguments.seed,
        "shard": arguments.shard,
        "output_folder": arguments.output_folder,
        "retry": {"attempts": arguments.attempts} if arguments.attempts is not None else None,
        "max_failures": arguments.max_failures,
        "max_runtime_s": arguments.max_runtime_s,
        "until": arguments.until,
        "grace_s": arguments.grace_s,
        "report": getattr(arguments, "report", None),
        "log": _log(arguments),
    }
    chosen: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    for assignment in arguments.set:
        chosen = merged(chosen, assigned(assignment))
    return chosen


def _log(arguments: Namespace) -> dict[str, Any] | None:
    """Return what the flags say of the log; commands that have no log have no such flags."""
    level = getattr(arguments, "log_level", None)
    if level is None and getattr(arguments, "verbose", False):
        level = "debug"
    if level is None and getattr(arguments, "quiet", False):
        level = "warning"
    flags = {"level": level}
    flags |= {name: getattr(arguments, f"log_{name}", None) for name in ("format", "file")}
    return {name: value for name, value in flags.items() if value is not None} or None
