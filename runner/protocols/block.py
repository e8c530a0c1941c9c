"""The ``protocol:`` block, each of its keys declared once. A preset is such a block in a YAML file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from runner.sections import Also, Int, Seconds, Section

Encoding = Literal["multipart", "form", "json", "raw"]
Code = int | str
"""A status, or a class of them such as ``5xx``."""


def _one_or_many(given: Any) -> Any:
    return [given] if isinstance(given, dict) else given


def _text_or_many(given: Any) -> Any:
    return [given] if isinstance(given, str) else [] if given is None else given


def _code(given: Any) -> Any:
    if isinstance(given, str) and given.isdecimal():  # from the environment
        given = int(given)
    as_class = isinstance(given, str) and len(given) == 3 and given[0] in "12345" and given[1:].lower() == "xx"
    if isinstance(given, bool) or not (as_class or (isinstance(given, int) and 100 <= given <= 599)):
        raise ValueError(f"expected a status such as 503, or a class such as 5xx, got {given!r}")
    return given.lower() if isinstance(given, str) else given


_PARTIAL = Also(partial=True)
"""A section of a block that may be laid over a preset's."""

Codes = list[Annotated[Code, BeforeValidator(_code)]]


class RequestBlock(Section):
    """A request; every text may hold placeholders such as ``{seed}``."""

    method: str = Field("POST", pattern=r"^[A-Z]{1,16}$", description="The HTTP method.")
    path: str = Field(pattern=r"^/", description="Added to the endpoint's URL; it may hold a query.")
    encoding: Encoding = Field("json", description="How the body is written.")
    files: dict[str, Literal["image"]] = Field({}, description="multipart: the field that holds the image.")
    body: Any = Field(None, description='Fields (multipart, form), a document (json), or "{image.bytes}" (raw).')
    query: dict[str, Any] = Field({}, description="Added to the path.")
    headers: dict[str, str] = Field({}, description="Sent with this request.")

    @model_validator(mode="after")
    def _fits(self) -> RequestBlock:
        if self.files and self.encoding != "multipart":
            raise ValueError(f"expected files with encoding: multipart only, got {self.encoding}")
        if self.encoding in ("multipart", "form") and not isinstance(self.body, dict | None):
            raise ValueError(f"expected body to be a mapping of fields with encoding: {self.encoding}")
        if self.encoding == "raw" and not isinstance(self.body, str):
            raise ValueError('expected body to be a text such as "{image.bytes}" with encoding: raw')
        return self


class UploadBlock(RequestBlock):
    """A request before the submission."""

    save: dict[str, str] = Field({}, description="Name → JSON path in its answer; used later as {saved.NAME}.")


class ResultBlock(Section):
    """Where the result is."""

    source: Literal["body", "json"] = Field(
        "body", alias="from", description="body: the answer's bytes are it; json: it is within a document."
    )
    path: str = Field("", description="json: where; dots, * for each, numbers index lists.")
    decode: Literal["base64", "data_url", "url", "text", "json"] = Field(
        "base64", description="json: what is found there; url: it is downloaded."
    )

    @model_validator(mode="after")
    def _fits(self) -> ResultBlock:
        if self.source == "body" and {"path", "decode"} & self.model_fields_set:
            raise ValueError("expected from: json beside path and decode")
        if self.source == "json" and not self.path and self.decode != "json":
            raise ValueError("expected a path with from: json")
        return self


class StatusBlock(Section):
    """What a status means; one that is in none is final."""

    ok: Codes = Field([200], min_length=1, description="The answer is looked at.")
    busy: Codes = Field([409, 429, 503], description="Healthy and full: come back, nobody's fault.")
    retry: Codes = Field([408, 425, "5xx"], description="A failed attempt; another may help.")


class FailBlock(Section):
    """A good status that stands for a failure."""

    path: str = Field(min_length=1, description="Where to look in the JSON answer.")
    among: list[Any] | None = Field(None, alias="in", description="A failure if one of these stands there.")
    not_in: list[Any] | None = Field(None, description="A failure if none of these stands there.")

    @model_validator(mode="after")
    def _fits(self) -> FailBlock:
        if (self.among is None) == (self.not_in is None):
            raise ValueError("expected either in or not_in")
        return self


class HealthBlock(Section):
    """The page that says how a server is."""

    path: str = Field("/health", pattern=r"^/", description="Asked with GET.")
    status: Int = Field(
        200, ge=100, le=599, description="What a healthy one answers; if set, one that doesn't gets no prompts."
    )
    document: dict[str, Any] = Field(
        {}, alias="json", description="JSON path → the value, or a list of values, that a healthy one has."
    )
    version: str | None = Field(None, pattern=r"^/", description="The page that says its version.")
    busy: str | None = Field(None, min_length=1, description="JSON path of how many it generates, for monitor.")
    queue: str | None = Field(None, min_length=1, description="JSON path of how many wait in it, for monitor.")


class Clocks(Section):
    """Overrides of the run's clocks for this kind of server."""

    connect_s: Seconds | None = Field(None, gt=0, description="In place of timeouts.connect_s.")
    first_byte_s: Seconds | None = Field(None, gt=0, description="In place of timeouts.first_byte_s.")
    stall_s: Seconds | None = Field(None, gt=0, description="In place of timeouts.stall_s.")
    total_s: Seconds | None = Field(None, gt=0, description="In place of timeouts.total_s.")


