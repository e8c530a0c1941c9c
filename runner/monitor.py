"""Look at every endpoint, again and again, and at the run that goes on in a folder. What is seen is drawn elsewhere.

Nobody waits for who is slow: an endpoint that has not answered keeps its last finding until it has, or is late.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runner import limits
from runner.client import Client
from runner.clock import utc_age_s, utc_now
from runner.config import Config, config_from, load_config
from runner.errors import UsageError
from runner.formats import words
from runner.health import PROBE_TIMEOUT_S, Health, probe
from runner.progress import progress_in, together
from runner.records import Endpoint
from runner.redact import public_url
from runner.settings import Log, MetricsSettings, Notify
from runner.yamlfile import read_document

STALE_S = 60.0
"""A run that goes on writes its progress every two seconds; one that has not for so long is not believed."""

_ASKED_AT_ONCE = 64
_LATE_S = 1.0
"""So much later than a probe's own limit an endpoint is given up: the look-up of its name can't be cut."""

_QUICK_S = 1.0
_POLL_S = 0.25
_NEEDED = ("endpoints", "protocol", "timeouts", "output_folder")
"""The keys of a config that a look at its endpoints is made of."""

_UNUSED: dict[str, Any] = {"log": Log(), "metrics": MetricsSettings(), "notify": Notify(), "shard": None}
"""What a run does besides: nothing that is wrong with it, or unset in it, keeps from looking.

A mapping would be laid over what the file says; a section replaces it.
"""


class _Counts(BaseModel):
    """What progress counts of a run, or of one endpoint in it; keys that are new are let be."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    saved: int = Field(ge=0)
    failed: int = Field(ge=0)


class Lane(_Counts):
    """What an endpoint does in a run that goes on."""

    name: str
    state: str = ""
    retries: int = 0
    waiting: int = Field(0, ge=0)
    taken: int = Field(0, ge=0)
    median_s: float | None = None
    last_error: str = ""


class Progress(_Counts):
    """How far a run is that goes on, as it says itself."""

    run: str = ""
    pid: int
    at: str = ""
    total: int = Field(ge=0)
    skipped: int = Field(0, ge=0)
    pending: int = Field(ge=0)
    seconds: float = Field(ge=0)
    endpoints: tuple[Lane, ...] = ()


@dataclass(frozen=True, slots=True)
class Pace:
    """How many prompts end in a minute since the run began, and in how many seconds the rest will have; None if that
    can't be said.
    """

    per_minute: float
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Sight:
    """One endpoint at a moment. ``health`` is None as long as it has not answered, nor is late.

    ``last_error`` is why it was down when it last was, ``last_error_at`` when that was. ``lane`` is what it does in
    the run that goes on, if it has a part in it.
    """

    endpoint: Endpoint
    health: Health | None
    last_error: str = ""
    last_error_at: str = ""
    lane: Lane | None = None
    pace: Pace | None = None

    @property
    def is_up(self) -> bool:
        return self.health is not None and self.health.healthy


@dataclass(frozen=True, slots=True)
class Look:
    """Every endpoint at a moment, in their order, and the run that goes on in ``folder``, if one does.

    Of a config with several runs ``folder`` is that of the one which goes on, else the first's.
    """

    at: str
    sights: tuple[Sight, ...]
    folder: Path
    run: Progress | None = None
    pace: Pace | None = None

    @property
    def all_up(self) -> bool:
        return all(one.is_up for one in self.sights)


