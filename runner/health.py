"""An endpoint's state from its successes and failures, and how to ask it how it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from runner import settings
from runner.client import Client
from runner.errors import AttemptError
from runner.formats import words
from runner.protocols import Protocol, paths
from runner.protocols.block import HealthBlock
from runner.records import Endpoint
from runner.redact import public_url

PROBE_TIMEOUT_S = 10.0
_FIRST_PROBE_S = 1.0
_TRIALS_CAP = 2
_BUSY_S = (0.25, 0.5, 1.0, 2.0, 5.0)
"""Pauses after the first, second … answer "busy" in a row: a slot is often freed a moment later."""

_NOT_READY = frozenset(
    ["loading", "starting", "initializing", "warming_up", "unhealthy", "unavailable", "not_ready", "error", "down"]
)
"""What ``status`` says on health pages that answer 200 all the time."""


_HEALTHY = ("healthy", "ok", "ready")

_BUSY_NAMES = (
    "busy", "is_busy", "running", "active", "active_requests", "in_flight", "in_progress", "processing",
    "queue_running",
)  # fmt: skip
_QUEUE_NAMES = (
    "queue", "queue_size", "queue_length", "queue_depth", "queued", "pending", "pending_requests", "queue_pending",
    "queue_remaining", "waiting",
)  # fmt: skip
"""What health pages call the generations that go on, and those that wait, where the protocol doesn't say it."""

_WORDS_FOR = {"busy": 1, "idle": 0, "ready": 0}
_COUNT_MAX = 1_000_000_000


class Breaker:
    """Decides whether an endpoint gets prompts. Times are those of one monotonic clock.

    ========  ===================================================  =================================================
    state     what it gets                                         left by
    ========  ===================================================  =================================================
    ``in``    prompts                                              ``failures_to_open`` failures in a row → ``out``
    ``out``   a probe 1 s after, then twice as late each time, at  a good probe → ``trial``
              most every ``probe_every_s``
    ``trial`` one prompt                                           success → ``in``; failure → ``out``
    ========  ===================================================  =================================================

    After failed trials the next probes come ``probe_every_s``, then twice that later: an endpoint that says it is
    healthy and is not costs a prompt's time each time. Never later: a healed server is not left idle.
    """

    def __init__(self, policy: settings.Health, doubted: Callable[[], None] | None = None) -> None:
        """``doubted`` is called with every change for the worse."""
        self._policy = policy
        self._doubted = doubted or _nobody_asks
        self._trials = 0
        self._probes = 0
        self.busy = 0
        self.state: Literal["in", "out", "trial"] = "in"
        self.failures = 0
        self.proven = False
        self.out_since = 0.0
        self.probe_at = 0.0
        self.cool_until = 0.0

    def takes(self, now: float) -> bool:
        """Tell whether it may get prompts at will."""
        return self.state == "in" and now >= self.cool_until

    def succeed(self) -> bool:
        """Note that it did what it should; return whether it is back with that.

        A pause it asked for stays: what it did may have been asked of it before.
        """
        back = self.state != "in"
        self.state = "in"
        self.proven = True
        self.failures = self._trials = self.busy = 0
        return back

    def fail(self, now: float, *, counts: bool = True) -> bool:
        """Note a failure; return whether it goes out with that. One that is likely the prompt's doesn't count."""
        self._doubted()
        if self.state == "trial":
            self._trials += 1
            self.state = "out"
            self.probe_at = now + self._policy.probe_every_s * min(self._trials, _TRIALS_CAP)
            return False
        self.failures += counts
        if self.state == "in" and counts and self.failures >= self._policy.failures_to_open:
            self.open(now)
            return True
        return False

    def open(self, now: float) -> None:
        """Take it out."""
        self._doubted()
        self.state = "out"
        self.proven = False
        self.out_since = now
        self._trials = self._probes = 0
        self.probe_at = now + min(_FIRST_PROBE_S, self._policy.probe_every_s)

    def cool(self, now: float, wait_s: float | None) -> None:
        """Give it no prompts for ``wait_s``, or for a pause that grows while it is busy."""
        self._doubted()
        pause_s = _BUSY_S[min(self.busy, len(_BUSY_S) - 1)] if wait_s is None else wait_s
        self.busy += 1
        self.cool_until = max(self.cool_until, now + pause_s)
        if self.state == "trial":  # it answers, and is full
            self.state, self.probe_at = "out", self.cool_until

    def probed(self, now: float, *, alive: bool) -> None:
        """Note what a probe of one that is out has found."""
        if alive:
            self.state = "trial"
            return
        self._probes += 1
        self.probe_at = now + min(_FIRST_PROBE_S * 2.0 ** min(self._probes, 30), self._policy.probe_every_s)


