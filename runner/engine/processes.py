"""Worker processes: children over pipes. The schedule stays here, and so do ledger and log.

A lane lives in exactly one of them. When one dies, what its hands had is given back unharmed, and a new one takes its
lanes.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection

from runner.engine import wire
from runner.engine.far import Far, FarGate, Question, Seat, let_go
from runner.engine.work import Bench
from runner.errors import RunnerError
from runner.schedule import Lane, Schedule

_BARREN_MAX = 5
"""So many worker processes in a row may die before one was ready for work."""


class Processes(Far):
    """The work of ``count`` worker processes. Use it as a context manager; leaving it ends them.

    ``bench`` returns what one of them needs, each time it is called for a new one. ``died`` is told in words, from a
    thread of its own, when one was replaced; it must not raise. Raises RunnerError if they can't be started, from the
    work if they die as soon as they start.
    """

    def __init__(
        self, schedule: Schedule, count: int, bench: Callable[[], Bench], *, died: Callable[[str], None]
    ) -> None:
        self._processes = [
            _Process(number + 1, schedule, schedule.lanes[number::count], bench, died) for number in range(count)
        ]
        seats = {lane.endpoint.index: one.seat for one in self._processes for lane in one.seat.lanes}
        super().__init__(seats, schedule.stop, bench())

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
        self.seat = Seat(lanes, schedule.stop, self, threading.Condition())
        self._schedule = schedule
        self._make_bench = bench
        self._died = died
        self._hands = sum(lane.hands for lane in lanes)
        self._changed = self.seat.changed  # guards what follows
        self._outbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._ending = self._gone = False
        self._process: subprocess.Popen[bytes] | None = None
        self._barren = 0
        self._bench: Bench
        self._pipe: Connection
        self._sender: threading.Thread
        self._listener = threading.Thread(target=self._listen, name=f"process {number}", daemon=True)

    def begin(self) -> None:
        """Start the first one. Raises RunnerError."""
        for lane in self.seat.lanes:
            lane.gate = FarGate(self.seat, lane, self._schedule)
        self._prepare()
        self._start()
        self._listener.start()

    def post(self, message: object) -> None:
        self._outbox.put(message)

    def want(self, lane: int) -> bool:
        self._outbox.put(wire.Want(lane))
        return True

    def is_gone(self) -> bool:
        return self._gone

    def beside(self) -> tuple[Iterable[Question], int]:
        return self._open.values(), self._hands

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
    def _open(self) -> dict[int, Question]:
        return self.seat.open

    def _prepare(self) -> None:
        """Have ready what the next worker process is told first."""
        self._bench = self._make_bench()
        self._outbox = queue.SimpleQueue()
        self._outbox.put((self._bench, [lane.endpoint for lane in self.seat.lanes]))
        for lane in self.seat.lanes:
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
                else:
                    self.seat.heard(message)
            except (EOFError, OSError):
                if not self._replaced():
                    return
            except Exception as error:  # noqa: BLE001 - raised again by the hands
                self._break(error)
                self.seat.tell("abandon")
                return

    def _replaced(self) -> bool:
        """Put another in the place of one that died, and let go who waits for it; return whether there is another."""
        assert self._process is not None
        code = self._process.wait()
        with self._changed:
            lost, self.seat.open = self.seat.open, {}
            tasks = [task for one in lost.values() for task in one.load]
            self.seat.unsettled.clear()
            self._gone = self._ending or self.seat.leaving
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
        for lane in self.seat.lanes:
            while lane.wanted:
                self._schedule.declined(lane)
        let_go(lost.values())
        if not self._ending:
            how = f"died ({_how(code)}) with {_counted(len(tasks), 'prompt')} in its hands"
            then = "" if self._gone else f"; a new one takes its {_counted(len(self.seat.lanes), 'endpoint')}"
            self._died(f"Worker process {self.number} {how}{then}")
        return not self._gone

    def _break(self, error: Exception) -> None:
        """Let go who waits for an answer, for good."""
        with self._changed:
            self._gone = True
        self.seat.break_off(error)

    def _start_another(self, code: int) -> None:
        self._barren += 1
        if self._barren >= _BARREN_MAX:
            raise RunnerError(
                f"worker processes end as soon as they start ({_how(code)}), what they say is on stderr; "
                "processes: 1 does without them"
            )
        self._start()

    def _lane(self, index: int) -> Lane:
        return next(lane for lane in self.seat.lanes if lane.endpoint.index == index)


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
