"""Where a file lies, seen from the page: a relative URL that works from a disk and from a web server."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote


def link(name: str) -> str:
    """Return a file's name as a URL; bytes that are no text stay what they are.

    >>> link("a b#1/ü.ply"), link("\\udcff.ply"), link("c:d")
    ('a%20b%231/%C3%BC.ply', '%FF.ply', './c:d')
    """
    url = quote(os.fsencode(name), safe="/:@!$&'()*+,;=~")
    return f"./{url}" if ":" in url.partition("/")[0] else url


def folder_link(folder: Path, page: Path) -> str:
    """Return the URL of a folder as seen from a page: it ends with a slash, or is "" where the page lies in it."""
    way = os.path.relpath(folder.absolute(), page.absolute().parent)
    return "" if way == "." else link(way) + "/"
