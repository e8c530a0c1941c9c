"""Does an endpoint speak as its protocol says, and if not, which preset would? No prompt is sent to find out.

What is sent is a form with a field that means nothing, to the path of the request. A server that wants JSON can't
read it, one that wants a form misses the image; what either answers tells whether the path is there, and often which
fields it wants. Only a server that takes a body it can't read for an empty one might generate from it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from runner.client import Client
from runner.errors import AttemptError
from runner.formats import words
from runner.protocols import Protocol, paths, preset, presets
from runner.protocols.block import RequestBlock
from runner.protocols.template import as_text, placeholders
from runner.records import Request

_TIMEOUT_S = 10.0
_GUESSING_S = 15.0
_NOT_THERE = (404, 405, 501)
_REFUSED = (401, 403)
_MEANINGLESS = {"runner-check": "1"}


@dataclass(frozen=True, slots=True)
class Recognition:
    """What an endpoint made of a request without content.

    ``fits`` is None if that says nothing; ``likely`` are the presets that would fit better.
    """

    fits: bool | None
    found: str
    likely: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Said:
    status: int
    head: bytes

    @property
    def is_there(self) -> bool:
        return self.status not in _NOT_THERE

    @property
    def missing(self) -> set[str]:
        """The fields that the server misses, as FastAPI and pydantic say it; empty if it doesn't."""
        try:
            document = json.loads(self.head)
        except (ValueError, RecursionError):
            return set()
        said = [one for one in paths.find(document, "detail.*") if isinstance(one, dict)]
        return {str(one["loc"][-1]) for one in said if "missing" in str(one.get("type")) and len(_place(one)) > 1}


def recognise(protocol: Protocol, client: Client) -> Recognition:
    """Ask an endpoint whether it knows the protocol's first request, and if it doesn't, whose it knows."""
    asked = _first(protocol)
    if [*placeholders(asked.path)]:
        return Recognition(None, f"{asked.path} depends on the prompt: not asked")
    if asked.encoding == "raw" or asked.method in ("GET", "HEAD"):
        return Recognition(None, f"{asked.method} {asked.path} may take anything for a prompt: not asked")
    try:
        said = _ask(client, asked, own=True)
    except AttemptError as error:
        return Recognition(None, words(str(error).encode()))
    fits, found = _judged(asked, said)
    is_in_doubt = fits is False or (fits is None and said.status >= 500)
    return Recognition(fits, found, _likely(protocol, client, {_key(asked): said}) if is_in_doubt else ())


def expectation(protocol: Protocol) -> str:
    """Say what a protocol expects of a server: its health page, and its first request."""
    asked, health = _first(protocol), protocol.block.health
    page = "no health page"
    if health:
        says = ", ".join(f"{path} {_any_of(value)}" for path, value in health.document.items())
        page = f"GET {health.path} → {health.status}" + (f" with {says}" if says else "")
    fields = ", ".join([*asked.files, *(asked.body if isinstance(asked.body, dict) else ())])
    return f"{page}; {asked.method} {asked.path} ({asked.encoding}{': ' if fields else ''}{fields})"


def _judged(asked: RequestBlock, said: _Said) -> tuple[bool | None, str]:
    place = f"{asked.method} {asked.path}"
    if said.status in _REFUSED:
        return None, f"{place} answers {said.status}: {words(said.head)} (are the credentials right?)"
    if not said.is_there:
        return False, f"{place} answers {said.status}: {words(said.head)}"
    if said.status >= 500 and asked.encoding == "multipart":
        return None, f"{place} answers {said.status} to a form without its files: {words(said.head)}"
    foreign = sorted(said.missing - _fields(asked))
    if foreign:
        return False, f"{place} answers {said.status} field required: {', '.join(foreign)}"
    known = sorted(said.missing & _fields(asked))
    return True, f"{place} is there" + (f" and wants {', '.join(known)}" if known else "")


def _likely(own: Protocol, client: Client, answers: dict[tuple[str, str], _Said]) -> tuple[str, ...]:
    """Return the presets whose first request the endpoint knows, those first whose fields it asks for."""
    named: list[str] = []
    there: list[str] = []
    until = time.monotonic() + _GUESSING_S
    for name in presets.names():
        if time.monotonic() > until:  # a slow server: what is known by now must do
            break
        other = preset(name)
        asked = _first(other)
        if other.block == own.block or [*placeholders(asked.path)]:
            continue
        try:
            said = answers.get(_key(asked)) or answers.setdefault(_key(asked), _ask(client, asked))
        except AttemptError:
            continue
        if said.is_there and said.status not in _REFUSED and said.missing <= _fields(asked):
            (named if said.missing else there).append(name)
    return tuple(named or there)


def _first(protocol: Protocol) -> RequestBlock:
    return protocol.block.upload or protocol.block.request


def _key(asked: RequestBlock) -> tuple[str, str]:
    return asked.method, asked.path


def _ask(client: Client, asked: RequestBlock, *, own: bool = False) -> _Said:
    """Ask without content; one's own protocol may say in headers and query who asks."""
    headers = {name: value for name, value in asked.headers.items() if own and not [*placeholders(value)]}
    query = {name: as_text(value) for name, value in asked.query.items() if own and not [*placeholders(value)]}
    path = asked.path + (("&" if "?" in asked.path else "?") + urlencode(query) if query else "")
    request = Request(asked.method, path, headers=headers, fields=_MEANINGLESS)
    with client.send(client.prepare(request), timeout_s=_TIMEOUT_S) as answer:
        return _Said(answer.status, answer.head())


def _fields(asked: RequestBlock) -> set[str]:
    return {*asked.files, *_names(asked.body)}


def _names(body: Any) -> Iterator[str]:
    """Yield the names of all fields of a body, however deep."""
    for name, value in body.items() if isinstance(body, dict) else ():
        yield name
        yield from _names(value)


def _any_of(expected: Any) -> str:
    return " or ".join(map(str, expected)) if isinstance(expected, list) else str(expected)


def _place(problem: dict[str, Any]) -> list[Any]:
    place = problem.get("loc")
    return place if isinstance(place, list) else []
