"""The story of a run: read, replay, deal, work, record, summarise.

(The function is ``runner.run``; a room of that name would hide it.)
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace

from runner import journal, ledger, mirror, report
from runner.batch.beforehand import first_image, inputs_among_results, keep_config, processes_for, stand
from runner.batch.closing import close, look_again
from runner.batch.places import CONFIG, PROMPTS, RICH_PROMPTS, RUN_LOG, SUMMARY, near
from runner.batch.reading import history_of, members_of, read_all, standing_of
from runner.batch.records import Observe, Run
from runner.batch.window import until, window_end
from runner.batch.working import schedule_of, work_through
from runner.clock import utc_now
from runner.config import Config
from runner.prompts import Prompts
from runner.records import Event, Summary
from runner.remote import folder_of
from runner.stop import Stop
from runner.trail import Trail

__all__ = [
    "CONFIG",
    "PROMPTS",
    "RICH_PROMPTS",
    "RUN_LOG",
    "SUMMARY",
    "Observe",
    "history_of",
    "members_of",
    "near",
    "read_all",
    "run",
    "standing_of",
    "until",
    "window_end",
]


def run(
    config: Config,
    *,
    prompts: Prompts | None = None,
    overwrite: bool = False,
    stop: Stop | None = None,
    observe: Observe | None = None,
    ends_at: float | None = None,
    usual_s: Mapping[str, float] | None = None,
    command: str | None = None,
) -> Summary:
    """Run one list of prompts, as ``runner.run`` tells.

    Nothing is begun that can't end before ``ends_at`` (on the monotonic clock; None: in the config's window, from now
    on). ``usual_s``: what a result took lately on each endpoint, by its name.
    """
    ends_at = window_end(config.settings) if ends_at is None else ends_at
    prompts = read_all(config) if prompts is None else prompts
    folder = folder_of(config.output_folder, config.far, shard=config.shard)
    words = journal.Words(config.endpoints)
    name = _run_name()
    trail = Trail(folder.state, name, config.redactor.text)
    members, inputs = members_of(config, prompts), inputs_among_results(config, prompts)
    this = Run(name, config, folder, stop or Stop(), words, trail, ends_at, members, inputs)
    total = len(prompts) if members is None else sum(members)
    this.folder.prepare()
    with (
        ledger.locked_for(this.folder),
        this.folder.at_work(this.name, this.warn),
        journal.written_to(this.folder.state / RUN_LOG, config.redactor, config.settings.log),
    ):
        found, average_bytes = stand(this, prompts, overwrite=overwrite)
        processes = processes_for(this, average_bytes) if found.pending else 1
        this = replace(this, image=first_image(config, prompts, found))
        journal.announce(config, found, total=total, of=len(prompts), processes=processes)
        keep_config(this, prompts)
        tally = report.Tally(
            run=this.name,
            redact=config.redactor.text,
            total=total,
            skipped=len(found.done),
            endpoints=config.endpoints,
        )
        this.trail.began(config.endpoints, total=total, skipped=len(found.done), command=command)
        schedule = schedule_of(this, prompts, found, usual_s or {})
        observe = observe or _nobody
        kept = mirror.kept_mirrored(
            folder.path, config.settings.upload, this.stop, this.warn, run=folder.state, shard=config.shard
        )
        with kept as mirrored:
            error = work_through(this, schedule, processes, tally, observe, mirrored)
            look_again(this, tally)
            observe(tally, None)
            return close(this, tally, error, mirrored)


def _run_name() -> str:
    return f"{utc_now()}-{secrets.token_hex(2)}"


def _nobody(tally: report.Tally, event: Event | None) -> None:
    """Observe nothing."""
