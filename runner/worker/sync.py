"""One request whose answer is the result, or says where it is."""

from __future__ import annotations

import time

from runner.clock import since
from runner.records import Task
from runner.schedule import Lane
from runner.worker.tools import ImageOf, Piece, Tell, Tools, begin, note


def generate(tools: Tools, task: Task, lane: Lane, image: ImageOf, tell: Tell) -> list[Piece]:
    """Wait for the slot, ask, and return the verified results.

    The slot is held until the answer's headers are there: then the endpoint is free again; with ``release: body``
    until the last byte of the results.
    """
    client = tools.clients[lane.endpoint.index]
    values = tools.values(task, image())
    prepared = client.prepare(tools.protocol.generation(values))
    ready = time.monotonic()
    with lane.gate:
        sent = time.monotonic()
        begin(task, lane, ready, sent)
        try:
            answer = client.send(prepared)
        finally:
            note(task, generate_s=since(sent))
        note(task, status=answer.status)
        answer = tools.checked(answer)
        if tools.protocol.block.release == "body":
            return tools.pieces(task, lane, values, answer)
    return tools.pieces(task, lane, values, answer)
