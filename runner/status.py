"""How an output folder stands: what is saved, failed, missing, and what is not ours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runner import ledger
from runner.batch import CONFIG, read_all
from runner.config import Config, load_config
from runner.errors import UsageError
from runner.ledger import Recorded
from runner.records import Prompt
from runner.resume import standing, unknown_files
from runner.storage import STATE, OutputFolder


@dataclass(frozen=True, slots=True)
class Status:
    """The prompts of the last run's config, as prompts files and folder stand now.

    ``failed`` holds with each prompt what the ledger says of its last attempt; ``missing`` those never
    finished, or whose file is gone or was made with other parameters.
    """

    config: Config
    saved: list[Prompt]
    failed: list[tuple[Prompt, Recorded]]
    missing: list[Prompt]
    unknown: list[str]

    @property
    def total(self) -> int:
        return len(self.saved) + len(self.failed) + len(self.missing)

    def to_do(self) -> str:
        """Return the prompts without a result, in the prompts-file format and in their order."""
        prompts = sorted([*(prompt for prompt, _ in self.failed), *self.missing], key=lambda one: one.index)
        return "".join(f"{prompt.image}\n" for prompt in prompts)


def status_of(path: Path) -> Status:
    """Read a folder's config, prompts, ledger and files; a run may be going on in it. Raises UsageError."""
    folder = OutputFolder(path)
    if not (folder.state / CONFIG).exists():
        raise UsageError(f"{path} is no output folder of a run: it has no {STATE}/{CONFIG}")
    config = load_config(folder.state / CONFIG, {"output_folder": str(path)}, environ=_Unset(os.environ))
    prompts = read_all(config)
    history = ledger.replay(folder.state / ledger.LEDGER)
    files = folder.files()
    found = standing(prompts, history, files, seed=config.settings.seed, protocol=config.settings.protocol)
    open_prompts = [*found.pending, *(one for some in found.conflicts.values() for one in some)]
    return Status(
        config=config,
        saved=found.done,
        failed=[(one, history.failed[one.key]) for one in open_prompts if one.key in history.failed],
        missing=[one for one in open_prompts if one.key not in history.failed],
        unknown=unknown_files(prompts, history, files),
    )


class _Unset(Mapping[str, str]):
    """An environment in which an unset variable stands for itself: status needs no secrets."""

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
