"""To whom do the files of an output folder belong? To a prompt of the list, to one of earlier lists, or to nobody."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from runner.errors import StorageError
from runner.ledger import History, Recorded
from runner.ledger.history import Unchanged
from runner.prompts import Prompts
from runner.remote import Folder
from runner.storage import REPORT, Stamp


@dataclass(frozen=True, slots=True)
class Belongings:
    """The visible files of a folder by the ledger, apart from the current prompts' results, sorted.

    ``earlier`` are results of prompts no longer in the list, as they were saved; ``unknown`` files that the ledger
    does not know, among them what took the name of such a result, but not the report; ``current`` counts the others.
    """

    current: int
    earlier: list[str]
    unknown: list[str]


def sorted_out(folder: Folder, files: Iterable[str], prompts: Prompts, history: History) -> Belongings:
    """Tell the files of a folder apart by what the ledger says."""
    left = set(files)
    count = len(left)
    for key, _ in prompts.encoded() if left else ():
        if history.place(key) is not None:
            left.difference_update(history.files_of(key.decode(errors="surrogatepass")))
    current = count - len(left)
    earlier = _earlier(folder, left, history) if left else set()
    return Belongings(current, sorted(earlier), sorted(left - earlier - {REPORT}))


def _earlier(folder: Folder, left: set[str], history: History) -> set[str]:
    """Return the files that are what the ledger says; one that was replaced may be anybody's."""
    with folder.unchanged() as unchanged:
        return {
            name
            for key, name, stamp in history.saved_files()
            if name in left and _is_as_saved(folder, unchanged, key, name, stamp, history)
        }


def _is_as_saved(
    folder: Folder, unchanged: Unchanged, key: str, name: str, said: Stamp | None, history: History
) -> bool:
    """Compare size and time; only where these tell nothing, the content. What can't be read is not vouched for."""
    with suppress(StorageError):
        found = folder.stamp(name)
        if found is None or (said is not None and found.size_bytes != said.size_bytes):
            return False
        named = name.encode(errors="surrogateescape")
        if said is not None and unchanged(named, said.size_bytes, said.mtime_ns):
            return True
        saved = history.saved.get(key)
        size_bytes, mtime_ns, sha256 = _said_of(saved, name) if saved else (None, None, None)
        if found.size_bytes != size_bytes:
            return False
        same = mtime_ns is not None and unchanged(named, found.size_bytes, mtime_ns)
        return same or (sha256 is not None and folder.sha256(name) == sha256)
    return False


def _said_of(saved: Recorded, name: str) -> tuple[int | None, int | None, str | None]:
    for one in saved.more:
        if one["file"] == name:
            return one["size_bytes"], one["mtime_ns"], one["sha256"]
    return (saved.size_bytes, saved.mtime_ns, saved.sha256) if saved.file == name else (None, None, None)
