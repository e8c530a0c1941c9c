"""The prompts of a run: read from any input, each with its index and its unique key.

A list of a million is no more than its text, and a few bytes a line beside it.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
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


class Prompts(Sequence[Prompt]):
    """All prompts of a run. They are kept as text, and made into records when they are asked for."""

    def __init__(self, *, keys: Keys = "name") -> None:
        self._keys_numbered = keys == "index-name"
        self._text = bytearray()
        self._ends = array("Q", [0])
        self._lines = array("I")
        self._places: list[str] = []
        self._places_from: list[int] = []

    def append(self, entry: Entry) -> str:
        """Take another prompt; return its key."""
        place, line, image, key = entry
        if not self._places or self._places[-1] != place:
            self._places.append(place)
            self._places_from.append(len(self._lines))
        self._text += image.encode(errors="surrogatepass")
        self._ends.append(len(self._text))
        self._lines.append(line)
        return _numbered(len(self) - 1, key) if self._keys_numbered else key

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
        text, start = self._text, 0
        for index, end in enumerate(islice(self._ends, 1, None)):
            image = text[start:end].decode(errors="surrogatepass")
            start = end
            key = key_of(image)
            yield (_numbered(index, key) if self._keys_numbered else key), image

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
    clashes: list[int] = []
    for entry in entries:
        seen.add(prompts.append(entry))
        if len(seen) + len(clashes) < len(prompts):
            clashes.append(len(prompts) - 1)
    if clashes:
        raise UsageError(*_clash_text(prompts, clashes))
    return prompts


def _clash_text(prompts: Prompts, clashes: list[int]) -> Iterator[str]:
    named = {index: prompts[index].key for index in clashes[:_SHOWN]}
    wanted = set(named.values())
    first: dict[str, int] = {}
    for prompt in prompts:
        if prompt.key in wanted:
            first.setdefault(prompt.key, prompt.index)
    for index, key in named.items():
        yield (
            f"{prompts.place(index)}: its result would have the name {key!r}, as that of {prompts.place(first[key])}"
        )
    if len(clashes) > _SHOWN:
        yield f"… and {len(clashes) - _SHOWN} more"
    yield "Remove or rename one of each, or number the results with `output: {keys: index-name}`."


def _numbered(index: int, key: str) -> str:
    return f"{index:06d}-{key}"
