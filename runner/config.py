"""Read a YAML config, whole: every problem at once, each with its file, its place and what was expected."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from runner.errors import UsageError
from runner.records import Endpoint
from runner.redact import Redactor, is_secret_header, public_url
from runner.settings import NOT_YET, EndpointSettings, RunConfig, Section

_YAML_MAX_BYTES = 1024 * 1024
_NODES_MAX = 200_000
_VARIABLE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}")
_Loc = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """A validated config and where it came from.

    Relative prompts paths are relative to ``base``; ``output_folder`` is resolved already. ``ignored`` names the
    options given that this version does not act on yet.
    """

    settings: RunConfig
    base: Path
    output_folder: Path
    redactor: Redactor = field(default_factory=Redactor)
    ignored: tuple[str, ...] = ()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints in their order, each with a name and a label no other has."""
        urls = [_base_url(one.url) for one in self.settings.endpoints]
        ports = [_port(url) for url in urls]
        return tuple(
            Endpoint(
                index=index,
                url=url,
                name=given.name or _host_port(url),
                label=f"port {port}" if ports.count(port) == 1 else _host_port(url),
                slots=given.slots,
                headers=given.headers,
            )
            for index, (given, url, port) in enumerate(zip(self.settings.endpoints, urls, ports, strict=True))
        )

    def resolved_yaml(self, prompts: Sequence[str] | None = None) -> str:
        """Return the config with every default filled in, absolute paths, and no secret.

        ``prompts`` stand in for sources that can't be read again, such as stdin.
        """
        document = self.settings.model_dump(mode="json")
        document["output_folder"] = str(self.output_folder)
        document["prompts"] = [os.path.abspath(self.base / source) for source in prompts or self.settings.prompts]
        for endpoint in document["endpoints"]:
            endpoint["url"] = public_url(endpoint["url"])
            endpoint["headers"] = {
                name: "***" if is_secret_header(name) and "${" not in self.redactor.text(value) else value
                for name, value in endpoint["headers"].items()
            }
        return self.redactor.text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def load_config(
    path: str | os.PathLike[str],
    overrides: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Read and check the YAML file at ``path``; ``overrides`` (nested like the YAML) win over it.

    ``${NAME}`` in any text is replaced by the environment variable, ``$${`` stands for ``${``. Relative paths are
    relative to the file, those in ``overrides`` to the current folder. Raises UsageError with every problem.
    """
    file = Path(path)
    used: dict[str, str] = {}
    problems: list[str] = []
    document = _Expander(environ, used, problems).expand(_read(file), ())
    return _config(document, used, problems, name=str(path), base=file.absolute().parent, overrides=overrides or {})


def config_from(options: Mapping[str, Any], *, name: str = "the command line") -> Config:
    """Check options given from flags or Python, nested like the YAML. Raises UsageError with every problem."""
    return _config({}, {}, [], name=name, base=Path.cwd(), overrides=options)


def assigned(assignment: str) -> dict[str, Any]:
    """Turn ``retry.attempts=5`` into ``{"retry": {"attempts": 5}}``; the value is YAML. Raises UsageError.

    >>> assigned("retry.attempts=5")
    {'retry': {'attempts': 5}}
    """
    name, equals, text = assignment.partition("=")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {assignment}: the value is not valid YAML") from error
    if not equals or not name.strip():
        raise UsageError(f"--set {assignment}: expected NAME=VALUE such as retry.attempts=5")
    for step in reversed(name.strip().split(".")):
        value = {step: value}
    return dict(value)


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


def _config(
    document: dict[str, Any],
    used: dict[str, str],
    problems: list[str],
    *,
    name: str,
    base: Path,
    overrides: Mapping[str, Any],
) -> Config:
    whole = merged(document, overrides)
    try:
        settings = RunConfig.model_validate(whole)
        problems += _beyond_types(settings)
    except ValidationError as error:
        problems += [_sentence(one, whole) for one in error.errors()]
    if problems:
        raise UsageError(*(f"{_source(problem, name, overrides)}: {problem}" for problem in problems))
    output_base = Path.cwd() if "output_folder" in overrides else base
    return Config(
        settings=settings,
        base=Path.cwd() if "prompts" in overrides else base,
        output_folder=Path(os.path.abspath(output_base / settings.output_folder)),
        redactor=Redactor(used, _literal_secrets(settings, used)),
        ignored=tuple(option for option in NOT_YET if _differs(settings, option)),
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        with open(file, "rb") as stream:
            raw = stream.read(_YAML_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{file}: can't be read: {error.strerror}") from error
    if len(raw) > _YAML_MAX_BYTES:
        raise UsageError(f"{file}: expected a config of at most {_YAML_MAX_BYTES} bytes; is this the right file?")
    try:
        document = yaml.load(raw, _UniqueKeys)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}" if mark else str(file)
        raise UsageError(f"{place}: not valid YAML: {error.problem or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        got = "an empty file" if document is None else f"a {type(document).__name__}"
        raise UsageError(f"{file}: expected a mapping with endpoints and prompts, got {got}")
    return document


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader, except that a key given twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str):
                if key in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


class _Expander:
    """Replaces ``${NAME}`` in every text; notes in ``used`` what was replaced, in ``problems`` what is unset."""

    def __init__(self, environ: Mapping[str, str], used: dict[str, str], problems: list[str]) -> None:
        self._environ = environ
        self._used = used
        self._problems = problems
        self._nodes = 0

    def expand(self, node: Any, loc: _Loc) -> Any:
        self._nodes += 1
        if self._nodes > _NODES_MAX:
            raise UsageError(f"the config has more than {_NODES_MAX} values; is an alias repeated without end?")
        if isinstance(node, dict):
            return {key: self.expand(value, (*loc, key)) for key, value in node.items()}
        if isinstance(node, list):
            return [self.expand(value, (*loc, index)) for index, value in enumerate(node)]
        if not isinstance(node, str):
            return node
        return _VARIABLE.sub(lambda found: self._value(found, loc), node)

    def _value(self, found: re.Match[str], loc: _Loc) -> str:
        escaped, name = found.groups()
        if escaped:
            return f"${{{name}}}"
        if name not in self._environ:
            self._problems.append(f"{_dotted(loc)}: the environment variable {name} is not set")
            return ""
        self._used[name] = self._environ[name]
        return self._used[name]


def _beyond_types(settings: RunConfig) -> Iterator[str]:
    """Yield what the types can't say: URLs that are none, and names and addresses that stand twice."""
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
        for header, value in endpoint.headers.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", header) or re.search(r"[\r\n\0]", value):
                yield f"endpoints[{index}].headers: {header!r} is no valid header (RFC 9110)"


def _url_problem(endpoint: EndpointSettings) -> str | None:
    try:
        parts = urlsplit(endpoint.url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", endpoint.url):
        return f"expected an http or https URL such as http://127.0.0.1:10006, got {public_url(endpoint.url)!r}"
    if parts.query or parts.fragment:
        return f"expected a base URL without ? and #, got {public_url(endpoint.url)!r}"
    return None


def _sentence(error: Any, document: Any) -> str:
    """Say one of pydantic's errors as ``place: expected …, got …``."""
    loc: _Loc = error["loc"]
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return f"{_dotted(loc)}: required, but missing"
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(loc[-1]), _keys_at(loc[:-1]), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(_keys_at(loc[:-1]))}"
        return f"{_dotted(loc)}: unknown key{hint}"
    if kind == "value_error" and str(context.get("error", "")).startswith("expected"):
        return f"{_dotted(loc)}: {context['error']}"
    expected = _expected(kind, context, _field_at(loc))
    return f"{_dotted(loc)}: expected {expected}, got {_shown(_value_at(document, loc))}"


def _expected(kind: str, context: Mapping[str, Any], at: FieldInfo | None) -> str:
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_pattern_mismatch":
        return "auto or a file extension such as ply"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return "a mapping"
    if kind == "list_type" or (kind == "too_short" and context.get("field_type") == "List"):
        return "a list with at least one entry"
    if kind in ("string_type", "string_too_short"):
        return "a text"
    if kind.startswith("bool"):
        return "true or false"
    types = _types(at.annotation) if at else set()
    noun = "an integer" if int in types else "a number" if float in types else "another value"
    return noun + _bounds(at)


def _bounds(at: FieldInfo | None) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f" {sign} {getattr(one, name)}"
        for one in (at.metadata if at else [])
        for name, sign in signs.items()
        if getattr(one, name, None) is not None
    ]
    return " and".join(found)


def _field_at(loc: _Loc) -> FieldInfo | None:
    """Return the field that ``loc`` leads to, through nested sections and lists."""
    model: type[BaseModel] | None = RunConfig
    found: FieldInfo | None = None
    for step in loc:
        if isinstance(step, int):
            continue
        if model is None or step not in model.model_fields:
            return found
        found = model.model_fields[step]
        model = next((one for one in _types(found.annotation) if issubclass(one, Section)), None)
    return found


def _keys_at(loc: _Loc) -> list[str]:
    at = _field_at(loc)
    models = [one for one in _types(at.annotation) if issubclass(one, Section)] if at else [RunConfig]
    return list(models[0].model_fields) if models else []


def _types(annotation: Any) -> set[type]:
    """Return the classes inside an annotation: of lists their items', of unions all but None.

    >>> _types(list[int] | None) == {int}
    True
    """
    origin = get_origin(annotation)
    if origin is Literal:
        return {str}
    if origin in (list, Union, UnionType) or hasattr(annotation, "__metadata__"):
        inner = [annotation.__origin__] if hasattr(annotation, "__metadata__") else get_args(annotation)
        return {one for part in inner for one in _types(part)}
    return {annotation} if isinstance(annotation, type) and annotation is not NoneType else set()


def _value_at(document: Any, loc: _Loc) -> Any:
    for step in loc:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            break
    return document


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _dotted(loc: Sequence[int | str]) -> str:
    """Return ``endpoints[2].slots`` for ``("endpoints", 2, "slots")``."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or "the config"


def _source(problem: str, name: str, overrides: Mapping[str, Any]) -> str:
    key = re.split(r"[.\[:]", problem, maxsplit=1)[0]
    return "the command line" if key in overrides else name


def _differs(settings: RunConfig, option: str) -> bool:
    given: Any = settings
    default: Any = RunConfig.model_construct(endpoints=[], prompts=[])
    for step in option.split("."):
        given, default = getattr(given, step), getattr(default, step)
    return bool(given != default)


def _literal_secrets(settings: RunConfig, named: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets that stand in the config itself: secret headers, their tokens, and the URLs' user info."""
    for endpoint in settings.endpoints:
        secrets = [urlsplit(endpoint.url).netloc.rpartition("@")[0]]
        for name, value in endpoint.headers.items():
            secrets += [value, value.rpartition(" ")[2]] if is_secret_header(name) else []
        yield from (one for one in secrets if one and not any(value in one for value in named.values() if value))


def _base_url(url: str) -> str:
    return url.rstrip("/")


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _host_port(url: str) -> str:
    return f"{urlsplit(url).hostname}:{_port(url)}"
