"""``check``, ``protocols`` and ``serve``: the endpoints, what they speak, and one of our own."""

from __future__ import annotations

import difflib
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from runner import batch, config, report
from runner.cli.overrides import overrides
from runner.errors import UsageError
from runner.health import Health
from runner.prompts import Prompts
from runner.protocols import presets
from runner.recognition import Recognition
from runner.records import Endpoint

_SHOWN = 20


def check(arguments: Namespace) -> int:
    """Print every endpoint's health, and whether it speaks the protocol; 1 if one is not healthy, or does not."""
    chosen = config.load_config(arguments.config, overrides(arguments))
    several = f" in {len(chosen.parts)} runs" if chosen.parts else ""
    prompts = sum(len(part) for part in _read(chosen))
    kinds = {part.protocol.name: part for part in chosen.runs}
    if not arguments.json:
        print(f"{arguments.config}: valid, {prompts} prompts{several}, {len(chosen.endpoints)} endpoints")
    good = [_check(part, as_json=arguments.json) for part in kinds.values()]
    return 0 if all(good) else 1


def _read(chosen: config.Config) -> Iterator[Prompts]:
    """Read the prompts of each run. Raises UsageError with what is wrong with all of them."""
    problems: list[str] = []
    for part in chosen.runs:
        try:
            yield batch.read_all(part)
        except UsageError as error:
            problems += error.problems
    if problems:
        raise UsageError(*problems)


def _check(chosen: config.Config, *, as_json: bool) -> bool:
    """Print how the endpoints are, for one protocol; return whether all is well."""
    found = _asked(chosen)
    protocol = chosen.protocol
    if as_json:
        for one, known in found:
            line = {"endpoint": one.endpoint.name, "url": one.endpoint.url, "healthy": one.healthy}
            line |= {"status": one.status, "version": one.version, "latency_s": one.latency_s}
            line |= {"protocol": protocol.name, "fits": known.fits, "found": known.found}
            print(json.dumps(line | {"likely": list(known.likely)}, ensure_ascii=False))
    else:
        from runner.recognition import expectation

        rows = [
            [one.endpoint.name, "up" if one.healthy else "DOWN", one.status, one.version or "-",
             f"{one.latency_s * 1000:.0f} ms" if one.latency_s else "-",
             {True: "fits", False: "DOES NOT FIT", None: "?"}[known.fits]]
            for one, known in found
        ]  # fmt: skip
        print(f"{protocol.name} expects {expectation(protocol)}")
        print(report.table(["endpoint", "", "health", "version", "latency", protocol.name], rows))
        _print_recognitions(protocol.name, [(one.endpoint.name, known) for one, known in found])
    return all(one.healthy and known.fits is not False for one, known in found)


def _asked(chosen: config.Config) -> list[tuple[Health, Recognition]]:
    """Ask every endpoint how it is, and whether it speaks the protocol."""
    from concurrent.futures import ThreadPoolExecutor

    from runner.client import Client
    from runner.health import probe
    from runner.recognition import recognise

    protocol, redact = chosen.protocol, chosen.redactor.text

    def ask(endpoint: Endpoint) -> tuple[Health, Recognition]:
        with closing(Client(endpoint, chosen.timeouts, connections=1)) as client:
            found = probe(endpoint, protocol, client)
            known = recognise(protocol, client) if found.alive else Recognition(None, "not asked")
        health = replace(found, status=redact(found.status), version=redact(found.version))
        return health, replace(known, found=redact(known.found))

    with ThreadPoolExecutor(max_workers=min(64, len(chosen.endpoints))) as executor:
        return list(executor.map(ask, chosen.endpoints))


def protocols(arguments: Namespace) -> int:
    """List the presets, or print one."""
    if arguments.name is None:
        print(report.table(["preset", "server"], [[name, presets.about(name)] for name in presets.names()]))
        return 0
    if arguments.name not in presets.names():
        near = difflib.get_close_matches(arguments.name, presets.names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"presets are {', '.join(presets.names())}"
        raise UsageError(f"protocols: there is no preset {arguments.name!r}; {hint}")
    sys.stdout.write(presets.text(arguments.name))
    return 0


def serve(arguments: Namespace) -> int:
    """Run the reference server until it is told to stop."""
    try:
        from runner.server import serve as start
    except ModuleNotFoundError as error:
        raise UsageError(
            f"runner serve needs {error.name}: install the extra with pip install 'multiport-runner[server]'"
        ) from error
    return start(host=arguments.host, port=arguments.port, seconds=arguments.seconds)


def _print_recognitions(protocol: str, found: list[tuple[str, Recognition]]) -> None:
    """Say once what each kind of answer to a request without content was, and which preset it looks like."""
    for known in dict.fromkeys(one for _, one in found):
        names = [name for name, one in found if one == known]
        where = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        verdict = f", which is not {protocol}" if known.fits is False else ""
        likely = f"; it looks like {' or '.join(known.likely)}" if known.likely else ""
        print(f"{where}: {known.found}{verdict}{likely}")
