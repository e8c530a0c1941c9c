"""Work that is done in worker processes. The schedule stays here, and so do ledger and log.

A lane lives in exactly one of them. The hands of the thread pool ask, and wait; the hands that work are there
(``child``), and so is the lane's gate: between two generations nobody waits for this process. When a worker process
dies, what its hands had is given back unharmed, and a new one takes its lanes.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TypeGuard

from runner.engine import wire
from runner.engine.work import Bench, Tell
from runner.errors import AttemptError, RunnerError
from runner.health import Health
from runner.records import Endpoint, Event, Failed, Outcome, Submitted, Task, Verdict
from runner.schedule import Away, Gate, Lane, Rule, Schedule, Stopped

LOSSES_MAX = 5
"""A prompt that so many worker processes died with is not tried again: it may be what kills them."""

_BARREN_MAX = 5
"""So many worker processes in a row may die before one was ready for work."""

_WRITTEN = ("attempts", "image_s", "save_s", "image_attempts", "excused", "jobs", "alone")
"""What the hands that work write into a task."""

Answer = wire.Done | wire.Found | wire.Raised
Told = Answer | wire.Told


class Processes:
    """The work of ``count`` worker processes. Use it as a context manager; leaving it ends them.

    ``bench`` returns what one of them needs, each time it is called for a new one. ``died`` is told in words, from a
    thread of its own, when one was replaced; it must not raise. Raises RunnerError if they can't be started, from the
    work if they die as soon as they start.
    """

    def __init__(
        self, schedule: Schedule, count: int, bench: Callable[[], Bench], *, died: Callable[[str], None]
    ) -> None:
        self._stop = schedule.stop
        self._bench = bench()
        self._processes = [
            _Process(number + 1, schedule, schedule.lanes[number::count], bench, died) for number in range(count)
        ]
        self._of = {lane.endpoint.index: one for one in self._processes for lane in one.lanes}

    def __enter__(self) -> Processes:
        try:
            for one in self._processes:
                one.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._processes:
            one.end()

    def __call__(self, load: Sequence[Task], lane: Lane, tell: Tell) -> Sequence[Verdict]:
        """Have a load worked on once. Raises what the work raises; Away if its worker process dies."""
        index = lane.endpoint.index
        process = self._of[index]

        def told(event: Event) -> None:
            if isinstance(event, Submitted):  # so that it is not lost with its worker process
                _remember(load, lane, event)
            tell(event)

        answer = process.ask(wire.Do(threading.get_ident(), index, load), told)
        if answer is None:
            return self._lost(load, lane)
        assert not isinstance(answer, wire.Found)
        for task, written in zip(load, answer.load, strict=False):  # an error may bring none back
            for name in _WRITTEN:
                setattr(task, name, getattr(written, name))
        if isinstance(answer, wire.Raised):
            raise _again(answer)
        if any(isinstance(verdict, Failed) for verdict in answer.verdicts):
            process.unsettled.add(threading.get_ident())
        return answer.verdicts

    def _lost(self, load: Sequence[Task], lane: Lane) -> list[Verdict]:
        if self._stop.asked:
            raise Stopped
        for task in load:
            task.losses.append(self._of[lane.endpoint.index].number)
        if any(len(task.losses) < LOSSES_MAX for task in load):
            raise Away
        error = f"{LOSSES_MAX} worker processes died while they worked on it"
        return [
            Failed(AttemptError(error, again=False, blame="prompt"), self._bench.lost(task, lane, error))
            for task in load
        ]

    def interrupted(self, task: Task, lane: Lane) -> Outcome:
        return self._bench.interrupted(task, lane)

    def probe(self, endpoint: Endpoint) -> Health:
        question, process = wire.Probe(threading.get_ident(), endpoint.index), self._of[endpoint.index]
        answer = process.ask(question)
        while answer is None and not process.gone:  # that its worker process dies says nothing about an endpoint
            answer = process.ask(question)
        if isinstance(answer, wire.Raised):
            raise _again(answer)
        if isinstance(answer, wire.Found):
            return answer.health
        return Health(endpoint, healthy=False, status="not asked: the run ends")

    def hurry(self) -> None:
        for one in self._processes:
            one.tell("hurry")

    def abandon(self) -> None:
        for one in self._processes:
            one.tell("abandon")


class _Process:
    """One worker process after another, for the same lanes.

    Nobody but a thread of its own waits for room in the pipe: orders are given with the schedule's lock held, and a
    worker process may stand still.
    """

    def __init__(
        self,
        number: int,
        schedule: Schedule,
        lanes: Sequence[Lane],
        bench: Callable[[], Bench],
        died: Callable[[str], None],
    ) -> None:
        self.number = number
        self.lanes = lanes
        self.unsettled: set[int] = set()
        self._schedule = schedule
        self._stop = schedule.stop
        self._make_bench = bench
        self._died = died
        self._hands = sum(lane.hands for lane in lanes)
        self._changed = threading.Condition()  # guards what follows
        self._open: dict[int, tuple[queue.SimpleQueue[Told | None], wire.Do | wire.Probe]] = {}
        self._outbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._ending = self._gone = self._told_stop = False
        self._broken: Exception | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._barren = 0
        self._bench: Bench
        self._pipe: Connection
        self._sender: threading.Thread
        self._listener = threading.Thread(target=self._listen, name=f"process {number}", daemon=True)

    def begin(self) -> None:
        """Start the first one. Raises RunnerError."""
        for lane in self.lanes:
            lane.gate = _FarGate(self, lane, self._schedule)
        self._prepare()
        self._start()
        self._listener.start()

    def ask(self, question: wire.Do | wire.Probe, tell: Tell | None = None) -> Answer | None:
        """Return the answer; None if the worker process died, or won't be asked. Raises what broke it all.

        ``tell`` takes, from this thread, what is to be told before the answer comes.
        """
        answer: queue.SimpleQueue[Told | None] = queue.SimpleQueue()
        with self._changed:
            while isinstance(question, wire.Do) and not self._may_share(question.load) and not self._leaving():
                self._changed.wait()
            if self._broken:
                raise self._broken
            if self._gone:
                return None
            self._open[question.hand] = answer, question
            self._outbox.put(question)
        while isinstance(found := answer.get(), wire.Told):
            if tell:
                tell(found.event)
        if found is None and self._broken:
            raise self._broken
        return found

    def tell(self, message: object) -> None:
        with self._changed:
            self._outbox.put(message)

    def stop(self) -> None:
        """Let its hands know that the run should stop, once."""
        with self._changed:
            if not self._told_stop:
                self._told_stop = True
                self._outbox.put("stop")
                self._changed.notify_all()

    def end(self) -> None:
        """End it; everything it was to tell was told."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            if self._process:
                self._process.kill()
        if self._listener.is_alive():
            self._listener.join()
        if self._process:
            self._process.wait()
        self._outbox.put(None)  # if nobody listened any more, its sender waits still

    @property
    def gone(self) -> bool:
        """Tell whether there is none any more, and will be none."""
        return self._gone or self._stop.asked

    def _may_share(self, load: Sequence[Task]) -> bool:
        """Tell whether a load may be worked on beside what is in hand.

        Of those that worker processes died with, the fewer are in hand together the more often that was: one of them
        may be what kills, and the others must not be given up for it.
        """
        losses = max(len(task.losses) for task in load)
        if not losses:
            return True
        asked = [max(len(task.losses) for task in one.load) for _, one in self._open.values() if _is_do(one)]
        others = [one for one in asked if one]
        return len(others) < max(1, self._hands >> 2 * max([losses, *others]))

    def _leaving(self) -> bool:
        return self.gone or self._broken is not None

    def _prepare(self) -> None:
        """Have ready what the next worker process is told first."""
        self._bench = self._make_bench()
        self._outbox = queue.SimpleQueue()
        self._outbox.put((self._bench, [lane.endpoint for lane in self.lanes]))
        for lane in self.lanes:
            self._outbox.put(wire.Obey(lane.endpoint.index, lane.rule))

    def _start(self) -> None:
        """Start a worker process and what sends to it. Raises RunnerError."""
        try:
            ours, started = _started()
        except OSError as error:
            raise RunnerError(f"no worker process can be started: {error}; processes: 1 does without") from error
        self._pipe = ours
        with self._changed:
            self._process = started
            if self._ending:
                started.kill()
        name = f"orders to {self.number}"
        self._sender = threading.Thread(target=self._send, args=(ours, self._outbox), name=name, daemon=True)
        self._sender.start()

    def _send(self, pipe: Connection, outbox: queue.SimpleQueue[object]) -> None:
        """Send what is put into the outbox, up to a None."""
        try:
            while (message := outbox.get()) is not None:
                pipe.send(message)
        except OSError:
            return  # it died; who listens sees it
        except Exception as error:  # noqa: BLE001 - raised again by the hands
            self._break(error)

    def _listen(self) -> None:
        while True:
            try:
                message = self._pipe.recv()
                if isinstance(message, wire.Declined):
                    self._schedule.declined(self._lane(message.lane))
                elif isinstance(message, wire.Ready):
                    self._barren = 0
                elif isinstance(message, wire.Told):
                    self._open[message.hand][0].put(message)
                else:
                    with self._changed:
                        answer, _ = self._open.pop(message.hand)
                        self._changed.notify_all()
                    answer.put(message)
            except (EOFError, OSError):
                if not self._replaced():
                    return
            except Exception as error:  # noqa: BLE001 - raised again by the hands
                self._break(error)
                self.tell("abandon")
                return

    def _replaced(self) -> bool:
        """Put another in the place of one that died, and let go who waits for it; return whether there is another."""
        assert self._process is not None
        code = self._process.wait()
        with self._changed:
            lost, self._open = self._open, {}
            tasks = [task for _, asked in lost.values() if isinstance(asked, wire.Do) for task in asked.load]
            self.unsettled.clear()
            self._gone = self._ending or self._leaving()
            self._outbox.put(None)
            bench = self._bench
            if not self._gone:
                self._prepare()  # orders given from now on are the next one's
            self._changed.notify_all()
        self._sender.join()
        self._pipe.close()
        try:
            bench.clean(tasks)
            if not self._gone:
                self._start_another(code)
        except Exception as error:  # noqa: BLE001 - raised again by the hands
            self._break(error)
        for lane in self.lanes:
            while lane.wanted:
                self._schedule.declined(lane)
        for answer, _ in lost.values():
            answer.put(None)
        if not self._ending:
            how = f"died ({_how(code)}) with {_counted(len(tasks), 'prompt')} in its hands"
            then = "" if self._gone else f"; a new one takes its {_counted(len(self.lanes), 'endpoint')}"
            self._died(f"Worker process {self.number} {how}{then}")
        return not self._gone

    def _break(self, error: Exception) -> None:
        """Let go who waits for an answer, for good."""
        with self._changed:
            self._broken = self._broken or error
            self._gone = True
            lost, self._open = self._open, {}
            self._changed.notify_all()
        for answer, _ in lost.values():
            answer.put(None)

    def _start_another(self, code: int) -> None:
        self._barren += 1
        if self._barren >= _BARREN_MAX:
            raise RunnerError(
                f"worker processes end as soon as they start ({_how(code)}), what they say is on stderr; "
                "processes: 1 does without them"
            )
        self._start()

    def _lane(self, index: int) -> Lane:
        return next(lane for lane in self.lanes if lane.endpoint.index == index)


