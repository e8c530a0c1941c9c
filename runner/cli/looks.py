"""A look at the endpoints as lines that fit: into a terminal's width, and its height."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.clock import utc_age_s

if TYPE_CHECKING:
    from runner.health import Health
    from runner.monitor import Lane, Look, Pace, Sight

_GAP = "  "
_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class _Column:
    """One column. ``least``: it may be cut to so many cells; ``leaves``: the higher, the sooner it goes; 0 never."""

    title: str
    cells: tuple[str, ...]
    leaves: int = 0
    right: bool = False
    least: int | None = None

    def least_of(self, width: int) -> int:
        """Return to how many cells it may be cut, of the ``width`` it would like."""
        return width if self.least is None else min(width, max(self.least, width_of(self.title)))


def lines(look: Look, *, width: int | None = None, height: int | None = None) -> list[str]:
    """Return a look as lines: what is so of all, the run, and one line an endpoint.

    Of more endpoints than fit into ``height`` those that are down come first, then the slowest.
    """
    head = [_all(look), _run(look), ""]
    room = len(look.sights) if height is None else max(1, height - len(head) - 1)
    sights: Sequence[Sight] = look.sights
    rest: Sequence[Sight] = ()
    if len(sights) > room:
        ordered = sorted(sights, key=_worst_first)
        sights, rest = ordered[: max(1, room - 1)], ordered[max(1, room - 1) :]
    found = [*head, *_table(_columns(sights), width), *([_rest(rest)] if rest else [])]
    return [line if width is None else cut(line, width) for line in found]


def cut(text: str, width: int) -> str:
    """Return ``text``, or its beginning and ``…``, in at most ``width`` cells.

    >>> cut("Connection refused", 11), cut("図図図", 4)
    ('Connection…', '図…')
    """
    if width_of(text) <= width:
        return text
    if text.isascii():
        return text[: max(0, width - 1)] + "…" * (width > 0)
    kept, room = [], width - 1
    for character in text:
        room -= _cells(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "…" * (width > 0)


def width_of(text: str) -> int:
    """Return how many cells of a terminal a text takes.

    >>> width_of("gpu"), width_of("図"), width_of("e\\u0301")
    (3, 2, 1)
    """
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _plain(text: str) -> str:
    """Return ``text`` without what would move a cursor or change a colour."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _all(look: Look) -> str:
    count = len(look.sights)
    return f"{count} endpoint{'s' * (count != 1)}: {_standing(look.sights)}  ({look.at[11:19]} UTC)"


def _standing(sights: Sequence[Sight]) -> str:
    """Say how many are up, down, and have not answered yet."""
    down = sum(1 for one in sights if one.health and not one.is_up)
    unknown = sum(1 for one in sights if one.health is None)
    if not down and not unknown:
        return "all up"
    counts = {"up": len(sights) - down - unknown, "DOWN": down, "not answered yet": unknown}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _run(look: Look) -> str:
    run = look.run
    if run is None or look.pace is None:
        return f"no run goes on in {_plain(str(look.folder))}"
    done = f"{run.total - run.pending}/{run.total}, {run.failed} failed"
    return f"run: {done}, {look.pace.per_minute:.1f}/min, ETA {_eta(look.pace)}  (in {_plain(str(look.folder))})"


def _rest(sights: Sequence[Sight]) -> str:
    return f"… and {len(sights)} more, {_standing(sights)}"


def _worst_first(one: Sight) -> tuple[bool, bool, float]:
    return one.is_up, one.health is None, -(one.health.latency_s if one.health else 0.0)


