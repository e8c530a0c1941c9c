"""On a Dask worker: the children of runs. Their messages come and go with ``client.run``, through the scheduler.

Dask's event loop calls what begins with ``runner_``, so nothing waits there: a site has a thread of its own, and so
have its children's hands. What goes wrong is returned and not raised: Dask writes the arguments of what raised into
its log, and there may be secrets in them.

A site whose run is gone ends by itself: nobody has asked it for messages for ``LEASE_S``, or another run has begun in
the same place. What it leaves are unfinished files, which the next run sweeps.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import queue
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from runner import limits
from runner.engine import wire
from runner.engine.child import Child, sendable
from runner.engine.work import Bench
from runner.errors import RunnerError, UsageError
from runner.records import Endpoint
from runner.schedule import Rule
from runner.stop import Fence

POLL_S = 5.0
"""With nothing to tell, a site answers after this time."""

LEASE_S = 15.0
"""A site that nobody asks for so long has lost its run."""

LOOK_S = 0.2
"""A site sees so soon that its Dask worker is closing, and cuts what it has in hand."""

_GATHER_S = 0.005
"""What is told within this time travels together."""

_CLOSING = ("closing", "closing_gracefully", "closed", "stopping", "stopped", "failed")

_sites: dict[tuple[str, str], _Site] = {}
"""By the address of the Dask worker (several may be in one process) and the run."""


class Found(NamedTuple):
    """A Dask worker as it sees itself. ``problem``: what keeps it from being used."""

    name: str
    hosts: tuple[str, ...]
    problem: str | None


async def runner_check(fit: bytes, dask_worker: Any = None) -> Found:
    """Say who this is; ``fit`` is a pickled function that returns what keeps a machine from a run's work."""
    try:
        problem = await asyncio.to_thread(lambda: pickle.loads(fit)())
    except Exception as error:  # noqa: BLE001 - it is said where people read it
        problem = f"{type(error).__name__}: {error}"
    own = socket.gethostname()
    hosts = dict.fromkeys((dask_worker.ip, own, own.partition(".")[0]))
    return Found(str(dask_worker.name), tuple(hosts), problem)


async def runner_begin(place: str, run: str, bench: bytes, ahead_s: float, dask_worker: Any = None) -> str | None:
    """Let children of a run be seated here; end those of others in the same place. Return what went wrong."""
    logging.getLogger("distributed.worker").addFilter(_is_no_chatter)
    address = dask_worker.address
    try:
        for key, other in [*_sites.items()]:
            if key[0] == address and other.place == place:
                await asyncio.to_thread(other.end)
        _sites[address, run] = site = _Site(
            place=place,
            bench=pickle.loads(bench),
            ahead_s=ahead_s,
            loop=asyncio.get_running_loop(),
            closing=lambda: dask_worker.status.name in _CLOSING,
            ended=lambda: _sites.pop((address, run)) if _sites.get((address, run)) is site else None,
        )
    except Exception as error:  # noqa: BLE001 - it is said where people read it
        return f"{type(error).__name__}: {error}"
    return None


async def runner_give(run: str, number: int, orders: Sequence[wire.Envelope], dask_worker: Any = None) -> bool | None:
    """Take orders, which are numbered from 1 so that none is taken twice; None if there is no such run here."""
    site = _sites.get((dask_worker.address, run))
    return site.take(number, orders) if site else None


async def runner_poll(run: str, seen: int, dask_worker: Any = None) -> tuple[int, list[wire.Envelope]] | None:
    """Wait for messages after the first ``seen`` ones; return how many were before, and them. None: no such run."""
    site = _sites.get((dask_worker.address, run))
    return await site.since(seen) if site else None


async def runner_end(run: str, dask_worker: Any = None) -> bool:
    """End the children of a run, if there are any."""
    site = _sites.get((dask_worker.address, run))
    if site:
        await asyncio.to_thread(site.end)
    return True


def _is_no_chatter(record: logging.LogRecord) -> bool:
    """Tell whether a line of Dask's log is none of the many that say that we were called."""
    args = record.args
    return not (isinstance(args, tuple) and len(args) == 1 and args[0] in ("runner_give", "runner_poll"))


@dataclass(frozen=True, slots=True)
class _Seated:
    child: Child
    opened: ExitStack
    endpoint: Endpoint


