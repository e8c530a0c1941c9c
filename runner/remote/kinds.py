"""The two kinds of output folders, and which of them a path or a URL is."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

from runner.remote.folder import FarFolder
from runner.remote.lease import Lease
from runner.remote.mark import url_at
from runner.remote.places import Far
from runner.remote.store import Store
from runner.settings import Upload
from runner.shards import Shard
from runner.storage import STATE, OutputFolder

Folder = OutputFolder | FarFolder
"""Where the results of a run are."""


def folder_of(
    path: Path,
    far: Far | None,
    mark: str | None = None,
    abandoned: threading.Event | None = None,
    *,
    shard: Shard | None = None,
) -> Folder:
    """Return an output folder: one of this machine, or another. Raises UsageError (see Store)."""
    near = OutputFolder(far.here if far else path, mark, shard=shard)
    return FarFolder(near, far, abandoned) if far else near


def folder_at(path: Path) -> Folder:
    """Return the output folder that a path is, or is the working folder of."""
    url = url_at(path)
    return far_folder(url, path) if url else OutputFolder(path)


def far_folder(url: str, path: Path | None = None) -> FarFolder:
    """Return the folder at a URL, to look at it; its working folder is the usual one, or ``path``."""
    far = Far(url)
    return FarFolder(OutputFolder(path or far.here), far, store=_store_at(url))


def run_elsewhere(state: Path) -> str | None:
    """Return the name of a run, of another machine as a rule, that is going on with a state; None if none is.

    Of a folder of this machine nobody can tell. Raises RemoteError.
    """
    path = next(one.parent for one in (state, *state.parents) if one.name == STATE)
    url = url_at(path)
    return Lease(_store_at(url), state.relative_to(path).as_posix()).running() if url else None


@lru_cache(maxsize=4)
def _store_at(url: str) -> Store:
    """Return what looks at a URL; it takes a tenth of a second to make one."""
    return Store(url, Upload())