def _nobody_asks() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a probe found. ``status`` is ``healthy`` or what is wrong; ``latency_s`` that of ``/health``.

    ``healthy``: it says so. ``alive``: it may get prompts, for it answers and doesn't say that it is not ready.
    ``refused``: it certainly can't get any. ``busy`` and ``queue``: how many generations go on there, and how many
    wait, if the page says so; for people, a run doesn't go by them.
    """

    endpoint: Endpoint
    healthy: bool
    status: str
    version: str = ""
    latency_s: float = 0.0
    alive: bool = False
    refused: bool = False
    busy: int | None = None
    queue: int | None = None


def probe(endpoint: Endpoint, protocol: Protocol, client: Client, *, timeout_s: float = PROBE_TIMEOUT_S) -> Health:
    """Ask health and version once. Never raises for a server that is down: that is the answer.

    Of a server without a health page any answer is a good one.
    """
    asked = protocol.block.health
    begun = time.monotonic()
    try:
        code, body = client.get(asked.path if asked else "/", timeout_s=timeout_s)
    except AttemptError as error:
        return Health(endpoint, False, _without(endpoint, error), refused=not error.reached)
    latency_s = time.monotonic() - begun
    if asked is None:
        return Health(endpoint, healthy=True, status="answers", latency_s=latency_s, alive=True)
    page = _json(body)
    said = _said(asked, page)
    good = code == asked.status or (code < 500 and "status" not in asked.model_fields_set)
    ready = good and said.lower().replace(" ", "_") not in _NOT_READY
    return Health(
        endpoint,
        healthy=code == asked.status and (not said or _is_expected(asked, page)),
        status=said or ("healthy" if code == asked.status else f"{code}: {words(body)}"),
        version=_version(asked, client, max(0.1, timeout_s - latency_s)),
        latency_s=latency_s,
        alive=ready,
        refused=not ready,
        busy=_count(page, asked.busy, _BUSY_NAMES),
        queue=_count(page, asked.queue, _QUEUE_NAMES),
    )


def _said(asked: HealthBlock, page: object) -> str:
    """Return what the page says under the first name that it is asked for; "" if nothing."""
    path = next(iter(asked.document), "status")
    return _field(page, path)


def _count(page: object, path: str | None, names: Sequence[str]) -> int | None:
    """Return how many the page says there are at ``path``, else under the first of the usual names; None if nowhere.

    >>> _count({"busy": True}, None, ["busy"]), _count({"jobs": {"wait": [1, 2]}}, "jobs.wait", [])
    (1, 2)
    """
    for one in (path,) if path else names:
        count = _counted(paths.first(page, one))
        if count is not None:
            return count
    return None


def _counted(found: object) -> int | None:
    """Return a number, a list's length, 1 or 0 for true or false, and for a word that says as much."""
    if isinstance(found, str):
        return _WORDS_FOR.get(found.lower())
    if isinstance(found, list):
        return len(found)
    return int(found) if isinstance(found, int | float) and 0 <= found <= _COUNT_MAX else None


def _is_expected(asked: HealthBlock, page: object) -> bool:
    """Tell whether the page says of everything what a healthy server says."""
    for path, expected in asked.document.items():
        found = paths.first(page, path)
        good = expected if isinstance(expected, list) else [expected]
        if found not in good and not (isinstance(found, str) and "healthy" in good and found in _HEALTHY):
            return False
    return True


def _version(asked: HealthBlock, client: Client, timeout_s: float) -> str:
    if asked.version is None:
        return ""
    try:
        code, body = client.get(asked.version, timeout_s=timeout_s)
    except AttemptError:
        return ""
    return (_field(_json(body), "version") or words(body)) if code == 200 else ""


def _without(endpoint: Endpoint, error: AttemptError) -> str:
    """Return what went wrong, without the URL that every table and log line has beside it."""
    return str(error).removeprefix(f"{public_url(endpoint.url)}: ")


def _field(page: object, path: str) -> str:
    """Return a field of a JSON page as one short line; "" if there is none."""
    found = paths.first(page, path)
    return "" if found is None else words(str(found).encode())


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
