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
    if block.kind == "batch" and reads_image(block.item):
        yield "protocol.item: expected {image.url} or texts: a batch sends no images, it names them"


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