class Monitor:
    """Asks the endpoints of a config, over connections that are kept, until it is closed.

    At most 64 are asked at a time; besides, as many of those that were down, for they may hang again and must not
    keep the others waiting.
    """

    def __init__(self, config: Config, *, timeout_s: float = PROBE_TIMEOUT_S) -> None:
        self._folders = [one.output_folder for one in config.runs]
        with suppress(UsageError):  # too many for this system: those say themselves that they can't be asked
            limits.allow_files([1] * len(config.endpoints), processes=1, each=1)
        self._redact = config.redactor.text
        self._watched = [_Watched(endpoint, config, timeout_s) for endpoint in config.endpoints]
        self._quick, self._patient = [
            futures.ThreadPoolExecutor(min(_ASKED_AT_ONCE, len(self._watched)), thread_name_prefix="monitor")
            for _ in range(2)
        ]

    def ask(self) -> None:
        """Begin to ask everyone who is not being asked already."""
        for one in self._watched:
            one.collect()
            if one.asked is None:
                one.asked = (self._patient if one.was_down else self._quick).submit(one.ask)

    def wait(self, at_most_s: float = inf) -> None:
        """Wait until everyone has answered or is late."""
        until = time.monotonic() + at_most_s
        while awaited := [one.asked for one in self._watched if one.asked and not one.asked.done() and not one.late]:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return
            futures.wait(awaited, timeout=min(_POLL_S, left_s))

    def look(self) -> Look:
        """Return what is known now."""
        folder, run = next(
            ((folder, run) for folder in self._folders if (run := going_on(folder))), (self._folders[0], None)
        )
        for one in self._watched:
            one.collect()
        sights = [one.sight for one in self._watched]
        if run is None:
            return Look(utc_now(), tuple(sights), folder)
        lanes = {lane.name: self._shown(lane) for lane in run.endpoints}
        paces = {name: _lane_pace(lane, run.seconds) for name, lane in lanes.items()}
        sights = [
            replace(one, lane=lanes.get(one.endpoint.name), pace=paces.get(one.endpoint.name)) for one in sights
        ]
        return Look(utc_now(), tuple(sights), folder, run, _pace(run, run.pending, run.seconds))

    def _shown(self, lane: Lane) -> Lane:
        said = words(self._redact(lane.last_error).encode(errors="replace"))
        return lane.model_copy(update={"last_error": said})

    def close(self) -> None:
        """Cut what is under way and ask no more; waits for nobody."""
        for one in self._watched:
            one.client.abandon()
        for executor in (self._quick, self._patient):
            executor.shutdown(wait=False, cancel_futures=True)
        for one in self._watched:
            one.client.close()


class _Watched:
    """One endpoint: its connection, what is asked of it now, and what was found last."""

    def __init__(self, endpoint: Endpoint, config: Config, timeout_s: float) -> None:
        self.endpoint = endpoint
        self.client = Client(endpoint, config.timeouts, connections=1)
        self.asked: futures.Future[Health] | None = None
        self.sight = Sight(endpoint, None)
        self._protocol = config.protocol
        self._redact = config.redactor.text
        self._timeout_s = timeout_s
        self._begun = inf

    @property
    def was_down(self) -> bool:
        return self.sight.health is not None and not self.sight.health.healthy

    @property
    def late(self) -> bool:
        """Tell whether it takes longer than a probe can."""
        return time.monotonic() - self._begun > self._timeout_s + _LATE_S

    def ask(self) -> Health:
        """Ask it; on a thread of its own. What it says is redacted."""
        self._begun = time.monotonic()
        found = probe(self.endpoint, self._protocol, self.client, timeout_s=self._timeout_s)
        if self.sight.is_up and not found.latency_s and time.monotonic() - self._begun < _QUICK_S:
            # It may have closed the connection kept since last time just as it was used again: no sign of anything.
            left_s = max(_POLL_S, self._timeout_s - _QUICK_S)
            found = probe(self.endpoint, self._protocol, self.client, timeout_s=left_s)
        return replace(found, status=self._redact(found.status), version=self._redact(found.version))

    def collect(self) -> None:
        """Take in what it has answered, or that it is late."""
        if self.asked is None:
            return
        if self.asked.done():
            found = self.asked.result()
            self.asked, self._begun = None, inf
        elif self.late:
            found = Health(self.endpoint, False, f"no answer within {self._timeout_s:g} s")
        else:
            return
        self.sight = replace(self.sight, health=found)
        if not found.healthy:
            self.sight = replace(self.sight, last_error=found.status, last_error_at=utc_now())


