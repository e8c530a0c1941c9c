"""A config that was read and checked: what a run does, and where."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runner import access, watching
from runner.protocols import Block, Protocol, presets
from runner.records import Endpoint
from runner.redact import Redactor, public_url
from runner.remote import Far
from runner.settings import RunConfig, Timeouts
from runner.shards import Shard
from runner.yamlfile import Loc, dump, escaped

_WITH_CREDENTIALS = ("request", "upload", "poll", "fetch", "results")


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
    remote: str | None = None
    """The URL of the output folder, without a slash at its end, if it is none of this machine; then
    ``output_folder`` is where its state is worked on and results wait for their upload."""
    shard: Shard | None = None
    """The share of the list that is to be done; None: all of it."""
    parts: tuple[Config, ...] = ()
    """The runs of a config that has ``runs``; its own settings are what they have in common."""

    @property
    def far(self) -> Far | None:
        """The output folder, if it is none of this machine."""
        return Far(self.remote, self.settings.upload) if self.remote else None

    @property
    def shown_folder(self) -> str:
        """What people know the output folder by."""
        return self.remote or str(self.output_folder)

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
                name=given.name or host_port(url),
                label=f"port {port}" if common[port] == 1 else host_port(url),
                slots=given.slots,
                headers=access.headers_of(given),
                query=given.query,
                verify=access.file_of(given.verify, self.folder) if isinstance(given.verify, str) else given.verify,
                cert=self._file(given.cert),
                key=self._file(given.key),
                proxy=access.proxy_of(given),
                worker=given.worker,
                spare=2 if self.remote else 1,  # one more, for one may be busy with an upload
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
        document["output_folder"] = escaped(self.shown_folder)
        sources = prompts or [
            public_url(source) if "://" in source else os.path.join(self.base, source) for source in self.prompts
        ]
        document["shard"] = str(self.shard) if self.shard else None
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


def secrets_of(settings: RunConfig) -> Iterator[str]:
    """Yield everything in the settings that nobody may see."""
    for endpoint in settings.endpoints:
        yield from access.secrets_of(endpoint)
    yield from watching.secrets_of(settings.notify)
    for section in _WITH_CREDENTIALS:
        if asked := getattr(settings.protocol, section):
            yield from access.secret_headers(asked.headers)
            yield from access.secret_query(asked.query)


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def host_port(url: str) -> str:
    """Return how an endpoint is named that has no name of its own."""
    return f"{urlsplit(url).hostname}:{_port(url)}"
