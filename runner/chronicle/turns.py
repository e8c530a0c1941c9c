"""What each endpoint did in each run, beside the run before."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from runner.chronicle.attempts import Laid
from runner.chronicle.reading import Sums, Told
from runner.chronicle.records import ENDS, Run, Turn
from runner.chronicle.runs import Known
from runner.report import Paces

_SAVED = ENDS.index("saved")
_Who = tuple[int, int]
"""The numbers of a run and an endpoint."""


def runs_of(told: Told, known: Sequence[Known], laid: Laid) -> Iterator[Run]:
    """Yield each run with what its endpoints did in it."""
    taken = _taken(told, {one.number for one in known})
    medians = {who: round(median(seconds), 3) for who, seconds in taken.items()}
    before: Mapping[int, float] = {}
    for one in known:
        turns = tuple(_turns(told, one, laid, taken, medians, before))
        possible_s = sum(_possible_s(one, (one.number, turn.endpoint), laid) for turn in turns)
        yield Run(
            name=one.name,
            began_at=one.began_at,
            seconds=round(one.seconds, 3),
            ended=one.ended,
            why=one.why,
            total=one.total,
            saved=one.sums.saved,
            skipped=one.skipped,
            failed=one.sums.failed,
            pending=one.pending,
            attempts=one.sums.attempts,
            bytes=one.sums.bytes,
            share=_share(sum(turn.busy_s for turn in turns), possible_s),
            command=one.command,
            turns=turns,
            shards=one.shards,
            left=one.left,
        )
        if medians_of := {turn.endpoint: turn.median_s for turn in turns if turn.median_s is not None}:
            before = medians_of


def _taken(told: Told, runs: set[int]) -> dict[_Who, array[float]]:
    """Return what the generations took that gave a result, in the ledger's order."""
    taken: defaultdict[_Who, array[float]] = defaultdict(lambda: array("f"))
    tries = told.tries
    for run, endpoint, end, seconds in zip(tries.run, tries.endpoint, tries.end, tries.generate_s, strict=True):
        if end == _SAVED and run in runs:
            taken[run, endpoint].append(seconds)
    return taken


def _turns(
    told: Told,
    one: Known,
    laid: Laid,
    taken: Mapping[_Who, array[float]],
    medians: Mapping[_Who, float],
    before: Mapping[int, float],
) -> Iterator[Turn]:
    endpoints = sorted({endpoint for run, endpoint in laid.busy_s if run == one.number})
    slow = _slow({endpoint: taken.get((one.number, endpoint), array("f")) for endpoint in endpoints}, one, laid)
    for endpoint in endpoints:
        who = (one.number, endpoint)
        sums = told.of_endpoint.get(who, Sums())
        busy_s = laid.busy_s[who]
        yield Turn(
            endpoint=endpoint,
            slots=laid.slots[who],
            saved=sums.saved,
            failed=sums.failed,
            attempts=sums.attempts,
            outages=sum(1 for number, *_ in one.gone if number == endpoint),
            bytes=sums.bytes,
            busy_s=round(busy_s, 3),
            share=_share(busy_s, _possible_s(one, who, laid)),
            median_s=medians.get(who),
            slow=endpoint in slow,
            before_s=before.get(endpoint),
            idle=laid.idle_s.get(who, {}),
        )


def _slow(taken: Mapping[int, Sequence[float]], one: Known, laid: Laid) -> set[int]:
    """Return who is slow, by the rule of the run that said so."""
    paces = Paces({str(endpoint): laid.slots[one.number, endpoint] for endpoint in taken})
    for endpoint, seconds in taken.items():
        for generate_s in seconds:
            paces.add(str(endpoint), generate_s)
    return set(map(int, paces.slow()))


def _possible_s(one: Known, who: _Who, laid: Laid) -> float:
    """Return the seconds in which an endpoint's slots might have generated, as far as it was heard of."""
    return laid.slots[who] * one.seconds - laid.idle_s.get(who, {}).get("unheard", 0.0)


def _share(busy_s: float, possible_s: float) -> float:
    return min(1.0, round(busy_s / possible_s, 4)) if possible_s > 0 else 0.0
