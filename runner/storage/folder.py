"""The output folder of a run, on this machine."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.errors import StorageError
from runner.records import Outcome, Saving
from runner.shards import Shard, shard_in
from runner.storage.opening import is_file
from runner.storage.places import PART, SHARDS, STATE, Stamp, states_of
from runner.storage.temps import Parts, Scratch, Temp, new_mark
from runner.storage.writing import FILE_MODE, opened, refusals, seen_as, sha256_of, write_whole

_FOLDER_MODE = 0o775

_LEAST_FREE_BYTES = 1_000_000
"""With less there is no use in beginning: ledger, log and summary need some of it, and so does what is on its way."""

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""To open a pipe that has a result's name would else wait for its other end."""


class OutputFolder:
    """The folder of one run's results. Only ``prepare``, ``sweep``, ``clean``, ``temp`` and ``write`` change it.

    ``mark`` tells the temp files of several processes of one run apart. ``state`` is where a run keeps all but its
    results; one of a ``shard`` has its own, with its temp files in it: other shards' runs may begin at any time.
    """

    def __init__(self, path: Path, mark: str | None = None, *, shard: Shard | None = None) -> None:
        self.path = path
        self.shard = shard
        self.state = path / STATE / SHARDS / shard.folder if shard else path / STATE
        self._temps = self.state if shard else path
        self._mark = mark or new_mark()
        self._within = os.path.join(path, "")

    @property
    def shown(self) -> str:
        """What people know the folder by."""
        return str(self.path)

    @contextmanager
    def at_work(self, run: str, tell: Callable[[str], None]) -> Iterator[None]:
        """Have the folder for one run, which has its lock."""
        yield

    @contextmanager
    def alone(self, command: str) -> Iterator[None]:
        """Keep runs of other machines out: of a folder here, its lock does."""
        yield

    def look(self) -> bool:
        """Bring the state here as it is now, and tell whether there is any folder: it is here."""
        return self.path.exists()

    def check(self) -> None:
        """Raise LockedError if another run has taken the folder meanwhile: not while its lock is held."""

    def settle(self, *, hurry: bool = False) -> None:
        """Bring the state to where it belongs: it is there."""

    def refute(self, outcome: Outcome) -> bool:
        """Remove the results of a saved outcome if they were replaced; here only the run itself names them."""
        return False

    def publish(self, name: str) -> str:
        """Let a file of the folder be seen by all; return where it is."""
        return str(self.path / name)

    def prepare(self) -> None:
        """Create the folder and its state folder. Raises StorageError."""
        with refusals(f"the output folder {self.path} can't be made"):
            for folder in (*reversed(self.state.parents), self.state):
                if not folder.exists():
                    folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)

    def files(self) -> dict[str, Stamp]:
        """Return the stamp of every visible file, read in one pass; {} if there is no folder."""
        stamps = {}
        with refusals(f"the output folder {self.path} can't be read"), suppress(FileNotFoundError):
            for entry in os.scandir(self.path):
                if not entry.name.startswith(".") and entry.is_file():
                    status = entry.stat()
                    stamps[entry.name] = Stamp(status.st_size, status.st_mtime_ns)
        return stamps

    def names(self) -> Iterator[str]:
        """Yield the name of every visible file; none if there is no folder. Raises StorageError."""
        refused = f"the output folder {self.path} can't be read"
        with refusals(refused), suppress(FileNotFoundError), os.scandir(self.path) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_file():
                    yield entry.name

    def stamp(self, name: str) -> Stamp | None:
        """Return the stamp of one visible file; None if there is none. Raises StorageError."""
        try:
            status = os.stat(self._within + name)
        except (FileNotFoundError, ValueError):  # no file has a name with a NUL in it, or with half a character
            return None
        except OSError as error:
            raise StorageError(f"{self.path / name} can't be read: {error.strerror or error}") from error
        return Stamp(status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    @contextmanager
    def unchanged(self) -> Iterator[Callable[[bytes, int, int], bool]]:
        """Give what tells whether a visible file (its name in UTF-8) has a size and a time of change.

        Raises StorageError. It looks names up in the open folder: a path would be walked anew for each of a million.
        """
        try:
            within = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            yield lambda *_: False
            return
        except OSError as error:
            raise StorageError(f"the output folder {self.path} can't be read: {error.strerror}") from error
        look, is_regular = os.stat, stat.S_ISREG

        def unchanged(name: bytes, size_bytes: int, mtime_ns: int) -> bool:
            try:
                found = look(name, dir_fd=within)
            except FileNotFoundError:
                return False
            except OSError as error:
                path = self._within + os.fsdecode(name)
                raise StorageError(f"{path} can't be read: {error.strerror or error}") from error
            return found.st_size == size_bytes and found.st_mtime_ns == mtime_ns and is_regular(found.st_mode)

        try:
            yield unchanged
        finally:
            os.close(within)

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a file's content, in hexadecimal. Raises StorageError."""
        with refusals(f"{self.path / name} can't be read"), open(self.path / name, "rb") as file:
            return sha256_of(file)

    @contextmanager
    def reading(self) -> Iterator[Callable[[str], int]]:
        """Give what opens a file to be read, as a descriptor; it raises OSError. Raises StorageError."""
        with opened(self.path) as within:
            yield lambda name: os.open(name, _READ, dir_fd=within)

    @contextmanager
    def lent(self, name: str) -> Iterator[str]:
        """Give the path of a file as long as it is read. Raises StorageError."""
        yield self._within + name

    def temps(self) -> Iterator[str]:
        """Yield the temp files of results and of state, relative to the folder. Raises StorageError."""
        for folder in (self.path, *states_of(self.path)):
            prefix = "" if folder == self.path else f"{folder.relative_to(self.path)}/"
            with refusals(f"{folder} can't be read"), os.scandir(folder) as entries:
                names = [one.name for one in entries if PART.match(one.name) and one.is_file(follow_symlinks=False)]
            yield from (f"{prefix}{name}" for name in names)

    def others(self) -> Iterator[str]:
        """Yield the names of all that lies in the folder, whatever it is. Raises StorageError."""
        with refusals(f"the output folder {self.path} can't be read"):
            yield from os.listdir(self.path)

    def seen(self, name: str) -> tuple[int, ...] | None:
        """Return what tells the file of a name, or the link, from another; None if there is none. Raises OSError."""
        try:
            return seen_as(os.lstat(self.path / name))
        except FileNotFoundError:
            return None

    def discard(self, name: str, seen: tuple[int, ...]) -> str | None:
        """Remove a file, of a link only the link; say why if it can't be, or if it is another than was ``seen``."""
        path = self.path / name
        try:
            if seen_as(os.lstat(path)) != seen and seen_as(os.stat(path)) != seen:
                return "it has changed meanwhile"
            os.unlink(path)
        except FileNotFoundError:  # somebody was quicker
            return None
        except OSError as error:
            return error.strerror or str(error)
        return None

    def at_once(self, pending: int, hands: int) -> int:
        """Return how many of the results that are to be made lie on the disk at a time."""
        return pending

    def free_bytes(self) -> int:
        """Return how much may still be written into the folder. Raises StorageError."""
        with refusals(f"the output folder {self.path} can't be read"):
            disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def lack_of_room(self, needed: float = 0.0) -> str | None:
        """Say that there is not even room for so many bytes, or for a little. Raises StorageError."""
        free = self.free_bytes()
        return f"only {free / 1e6:.1f} MB are free" if free < max(needed, _LEAST_FREE_BYTES) else None

    def sweep(self) -> int:
        """Remove the temp files of dead runs and return how many there were. Only with the lock held.

        A shard's run leaves alone what others of its count may have on their way, and the folder itself, where
        somebody may be writing a report. Beside one of the whole list there is no other.
        """
        stale = 0
        for folder in self._sweepable():
            with refusals(f"the unfinished files in {folder} can't be removed"):
                hidden = [entry for entry in os.scandir(folder) if entry.name[0] == "."]
                for path in [entry.path for entry in hidden if PART.match(entry.name) and entry.is_file()]:
                    with suppress(FileNotFoundError):  # another shard's run was quicker
                        os.unlink(path)
                        stale += 1
        return stale

    def _sweepable(self) -> list[Path]:
        """Return the folders whose temp files are all of dead runs, if this one has its lock."""
        states = states_of(self.path)[1:]
        if self.shard is None:
            return [self.path, *states]
        mine = self.shard.count
        others = [one for one in states if (other := shard_in(one.name)) and other.count != mine]
        return [self.state, *others]

    def clean(self, key: str, mark: int) -> None:
        """Remove the temp files that ``temp`` made of the same. Raises StorageError."""
        number = 0
        with refusals(f"the unfinished files of {key} in {self.path} can't be removed"):
            while self._removed(self._temp_name(key, mark, number)) or number == 0:
                number += 1

    def _removed(self, name: str) -> bool:
        try:
            os.unlink(os.path.join(self._temps, name))
        except FileNotFoundError:
            return False
        return True

    def temp(self, key: str, mark: int = 0, number: int = 0) -> Temp:
        """Open a temp file for the result ``number`` (from 0) of a prompt; ``mark`` tells those of one key apart.

        Raises StorageError.
        """
        return Temp(str(self._temps), self._temp_name(key, mark, number), str(self.path))

    def scratch(self) -> Scratch:
        """Open room for bytes that nobody names; nothing is left of them, whatever dies. Raises StorageError."""
        with refusals(f"{self.state} can't be written"):
            return Scratch(tempfile.TemporaryFile(dir=self.state), str(self.state))

    def hold(self, outcome: Outcome, temps: Sequence[Temp]) -> Saving:
        """Return verified results, in temp files, as what waits for its ledger line to get its name."""
        names = [str(outcome.file), *(one.file for one in outcome.more)]
        parts = [temp.part(name) for temp, name in zip(temps, names, strict=True)]
        return Saving(outcome, parts[0] if len(parts) == 1 else Parts(tuple(parts)))

    def waiting(self) -> int:
        """Return how many results wait to be brought to where they belong: they are there."""
        return 0

    def held(self, key: str, fingerprint: str) -> None:
        """Return what an earlier run made and could not save: here there is no such thing."""

    def send(self, saving: Sequence[Saving]) -> float:
        """Bring results to where they belong, which takes 0 seconds: they are there."""
        return 0.0

    def _temp_name(self, key: str, mark: int, number: int) -> str:
        several = f"-{number}" if number else ""
        return f".{key}{several}.{self._mark}{mark % 0x10000:04x}.part"

    def write(self, name: str, text: str | Iterable[str], *, mode: int = FILE_MODE) -> None:
        """Write a state file, whole or not at all; ``mode`` is cut by the umask. Raises StorageError."""
        with refusals(f"{self.state / name} can't be written"):
            is_file(self.state / name)  # a pipe would be written into, and wait for its reader
            write_whole(self.state / name, [text] if isinstance(text, str) else text, mode=mode)
