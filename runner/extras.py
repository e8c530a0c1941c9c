"""What some commands need beyond what is always installed: the extras of the distribution."""

from __future__ import annotations

from importlib.util import find_spec

EXTRAS = {
    "dask": {"distributed": "distributed"},
    "metrics": {"prometheus_client": "prometheus-client"},
    "s3": {"s3fs": "s3fs"},
    "report": {"jinja2": "Jinja2", "numpy": "numpy", "PIL": "Pillow"},
}
"""The modules of each extra, and what their distributions are called."""


def missing(extra: str) -> str | None:
    """Say what of an extra is not installed, and how it is; None if all of it is there."""
    absent = [name for module, name in EXTRAS[extra].items() if find_spec(module) is None]
    return f"{', '.join(absent)}: pip install 'multiport-runner[{extra}]'" if absent else None
