"""``status``: what is in an output folder."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from pathlib import Path

from runner import config
from runner.errors import UsageError

_SHOWN = 20


def status(arguments: Namespace) -> int:
    """Print how an output folder stands; 0 only if every prompt has its result."""
    from runner.status import status_of

    found = status_of(Path(arguments.folder))
    if arguments.missing_file == "-":
        sys.stdout.write(found.to_do())
        return 0 if not found.failed and not found.missing else 1
    if arguments.missing_file:
        _write_missing(arguments.missing_file, found.to_do(arguments.missing_file), found.config)
    counts = {
        "total": found.total,
        "saved": found.saved,
        "failed": len(found.failed),
        "missing": len(found.missing),
        "earlier": len(found.earlier),
        "unknown": len(found.unknown),
    }
    if arguments.json:
        failures = [{"key": prompt.key, "prompt": said.prompt, "error": said.error} for prompt, said in found.failed]
        print(json.dumps(counts | {"failures": failures, "unknown_files": found.unknown}, ensure_ascii=False))
    else:
        print(f"{arguments.folder}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
        _print_some("failed", [f"{prompt.key}: {said.error}" for prompt, said in found.failed])
        _print_some("missing", [prompt.key for prompt in found.missing])
        _print_some("unknown", found.unknown)
    return 0 if not found.failed and not found.missing else 1


def _print_some(title: str, lines: list[str]) -> None:
    if lines:
        print(f"{title}:")
        for line in lines[:_SHOWN]:
            print(f"  {line}")
        if len(lines) > _SHOWN:
            print(f"  … and {len(lines) - _SHOWN} more (--json lists all)")


def _write_missing(path: str, text: str, chosen: config.Config) -> None:
    """Write the list whole or not at all, and never over one of the run's own inputs."""
    for source in chosen.prompts:
        source = os.path.join(chosen.base, source)
        if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
            raise UsageError(f"--missing-file {path}: this is the run's own prompts file; choose another name")
    path = os.path.realpath(path)
    special = os.path.exists(path) and not os.path.isfile(path)  # a device or a pipe is written to, not replaced
    part = path if special else f"{path}.part"
    try:
        with open(part, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        if not special:
            os.replace(part, path)
    except OSError as error:
        raise UsageError(f"--missing-file {path}: can't be written: {error.strerror}") from error