def _columns(sights: Sequence[Sight]) -> list[_Column]:
    """Return the columns of which at least one endpoint has something to say."""

    def column(title: str, cells: list[str], **how: Any) -> _Column:
        return _Column(title, tuple(_plain(cell) for cell in cells), **how)

    health = [one.health for one in sights]
    lanes = [one.lane for one in sights]
    paces = [one.pace for one in sights]
    found = [
        column("endpoint", [one.endpoint.name for one in sights], least=8),
        column("", [_state(one) for one in sights]),
        column("health", [one.status if one else "no answer yet" for one in health], least=18),
        column("version", [one.version if one else "" for one in health], least=7, leaves=9),
        column("busy", [_count(one, "busy") for one in health], right=True, leaves=4),
        column("queue", [_count(one, "queue") for one in health], right=True, leaves=5),
        column("latency", [_latency(one) for one in sights], right=True, leaves=6),
        column("lane", [one.state if one else "" for one in lanes], leaves=3),
        column("saved", [_count(one, "saved") for one in lanes], right=True, leaves=1),
        column("failed", [_count(one, "failed") for one in lanes], right=True, leaves=1),
        column("waiting", [_count(one, "waiting") for one in lanes], right=True, leaves=1),
        column("median s", [_median(one) for one in sights], right=True, leaves=8),
        column("/min", [f"{one.per_minute:.1f}" if one else _NOTHING for one in paces], right=True, leaves=2),
        column("ETA", [_eta(one) for one in paces], right=True, leaves=2),
        column("last error", [_last_error(one) for one in sights], least=16, leaves=7),
    ]
    return [one for one in found if not one.leaves or any(cell not in ("", _NOTHING) for cell in one.cells)]


def _table(columns: list[_Column], width: int | None) -> list[str]:
    columns, widths = _fitted(columns, width)
    rows = [[one.title for one in columns], *map(list, zip(*(one.cells for one in columns), strict=True))]
    return [
        _GAP.join(_cell(text, one, cells) for text, one, cells in zip(row, columns, widths, strict=True)).rstrip()
        for row in rows
    ]


def _fitted(columns: list[_Column], width: int | None) -> tuple[list[_Column], list[int]]:
    """Return the columns that have room, and each one's width: some leave, then the widest are cut."""
    natural = {one.title: max(map(width_of, (one.title, *one.cells))) for one in columns}
    if width is None:
        return columns, [*natural.values()]
    least = {one.title: one.least_of(natural[one.title]) for one in columns}
    while _whole([least[one.title] for one in columns]) > width and any(one.leaves for one in columns):
        columns.remove(max(columns, key=lambda one: one.leaves))
    widths = {one.title: natural[one.title] for one in columns}
    for _ in range(_whole([*widths.values()]) - width):
        spare = [(cells, title) for title, cells in widths.items() if cells > least[title]]
        if spare:
            widths[max(spare)[1]] -= 1
    return columns, [*widths.values()]


def _whole(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _cell(text: str, column: _Column, width: int) -> str:
    text = cut(text, width)
    blanks = " " * (width - width_of(text))
    return blanks + text if column.right else text + blanks


def _state(one: Sight) -> str:
    return "?" if one.health is None else "up" if one.is_up else "DOWN"


def _count(of: Health | Lane | None, name: str) -> str:
    count = getattr(of, name, None)
    return _NOTHING if count is None else str(count)


def _latency(one: Sight) -> str:
    return f"{one.health.latency_s * 1000:.0f} ms" if one.health and one.health.latency_s else _NOTHING


def _median(one: Sight) -> str:
    return f"{one.lane.median_s:.1f}" if one.lane and one.lane.median_s is not None else _NOTHING


def _eta(pace: Pace | None) -> str:
    return _NOTHING if pace is None or pace.eta_s is None else _clock(pace.eta_s)


def _last_error(one: Sight) -> str:
    """Say why it was down when it last was, unless it still is, and what the run had to say of it last."""
    said = []
    if one.last_error and one.is_up:
        said.append(f"{one.last_error}, {_ago(utc_age_s(one.last_error_at))}")
    if one.lane and one.lane.last_error:
        said.append(f"run: {one.lane.last_error}")
    return "; ".join(said)


def _ago(seconds: float) -> str:
    """Say how long ago.

    >>> _ago(7.4), _ago(200), _ago(8000)
    ('7 s ago', '3 min ago', '2 h ago')
    """
    for unit_s, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {name} ago"
    return f"{seconds:.0f} s ago"


def _clock(seconds: float) -> str:
    """Return seconds as a clock shows them.

    >>> _clock(7), _clock(754), _clock(7200)
    ('0:07', '12:34', '2:00:00')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
