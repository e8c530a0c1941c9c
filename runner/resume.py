"""Which prompts are done, which are still to do, and which results were made with other parameters.

Done = a ledger line with this prompt's fingerprint AND the file, matching in size and, where its time of change is
not that of the line, in content: a line must not vouch for a file that has replaced its own. This room only decides.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from runner.formats import satisfies
from runner.ledger import History, Recorded
from runner.prompts import fingerprint, shown
from runner.records import Prompt
from runner.storage import Stamp

_EXAMPLES = 3


@dataclass(slots=True)
class Standing:
    """How the prompts stand against the output folder.

    ``conflicts`` maps what differs (``seed 41, not 42``) to the keys; these prompts are in no other list.
    """

    done: list[Prompt] = field(default_factory=list)
    pending: list[Prompt] = field(default_factory=list)
    conflicts: dict[str, list[Prompt]] = field(default_factory=dict)

    def conflict_text(self) -> list[str]:
        """One sentence for each kind of difference."""
        texts = []
        for difference, prompts in self.conflicts.items():
            keys = ", ".join(prompt.key for prompt in prompts[:_EXAMPLES])
            more = f" and {len(prompts) - _EXAMPLES} more" if len(prompts) > _EXAMPLES else ""
            texts.append(f"{keys}{more}: made with {difference}")
        return texts


def standing(
    prompts: Sequence[Prompt],
    history: History,
    files: Mapping[str, Stamp],
    *,
    seed: int,
    protocol: str,
    verify: str = "auto",
    digest: Callable[[str], str],
    overwrite: bool = False,
) -> Standing:
    """Sort ``prompts`` by what ledger and folder say; with ``overwrite`` a conflict is pending.

    ``verify`` is what the run asks of a result; ``digest`` gives the SHA-256 of a file, and is only called where a
    file has the right size but another time than the ledger says: it may be a copy, or it may have been replaced.
    """
    found = Standing()
    for prompt in prompts:
        saved = history.saved.get(prompt.key)
        if saved is None or not _there(saved, files, digest) or not satisfies(saved.format, verify):
            found.pending.append(prompt)
            continue
        difference = _difference(prompt, saved, seed=seed, protocol=protocol)
        if difference is None and _image_gone(prompt, saved):
            found.pending.append(prompt)
        elif difference is None:
            found.done.append(prompt)
        elif overwrite:
            found.pending.append(prompt)
        else:
            found.conflicts.setdefault(difference, []).append(prompt)
    return found


def unknown_files(history: History, files: Iterable[str]) -> list[str]:
    """Return the files that are no recorded result, sorted."""
    known = {saved.file for saved in history.saved.values()}
    return sorted(name for name in files if name not in known)


def _there(saved: Recorded, files: Mapping[str, Stamp], digest: Callable[[str], str]) -> bool:
    """Tell whether the file of a ledger line is the one that was written then."""
    stamp = files.get(saved.file) if saved.file else None
    if stamp is None or saved.file is None or stamp.size_bytes != saved.size_bytes:
        return False
    return stamp.mtime_ns == saved.mtime_ns or digest(saved.file) == saved.sha256


def _difference(prompt: Prompt, saved: Recorded, *, seed: int, protocol: str) -> str | None:
    if saved.fingerprint == fingerprint(prompt, seed=seed, protocol=protocol):
        return "another content of the image" if _image_changed(prompt, saved) else None
    if saved.seed != seed:
        return f"seed {saved.seed}, not {seed}"
    if saved.protocol != protocol:
        return f"protocol {saved.protocol}, not {protocol}"
    return f"the prompt {saved.prompt}, not {shown(prompt)}"


def _image_gone(prompt: Prompt, saved: Recorded) -> bool:
    """Tell whether this is another path than the recorded one, at which there is nothing: a mistake in the list."""
    return not prompt.is_url and prompt.image != saved.prompt and not os.path.exists(prompt.image)


def _image_changed(prompt: Prompt, saved: Recorded) -> bool:
    """Compare size and time as rsync does; only where they differ, the content."""
    if prompt.is_url or not saved.image:
        return False
    try:
        now = os.stat(prompt.image)
        if (now.st_size, now.st_mtime_ns) == (saved.image.get("size_bytes"), saved.image.get("mtime_ns")):
            return False
        with open(prompt.image, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() != saved.image.get("sha256")
    except OSError:
        return False  # the image is gone, its result is not
