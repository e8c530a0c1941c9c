"""How a run is watched from outside: what is wrong with ``metrics`` and ``notify``, and what is secret in these."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from runner.extras import missing
from runner.headers import HOST, wrong_headers
from runner.settings import MetricsSettings, Notify, RunConfig

SUFFIX = ".prom"
"""node_exporter reads no other files."""

NOBODY: dict[str, Any] = {"command": None, "url": None, "headers": {}}
"""Stands for who is told, wherever a config is shown: all of it may be secret."""

_LONG = 12
"""A shorter path of a webhook is a word such as ``/notify``, not a secret."""


def textfile_of(settings: MetricsSettings, base: Path) -> Path | None:
    """Return where the metrics go, relative to ``base``; None: nowhere."""
    return None if settings.textfile is None else Path(os.path.abspath(base / os.path.expanduser(settings.textfile)))


def problems(settings: RunConfig, base: Path) -> Iterator[str]:
    """Yield what is wrong with both sections, each with its place; never a secret value."""
    textfile = textfile_of(settings.metrics, base)
    if textfile is not None:
        yield from (f"metrics.textfile: {problem}" for problem in _textfile_problems(textfile))
    yield from (f"notify.{problem}" for problem in _notify_problems(settings.notify))


def secrets_of(notify: Notify) -> Iterator[str]:
    """Yield what is secret in who is told: the URL of a webhook and what it is made of, and the headers."""
    for value in notify.headers.values():
        yield from (value, value.rpartition(" ")[2])
    if notify.url is None:
        return
    yield notify.url
    try:
        parts = urlsplit(notify.url)
    except ValueError:
        return
    info, _, _ = parts.netloc.rpartition("@")
    yield from (one for part in (info, *info.split(":")) for one in (part, unquote(part)))
    yield from (value for _, value in parse_qsl(parts.query))
    asked = f"{parts.path}?{parts.query}" if parts.query else parts.path
    yield from (one for one in (asked, parts.path, parts.path.rpartition("/")[2]) if len(one) >= _LONG)


def _textfile_problems(textfile: Path) -> Iterator[str]:
    if "\0" in str(textfile):
        yield f"expected a path, got {str(textfile)!r}"
        return
    if textfile.suffix != SUFFIX:
        yield f"expected a name that ends in {SUFFIX} (node_exporter reads no others), got {str(textfile)!r}"
    if textfile.exists() and not textfile.is_file():
        yield f"expected a file, but {textfile} is none"
    elif not textfile.parent.is_dir():
        yield f"expected a folder that exists, but {textfile.parent} does not; make it, or name another"
    elif not os.access(textfile.parent, os.W_OK | os.X_OK):
        yield f"expected a folder that this user may write to, but {textfile.parent} is none"
    if absent := missing("metrics"):
        yield f"it needs {absent}"


def _notify_problems(notify: Notify) -> Iterator[str]:
    if notify.url is not None and not _is_usable(notify.url):
        yield "url: expected an http or https URL such as https://chat.example/hooks/1 (it may be secret: not shown)"
    yield from (f"headers: {wrong}" for wrong in wrong_headers(notify.headers))
    words = [notify.command] if isinstance(notify.command, str) else notify.command or []
    if any("\0" in word for word in words):
        yield "command: it holds a NUL character, which no command can"


def _is_usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and HOST.fullmatch(parts.hostname or "") and parts.port != 0
    except ValueError:
        return False
    return bool(usable) and not re.search(r"[\s\x00-\x1f\x7f]", url)
