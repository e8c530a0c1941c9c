"""What a drawing process is asked, and answers: a line of JSON each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from runner.pictures.entries import Entry, Of, entry_of

READY = b"ready\n"


@dataclass(frozen=True, slots=True)
class Job:
    """Draw a file of a format into the cache, as ``key``; ``content`` (base64) is drawn instead if there is any."""

    of: Of
    key: str
    path: str
    format: str
    size_bytes: int
    content: str = ""

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Job:
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class Refused:
    """The disk refused a picture."""

    why: str


def answer_line(answer: Entry | Refused) -> bytes:
    return answer.line() if isinstance(answer, Entry) else json.dumps({"refused": answer.why}).encode() + b"\n"


def answer_of(line: bytes) -> Entry | Refused | None:
    """Return what a process answered; None if that is no answer.

    >>> answer_of(answer_line(Refused("No space left on device")))
    Refused(why='No space left on device')
    """
    if entry := entry_of(line):
        return entry
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return Refused(found["refused"]) if isinstance(found, dict) and "refused" in found else None
