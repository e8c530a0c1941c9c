"""What tells the working folder of a URL from an output folder of this machine: a file with that URL."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from runner.storage import refusals, write_whole

MARK = ".bucket"
"""The file of a working folder that holds the URL it is worked on for."""


def mark(path: Path, url: str) -> None:
    """Let a folder be the working folder of a URL. Raises StorageError."""
    with refusals(f"{path} can't be written"):
        write_whole(path / MARK, [f"{url}\n"])


def url_at(path: Path) -> str | None:
    """Return the URL of the folder that a path is the working folder of; None if it is none."""
    with suppress(OSError, ValueError):
        return (path / MARK).read_text(encoding="utf-8").strip() or None
    return None
