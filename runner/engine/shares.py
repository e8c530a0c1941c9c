"""Which of Dask's workers owns which lane: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """A Dask worker as people know it: its name, its address, and what its host is called."""

    name: str
    address: str
    hosts: tuple[str, ...] = ()

    def is_called(self, pin: str) -> bool:
        """Tell whether a lane that is pinned may be here.

        >>> Place("a", "tcp://10.0.0.7:4711", ("10.0.0.7", "gpu-1")).is_called("gpu-1")
        True
        """
        return pin in (self.name, self.address, self.address.rpartition("://")[2], *self.hosts)

    @property
    def label(self) -> str:
        """How the log calls it."""
        return self.name if self.name != self.address else self.address.rpartition("://")[2]


def share_out(
    pins: Sequence[str | None], places: Sequence[Place], owners: Mapping[int, str] | None = None
) -> dict[int, str]:
    """Return the address of the worker that should own each lane; a lane whose worker is not there is left out.

    ``pins`` has for each lane whom to leave it to, None for any; ``owners`` are those of now. The shares differ by no
    more than one, as far as pins let them, and no lane moves that need not.

    >>> a, b, c = Place("a", "tcp://a"), Place("b", "tcp://b"), Place("c", "tcp://c")
    >>> share_out([None] * 4, [a, b])
    {0: 'tcp://a', 1: 'tcp://b', 2: 'tcp://a', 3: 'tcp://b'}
    >>> share_out([None] * 4, [b, c], {0: "tcp://a", 1: "tcp://b", 2: "tcp://a", 3: "tcp://b"})
    {0: 'tcp://c', 1: 'tcp://b', 2: 'tcp://c', 3: 'tcp://b'}
    >>> share_out(["b", None, "nobody"], [a, b])
    {0: 'tcp://b', 1: 'tcp://a'}
    """
    allowed = _allowed(pins, places)
    shares: dict[str, list[int]] = {place.address: [] for place in places}
    homeless = []
    for lane, pin in enumerate(pins):
        owner = (owners or {}).get(lane)
        if owner in allowed[pin]:
            shares[owner].append(lane)
        else:
            homeless.append(lane)
    for lane in sorted(homeless, key=lambda lane: (pins[lane] is None, lane)):  # those who may choose come last
        if allowed[pins[lane]]:
            min((shares[address] for address in allowed[pins[lane]]), key=len).append(lane)
    while _moved_one(pins, shares, allowed):
        pass
    return dict(sorted((lane, address) for address, lanes in shares.items() for lane in lanes))


def _allowed(pins: Sequence[str | None], places: Sequence[Place]) -> dict[str | None, list[str]]:
    """Return the addresses that each pin allows."""
    return {
        pin: [place.address for place in places if pin is None or place.is_called(pin)] for pin in dict.fromkeys(pins)
    }


def _moved_one(
    pins: Sequence[str | None], shares: Mapping[str, list[int]], allowed: Mapping[str | None, list[str]]
) -> bool:
    """Move a lane from a share to another that is shorter by two or more; tell whether there was one."""
    by_length = sorted(shares, key=lambda address: len(shares[address]))
    for longer in reversed(by_length):
        for shorter in by_length:
            if len(shares[longer]) - len(shares[shorter]) < 2:
                break
            for lane in reversed(shares[longer]):
                if shorter in allowed[pins[lane]]:
                    shares[longer].remove(lane)
                    shares[shorter].append(lane)
                    return True
    return False
