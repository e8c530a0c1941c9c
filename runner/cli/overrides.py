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
        "output_folder": arguments.output_folder,
        "retry": {"attempts": arguments.attempts} if arguments.attempts is not None else None,
        "max_failures": arguments.max_failures,
        "max_runtime_s": arguments.max_runtime_s,
        "grace_s": arguments.grace_s,
    }
    chosen: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    for assignment in arguments.set:
        chosen = merged(chosen, assigned(assignment))
    return chosen
