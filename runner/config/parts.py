"""What ``runs`` of a config stand for: one document each, laid over the keys that they have in common."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import UsageError
from runner.yamlfile import merged

STEM = "{stem}"
"""Stands in ``output_folder`` and ``upload.to`` for the name of a prompts file, without what it ends in."""

COMMON = ("endpoints", "log", "metrics", "notify", "processes")
"""Keys that are the same for all runs of a config."""


@dataclass(frozen=True, slots=True)
class Part:
    """One run: its whole document, where it stands, and which entry that is."""

    values: dict[str, Any]
    place: str
    entry: int


def parts_of(document: Mapping[str, Any], overrides: Mapping[str, Any], base: Path) -> list[Part]:
    """Return the runs of a document, in their order; ``overrides`` win over all. Raises UsageError."""
    common = {name: value for name, value in document.items() if name != "runs"}
    entries = _entries(document["runs"])
    if not entries:
        raise UsageError("runs: expected at least one run, got an empty list")
    problems = [problem for number, entry in enumerate(entries) for problem in _problems(number, entry)]
    if problems:
        raise UsageError(*problems)
    parts: list[Part] = []
    for number, entry in enumerate(entries):
        whole = merged(merged(common, entry), overrides)
        if "-" in _listed(whole.get("prompts")):
            raise UsageError(f"runs[{number}].prompts: expected files, got -: there is one stdin, and several runs")
        place = f"runs[{number}]" if isinstance(document["runs"], list) else "runs"
        for values in _spread(whole, place, base):
            parts.append(Part(values, place, number))
    return parts


def _entries(given: Any) -> list[Any]:
    """Return the entries of ``runs``; a text alone is the glob of prompts files."""
    entries = given if isinstance(given, list) else [given]
    return [{"prompts": one} if isinstance(one, str) else one for one in entries]


def _problems(number: int, entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict):
        example = "{prompts: a.txt, output_folder: results/a}"
        yield f"runs[{number}]: expected a mapping such as {example}, got {json.dumps(entry, default=str)}"
        return
    for name in (*COMMON, "runs"):
        if name in entry:
            yield f"runs[{number}].{name}: this is the same for all runs; write it beside runs, not in them"


def _listed(sources: Any) -> list[Any]:
    return sources if isinstance(sources, list) else [sources]


def _spread(whole: dict[str, Any], place: str, base: Path) -> Iterator[dict[str, Any]]:
    """Yield the document itself; or with ``{stem}`` in its output folder one for each of its prompts files."""
    folder, sources = whole.get("output_folder"), whole.get("prompts")
    if not isinstance(folder, str) or STEM not in folder or not isinstance(sources, str | list):
        yield whole
        return
    for source in [sources] if isinstance(sources, str) else sources:
        for file in _files(str(source), place, base):
            stem = stem_of(file)
            own = {**whole, "prompts": [file], "output_folder": folder.replace(STEM, stem)}
            yield own | ({"upload": _named(whole["upload"], stem)} if "upload" in whole else {})


def _named(upload: Any, stem: str) -> Any:
    """Return a section ``upload`` with the name of a run in its URL."""
    if isinstance(upload, str):
        return upload.replace(STEM, stem)
    if isinstance(upload, Mapping) and isinstance(upload.get("to"), str):
        return {**upload, "to": upload["to"].replace(STEM, stem)}
    return upload


def _files(source: str, place: str, base: Path) -> list[str]:
    """Return the files that a glob stands for, in the order of their names. Raises UsageError if there are none."""
    path = os.path.join(base, os.path.expanduser(source))
    if os.path.lexists(path) or not glob.has_magic(source):
        return [source]
    found = sorted(one for one in glob.glob(path, recursive=True) if os.path.isfile(one))
    if not found:
        raise UsageError(f"{place}.prompts: {source} matches no file; with output_folder: …/{STEM} each is one run")
    return found


def stem_of(file: str) -> str:
    """Return the name of a prompts file without what it ends in, as the name of a folder.

    >>> stem_of("lists/red.chairs.csv.gz")
    'red.chairs'
    """
    name = os.path.basename(file).removesuffix(".gz")
    return os.path.splitext(name)[0].lstrip(".") or "prompts"
