"""To whom do the files of an output folder belong? To a prompt of the list, to one of earlier lists, or to nobody."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runner.ledger import History
from runner.prompts import Prompts


@dataclass(frozen=True, slots=True)
class Belongings:
    """The visible files of a folder by the ledger, apart from the current prompts' results, sorted.

    ``earlier`` are results of prompts no longer in the list, ``unknown`` files that the ledger does not know;
    ``current`` counts the others.
    """

    current: int
    earlier: list[str]
    unknown: list[str]


def sorted_out(files: Iterable[str], prompts: Prompts, history: History) -> Belongings:
    """Tell the files of a folder apart by what the ledger says."""
    left = set(files)
    count = len(left)
    for key, _ in prompts.encoded() if left else ():
        if history.place(key) is not None:
            left.difference_update(history.files_of(key.decode(errors="surrogatepass")))
    current = count - len(left)
    earlier = sorted(left.intersection(filter(None, history.files()))) if left else []
    return Belongings(current, earlier, sorted(left.difference(earlier)))
