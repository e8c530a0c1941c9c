"""What results look like: thumbnails, models for a 3D view, and what is odd. Needs the extra ``report``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runner.pictures.records import BLANK, EXPLODED, UNREADABLE, Gallery, Picture, Wanted
from runner.remote import Folder

__all__ = ["BLANK", "EXPLODED", "UNREADABLE", "Gallery", "Picture", "Wanted", "gallery"]


def gallery(
    folder: Folder, wanted: Sequence[Wanted], *, most: int, offline: bool, observe: Callable[[int, int], None]
) -> Gallery:
    """Return what the results and images of these prompts look like, drawing at most ``most`` of each anew.

    They are kept in ``.runner/pictures/`` of the folder, or of the working folder of one elsewhere. What can't be
    read, fetched or written is flagged, noted or left out; nothing of that is raised. ``observe`` is told, in this
    thread, how many are drawn, of how many. When it is interrupted, what was drawn is kept.
    """
    from runner.pictures.making import made  # not above: the processes that draw need no client, and start sooner

    return made(folder, wanted, most=most, offline=offline, observe=observe)
