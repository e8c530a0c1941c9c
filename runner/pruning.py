"""Which files of an output folder belong to no prompt, and how they are removed.

This room alone deletes what it has not made, so in doubt it leaves a file where it is. It goes by the prompts list
of the folder's last run; a list that is gone, empty, empty in part, or another than that run had removes nothing.
Whatever is named like a result of a prompt of that list stays, whatever the ledger says, and so does every file that
the config names.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from runner.batch import history_of, read_all
from runner.belongings import sorted_out
from runner.config import Config
from runner.errors import UsageError
from runner.ledger import LOCK, holder, locked
from runner.lists import Listed, digest_of, lists_of
from runner.prompts import Prompts, local_image
from runner.remote import Folder, folder_at
from runner.storage import REPORT, STATE, states_of
from runner.traces import config_in

Kind = Literal["earlier", "unknown", "temp"]
KINDS: tuple[Kind, ...] = ("earlier", "unknown", "temp")

_FEW = 20
"""More files of a kind than these, and more than there are others: what tells them apart may be wrong."""

_NAMED = 3

_WORKED_IN = re.compile(r".*\.ya?ml|makefile|\.git", re.IGNORECASE)
"""Names that no result has, but that folders have in which somebody works."""

_MEMBER = re.compile(r"(.+)-[0-9]+", re.DOTALL)
"""What one of several results is called, without its extension."""


class Stray(NamedTuple):
    """A file that belongs to no prompt; ``name`` is relative to the folder, ``seen`` tells it from a later one."""

    name: str
    kind: Kind
    size_bytes: int
    seen: tuple[int, ...]


@dataclass(slots=True)
class Pruned:
    """The files that belong to no prompt, and what became of them.

    ``sources`` are the lists that this goes by, ``kept`` counts the visible files that stay. ``shared_with``: the
    folder holds this too, so its unknown files (``spared``) may be somebody's, and are not among the strays.
    ``at_work``: a run is going on; temp files are its own then. ``changed`` says that the list is another than that
    of the last run: then nothing but temp files may go. ``doubts`` says of a kind why it may belong to somebody.
    """

    strays: list[Stray]
    sources: list[str]
    kept: int
    spared: int = 0
    shared_with: str | None = None
    at_work: bool = False
    changed: str | None = None
    doubts: dict[Kind, str] = field(default_factory=dict)
    removed: list[Stray] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    """What could not be removed, and why."""

    def objections(self, sure: Collection[Kind] = ()) -> list[str]:
        """Return what speaks against removing these; ``sure`` are kinds of which somebody says that they may go."""
        doubts = [doubt for kind, doubt in self.doubts.items() if kind not in sure]
        return [*([self.changed] if self.changed else []), *doubts]


def prune(path: Path, only: Collection[Kind] = KINDS, *, sure: Collection[Kind] = ()) -> Pruned:
    """Remove the files of a folder that belong to no prompt, and return what was done.

    ``sure`` are kinds that go in spite of a doubt. Raises UsageError if the list of prompts can't be relied on,
    LockedError, StorageError; then nothing was removed.
    """
    config_in(path)
    folder = folder_at(path)
    with locked(path / STATE / LOCK), folder.alone("prune"):
        found = strays_of(path, only)
        if objections := found.objections(sure):
            raise UsageError(f"{objections[0]} Nothing was removed.")
        for stray in found.strays:
            why = folder.discard(stray.name, stray.seen)
            if why is None:
                found.removed.append(stray)
            else:
                found.left.append((stray.name, why))
    return found


def strays_of(path: Path, only: Collection[Kind] = KINDS) -> Pruned:
    """Return the files of a folder that belong to no prompt. Only reads. Raises UsageError, StorageError."""
    config = config_in(path)
    folder = folder_at(path)
    prompts = _prompts(folder, config)
    at_work = any(holder(state) not in (None, os.getpid()) for state in states_of(path))
    names = {*folder.names()}
    inputs = _inputs(path, config, prompts)
    shared_with = _shared_with(folder, inputs & names)
    lists = lists_of(path)
    earlier, unknown = _of_nobody(folder, names, config, prompts, {*inputs, *_configs_in(path, lists)})
    found = {
        "earlier": earlier,
        "unknown": () if shared_with else unknown,
        "temp": () if at_work else [*folder.temps()],
    }
    look = _Look(folder, config, lists, prompts=len(prompts), files=len(names))
    doubts = {
        "earlier": look.doubt_of_earlier(len(earlier)),
        "unknown": None if shared_with else look.doubt_of_unknown(len(unknown), len(earlier)),
    }
    return Pruned(
        strays=[stray for kind in KINDS if kind in only for stray in _strays(folder, kind, found[kind])],
        sources=[_shown_source(folder, config, source) for source in config.prompts],
        kept=len(names) - len(earlier) - len(unknown),
        spared=len(unknown) if shared_with and "unknown" in only else 0,
        shared_with=shared_with,
        at_work=at_work,
        changed=look.changed(digest_of(prompts)) if {*only} - {"temp"} else None,
        doubts={kind: doubt for kind in KINDS if kind in only and (doubt := doubts.get(kind))},
    )


def _prompts(folder: Folder, config: Config) -> Prompts:
    """Return the prompts of the last run. Raises UsageError if any of its lists can't be read, or holds none now."""
    try:
        prompts = read_all(config)
        for source in config.prompts:
            settings = config.settings.model_copy(update={"prompts": [source]})
            if not len(read_all(replace(config, settings=settings)) if len(config.prompts) > 1 else prompts):
                raise UsageError(f"{source} holds no prompts")
    except UsageError as error:
        raise UsageError(
            f"{folder.shown}: without the prompts of its last run nobody can tell which files belong to none, so "
            f"nothing is removed: {error.problems[0]}"
        ) from error
    return prompts


