"""How a kind of server speaks, as data: which requests to send for a prompt, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from runner.errors import ResultError
from runner.formats import words as plain_words
from runner.protocols import paths, presets
from runner.protocols.asking import question, request
from runner.protocols.block import Block, Code, FailBlock, PollBlock
from runner.protocols.checks import problems
from runner.protocols.documents import Document, shown
from runner.protocols.shape import digest, shape
from runner.protocols.template import READS_IMAGE, Values, as_text, placeholders, render, stem_of
from runner.records import Prompt, Request

__all__ = [
    "Block",
    "Document",
    "Protocol",
    "Values",
    "paths",
    "preset",
    "presets",
    "problems",
    "saved",
    "shown",
    "stem_of",
]

StatusClass = Literal["ok", "busy", "retry", "permanent"]
State = Literal["pending", "ready", "done", "failed"]

_FORMATS = {"text": "txt", "json": "json"}


class Protocol:
    """A block at work. ``named`` is what its name is made of, if that is not the block as it is."""

    def __init__(self, block: Block, *, named: Block | None = None) -> None:
        self.block = block
        self._named = named or block

    @cached_property
    def name(self) -> str:
        """What stands for it in ledger and fingerprint: the preset's name, if what it asks for is just that preset's.

        Else a name with a digest of what shapes a result: requests and where the result is, not clocks, not headers.
        """
        base = self.block.preset
        if base and shape(self._named) == shape(preset(base).block):
            return base
        return f"{base or self.block.kind}-{digest(self._named)}"

    @cached_property
    def sends(self) -> frozenset[str]:
        """The names of all placeholders in what is sent for a prompt."""
        asked = [one for one in (self.block.request, self.block.upload) if one]
        names = {name for one in asked for name in placeholders(one.model_dump())}
        names |= {*placeholders(self.block.item), *placeholders([self.block.results and self.block.results.member])}
        if any(one.files for one in asked):
            names.add("image.bytes")
        return frozenset(names)

    @property
    def reads_image(self) -> bool:
        """Tell whether the image's content is sent, not only its URL."""
        return bool(self.sends & READS_IMAGE)

    @property
    def what(self) -> Literal["image", "text"]:
        """What a line of a prompts file is for it."""
        return "text" if "text" in self.sends and not any(one.startswith("image.") for one in self.sends) else "image"

    @property
    def demanding(self) -> list[str]:
        """The placeholders that not every prompt has something for, beside what a line of a prompts file is."""
        given = {"text"} if self.what == "text" else {"image.base64", "image.data_url", "image.bytes", "image.name"}
        own = [one for one in self.sends if one == "text" or one.startswith(("image.", "params."))]
        return sorted({*own} - given)

    @property
    def format(self) -> str | None:
        """The format of its results, where that is no matter of their content."""
        result = self.block.result
        return _FORMATS.get(result.decode) if result.source == "json" else None

    @property
    def is_plain(self) -> bool:
        """Tell whether a result is just the body of the one answer."""
        return self.block.kind == "sync" and self.block.result.source == "body"

    @property
    def several(self) -> bool:
        """Tell whether a prompt may have several results."""
        return "*" in self.block.result.path or bool(
            self.block.poll and "*" in "".join(self.block.poll.save.values())
        )

    def lacks(self, prompt: Prompt) -> str | None:
        """Say what this protocol sends and a prompt does not have."""
        for name in sorted(self.sends):
            head, _, rest = name.partition(".")
            if name == "text" and prompt.text is None:
                return "no text"
            if name == "image.url" and not prompt.is_url:
                return "no http or https URL, but a local file" if prompt.image else "no image"
            if head == "image" and not prompt.image:
                return "no image"
            if head == "params" and rest not in prompt.params:
                return f"no column {rest}"
        return None

    def generation(self, values: Values) -> Request:
        """Return the request that asks for a generation, or submits it."""
        return request(self.block.request, values)

    def upload(self, values: Values) -> Request | None:
        """Return the request that comes before a submission, if there is one."""
        return request(self.block.upload, values) if self.block.upload else None

    def poll(self, values: Values) -> Request:
        """Return the request that asks how far a job is."""
        poll = self._poll
        content = json.dumps(render(poll.body, values)).encode() if poll.body is not None else None
        return question(poll, values, content)

    def fetch(self, values: Values) -> Request | None:
        """Return the request for the result, if it is not in the last poll's answer."""
        return question(self.block.fetch, values) if self.block.fetch else None

    def archive(self, values: Values) -> Request:
        """Return the request for the results of a batch."""
        assert self.block.results is not None
        return question(self.block.results, values)

    def entry(self, values: Values) -> Any:
        """Return the entry of one prompt in a batch."""
        return render(self.block.item, values)

    def member(self, values: Values) -> str:
        """Return the name of one prompt's file in the archive."""
        assert self.block.results is not None
        return as_text(render(self.block.results.member, values))

    def meaning(self, status: int, *, retry_after: bool = False) -> StatusClass:
        """Tell what a status means: a success, come back later, worth another try, or final.

        A 503 that says when to come back is busy, wherever it is listed.
        """
        given = self.block.status
        if _among(status, given.ok):
            return "ok"
        if _among(status, given.busy):
            return "busy"
        if _among(status, given.retry):
            return "busy" if retry_after and status == 503 else "retry"
        return "permanent"

    def failure(self, document: Document) -> str | None:
        """Return the server's words if a good status stands for a failure, else None."""
        for rule in self.block.fail_when:
            found = paths.find(document.value, rule.path)
            if _fails(rule, found):
                return self.words(document) or f"{rule.path} is {shown(found[0]) if found else 'missing'}"
        return None

    def words(self, document: Document) -> str:
        """Return what the server says of a failure, "" if nobody knows where it does."""
        for path in self.block.error:
            said = paths.first(document.value, path)
            if said not in (None, "", [], {}):
                return plain_words(as_text(document.plain(said)).encode(errors="replace"))
        return ""

    def state(self, document: Document, values: Values) -> Any:
        """Return the state that a poll's answer tells; None if it tells none."""
        return paths.first(document.value, self._poll.state, values)

    def stands(self, state: Any) -> State:
        """Tell what a state means; one that is not listed is on its way."""
        poll = self._poll
        if state in poll.done:
            return "done"
        if state in poll.failed:
            return "failed"
        return "ready" if state in poll.ready else "pending"

    def results(self, document: Document, values: Values) -> list[Any]:
        """Return what stands where the results are; [] if nothing does."""
        found = paths.find(document.value, self.block.result.path, values)
        return [one for one in found if one is not None and one != ""]

    @property
    def _poll(self) -> PollBlock:
        assert self.block.poll is not None
        return self.block.poll


def saved(document: Document, rules: Mapping[str, str], values: Values) -> list[dict[str, Any]]:
    """Return what ``save`` picks out of an answer: one mapping, or one for each where a path has ``*``.

    Raises ResultError if a name stands nowhere.
    """
    found = {name: paths.find(document.value, path, values) for name, path in rules.items()}
    for name, some in found.items():
        if not some:
            raise ResultError(f"{rules[name]}: there is no such thing in the answer")
    most = max((len(some) for name, some in found.items() if "*" in rules[name]), default=1)
    return [
        {name: document.plain(some[min(number, len(some) - 1)]) for name, some in found.items()}
        for number in range(most)
    ]


def preset(name: str) -> Protocol:
    """Return a preset. Raises ValueError naming those there are."""
    return Protocol(Block.model_validate(presets.expanded(name)))


def _among(status: int, codes: Sequence[Code]) -> bool:
    return status in codes or f"{status // 100}xx" in codes


def _fails(rule: FailBlock, found: Sequence[Any]) -> bool:
    if rule.among is not None:
        return any(one in rule.among for one in found)
    return not any(one in (rule.not_in or []) for one in found)
