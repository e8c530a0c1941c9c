"""Every option of a run, declared once: its name, default, bounds and description.

The YAML, the flags, the JSON schema and the starter config all draw on this room. Durations are in seconds.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool

from runner.protocols import Block, presets
from runner.sections import Also, Int, Seconds, Section

_PROCESSES_MAX = 256
_FORMAT_NAMES = {"jpeg": "jpg", "text": "txt"}


def _one_or_many(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


def _url_or_mapping(given: Any) -> Any:
    return {"url": given} if isinstance(given, str) else given


def _kind_or_mapping(given: Any) -> Any:
    return {"kind": given} if isinstance(given, str) else given


def _to_or_mapping(given: Any) -> Any:
    return {"to": given} if isinstance(given, str) else given


def _auto_or_count(given: Any) -> Any:
    if isinstance(given, str) and given.isdecimal():  # from the environment or a flag
        given = int(given)
    counts = isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= _PROCESSES_MAX
    if given != "auto" and not counts:
        raise ValueError(
            f"expected an integer from 1 to {_PROCESSES_MAX}, or auto, got {json.dumps(given, default=str)}"
        )
    return given


def _true_false_or_file(given: Any) -> Any:
    if not isinstance(given, bool | str):
        raise ValueError(f"expected true, false or a file of certificates, got {given!r}")
    return given


_TIME_OF_DAY = re.compile(r"([01]?[0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?")


def _time_of_day(given: Any) -> Any:
    if given is not None and not (isinstance(given, str) and _TIME_OF_DAY.fullmatch(given)):
        raise ValueError(f'expected a time of day such as "06:30", got {json.dumps(given, default=str)}')
    return given


def _text_or_words(given: Any) -> Any:
    """Refuse what is no command, and show nothing of it: there may be a secret in it."""
    words = given if isinstance(given, list) else [given or ""]
    if given is not None and not (words and all(isinstance(word, str) for word in words) and words[0].strip()):
        raise ValueError("expected a text for /bin/sh, or a list of words")
    return given


def _format_name(given: Any) -> Any:
    """Take the names that people also use for a format."""
    return _FORMAT_NAMES.get(given, given) if isinstance(given, str) else given


class Basic(Section):
    """Who asks, by name and password."""

    user: str = Field(description="The name.")
    password: str = Field("", description="The password.")


class EndpointSettings(Section):
    """One generation server. A plain string is its URL."""

    url: str = Field(description="Base URL, http or https; /generate is added to it.")
    name: str | None = Field(None, min_length=1, description="How the report names it; default: host:port.")
    slots: Int = Field(1, ge=1, le=1024, description="Generations it runs at a time.")
    headers: dict[str, str] = Field({}, description="Sent with every request; Host as well, if given.")
    query: dict[str, str] = Field({}, description="Added to the URL of every request, such as an API key.")
    bearer: str | None = Field(None, min_length=1, description="A token, sent as Authorization: Bearer.")
    basic: Basic | None = Field(None, description="Name and password, sent as Authorization: Basic.")
    verify: Annotated[StrictBool | str, BeforeValidator(_true_false_or_file)] = Field(
        True, description="The server's TLS certificate: true, false (believe any), or a file of authorities."
    )
    cert: str | None = Field(None, min_length=1, description="Our certificate (PEM) for servers that ask for one.")
    key: str | None = Field(None, min_length=1, description="Its private key, if that is in a file of its own.")
    proxy: str | None = Field(
        None, min_length=1, description="An http proxy on the way there: http://USER:PASSWORD@HOST:PORT."
    )
    worker: str | None = Field(
        None, min_length=1, description="Dask's worker that asks it: its name, address or host; default: any."
    )


class Retry(Section):
    """When an attempt fails and trying again may help."""

    attempts: Int = Field(3, ge=1, description="Requests per prompt at the most, the first included.")
    backoff_s: Seconds = Field(1.5, ge=0, description="Wait before the second attempt; doubles each time.")
    backoff_max_s: Seconds = Field(10, ge=0, description="The longest wait between two attempts.")


class Timeouts(Section):
    """How long each part of an exchange may take."""

    connect_s: Seconds = Field(30, gt=0, description="To open the connection.")
    first_byte_s: Seconds = Field(300, gt=0, description="From the request sent to the answer's headers.")
    stall_s: Seconds = Field(60, gt=0, description="Without a byte while the result arrives.")
    total_s: Seconds = Field(1800, gt=0, description="One attempt from its start to its last byte.")
    image_s: Seconds = Field(60, gt=0, description="To download a prompt's image.")


class Health(Section):
    """When an endpoint counts as out, and how it comes back."""

    wait_ready_s: Seconds = Field(0, ge=0, description="Wait so long for servers that are still loading.")
    failures_to_open: Int = Field(3, ge=1, description="Consecutive failures that take an endpoint out.")
    probe_every_s: Seconds = Field(15, gt=0, description="Pause between two health probes of one that is out.")
    all_down_s: Seconds = Field(600, ge=0, description="With every endpoint out, wait so long for one.")


class Output(Section):
    """What a result must be and how its file is named."""

    extension: str = Field(
        "auto", pattern=r"^[a-z0-9]{1,16}$", description="auto: by content; else this one, such as ply."
    )
    verify: Annotated[
        Literal["auto", "ply", "glb", "spz", "png", "jpg", "webp", "zip", "json", "js", "txt", "none"],
        BeforeValidator(_format_name),
        Also({"enum": [*_FORMAT_NAMES]}),
    ] = Field(
        "auto", description="auto: any known format, whole; a format: only that one; none: anything but an error."
    )
    keys: Literal["name", "index-name"] = Field(
        "name", description="name: chair; index-name: 000007-chair, for lists with equal names."
    )
    max_bytes: Int = Field(2_000_000_000, gt=0, description="A larger result is a failed attempt.")


class Log(Section):
    """What is told while a run goes on. ``run.log`` in the output folder has it all, whatever stands here."""

    level: Literal["auto", "debug", "info", "warning", "error"] = Field(
        "auto", description="On stderr. auto: info on a terminal; elsewhere a line at the end, if anything is wrong."
    )
    format: Literal["text", "json"] = Field("text", description="Of stderr and file; json: one object a line.")
    file: str | None = Field(None, min_length=1, description="Append the log to this file too.")
    max_bytes: Int = Field(
        10_000_000, ge=1000, description="file and run.log are put aside when they get longer: run.log.1, .2 …"
    )
    keep: Int = Field(5, ge=0, le=1000, description="So many of those are kept.")


class MetricsSettings(Section):
    """What Prometheus is told of a run, in a file."""

    textfile: str | None = Field(
        None,
        min_length=1,
        description="For node_exporter's textfile collector, such as /var/lib/node_exporter/textfile/runner.prom.",
    )
    every_s: Seconds = Field(15, gt=0, description="Pause between two writes while a run goes on.")


class Notify(Section):
    """Who is told how a run ended. (The key is ``when``, not ``on``: YAML reads that as true.)"""

    when: Literal["failure", "always"] = Field(
        "failure", description="failure: unless all went well, or the time window was over; always: at each end."
    )
    command: Annotated[str | list[str] | None, BeforeValidator(_text_or_words)] = Field(
        None, description="A text for /bin/sh, or a list of words; gets the message on stdin."
    )
    url: str | None = Field(None, min_length=1, description="Gets the message by POST, as JSON.")
    headers: dict[str, str] = Field({}, description="Sent to the url, such as Authorization.")
    timeout_s: Seconds = Field(30, gt=0, description="How long the command, and the url with all tries, may take.")


class EngineSettings(Section):
    """Where the work is done. A plain string is the kind."""

    kind: Literal["local", "dask"] = Field(
        "local", description="local: on this machine; dask: on the workers of Dask."
    )
    address: str | None = Field(
        None,
        min_length=1,
        description="Dask's scheduler, such as tcp://scheduler:8786; default: what Dask's own config says.",
    )
    wait_workers_s: Seconds = Field(60, ge=0, description="With no worker at all, wait so long for one.")


class Upload(Section):
    """How results get into a bucket. A plain string is where to."""

    to: str | None = Field(
        None,
        min_length=1,
        description="Mirror output_folder into it as results arrive: s3://BUCKET/PREFIX, or another URL of fsspec.",
    )
    attempts: Int = Field(8, ge=1, description="Tries of one upload at the most; they are none of the prompt's.")
    backoff_s: Seconds = Field(1, ge=0, description="Wait before the second try; doubles each time.")
    backoff_max_s: Seconds = Field(60, ge=0, description="The longest wait between two tries.")
    part_bytes: Int = Field(
        16 * 1024 * 1024,
        ge=5 * 1024 * 1024,
        description="A file twice as long or longer goes up in parts of this size.",
    )
    at_once: Int = Field(4, ge=1, le=64, description="Parts of a file, or files of a mirror, that go up at a time.")
    spool_folder: str | None = Field(
        None,
        min_length=1,
        description="Where results wait for a bucket that is output_folder; default: ~/.local/state/runner.",
    )


class RunConfig(Section):
    """Everything one run needs. Only ``endpoints`` and ``prompts`` are required."""

    endpoints: Annotated[
        list[Annotated[EndpointSettings, BeforeValidator(_url_or_mapping), Also({"type": "string"})]],
        BeforeValidator(_one_or_many),
        Also(one=True),
    ] = Field(min_length=1, description="The servers; their order fixes the modulo.")
    prompts: Annotated[list[str], BeforeValidator(_one_or_many), Also(one=True)] = Field(
        min_length=1,
        description='A prompts file or its URL, an image, a folder, a glob, "-" for stdin, or a list of them.',
    )
    output_folder: str = Field(
        "results", min_length=1, description="Where the results and the ledger go: a path, or s3://BUCKET/PREFIX."
    )
    seed: Int = Field(42, description="Sent with every request.")
    protocol: Annotated[Block, BeforeValidator(presets.expanded), Also({"enum": presets.names()}, partial=True)] = (
        Field(presets.DEFAULT, validate_default=True, description="How the servers speak: a preset, or a mapping.")
    )
    assignment: Literal["modulo", "steal"] = Field(
        "modulo", description="modulo: prompt i is for endpoint i % n; steal: and an idle one takes from the others."
    )
    failover: bool = Field(True, description="Others take the prompts of an endpoint that is out.")
    hedge: bool = Field(
        False, description="Idle endpoints repeat what is in flight longest; the first whole result counts."
    )
    retry: Retry = Retry()
    timeouts: Timeouts = Timeouts()
    health: Health = Health()
    output: Output = Output()
    shard: str | None = Field(
        None,
        min_length=1,
        description="A share of the list, by its keys: 3/8; in an array of jobs auto/8, or auto. Default: all.",
    )
    processes: Annotated[
        Annotated[int, Field(ge=1, le=_PROCESSES_MAX)] | Literal["auto"], BeforeValidator(_auto_or_count)
    ] = Field(1, description="Worker processes the endpoints are shared out over; auto: more than 1 where it pays.")
    engine: Annotated[EngineSettings, BeforeValidator(_kind_or_mapping), Also({"enum": ["local", "dask"]})] = Field(
        EngineSettings(), description="Where the work is done: local, or dask."
    )
    upload: Annotated[Upload, BeforeValidator(_to_or_mapping), Also({"type": "string"})] = Field(
        Upload(), description="How results get into a bucket; a text: mirror them there."
    )
    max_failures: Int | None = Field(None, ge=1, description="Stop early after so many failed prompts.")
    max_runtime_s: Seconds | None = Field(
        None, gt=0, description="The time window: nothing is begun that can't end in it; the rest stays pending."
    )
    until: Annotated[str | None, BeforeValidator(_time_of_day)] = Field(
        None, description='The end of the window as a local time of day, such as "06:30": when it is that next.'
    )
    grace_s: Seconds | None = Field(
        None, ge=0, description="How long what is in flight may take after Ctrl-C or SIGTERM; default: first_byte_s."
    )
    report: bool = Field(
        False, description="Write report.html into the output folder when a run ends; needs the extra report."
    )
    log: Log = Log()
    runs: None = Field(
        None,
        description="Several runs, one after another on the same endpoints: a list of what each has of its own, or a "
        "glob of prompts files, each a run, with {stem} in output_folder (and upload).",
    )
    metrics: MetricsSettings = MetricsSettings()
    notify: Notify = Notify()
