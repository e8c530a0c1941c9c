"""Read a YAML config, whole: every problem at once, each with its file, its place and what was expected."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from runner import access, watching
from runner.errors import UsageError
from runner.mistakes import sentence
from runner.parts import COMMON, Part, parts_of
from runner.protocols import Block, Protocol, presets, problems
from runner.records import Endpoint
from runner.redact import Redactor, public_url
from runner.settings import RunConfig, Timeouts
from runner.yamlfile import Document, Loc, dump, escaped, merged, read_document

_WITH_CREDENTIALS = ("request", "upload", "poll", "fetch", "results")

Check = Callable[[RunConfig, Path], Iterable[str]]
"""Yields the problems of a config that was read from this folder."""


@dataclass(frozen=True, slots=True)
class Config:
    """A validated config and where it came from.

    Relative prompts paths are relative to ``base``, other files to ``folder``; ``output_folder`` is resolved already.
    """

    settings: RunConfig
    base: Path
    folder: Path
    output_folder: Path
    redactor: Redactor = field(default_factory=Redactor)
    written: Mapping[Loc, str] = field(default_factory=dict)
    """The texts with secret ``${NAME}`` in them as they stood in the file, by their place."""
    name: str = ""
    """The config's file, as the user wrote it."""
    here: Path = field(default_factory=Path.cwd)
    """What ``log.file`` is relative to."""
    parts: tuple[Config, ...] = ()
    """The runs of a config that has ``runs``; its own settings are what they have in common."""

    @property
    def prompts(self) -> list[str]:
        """The prompts sources, ``~`` filled in."""
        return [os.path.expanduser(source) for source in self.settings.prompts]

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints in their order, each with a name and a label no other has."""
        urls = [access.url_of(one) for one in self.settings.endpoints]
        ports = [_port(url) for url in urls]
        common = Counter(ports)
        return tuple(
            Endpoint(
                index=index,
                url=url,
                name=given.name or _host_port(url),
                label=f"port {port}" if common[port] == 1 else _host_port(url),
                slots=given.slots,
                headers=access.headers_of(given),
                query=given.query,
                verify=access.file_of(given.verify, self.folder) if isinstance(given.verify, str) else given.verify,
                cert=self._file(given.cert),
                key=self._file(given.key),
                proxy=access.proxy_of(given),
            )
            for index, (given, url, port) in enumerate(zip(self.settings.endpoints, urls, ports, strict=True))
        )

    @property
    def protocol(self) -> Protocol:
        """How the servers speak. Its name doesn't change with what stands in the variables of its query."""
        block = self.settings.protocol
        asked = {name: section for name in ("request", "upload") if (section := getattr(block, name))}
        as_written = {
            name: section.model_copy(update={"query": section.query | self._written(name, "query")})
            for name, section in asked.items()
        }
        return Protocol(block, named=block.model_copy(update=as_written))

    @property
    def timeouts(self) -> Timeouts:
        """The clocks: those that the config sets, else the protocol's, else the defaults."""
        given = self.settings.timeouts
        protocols = self.settings.protocol.timeouts.model_dump(exclude_none=True)
        return given.model_copy(
            update={name: s for name, s in protocols.items() if name not in given.model_fields_set}
        )

    @property
    def grace_s(self) -> float:
        """How long what is in flight may take after a signal, in seconds."""
        given = self.settings.grace_s
        return self.timeouts.first_byte_s if given is None else given

    @property
    def textfile(self) -> Path | None:
        """Where the metrics go; None: nowhere."""
        return watching.textfile_of(self.settings.metrics, self.folder)

    def resolved_yaml(self, prompts: Sequence[str] | None = None) -> str:
        """Return the config with every default filled in, absolute paths, and no secret.

        ``prompts`` stand in, as they are, for sources that can't be read again, such as stdin.
        """
        document = self.settings.model_dump(mode="json")
        document["protocol"] = self._resolved_protocol()
        document["output_folder"] = escaped(str(self.output_folder))
        sources = prompts or [
            public_url(source) if "://" in source else os.path.join(self.base, source) for source in self.prompts
        ]
        document["prompts"] = [escaped(source) for source in sources]
        document["metrics"]["textfile"] = escaped(str(self.textfile)) if self.textfile else None
        document["notify"] |= watching.NOBODY
        for index, settings in enumerate(self.settings.endpoints):
            written = {loc[2:]: text for loc, text in self.written.items() if loc[:2] == ("endpoints", index)}
            document["endpoints"][index] |= access.public(settings, written, self.folder)
        return dump(document)

    @property
    def runs(self) -> tuple[Config, ...]:
        """Each of its runs: those of ``runs``, or just this one."""
        return self.parts or (self,)

    def _file(self, path: str | None) -> str | None:
        return None if path is None else access.file_of(path, self.folder)

    def _written(self, section: str, part: str) -> dict[str, str]:
        """Return the texts with variables in headers or query of a section of the protocol, as they stood."""
        found = {loc[3:]: text for loc, text in self.written.items() if loc[:3] == ("protocol", section, part)}
        return {str(loc[0]): text for loc, text in found.items() if len(loc) == 1}

    def _resolved_protocol(self) -> Any:
        """Return the preset's name, if it is just that; else all of the block."""
        block = self.settings.protocol
        if block.preset and block == Block.model_validate(presets.expanded(block.preset)):
            return block.preset
        document = block.model_dump(mode="json", by_alias=True, exclude_unset=True)
        for name in _WITH_CREDENTIALS:
            section = document.get(name) or {}
            if "headers" in section:
                section["headers"] = access.public_headers(section["headers"], self._written(name, "headers"))
            if "query" in section:
                section["query"] = access.public_query(section["query"], self._written(name, "query"))
        return document


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


