"""The records that travel between the rooms: frozen, flat, and filled whatever happens."""

from __future__ import annotations

import itertools
import mimetypes
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, Protocol

from runner.errors import AttemptError

URL = ("http://", "https://")
"""How an image begins that is no local file."""

Kind = Literal["saved", "failed", "interrupted", "dropped", "submitted"]
"""How a prompt ended; what did not end it are two.

``dropped``: what one endpoint did for a prompt that another had done first (``hedge``). ``submitted``: a job of this
prompt waits on its endpoint; a run that comes after a crash finds it again.
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One HTTP server that generates, usually one GPU on one port.

    ``label`` is how log lines name it: ``port 10006``, or ``host:port`` where two endpoints share a port.
    ``headers`` and ``query`` go with every request, credentials among them. ``verify`` is about its TLS certificate:
    True, False, or the path of the authorities to believe; ``cert`` is our own, and ``key`` its key if that is in a
    file of its own. ``worker`` is whom of Dask's workers to leave it to, None for any. ``spare``: so many
    hands beyond its slots save what it made and make the next request ready.
    """

    index: int
    url: str
    name: str
    label: str
    slots: int = 1
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: bool | str = True
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    cert: str | None = None
    key: str | None = None
    proxy: str | None = field(default=None, repr=False)
    worker: str | None = None
    spare: int = 1

    @property
    def hands(self) -> int:
        """How many threads work for it."""
        return self.slots + self.spare


@dataclass(frozen=True, slots=True)
class Prompt:
    """One entry of the prompts input: an image, a text, or both.

    ``index`` counts from 0 over the whole input. ``key`` is the result's file name without its extension.
    ``image`` is an http(s) URL or an absolute path, "" if there is none. ``seed`` stands in for the run's;
    ``params`` are what else the list says of this prompt.
    """

    index: int
    key: str
    image: str = ""
    text: str | None = None
    seed: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def is_url(self) -> bool:
        return self.image.startswith(URL)


@dataclass(frozen=True, slots=True)
class Page:
    """A list of prompts as it was downloaded. ``file`` stands at its start, ``url`` is where redirects led to."""

    file: BinaryIO
    url: str
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """A prompt's image as it was read. ``mtime_ns`` is 0 for a downloaded one."""

    name: str
    content: bytes
    sha256: str
    mtime_ns: int = 0

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    @property
    def content_type(self) -> str:
        """What it is by its first bytes, else by its name."""
        for start, kind in _IMAGE_TYPES.items():
            if self.content.startswith(start):
                return kind
        return mimetypes.guess_type(self.name)[0] or "application/octet-stream"


_IMAGE_TYPES = {
    b"\x89PNG\r\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"RIFF": "image/webp",
    b"GIF8": "image/gif",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a protocol wants sent to an endpoint.

    ``path`` is added to its URL, or is a URL of its own on the same host. The body is ``content``, or a multipart
    form of ``fields`` and ``files`` (field → file name, bytes, content type) if ``fields`` is given.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] | None = None
    files: Mapping[str, tuple[str, bytes, str]] = field(default_factory=dict)
    content: bytes | None = None
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A body that arrived to its end; whether it is a whole result, its structure tells."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request and what came of it. ``number`` counts from 1; durations are in seconds.

    ``wait_s`` is the time the request stood ready before the endpoint's slot was free, ``generate_s`` runs from
    sending it to the answer's headers (of a job: until it is done; of a batch: its share of that), ``receive_s`` from
    there to the last byte. ``started_at`` (UTC,
    ISO 8601) is when the request was sent. ``error`` is None for the attempt that succeeded.
    """

    number: int
    endpoint: str
    started_at: str
    wait_s: float = 0.0
    generate_s: float = 0.0
    receive_s: float = 0.0
    status: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One file of a prompt that has several: its name in the output folder, and what it was when it was written."""

    file: str
    format: str
    size_bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Job:
    """Work that an endpoint took on: its id there, what else its answers said, and when it was submitted (UTC)."""

    id: Any
    saved: Mapping[str, Any]
    submitted_at: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one prompt ended in this run; one line of the ledger.

    ``prompt`` is the image's URL without secrets, its path, or the text, cut. ``file`` is the result's name in the
    output folder. ``image`` tells of a local image ``size_bytes``, ``mtime_ns`` and ``sha256``, so that the next run
    sees whether it changed. ``blame`` is set when it failed: ``endpoint`` or ``prompt``. ``moved_from`` is the
    endpoint of its lane if it ended on another. ``more`` are the files beyond the first of a prompt with several
    results, ``job`` is what was submitted.
    """

    key: str
    index: int
    prompt: str
    outcome: Kind
    endpoint: str
    fingerprint: str
    seed: int
    protocol: str
    image: Mapping[str, Any] | None = None
    file: str | None = None
    format: str | None = None
    size_bytes: int | None = None
    mtime_ns: int | None = None
    sha256: str | None = None
    image_s: float = 0.0
    save_s: float = 0.0
    seconds: float = 0.0
    finished_at: str = ""
    error: str | None = None
    blame: str | None = None
    moved_from: str | None = None
    more: tuple[ResultFile, ...] = ()
    job: Job | None = None
    attempts: tuple[Attempt, ...] = ()


@dataclass(slots=True, eq=False)
class Task:
    """A prompt that was taken up and has not ended. One thread has it at a time.

    Who has it writes the upper part; ``image_attempts`` counts those in a row that failed, ``excused`` tells that an
    old connection was its excuse once, ``jobs`` what endpoints (by name) have taken on for it and not ended,
    ``alone`` that it is not to share a batch, ``mark`` tells its files from those of others, ``recalled`` that an
    earlier run had asked for it. The lower part belongs to the schedule, and is one for all tasks of a prompt:
    ``losses`` holds the number of each worker process that died with it, ``charged`` the index of an endpoint for
    each attempt that is used up, ``forgiven`` the endpoints whose failures turned out to be their own, ``asked`` all
    that were asked, in this order.
    """

    prompt: Prompt
    begun: float = field(default_factory=time.monotonic)
    attempts: list[Attempt] = field(default_factory=list)
    image_s: float = 0.0
    save_s: float = 0.0
    image_attempts: int = 0
    excused: bool = False
    jobs: dict[str, Job] = field(default_factory=dict)
    alone: bool = False
    mark: int = field(default_factory=itertools.count().__next__)
    recalled: bool = False

    losses: list[int] = field(default_factory=list)
    charged: list[int] = field(default_factory=list)
    forgiven: set[int] = field(default_factory=set)
    asked: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Started:
    """A hand took up a prompt; ``instead_of`` is the endpoint of its lane, if that is another."""

    prompt: Prompt
    endpoint: Endpoint
    instead_of: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Retrying:
    """An attempt failed and another will follow after ``wait_s`` seconds, on ``next``."""

    prompt: Prompt
    endpoint: Endpoint
    error: str
    attempt: int
    wait_s: float
    next: Endpoint


class Waiting(Protocol):
    """A file, or several, that ``keep`` gives their names, ``targets``, or ``drop`` removes."""

    @property
    def targets(self) -> tuple[str, ...]: ...

    def keep(self) -> None: ...

    def drop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Saving:
    """A verified result that waits for its ledger line; ``part`` is all of its files."""

    outcome: Outcome
    part: Waiting


@dataclass(frozen=True, slots=True)
class Submitted:
    """An endpoint took a job on; ``outcome`` is what the ledger should say of it."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that failed; ``outcome`` is what is to be said if no other follows."""

    error: AttemptError
    outcome: Outcome


