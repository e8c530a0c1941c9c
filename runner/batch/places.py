"""What the files of a run's state are called, and what people call a folder."""

from __future__ import annotations

import os
from pathlib import Path

from runner.remote import is_remote

SUMMARY = "summary.json"

CONFIG = "config.yaml"

PROMPTS = "prompts.txt"

RICH_PROMPTS = "prompts.jsonl"

RUN_LOG = "run.log"


def near(path: Path | str) -> str:
    """Return ``path`` as a user in the current folder would type it; a URL as it is."""
    if is_remote(str(path)):
        return str(path)
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near
