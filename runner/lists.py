"""Which lists were run in an output folder: by them one can tell whether the list now is the one that was run last.

``.runner/lists.jsonl`` has a line for each list, that of the latest run at the end. A list is told from others by its
sources; one that can't be read again, such as stdin, by its keys.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from runner.clock import utc_now
from runner.config import Config
from runner.ledger import LEDGER
from runner.prompts import Prompts
from runner.remote import Folder
from runner.storage import content_of, refusals, states_of

LISTS = "lists.jsonl"
_MOST = 200
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Listed:
    """A list, as the latest run of it read it.

    ``sha256`` is that of its keys in their order. ``sources`` is None if they can't be read again, or if nobody knows
    them; ``config`` the YAML file, None if there was none.
    """

    run: str
    at: str
    total: int
    sha256: str
    sources: tuple[str, ...] | None
    config: str | None

    def may_be_another(self, other: Listed) -> bool:
        """Tell whether these are two lists, or may be, and not one that was edited in between."""
        if self.sources is None or other.sources is None:
            return self.sha256 != other.sha256
        return self.sources != other.sources


_UNKNOWN = Listed("", "", 0, "", None, None)
"""Stands for lists of which no trace is left."""


def remember(folder: Folder, run: str, prompts: Prompts, config: Config, *, again: bool) -> None:
    """Note the list of a run that begins; ``again``: its sources can be read again. Raises StorageError."""
    sources = tuple(_placed(os.path.join(config.base, one)) for one in config.prompts) if again else None
    new = Listed(run, utc_now(), len(prompts), digest_of(prompts), sources, _file_of(config))
    before = lists_in(folder.state)
    if not before and (folder.state / LEDGER).exists():
        before = [_UNKNOWN]
    others = [one for one in before if _identity(one) != _identity(new)]
    folder.write(LISTS, (f"{json.dumps(asdict(one))}\n" for one in [*others, new][-_MOST:]))


def lists_in(state: Path) -> list[Listed]:
    """Return the lists that were run in a folder, that of the last run at the end. Raises StorageError."""
    path = state / LISTS
    with refusals(f"{path} can't be read"), suppress(FileNotFoundError, NotADirectoryError):
        return [_listed(line) for line in content_of(path).splitlines()]
    return []


def lists_of(path: Path) -> list[Listed]:
    """Return the lists that were run in an output folder, whole or by shards, that of the last run at the end.

    Raises StorageError.
    """
    states = states_of(path)
    if not states[1:]:
        return lists_in(states[0])
    found: dict[tuple[object, ...], Listed] = {}
    for one in sorted((one for state in states for one in lists_in(state)), key=lambda one: one.run):
        found.pop(_identity(one), None)
        found[_identity(one)] = one
    return [*found.values()]


def digest_of(prompts: Prompts) -> str:
    """Return the SHA-256 of all keys in their order, in hexadecimal."""
    digest = hashlib.sha256()
    for block in _blocks(map(itemgetter(0), prompts.encoded())):
        digest.update(block)
    return digest.hexdigest()


def _blocks(keys: Iterator[bytes]) -> Iterator[bytes]:
    while some := [*islice(keys, _BLOCK)]:
        yield b"\0".join([*some, b""])


def _identity(one: Listed) -> tuple[object, ...]:
    return (one.sources or one.sha256, one.config)


def _placed(source: str) -> str:
    """Return a source with the way to it as it is, but itself as it is called: a link may lead elsewhere tomorrow."""
    folder, name = os.path.split(source)
    return os.path.join(os.path.realpath(folder), name)


def _file_of(config: Config) -> str | None:
    file = os.path.abspath(config.name)
    return file if os.path.isfile(file) and os.path.dirname(file) == str(config.folder) else None


def _listed(line: bytes) -> Listed:
    """Return what a line says; one that nobody can read is a list that nobody knows."""
    try:
        said: dict[str, Any] = json.loads(line)
        sources, config = said["sources"], said["config"]
        return Listed(
            run=str(said["run"]),
            at=str(said["at"]),
            total=int(said["total"]),
            sha256=str(said["sha256"]),
            sources=None if sources is None else tuple(map(str, sources)),
            config=None if config is None else str(config),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return _UNKNOWN