def _of_nobody(
    folder: Folder, names: set[str], config: Config, prompts: Prompts, inputs: Collection[str]
) -> tuple[list[str], list[str]]:
    """Return the files of earlier prompts and those the ledger does not know, as far as there is no doubt."""
    found = sorted_out(folder, names, prompts, history_of(config))
    is_claimed = _claims([*found.earlier, *found.unknown], prompts)
    named = {_folded(one) for one in (REPORT, *_named(config))}

    def is_free(name: str) -> bool:  # a log has older parts, with a number behind its name
        folded = _folded(name)
        return name not in inputs and not any(folded == one or folded.startswith(f"{one}.") for one in named)

    earlier = [name for name in found.earlier if is_free(name) and not is_claimed(name, [_stem(name)])]
    unknown = [name for name in found.unknown if is_free(name) and not is_claimed(name, _stems(name))]
    return earlier, unknown


def _claims(names: Iterable[str], prompts: Prompts) -> Callable[[str, Iterable[str]], bool]:
    """Return what tells whether one of a file's stems is the key of a prompt, or that with a number behind it."""
    wanted = {one for name in names for stem in _stems(name) for one in _keys(stem)}
    folded = (_folded(key.decode(errors="surrogatepass")) for key, _ in prompts.encoded()) if wanted else ()
    keys = {key for key in folded if key in wanted}
    return lambda name, stems: any(key in keys for stem in stems for key in _keys(stem))


def _stem(name: str) -> str:
    """Return a file's name without its extension.

    >>> _stem("a.b.ply")
    'a.b'
    """
    return name.rpartition(".")[0] or name


def _stems(name: str) -> Iterator[str]:
    """Yield all that a file's key may be, if nobody knows what is its extension.

    >>> [*_stems("a.b.ply")]
    ['a.b.ply', 'a', 'a.b']
    """
    yield name
    yield from (name[: dot.start()] for dot in re.finditer(r"\.", name) if dot.start())


def _keys(stem: str) -> Iterator[str]:
    """Yield the keys whose result may be called so.

    >>> [*_keys("Chair-2")]
    ['chair-2', 'chair']
    """
    yield _folded(stem)
    if member := _MEMBER.fullmatch(stem):
        yield _folded(member[1])


