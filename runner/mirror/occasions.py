"""When a folder is mirrored: beside a run, for the report that was made after it, or by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.ledger import LOCK, locked
from runner.mirror.mirror import Mirror, Tell
from runner.mirror.standing import Standing
from runner.settings import Upload
from runner.shards import Shard
from runner.stop import Stop
from runner.storage import STATE


@contextmanager
def kept_mirrored(
    folder: Path, policy: Upload, stop: Stop, tell: Tell, *, run: Path | None = None, shard: Shard | None = None
) -> Iterator[Mirror | None]:
    """Mirror a folder, or the part of it that is a shard's, if that is wanted; a ``run`` adds what it saves.

    ``tell`` may be called on any thread. Raises StorageError.
    """
    if policy.to is None:
        yield None
        return
    mirror = Mirror(folder, policy.to, policy, stop, tell, run=run, shard=shard)
    mirror.begin()
    try:
        yield mirror
    finally:
        mirror.close()


def upload_report(folder: Path, policy: Upload, stop: Stop) -> str | None:
    """Upload the report that was made after a mirrored run, if it changed; say what went wrong with that."""
    if policy.to is None:
        return None
    mirror = Mirror(folder, policy.to, policy, stop, tell=lambda _: None)
    mirror.begin(results=False)
    try:
        mirror.put_report()
        return mirror.why
    finally:
        mirror.close()


def upload_folder(folder: Path, policy: Upload, stop: Stop, tell: Tell) -> Standing:
    """Upload what of a folder is not in ``policy.to`` yet. Raises UsageError, LockedError, StorageError."""
    with locked(folder / STATE / LOCK), kept_mirrored(folder, policy, stop, tell) as mirror:
        assert mirror is not None
        mirror.finish()
        mirror.put_state()
        return mirror.standing()
