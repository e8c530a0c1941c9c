"""What each command does: call the rooms below, print what they return, give back the exit code."""

from __future__ import annotations

import difflib
import json
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Any

from runner import batch, config, report
from runner.errors import UsageError
from runner.lanes import lane_of
from runner.protocols import presets
from runner.recognition import Recognition
from runner.records import Endpoint, Prompt
from runner.stop import Stop
from runner.yamlfile import assigned, merged

_SHOWN = 20


def run(arguments: Namespace) -> int:
    """Run a config and print the summary as one JSON line."""
    return _run(config.load_config(arguments.config, _overrides(arguments)), arguments)


def generate(arguments: Namespace) -> int:
    """Run what the flags say."""
    return _run(config.config_from(_overrides(arguments)), arguments)


def plan(arguments: Namespace) -> int:
    """Print where every prompt goes."""
    chosen = config.load_config(arguments.config, _overrides(arguments))
    _print_plan(chosen, as_json=arguments.json)
    return 0


def check(arguments: Namespace) -> int:
    """Print every endpoint's health, and whether it speaks the protocol; 1 if one is not healthy, or does not."""
    from concurrent.futures import ThreadPoolExecutor

    from runner.client import Client
    from runner.health import Health, probe
    from runner.recognition import expectation, recognise

    chosen = config.load_config(arguments.config, _overrides(arguments))
    prompts = batch.read_all(chosen)
    protocol = chosen.protocol
    redact = chosen.redactor.text

    def ask(endpoint: Endpoint) -> tuple[Health, Recognition]:
        with closing(Client(endpoint, chosen.timeouts, connections=1)) as client:
            found = probe(endpoint, protocol, client)
            known = recognise(protocol, client) if found.alive else Recognition(None, "not asked")
        health = replace(found, status=redact(found.status), version=redact(found.version))
        return health, replace(known, found=redact(known.found))

    with ThreadPoolExecutor(max_workers=min(64, len(chosen.endpoints))) as executor:
        found = list(executor.map(ask, chosen.endpoints))
    if arguments.json:
        for one, known in found:
            line = {"endpoint": one.endpoint.name, "url": one.endpoint.url, "healthy": one.healthy}
            line |= {"status": one.status, "version": one.version, "latency_s": one.latency_s}
            line |= {"protocol": protocol.name, "fits": known.fits, "found": known.found}
            print(json.dumps(line | {"likely": list(known.likely)}, ensure_ascii=False))
    else:
        print(f"{arguments.config}: valid, {len(prompts)} prompts, {len(found)} endpoints")
        rows = [
            [one.endpoint.name, "up" if one.healthy else "DOWN", one.status, one.version or "-",
             f"{one.latency_s * 1000:.0f} ms" if one.latency_s else "-",
             {True: "fits", False: "DOES NOT FIT", None: "?"}[known.fits]]
            for one, known in found
        ]  # fmt: skip
        print(f"{protocol.name} expects {expectation(protocol)}")
        print(report.table(["endpoint", "", "health", "version", "latency", protocol.name], rows))
        _print_recognitions(protocol.name, [(one.endpoint.name, known) for one, known in found])
    return 0 if all(one.healthy and known.fits is not False for one, known in found) else 1


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


