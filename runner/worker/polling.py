"""Asking an endpoint, again and again, how far something is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from runner.client import Answer
from runner.errors import BusyError, NoDocumentError, ResultError, StatusError, TransportError
from runner.protocols import Document, Values, shown
from runner.protocols.block import PollBlock
from runner.records import Request
from runner.schedule import Lane
from runner.worker.tools import Tools

Until = Callable[[Any], bool]
"""Tells whether a state is what one waits for."""

_LOST_POLLS = 5
"""So many polls in a row may find no connection before the endpoint counts as gone."""


class LateError(TransportError):
    """It takes longer than it may."""


class GoneError(StatusError):
    """The endpoint knows nothing any more of what it is asked about."""


def poll_block(tools: Tools) -> PollBlock:
    assert tools.protocol.block.poll is not None
    return tools.protocol.block.poll


def polled(
    tools: Tools,
    lane: Lane,
    values: Values,
    what: str,
    *,
    until: Until,
    give_up_at: float | None = None,
    unless: Callable[[], None] = lambda: None,
) -> Document:
    """Ask until the state is the right one, and return the document that says so; who asks for it closes it.

    Busy answers, failures of the server, time-outs and answers that are no JSON mean: ask again. Raises ResultError
    if the state is one of a failure, GoneError if the endpoint knows nothing of it, LateError after ``give_up_at``
    (of the monotonic clock; else ``deadline_s`` from now), TransportError (not ``reached``) if it can't be reached
    any more. ``unless`` is called before each question, and may raise what ends the wait.
    """
    block = poll_block(tools)
    request = tools.protocol.poll(values)
    give_up_at = time.monotonic() + block.deadline_s if give_up_at is None else give_up_at
    refused = 0
    while True:
        unless()
        try:
            document = tools.document(ask(tools, lane, request, what, timeout_s=block.timeout_s))
            refused = 0
            if has_ended(tools, document, tools.protocol.state(document, values), what, until=until):
                return document
        except GoneError:
            raise
        except (BusyError, NoDocumentError, StatusError):
            refused = 0
        except TransportError as error:
            refused = 0 if error.reached else refused + 1
            if refused >= _LOST_POLLS or tools.abandoned.is_set():
                raise
        wait_on(tools, give_up_at, what)


def wait_on(tools: Tools, give_up_at: float, what: str) -> None:
    """Pause before another question. Raises LateError if there should be none, TransportError if all is cut."""
    block = poll_block(tools)
    if time.monotonic() > give_up_at:
        raise LateError(f"{what} has not ended within poll.deadline_s ({block.deadline_s:g} s)")
    tools.pause(block.every_s)


def ask(
    tools: Tools,
    lane: Lane,
    request: Request,
    what: str,
    *,
    timeout_s: float | None = None,
    total_s: float | None = None,
) -> Answer:
    """Ask once. Raises GoneError for a status that is final."""
    try:
        return tools.asked(lane, request, timeout_s=timeout_s, total_s=total_s)
    except StatusError as error:
        if error.again:
            raise
        raise GoneError(f"{what}: {error}", again=True, blame="endpoint", status=error.status) from error


def has_ended(tools: Tools, document: Document, state: Any, what: str, *, until: Until) -> bool:
    """Tell whether a state is the right one; close the document if not. Raises ResultError if it is a failure."""
    ended = False
    try:
        if tools.protocol.stands(state) == "failed":
            said = tools.protocol.words(document) or shown(document.value)
            raise ResultError(f"{what} is {state}: {said}")
        tools.judged(document)
        ended = until(state)
        return ended
    finally:
        if not ended:
            document.close()
