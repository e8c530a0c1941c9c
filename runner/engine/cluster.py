"""The way to Dask: a client with an event loop of its own, in a thread of its own. Only this file touches Dask.

Everything goes by ``client.run`` through the scheduler, so workers need not reach this machine.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from runner.errors import AbsentError, RunnerError, UsageError

CALL_S = 15.0
"""An answer that takes longer will not come."""

_CONNECT_S = 15.0
"""So long at most; ``distributed.comm.timeouts.connect`` of Dask's config may say less."""

_OTHERS = re.compile(r"(Worker|Nanny)\.identity\(\)")
"""How begins what Dask says when who answers is no scheduler."""

_CLOSE_S = 5.0
_CONNECTIONS = 8192
_LOGGERS = ("distributed", "distributed.client", "tornado", "tornado.application", "bokeh")


def address_of(given: str | None) -> str:
    """Return the scheduler's address: the given one, or that of Dask's own config. Raises UsageError."""
    from dask import config

    found = given or config.get("scheduler-address", None)
    if not found:
        raise UsageError(
            "engine.address: expected the address of Dask's scheduler, such as tcp://scheduler:8786, and none is in "
            "Dask's own config either (DASK_SCHEDULER_ADDRESS). Nothing was sent."
        )
    return str(found)


class Cluster:
    """A connection to Dask's scheduler. All methods belong to the event loop that ``open`` is called in."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client: Any

    async def open(self) -> None:
        """Connect. Raises AbsentError if nobody answers, UsageError if the address is none."""
        _quieten()
        from dask import config
        from dask.utils import parse_timedelta
        from distributed import Client

        timeout_s = min(_CONNECT_S, parse_timedelta(config.get("distributed.comm.timeouts.connect")))

        try:
            self._client = Client(  # type: ignore[no-untyped-call]
                self.address,
                asynchronous=True,
                set_as_default=False,
                timeout=timeout_s,
                name="runner",
                connection_limit=_CONNECTIONS,
            )
            try:
                await asyncio.wait_for(self._client, 2 * timeout_s)
            except BaseException:
                await self.close()
                raise
        except (OSError, asyncio.TimeoutError, MemoryError) as error:  # what isn't Dask's reads as a huge length
            raise AbsentError(
                f"no Dask scheduler answers at {self.address} ({str(error) or 'no answer'}): start it, or "
                "correct engine.address, and run the same command again"
            ) from error
        except (ValueError, ImportError, TypeError) as error:
            if other := _OTHERS.match(str(error)):
                raise UsageError(
                    f"engine.address: a {other[1].lower()} of Dask answers at {self.address}: expected the address "
                    "of the scheduler, which the worker was started with. Nothing was sent."
                ) from error
            raise UsageError(f"engine.address: Dask can't use {self.address}: {error}. Nothing was sent.") from error

    async def close(self) -> None:
        with suppress(Exception):
            await asyncio.wait_for(self._client.close(timeout=_CLOSE_S), 2 * _CLOSE_S)

    async def workers(self) -> list[str]:
        """Return the addresses of all workers. Raises RunnerError if the scheduler is gone."""
        try:
            if self._client.status != "running":
                raise OSError("the connection ended")
            return list(await asyncio.wait_for(self._client.nthreads(), CALL_S))
        except Exception as error:
            if self._client.status == "running" and not isinstance(error, OSError | asyncio.TimeoutError):
                raise
            raise RunnerError(
                f"Dask's scheduler at {self.address} is gone ({str(error) or 'no answer'}): what was in flight is "
                "lost, and stays pending; run the same command again once the scheduler is there"
            ) from error

    async def call(
        self, worker: str, function: Callable[..., Any], *arguments: object, within_s: float = CALL_S
    ) -> Any:
        """Call a function on a worker's event loop, and return what it returns. Raises what it raises, or OSError."""
        asked = self._client.run(function, *arguments, workers=[worker], on_error="return")
        found = (await asyncio.wait_for(asked, within_s))[worker]
        if isinstance(found, BaseException):
            raise found
        return found


def _quieten() -> None:
    """Keep Dask's own log from stderr, unless this program used Dask before and so has its own ideas of it."""
    if "distributed" in sys.modules:
        return
    import distributed

    warnings.filterwarnings("ignore", category=distributed.versions.VersionMismatchWarning)
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [logging.NullHandler()]
        logger.propagate = False
