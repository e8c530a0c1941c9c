"""How an output folder stands: what is saved, failed, missing, and what is not ours."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.batch import CONFIG, history_of, read_all, standing_of
from runner.config import Config, load_config
from runner.errors import UsageError
from runner.ledger import Recorded
from runner.prompts import FORMATS, encode, needs_json, written
from runner.records import Prompt
from runner.resume import unknown_files
from runner.settings import RunConfig
from runner.storage import STATE, OutputFolder


@dataclass(frozen=True, slots=True)
class Status:
    """The prompts of the last run's config, as prompts files and folder stand now.

    ``earlier`` are results that the ledger knows, of prompts no longer in the list; ``unknown`` files it does not
    know. ``failed`` holds with each prompt what the ledger says of its last attempt; ``missing`` those never
    finished, or whose file is gone or was made with other parameters.
    """

    config: Config
    saved: int
    failed: list[tuple[Prompt, Recorded]]
    missing: list[Prompt]
    earlier: list[str]
    unknown: list[str]

    @property
    def total(self) -> int:
        return self.saved + len(self.failed) + len(self.missing)

    def to_do(self, file: str = "-") -> str:
        """Return the prompts without a result, in their order, as ``file`` can hold them: plain text if they are all
        images and no more, else JSON lines.

        Raises UsageError if its name says that it holds something else, and with ``keys: index-name``: a list of some
        prompts would number them anew.
        """
        if self.config.settings.output.keys == "index-name":
            raise UsageError(
                "--missing-file: with output.keys: index-name a list of the missing prompts would number them anew; "
                "run the same command again instead, it does just these"
            )
        prompts = sorted([*(prompt for prompt, _ in self.failed), *self.missing], key=lambda one: one.index)
        packed = [encode(prompt).decode(errors="surrogatepass") for prompt in prompts]
        kind = FORMATS.get(os.path.splitext(file)[1].lower(), "text")
        as_json = kind == "jsonl" or needs_json(packed)
        if file != "-" and kind != "jsonl" and (as_json or kind != "text" or file.lower().endswith(".gz")):
            raise UsageError(f"--missing-file {file}: expected a name that ends in .jsonl{_OR_TXT[as_json]}")
        return "".join(written(packed, as_json=as_json))


_OR_TXT = {
    False: " or .txt",
    True: ", or -: these prompts are more than images, and a plain text can't hold them",
}


def status_of(path: Path) -> Status:
    """Read a folder's config, prompts, ledger and files; a run may be going on in it. Raises UsageError."""
    folder = OutputFolder(path)
    if not os.path.exists(folder.state / CONFIG):
        raise UsageError(f"{path} is no output folder of a run: it has no {STATE}/{CONFIG}")
    config = load_config(
        folder.state / CONFIG, {"output_folder": str(path)}, environ=_Unset(os.environ), check=_anything
    )
    prompts = read_all(config)
    history = history_of(config)
    files = folder.files()
    found = standing_of(config, prompts, history)
    current = {name for key, _ in prompts.named() for name in history.files_of(key)}
    unknown = unknown_files(history, files)
    still_open = [*found.pending, *(index for some in found.conflicts.values() for index in some)]
    open_prompts = [prompts[index] for index in still_open]
    failures = {one.key: failure for one in open_prompts if (failure := history.failed.get(one.key))}
    return Status(
        config=config,
        saved=len(found.done),
        failed=[(one, failures[one.key]) for one in open_prompts if one.key in failures],
        missing=[one for one in open_prompts if one.key not in failures],
        earlier=sorted({*files} - {*unknown} - {name for name in current if name}),
        unknown=unknown,
    )


def _anything(settings: RunConfig, folder: Path) -> Iterator[str]:
    """Ask nothing beyond the types: nothing is sent, and what was needed for that may be gone."""
    yield from ()


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
