"""The attempts of those runs that a report shows, sorted, each in a slot of its endpoint; and what lay idle."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import inf
from operator import itemgetter

from runner.chronicle.idle import Bar, Ending, Gap, gaps, most_at_once, slots_of
from runner.chronicle.reading import Told
from runner.chronicle.records import ENDS, NO_PROMPT, Attempts, Idle

_TOGETHER_S = 0.1
_FAILED = (ENDS.index("retried"), ENDS.index("failed"))

IDLE_MOST = 20_000
"""So many idle times are shown, the longest; all of them are added up."""


@dataclass(frozen=True, slots=True)
class Span:
    """A run that is shown: when it began (seconds since 1970), how long it took, and what is known of its endpoints.

    ``slots``, ``known`` (in seconds from its beginning) and ``endings`` go by the endpoint's number in ``Told``.
    """

    began_s: float
    seconds: float
    slots: Mapping[int, int]
    known: Mapping[int, Sequence[Gap]]
    endings: Callable[[int], Ending]


@dataclass(slots=True)
class Laid:
    """What came of it: the attempts, the longest idle times, and for each run and endpoint what they add up to."""

    attempts: Attempts = field(default_factory=Attempts)
    idle: list[Idle] = field(default_factory=list)
    busy_s: dict[tuple[int, int], float] = field(default_factory=dict)
    idle_s: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)
    slots: dict[tuple[int, int], int] = field(default_factory=dict)


def laid_out(told: Told, spans: Mapping[int, Span], keep: Mapping[int, float], rows: Mapping[int, int]) -> Laid:
    """Lay out the attempts of the runs in ``spans``, by the run's number in ``told``.

    Those of the runs in ``keep`` are listed that were sent at that time or later, in seconds since 1970. ``rows``
    gives the row of a key by its number.
    """
    laid = Laid()
    chosen = _sorted(told, spans)
    for (run, endpoint), group in groupby(chosen, key=lambda at: (told.tries.run[at], told.tries.endpoint[at])):
        places = [*group]
        bars = [*_bars(told, places, spans[run])]
        in_slot = _lay(laid, bars, spans[run], (run, endpoint))
        listed = [number for number, at in enumerate(places) if told.tries.sent_s[at] >= keep.get(run, inf)]
        laid.attempts.start_s.extend(bars[number].begin_s for number in listed)
        laid.attempts.slot.extend(min(in_slot[number], 255) for number in listed)
        _list(laid.attempts, told, [places[number] for number in listed], rows)
    for run, span in spans.items():
        for endpoint in span.slots:
            if (run, endpoint) not in laid.busy_s:
                _lay(laid, [], span, (run, endpoint))
    laid.idle = sorted(laid.idle, key=lambda one: one.from_s - one.until_s)[:IDLE_MOST]
    return laid


def _sorted(told: Told, spans: Mapping[int, Span]) -> list[int]:
    tries = told.tries
    chosen = [at for at, run in enumerate(tries.run) if run in spans]
    return sorted(chosen, key=lambda at: (tries.run[at], tries.endpoint[at], tries.sent_s[at]))


def _lay(laid: Laid, bars: Sequence[Bar], span: Span, who: tuple[int, int]) -> list[int]:
    """Put the bars of one endpoint in one run into slots, say what is empty, and return the slot of each."""
    slots = span.slots.get(who[1]) or most_at_once(bars)
    in_slot = slots_of(bars, slots)
    known, ending = span.known.get(who[1], ()), span.endings(who[1])
    sums: defaultdict[str, float] = defaultdict(float)
    by_slot: list[list[Bar]] = [[] for _ in range(slots)]
    for bar, slot in zip(bars, in_slot, strict=True):
        by_slot[slot].append(bar)
    for slot, own in enumerate(by_slot):
        for gap in gaps(own, known, span.seconds, ending):
            sums[gap.why] += gap.until_s - gap.from_s
            laid.idle.append(Idle(who[0], who[1], slot, gap.from_s, gap.until_s, gap.why))
    laid.busy_s[who] = sum(min(bar.end_s, span.seconds) - bar.begin_s for bar in bars if bar.begin_s < span.seconds)
    laid.idle_s[who] = {why: round(seconds, 3) for why, seconds in sums.items()}
    laid.slots[who] = slots
    return in_slot


def _bars(told: Told, places: Sequence[int], span: Span) -> Iterator[Bar]:
    tries = told.tries
    shift_s = 0.0
    before: int | None = None
    for at in places:
        shift_s = shift_s + tries.generate_s[before] if before is not None and _together(told, before, at) else 0.0
        begin_s = max(0.0, tries.sent_s[at] - span.began_s + shift_s)
        yield Bar(
            begin_s=begin_s,
            end_s=begin_s + tries.generate_s[at],
            wait_s=tries.wait_s[at],
            image_s=tries.image_s[at],
            pause_s=tries.pause_s[at],
            receive_s=tries.receive_s[at],
            number=tries.number[at],
            status=tries.status[at],
            moved=bool(tries.moved[at]),
            failed=tries.end[at] in _FAILED,
        )
        before = at


def _together(told: Told, before: int, at: int) -> bool:
    """Tell whether two attempts were of one batch: each is said to have taken its share of it, to the microsecond.

    They are drawn one after the other, as if they had been generated so.
    """
    tries = told.tries
    return (
        tries.generate_s[before] == tries.generate_s[at] > 0.0
        and abs(tries.sent_s[before] - tries.sent_s[at]) < _TOGETHER_S
    )


def _list(found: Attempts, told: Told, places: Sequence[int], rows: Mapping[int, int]) -> None:
    """Append the attempts of one endpoint in one run to the columns, all but when they began and in which slot."""
    if not places:
        return
    chosen = itemgetter(*places) if len(places) > 1 else lambda column: (column[places[0]],)
    tries = told.tries
    for name in ("run", "endpoint", "number", "wait_s", "generate_s", "receive_s", "end", "moved", "status", "error"):
        getattr(found, name).extend(chosen(getattr(tries, name)))
    found.prompt.extend(rows.get(key, NO_PROMPT) for key in chosen(tries.key))


def renumbered(column: array[int], numbers: Mapping[int, int]) -> array[int]:
    """Return a column with other numbers in it.

    >>> renumbered(array("H", [7, 9, 7]), {7: 0, 9: 1})
    array('H', [0, 1, 0])
    """
    return array(column.typecode, map(numbers.__getitem__, column))