def status(arguments: Namespace) -> int:
    """Print how an output folder stands; 0 only if every prompt has its result."""
    from runner.status import status_of

    found = status_of(Path(arguments.folder))
    if arguments.missing_file == "-":
        sys.stdout.write(found.to_do())
        return 0 if not found.failed and not found.missing else 1
    if arguments.missing_file:
        _write_missing(arguments.missing_file, found.to_do(arguments.missing_file), found.config)
    counts = {
        "total": found.total,
        "saved": found.saved,
        "failed": len(found.failed),
        "missing": len(found.missing),
        "earlier": len(found.earlier),
        "unknown": len(found.unknown),
    }
    if arguments.json:
        failures = [{"key": prompt.key, "prompt": said.prompt, "error": said.error} for prompt, said in found.failed]
        print(json.dumps(counts | {"failures": failures, "unknown_files": found.unknown}, ensure_ascii=False))
    else:
        print(f"{arguments.folder}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
        _print_some("failed", [f"{prompt.key}: {said.error}" for prompt, said in found.failed])
        _print_some("missing", [prompt.key for prompt in found.missing])
        _print_some("unknown", found.unknown)
    return 0 if not found.failed and not found.missing else 1


def serve(arguments: Namespace) -> int:
    """Run the reference server until it is told to stop."""
    try:
        from runner.server import serve as start
    except ModuleNotFoundError as error:
        raise UsageError(
            f"runner serve needs {error.name}: install the extra with pip install 'multiport-runner[server]'"
        ) from error
    return start(host=arguments.host, port=arguments.port, seconds=arguments.seconds)


def init(arguments: Namespace) -> int:
    """Write the starter config; never over an existing file."""
    text = resources.files("runner.cli").joinpath("starter.yaml").read_text(encoding="utf-8")
    if arguments.file == "-":
        sys.stdout.write(text)
        return 0
    try:
        with open(arguments.file, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(f"{arguments.file} exists already; name another file, or - to print it") from error
    except OSError as error:
        raise UsageError(f"{arguments.file} can't be written: {error.strerror}") from error
    print(f"Wrote {arguments.file}. Edit its endpoints and prompts, then: runner run {arguments.file} --dry-run")
    return 0


def schema(arguments: Namespace) -> int:
    """Print the JSON schema of the config."""
    sys.stdout.write(config.json_schema())
    return 0


def _run(chosen: config.Config, arguments: Namespace) -> int:
    if arguments.dry_run:
        _print_plan(chosen, overwrite=arguments.overwrite)
        return 0
    from runner.cli.output import Progress, logging_to_stderr

    prompts = batch.read_all(chosen)  # before the signals are caught: a reader of stdin must be easy to interrupt
    stop = Stop()
    with (
        logging_to_stderr(verbose=arguments.verbose, quiet=arguments.quiet, log_file=arguments.log_file),
        closing(Progress(quiet=arguments.quiet)) as progress,
        _signals(stop, chosen.grace_s),
    ):
        summary = batch.run(
            chosen, prompts=prompts, overwrite=arguments.overwrite, stop=stop, observe=progress.observe
        )
        progress.close()
        if not arguments.quiet and summary.total:
            with suppress(OSError):
                print(report.endpoint_table(summary), file=sys.stderr)
    with suppress(OSError):  # the exit code tells the truth even to who has closed stdout
        print(report.answer_json(summary), flush=True)
    return summary.exit_code


@contextmanager
def _signals(stop: Stop, grace_s: float) -> Iterator[None]:
    """Let the first SIGINT, SIGTERM or SIGHUP end the run in good order, within a grace, and the second at once.

    A SIGHUP that is ignored, as by nohup, stays so.
    """

    signals = []

    def heard(number: int, frame: FrameType | None) -> None:
        signals.append(signal.Signals(number).name)
        if len(signals) == 1:
            stop.ask(signals[0], within_s=grace_s)
        else:
            stop.leave(signals[0])

    caught = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        caught.append(signal.SIGHUP)
    before = {number: signal.signal(number, heard) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _overrides(arguments: Namespace) -> dict[str, Any]:
    """Return what the flags say, nested like the YAML."""
    flags = {
        "prompts": arguments.prompts_file,
        "endpoints": arguments.endpoint,
        "seed": arguments.seed,
        "output_folder": arguments.output_folder,
        "retry": {"attempts": arguments.attempts} if arguments.attempts is not None else None,
        "max_failures": arguments.max_failures,
        "max_runtime_s": arguments.max_runtime_s,
        "grace_s": arguments.grace_s,
    }
    chosen: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    for assignment in arguments.set:
        chosen = merged(chosen, assigned(assignment))
    return chosen


def _print_plan(chosen: config.Config, *, as_json: bool = False, overwrite: bool = False) -> None:
    prompts = batch.read_all(chosen)
    found = batch.standing_of(chosen, prompts, batch.history_of(chosen), overwrite=overwrite)
    endpoints = chosen.endpoints
    states = dict.fromkeys(found.done, "saved")
    states |= {index: "conflict" for some in found.conflicts.values() for index in some}

    def row(prompt: Prompt) -> list[Any]:
        state = states.get(prompt.index, "pending")
        return [prompt.index, prompt.key, endpoints[lane_of(prompt.index, len(endpoints))].name, state]

    if as_json:
        for prompt in prompts:
            print(json.dumps(dict(zip(("index", "key", "endpoint", "state"), row(prompt), strict=True))))
        return
    print(report.table(["index", "key", "endpoint", "state"], [row(prompt) for prompt in prompts]))
    shares = [sum(1 for one in found.pending if lane_of(one, len(endpoints)) == lane.index) for lane in endpoints]
    print(f"\n{len(prompts)} prompts: {len(found.done)} saved, {len(found.pending)} pending", end="")
    print(f", {sum(map(len, found.conflicts.values()))} in conflict" if found.conflicts else "")
    for endpoint, share in zip(endpoints, shares, strict=True):
        print(f"  {endpoint.name}: {share} to do")
    for text in found.conflict_text(prompts):
        print(f"conflict: {text} (a run would refuse; see --overwrite)")


def _print_recognitions(protocol: str, found: list[tuple[str, Recognition]]) -> None:
    """Say once what each kind of answer to a request without content was, and which preset it looks like."""
    for known in dict.fromkeys(one for _, one in found):
        names = [name for name, one in found if one == known]
        where = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        verdict = f", which is not {protocol}" if known.fits is False else ""
        likely = f"; it looks like {' or '.join(known.likely)}" if known.likely else ""
        print(f"{where}: {known.found}{verdict}{likely}")


def _print_some(title: str, lines: list[str]) -> None:
    if lines:
        print(f"{title}:")
        for line in lines[:_SHOWN]:
            print(f"  {line}")
        if len(lines) > _SHOWN:
            print(f"  … and {len(lines) - _SHOWN} more (--json lists all)")


def _write_missing(path: str, text: str, chosen: config.Config) -> None:
    """Write the list whole or not at all, and never over one of the run's own inputs."""
    for source in chosen.prompts:
        source = os.path.join(chosen.base, source)
        if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
            raise UsageError(f"--missing-file {path}: this is the run's own prompts file; choose another name")
    path = os.path.realpath(path)
    special = os.path.exists(path) and not os.path.isfile(path)  # a device or a pipe is written to, not replaced
    part = path if special else f"{path}.part"
    try:
        with open(part, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        if not special:
            os.replace(part, path)
    except OSError as error:
        raise UsageError(f"--missing-file {path}: can't be written: {error.strerror}") from error
