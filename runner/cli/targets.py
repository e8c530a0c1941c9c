"""Where a command may write what it is told to, and how: whole or not at all, and never over what a run needs."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from runner.errors import StorageError, UsageError
from runner.lists import lists_of
from runner.prompts import local_image
from runner.status import Status, status_of
from runner.storage import REPORT, STATE, write_whole

_OPEN_FILES = ("/dev/fd/", "/dev/stdout", "/dev/stderr", "/proc/")
"""A name that begins so may be that of a file that is open already, even if it is a usual one."""


def write_lines(flag: str, path: str, lines: Iterable[str], found: Status) -> None:
    """Write lines to the file that a flag names, or into a device or a pipe.

    Raises UsageError, and then nothing was changed.
    """
    target = _checked(flag, path, found.config.output_folder, found)
    try:
        write_to(path, target, lines)
    except OSError as error:
        raise UsageError(f"{flag} {path}: can't be written: {error.strerror or error}") from error


def write_to(path: str, target: Path, lines: Iterable[str]) -> None:
    """Write lines to what ``checked_for`` returned for a path. Raises OSError."""
    if is_special(path):
        _add_to(path, lines)
    else:
        write_whole(target, (line.encode(errors="surrogateescape") for line in lines))


def checked_for(flag: str, path: str, folder: Path) -> Path:
    """Return the file that a path leads to, if a command about a folder may write there. Raises UsageError."""
    try:
        found = status_of(folder)
    except (UsageError, StorageError):  # nobody knows how it stands: then nothing in the folder is replaced
        found = None
    return _checked(flag, path, folder, found)


def _checked(flag: str, path: str, folder: Path, found: Status | None) -> Path:
    try:
        if is_special(path):
            return Path(path)
        if objection := _objection(path, folder, found):
            raise UsageError(f"{flag} {path}: {objection}; choose another name")
        return Path(os.path.realpath(path))
    except OSError as error:
        raise UsageError(f"{flag} {path}: can't be written: {error.strerror or error}") from error


def is_open(path: str) -> bool:
    """Tell whether a path is a name of a file that is open already, such as stdout."""
    return os.path.abspath(path).startswith(_OPEN_FILES)


def is_special(path: str) -> bool:
    """Tell whether a path is that of a device, a pipe or an open file, which is written into as it is."""
    if is_open(path):
        return True
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _add_to(path: str, lines: Iterable[str]) -> None:
    sys.stdout.flush()
    if os.path.samestat(os.stat(path), os.fstat(1)):  # opened anew, a file would be written over from its beginning
        sys.stdout.writelines(lines)
        return
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(lines)


def _objection(path: str, folder: Path, found: Status | None) -> str | None:
    """Say why nothing may be written there; None if it may. ``found`` is None if the folder's list is not known."""
    target, state = os.path.realpath(path), folder / STATE
    if any(_is_one(str(place), str(state)) or place.name == STATE for place in (Path(target), *Path(target).parents)):
        return f"{STATE} is the runner's own"
    if any(_is_one(target, one.config) for one in lists_of(folder) if one.config):
        return "this is a config"
    if found and any(_is_one(target, source) for source in _sources(found, target)):
        return "this is the run's own prompts file"
    if not os.path.exists(target):
        return None
    name = os.path.basename(target)
    if _is_one(os.path.dirname(target), str(folder)) and name not in (*(found.unknown if found else ()), REPORT):
        return "this is a result"
    if found is None:
        return None
    images = (image for _, kept in found.prompts.encoded() if (image := local_image(kept)))
    if any(os.path.basename(image) == name and _is_one(target, image) for image in images):
        return "this is the image of a prompt"
    return None


def _sources(found: Status, target: str) -> Iterator[str]:
    """Yield the files that the run's lists are read from, and the target if it would become one of them."""
    for source in found.config.prompts:
        path = os.path.join(found.config.base, source)
        yield path
        if os.path.lexists(path) or not glob.has_magic(source):
            continue
        pattern = os.path.join(glob.escape(str(found.config.base)), source)
        folder, name = os.path.split(pattern)
        matches = glob.glob(pattern, recursive=True)
        yield from matches
        if fnmatch.fnmatch(os.path.basename(target), name) and any(
            _is_one(os.path.dirname(target), one) for one in ({*map(os.path.dirname, matches)} | {folder})
        ):
            yield target


def _is_one(path: str, other: str) -> bool:
    """Tell whether these are one file or folder, or would be."""
    with suppress(OSError):
        return os.path.samefile(path, other)
    return path == other
