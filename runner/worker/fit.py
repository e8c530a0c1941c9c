"""What a machine must have and see to do a run's work."""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from runner.errors import RunnerError
from runner.extras import missing
from runner.remote import Far, FarFolder, Folder, Store
from runner.storage import STATE, OutputFolder, refusals

SIGN = "sign-"
"""How a file in the state folder begins by which another machine sees that the folder it has is the same."""

_ATTEMPTS = 2
_BUCKET_S = 8.0
"""A bucket that takes nothing for so long is none of this machine's; who asks waits for hardly longer."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Looks, on another machine, whether it can do the work; it is pickled on the way there.

    ``folder`` is where results go, None if that is a bucket (``far``), and ``state`` the run's own below it;
    ``extras`` must be there, and ``files`` readable.
    """

    folder: Path | None
    state: Path
    extras: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    far: Far | None = None
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Let the folder have its sign, here. Raises StorageError."""
        if self.folder is None:
            yield
            return
        with refusals(f"{self._sign} can't be written"):
            self._remove()
            self._sign.touch()
        try:
            yield
        finally:
            with suppress(OSError):
                self._remove()

    def problem(self) -> str | None:
        """Say, there, what keeps the machine from the work, and what to do."""
        for extra in self.extras:
            if absent := missing(extra):
                return f"it needs {absent}"
        return self._problem_of_folder() or self._problem_of_bucket() or self._problem_of_files()

    def _problem_of_folder(self) -> str | None:
        if self.folder is None:
            return None
        if not os.path.exists(self._sign):
            what = "is another folder than the one here" if os.path.isdir(self.folder) else "is not there"
            return (
                f"the output folder {self.folder} {what}: share it with that machine under the same path, or let "
                "output_folder be a bucket (s3://…)"
            )
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".sign-", suffix=".00000000.part"):
                pass
        except OSError as error:
            return f"it can't write into {self.folder} ({error.strerror or error}): let its user write there"
        return _lack_of_room(OutputFolder(self.folder))

    def _problem_of_bucket(self) -> str | None:
        """Put a file there and remove it, with this machine's credentials; results wait here for their upload."""
        if self.far is None:
            return None
        policy = self.far.policy.model_copy(update={"attempts": _ATTEMPTS, "backoff_max_s": 1.0})
        late = threading.Event()
        timer = threading.Timer(_BUCKET_S, late.set)
        timer.start()
        try:
            folder = FarFolder(OutputFolder(self.far.here), self.far)
            folder.prepare()
            folder.tidy()
            if lack := _lack_of_room(folder):
                return lack
            store, name = Store(self.far.url, policy, late), f"{STATE}/lock-{SIGN}{secrets.token_hex(8)}"
            store.write(name, b"")
            store.remove([name])
        except RunnerError as error:
            return str(error)
        finally:
            timer.cancel()
        return None

    @property
    def _sign(self) -> Path:
        return self.state / f"{SIGN}{self.token}"

    def _remove(self) -> None:
        """Remove the sign, and those that killed runs have left."""
        for one in self.state.glob(f"{SIGN}*"):
            one.unlink(missing_ok=True)

    def _problem_of_files(self) -> str | None:
        for name in self.files:
            try:
                with open(name, "rb"):
                    pass
            except OSError as error:
                return f"it can't read {name} ({error.strerror or error}): let it have that file under the same path"
        return None


def _lack_of_room(folder: Folder) -> str | None:
    """Say what to do if results have no room there, on their way or for good. Raises StorageError."""
    lack = folder.lack_of_room()
    return f"{folder.path}: {lack} on that machine: make space there" if lack else None
