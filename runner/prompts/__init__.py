"""The prompts of a run: read from any input, each with its index and its unique key.

A list of a million is no more than its text, and a few bytes a line beside it (see ``packing``).
"""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Literal, overload

from runner.errors import UsageError
from runner.prompts.complaints import SHOWN, Complaints, at
from runner.prompts.fields import What
from runner.prompts.identity import Fingerprints, fingerprint, identity, shown
from runner.prompts.images import Home
from runner.prompts.naming import key_of
from runner.prompts.packing import encode, key_in, local_image, needs_json, prompt_of, written
from runner.prompts.sources import FORMATS, Entry, Fetch, Sources, fields_of, lines_of, texts_of
from runner.records import Prompt

__all__ = [
    "FORMATS",
    "Fetch",
    "Fingerprints",
    "Prompts",
    "What",
    "encode",
    "fingerprint",
    "identity",
    "key_of",
    "local_image",
    "needs_json",
    "prompts_from",
    "read_prompts",
    "shown",
    "written",
]

Keys = Literal["name", "index-name"]
_MEMBER = re.compile(r"(.+)-(?:0|[1-9][0-9]*)")
"""What one of several results is called."""

_BLOCK = 512
_FAR = 0xFFFF


class Prompts(Sequence[Prompt]):
    """All prompts of a run. They are kept as text, and made into records when they are asked for."""

    def __init__(self, *, keys: Keys = "name") -> None:
        self._keys_numbered = keys == "index-name"
        self._text = bytearray()
        self._ends = array("Q", [0])
        self._lines = array("I")
        self._key_starts = array("H")  # within the packed prompt, which mostly holds its key; length 0: it doesn't
        self._key_lengths = array("B")
        self._places: list[str] = []
        self._places_from: list[int] = []

    def extend(self, entries: Sequence[Entry]) -> list[str]:
        """Take more prompts; return their keys."""
        places, lines, packed, keys = zip(*entries, strict=True)
        for place, some in groupby(enumerate(places, len(self)), key=itemgetter(1)):
            if not self._places or self._places[-1] != place:
                self._places.append(place)
                self._places_from.append(next(some)[0])
        self._lines.extend(lines)
        whole = "".join(packed)
        if whole.isascii():
            starts, lengths = [*map(str.rfind, packed, keys)], [*map(len, keys)]
            self._keep(whole.encode(), map(len, packed), starts, lengths)
        else:
            contents = [one.encode(errors="surrogatepass") for one in packed]
            names = [key.encode(errors="surrogatepass") for key in keys]
            starts, lengths = [*map(bytes.rfind, contents, names)], [*map(len, names)]
            self._keep(b"".join(contents), map(len, contents), starts, lengths)
        if self._keys_numbered:
            return [_numbered(index, key) for index, key in enumerate(keys, len(self) - len(keys))]
        return list(keys)

    def _keep(self, text: bytes, sizes: Iterable[int], starts: list[int], lengths: list[int]) -> None:
        """Keep packed prompts, and where in each its key stands."""
        if min(starts) < 0 or max(starts) > _FAR:
            for number, start in enumerate(starts):
                if not 0 <= start <= _FAR:
                    starts[number] = lengths[number] = 0
        self._key_starts.extend(starts)
        self._key_lengths.extend(lengths)
        self._ends.extend(islice(accumulate(sizes, initial=len(self._text)), 1, None))
        self._text += text

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        kept = self.packed(index)
        key = key_in(kept)
        return prompt_of(index, _numbered(index, key) if self._keys_numbered else key, kept)

    def __iter__(self) -> Iterator[Prompt]:
        return (prompt_of(index, key, kept) for index, (key, kept) in enumerate(self.named()))

    def mention(self, text: bytes) -> bool:
        """Tell whether a text stands anywhere in the packed prompts; a million are searched in a moment."""
        return text in self._text

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield the key of every prompt in turn, and the prompt, packed."""
        for key, kept in self.encoded():
            yield key.decode(errors="surrogatepass"), kept.decode(errors="surrogatepass")

    def encoded(self) -> Iterator[tuple[bytes, bytes]]:
        """Do as ``named`` does, in UTF-8, lone surrogates passed."""
        for first in range(0, len(self), _BLOCK):
            last = min(first + _BLOCK, len(self))
            base, *ends = self._ends[first : last + 1]
            text, start = bytes(self._text[base : ends[-1]]), 0
            places = zip(ends, self._key_starts[first:last], self._key_lengths[first:last], strict=True)
            for index, (end, place, length) in enumerate(places, first):
                kept = text[start : end - base]
                start = end - base
                if length:
                    key = kept[place : place + length]
                else:
                    key = key_in(kept.decode(errors="surrogatepass")).encode(errors="surrogatepass")
                yield (b"%06d-%b" % (index, key) if self._keys_numbered else key), kept

    def packed(self, index: int) -> str:
        """Return a prompt as it is kept."""
        return self._text[self._ends[index] : self._ends[index + 1]].decode(errors="surrogatepass")

    def place(self, index: int) -> str:
        """Say where a prompt stands: ``prompts.txt:7``."""
        place = self._places[bisect_right(self._places_from, index) - 1]
        line = self._lines[index]
        in_a_folder = not line and place.endswith(os.sep)
        return place + os.path.basename(self.packed(index)) if in_a_folder else at(place, line)


def read_prompts(
    sources: Sequence[str],
    *,
    base: Path,
    keys: Keys = "name",
    stdin: IO[str] | None = None,
    what: What = "image",
    several: bool = False,
    fetch: Fetch | None = None,
) -> Prompts:
    """Read all ``sources`` in their order into one list; the index runs through.

    Relative sources are relative to ``base``, relative images in a list to that list. ``what`` the protocol takes is
    what a line of a text is, and the field ``prompt``; no prompt may lack it. With ``several`` a prompt's results are
    called KEY-0, KEY-1 and so on. ``fetch`` downloads lists. A source may hold no prompts at all. Raises UsageError
    if one can't be read, an entry is no prompt, or two prompts' results would have one name.
    """
    complaints = Complaints()
    reading = Sources(base, what, complaints, stdin, fetch)

    def entries() -> Iterator[Entry]:
        for source in sources:
            with complaints.heard():
                yield from reading.entries(source)

    return _collected(entries(), keys, complaints, several=several)


def prompts_from(
    given: Iterable[str | Mapping[str, Any]],
    *,
    base: Path,
    keys: Keys = "name",
    where: str = "prompts",
    what: What = "image",
    several: bool = False,
) -> Prompts:
    """Make prompts of image URLs and paths, or texts, given from Python; the rules are those of a text file.

    Or all of them are mappings, with the fields of a line of JSON lines.
    """
    complaints = Complaints()
    rest = iter(given)
    first = list(islice(rest, 1))
    entries: Iterator[Entry]
    if first and isinstance(first[0], Mapping):
        entries = fields_of(chain(first, rest), where, Home.of(base), what, complaints)
    elif what == "text":
        entries = texts_of(_only_texts(chain(first, rest), where), where, complaints, comment=None)
    else:
        entries = lines_of(_only_texts(chain(first, rest), where), where, Home.of(base), complaints)
    return _collected(entries, keys, complaints, several=several)


def _only_texts(given: Iterable[str | Mapping[str, Any]], where: str) -> Iterator[str]:
    for one in given:
        if not isinstance(one, str):
            raise UsageError(f"{where}: expected only texts, or only entries with fields, got both")
        yield one


def _collected(entries: Iterable[Entry], keys: Keys, complaints: Complaints, *, several: bool) -> Prompts:
    """Collect all entries; raise UsageError with all complaints, or naming both places of each repeated key."""
    prompts = Prompts(keys=keys)
    seen: set[str] = set()
    rest = iter(entries)
    while block := list(islice(rest, _BLOCK)):
        seen.update(prompts.extend(block))
    complaints.tell()
    clash = len(seen) < len(prompts)
    if several and not clash and (members := [one for one in seen if _whole(one) in seen]):
        raise UsageError(*_member_text(prompts, members))
    del seen  # a million keys; who names the clashes needs the room
    if clash:
        raise UsageError(*_clash_text(prompts))
    return prompts


def _clash_text(prompts: Prompts) -> Iterator[str]:
    """Name the first repeated keys and count the others; a list may be nothing but repetitions."""
    seen: set[bytes] = set()
    named: dict[int, bytes] = {}
    clashes = 0
    for index, (key, _) in enumerate(prompts.encoded()):
        if key in seen:
            clashes += 1
            if clashes <= SHOWN:
                named[index] = key
        seen.add(key)
    wanted = {*named.values()}
    first: dict[bytes, int] = {}
    for index, (key, _) in enumerate(prompts.encoded()):
        if key in wanted:
            first.setdefault(key, index)
    for index, key in named.items():
        own, other = prompts.place(index), prompts.place(first[key])
        yield f"{own}: its result would have the name {prompts[index].key!r}, as that of {other}"
    if clashes > SHOWN:
        yield f"… and {clashes - SHOWN} more"
    yield _WAY_OUT


def _member_text(prompts: Prompts, members: list[str]) -> Iterator[str]:
    """Name the first results whose name may be that of one of another prompt's several."""
    wanted = {name for one in members for name in (one, _whole(one))}
    found = {key: index for index, (key, _) in enumerate(prompts.named()) if key in wanted}
    for own in sorted(members, key=found.__getitem__)[:SHOWN]:
        place, other = prompts.place(found[own]), prompts.place(found[_whole(own)])
        yield f"{place}: its result would have the name {own!r}, as one of those of {other} may"
    if len(members) > SHOWN:
        yield f"… and {len(members) - SHOWN} more"
    yield _WAY_OUT


def _whole(key: str) -> str:
    """Return the key of the prompt that may have several results, of which one would have the name ``key``; or ""."""
    found = _MEMBER.fullmatch(key)
    return found[1] if found else ""


_WAY_OUT = "Remove or rename one of each, or number the results with `output: {keys: index-name}`."


def _numbered(index: int, key: str) -> str:
    return f"{index:06d}-{key}"
