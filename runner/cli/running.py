"""``run``, ``generate`` and ``plan``: what a config is for."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import compress
from types import FrameType
from typing import Any

from runner import batch, config, report, runs
from runner.cli.overrides import overrides
from runner.lanes import lane_of
from runner.records import Prompt
from runner.remote import folder_of
from runner.stop import Stop


def run(arguments: Namespace) -> int:
    """Run a config and print the summary as one JSON line. Where nobody watches, say only what is wrong."""
    return _run(config.load_config(arguments.config, overrides(arguments)), arguments, silent=True)


def generate(arguments: Namespace) -> int:
    """Run what the flags say, in the ancestor's words."""
    return _run(config.config_from(overrides(arguments)), arguments, silent=False)


def plan(arguments: Namespace) -> int:
    """Print where every prompt goes."""
    chosen = config.load_config(arguments.config, overrides(arguments))
    _print_plans(chosen, as_json=arguments.json)
    return 0


def _run(chosen: config.Config, arguments: Namespace, *, silent: bool) -> int:
    if arguments.dry_run:
        _print_plans(chosen, overwrite=arguments.overwrite)
        return 0
    from runner.cli.output import SILENT, Progress, level_of, logging_to_stderr, print_answer

    how = chosen.settings.log
    level = level_of(how, silent=silent)
    ends_at = batch.window_end(chosen.settings)
    stop = Stop()
    with (
        logging_to_stderr(level, how),
        closing(Progress(quiet=level > logging.INFO)) as progress,
    ):
        # before the signals are caught: a reader of stdin must be easy to interrupt
        with runs.telling(chosen):
            prompts = None if chosen.parts else batch.read_all(chosen)
        with signals(stop, chosen.grace_s):
            summary = runs.run(
                chosen,
                prompts=prompts,
                overwrite=arguments.overwrite,
                stop=stop,
                observe=progress.observe,
                ends_at=ends_at,
                command=_typed(),
            )
            progress.close()
            with suppress(OSError):
                if level <= logging.INFO and summary.total and how.format == "text":
                    print(report.endpoint_table(summary), file=sys.stderr)
                if level == SILENT and (wrong := report.alarm(summary)):
                    said = f"runner: {chosen.name}: {' '.join(wrong.split())}"
                    print(
                        said if how.format == "text" else json.dumps({"level": "error", "message": said}),
                        file=sys.stderr,
                    )
            print_answer(summary)
    return summary.exit_code


def _typed() -> str:
    """Return what was typed, as a shell would take it from anywhere."""
    return f"cd {shlex.quote(os.getcwd())} && {shlex.join(['runner', *sys.argv[1:]])}"


@contextmanager
def signals(stop: Stop, grace_s: float) -> Iterator[None]:
    """Let the first SIGINT, SIGTERM or SIGHUP end the run in good order, within a grace, and the second at once.

    The third ends the process, whatever it waits for; as after ``kill -9``, nothing is lost or torn.

    A SIGHUP that is ignored, as by nohup, stays so.
    """

    signals = []

    def heard(number: int, frame: FrameType | None) -> None:
        signals.append(signal.Signals(number).name)
        if len(signals) == 1:
            stop.ask(signals[0], within_s=grace_s)
        elif len(signals) == 2:
            stop.leave(signals[0])
        else:
            os._exit(128 + signal.Signals[signals[0]])

    caught = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        caught.append(signal.SIGHUP)
    before = {number: signal.signal(number, heard) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_plans(chosen: config.Config, *, as_json: bool = False, overwrite: bool = False) -> None:
    for part in chosen.runs:
        if chosen.parts and not as_json:
            print(f"{'' if part is chosen.parts[0] else chr(10)}== {batch.near(part.shown_folder)}")
        _print_plan(part, as_json=as_json, overwrite=overwrite)


def _print_plan(chosen: config.Config, *, as_json: bool = False, overwrite: bool = False) -> None:
    prompts = batch.read_all(chosen)
    members = batch.members_of(chosen, prompts)
    folder = folder_of(chosen.output_folder, chosen.far, shard=chosen.shard)
    folder.look()
    history = batch.history_of(chosen)
    found = batch.standing_of(chosen, prompts, history, members=members, overwrite=overwrite, folder=folder)
    shown = prompts if members is None else [*compress(prompts, members)]
    endpoints = chosen.endpoints
    states = dict.fromkeys(found.done, "saved")
    states |= {index: "conflict" for some in found.conflicts.values() for index in some}

    def row(prompt: Prompt) -> list[Any]:
        state = states.get(prompt.index, "pending")
        return [prompt.index, prompt.key, endpoints[lane_of(prompt.index, len(endpoints))].name, state]

    if as_json:
        for prompt in shown:
            print(json.dumps(dict(zip(("index", "key", "endpoint", "state"), row(prompt), strict=True))))
        return
    print(report.table(["index", "key", "endpoint", "state"], [row(prompt) for prompt in shown]))
    shares = [sum(1 for one in found.pending if lane_of(one, len(endpoints)) == lane.index) for lane in endpoints]
    of = f"shard {chosen.shard.number} of {chosen.shard.count}: " if chosen.shard else ""
    print(f"\n{of}{len(shown)} prompts: {len(found.done)} saved, {len(found.pending)} pending", end="")
    print(f", {sum(map(len, found.conflicts.values()))} in conflict" if found.conflicts else "")
    for endpoint, share in zip(endpoints, shares, strict=True):
        print(f"  {endpoint.name}: {share} to do")
    for text in found.conflict_text(prompts):
        print(f"conflict: {text} (a run would refuse; see --overwrite)")
