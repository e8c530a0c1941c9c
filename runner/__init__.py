"""Drive many generation endpoints from one YAML file, and end with a verified result for every prompt.

The public names are imported on first use, so that ``runner --help`` does not pay for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.version import __version__

if TYPE_CHECKING:
    from runner.config import load_config as load_config
    from runner.errors import RunnerError as RunnerError
    from runner.generator import Generator as Generator
    from runner.records import Summary as Summary
    from runner.runs import run as run

_HOMES = {
    "Generator": "runner.generator",
    "RunnerError": "runner.errors",
    "Summary": "runner.records",
    "load_config": "runner.config",
    "run": "runner.runs",
}

__all__ = ["Generator", "RunnerError", "Summary", "__version__", "load_config", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'runner' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
