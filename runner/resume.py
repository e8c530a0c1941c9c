"""Which prompts are done, which are still to do, and which results were made with other parameters.

Done = a ledger line with this prompt's fingerprint AND the file, matching in size and, where its time of change is
not that of the line, in content: a line must not vouch for a file that has replaced its own. This room only decides.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, TypeVar

from runner.formats import FORMATS, UNKNOWN_EXTENSION, satisfies
from runner.ledger import History, Recorded
from runner.ledger.history import Unchanged
from runner.prompts import Fingerprints, Prompts, fingerprint, local_image, shown
from runner.records import URL, Job, Prompt
from runner.storage import NO_STAMP, Stamp

_EXAMPLES = 3
_URL = tuple(one.encode() for one in URL)


@dataclass(slots=True)
class Standing:
    """How the prompts stand against the output folder, by their index.

    ``conflicts`` maps what differs (``seed 41, not 42``) to prompts; these are in no other list. ``jobs`` holds, for
    some that are pending, which endpoint (by its name) took it on in an earlier run, and how it may be found there.
    """

    done: array[int] = field(default_factory=lambda: array("I"))
    pending: array[int] = field(default_factory=lambda: array("I"))
    conflicts: dict[str, list[int]] = field(default_factory=dict)
    jobs: dict[int, tuple[str, Job]] = field(default_factory=dict)

    def conflict_text(self, prompts: Sequence[Prompt]) -> list[str]:
        """One sentence for each kind of difference."""
        texts = []
        for difference, found in self.conflicts.items():
            keys = ", ".join(prompts[index].key for index in found[:_EXAMPLES])
            more = f" and {len(found) - _EXAMPLES} more" if len(found) > _EXAMPLES else ""
            texts.append(f"{keys}{more}: made with {difference}")
        return texts


def standing(
    prompts: Prompts,
    history: History,
    *,
    unchanged: Unchanged,
    stamp: Callable[[str], Stamp | None],
    digest: Callable[[str], str],
    seed: int,
    protocol: str,
    verify: str = "auto",
    overwrite: bool = False,
    members: bytearray | None = None,
) -> Standing:
    """Sort ``prompts`` by what ledger and folder say; with ``overwrite`` a conflict is pending.

    ``unchanged`` tells whether a file of the folder has a size and a time, ``stamp`` gives both; ``verify`` is what
    the run asks of a result; ``digest`` gives the SHA-256 of a file, and is only called where it has the right size
    but another time than the ledger says: it may be a copy, or it may have been replaced. ``members`` has a 1 for
    each prompt to be sorted; None: all are.
    """
    found = Standing()
    if not history.saved:
        found.pending.extend(_chosen(range(len(prompts)), members))
        found.jobs = _jobs(prompts, history, members, seed=seed, protocol=protocol)
        return found
    fingerprints = Fingerprints(seed=seed, protocol=protocol)
    kinds = [name for name in (*FORMATS, UNKNOWN_EXTENSION) if satisfies(name, verify)]
    vouches = history.voucher(kinds, unchanged)
    for index, (key, kept) in _chosen(enumerate(prompts.encoded()), members):
        own = NO_STAMP if kept.startswith(_URL) else _stamp(local_image(kept))
        if own is not None and vouches(key, fingerprints.of(kept), own):
            found.done.append(index)
            continue
        if _is_missing(key.decode(errors="surrogatepass"), history, stamp):
            found.pending.append(index)
            continue
        prompt = prompts[index]
        saved = history.saved.get(prompt.key)
        if saved is None or not _there(saved, unchanged, stamp, digest) or not satisfies(saved.format, verify):
            found.pending.append(index)
            continue
        difference = _difference(prompt, saved, seed=seed, protocol=protocol)
        if difference is None and _image_gone(prompt, saved):
            found.pending.append(index)
        elif difference is None:
            found.done.append(index)
        elif overwrite:
            found.pending.append(index)
        else:
            found.conflicts.setdefault(difference, []).append(index)
    done = {*found.done} if history.submitted else ()
    jobs = _jobs(prompts, history, members, seed=seed, protocol=protocol)
    found.jobs = {index: job for index, job in jobs.items() if index not in done}
    return found


_One = TypeVar("_One")


def _chosen(all_: Iterable[_One], members: bytearray | None) -> Iterable[_One]:
    return all_ if members is None else compress(all_, members)


def _is_missing(key: str, history: History, stamp: Callable[[str], Stamp | None]) -> bool:
    """Tell at once of most prompts without a result that they have none: a million may be missing."""
    if key not in history.saved:
        return True
    name = history.file(key)
    return name is not None and stamp(name) is None


def _jobs(
    prompts: Prompts, history: History, members: bytearray | None, *, seed: int, protocol: str
) -> dict[int, tuple[str, Job]]:
    """Return, by the index of their prompts, the jobs of earlier runs whose end is not known."""
    jobs: dict[int, tuple[str, Job]] = {}
    if not history.submitted:
        return jobs
    for index, (key, _) in _chosen(enumerate(prompts.encoded()), members):
        said = history.submitted.get(key.decode(errors="surrogatepass"))
        if said is None or not said.job:
            continue
        prompt = prompts[index]
        same = said.fingerprint == fingerprint(prompt, seed=seed, protocol=protocol)
        if same and not image_changed(prompt, said.image):
            jobs[index] = said.endpoint, Job(**said.job)
    return jobs


def unknown_files(history: History, files: Iterable[str]) -> list[str]:
    """Return the files that are no recorded result, sorted."""
    known = set(history.files())
    return sorted(name for name in files if name not in known)


def _there(
    saved: Recorded, unchanged: Unchanged, stamp: Callable[[str], Stamp | None], digest: Callable[[str], str]
) -> bool:
    """Tell whether the files of a ledger line are those that were written then."""
    first = {"file": saved.file, "size_bytes": saved.size_bytes, "mtime_ns": saved.mtime_ns, "sha256": saved.sha256}
    return all(_is_same(one, unchanged, stamp, digest) for one in (first, *saved.more))


def _is_same(
    said: Mapping[str, Any],
    unchanged: Unchanged,
    stamp: Callable[[str], Stamp | None],
    digest: Callable[[str], str],
) -> bool:
    found = stamp(said["file"]) if said["file"] else None
    if found is None or found.size_bytes != said["size_bytes"]:
        return False
    name = said["file"].encode(errors="surrogateescape")
    return bool(unchanged(name, said["size_bytes"], said["mtime_ns"]) or digest(said["file"]) == said["sha256"])


def _stamp(path: str | None) -> Stamp | None:
    """Return the stamp of a local image, NO_STAMP if there is none to the prompt; None if it is gone."""
    if path is None:
        return NO_STAMP
    try:
        status = os.stat(path)
    except OSError:
        return None
    return Stamp(status.st_size, status.st_mtime_ns)


def _difference(prompt: Prompt, saved: Recorded, *, seed: int, protocol: str) -> str | None:
    if saved.fingerprint == fingerprint(prompt, seed=seed, protocol=protocol):
        return "another content of the image" if image_changed(prompt, saved.image) else None
    wanted = seed if prompt.seed is None else prompt.seed
    if saved.seed != wanted:
        return f"seed {saved.seed}, not {wanted}"
    if saved.protocol != protocol:
        return f"protocol {saved.protocol}, not {protocol}"
    if saved.prompt != shown(prompt):
        return f"the prompt {saved.prompt}, not {shown(prompt)}"
    return "other params" if prompt.text in (None, saved.prompt) else "another text, or other params"


def _image_gone(prompt: Prompt, saved: Recorded) -> bool:
    """Tell whether this is another path than the recorded one, at which there is nothing: a mistake in the list."""
    local = bool(prompt.image) and not prompt.is_url
    return local and prompt.image != saved.prompt and not os.path.exists(prompt.image)


def image_changed(prompt: Prompt, then: Mapping[str, Any] | None) -> bool:
    """Tell whether a local image is another than ``then``: size and time as rsync does, then the content."""
    if not prompt.image or prompt.is_url or not then:
        return False
    try:
        now = os.stat(prompt.image)
        if (now.st_size, now.st_mtime_ns) == (then.get("size_bytes"), then.get("mtime_ns")):
            return False
        with open(prompt.image, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() != then.get("sha256")
    except OSError:
        return False  # the image is gone, its result is not
