"""Say what pydantic found wrong with a config: the place, what was expected, what was given."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from runner.sections import Section
from runner.settings import RunConfig
from runner.yamlfile import Loc, dotted

_PATTERNS: dict[int | str, str] = {
    "extension": "auto or a file extension such as ply",
    "path": "a path that begins with /",
    "version": "a path that begins with /",
    "method": "an HTTP method such as POST",
}
_CREDENTIALS = frozenset(["url", "headers", "query", "bearer", "basic", "proxy", "cert", "key", "command"])
_WITH_HEADERS = frozenset(["protocol", "request", "upload", "poll", "fetch"])
"""Sections of a protocol whose headers and query may hold credentials."""


def sentence(error: Any, document: Any) -> str:
    """Return one of pydantic's errors as ``place: expected …, got …``; ``document`` is what was validated."""
    loc: Loc = error["loc"]
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return f"{dotted(loc)}: required, but missing"
    if kind == "invalid_key":
        known = ", ".join(_keys_at(loc[:-1]))
        return f"{dotted(loc[:-1])}: a key is no text (YAML reads on, off, yes and no as none); known are {known}"
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(loc[-1]), _keys_at(loc[:-1]), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(_keys_at(loc[:-1]))}"
        return f"{dotted(loc)}: unknown key{hint}"
    if kind == "value_error" and str(context.get("error", "")).startswith("expected"):
        return f"{dotted(loc)}: {context['error']}"
    expected = _PATTERNS.get(loc[-1]) if kind == "string_pattern_mismatch" else None
    expected = expected or _expected(kind, context, field_at(loc))
    value = _value_at(document, loc)
    return f"{dotted(loc)}: expected {expected}, got {_kind(value) if _may_be_secret(loc, value) else _shown(value)}"


def field_at(loc: Loc) -> FieldInfo | None:
    """Return the field that ``loc`` leads to, through nested sections and lists."""
    model: type[BaseModel] | None = RunConfig
    found: FieldInfo | None = None
    for step in loc:
        if isinstance(step, int):
            continue
        known = _fields_of(model) if model else {}
        if step not in known:
            return found
        found = known[step]
        model = next((one for one in _types(found.annotation) if issubclass(one, Section)), None)
    return found


def bounds(at: FieldInfo | None) -> str:
    """Say the bounds of a number, such as `` ≥ 1``; "" if it has none."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f" {sign} {getattr(one, name)}"
        for one in (at.metadata if at else [])
        for name, sign in signs.items()
        if getattr(one, name, None) is not None
    ]
    return " and".join(found)


def _expected(kind: str, context: Mapping[str, Any], at: FieldInfo | None) -> str:
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_pattern_mismatch":
        return f"a text like {context['pattern']}"
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
    return noun + bounds(at)


def _keys_at(loc: Loc) -> list[str]:
    at = field_at(loc)
    models = [one for one in _types(at.annotation) if issubclass(one, Section)] if at else [RunConfig]
    return list(_fields_of(models[0])) if models else []


def _fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a section by the names that the YAML has for them."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


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


def _value_at(document: Any, loc: Loc) -> Any:
    for step in loc:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            break
    return document


def _may_be_secret(loc: Loc, value: Any) -> bool:
    """Tell whether a value is one that no error may show: credentials, or what may hold them."""
    if loc[0] == "protocol":
        holds_some = loc[-1] in _WITH_HEADERS and isinstance(value, dict | list)
        return holds_some or not {"headers", "query"}.isdisjoint(loc)
    if "notify" in loc:
        return not _CREDENTIALS.isdisjoint(loc) or loc[-1] == "notify"
    if loc[0] != "endpoints":
        return False
    return not _CREDENTIALS.isdisjoint(loc) or (bool(value) and isinstance(value, dict | list))


def _kind(value: Any) -> str:
    kinds = {str: "a text", bool: "true or false", int: "a number", float: "a number", dict: "a mapping"}
    return "nothing" if value in (None, "") else kinds.get(type(value), "a list")


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False) if not isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):  # a value that holds itself
        text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
