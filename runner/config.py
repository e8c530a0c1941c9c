"""Read a YAML config, whole: every problem at once, each with its file, its place and what was expected."""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from runner.errors import UsageError
from runner.mistakes import sentence
from runner.records import Endpoint
from runner.redact import Redactor, is_secret_header, public_url
from runner.settings import EndpointSettings, RunConfig
from runner.yamlfile import Document, dump, escaped, read_document

Check = Callable[[RunConfig, Path], Iterable[str]]
"""Yields the problems of a config that was read from this folder."""

_HEADER_VALUE = re.compile(r"([\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")


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

    @property
    def prompts(self) -> list[str]:
        """The prompts sources, ``~`` filled in."""
        return [os.path.expanduser(source) for source in self.settings.prompts]

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints in their order, each with a name and a label no other has."""
        urls = [_base_url(one.url) for one in self.settings.endpoints]
        ports = [_port(url) for url in urls]
        common = Counter(ports)
        return tuple(
            Endpoint(
                index=index,
                url=url,
                name=given.name or _host_port(url),
                label=f"port {port}" if common[port] == 1 else _host_port(url),
                slots=given.slots,
                headers=given.headers,
                verify=_verify(given, self.folder),
            )
            for index, (given, url, port) in enumerate(zip(self.settings.endpoints, urls, ports, strict=True))
        )

    @property
    def grace_s(self) -> float:
        """How long what is in flight may take after a signal, in seconds."""
        given = self.settings.grace_s
        return self.settings.timeouts.first_byte_s if given is None else given

    def resolved_yaml(self, prompts: Sequence[str] | None = None) -> str:
        """Return the config with every default filled in, absolute paths, and no secret.

        ``prompts`` stand in, as they are, for sources that can't be read again, such as stdin.
        """
        document = self.settings.model_dump(mode="json")
        document["output_folder"] = escaped(str(self.output_folder))
        sources = prompts or [os.path.join(self.base, source) for source in self.prompts]
        document["prompts"] = [escaped(source) for source in sources]
        for endpoint, settings in zip(document["endpoints"], self.settings.endpoints, strict=True):
            verify = _verify(settings, self.folder)
            endpoint["verify"] = escaped(verify) if isinstance(verify, str) else verify
            endpoint["url"] = public_url(endpoint["url"])
            endpoint["headers"] = {
                name: self.redactor.header(name, value) for name, value in endpoint["headers"].items()
            }
        return dump(document)


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
    return _config(Document(), name=name, base=Path.cwd(), overrides=options, check=runnable)


def merged(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``document`` with ``overrides`` laid over it, mappings merged key by key."""
    result = dict(document)
    for key, value in overrides.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return result


def json_schema() -> str:
    """Return the JSON schema of the config file, for editors."""
    return json.dumps(RunConfig.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def _config(document: Document, *, name: str, base: Path, overrides: Mapping[str, Any], check: Check) -> Config:
    whole = merged(document.values, overrides)
    problems = document.problems
    try:
        settings = RunConfig.model_validate(whole)
        problems += check(settings, base)
    except ValidationError as error:
        problems += [sentence(one, whole) for one in error.errors()]
    if problems:
        raise UsageError(*(f"{_source(problem, name, overrides)}: {problem}" for problem in problems))
    output_base = Path.cwd() if "output_folder" in overrides else base
    return Config(
        settings=settings,
        base=Path.cwd() if "prompts" in overrides else base,
        folder=base,
        output_folder=Path(os.path.abspath(output_base / Path(os.path.expanduser(settings.output_folder)))),
        redactor=Redactor(document.secrets, _literal_secrets(settings, document.secrets)),
    )


def runnable(settings: RunConfig, base: Path) -> Iterator[str]:
    """Yield what the types can't say: URLs and files that are none, and names and addresses that stand twice."""
    if "\0" in settings.output_folder:
        yield f"output_folder: expected a path, got {settings.output_folder!r}"
    names: dict[str, int] = {}
    urls: dict[str, int] = {}
    for index, endpoint in enumerate(settings.endpoints):
        if problem := _url_problem(endpoint):
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
        authorities = _verify(endpoint, base)
        if isinstance(authorities, str) and not _holds_certificates(authorities):
            yield f"endpoints[{index}].verify: expected true, false or a file of certificates, got {authorities!r}"
        for header, value in endpoint.headers.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", header) or not _HEADER_VALUE.fullmatch(value):
                yield f"endpoints[{index}].headers: {header!r} is no valid header (RFC 9110)"


def _url_problem(endpoint: EndpointSettings) -> str | None:
    try:
        parts = urlsplit(endpoint.url)
        host = parts.hostname or ""
        labels = all(0 < len(label) <= 63 for label in host.removesuffix(".").split("."))
        usable = parts.scheme in ("http", "https") and re.fullmatch(r"[\w.:%-]+", host) and parts.port != 0 and labels
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", endpoint.url):
        return f"expected an http or https URL such as http://127.0.0.1:10006, got {public_url(endpoint.url)!r}"
    if parts.query or parts.fragment:
        return f"expected a base URL without ? and #, got {public_url(endpoint.url)!r}"
    return None


def _source(problem: str, name: str, overrides: Mapping[str, Any]) -> str:
    key = re.split(r"[.\[:]", problem, maxsplit=1)[0]
    return "the command line" if key in overrides else name


def _literal_secrets(settings: RunConfig, named: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets that stand in the config itself: secret headers, their tokens, and the URLs' user info."""
    for endpoint in settings.endpoints:
        secrets = _user_info(endpoint.url)
        for name, value in endpoint.headers.items():
            secrets += [value, value.rpartition(" ")[2]] if is_secret_header(name) else []
        yield from (one for one in secrets if one and not any(value in one for value in named.values() if value))


def _verify(endpoint: EndpointSettings, base: Path) -> bool | str:
    """Return what to believe about an endpoint's certificate; a file is relative to ``base``."""
    if isinstance(endpoint.verify, bool):
        return endpoint.verify
    return os.path.join(base, os.path.expanduser(endpoint.verify))


def _holds_certificates(path: str) -> bool:
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError):  # there is no such file, or it holds no certificates
        return False
    return True


def _user_info(url: str) -> list[str]:
    """Return the user info of a URL in every form in which a server may say it back."""
    given = urlsplit(url).netloc.rpartition("@")[0]
    user, _, password = given.partition(":")
    plain = f"{unquote(user)}:{unquote(password)}"
    return [given, password, unquote(password), base64.b64encode(plain.encode()).decode()] if given else []


def _base_url(url: str) -> str:
    return url.rstrip("/")


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _host_port(url: str) -> str:
    return f"{urlsplit(url).hostname}:{_port(url)}"
