"""One list over several machines: which prompts are whose, by their keys alone. Pure.

A shard is a share of a list, such as the third of eight. A prompt's is found by a hash of its key, so that it stays
the same however the list is edited or put in another order. An array of jobs says in its environment which one it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

MOST = 10_000
"""A list is cut into so many shards at the most."""

AUTO = "auto"
_WRITTEN = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_AUTO = re.compile(rf"{AUTO}(?:/([0-9]{{1,9}}))?")
_FOLDER = re.compile(r"([1-9][0-9]{0,4})-of-([1-9][0-9]{0,4})")


@dataclass(frozen=True, slots=True)
class Shard:
    """The share ``number`` (from 1) of ``count``.

    >>> str(Shard(3, 8)), Shard(3, 8).folder
    ('3/8', '3-of-8')
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def folder(self) -> str:
        """The name of its folder in ``.runner/shards``."""
        return f"{self.number}-of-{self.count}"

    def members(self, keys: Iterable[bytes]) -> bytearray:
        """Return 1 for each key (in UTF-8) that is of this shard, else 0, in their order."""
        mine, count = self.number - 1, self.count
        return bytearray(_hash(key) % count == mine for key in keys)


def number_of(key: bytes, count: int) -> int:
    """Return the number of the shard that a key (in UTF-8) is of, from 1 to ``count``; it never changes.

    >>> [number_of(key, 3) for key in (b"chair", b"lamp", b"teapot", b"rocket")]
    [2, 2, 1, 3]
    """
    return _hash(key) % count + 1


def _hash(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def shard_in(name: str) -> Shard | None:
    """Return the shard whose folder is called so; None if none is.

    >>> shard_in("3-of-8"), shard_in("9-of-8"), shard_in("lost+found")
    (Shard(number=3, count=8), None, None)
    """
    found = _FOLDER.fullmatch(name)
    if not found:
        return None
    shard = Shard(int(found[1]), int(found[2]))
    return shard if shard.number <= shard.count <= MOST else None


def shard_from(text: str, environ: Mapping[str, str]) -> Shard:
    """Return the shard that a setting means: ``3/8``; ``auto/8``, or ``auto`` where the environment knows the count.

    Raises ValueError, with what was expected.

    >>> shard_from("auto/8", {"JOB_COMPLETION_INDEX": "0"})
    Shard(number=1, count=8)
    """
    if written := _WRITTEN.fullmatch(text):
        return _checked(int(written[1]), int(written[2]), f"got {text}")
    found = _AUTO.fullmatch(text)
    if not found:
        raise ValueError(f"expected a shard such as 3/8, auto/8 or auto, got {text!r}")
    count = int(found[1]) if found[1] else None
    said = {name: shard for one in (_slurm, _kubernetes, _batch) for name, shard in one(environ, count)}
    if not said:
        raise ValueError(
            f"expected a shard such as 3/8, got {text} outside of an array of jobs: none of SLURM_ARRAY_TASK_ID, "
            "JOB_COMPLETION_INDEX and AWS_BATCH_JOB_ARRAY_INDEX is set"
        )
    if len({*said.values()}) > 1:
        each = " but ".join(f"{name} says {shard}" for name, shard in said.items())
        raise ValueError(f"expected one array of jobs for {text}, got two that contradict each other: {each}")
    return next(iter(said.values()))


def _checked(number: int, count: int, got: str) -> Shard:
    if not 1 <= count <= MOST:
        raise ValueError(f"expected at least 1 and at most {MOST} shards, {got}")
    if not 1 <= number <= count:
        raise ValueError(f"expected a shard from 1/{count} to {count}/{count}, {got}")
    return Shard(number, count)


_Said = Iterator[tuple[str, Shard]]


def _slurm(environ: Mapping[str, str], count: int | None) -> _Said:
    """Yield what a Slurm array says. Its tasks may have any numbers: a whole array's are counted from its first."""
    name = "SLURM_ARRAY_TASK_ID"
    task = _whole(environ, name)
    if task is None:
        return
    tasks, first, last = (_whole(environ, f"SLURM_ARRAY_TASK_{one}") for one in ("COUNT", "MIN", "MAX"))
    step = _whole(environ, "SLURM_ARRAY_TASK_STEP") or 1
    got = f"got {name}={task}"
    is_whole = tasks is not None and first is not None and last in (None, first + (tasks - 1) * step)
    if is_whole and count in (None, tasks):
        assert tasks is not None and first is not None
        if (task - first) % step:
            raise ValueError(f"expected a task of {first} and every {step} from there, {got}")
        yield name, _checked((task - first) // step + 1, tasks, got)
    elif count is None:
        why = "the array leaves numbers out" if tasks else "SLURM_ARRAY_TASK_COUNT is not set"
        raise ValueError(f"expected a count as in auto/8, for {why}, got {AUTO}")
    else:  # some tasks of an array, again: their numbers are those of their shards
        yield name, _checked(task, count, f"{got} (number the array from 1)")


def _kubernetes(environ: Mapping[str, str], count: int | None) -> _Said:
    name = "JOB_COMPLETION_INDEX"
    index = _whole(environ, name)
    if index is None:
        return
    if count is None:
        raise ValueError(f"expected a count as in auto/8 (the job's completions), for {name} has none, got {AUTO}")
    yield name, _checked(index + 1, count, f"got {name}={index}, which counts from 0")


def _batch(environ: Mapping[str, str], count: int | None) -> _Said:
    name, size_name = "AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE"
    index, size = _whole(environ, name), _whole(environ, size_name)
    if index is None:
        return
    if count is None and size is None:
        raise ValueError(f"expected a count as in auto/8, for {size_name} is not set, got {AUTO}")
    if None not in (count, size) and count != size:
        raise ValueError(f"expected auto/{size}, for {size_name} is {size}, got {AUTO}/{count}")
    yield name, _checked(index + 1, count or size or 0, f"got {name}={index}, which counts from 0")


def _whole(environ: Mapping[str, str], name: str) -> int | None:
    """Return a whole number of the environment; None if it is not set, or empty. Raises ValueError."""
    text = environ.get(name, "").strip()
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"expected a whole number in {name}, got {text!r}")
    return int(text)