class _FarGate(Gate):
    """Stands for a gate in a worker process."""

    def __init__(self, process: _Process, lane: Lane, schedule: Schedule) -> None:
        super().__init__(lane.endpoint.slots, schedule.stop)
        self._process = process
        self._index = lane.endpoint.index

    def obey(self, rule: Rule) -> None:
        self._process.tell(wire.Obey(self._index, rule))

    def want(self) -> bool:
        self._process.tell(wire.Want(self._index))
        return True

    def settled(self) -> None:
        hand = threading.get_ident()
        if hand in self._process.unsettled:
            self._process.unsettled.discard(hand)
            self._process.tell(wire.Settled(hand))

    def look(self) -> None:
        self._process.stop()


class _ElsewhereError(Exception):
    """The traceback of an error that was raised in a worker process."""


def _remember(load: Sequence[Task], lane: Lane, event: Submitted) -> None:
    for task in load:
        if event.outcome.job and task.prompt.key == event.outcome.key:
            task.jobs[lane.endpoint.name] = event.outcome.job


def _is_do(question: wire.Do | wire.Probe) -> TypeGuard[wire.Do]:
    return isinstance(question, wire.Do)


def _again(raised: wire.Raised) -> BaseException:
    """Return what a worker process raised; a bug with its traceback there."""
    if not isinstance(raised.error, RunnerError | Away | Stopped):
        raised.error.__cause__ = _ElsewhereError(f"in a worker process:\n{raised.trace}")
    return raised.error


def _started() -> tuple[Connection, subprocess.Popen[bytes]]:
    """Start a worker process; it has inherited the pipe, and that signals are not its business. Raises OSError."""
    ours, theirs = multiprocessing.Pipe()
    descriptor = theirs.fileno()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, wire.SIGNALS)
    try:
        return ours, subprocess.Popen(
            [sys.executable, "-c", _code(), str(descriptor)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[descriptor],
        )
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()


def _code() -> str:
    """Return the Python code that a worker process runs, with the paths of this one."""
    paths = [one for one in sys.path if isinstance(one, str)]  # Python passes over what else there is
    return f"import sys; sys.path[:] = {paths!r}\nfrom runner.engine.child import main\nmain(int(sys.argv[1]))"


def _how(code: int) -> str:
    """Say how a process ended."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