class PollBlock(Section):
    """How a job, or a batch, is asked how far it is."""

    method: str = Field("GET", pattern=r"^[A-Z]{1,16}$", description="The HTTP method.")
    path: str = Field(pattern=r"^/", description='Such as "/status/{id}".')
    query: dict[str, Any] = Field({}, description="Added to the path.")
    headers: dict[str, str] = Field({}, description="Sent with each.")
    body: Any = Field(None, description="A JSON document, if one is needed.")
    every_s: Seconds = Field(2, gt=0, description="Pause between two.")
    deadline_s: Seconds = Field(1800, gt=0, description="A job that takes longer has failed.")
    timeout_s: Seconds = Field(30, gt=0, description="What one poll may take; with sse, a pause between two bytes.")
    format: Literal["json", "sse"] = Field("json", description="sse: server-sent events; the state is their name.")
    state: str = Field("", description="JSON path of the state.")
    ready: list[Any] = Field([], description="batch: states in which a batch may be submitted.")
    done: list[Any] = Field(min_length=1, description="States of a job that has its result.")
    failed: list[Any] = Field([], description="States of a job that will have none.")
    save: dict[str, str] = Field({}, description="Name → JSON path in the last answer, for fetch.")

    @model_validator(mode="after")
    def _fits(self) -> PollBlock:
        if self.format == "json" and not self.state:
            raise ValueError("expected state, the JSON path of the job's state")
        return self


class FetchBlock(Section):
    """Where the result is, if it is not in the last poll's answer."""

    method: str = Field("GET", pattern=r"^[A-Z]{1,16}$", description="The HTTP method.")
    path: str = Field(pattern=r"^/", description='Such as "/view?filename={saved.filename}".')
    query: dict[str, Any] = Field({}, description="Added to the path.")
    headers: dict[str, str] = Field({}, description="Sent with it.")


class ResultsBlock(Section):
    """The archive of a batch."""

    method: str = Field("GET", pattern=r"^[A-Z]{1,16}$", description="The HTTP method.")
    path: str = Field(pattern=r"^/", description="Where the ZIP is.")
    query: dict[str, Any] = Field({}, description="Added to the path.")
    headers: dict[str, str] = Field({}, description="Sent with it.")
    member: str = Field(min_length=1, description='The file of one prompt in it, such as "{stem}.js".')
    failed_manifest: str | None = Field(None, description="The JSON file in it that names the failed ones.")


class Block(Section):
    """How a kind of server speaks."""

    preset: str | None = Field(None, description="The preset this is made of.")
    kind: Literal["sync", "job", "batch"] = Field("sync", description="One request; submit and poll; many at once.")
    request: Annotated[RequestBlock, _PARTIAL]
    result: ResultBlock = ResultBlock()
    status: StatusBlock = StatusBlock()
    fail_when: Annotated[list[Annotated[FailBlock, _PARTIAL]], BeforeValidator(_one_or_many), Also(one=True)] = Field(
        [], description="Good statuses that are failures."
    )
    error: Annotated[list[str], BeforeValidator(_text_or_many), Also({"type": "null"}, one=True)] = Field(
        [], description="JSON path, or several, of the server's own words about a failure; the first found."
    )
    release: Literal["headers", "body"] = Field("headers", description="When the slot is free for the next prompt.")
    health: HealthBlock | None = Field(HealthBlock(), description="null: it has no such page.")
    timeouts: Clocks = Clocks()
    upload: Annotated[UploadBlock, _PARTIAL] | None = Field(None, description="job: a request before the submission.")
    id: str | None = Field(None, description="job: JSON path of the job's id.")
    poll: Annotated[PollBlock, _PARTIAL] | None = Field(None, description="job, batch: how to ask how far it is.")
    fetch: Annotated[FetchBlock, _PARTIAL] | None = Field(
        None, description="job: where the result is, if not in the poll's answer."
    )
    size: Int = Field(32, ge=1, le=10_000, description="batch: prompts in one.")
    item: Any = Field(None, description="batch: the entry of one prompt in {items}.")
    results: Annotated[ResultsBlock, _PARTIAL] | None = Field(None, description="batch: where the archive is.")

    @model_validator(mode="after")
    def _fits(self) -> Block:
        needed = {"sync": (), "job": ("id", "poll"), "batch": ("poll", "item", "results")}[self.kind]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"expected {' and '.join(missing)} with kind: {self.kind}")
        if self.kind == "batch" and self.poll and not self.poll.ready:
            raise ValueError("expected poll.ready with kind: batch, the states in which a batch may be submitted")
        allowed = {"sync": (), "job": ("upload", "id", "poll", "fetch"), "batch": ("poll", "size", "item", "results")}
        for name in ("upload", "id", "poll", "fetch", "size", "item", "results"):
            if name in self.model_fields_set and name not in allowed[self.kind] and getattr(self, name) is not None:
                raise ValueError(f"expected no {name} with kind: {self.kind}")
        return self
