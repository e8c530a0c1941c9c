"""What the runs in an output folder left behind beside ledger and results: config and summary."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from runner.batch import CONFIG, SUMMARY
from runner.config import Config, load_config
from runner.errors import UsageError
from runner.ledger import LEDGER, Ledgers, ledgers_of
from runner.lists import lists_in
from runner.records import Summary
from runner.remote import far_folder, is_remote, problem_of, url_at
from runner.settings import RunConfig
from runner.storage import STATE, content_of, is_file, refusals, states_of


def here(folder: str) -> Path:
    """Return where on this machine an output folder is, or the state of one elsewhere, fetched if it has changed.

    Raises UsageError if there is nothing of a run at a URL, RemoteError.
    """
    if not is_remote(folder):
        return Path(folder)
    if problem := problem_of(folder):
        raise UsageError(f"FOLDER: {problem}")
    url = folder.rstrip("/")
    far = far_folder(url)
    if not far.look():
        raise UsageError(f"{url} is no output folder of a run: it has no {STATE}/{CONFIG}")
    with suppress(UsageError):
        own = config_in(far.path).far
        if own and own.here != far.path and own.here.exists():  # a run of this machine works on it there
            far_folder(url, own.here).look()
            return own.here
    return far.path


def config_in(path: Path) -> Config:
    """Return the config of the last run in a folder. Raises UsageError if there was none, StorageError.

    Of a shard's run it has the shard; the list is that of all of them.
    """
    file, url = state_of_last(path) / CONFIG, url_at(path)
    if not _is_there(file):
        raise UsageError(f"{url or path} is no output folder of a run: it has no {STATE}/{CONFIG}")
    found = load_config(file, {"output_folder": url or str(path)}, environ=_Unset(os.environ), check=_anything)
    return replace(found, output_folder=path) if url else found


def state_of_last(path: Path) -> Path:
    """Return the state folder of the run that began last, of the whole list or a shard. Raises StorageError."""
    states = states_of(path)
    if not states[1:]:
        return states[0]
    return max((one for one in states if _is_there(one / CONFIG)), key=_noted, default=states[0])


def _noted(state: Path) -> tuple[str, float]:
    """Return what tells whether the last run with a state began after another: its name, or the config's time."""
    last = lists_in(state)[-1:]
    with refusals(f"{state / CONFIG} can't be read"):
        return last[0].run if last else "", os.stat(state / CONFIG).st_mtime


def expect_ledger(path: Path) -> Ledgers:
    """Return a folder's ledgers. Raises UsageError if no run was ever in it, StorageError."""
    if not any(_is_there(state / name) for state in states_of(path) for name in (LEDGER, CONFIG)):
        raise UsageError(f"{url_at(path) or path} is no output folder of a run: it has no {STATE}/{LEDGER}")
    return ledgers_of(path)


def last_summary(state: Path) -> Mapping[str, Any]:
    """Return what the last run that ended with this state said; {} if there is none. Raises StorageError."""
    return _document(state / SUMMARY)


def summary_in(path: Path) -> Summary:
    """Return the summary of the last run that ended in a folder. Raises UsageError if there is none, StorageError."""
    return summary_of(path, path / STATE)


def summary_of(path: Path, state: Path) -> Summary:
    """Return that of the last run that ended with this state. Raises UsageError if there is none, StorageError."""
    file = state / SUMMARY
    if not _is_there(file):
        shown = url_at(path) or path
        raise UsageError(f"{shown} has no {STATE}/{SUMMARY}: no run has ended in it; see runner status {shown}")
    if found := summary_from(_document(file)):
        return found
    raise UsageError(
        f"{file} is no summary of a run; the next run writes it anew, runner status {path} goes by the ledger"
    )


def summary_from(said: Mapping[str, Any]) -> Summary | None:
    """Return what a run said at its end as its summary; None if somebody made something else of it."""
    with suppress(ValidationError):
        return TypeAdapter(Summary).validate_python(dict(said))
    return None


def _is_there(path: Path) -> bool:
    """Tell whether there is such a file. Raises StorageError if nobody can say: that is not the same as none."""
    with refusals(f"{path} can't be read"):
        return is_file(path)


def _document(path: Path) -> Mapping[str, Any]:
    text = ""
    with refusals(f"{path} can't be read"), suppress(FileNotFoundError, NotADirectoryError):
        text = content_of(path).decode(errors="replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _anything(settings: RunConfig, folder: Path) -> Iterator[str]:
    """Ask nothing beyond the types: nothing is sent, and what was needed for that may be gone."""
    yield from ()


class _Unset(Mapping[str, str]):
    """An environment in which an unset variable stands for itself: to look at a folder needs no secrets."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        return self._environ.get(name, f"${{{name}}}")

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)
