"""Files of lines that two machines have written to: joined in their order, with no line twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from runner.storage import no_pipe

_BLOCK = 1024 * 1024


def add_missing(path: Path, other: Path) -> None:
    """Append to a file those lines of another that are not in it, in their order. Raises OSError.

    A line that is torn at its end is none. Killed in between, it leaves a file to which the same can be done again.
    What both begin with is passed over; the rest of the other takes some hundred bytes of memory a line.
    """
    with open(other, "rb", _BLOCK) as lines:
        begin = _common(path, other)
        lines.seek(begin)
        missing = {_digest(line) for line in lines if line.endswith(b"\n")}
        if not missing:
            return
        with suppress(FileNotFoundError):
            missing.difference_update(map(_digest, _lines(path)))
        lines.seek(begin)
        with open(path, "ab", opener=no_pipe) as file:
            for line in lines:
                if (digest := _digest(line)) in missing:
                    missing.discard(digest)
                    file.write(line)


def _common(path: Path, other: Path) -> int:
    """Return how many bytes both files begin with, to the end of a line."""
    common = ended = 0
    with suppress(FileNotFoundError), open(path, "rb", opener=no_pipe) as one, open(other, "rb") as two:
        while (block := one.read(_BLOCK)) and block == two.read(len(block)):
            newline = block.rfind(b"\n") + 1
            ended = common + newline if newline else ended
            common += len(block)
    return ended


def _lines(path: Path) -> Iterator[bytes]:
    with open(path, "rb", _BLOCK, opener=no_pipe) as file:
        yield from file


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()
