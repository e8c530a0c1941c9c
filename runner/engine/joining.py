"""Whether a Dask worker can be used for a run, and the way to it."""

from __future__ import annotations

import pickle
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from runner.engine import site
from runner.engine.cluster import Cluster
from runner.engine.link import Link
from runner.engine.shares import Place
from runner.version import __version__


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run asks of Dask's workers.

    ``where`` names the place its results go to: no two runs work there at once. ``fit`` is called on each worker, and
    returns what keeps that from the work. ``wait_workers_s``: so long it waits for the first one, ``all_lost_s`` for
    another when all are lost.
    """

    address: str
    where: str
    fit: Callable[[], str | None]
    wait_workers_s: float
    all_lost_s: float


async def welcome(cluster: Cluster, address: str, terms: Terms, link_to: Callable[[Place], Link]) -> Link | str:
    """Make a worker ready for the run; return the link to it, or what keeps it from being used.

    Raises OSError or asyncio.TimeoutError if it does not answer.
    """
    if problem := await _problem_of_version(cluster, address):
        return problem
    found: site.Found = await cluster.call(address, site.runner_check, pickle.dumps(terms.fit))
    place = Place(found.name, address, found.hosts)
    if found.problem:
        return f"Dask worker {place.label}: {found.problem}"
    link = link_to(place)
    if went_wrong := await link.begin(terms.where):
        return f"Dask worker {place.label} can't begin: {went_wrong}"
    return link


async def _problem_of_version(cluster: Cluster, address: str) -> str | None:
    """Say what is wrong with the runner that is installed there. Only Python's own functions are sure to be."""
    label = address.rpartition("://")[2]
    try:
        found = await cluster.call(address, pkgutil.resolve_name, "runner.version:__version__")
    except (ImportError, AttributeError):
        return (
            f"Dask worker {label}: runner is not installed there: pip install multiport-runner=={__version__}, and "
            "start the worker again"
        )
    if found != __version__:
        return (
            f"Dask worker {label}: expected runner {__version__}, as here, got {found}: install the same version on "
            "both, and start the worker again"
        )
    return None
