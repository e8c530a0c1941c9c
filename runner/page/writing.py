"""Write the page: render it piece by piece into a temp file beside, and rename that."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from runner.chronicle import REASONS, Chronicle, of_shards
from runner.page import verdict, words
from runner.page.album import album
from runner.page.links import folder_link
from runner.page.packing import packed
from runner.page.tables import Line, blocks, lines
from runner.pictures.records import Gallery
from runner.remote import is_remote
from runner.report import plain
from runner.storage import refusals, write_whole

SCRIPTS = (
    *("theme", "columns", "words"),
    *("lanes", "timeline", "pointing", "overview"),
    *("spread", "filters", "sheet", "model", "look", "strip", "main"),
)
"""The page's scripts in the order in which they stand in it; later ones use earlier ones."""


def write(path: Path, told: Chronicle, gallery: Gallery) -> int:
    """Write the report to ``path``, whole or not at all, and return how many bytes it has. Raises StorageError."""
    with refusals(f"{path} can't be written"):
        return write_whole(path, _pieces(path, told, gallery))


def _pieces(path: Path, told: Chronicle, gallery: Gallery) -> Iterable[str]:
    template = _environment().get_template("report.html")
    return template.generate(_context(path, told, gallery))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("runner.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = (words.number, words.figure, words.duration, words.size, words.percent, words.several, words.moment)
    environment.filters |= {one.__name__: one for one in shown}
    environment.filters |= {"plain": plain, "visible": words.visible, "anchor": anchor}
    return environment


def anchor(key: str) -> str:
    """Return the fragment that opens a prompt's card.

    >>> anchor("a b&c")
    '#key=a%20b%26c'
    """
    return "#key=" + quote(plain(key), safe="")


def _context(path: Path, told: Chronicle, gallery: Gallery) -> dict[str, Any]:
    thumbnails, models = album(told, gallery)
    is_far = is_remote(told.folder)  # then the page lies beside the results, wherever that is served
    content = packed(told, gallery, thumbnails, models, "" if is_far else folder_link(Path(told.folder), path))
    run = told.run
    folder = told.folder if is_far else str(Path(told.folder).absolute())
    table = lines(told, run) if run else []
    return {
        "told": told,
        "run": run,
        "nonce": secrets.token_urlsafe(16),
        "headline": verdict.headline(told),
        "mood": verdict.mood(told),
        "folder": folder,
        "brand": words.last_parts(plain(folder)),
        "ending": verdict.ending(run) if run else "",
        "of_shards": of_shards(run),
        "doings": verdict.doings(told, run) if run else "",
        "figures": verdict.figures(told),
        "lines": table,
        "blocks": blocks(told),
        "reasons": _reasons(table),
        "notes": [*map(plain, (*told.notes, *gallery.notes)), *content.notes],
        "odd": len(_odd(told, gallery)),
        "style": Markup(_source("style.css")),
        "script": Markup("\n".join(_source(f"{name}.js") for name in SCRIPTS)),
        "content": Markup(content.text),
        "thumbnails": Markup("").join(map(Markup, thumbnails.text)),
        "models": Markup("").join(map(Markup, models.text)),
        "charts": Markup(_bundle("charts")),
        "viewer": Markup(_bundle("viewer")),
    }


def _reasons(table: Iterable[Line]) -> dict[str, str]:
    """Return those reasons to be idle that the table shows."""
    shown = {name for line in table for name, _, _ in line.parts}
    return {name: text for name, text in REASONS.items() if name in shown}


def _odd(told: Chronicle, gallery: Gallery) -> set[int]:
    """Return the rows whose result is not what one would like to find: as the contact sheet counts them."""
    flagged = {row for row, one in gallery.pictures.items() if one.flags and row < len(told.rows)}
    return flagged | {row for row, missing in enumerate(told.rows.missing) if missing}


def _source(name: str) -> str:
    return (files("runner.page") / name).read_text(encoding="utf-8")


def _bundle(name: str) -> str:
    return base64.b64encode((files("runner.page") / "vendor" / f"{name}.js.gz").read_bytes()).decode()
