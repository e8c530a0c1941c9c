"""``run``, ``generate`` and ``plan``: what a config is for."""

from __future__ import annotations

import json
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from types import FrameType
from typing import Any

from runner import batch, config, report
from runner.cli.overrides import overrides
from runner.lanes import lane_of
from runner.records import Prompt
from runner.stop import Stop


def run(arguments: Namespace) -> int:
    """Run a config and print the summary as one JSON line."""
    return _run(config.load_config(arguments.config, overrides(arguments)), arguments)


def generate(arguments: Namespace) -> int:
    """Run what the flags say."""
    return _run(config.config_from(overrides(arguments)), arguments)


def plan(arguments: Namespace) -> int:
    """Print where every prompt goes."""
    chosen = config.load_config(arguments.config, overrides(arguments))
    _print_plan(chosen, as_json=arguments.json)
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
