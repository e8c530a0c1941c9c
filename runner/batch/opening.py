"""Who does the work: a worker of this process, those of others, or those of Dask."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from runner import engine
from runner.batch.records import Run
from runner.records import Endpoint
from runner.remote import is_remote
from runner.schedule import Schedule
from runner.worker import Fit, Workbench


@contextmanager
def opened_work(this: Run, schedule: Schedule, processes: int) -> Iterator[engine.Work]:
    """Open what does the work: a worker in this process, or several in others."""
    settings = this.config.settings
    endpoints = this.config.endpoints

    def workbench() -> Workbench:
        return Workbench(
            endpoints=endpoints,
            timeouts=this.config.timeouts,
            output=settings.output,
            seed=settings.seed,
            protocol=this.config.protocol,
            folder=this.folder.path,
            far=this.config.far,
            shard=this.folder.shard,
        )

    def say(level: int, said: str) -> None:
        this.notices.append((level, said))

    if settings.engine.kind == "dask" and not schedule.done and not this.stop.asked:
        with _dask(this, schedule, workbench, say) as workers:
            yield workers
    elif processes == 1 or this.stop.asked:
        with workbench().open(endpoints) as worker:
            yield worker
    else:
        with engine.Processes(schedule, processes, workbench, died=partial(say, logging.WARNING)) as workers:
            yield workers


@contextmanager
def _dask(
    this: Run, schedule: Schedule, workbench: Callable[[], Workbench], say: Callable[[int, str], None]
) -> Iterator[engine.Work]:
    """Open the work of Dask's workers. Raises UsageError, AbsentError, StorageError."""
    from runner.engine.cluster import address_of  # not where nobody needs it
    from runner.engine.dask import Dask
    from runner.engine.joining import Terms

    settings = this.config.settings
    remote = is_remote(settings.output_folder)
    fit = Fit(
        folder=None if remote else this.folder.path,
        state=this.folder.state,
        extras=("s3",) if settings.output_folder.startswith("s3://") else (),
        files=(*this.image, *dict.fromkeys(file for one in this.config.endpoints for file in _files_of(one))),
        far=this.config.far,
    )
    terms = Terms(
        address=address_of(settings.engine.address),
        where=_where(this),
        fit=fit.problem,
        wait_workers_s=settings.engine.wait_workers_s,
        all_lost_s=settings.health.all_down_s,
    )
    with fit.shown(), Dask(schedule, terms, workbench, say=say, doubt=this.doubted.update) as workers:
        yield workers


def _where(this: Run) -> str:
    """Return what names the place of this run's results on every machine; each shard has one of its own."""
    if not is_remote(this.config.settings.output_folder):
        return str(this.folder.state)
    return f"{this.config.settings.output_folder} {this.config.shard.folder if this.config.shard else ''}"


def _files_of(endpoint: Endpoint) -> list[str]:
    """Return the files that are needed to ask an endpoint."""
    return [one for one in (endpoint.verify, endpoint.cert, endpoint.key) if isinstance(one, str)]
