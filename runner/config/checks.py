"""What the types of the settings can't say: URLs and files that are none, names and addresses that stand twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runner import access, watching
from runner.config.chosen import host_port
from runner.extras import missing
from runner.protocols import problems
from runner.redact import public_url
from runner.settings import RunConfig


def runnable(settings: RunConfig, base: Path) -> Iterator[str]:
    """Yield what the types can't say: URLs and files that are none, and names and addresses that stand twice."""
    if "\0" in settings.output_folder:
        yield f"output_folder: expected a path, got {settings.output_folder!r}"
    yield from problems(settings.protocol)
    yield from watching.problems(settings, base)
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


def _base_url(url: str) -> str:
    return url.rstrip("/")
