"""The work of Dask's workers: each lane belongs to one of them at a time, and moves when one dies or joins.

The schedule stays here, and so do ledger and log. One thread with an event loop talks with all workers, however many
lanes there are.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from math import inf

from runner.engine import site
from runner.engine.berth import Berth
from runner.engine.cluster import Cluster
from runner.engine.far import Far, Question, let_go
from runner.engine.joining import Terms, welcome
from runner.engine.link import SILENT, Link
from runner.engine.shares import Place, share_out
from runner.engine.work import Bench
from runner.errors import AbsentError, StorageError, UsageError
from runner.schedule import Lane, Schedule

LOOK_S = 1.0
"""Workers are looked for so often; at once when one doesn't answer."""

_TICK_S = 0.05
_SHOWN = 5
_LEAVE_S = 5.0
_LET_GO_S = 2 * site.LOOK_S
"""So long after it is gone from Dask's list a worker that was closed in good order may have requests out."""


Say = Callable[[int, str], None]
"""Takes a level of ``logging`` and a sentence, from any thread."""


class Dask(Far):
    """The work of Dask's workers. Use it as a context manager; leaving it ends what they do for this run.

    ``bench`` returns what a worker needs, each time it is called for another one. Entering waits for workers; it
    raises AbsentError if there are none, or no scheduler, and UsageError if none of them can be used. ``doubt`` takes
    the keys of what a worker had in hand that stood still: what it had given to the network may still arrive.
    """

    def __init__(
        self,
        schedule: Schedule,
        terms: Terms,
        bench: Callable[[], Bench],
        *,
        say: Say,
        doubt: Callable[[Iterable[str]], object],
    ) -> None:
        self._changed = threading.Condition()
        self._children: dict[int, Berth] = {}
        self._berths = {
            lane.endpoint.index: Berth(
                lane, schedule, self._changed, new_child=self._new_child, company=self._lanes_of
            )
            for lane in schedule.lanes
        }
        super().__init__({index: one.seat for index, one in self._berths.items()}, schedule.stop, bench())
        self._schedule = schedule
        self._terms = terms
        self._make_bench = bench
        self._say = say
        self._doubt = doubt
        self._run = secrets.token_hex(8)
        self._cluster = Cluster(terms.address)
        self._links: dict[str, Link] = {}
        self._joining: dict[str, asyncio.Task[None]] = {}
        self._unfit: dict[str, str] = {}
        self._refusals: list[str] = []
        self._endings: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self._error: Exception | None = None
        self._began = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._look = asyncio.Event()
        self._leaving = False
        self._thread = threading.Thread(target=self._serve, name="dask", daemon=True)

    def __enter__(self) -> Dask:
        self._thread.start()
        while not self._began.wait(_TICK_S) and not self._stop.asked:
            pass
        if self._error:
            self.__exit__()
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving = True
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._look.set)
        self._thread.join(3 * _LEAVE_S)
        self._break(AbsentError("the run ended"))

    # The event loop's thread.

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda *_: None)  # what matters of Dask's own tasks is seen by our calls
        try:
            self._loop.run_until_complete(self._live())
        finally:
            self._began.set()
            self._loop.close()

    async def _live(self) -> None:
        try:
            await self._cluster.open()
            await self._first_workers()
            self._began.set()
            await self._watch()
        except Exception as error:  # noqa: BLE001 - raised again where people wait, who need not wait for the rest
            self._break(error)
        finally:
            await self._end()

    async def _end(self) -> None:
        for task in self._joining.values():
            task.cancel()
        if self._links:
            await asyncio.wait([asyncio.ensure_future(link.end()) for link in self._links.values()], timeout=_LEAVE_S)
        await self._cluster.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _first_workers(self) -> None:
        """Wait for the first workers, and deal the lanes out. Raises AbsentError, UsageError."""
        give_up_at = time.monotonic() + self._terms.wait_workers_s
        while not self._over:
            addresses = await self._cluster.workers()
            await asyncio.gather(*(self._join(one) for one in addresses if one not in self._links))
            if self._links:
                self._place()
                self._say(logging.INFO, f"Using {_counted(len(self._links), 'Dask worker')}: {self._shares()}")
                for why in self._unfit.values():
                    self._say(logging.WARNING, f"{why}; it is not used")
                self._tell_who_waits()
                return
            if addresses and len(self._unfit) == len(addresses):
                raise UsageError(*sorted(self._unfit.values()), "Nothing was sent.")
            if time.monotonic() >= give_up_at:
                raise AbsentError(
                    f"Dask's scheduler at {self._terms.address} has no worker, and none came within "
                    f"engine.wait_workers_s ({self._terms.wait_workers_s:g} s): start workers (dask worker "
                    f"{self._terms.address}), and run the same command again"
                )
            await asyncio.sleep(min(LOOK_S, 0.2))

    async def _watch(self) -> None:
        """Look which workers there are, as long as the run goes on. Raises RunnerError if the scheduler is gone."""
        alone_since: float | None = None
        while not self._leaving:
            addresses = await self._cluster.workers()
            for link in [*self._links.values()]:
                if link.place.address not in addresses:
                    self._gone(link, "is gone")
            self._unfit = {one: why for one, why in self._unfit.items() if one in addresses}
            for address in addresses:
                if not (address in self._links or address in self._joining or address in self._unfit or self._over):
                    self._joining[address] = asyncio.create_task(self._join_later(address))
            alone_since = (alone_since or time.monotonic()) if self._nobody_works() else None
            if alone_since is not None and time.monotonic() - alone_since >= self._terms.all_lost_s:
                self._stop.ask("down")
                raise AbsentError(
                    f"no Dask worker that could go on came within health.all_down_s ({self._terms.all_lost_s:g} s): "
                    + ". ".join(["start workers, and run the same command again", *self._refusals[-_SHOWN:]])
                )
            self._look.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._look.wait(), LOOK_S)

    @property
    def _over(self) -> bool:
        return self._leaving or self._stop.asked or self._error is not None

    def _nobody_works(self) -> bool:
        """Tell whether all that is asked is asked of lanes that no worker has."""
        with self._changed:
            asked = [one for one in self._berths.values() if one.seat.open]
            return bool(asked) and all(one.waits for one in asked)

    async def _join_later(self, address: str) -> None:
        try:
            if await self._join(address):
                before = self._owners()
                self._place()
                moved = sum(1 for index, owner in self._owners().items() if owner == address != before.get(index))
                label = self._links[address].place.label
                if moved or not self._is_placing():  # else it is said whose they are when they are placed
                    self._say(logging.INFO, f"Dask worker {label} joined: {_counted(moved, 'endpoint')} for it")
            elif address in self._unfit:
                self._say(logging.WARNING, f"{self._unfit[address]}; it is not used")
        except Exception as error:  # noqa: BLE001 - raised again where people wait
            self._break(error)
        finally:
            del self._joining[address]

    def _is_placing(self) -> bool:
        """Tell whether lanes of a worker that was lost have not been given to others yet."""
        return any(time.monotonic() < one.free_at for one in self._berths.values())

    async def _join(self, address: str) -> bool:
        """Make a worker ready for the run; return whether it can be used. If not, ``_unfit`` may say why."""
        try:
            found = await welcome(self._cluster, address, self._terms, self._link_to)
        except (OSError, asyncio.TimeoutError):
            return False  # it is gone, or stands still; if it is still there, it is asked again
        if isinstance(found, str):
            self._unfit[address] = found
            return False
        self._links[address] = found
        return True

    def _link_to(self, place: Place) -> Link:
        return Link(
            self._cluster,
            place,
            self._run,
            self._make_bench(),
            number=next(self._numbers),
            heard=self._heard,
            doubt=self._look.set,
            lost=self._gone,
            refused=self._refused,
            broke=self._break,
        )

    def _place(self) -> None:
        """Let every lane be with whom it should be; one whose worker is not there is out until it is."""
        back: list[Lane] = []
        with self._changed:
            if self._over:
                return
            pins = [one.lane.endpoint.worker for one in self._berths.values()]
            owners = {number: one for number, one in enumerate(self._owners().values()) if one}
            shares = share_out(pins, [link.place for link in self._links.values()], owners)
            for number, berth in enumerate(self._berths.values()):
                if (address := shares.get(number)) is None:
                    if self._links:  # else it waits with all others
                        berth.give_up(self._why_absent(str(pins[number])))
                elif berth.link is None and time.monotonic() >= berth.free_at:
                    if berth.absent:
                        back.append(berth.lane)
                    berth.sit(self._links[address])
                elif berth.link:
                    berth.move(self._links[address])
        for lane in back:  # what it said before, that nobody is there, has come by then
            self._loop.call_later(_TICK_S, self._schedule.expect, lane)

    def _why_absent(self, pin: str) -> str:
        known = [link.place.label for link in self._links.values()]
        shown = ", ".join(known[:_SHOWN]) + (", …" if len(known) > _SHOWN else "")
        ways = (f"Dask worker {pin}:", f"Dask worker {pin} can't")
        is_unfit = any(why.startswith(ways) for why in self._unfit.values())
        return f"its Dask worker {pin} {'is of no use' if is_unfit else 'is not there'}; in use are {shown}"

    def _owners(self) -> dict[int, str | None]:
        """Return whose each lane is, or will be."""
        whose = ((index, one.target or one.link) for index, one in self._berths.items())
        return {index: link.place.address if link else None for index, link in whose}

    def _lanes_of(self, link: Link) -> Sequence[Berth]:
        return [one for one in self._berths.values() if one.link is link]

    def _new_child(self, berth: Berth) -> int:
        number = len(self._children) + 1
        self._children[number] = berth
        return number

    def _heard(self, child: int, message: object) -> None:
        self._children[child].heard(child, message)

    def _gone(self, link: Link, how: str) -> None:
        """Give back what a worker had in hand, and its lanes to others."""
        if self._links.get(link.place.address) is not link:
            return
        berths, lost = self._take_out(link, time.monotonic() + _LET_GO_S)
        if how.startswith(SILENT):
            self._doubt([task.prompt.key for one in lost for task in one.load])
        said = f"Dask worker {link.place.label} {how} with {_in_hand(lost)}"
        self._loop.call_later(_LET_GO_S, self._place_again, link.place.label, said, berths)
        self._loop.run_in_executor(None, self._give_back, link, lost, berths, let_go)

    def _refused(self, link: Link, error: StorageError) -> None:
        """Use a worker no more in this run whose disk or bucket refuses."""
        address, label = link.place.address, link.place.label
        if self._links.get(address) is not link:
            return
        why = str(error).replace("this machine", f"the machine of Dask worker {label}")  # which said it of itself
        self._unfit[address] = f"Dask worker {label} can't go on: {why}"
        self._refusals.append(self._unfit[address])
        self._endings.add(ending := asyncio.create_task(self._end_refused(link, why)))
        ending.add_done_callback(self._endings.discard)

    async def _end_refused(self, link: Link, why: str) -> None:
        """End what a worker does, and give back what it had in hand as if it had not been begun."""
        berths, lost = self._take_out(link, inf)
        try:
            if not await link.end():
                await asyncio.sleep(site.POLL_S + site.LEASE_S)
            for one in berths:
                one.free_at = time.monotonic()
            said = f"Dask worker {link.place.label} can't go on with {_in_hand(lost)}"
            self._place_again(link.place.label, said, berths, f"start it anew once this is put right: {why}")
            await self._loop.run_in_executor(None, self._give_back, link, lost, berths, _unharmed)
        finally:
            _unharmed(lost)  # if the run ends meanwhile; else they have gone

    def _take_out(self, link: Link, free_at: float) -> tuple[list[Berth], list[Question]]:
        """Ask a worker nothing any more; return its lanes, and what it had in hand."""
        del self._links[link.place.address]
        link.cut()
        with self._changed:
            berths = [one for one in self._berths.values() if one.link is link]
            for one in self._berths.values():
                if one.target is link and one.link:
                    one.move(one.link)
            lost = [question for one in berths for question in one.lost(free_at)]
            self._changed.notify_all()
        self._look.set()
        return berths, lost

    def _place_again(self, label: str, said: str, berths: Sequence[Berth], what_now: str = "") -> None:
        """Let the lanes of a worker that is gone be with others, and say so."""
        self._place()
        to = Counter(one.link.place.label for one in berths if one.link)
        left = len(berths) - to.total()
        if self._over or not berths:
            then = []
        elif not self._links:
            then = [f"no other is there, so the run waits for one, up to {self._terms.all_lost_s:g} s"]
        else:
            again = to.pop(label, 0)
            went = ", ".join(f"{name} ({count})" for name, count in to.items())
            then = [f"it is there again, with {_counted(again, 'endpoint')}"] if again else []
            then += [f"its endpoints go to {went}"] if to else []
            then += [f"{_counted(left, 'endpoint')} can't be asked before it is there again"] if left else []
        self._say(logging.WARNING, "; ".join([said, *then, *filter(None, [what_now])]))

    def _give_back(
        self,
        link: Link,
        lost: Iterable[Question],
        berths: Iterable[Berth],
        answer: Callable[[Iterable[Question]], None],
    ) -> None:
        """Remove what is left of what was in hand, and answer who waits for it. In a thread of its own."""
        try:
            link.bench.clean([task for one in lost for task in one.load])
        except Exception as error:  # noqa: BLE001 - raised again by the hands
            self._break(error)
        for one in berths:
            one.decline()
        answer(lost)

    def _break(self, error: Exception) -> None:
        """Let everybody go who waits, for good."""
        self._error = self._error or error
        for one in self._berths.values():
            one.seat.break_off(self._error)
        self._began.set()

    def _shares(self) -> str:
        counts = Counter(self._owners().values())
        return ", ".join(
            f"{link.place.label} ({_counted(counts[address], 'endpoint')})" for address, link in self._links.items()
        )

    def _tell_who_waits(self) -> None:
        waiting = [one.lane.endpoint for one in self._berths.values() if one.link is None]
        for name in dict.fromkeys(one.worker for one in waiting):
            count = sum(1 for one in waiting if one.worker == name)
            self._say(
                logging.WARNING, f"{_counted(count, 'endpoint')} can't be asked before Dask worker {name} is there"
            )


def _unharmed(lost: Iterable[Question]) -> None:
    """Answer that nothing has happened."""
    for question in lost:
        question.give_back()


def _in_hand(lost: Iterable[Question]) -> str:
    return f"{_counted(sum(len(one.load) for one in lost), 'prompt')} in its hands"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