def json_schema() -> str:
    """Return the JSON schema of the config file, for editors."""
    schema = RunConfig.model_json_schema()
    own = {name: one for name, one in schema["properties"].items() if name not in (*COMMON, "runs")}
    entry = {"anyOf": [{"type": "string"}, {"type": "object", "properties": own, "additionalProperties": False}]}
    said = {name: schema["properties"]["runs"][name] for name in ("title", "description", "default")}
    several = {"type": "array", "items": entry, "minItems": 1}
    schema["properties"]["runs"] = said | {"anyOf": [*entry["anyOf"], several, {"type": "null"}]}
    schema["required"].remove("prompts")
    schema["anyOf"] = [{"required": ["prompts"]}, {"required": ["runs"]}]
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _secrets(settings: RunConfig) -> Iterator[str]:
    for endpoint in settings.endpoints:
        yield from access.secrets_of(endpoint)
    yield from watching.secrets_of(settings.notify)
    for section in _WITH_CREDENTIALS:
        if asked := getattr(settings.protocol, section):
            yield from access.secret_headers(asked.headers)
            yield from access.secret_query(asked.query)


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
        own = {loc[2:]: text for loc, text in written.items() if part and loc[:2] == ("runs", part.entry)}
        return Config(
            settings=settings,
            base=Path.cwd() if "prompts" in self.overrides else self.base,
            folder=self.base,
            output_folder=Path(os.path.abspath(output_base / Path(os.path.expanduser(settings.output_folder)))),
            redactor=Redactor(self.document.secrets, [*_secrets(settings)]),
            written={
                loc: text
                for loc, text in {**written, **own}.items()
                if loc[0] != "endpoints" or loc[0] not in self.overrides
            },
            name=self.name,
            here=Path.cwd() if "file" in self.overrides.get("log", {}) else self.base,
        )


def _checked(whole: Mapping[str, Any], source: _Source) -> tuple[Any, list[str]]:
    """Return the settings that a document gives, and what is wrong with it: then there may be none."""
    try:
        settings = RunConfig.model_validate(whole)
    except ValidationError as error:
        return None, [sentence(one, whole) for one in error.errors()]
    return settings, [*source.check(settings, source.base)]


def _shared_folders(parts: Sequence[Part], configs: Sequence[Config]) -> Iterator[str]:
    """Yield the runs whose results would get into one folder: each would take the other's for those of old lists."""
    users: dict[str, Part] = {}
    for part, one in zip(parts, configs, strict=True):
        first = users.setdefault(os.path.realpath(one.output_folder), part)
        if first is not part:
            which = f"{first.place} has it" if first.entry != part.entry else "two of its prompts files have it"
            given = one.settings.output_folder
            yield f"{part.place}.output_folder: expected one for each run, got {given!r}; {which}"


def runnable(settings: RunConfig, base: Path) -> Iterator[str]:
    """Yield what the types can't say: URLs and files that are none, and names and addresses that stand twice."""
    if "\0" in settings.output_folder:
        yield f"output_folder: expected a path, got {settings.output_folder!r}"
    yield from problems(settings.protocol)
    yield from watching.problems(settings, base)
    names: dict[str, int] = {}
    urls: dict[str, int] = {}
    for index, endpoint in enumerate(settings.endpoints):
        if problem := access.url_problem(endpoint):
            yield f"endpoints[{index}].url: {problem}"
            continue
        url = _base_url(endpoint.url)
        if url in urls:
            yield (
                f"endpoints[{index}].url: {public_url(url)} stands already at endpoints[{urls[url]}]; "
                "for two generations at a time give that one `slots: 2`"
            )
        elif (name := endpoint.name or _host_port(url)) in names:
            yield f"endpoints[{index}].name: {name!r} is already the name of endpoints[{names[name]}]"
        names.setdefault(endpoint.name or _host_port(url), index)
        urls.setdefault(url, index)
        yield from (f"endpoints[{index}]{problem}" for problem in access.problems(endpoint, base))


def _key_of(problem: str) -> str:
    return re.split(r"[.\[:]", problem, maxsplit=1)[0]


def _base_url(url: str) -> str:
    return url.rstrip("/")


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _host_port(url: str) -> str:
    return f"{urlsplit(url).hostname}:{_port(url)}"