Verdict = Saving | Failed
"""What came of working on a task once."""


@dataclass(frozen=True, slots=True)
class Out:
    """An endpoint gets no prompts for the time being; ``moved`` others were to be its."""

    endpoint: Endpoint
    why: str
    moved: int = 0


@dataclass(frozen=True, slots=True)
class Back:
    """An endpoint that was out for ``out_s`` seconds gets prompts again."""

    endpoint: Endpoint
    out_s: float


@dataclass(frozen=True, slots=True)
class Met:
    """An endpoint was asked for its health and version as the run began."""

    endpoint: Endpoint
    version: str


Event = Started | Retrying | Submitted | Saving | Outcome | Out | Back | Met


@dataclass(frozen=True, slots=True)
class EndpointTotals:
    """What one endpoint did in this run. ``busy_s``: seconds it generated for us; ``outages``: times it was out.

    ``retries``: attempts after which another was made; ``median_s``: what one of its latest generations took;
    ``slow``: twice what the others take, or more; ``out``: it was out when the run ended; ``result_s``: what one of
    its latest results took, to its last byte; ``slots``: generations at a time.
    """

    name: str
    url: str
    saved: int = 0
    failed: int = 0
    attempts: int = 0
    busy_s: float = 0.0
    bytes: int = 0
    outages: int = 0
    median_s: float | None = None
    slow: bool = False
    retries: int = 0
    out: bool = False
    result_s: float | None = None
    slots: int = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """A prompt that has no result, for the summary."""

    key: str
    index: int
    prompt: str
    endpoint: str
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The truth about a run, or about several (``runs``): ``saved + skipped + failed + pending == total``, always.

    ``seconds`` is wall-clock time. ``stopped`` says why the run ended with work pending: ``SIGINT``,
    ``SIGTERM``, ``SIGHUP``, ``window`` (``max_runtime_s``, ``until``), ``down`` (no endpoint for ``all_down_s``),
    ``failures`` (``max_failures``), ``error`` or ``bug``; of one that did not begin ``usage`` or ``locked``.
    ``failures`` is capped (see ``report``); the ledger has them all. ``warnings``: what went wrong with the notice of
    its end.
    """

    total: int
    saved: int
    skipped: int
    failed: int
    pending: int
    seconds: float
    output_folder: str
    error: str | None = None
    stopped: str | None = None
    run: str = ""
    started_at: str = ""
    endpoints: tuple[EndpointTotals, ...] = ()
    failures: tuple[Failure, ...] = ()
    runs: tuple[Summary, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def success(self) -> bool:
        """True only if every prompt has a verified result on disk and all of it could be written down."""
        return self.failed == 0 and self.pending == 0 and self.error is None and all(one.success for one in self.runs)

    @property
    def exit_code(self) -> int:
        """0, 1, 2, 3, 75, or 128 and the signal's number: 129, 130, 143. Of several runs, that of the worst."""
        if self.success:
            return 0
        if self.runs:
            return _worst([one.exit_code for one in self.runs]) or 1
        if self.stopped in _EXIT_CODES:
            return _EXIT_CODES[self.stopped]
        return 75 if self.failed == 0 and self.stopped in _LATER else 1


_EXIT_CODES = {"usage": 2, "bug": 3, "SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}
_LATER = ("window", "down", "locked")


def _worst(codes: Sequence[int]) -> int:
    """Return the exit code of several runs: a signal, a bug, failures, later; 2 only if nothing was sent in any.

    >>> [_worst(codes) for codes in ([0, 75], [75, 1], [0, 2], [2, 2], [0, 130, 1])]
    [75, 1, 1, 2, 130]
    """
    if max(codes) > 128:
        return max(codes)
    if 3 in codes:
        return 3
    if all(code == 2 for code in codes):
        return 2
    return 1 if {1, 2} & {*codes} else max(codes)
