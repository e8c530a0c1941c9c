"""A child: the hands of some lanes, told what to do from afar. It keeps nothing and decides nothing.

A worker process has one (``main``), which lives as long as its pipe: when the main process dies, however it dies, the
pipe ends, and so does this process. What it leaves are unfinished files, which the next run sweeps. Those on Dask's
workers are in ``site``.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection

from runner.engine import wire
from runner.engine.work import Work
from runner.records import Endpoint, Failed, Task
from runner.schedule import Gate, Lane
from runner.stop import Stop


def main(descriptor: int) -> None:
    """Serve the pipe with this descriptor until it ends. Never returns."""
    for one in wire.SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, wire.SIGNALS)
    code = 1
    try:
        with suppress(EOFError, ConnectionError), Connection(descriptor) as pipe:
            bench, endpoints = pipe.recv()
            with bench.open(endpoints) as work:
                child = Child(pipe.send, work, endpoints)
                while True:
                    child.take(pipe.recv())
        code = 0
    except BaseException:  # noqa: BLE001 - the main process sees the end of the pipe; people see why
        traceback.print_exc()
    finally:
        os._exit(code)  # hands may still wait for what nobody will ever send


class Child:
    """The hands of these lanes. What they have to say goes to ``send``, one message after another."""

    def __init__(self, send: Callable[[object], None], work: Work, endpoints: Sequence[Endpoint]) -> None:
        self._send = send
        self._work = work
        self._stop = Stop()
        self._lanes = {one.index: Lane(one, deque()) for one in endpoints}
        for lane in self._lanes.values():
            lane.gate = Gate(lane.endpoint.slots, self._stop)
        hands = sum(lane.hands for lane in self._lanes.values())
        self._executor = ThreadPoolExecutor(max_workers=hands, thread_name_prefix="hand")
        self._sending = threading.Lock()
        self._settled: dict[int, threading.Event] = {}

        self._tell(wire.Ready())

    def take(self, message: object) -> None:
        """Do what was asked, or let a hand do it: nobody waits here."""
        match message:
            case wire.Do():
                self._submit(self._do, message.hand, self._lanes[message.lane], message.load)
            case wire.Probe():
                self._submit(self._probe, message.hand, self._lanes[message.lane])
            case wire.Settled():
                settled = self._settled.pop(message.hand, None)
                if settled:  # else it is about a failure that the process before this one told
                    settled.set()
            case wire.Obey():
                self._lanes[message.lane].gate.obey(message.rule)
            case wire.Want():
                if not self._lanes[message.lane].gate.want():
                    self._tell(wire.Declined(message.lane))
            case "stop":
                self._stop.ask("stop")
                for lane in self._lanes.values():
                    lane.gate.look()
            case "hurry":
                self._work.hurry()
            case "abandon":
                self._work.abandon()

    def end(self) -> None:
        """Let go of everything, from another thread; nothing new is begun."""
        self._stop.leave("end")
        for lane in self._lanes.values():
            lane.gate.look()
        self._work.abandon()
        for settled in list(self._settled.values()):
            settled.set()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Callable[..., None], hand: int, *arguments: object) -> None:
        try:
            self._executor.submit(work, hand, *arguments)
        except RuntimeError as error:  # no thread for it
            self._tell_raised(hand, error)

    def _do(self, hand: int, lane: Lane, load: Sequence[Task]) -> None:
        try:
            verdicts = self._work(load, lane, lambda event: self._tell(wire.Told(hand, event)))
        except BaseException as error:  # noqa: BLE001 - raised again in the main process
            self._tell_raised(hand, error, load)
            return
        if not any(isinstance(verdict, Failed) for verdict in verdicts):
            self._tell(wire.Done(hand, verdicts, load))
            return
        settled = self._settled[hand] = threading.Event()
        self._tell(wire.Done(hand, verdicts, load))
        if not self._stop.now:  # else nobody may be there any more to settle it
            settled.wait()
        lane.gate.settled()

    def _probe(self, hand: int, lane: Lane) -> None:
        try:
            found = self._work.probe(lane.endpoint)
        except BaseException as error:  # noqa: BLE001 - raised again in the main process
            self._tell_raised(hand, error)
        else:
            self._tell(wire.Found(hand, found))

    def _tell_raised(self, hand: int, error: BaseException, load: Sequence[Task] = ()) -> None:
        self._tell(wire.Raised(hand, sendable(error), traceback.format_exc(), load))

    def _tell(self, message: object) -> None:
        with self._sending:
            self._send(message)


def sendable(error: BaseException) -> BaseException:
    """Return an error that the main process can read."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - an error of a library may be anything
        return RuntimeError(repr(error))
    return error