def _folded(name: str) -> str:
    """Return a name as disks may see it that know neither case nor how an accent is written."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def _inputs(path: Path, config: Config, prompts: Prompts) -> set[str]:
    """Return the names of the lists and images of the last run that lie in the folder itself."""
    is_here = _Here(path)
    sources = [os.path.join(config.base, source) for source in config.prompts]
    images = (image for _, kept in prompts.encoded() if (image := local_image(kept)))
    return {os.path.basename(file) for files in (sources, images) for file in files if is_here(file)}


class _Here:
    """Tells whether a file lies in a folder, whatever links lead there; a list mostly names few folders."""

    def __init__(self, path: Path) -> None:
        self._path = os.path.realpath(path)
        self._known: dict[str, bool] = {}

    def __call__(self, file: str) -> bool:
        folder = os.path.dirname(file)
        if folder not in self._known:
            self._known[folder] = "\0" not in folder and os.path.realpath(folder) == self._path
        return self._known[folder]


def _named(config: Config) -> set[str]:
    """Return the names of all files that the config may mean: certificates, logs and the like."""
    texts = _texts(config.settings.model_dump(mode="json"))
    files = [text for text in texts if ("." in text or "/" in text) and "://" not in text]
    said = [one for one in (config.settings.log.file, config.settings.metrics.textfile) if one]
    return {os.path.basename(os.path.normpath(file)) for file in [*files, *said]} - {""}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)


def _shared_with(folder: Folder, inputs: Collection[str]) -> str | None:
    """Return what lies in the folder that shows that it is not for results alone."""
    signs = [name for name in folder.others() if _WORKED_IN.fullmatch(name)]
    return min([*signs, *inputs], default=None)


def _configs_in(path: Path, lists: Iterable[Listed]) -> set[str]:
    """Return the names of the configs that were run and lie in the folder itself."""
    is_here = _Here(path)
    return {os.path.basename(one.config) for one in lists if one.config and is_here(one.config)}


@dataclass(frozen=True, slots=True)
class _Look:
    """What a folder is known by: the config of its last run, the lists that were run in it, how much is in both."""

    folder: Folder
    config: Config
    lists: Sequence[Listed]
    prompts: int
    files: int

    @property
    def path(self) -> str:
        """What people know the folder by."""
        return self.folder.shown

    def changed(self, sha256: str) -> str | None:
        """Say that the list is not that of the last run; None if it is."""
        if not self.lists or not self.lists[-1].sha256:
            return (
                f"{self.path}: no run has noted its list here yet: run it first, then prune; "
                "--only temp removes temp files all the same."
            )
        then = self.lists[-1]
        if then.sha256 == sha256:
            return None
        now = f"{self.prompts} now" if self.prompts != then.total else f"{self.prompts} others now"
        return (
            f"{self.path}: the list has changed since the last run ({then.total} prompts then, {now}): run it first, "
            "then prune; --only temp removes temp files all the same."
        )

    def doubt_of_earlier(self, earlier: int) -> str | None:
        """Say why earlier results may be those of a list that somebody still needs; None if nothing speaks for it."""
        if earlier > max(_FEW, self.files - earlier):
            return (
                f"{self.path}: {earlier} of its {self.files} files are results of prompts that are not in "
                f"{self._shown()} ({self.prompts} prompts), the list of the last run; if that was a part of your "
                "list, run the whole list again first (nothing is made twice); if these may go, say --only earlier."
            )
        others = [one for one in self.lists if one.may_be_another(self.lists[-1])]
        if not earlier or not others:
            return None
        named = next((one for one in reversed(others) if one.sources), None)
        other = f", such as {_some(named.sources or ())}" if named else ""
        return (
            f"{self.path}: other lists than {self._shown()} were run here{other}; the {earlier} results of prompts "
            "that are not in it may be theirs; if these may go, say --only earlier."
        )

    def doubt_of_unknown(self, unknown: int, earlier: int) -> str | None:
        """Say why files that the ledger does not know may be somebody's; None if nothing speaks for it."""
        kept = self.files - unknown - earlier
        if unknown <= max(_FEW, kept):
            return None
        return (
            f"{self.path}: its ledger does not know {unknown} of its {self.files} files; they may be results of "
            "another program, or of a run whose .runner was lost; if these may go, say --only unknown."
        )

    def _shown(self) -> str:
        return _some([_shown_source(self.folder, self.config, source) for source in self.config.prompts])


def _some(sources: Sequence[str]) -> str:
    """Name lists, but not a thousand of them."""
    more = f" and {len(sources) - _NAMED} more" if len(sources) > _NAMED else ""
    return ", ".join(sources[:_NAMED]) + more


def _shown_source(folder: Folder, config: Config, source: str) -> str:
    """Return a list as a person knows it: the kept one by its place in the folder."""
    if os.path.isabs(source) or "://" in source:
        return source
    return os.path.join(folder.shown, os.path.relpath(config.base, folder.path.absolute()), source)


def _strays(folder: Folder, kind: Kind, names: Iterable[str]) -> Iterator[Stray]:
    for name in sorted(names):
        seen = folder.seen(name)
        if seen is not None:  # else somebody was quicker
            yield Stray(name, kind, seen[2], seen)
