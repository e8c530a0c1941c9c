"""What the types of the settings can't say: URLs and files that are none, names and addresses that stand twice."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from runner import access, watching
from runner.config.chosen import host_port
from runner.extras import missing
from runner.protocols import problems
from runner.redact import public_url
from runner.remote import is_remote, problem_of
from runner.settings import RunConfig
from runner.shards import shard_from

_TORN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]")
"""A URL that was a Path on its way here; no letter of a drive."""


def runnable(settings: RunConfig, base: Path) -> Iterator[str]:
    """Yield what the types can't say: URLs and files that are none, and names and addresses that stand twice."""
    if "\0" in settings.output_folder:
        yield f"output_folder: expected a path, got {settings.output_folder!r}"
    if _TORN.match(settings.output_folder):
        yield (
            f"output_folder: expected a URL such as s3://bucket/prefix, got {settings.output_folder!r}: "
            "give it as a text, for a Path drops slashes"
        )
    yield from _elsewhere(settings)
    yield from problems(settings.protocol)
    yield from watching.problems(settings, base)
    if settings.shard:
        try:
            shard_from(settings.shard, os.environ)
        except ValueError as error:
            yield f"shard: {error}"
    if settings.report and (absent := missing("report")):
        yield f"report: it needs {absent}"
    names: dict[str, int] = {}
    urls: dict[str, int] = {}
    for index, endpoint in enumerate(settings.endpoints):
        if problem := access.url_problem(endpoint):
            yield f"endpoints[{index}].url: {problem}"
            continue
        url = _base_url(endpoint.url)
        if url in urls:
            yield (
                f"endpoints[{index}].url: {public_url(url)} stands already at endpoints[{urls[url]}]; "
                "for two generations at a time give that one `slots: 2`"
            )
        elif (name := endpoint.name or host_port(url)) in names:
            yield f"endpoints[{index}].name: {name!r} is already the name of endpoints[{names[name]}]"
        names.setdefault(endpoint.name or host_port(url), index)
        urls.setdefault(url, index)
        yield from (f"endpoints[{index}]{problem}" for problem in access.problems(endpoint, base))


def _elsewhere(settings: RunConfig) -> Iterator[str]:
    """Yield what is wrong with the places of results that are none of this machine, and with Dask."""
    for name, url in (("output_folder", settings.output_folder), ("upload.to", settings.upload.to)):
        if url is None or (name == "output_folder" and not is_remote(url)):
            continue
        problem = problem_of(url) if is_remote(url) else f"expected a URL such as s3://bucket/prefix, got {url!r}"
        if problem:
            yield f"{name}: {problem}"
        elif url.startswith("s3://") and (absent := missing("s3")):
            yield f"{name}: it needs {absent}"
    if is_remote(settings.output_folder) and settings.upload.to:
        yield "upload.to: expected none with an output_folder that is a bucket itself"
    if is_remote(settings.output_folder) and settings.hedge:
        yield "hedge: expected false with an output_folder that is a bucket: two results would go up under one name"
    if settings.engine.kind == "dask" and (absent := missing("dask")):
        yield f"engine.kind: dask needs {absent}"
    if settings.engine.kind == "dask" and settings.processes != 1:
        yield f"processes: expected 1 with engine.kind: dask, whose workers do the work, got {settings.processes}"


def _base_url(url: str) -> str:
    return url.rstrip("/")
