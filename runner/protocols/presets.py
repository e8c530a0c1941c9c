"""The presets: protocol blocks in YAML files of this package, to be used by name, or copied and changed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from runner.yamlfile import merged, parsed

DEFAULT = "404-splat"
_SUFFIX = ".yaml"


@cache
def names() -> list[str]:
    """Return the names of all presets, sorted."""
    files = resources.files("runner.protocols").joinpath("presets").iterdir()
    return sorted(one.name.removesuffix(_SUFFIX) for one in files if one.name.endswith(_SUFFIX))


def text(name: str) -> str:
    """Return the YAML of a preset. Raises KeyError."""
    if name not in names():
        raise KeyError(name)
    return (
        resources.files("runner.protocols").joinpath("presets").joinpath(name + _SUFFIX).read_text(encoding="utf-8")
    )


def about(name: str) -> str:
    """Return what a preset is for: the first line of its file."""
    return text(name).partition("\n")[0].lstrip("# ")


def expanded(given: Any) -> Any:
    """Return the mapping that a ``protocol:`` stands for; what is neither a name nor a mapping stays as it is.

    ``{preset: NAME, …}`` is that preset with the other keys laid over it, merged deep; a null in a body takes away
    what the preset has there. Raises ValueError.
    """
    if isinstance(given, str):
        given = {"preset": given}
    elif not isinstance(given, Mapping):
        raise ValueError(f"expected a preset's name or a mapping, got {given!r:.60}")
    if not isinstance(given, Mapping) or "preset" not in given or given["preset"] is None:
        return given
    base = _mapping(given["preset"])
    whole = merged(base, given)
    for name in ("request", "upload"):
        section = whole.get(name)
        if isinstance(section, dict) and isinstance(section.get("body"), dict):
            own = (base.get(name) or {}).get("body")
            whole[name] = {**section, "body": _without_removed(section["body"], own)}
    return whole


def _without_removed(body: dict[str, Any], base: Any) -> dict[str, Any]:
    """Return a body without what the preset has and a null was laid over."""
    own = base if isinstance(base, Mapping) else {}
    return {
        name: _without_removed(value, own.get(name)) if isinstance(value, dict) else value
        for name, value in body.items()
        if value is not None or own.get(name) is None
    }


def _mapping(name: Any) -> Mapping[str, Any]:
    if not isinstance(name, str) or name not in names():
        near = difflib.get_close_matches(str(name), names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"presets are {', '.join(names())}"
        raise ValueError(f"expected a preset's name or a mapping, got {name!r}; {hint}")
    return _read(name)


@cache
def _read(name: str) -> Mapping[str, Any]:
    return parsed(text(name))
