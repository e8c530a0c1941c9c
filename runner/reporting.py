"""Write ``report.html``: read the folder, draw its results, make the page. Needs the extra ``report``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.chronicle import Chronicle, chronicle_of
from runner.errors import UsageError
from runner.extras import missing
from runner.pictures.records import Wanted
from runner.remote import folder_at
from runner.storage import REPORT

THUMBNAILS = 2500
"""So many results are drawn anew for a report, unless another number is asked for; drawn ones are kept."""

Observe = Callable[[int, int], None]
"""Called with how many results are drawn, and how many there are to draw."""


@dataclass(frozen=True, slots=True)
class Written:
    """A report that was written; ``place`` is where."""

    place: str
    size_bytes: int
    told: Chronicle
    notes: tuple[str, ...]


def write_report(
    folder: Path,
    *,
    to: Path | None = None,
    thumbnails: int = THUMBNAILS,
    offline: bool = False,
    observe: Observe | None = None,
    beat: Callable[[], None] | None = None,
) -> Written:
    """Write a folder's report, whole or not at all, into it or ``to`` another file.

    At most ``thumbnails`` results are drawn anew, and kept in ``.runner/pictures``. Prompts' images are fetched again
    from where they are, unless ``offline``. ``beat`` is called now and then while the folder is read; it, as
    ``observe``, may raise to end it all. Raises UsageError (a library is missing, no run was ever here, a result
    has that name), StorageError.
    """
    if absent := missing("report"):
        raise UsageError(f"report.html needs {absent}")
    from runner import page, pictures

    place = folder_at(folder)
    told = chronicle_of(folder, beat=beat)
    path = to or folder / REPORT
    if path.name in told.rows.files and path.parent.resolve() == folder.resolve():
        raise UsageError(f"{path} is the result of a prompt; name another file with --output")
    wanted = [*_wanted(folder, told)]
    gallery = pictures.gallery(place, wanted, most=thumbnails, offline=offline, observe=observe or _nobody)
    size_bytes = page.write(path, told, gallery)
    return Written(str(to) if to else place.publish(REPORT), size_bytes, told, gallery.notes)


def _wanted(folder: Path, told: Chronicle) -> Iterator[Wanted]:
    """Yield what is to be drawn: failed and pending prompts, the results of the run that is told of, then others."""
    rows = told.rows
    latest = [row for row, run in enumerate(rows.run) if run == told.shown or not rows.files[row]]
    chosen = set(latest)
    for row in [*latest, *(row for row in range(len(rows)) if row not in chosen)]:
        name = rows.files[row]
        file = folder / name if name and not rows.missing[row] else None
        yield Wanted(row, file, rows.formats[row], rows.sha256[row], rows.images[row])


def _nobody(done: int, total: int) -> None:
    """Observe nothing."""