class _Site:
    """The children of one run on one Dask worker. ``ahead_s``: how far its clock is ahead of the main process's."""

    def __init__(
        self,
        *,
        place: str,
        bench: Bench,
        ahead_s: float,
        loop: asyncio.AbstractEventLoop,
        closing: Callable[[], bool],
        ended: Callable[[], object],
    ) -> None:
        self.place = place
        self._bench = bench
        self._ahead_s = ahead_s
        self._loop = loop
        self._closing = closing
        self._ended = ended
        self._orders: queue.SimpleQueue[Sequence[wire.Envelope]] = queue.SimpleQueue()
        self._taken = 0
        self._changed = threading.Lock()  # guards what follows
        self._said: deque[wire.Envelope] = deque()
        self._before = 0
        self._children: dict[int, _Seated] = {}
        self._is_over = False
        self._some = asyncio.Event()
        self._heard_at = time.monotonic()
        threading.Thread(target=self._obey_all, name="runner's orders", daemon=True).start()

    def take(self, number: int, orders: Sequence[wire.Envelope]) -> bool | None:
        """Take orders, once; None if they are neither the next ones nor the last: some went to another site."""
        if number == self._taken + 1:
            self._taken = number
            self._orders.put(orders)
        return True if number == self._taken else None

    async def since(self, seen: int) -> tuple[int, list[wire.Envelope]] | None:
        if not self._heard():
            return None
        with self._changed:
            while self._before < seen and self._said:
                self._said.popleft()
                self._before += 1
            if not self._said:
                self._some.clear()
        if not self._some.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._some.wait(), POLL_S)
        await asyncio.sleep(_GATHER_S)
        if not self._heard():
            return None
        with self._changed:
            return self._before, [*self._said]

    def end(self) -> None:
        """End all children, and cut what they have in hand."""
        with self._changed:
            self._is_over = True
            children, self._children = self._children, {}
        for seated in children.values():
            seated.child.end()
        for seated in children.values():
            seated.opened.close()
        self._ended()

    def _obey_all(self) -> None:
        while not self._is_over:
            with suppress(queue.Empty):
                for number, content in self._orders.get(timeout=LOOK_S):
                    self._obey(number, pickle.loads(content))
            if self._closing() or self._is_forlorn():
                self.end()

    def _heard(self) -> bool:
        """Take note that somebody asks, unless it is too late: this machine stood still, others have its lanes."""
        now = time.monotonic()
        if now - self._heard_at > LEASE_S:
            return False
        self._heard_at = now
        return True

    def _must_not(self) -> bool:
        """Tell whether hands must let be what they are about to do, though nobody has cut them yet."""
        return self._is_over or self._is_forlorn()

    def _is_forlorn(self) -> bool:
        return time.monotonic() - self._heard_at > LEASE_S

    def _obey(self, number: int, message: object) -> None:
        match message:
            case wire.Begin():
                self._seat(number, message)
            case wire.End():
                with self._changed:
                    seated = self._children.pop(number, None)
                if seated:
                    seated.child.end()
                    seated.opened.close()
            case _ if seated := self._children.get(number):
                seated.child.take(_by_our_clock(message, self._ahead_s))

    def _seat(self, number: int, begin: wire.Begin) -> None:
        opened = ExitStack()
        try:
            self._allow_files(begin.endpoint)
            work = opened.enter_context(self._bench.open([begin.endpoint], Fence(self._must_not)))
            child = Child(lambda message: self._say(number, message), work, [begin.endpoint])
            child.take(wire.Obey(begin.endpoint.index, _shifted(begin.rule, self._ahead_s)))
        except BaseException as error:  # noqa: BLE001 - raised again in the main process
            opened.close()
            told = sendable(error)
            told = told if isinstance(told, Exception) else RuntimeError(repr(told))
            self._say(number, wire.Unseated(told, traceback.format_exc()))
            return
        seated = _Seated(child, opened, begin.endpoint)
        with self._changed:
            self._children[number] = seated
            over = self._is_over
        if over:  # meanwhile, and this one was not there yet
            self.end()

    def _allow_files(self, endpoint: Endpoint) -> None:
        """Let this process open what all its hands need. Raises RunnerError if it may not."""
        hands = [one.hands for one in (*(seated.endpoint for seated in [*self._children.values()]), endpoint)]
        each = limits.HAND_FILES + limits.DOCUMENT_FILES
        try:
            limits.allow_files([sum(hands)], processes=1, each=each)
        except UsageError as error:
            raise RunnerError(
                f"a Dask worker with {len(hands)} endpoints may need {limits.open_files(sum(hands), each=each)} open "
                f"files, and its system allows {limits.most_files():.0f}: raise that limit (ulimit -Hn, LimitNOFILE= "
                "of systemd), or start more workers"
            ) from error

    def _say(self, number: int, message: object) -> None:
        envelope = wire.Envelope(number, pickle.dumps(message))
        with self._changed:
            self._said.append(envelope)
        with suppress(RuntimeError):  # the worker's event loop has ended
            self._loop.call_soon_threadsafe(self._some.set)


def _by_our_clock(message: object, ahead_s: float) -> object:
    """Return an order with its times as this machine's clock has them."""
    if isinstance(message, wire.Obey):
        return wire.Obey(message.lane, _shifted(message.rule, ahead_s))
    if isinstance(message, wire.Do):
        for task in message.load:
            task.begun += ahead_s
    return message


def _shifted(rule: Rule, by_s: float) -> Rule:
    return rule._replace(
        opens_at=rule.opens_at + by_s, closed_until=rule.closed_until + by_s, closes_at=rule.closes_at + by_s
    )
