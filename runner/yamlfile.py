"""A YAML file as a document: read safely and whole, keys unique, environment variables filled in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from runner.errors import UsageError

_YAML_MAX_BYTES = 1024 * 1024
_NODES_MAX = 200_000
_VARIABLE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}")

_SECRET = frozenset(["headers", "query", "bearer", "basic", "proxy"])
"""Keys under which the environment's values are secrets."""

_SECRET_BELOW = frozenset([("notify", "url"), ("notify", "command")])
"""The same for keys that hold secrets only there: the URL of a webhook is one."""

Loc = tuple[int | str, ...]
"""A place in a document: keys and list indices from the top."""


@dataclass(slots=True)
class Document:
    """What a file says.

    ``secrets``: the environment's variables in places that hold secrets; ``written``: the texts there, as they stand
    in the file; ``problems`` name unset ones.
    """

    values: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    written: dict[Loc, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_document(file: Path, environ: Mapping[str, str] = os.environ) -> Document:
    """Read ``file`` and fill in ``${NAME}``; ``$${`` stands for ``${``. Raises UsageError if it is no mapping."""
    document = Document()
    try:
        document.values = _Expander(environ, document).expand(_read(file), ())
    except RecursionError as error:
        raise UsageError(f"{file}: it is nested too deep; does an alias hold itself?") from error
    return document


def parsed(text: str) -> dict[str, Any]:
    """Return the mapping that YAML of our own says; nothing is filled in."""
    return dict(yaml.load(text, _UniqueKeys))


def merged(document: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``document`` with ``overrides`` laid over it, mappings merged key by key."""
    result = dict(document)
    for key, value in overrides.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return result


def dump(values: Mapping[str, Any]) -> str:
    """Return values as YAML, in their order."""
    return str(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def assigned(assignment: str) -> dict[str, Any]:
    """Turn ``retry.attempts=5`` into ``{"retry": {"attempts": 5}}``; the value is YAML. Raises UsageError.

    >>> assigned("retry.attempts=5")
    {'retry': {'attempts': 5}}
    """
    name, equals, text = assignment.partition("=")
    try:
        value = yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {assignment}: the value is not valid YAML") from error
    if not equals or not name.strip():
        raise UsageError(f"--set {assignment}: expected NAME=VALUE such as retry.attempts=5")
    for step in reversed(name.strip().split(".")):
        value = {step: value}
    return dict(value)


def escaped(text: str) -> str:
    """Return ``text`` as a config must have it to mean just that.

    >>> escaped("a${B}.png")
    'a$${B}.png'
    """
    return _VARIABLE.sub(lambda found: f"${found.group()}", text)


def dotted(loc: Sequence[int | str]) -> str:
    """Return ``endpoints[2].slots`` for ``("endpoints", 2, "slots")``."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or "the config"


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
    except RecursionError as error:
        raise UsageError(f"{file}: not valid YAML: it is nested too deep") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        got = "an empty file" if document is None else f"a {type(document).__name__}"
        raise UsageError(f"{file}: expected a mapping with endpoints and prompts, got {got}")
    return document


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader, except that a key given twice is an error instead of the last one winning.

    And ``6:30`` is a text, as in YAML 1.2, not 390.
    """

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


def _without_base_60() -> dict[str | None, list[tuple[str, re.Pattern[str]]]]:
    """Return what tells plain scalars apart, without numbers such as ``6:30``."""
    tags = {"tag:yaml.org,2002:int": _INT, "tag:yaml.org,2002:float": _FLOAT}
    return {
        first: [(tag, tags.get(tag, pattern)) for tag, pattern in resolvers]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_INT = re.compile(r"^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
"""What PyYAML takes for numbers (YAML 1.1), but for those in base 60."""

_UniqueKeys.yaml_implicit_resolvers = _without_base_60()


class _Expander:
    """Replaces ``${NAME}`` in every text, and notes in the document what was used and what is unset."""

    def __init__(self, environ: Mapping[str, str], document: Document) -> None:
        self._environ = environ
        self._document = document
        self._nodes = 0

    def expand(self, node: Any, loc: Loc) -> Any:
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

    def _value(self, found: re.Match[str], loc: Loc) -> str:
        escaped, name = found.groups()
        if escaped:
            return f"${{{name}}}"
        if name not in self._environ:
            self._document.problems.append(f"{dotted(loc)}: the environment variable {name} is not set")
            return found.group()
        if not _SECRET.isdisjoint(loc) or not _SECRET_BELOW.isdisjoint(pairwise(loc)):
            self._document.secrets[name] = self._environ[name]
            self._document.written[loc] = found.string
        return self._environ[name]
