"""What is wrong with a block beyond the types: placeholders that stand for nothing, or stand where they can't."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runner.headers import wrong_headers
from runner.protocols.block import Block
from runner.protocols.template import is_known, placeholders, reads_image


def problems(block: Block) -> Iterator[str]:
    """Yield what the types can't say: placeholders that stand for nothing, or stand where they can't."""
    submitted = {"id"} if block.kind == "job" else set()
    uploaded = {f"saved.{name}" for name in (block.upload.save if block.upload else ())}
    polled = {f"saved.{name}" for name in (block.poll.save if block.poll else ())}
    items = {"items"} if block.kind == "batch" else set()
    yield from _unknown("protocol.request", block.request, items | uploaded)
    if block.kind == "batch" and "items" not in placeholders(block.request.body):
        yield 'protocol.request.body: expected "{items}" where the list of prompts goes'
    yield from _unknown("protocol.upload", block.upload, set())
    yield from _unknown("protocol.poll", block.poll, submitted | uploaded)
    yield from _unknown("protocol.fetch", block.fetch, submitted | uploaded | polled)
    yield from _unknown("protocol.item", block.item, set())
    yield from _unknown("protocol.results", block.results, set())
    for where, asked in (("request", block.request), ("upload", block.upload)):
        if asked and "image.bytes" in placeholders([asked.path, asked.query, asked.headers]):
            yield f"protocol.{where}: expected {{image.bytes}} in a raw body only"
        if asked and "image.bytes" in placeholders(asked.body) and asked.body != "{image.bytes}":
            yield f"protocol.{where}.body: expected {{image.bytes}} to be all of a raw body"
        if asked and asked.body == "{image.bytes}" and asked.encoding != "raw":
            yield f"protocol.{where}.encoding: expected raw with a body of {{image.bytes}}, got {asked.encoding}"
    for where in ("request", "upload", "poll", "fetch"):
        asked = getattr(block, where)
        yield from (f"protocol.{where}.headers: {wrong}" for wrong in wrong_headers(asked.headers if asked else {}))
    for where, path in _paths(block):
        if "[" in path or path.startswith(("$", "/", ".")) or ".." in path or path.endswith("."):
            yield f"{where}: expected steps separated by dots, such as data.0.url, got {path!r}"
    for where, template in (("request.body", block.request.body), ("item", block.item)):
        for name in _bare({"": template}):
            yield f'protocol.{where}: {{{name}}} without quotes is a mapping to YAML; write "{{{name}}}"'
    if block.results and not [*placeholders(block.results.member)]:
        yield f"protocol.results.member: expected a placeholder such as {{stem}}, got {block.results.member!r}"
    if block.kind == "batch" and reads_image(block.item):
        yield "protocol.item: expected {image.url} or texts: a batch sends no images, it names them"


def _paths(block: Block) -> Iterator[tuple[str, str]]:
    """Yield every JSON path of a block, with its place."""
    if block.result.path:
        yield "protocol.result.path", block.result.path
    if block.id is not None:
        yield "protocol.id", block.id
    yield from (("protocol.error", path) for path in block.error)
    yield from (("protocol.fail_when.path", rule.path) for rule in block.fail_when)
    yield from (("protocol.health.json", path) for path in (block.health.document if block.health else ()))
    for name in ("busy", "queue"):
        yield from ((f"protocol.health.{name}", path) for path in [getattr(block.health, name, None)] if path)
    yield from (("protocol.upload.save", path) for path in (block.upload.save.values() if block.upload else ()))
    if block.poll:
        yield from (("protocol.poll.state", path) for path in [block.poll.state] if path)
        yield from (("protocol.poll.save", path) for path in block.poll.save.values())


def _bare(template: Any) -> Iterator[str]:
    """Yield placeholders that YAML took for mappings, for they stand without quotes."""
    for value in template.values() if isinstance(template, dict) else template if isinstance(template, list) else ():
        if isinstance(value, dict) and len(value) == 1 and [*value.values()] == [None]:
            yield from (name for name in value if is_known(str(name)))
        yield from _bare(value)


def _unknown(where: str, section: Any, given: set[str]) -> Iterator[str]:
    if section is None:
        return
    template = section.model_dump() if hasattr(section, "model_dump") else section
    for name in dict.fromkeys(placeholders(template)):
        special = name in ("id", "items") or name.startswith("saved.")
        if not is_known(name):
            yield f"{where}: unknown placeholder {{{name}}}; write {{{{{name}}}}} for the text itself"
        elif special and name not in given:
            yield f"{where}: {{{name}}} stands for nothing here"
