"""Read a YAML config, whole: every problem at once, each with its file, its place and what was expected."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner.config.checks import runnable
from runner.config.chosen import Config, secrets_of
from runner.config.parts import Part, parts_of
from runner.errors import UsageError
from runner.mistakes import sentence
from runner.redact import Redactor
from runner.remote import is_remote, working_folder
from runner.settings import RunConfig
from runner.shards import Shard, shard_from
from runner.yamlfile import Document, merged, read_document

Check = Callable[[RunConfig, Path], Iterable[str]]
"""Yields the problems of a config that was read from this folder."""


def load_config(
    path: str | os.PathLike[str],
    overrides: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    check: Check | None = None,
) -> Config:
    """Read and check the YAML file at ``path``; ``overrides`` (nested like the YAML) win over it.

    ``${NAME}`` in any text is replaced by the environment variable, ``$${`` stands for ``${``. Relative paths are
    relative to the file, those in ``overrides`` to the current folder. ``check`` stands in for what a run asks beyond
    the types. Raises UsageError with every problem.
    """
    file = Path(path)
    document = read_document(file, environ)
    folder = file.absolute().parent
    return _config(document, name=str(path), base=folder, overrides=overrides or {}, check=check or runnable)


def config_from(options: Mapping[str, Any], *, name: str = "the command line") -> Config:
    """Check options given from flags or Python, nested like the YAML. Raises UsageError with every problem."""
    return _config(Document(), name=name, base=Path.cwd(), overrides=options, check=runnable, flags=name)


def _config(
    document: Document,
    *,
    name: str,
    base: Path,
    overrides: Mapping[str, Any],
    check: Check,
    flags: str = "the command line",
) -> Config:
    values = document.values
    if isinstance(values.get("protocol"), str) and isinstance(overrides.get("protocol"), Mapping):
        values = {**values, "protocol": {"preset": values["protocol"]}}
    source = _Source(name, base, overrides, check, flags, document)
    whole = merged(values, overrides)
    if whole.get("runs") is None:
        settings, wrong = _checked(whole, source)
        source.refuse([*document.problems, *wrong])
        return source.config(settings)
    common = {key: value for key, value in whole.items() if key != "runs"}
    settings, wrong = _checked({"prompts": ["-"], **common}, source)
    problems = [*document.problems, *wrong]
    if "runs" in overrides:
        problems.append("runs: expected in the YAML, not as a flag; each run is too much for one")
    if "prompts" in overrides:
        problems.append("prompts: the config has runs, each with its own prompts; take --prompts-file away")
    try:
        parts = parts_of(values | {"runs": whole["runs"]}, overrides, base)
    except UsageError as error:
        source.refuse([*problems, *error.problems])
        raise
    checked = [_checked(part.values, source) for part in parts]
    for part, (_, wrong) in zip(parts, checked, strict=True):
        problems += [f"{part.place}.{one}" for one in wrong if one not in problems]
    source.refuse(problems)
    configs = [source.config(found, part) for part, (found, _) in zip(parts, checked, strict=True)]
    source.refuse([*_shared_folders(parts, configs)])
    return replace(source.config(settings), parts=tuple(configs))


@dataclass(frozen=True, slots=True)
class _Source:
    """Where options come from: a document with this ``name``, and ``overrides`` that ``flags`` gave."""

    name: str
    base: Path
    overrides: Mapping[str, Any]
    check: Check
    flags: str
    document: Document

    def refuse(self, problems: Sequence[str]) -> None:
        """Raise UsageError if there are problems, each with where it comes from."""
        if problems:
            known = self.overrides
            raise UsageError(*(f"{self.flags if _key_of(one) in known else self.name}: {one}" for one in problems))

    def config(self, settings: RunConfig, part: Part | None = None) -> Config:
        """Return the config of checked settings; ``part`` is the run they are of."""
        output_base = Path.cwd() if "output_folder" in self.overrides else self.base
        written = self.document.written
        settings = _spooling(settings, self.base)
        given = settings.output_folder
        own = {loc[2:]: text for loc, text in written.items() if part and loc[:2] == ("runs", part.entry)}
        return Config(
            settings=settings,
            base=Path.cwd() if "prompts" in self.overrides else self.base,
            folder=self.base,
            output_folder=working_folder(given, settings.upload.spool_folder)
            if is_remote(given)
            else Path(os.path.abspath(output_base / Path(os.path.expanduser(given)))),
            remote=given.rstrip("/") if is_remote(given) else None,
            redactor=Redactor(self.document.secrets, [*secrets_of(settings)]),
            written={
                loc: text
                for loc, text in {**written, **own}.items()
                if loc[0] != "endpoints" or loc[0] not in self.overrides
            },
            name=self.name,
            shard=_shard_of(settings),
            here=Path.cwd() if "file" in self.overrides.get("log", {}) else self.base,
        )


def _spooling(settings: RunConfig, base: Path) -> RunConfig:
    """Return settings whose ``spool_folder`` is the same place whatever the current folder is."""
    spool = settings.upload.spool_folder
    if spool is None:
        return settings
    there = os.path.abspath(base / os.path.expanduser(spool))
    return settings.model_copy(update={"upload": settings.upload.model_copy(update={"spool_folder": there})})


def _checked(whole: Mapping[str, Any], source: _Source) -> tuple[Any, list[str]]:
    """Return the settings that a document gives, and what is wrong with it: then there may be none."""
    try:
        settings = RunConfig.model_validate(whole)
    except ValidationError as error:
        return None, [sentence(one, whole) for one in error.errors()]
    return settings, [*source.check(settings, source.base)]


def _shard_of(settings: RunConfig) -> Shard | None:
    """Return the shard of checked settings; None for one that nobody checked, as in a folder that is looked at."""
    with suppress(ValueError):
        return shard_from(settings.shard, os.environ) if settings.shard else None
    return None


def _shared_folders(parts: Sequence[Part], configs: Sequence[Config]) -> Iterator[str]:
    """Yield the runs whose results would get into one folder: each would take the other's for those of old lists.

    So it is with one place in a bucket.
    """
    users: dict[str, Part] = {}
    mirrors: dict[str, Part] = {}
    for part, one in zip(parts, configs, strict=True):
        first = users.setdefault(os.path.realpath(one.output_folder), part)
        if first is not part:
            which = f"{first.place} has it" if first.entry != part.entry else "two of its prompts files have it"
            given = one.settings.output_folder
            yield f"{part.place}.output_folder: expected one for each run, got {given!r}; {which}"
        if (to := one.settings.upload.to) and (first := mirrors.setdefault(to.rstrip("/"), part)) is not part:
            which = f"{first.place} has it" if first.entry != part.entry else "two of its prompts files have it"
            yield f"{part.place}.upload.to: expected one for each run, got {to!r}; {which}"


def _key_of(problem: str) -> str:
    return re.split(r"[.\[:]", problem, maxsplit=1)[0]
