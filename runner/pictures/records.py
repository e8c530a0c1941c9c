"""What is asked of this room, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

BLANK = "blank"
EXPLODED = "exploded"
UNREADABLE = "unreadable"
"""What may be wrong with a result that is a whole file."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A prompt whose result and image are to be drawn. ``row`` is its place in the chronicle's rows.

    ``file`` is the result, None if there is none; ``image`` the path or URL of what it was made from, "" for none.
    """

    row: int
    file: Path | None
    format: str
    sha256: str
    image: str


@dataclass(frozen=True, slots=True)
class Picture:
    """What one prompt looks like. Paths lead into the folder's cache; None where there is nothing to see.

    ``thumbnail`` and ``prompt`` are WebP files with their longer side ``SIDE`` pixels or less. ``model`` is what a
    3D view shows, thinned out, as a script of one line, ``runnerModel("SHA256","spz","BASE64");``: a page that was
    opened from a disk may run a file beside it, but not read it. A model of splats has y down and z away, as PLYs
    of splats have, whatever its result has, and reaches from about -1 to 1; one of a mesh or points has y up.
    ``kind``: ``splats``, ``mesh``, ``points``, ``image``, ``text`` or ``other``. ``count`` are splats, triangles,
    points, pixels or characters of the result. ``box`` is how large it is along x, y and z without the outermost
    hundredth. ``words``: the beginning of a text. ``flags``: each a word (``BLANK`` …) and a sentence that says
    why.
    """

    kind: str
    thumbnail: Path | None = None
    prompt: Path | None = None
    model: Path | None = None
    count: int = 0
    box: tuple[float, float, float] | None = None
    words: str = ""
    flags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Gallery:
    """The pictures of those prompts that were looked at, by their row; ``notes``: what a reader has to know of it."""

    pictures: dict[int, Picture] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
