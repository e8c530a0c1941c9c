"""The file that node_exporter reads: written whole or not at all, and asked how batches ended last."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from math import isfinite
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from runner.metrics.counts import Counts, Last
from runner.metrics.families import ENDED_AT, EXIT_CODE, SUCCEEDED_AT, Families

_MODE = 0o644
"""Whatever the umask: node_exporter is another user, and there is nothing secret in it."""

_ASKED = tuple(f"{name}{{".encode() for name in (ENDED_AT, EXIT_CODE, SUCCEEDED_AT))
_LINE_MAX_BYTES = 64 * 1024


def write(path: Path, batches: Mapping[str, Counts], last: Mapping[str, Last]) -> None:
    """Replace the file. Raises OSError, and then the old one is still there.

    What a run that dies in the midst of it leaves is a file of another suffix, which no exporter reads. (The
    library's own ``write_to_textfile`` follows the umask; under 077 nobody else could read it.)
    """
    registry = CollectorRegistry()
    registry.register(Families(batches, last))
    content = generate_latest(registry)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), _MODE)
            file.write(content)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def last_ends(path: Path) -> dict[str, Last]:
    """Return how each batch ended last, as far as the file says; what is no metric of ours is passed over."""
    found: dict[str, Last] = {}
    for name, batch, value in _said(path):
        last = found.get(batch, Last())
        if name == ENDED_AT:
            found[batch] = replace(last, ended_at=value)
        elif name == EXIT_CODE:
            found[batch] = replace(last, exit_code=int(value))
        else:
            found[batch] = replace(last, succeeded_at=value)
    return found


def _said(path: Path) -> Iterator[tuple[str, str, float]]:
    """Yield name, batch and value of the lines that are asked for; to parse all the others would take long."""
    try:
        with open(path, "rb") as file:
            lines = [line for line in file if line.startswith(_ASKED) and len(line) <= _LINE_MAX_BYTES]
    except OSError:
        return
    for line in lines:
        with suppress(ValueError, LookupError):  # a line that is cut or garbled
            for family in text_string_to_metric_families(line.decode()):
                for sample in family.samples:
                    if "batch" in sample.labels and isfinite(sample.value):
                        yield sample.name, sample.labels["batch"], float(sample.value)
