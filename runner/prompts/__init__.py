"""The prompts of a run: read from any input, each with its index and its unique key.

A list of a million is no more than its text, and a few bytes a line beside it.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Literal, overload

from runner.errors import UsageError
from runner.prompts.identity import Fingerprints, fingerprint, identity, shown
from runner.prompts.naming import key_of
from runner.prompts.sources import Entry, entries_of, lines_of
from runner.records import Prompt

__all__ = ["Fingerprints", "Prompts", "fingerprint", "identity", "key_of", "prompts_from", "read_prompts", "shown"]

Keys = Literal["name", "index-name"]
_SHOWN = 20
_BLOCK = 512
_FAR = 0xFFFF


class Prompts(Sequence[Prompt]):
    """All prompts of a run. They are kept as text, and made into records when they are asked for."""

    def __init__(self, *, keys: Keys = "name") -> None:
        self._keys_numbered = keys == "index-name"
        self._text = bytearray()
        self._ends = array("Q", [0])
        self._lines = array("I")
        self._key_starts = array("H")  # within the image, which nearly always holds its key; length 0: it doesn't
        self._key_lengths = array("B")
        self._places: list[str] = []
        self._places_from: list[int] = []

    def extend(self, entries: Sequence[Entry]) -> list[str]:
        """Take more prompts; return their keys."""
        places, lines, images, keys = zip(*entries, strict=True)
        for place, some in groupby(enumerate(places, len(self)), key=itemgetter(1)):
            if not self._places or self._places[-1] != place:
                self._places.append(place)
                self._places_from.append(next(some)[0])
        self._lines.extend(lines)
        whole = "".join(images)
        if whole.isascii():
            starts, lengths = [*map(str.rfind, images, keys)], [*map(len, keys)]
            self._keep(whole.encode(), map(len, images), starts, lengths)
        else:
            contents = [image.encode(errors="surrogatepass") for image in images]
            names = [key.encode(errors="surrogatepass") for key in keys]
            starts, lengths = [*map(bytes.rfind, contents, names)], [*map(len, names)]
            self._keep(b"".join(contents), map(len, contents), starts, lengths)
        if self._keys_numbered:
            return [_numbered(index, key) for index, key in enumerate(keys, len(self) - len(keys))]
        return list(keys)

    def _keep(self, text: bytes, sizes: Iterable[int], starts: list[int], lengths: list[int]) -> None:
        """Keep images, and where in each its key stands."""
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
        image = self.image(index)
        key = key_of(image)
        return Prompt(index, _numbered(index, key) if self._keys_numbered else key, image)

    def __iter__(self) -> Iterator[Prompt]:
        return (Prompt(index, key, image) for index, (key, image) in enumerate(self.named()))

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield the key and the image of every prompt in turn."""
        for key, image in self.encoded():
            yield key.decode(errors="surrogatepass"), image.decode(errors="surrogatepass")

    def encoded(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the key and the image of every prompt in turn, in UTF-8, lone surrogates passed."""
        for first in range(0, len(self), _BLOCK):
            last = min(first + _BLOCK, len(self))
            base, *ends = self._ends[first : last + 1]
            text, start = bytes(self._text[base : ends[-1]]), 0
            places = zip(ends, self._key_starts[first:last], self._key_lengths[first:last], strict=True)
            for index, (end, place, length) in enumerate(places, first):
                image = text[start : end - base]
                start = end - base
                if length:
                    key = image[place : place + length]
                else:
                    key = key_of(image.decode(errors="surrogatepass")).encode(errors="surrogatepass")
                yield (b"%06d-%b" % (index, key) if self._keys_numbered else key), image

    def image(self, index: int) -> str:
        """Return the image of a prompt: an http(s) URL or an absolute path."""
        return self._text[self._ends[index] : self._ends[index + 1]].decode(errors="surrogatepass")

    def place(self, index: int) -> str:
        """Say where a prompt stands: ``prompts.txt:7``."""
        place = self._places[bisect_right(self._places_from, index) - 1]
        if line := self._lines[index]:
            return f"{place}:{line}"
        return place + os.path.basename(self.image(index)) if place.endswith(os.sep) else place


def read_prompts(sources: Sequence[str], *, base: Path, keys: Keys = "name", stdin: IO[str] | None = None) -> Prompts:
    """Read all ``sources`` in their order into one list; the index runs through.

    Relative sources are relative to ``base``, relative images in a text file to that file's folder. A source
    may hold no prompts at all. Raises UsageError if one can't be read, a line is no prompt, or two
    prompts have one key.
    """
    return _collected((entry for source in sources for entry in entries_of(source, base, stdin)), keys)


def prompts_from(images: Iterable[str], *, base: Path, keys: Keys = "name", where: str = "prompts") -> Prompts:
    """Make prompts of image URLs and paths given from Python; the rules are those of a prompts file."""
    return _collected(lines_of(images, where, base), keys)


def _collected(entries: Iterable[Entry], keys: Keys) -> Prompts:
    """Collect all entries; raise UsageError naming both places of each repeated key."""
    prompts = Prompts(keys=keys)
    seen: set[str] = set()
    rest = iter(entries)
    while block := list(islice(rest, _BLOCK)):
        seen.update(prompts.extend(block))
    clash = len(seen) < len(prompts)
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
            if clashes <= _SHOWN:
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
    if clashes > _SHOWN:
        yield f"… and {clashes - _SHOWN} more"
    yield "Remove or rename one of each, or number the results with `output: {keys: index-name}`."


def _numbered(index: int, key: str) -> str:
    return f"{index:06d}-{key}"
