"""The thread pool: lanes and a ``work`` function in, events out on the calling thread. Knows neither HTTP nor files.

A lane is an endpoint's backlog with its slots; ``slots + 1`` hands work on it. While one hand has the slot, the other
saves the last result and makes the next request ready, so the endpoint never waits for the runner. A hand takes its
next prompt only when it has finished the last: the backlog is the only queue, however long the list is.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Semaphore

from runner.records import Endpoint, Event, Outcome, Prompt, Started
from runner.stop import Stop

TICK_S = 0.2
"""How long the calling thread waits for an event before it looks at the clock and for signals."""


@dataclass(slots=True)
class Lane:
    """An endpoint's share of the work. ``slot`` is held for one generation at a time."""

    endpoint: Endpoint
    backlog: deque[Prompt]
    slot: Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.slot = Semaphore(self.endpoint.slots)

    @property
    def hands(self) -> int:
        """How many threads work on the lane: one more than slots, and never more than prompts."""
        return min(self.endpoint.slots + 1, len(self.backlog))


Tell = Callable[[Event], None]
Work = Callable[[Prompt, Lane, Tell], Outcome]
"""One prompt's whole life on a lane; expected failures are in the Outcome, anything raised ends the run."""


def work_through(lanes: Sequence[Lane], work: Work, stop: Stop) -> Iterator[Event | None]:
    """Work through all lanes and yield every event as it comes, and None whenever ``TICK_S`` passes without one.

    Ends when every hand has ended: all backlogs are empty, or ``stop`` was asked and what was in flight is done.
    When ``stop.now`` is set it yields what is there, ends, and leaves the threads behind. What a hand raises stops
    the run like ``stop.ask``, and is raised at the end. When the caller closes the iterator early, the hands end
    after what they hold.
    """
    hands = sum(lane.hands for lane in lanes)
    if not hands:
        return
    events: queue.Queue[Event | Future[None]] = queue.Queue(maxsize=4 * hands)
    executor = ThreadPoolExecutor(max_workers=hands, thread_name_prefix="hand")

    def put(event: Event | Future[None]) -> None:
        """Wait for room in the queue, but for nobody who has left."""
        while not stop.now:
            with suppress(queue.Full):
                events.put(event, timeout=TICK_S)
                return

    try:
        for lane in lanes:
            for _ in range(lane.hands):
                executor.submit(_hand, lane, work, stop, put).add_done_callback(put)
        first: BaseException | None = None
        while hands:
            try:
                event = events.get(timeout=0 if stop.now else TICK_S)
            except queue.Empty:
                if stop.now:
                    return
                yield None
                continue
            if isinstance(event, Future):
                hands -= 1
                if (raised := event.exception()) is not None:
                    first = first or raised
                    stop.ask("error")
            else:
                yield event
        if first is not None:
            raise first
    except BaseException:
        stop.leave("error")
        raise
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _hand(lane: Lane, work: Work, stop: Stop, tell: Tell) -> None:
    """Take prompt after prompt from the lane until it is empty or the run should stop."""
    while not stop.asked:
        try:
            prompt = lane.backlog.popleft()
        except IndexError:
            return
        tell(Started(prompt, lane.endpoint))
        tell(work(prompt, lane, tell))
