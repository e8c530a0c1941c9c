"""What goes to one Dask worker, and what comes from it: each message once, and in order, while the worker lives."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from runner.engine import site, wire
from runner.engine.cluster import CALL_S, Cluster
from runner.engine.shares import Place
from runner.engine.work import Bench
from runner.errors import StorageError

SILENT = "does not answer"
"""How it is said that a worker is lost that may go on some day."""

_AGAIN_S = 0.1
_SPARE_S = 1.0
_END_S = 2.0


class LostError(Exception):
    """The worker is gone, or knows nothing of this run any more."""


class Link:
    """The messages of one run to and from one Dask worker.

    ``put`` may be called from any thread, all else belongs to the event loop. One batch of orders is on its way at a
    time, and one question for messages; both are repeated until the worker has answered, and numbered, so that a
    repeated one does no harm. ``doubt`` is called when no answer came: somebody should look whether the worker is
    there still. ``lost`` is called when it is sure to be gone: it has no such run, or has ended it by now.
    ``refused`` takes what the worker's disk or bucket refused, and then it is not listened to any more; ``broke``
    takes what else goes wrong.
    """

    def __init__(
        self,
        cluster: Cluster,
        place: Place,
        run: str,
        bench: Bench,
        *,
        number: int,
        heard: Callable[[int, object], None],
        doubt: Callable[[], None],
        lost: Callable[[Link, str], None],
        refused: Callable[[Link, StorageError], None],
        broke: Callable[[Exception], None],
    ) -> None:
        self.place = place
        self.number = number
        self.bench = bench
        self._cluster = cluster
        self._run = run
        self._heard = heard
        self._doubt = doubt
        self._lost = lost
        self._refused = refused
        self._broke = broke
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[wire.Envelope] = deque()
        self._some = asyncio.Event()
        self._heard_at = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, where: str) -> str | None:
        """Let the worker make ready for the run; return what went wrong. Raises OSError, TimeoutError."""
        asked = time.monotonic()
        theirs = await self._cluster.call(self.place.address, time.monotonic)
        ahead_s = theirs - (asked + time.monotonic()) / 2
        bench = pickle.dumps(self.bench)
        problem: str | None = await self._cluster.call(
            self.place.address, site.runner_begin, where, self._run, bench, ahead_s
        )
        if not problem:
            self._heard_at = time.monotonic()
            self._tasks = [asyncio.create_task(self._serve(one)) for one in (self._send, self._listen)]
        return problem

    def put(self, child: int, message: object) -> None:
        """Have a message brought to a child there."""
        self._outbox.append(wire.Envelope(child, pickle.dumps(message)))
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._some.set)

    async def end(self) -> bool:
        """End what the run has there; tell whether that is sure. If not, it ends by itself."""
        self.cut()
        with suppress(Exception):
            return bool(await self._cluster.call(self.place.address, site.runner_end, self._run, within_s=_END_S))
        return False

    def cut(self) -> None:
        """Send nothing any more, and listen no more."""
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async def _serve(self, work: Callable[[], Any]) -> None:
        try:
            await work()
        except LostError as error:
            self._lost(self, str(error))
        except StorageError as error:
            self._refused(self, error)
        except Exception as error:  # noqa: BLE001 - raised again by the hands
            self._broke(error)

    async def _send(self) -> None:
        number = 0
        while True:
            await self._some.wait()
            self._some.clear()
            orders = [self._outbox.popleft() for _ in range(len(self._outbox))]
            if orders:
                number += 1
                await self._answer(site.runner_give, number, orders)

    async def _listen(self) -> None:
        seen = 0
        while True:
            before, messages = await self._answer(site.runner_poll, seen)
            self._heard_at = time.monotonic()
            refused: StorageError | None = None
            for child, content in messages[seen - before :]:
                try:
                    self._heard(child, pickle.loads(content))
                except StorageError as error:
                    refused = refused or error  # what else it has said is heard still
            if refused:
                raise refused
            seen = before + len(messages)

    async def _answer(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Return the worker's answer, however often it must be asked. Raises LostError."""
        while True:
            asked = time.monotonic()
            try:
                found = await self._cluster.call(self.place.address, function, self._run, *arguments)
            except Exception as error:
                took_s = time.monotonic() - asked
                self._doubt()
                if time.monotonic() - self._heard_at > site.LEASE_S:
                    ends_at = asked + site.POLL_S + site.LEASE_S + _SPARE_S  # it may have heard what was asked last
                    await asyncio.sleep(ends_at - time.monotonic())
                    if took_s > CALL_S + _SPARE_S:  # an answer is not waited for so long
                        raise LostError(f"was not asked for {took_s:.0f} s, as this run stood still,") from error
                    raise LostError(f"{SILENT} ({str(error) or 'no answer'})") from error
                await asyncio.sleep(_AGAIN_S)
                continue
            if found is None:
                raise LostError("knows nothing of this run any more,")
            return found
