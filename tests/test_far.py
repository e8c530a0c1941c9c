"""Lanes on Dask's workers without Dask: who owns which, how one moves, and what a site does when its run is gone."""

import asyncio
import pickle
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_processes import Tools
from test_threads import lane, schedule_of

from runner.engine import link, site, wire
from runner.engine.berth import Berth
from runner.engine.dask import Dask
from runner.engine.far import Far, Question
from runner.engine.joining import Terms
from runner.engine.shares import Place, share_out
from runner.errors import StorageError
from runner.records import Prompt, Task
from runner.schedule import Away, Rule, Stopped

A, B, C = (Place(name, f"tcp://{host}:1", (host, f"{name}-host")) for name, host in zip("abc", "123", strict=True))


# Who owns which lane.


@given(st.integers(0, 30), st.integers(1, 6), st.data())
def test_shares_are_even_and_no_lane_moves_that_need_not(lanes: int, workers: int, data: Any) -> None:
    places = [Place(str(number), f"tcp://{number}") for number in range(workers)]
    owners = {
        number: f"tcp://{owner}"
        for number in range(lanes)
        if (owner := data.draw(st.integers(0, 2 * workers))) < workers + 1  # one of these is gone
    }
    shares = share_out([None] * lanes, places, owners)
    counts = sorted((list(shares.values()).count(one.address) for one in places), reverse=True)
    assert sorted(shares) == [*range(lanes)] and counts[0] - counts[-1] <= 1
    had = sorted((list(owners.values()).count(one.address) for one in places), reverse=True)
    most = [lanes // workers + (number < lanes % workers) for number in range(workers)]
    stayed = sum(1 for number, owner in owners.items() if shares[number] == owner)
    assert stayed == sum(map(min, had, most))


@pytest.mark.parametrize("pin", ["a", "tcp://1:1", "1:1", "1", "a-host"])
def test_a_lane_may_be_pinned_by_name_address_or_host(pin: str) -> None:
    assert share_out([pin] * 3, [A, B], {0: B.address}) == dict.fromkeys(range(3), A.address)


def test_who_may_choose_makes_room_for_who_may_not() -> None:
    shares = share_out([None, None, "a", "a"], [A, B], {0: A.address, 1: A.address})
    assert shares == {0: B.address, 1: B.address, 2: A.address, 3: A.address}


def test_a_lane_whose_worker_is_not_there_has_none() -> None:
    assert share_out(["c", None], [A, B]) == {1: A.address}
    assert share_out([None], []) == {}


# How a lane moves.


class Wire:
    """A link that only notes what is put into it."""

    number = 1

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def put(self, child: int, message: object) -> None:
        self.sent.append((child, message))

    @property
    def kinds(self) -> list[str]:
        return [type(message).__name__ if not isinstance(message, str) else message for _, message in self.sent]


class OneLane:
    """One lane, and a hand that asks."""

    def __init__(self) -> None:
        self.schedule = schedule_of(lane(5))
        self.lane = self.schedule.lanes[0]
        self.changed = threading.Condition()
        self.children = 0
        self.berth = Berth(
            self.lane, self.schedule, self.changed, new_child=self._new_child, company=lambda link: [self.berth]
        )
        self.work = Far({0: self.berth.seat}, self.schedule.stop, Tools())
        self.came: list[Any] = []

    def _new_child(self, berth: Berth) -> int:
        self.children += 1
        return self.children

    def ask(self) -> threading.Thread:
        """Have a hand ask for a prompt, and wait until it waits."""
        before = len(self.berth.seat.open)

        def hand() -> None:
            try:
                self.came.append(self.work([Task(Prompt(0, "0-0", "x"))], self.lane, lambda event: None))
            except (Away, Stopped) as error:
                self.came.append(type(error))

        thread = threading.Thread(target=hand, daemon=True)
        thread.start()
        while len(self.berth.seat.open) == before:
            time.sleep(0.001)
        return thread

    def answer(self, link: Wire, child: int) -> None:
        """Answer, as a child, all that it was asked."""
        for number, message in [*link.sent]:
            if isinstance(message, wire.Do) and number == child:
                self.berth.heard(child, wire.Done(message.hand, [], message.load))


@pytest.fixture
def one() -> OneLane:
    return OneLane()


def test_what_is_asked_while_no_worker_has_the_lane_waits_for_the_next(one: OneLane) -> None:
    hand, link = one.ask(), Wire()
    assert one.berth.waits
    with one.changed:
        one.berth.sit(link)  # type: ignore[arg-type]
    assert link.kinds == ["Begin", "Do"]
    one.answer(link, 1)
    hand.join(10)
    assert one.came == [[]]


def test_a_lane_moves_when_nothing_is_in_hand_and_not_before(one: OneLane) -> None:
    old, new = Wire(), Wire()
    with one.changed:
        one.berth.sit(old)  # type: ignore[arg-type]
    first = one.ask()
    with one.changed:
        one.berth.move(new)  # type: ignore[arg-type]
    second = one.ask()
    assert old.kinds == ["Begin", "Do", "Obey"] and old.sent[-1][1].rule.closed_until == inf
    one.lane.gate.obey(Rule(slots=1))
    assert old.kinds[3:] == [] and new.sent == [], "its gate stays closed"
    one.answer(old, 1)
    assert old.kinds[3:] == ["End"] and new.kinds == ["Begin", "Do"]
    one.answer(new, 2)
    for hand in (first, second):
        hand.join(10)
    assert one.came == [[], []]


def test_a_lane_that_need_not_move_any_more_goes_on_where_it_is(one: OneLane) -> None:
    old, new = Wire(), Wire()
    with one.changed:
        one.berth.sit(old)  # type: ignore[arg-type]
    first = one.ask()
    with one.changed:
        one.berth.move(new)  # type: ignore[arg-type]
    second = one.ask()
    with one.changed:
        one.berth.move(old)  # type: ignore[arg-type]
    assert old.kinds == ["Begin", "Do", "Obey", "Obey", "Do"] and new.sent == []
    assert old.sent[3][1].rule == one.lane.rule
    one.answer(old, 1)
    for hand in (first, second):
        hand.join(10)
    assert one.came == [[], []]


def test_what_was_sent_is_lost_with_the_worker_and_what_waits_is_not(one: OneLane) -> None:
    old, new = Wire(), Wire()
    with one.changed:
        one.berth.sit(old)  # type: ignore[arg-type]
    one.ask()
    with one.changed:
        one.berth.move(new)  # type: ignore[arg-type]
    one.ask()
    with one.changed:
        (lost,) = one.berth.lost(0.0)
    assert lost.asked is old.sent[1][1]
    assert len(one.berth.seat.open) == 1


def test_what_a_worker_refused_is_raised_where_it_is_taken_out_and_what_it_had_goes_back_as_it_came(
    one: OneLane,
) -> None:
    link = Wire()
    with one.changed:
        one.berth.sit(link)  # type: ignore[arg-type]
    hand = one.ask()
    asked = link.sent[-1][1]
    spoiled = [Task(Prompt(0, "0-0", "x"), attempts=[None])]  # type: ignore[list-item]
    with pytest.raises(StorageError, match="no space left"):
        one.berth.heard(1, wire.Raised(asked.hand, StorageError("no space left"), "", spoiled))
    with one.changed:
        (lost,) = one.berth.lost(0.0)
    lost.give_back()
    hand.join(10)
    assert one.came == [Away] and (asked.load[0].attempts, asked.load[0].losses) == ([], [])


def test_a_prompt_that_waits_for_a_worker_may_be_stolen(one: OneLane) -> None:
    hand = one.ask()
    assert one.lane.gate.want() and not one.lane.gate.want()
    hand.join(10)
    assert one.came == [Away]


def test_a_lane_whose_worker_is_not_there_says_so_until_it_joins(one: OneLane) -> None:
    waiting = one.ask()
    with one.changed:
        one.berth.give_up("its Dask worker typo is not there")
    waiting.join(10)
    with pytest.raises(Away) as away:
        one.work([task := Task(Prompt(0, "0-0", "x"))], one.lane, lambda event: None)
    assert (one.came, away.value.why) == ([Away], "its Dask worker typo is not there")
    assert (task.attempts, task.losses, task.charged) == ([], [], [])
    found = one.work.probe(one.lane.endpoint)
    assert (found.alive, found.refused, found.status) == (False, True, "its Dask worker typo is not there")
    assert not one.berth.waits, "so nobody takes it for a sign that all workers are lost"
    link = Wire()
    with one.changed:
        one.berth.sit(link)  # type: ignore[arg-type]
    hand = one.ask()
    one.answer(link, 1)
    hand.join(10)
    assert one.came == [Away, []]


def test_who_waits_for_a_worker_is_let_go_when_the_run_stops(one: OneLane) -> None:
    hand = one.ask()
    one.schedule.stop.ask("SIGINT")
    one.lane.gate.look()
    hand.join(10)
    assert one.came == [Stopped]


@pytest.mark.parametrize(("how", "doubted"), [("does not answer (no answer)", ["a", "b"]), ("is gone", [])])
def test_what_a_silent_worker_had_in_hand_is_doubted(how: str, doubted: list[str]) -> None:
    doubts: list[str] = []
    schedule = schedule_of(lane(5))
    terms = Terms("tcp://127.0.0.1:1", "here", lambda: None, 1.0, 1.0)
    dask = Dask(schedule, terms, Tools, say=lambda *_: None, doubt=doubts.extend)
    link: Any = SimpleNamespace(place=A, number=1, bench=Tools(), put=Wire().put, cut=lambda: None)
    dask._links[A.address] = link
    berth = dask._berths[0]
    with dask._changed:
        berth.sit(link)
        question = Question(wire.Do(7, 0, [Task(Prompt(0, "a", "x")), Task(Prompt(1, "b", "x"))]))
        berth.seat.open[7] = question
        berth.post(question.asked)
    dask._gone(link, how)
    assert question.answers.get(timeout=10) is None
    dask._loop.close()
    assert doubts == doubted


# What is said of a worker that this run lost, and has again.


class Placed(Wire):
    """A link to a place."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def workers(told: list[str]) -> Iterator[Dask]:
    terms = Terms("tcp://scheduler:1", "here", lambda: None, wait_workers_s=1, all_lost_s=1)
    dask = Dask(schedule_of(lane(5)), terms, Tools, say=lambda _, sentence: told.append(sentence), doubt=print)
    yield dask
    dask._loop.close()


@pytest.mark.parametrize(
    ("other", "then"), [(False, "it is there again, with 1 endpoint"), (True, "its endpoints go to b (1)")]
)
def test_a_worker_that_is_there_again_is_not_said_to_be_replaced_by_itself(
    workers: Dask, told: list[str], other: bool, then: str
) -> None:
    new: Any = Placed(B if other else A)
    workers._links[new.place.address] = new
    workers._place_again(A.label, "Dask worker a is gone", [*workers._berths.values()])
    assert told == [f"Dask worker a is gone; {then}"]


@pytest.mark.parametrize(("free_in_s", "said"), [(9.0, []), (-1.0, ["Dask worker a joined: 1 endpoint for it"])])
def test_who_joins_while_lanes_are_still_to_be_placed_is_not_said_to_have_none(
    workers: Dask, told: list[str], free_in_s: float, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def join(address: str) -> bool:
        new: Any = Placed(A)
        workers._links[address] = new
        return True

    async def story() -> None:
        workers._joining[A.address] = None  # type: ignore[assignment]
        await workers._join_later(A.address)

    monkeypatch.setattr(workers, "_join", join)
    workers._berths[0].free_at = time.monotonic() + free_in_s
    in_a_loop(story)
    assert told == said


def test_a_run_that_stood_still_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "CALL_S", -9.0)  # so that any answer comes later than it could
    monkeypatch.setattr(site, "LEASE_S", -9.0)

    class Dead:
        async def call(self, *_: object) -> None:
            raise OSError("timed out")

    async def story() -> None:
        nothing: Any = None
        far: Any = Dead()
        one = link.Link(
            far, A, "run", nothing, number=1, heard=nothing, doubt=lambda: None, lost=nothing, refused=nothing,
            broke=nothing,
        )  # fmt: skip
        with pytest.raises(link.LostError, match=r"^was not asked for -?\d+ s, as this run stood still,$"):
            await one._answer(site.runner_poll, 0)

    in_a_loop(story)


# What a site does.


class Bench(Tools):
    """Its work tells when it was cut."""

    cut = threading.Event()
    fence: threading.Event | None = None

    @contextmanager
    def open(self, endpoints: Sequence[Any], abandoned: threading.Event | None = None) -> Any:
        type(self).cut.clear()
        type(self).fence = abandoned
        yield self

    def abandon(self) -> None:
        type(self).cut.set()


def dask_worker(address: str = "tcp://w:1") -> Any:
    return SimpleNamespace(address=address, ip="127.0.0.1", name="w", status=SimpleNamespace(name="running"))


async def begun(worker: Any, run: str, *, place: str = "here", ahead_s: float = 0.0) -> None:
    assert await site.runner_begin(place, run, pickle.dumps(Bench()), ahead_s, worker) is None
    begin = wire.Envelope(1, pickle.dumps(wire.Begin(lane(1).endpoint, Rule(closes_at=50.0))))
    assert await site.runner_give(run, 1, [begin], worker)
    found = await site.runner_poll(run, 0, worker)
    assert found and [pickle.loads(one.content) for one in found[1]] == [wire.Ready()]


def in_a_loop(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(story(), 20)

    asyncio.run(bounded())


def test_orders_that_come_twice_are_taken_once() -> None:
    async def story() -> None:
        worker = dask_worker()
        await begun(worker, "run", ahead_s=1000.0)
        orders = [wire.Envelope(1, pickle.dumps(wire.Want(0)))]
        for _ in range(2):
            assert await site.runner_give("run", 2, orders, worker)
        before, told = await site.runner_poll("run", 1, worker) or (0, [])
        assert (before, len(told)) == (1, 1)
        again = await site.runner_poll("run", 1, worker)
        assert again == (before, told), "what was not seen is told again"
        gate = site._sites[worker.address, "run"]._children[1].child._lanes[0].gate
        assert gate.rule.closes_at == 1050.0, "by the clock there"
        await site.runner_end("run", worker)
        assert await site.runner_give("run", 3, orders, worker) is None

    in_a_loop(story)


def test_a_site_that_orders_were_lost_to_knows_no_such_run() -> None:
    async def story() -> None:
        worker = dask_worker()
        await begun(worker, "run")
        assert await site.runner_give("run", 3, [], worker) is None
        assert await site.runner_give("run", 2, [], worker)
        assert await site.runner_give("run", 1, [], worker) is None
        await site.runner_end("run", worker)

    in_a_loop(story)


def test_a_run_that_begins_in_the_same_place_ends_the_one_before() -> None:
    async def story() -> None:
        worker, other = dask_worker(), dask_worker("tcp://w:2")
        await begun(other, "old")
        await begun(worker, "old")
        await site.runner_begin("elsewhere", "new", pickle.dumps(Bench()), 0.0, worker)
        assert not Bench.cut.is_set()
        await site.runner_begin("here", "newer", pickle.dumps(Bench()), 0.0, worker)
        assert Bench.cut.is_set()
        assert await site.runner_poll("old", 0, worker) is None
        assert await site.runner_poll("old", 0, other) is not None, "that is another worker's"
        for run, whose in (("new", worker), ("newer", worker), ("old", other)):
            await site.runner_end(run, whose)

    in_a_loop(story)


def test_a_site_that_ends_late_leaves_alone_the_one_that_its_run_has_begun_meanwhile() -> None:
    async def story() -> None:
        worker = dask_worker()
        await begun(worker, "run")
        old = site._sites[worker.address, "run"]
        await site.runner_begin("here", "run", pickle.dumps(Bench()), 0.0, worker)
        await asyncio.to_thread(old.end)
        assert await site.runner_give("run", 1, [], worker)
        await site.runner_end("run", worker)

    in_a_loop(story)


@pytest.mark.parametrize("why", ["nobody asks", "the worker closes"])
def test_a_site_that_is_left_alone_cuts_its_work_and_ends(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        worker = dask_worker()
        await begun(worker, "run")
        if why == "nobody asks":
            monkeypatch.setattr(site, "LEASE_S", 0.05)
        else:
            worker.status.name = "closing"
        assert await asyncio.to_thread(Bench.cut.wait, 10)
        while (worker.address, "run") in site._sites:
            await asyncio.sleep(0.01)

    in_a_loop(story)


def test_a_site_that_stood_still_too_long_is_over_before_anybody_has_told_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "LOOK_S", 60.0)  # it does not come to cut its work
    seen: list[Any] = []

    async def story() -> None:
        worker = dask_worker()
        await begun(worker, "run")
        here = site._sites[worker.address, "run"]
        asked = asyncio.create_task(site.runner_poll("run", 1, worker))
        await asyncio.sleep(0)
        assert Bench.fence is not None and not Bench.fence.is_set()
        here._heard_at -= 2 * site.LEASE_S
        assert Bench.fence.is_set() and Bench.fence.wait(0) and not Bench.cut.is_set()
        here._say(1, wire.Declined(0))
        seen.append(await asked)
        assert Bench.fence.is_set(), "a question of before does not bring it back"
        seen.append(await site.runner_poll("run", 1, worker))
        await site.runner_give("run", 2, [], worker)

    in_a_loop(story)
    assert seen == [None, None]


def test_what_keeps_a_child_from_beginning_is_told() -> None:
    async def story() -> None:
        worker = dask_worker()
        await site.runner_begin("here", "run", pickle.dumps(Tools("open")), 0.0, worker)
        begin = wire.Envelope(1, pickle.dumps(wire.Begin(lane(1).endpoint, Rule())))
        await site.runner_give("run", 1, [begin], worker)
        _, told = await site.runner_poll("run", 0, worker) or (0, [])
        (unseated,) = [pickle.loads(one.content) for one in told]
        assert repr(unseated.error) == "RuntimeError('SystemExit(7)')"
        await site.runner_end("run", worker)

    in_a_loop(story)


def test_dask_s_log_holds_no_line_for_each_message() -> None:
    import logging

    def record(name: str) -> logging.LogRecord:
        return logging.LogRecord(
            "distributed.worker", logging.INFO, "", 0, "Run out-of-band function %r", (name,), None
        )

    assert [site._is_no_chatter(record(name)) for name in ("runner_poll", "runner_give", "runner_begin", "x")] == [
        False, False, True, True,
    ]  # fmt: skip
