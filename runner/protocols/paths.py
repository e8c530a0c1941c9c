"""Where something stands in a JSON document: ``data.0.url``, ``images.*``."""

from __future__ import annotations

from typing import Any

from runner.protocols.template import Values, as_text, render


def find(document: Any, path: str, values: Values | None = None) -> list[Any]:
    """Return all that stands at ``path``, in its order; [] if nothing does. "" is the document itself.

    Steps are separated by dots: a number indexes a list (and may be a key), ``*`` is each entry of a list or a
    mapping. A step may be a placeholder.

    >>> find({"data": [{"url": "a"}, {"url": "b"}]}, "data.*.url")
    ['a', 'b']
    >>> find({"data": [1, 2]}, "data.-1"), find({"data": None}, "data.url")
    ([2], [])
    """
    found = [document]
    for step in path.split(".") if path else []:
        if values is not None and "{" in step:
            step = as_text(render(step, values))
        found = [below for one in found for below in _below(one, step)]
    return found


def first(document: Any, path: str, values: Values | None = None) -> Any:
    """Return what stands first at ``path``, None if nothing does."""
    return next(iter(find(document, path, values)), None)


def _below(value: Any, step: str) -> list[Any]:
    if step == "*":
        return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
    if isinstance(value, dict):
        return [value[step]] if step in value else []
    if isinstance(value, list) and step.removeprefix("-").isdecimal() and -len(value) <= int(step) < len(value):
        return [value[int(step)]]
    return []
