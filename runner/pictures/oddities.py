"""Which results are far from what the others of their kind are like."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import exp, log
from statistics import median

from runner.pictures.records import EXPLODED

_OTHERS_MIN = 5
_LIMITS = ((20.0, 0.25), (5.0, 0.03))
"""How many times as large or small is odd, and of what share of the results at the most: two sizes are no oddity."""

_GAP = 2.0
"""Those that are odd are so many times as large or small as the nearest that is not."""

_SPREAD = 6.0
"""Where sizes differ by nature, only those are odd that differ so many times as much as is usual."""


def odd_sizes(sizes: Mapping[int, tuple[str, float]]) -> dict[int, str]:
    """Return a sentence for each result that is far larger or smaller than the median of the others of its kind.

    ``sizes``: by row, a result's kind and how long its box is.

    >>> sizes = {row: ("splats", 1 + row / 10) for row in range(6)}
    >>> odd_sizes({**sizes, 6: ("splats", 51.25), 7: ("mesh", 900.0)})
    {6: 'its box is 41 × as long as that of the others'}
    """
    rows = defaultdict(list)
    for row, (kind, length) in sizes.items():
        if length > 0:
            rows[kind].append(row)
    return {
        row: sentence
        for kind in rows
        for row, sentence in _odd(((row, sizes[row][1]) for row in rows[kind]), len(rows[kind]))
    }


def flag(sentence: str) -> tuple[str, str]:
    return EXPLODED, sentence


def _odd(lengths: Iterable[tuple[int, float]], count: int) -> Iterable[tuple[int, str]]:
    if count <= _OTHERS_MIN:
        return ()
    found = sorted(lengths, key=lambda one: one[1])
    sorted_ = [length for _, length in found]
    logs = [log(length) for length in sorted_]
    middle = median(logs)
    spread = _SPREAD * median(abs(one - middle) for one in logs)
    off = [log(length / _median_without(sorted_, place)) for place, length in enumerate(sorted_)]
    odd: set[int] = set()
    for times, share in _LIMITS:
        beyond = {place for place, one in enumerate(off) if abs(one) > max(log(times), spread)}
        if len(beyond) <= max(1, share * count) and _apart(beyond, logs):
            odd |= beyond
    return ((found[place][0], _sentence(exp(off[place]))) for place in sorted(odd))


def _apart(beyond: set[int], logs: list[float]) -> bool:
    """Tell whether there is a gap between those places and all others; ``logs`` are sorted."""
    pairs = (place for place in range(1, len(logs)) if (place in beyond) != (place - 1 in beyond))
    return all(logs[place] - logs[place - 1] > log(_GAP) for place in pairs)


def _median_without(lengths: list[float], place: int) -> float:
    """Return the median of sorted lengths, one left out."""

    def other(number: int) -> float:
        return lengths[number if number < place else number + 1]

    count = len(lengths) - 1
    return (other((count - 1) // 2) + other(count // 2)) / 2


def _sentence(ratio: float) -> str:
    """Say how long a box is.

    >>> _sentence(0.02)
    'its box is 0.02 × as long as that of the others'
    """
    return f"its box is {ratio:,.0f} × as long as that of the others" if ratio > 1 else (
        f"its box is {ratio:.2g} × as long as that of the others"
    )  # fmt: skip