def config_of(path: str | None, overrides: Mapping[str, Any]) -> Config:
    """Read what a look at the endpoints needs of the config at ``path``, or of ``overrides`` alone.

    Its prompts need not be there, nor variables that stand elsewhere than with endpoints and protocol. Raises
    UsageError.
    """
    alone = {"prompts": ["-"], "runs": None, **_UNUSED, **overrides}
    if path is None:
        return config_from(alone)
    document = read_document(Path(path))
    needed = [name for name in _NEEDED if name not in overrides]
    unset = [problem for problem in document.problems if _key_of(problem) in needed]
    if unset:
        raise UsageError(*(f"{path}: {problem}" for problem in unset))
    environ = _AsWritten(os.environ)
    if document.values.get("runs") is not None and "output_folder" not in overrides:
        with suppress(UsageError):  # their lists may be gone; then nobody knows their folders
            return load_config(path, {**_UNUSED, **overrides}, environ=environ)
    return load_config(path, alone, environ=environ)


def going_on(folder: Path) -> Progress | None:
    """Return how far the run is that goes on in an output folder; None if none does, whatever a dead one has left."""
    said = together(progress_in(folder).values())
    try:
        run = Progress.model_validate(said) if said else None
    except ValidationError:
        return None
    return run if run and utc_age_s(run.at) < STALE_S else None


def document(look: Look) -> dict[str, Any]:
    """Return a look as JSON says it."""
    run = look.run
    return {
        "at": look.at,
        "endpoints": [_endpoint(one) for one in look.sights],
        "run": run and run.model_dump(exclude={"endpoints", "at"}) | _rounded(look.pace),
    }


def _endpoint(one: Sight) -> dict[str, Any]:
    health = one.health
    return {
        "endpoint": one.endpoint.name,
        "url": public_url(one.endpoint.url),
        "healthy": health and health.healthy,
        "status": health.status if health else "no answer yet",
        "version": (health and health.version) or None,
        "busy": health and health.busy,
        "queue": health and health.queue,
        "latency_s": round(health.latency_s, 4) if health and health.latency_s else None,
        "last_error": one.last_error or None,
        "last_error_at": one.last_error_at or None,
        "run": one.lane and one.lane.model_dump(exclude={"name"}) | _rounded(one.pace),
    }


def _rounded(pace: Pace | None) -> dict[str, float | None]:
    if pace is None:
        return {}
    eta_s = None if pace.eta_s is None else round(pace.eta_s, 1)
    return {"per_minute": round(pace.per_minute, 2), "eta_s": eta_s}


def _pace(counts: _Counts, left: int, seconds: float) -> Pace:
    """Return the pace so far, and how long ``left`` prompts take at it.

    >>> _pace(_Counts(saved=9, failed=1), 20, 120)
    Pace(per_minute=5.0, eta_s=240.0)
    >>> _pace(_Counts(saved=0, failed=0), 20, 0), _pace(_Counts(saved=0, failed=0), 0, 1)
    (Pace(per_minute=0.0, eta_s=None), Pace(per_minute=0.0, eta_s=0.0))
    """
    per_minute = 60 * (counts.saved + counts.failed) / seconds if seconds else 0.0
    return Pace(per_minute, 0.0 if not left else left * 60 / per_minute if per_minute else None)


def _lane_pace(lane: Lane, seconds: float) -> Pace:
    """Return an endpoint's pace; nobody knows when one that is out will have done its share."""
    pace = _pace(lane, lane.waiting + lane.taken, seconds)
    return replace(pace, eta_s=None) if lane.state == "out" and pace.eta_s else pace


def _key_of(problem: str) -> str:
    return re.split(r"[.\[:]", problem, maxsplit=1)[0]


class _AsWritten(dict[str, str]):
    """An environment in which an unset variable stands for itself."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return f"${{{name}}}"
