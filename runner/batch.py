"""The story of a run: read, replay, deal, work, record, summarise.

(The function is ``runner.run``; a room of that name would hide it.)
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from operator import itemgetter
from pathlib import Path
from typing import TypeGuard

from runner import engine, journal, ledger, limits, lists, mirror, report
from runner.client import fetch_list
from runner.clock import seconds_until, utc_now
from runner.config import Config
from runner.errors import AbsentError, RunnerError, StorageError, UsageError
from runner.lanes import deal
from runner.progress import Board
from runner.prompts import Prompts, needs_json, read_prompts, written
from runner.protocols import Protocol
from runner.records import URL, Endpoint, Event, Outcome, Prompt, Saving, Submitted, Summary
from runner.remote import Folder, folder_of, is_remote
from runner.resume import Standing, standing
from runner.schedule import Lane, Schedule
from runner.settings import RunConfig
from runner.stop import Stop
from runner.storage import STATE
from runner.trail import Trail
from runner.worker import Fit, Workbench

SUMMARY = "summary.json"
CONFIG = "config.yaml"
PROMPTS = "prompts.txt"
RICH_PROMPTS = "prompts.jsonl"
RUN_LOG = "run.log"

_SHOWN = 20
_LEAST_FREE_BYTES = 1_000_000
"""With less there is no use in beginning: ledger, log and summary need some of it."""

_NO_THREAD = "can't start new thread"
"""What Python says, in a RuntimeError of no class of its own, if the system refuses it a thread."""

_NO_THREAD_MEANS = (
    "this system lets the run start no more threads: it needs slots + 1 of them for each endpoint, twice with worker "
    "processes; raise that limit (ulimit -u, TasksMax= of systemd, pids.max of a container), or use fewer endpoints"
)

_WHY = {UsageError: "usage", AbsentError: "down"}
"""Why a run ends that can't begin."""

Observe = Callable[[report.Tally, Event | None], None]
"""Called on the calling thread with every event, and with None when time passed without one, and at the end."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What every step of the story needs."""

    name: str
    config: Config
    folder: Folder
    stop: Stop
    words: journal.Words
    trail: Trail
    ends_at: float
    """When the time window is over, on the monotonic clock."""
    members: bytearray | None = None
    """1 for each prompt that is this run's, 0 for those of other shards; None: all are."""
    inputs: frozenset[str] = frozenset()
    """The names of prompts' images that lie where results go: none of them is replaced by one."""
    image: tuple[str, ...] = ()
    """The path of the first image that is to be read, if it is no URL."""
    notices: deque[tuple[int, str]] = field(default_factory=deque)
    """What other threads have to say, and its level; the main thread says it."""

    def warn(self, said: str) -> None:
        """Take what another thread warns of."""
        self.notices.append((logging.WARNING, said))


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
    members, inputs = members_of(config, prompts), _inputs_among_results(config, prompts)
    this = _Run(name, config, folder, stop or Stop(), words, trail, ends_at, members, inputs)
    total = len(prompts) if members is None else sum(members)
    this.folder.prepare()
    with (
        ledger.locked_for(this.folder),
        this.folder.at_work(this.name, this.warn),
        journal.written_to(this.folder.state / RUN_LOG, config.redactor, config.settings.log),
    ):
        found, average_bytes = _standing(this, prompts, overwrite=overwrite)
        processes = _processes(this, average_bytes) if found.pending else 1
        this = replace(this, image=_first_image(config, prompts, found))
        journal.announce(config, found, total=total, of=len(prompts), processes=processes)
        _keep_config(this, prompts)
        tally = report.Tally(
            run=this.name,
            redact=config.redactor.text,
            total=total,
            skipped=len(found.done),
            endpoints=config.endpoints,
        )
        this.trail.began(config.endpoints, total=total, skipped=len(found.done), command=command)
        schedule = _schedule(this, prompts, found, usual_s or {})
        observe = observe or _nobody
        upload = config.settings.upload
        with mirror.kept_mirrored(folder.path, upload, this.stop, this.warn, state=folder.state) as mirrored:
            error = _work(this, schedule, processes, tally, observe, mirrored)
            observe(tally, None)
            return _close(this, tally, error, mirrored)


def window_end(settings: RunConfig) -> float:
    """Return when the time window that begins now is over, on the monotonic clock; infinity if there is none."""
    lasts_s = inf if settings.max_runtime_s is None else settings.max_runtime_s
    return min(time.monotonic() + lasts_s, until(settings))


def until(settings: RunConfig) -> float:
    """Return when it is next what ``until`` says, on the monotonic clock; infinity if it says nothing."""
    return inf if settings.until is None else time.monotonic() + seconds_until(settings.until)


def read_all(config: Config) -> Prompts:
    """Return every prompt of the run, done or not. Raises UsageError."""
    settings = config.settings
    protocol = config.protocol
    try:
        prompts = read_prompts(
            config.prompts,
            base=config.base,
            keys=settings.output.keys,
            what=protocol.what,
            several=protocol.several,
            fetch=lambda url: fetch_list(url, settings.timeouts),
        )
        _check_sendable(prompts, protocol)
    except UsageError as error:
        raise UsageError(*map(config.redactor.text, error.problems)) from error
    return prompts


def _check_sendable(prompts: Prompts, protocol: Protocol) -> None:
    """Raise UsageError naming the prompts that don't have all that the protocol sends."""
    if not protocol.demanding:
        return
    plain = {is_path: protocol.lacks(Prompt(0, "", "/" if is_path else URL[0])) for is_path in (True, False)}
    lacking = (
        (index, protocol.lacks(prompts[index]) if packed[:1] == b"{" else plain[packed[:1] == b"/"])
        for index, (_, packed) in enumerate(prompts.encoded())
    )  # a record of each of a million would take seconds
    wrong = [(index, what) for index, what in lacking if what]
    if wrong:
        raise UsageError(
            *(f"{prompts.place(index)}: {prompts[index].key} has {what}" for index, what in wrong[:_SHOWN]),
            *([f"… and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []),
            f"The protocol {protocol.name} sends {', '.join(f'{{{name}}}' for name in protocol.demanding)}. "
            "Nothing was sent.",
        )


def history_of(config: Config, ledgers: ledger.Ledgers | None = None) -> ledger.History:
    """Return what the output folder's ledgers say, that of the whole list and those of shards."""
    ledgers = ledgers or ledger.ledgers_of(config.output_folder)
    history = ledger.replay(ledgers)
    if history.unreadable:
        alone = ledgers.paths[0] if len(ledgers.paths) == 1 else config.output_folder / STATE
        journal.log.warning("%s: %d unreadable lines ignored", alone, history.unreadable)
    return history


def members_of(config: Config, prompts: Prompts) -> bytearray | None:
    """Return 1 for each prompt of the config's shard, and 0 for the others; None if it is to do all of them."""
    return config.shard.members(map(itemgetter(0), prompts.encoded())) if config.shard else None


def standing_of(
    config: Config,
    prompts: Prompts,
    history: ledger.History,
    *,
    members: bytearray | None = None,
    overwrite: bool = False,
    folder: Folder | None = None,
) -> Standing:
    """Say which prompts are done and which are to do, of all, or of those with a 1 in ``members``. Only reads.

    ``folder`` may have been listed already.
    """
    folder = folder or folder_of(config.output_folder, config.far)
    settings = config.settings
    with folder.unchanged() as unchanged:
        return standing(
            prompts,
            history,
            unchanged=unchanged,
            stamp=folder.stamp,
            digest=folder.sha256,
            seed=settings.seed,
            protocol=config.protocol.name,
            verify=settings.output.verify,
            overwrite=overwrite,
            members=members,
        )


def _standing(this: _Run, prompts: Prompts, *, overwrite: bool) -> tuple[Standing, float]:
    """Return what is to do, and the average size of the results so far. Raises UsageError, StorageError."""
    if swept := this.folder.sweep():
        journal.log.info("Removed %d unfinished files of a run that died", swept)
    history = history_of(this.config)
    found = standing_of(this.config, prompts, history, members=this.members, overwrite=overwrite, folder=this.folder)
    if found.conflicts:
        raise UsageError(
            f"{near(this.folder.shown)} holds results made with other parameters:",
            *(f"  {text}" for text in found.conflict_text(prompts)),
            "Make these again with --overwrite, or choose another --output-folder. Nothing was sent.",
        )
    if found.pending:
        hands = sum(one.hands for one in this.config.endpoints)
        _check_space(this, this.folder.at_once(len(found.pending), hands), history.average_bytes)
    return found, history.average_bytes


def _first_image(config: Config, prompts: Prompts, found: Standing) -> tuple[str, ...]:
    """Return the path of the first image that is to be read, if it is no URL."""
    first = prompts[found.pending[0]] if found.pending and config.protocol.reads_image else None
    return (first.image,) if first and first.image and not first.is_url else ()


def _processes(this: _Run, average_bytes: float) -> int:
    """Return over how many processes the endpoints are shared out. Raises UsageError if these can't do their work."""
    if this.config.settings.engine.kind == "dask":
        return 1
    hands = [one.hands for one in this.config.endpoints]
    is_plain = this.config.protocol.is_plain
    each = limits.HAND_FILES + (0 if is_plain else limits.DOCUMENT_FILES)
    count = limits.share_out(
        this.config.settings.processes,
        hands,
        average_bytes=average_bytes,
        processors=limits.processors(),
        most_files=limits.most_files(),
        each=each,
    )
    limits.allow_files(hands, processes=count, each=each)
    return count


def _check_space(this: _Run, pending: int, average: float) -> None:
    """Compare the free space with what the results will need, as far as earlier ones tell.

    Raises StorageError if not even one fits; warns if not all do.
    """
    free = this.folder.free_bytes()
    where = near(this.folder.path)
    if free < max(average, _LEAST_FREE_BYTES):
        needed = f", and a result needs about {average / 1e6:.1f} MB" if average else ""
        raise StorageError(
            f"{where}: only {free / 1e6:.1f} MB are free{needed}; make space and run the same command again. "
            "Nothing was sent."
        )
    if free < average * pending:
        journal.log.warning(
            "%d results of about %.1f MB need %.0f MB, but only %.0f MB are free in %s: the run ends when it is full",
            pending, average / 1e6, average * pending / 1e6, free / 1e6, where,
        )  # fmt: skip


def _work(
    this: _Run,
    schedule: Schedule,
    processes: int,
    tally: report.Tally,
    observe: Observe,
    mirrored: mirror.Mirror | None,
) -> RunnerError | None:
    """Work through the schedule, and write down every event; return the error that ended it early, if one did."""
    said_so = False
    board = Board(this.folder.state, this.name, this.config.redactor.text)
    try:
        with _open_ledger(this) as lines, _opened(this, schedule, processes) as work:
            for events in engine.work_through(schedule, work):
                with journal.together():
                    for event in _written([_sparing(this, one) for one in events], lines):
                        slow = tally.add(event)
                        if mirrored and isinstance(event, Outcome):
                            mirrored.add(event)
                        this.words.tell(event)
                        this.trail.tell(event)
                        if slow:
                            this.words.tell_slow(slow)
                        observe(tally, event)
                    _tell_notices(this)
                    this.folder.check()
                    _check_limits(this, tally)
                    if not said_so and journal.tell_stop(this.stop):
                        this.trail.stopping()
                        said_so = True
                if not events:
                    observe(tally, None)
                board.look(tally, schedule.loads)
    except RunnerError as error:
        this.stop.leave(_WHY.get(type(error), "error"))
        return error
    except Exception as bug:  # noqa: BLE001 - the run ends here; what was saved is told truthfully, and exit 3
        if str(bug) == _NO_THREAD:
            this.stop.leave("error")
            return RunnerError(_NO_THREAD_MEANS)
        this.stop.fail("bug")
        journal.log.error("A bug in runner ends this run", exc_info=True)
        return RunnerError(f"a bug in runner: {type(bug).__name__}: {bug} (the traceback is in the log)")
    finally:
        board.remove()
        _tell_notices(this)
    if this.stop.now:
        journal.log.warning("What was still in flight was cut; its prompts stay pending")
    if this.stop.reason == "down" and (why := schedule.why_down()):
        journal.log.error("No endpoint can be used (%s)", why)
    return None


def _tell_notices(this: _Run) -> None:
    while this.notices:
        level, said = this.notices.popleft()
        journal.log.log(level, "%s", said)


def _inputs_among_results(config: Config, prompts: Prompts) -> frozenset[str]:
    """Return the names of those images of prompts that lie in the output folder."""
    folders = {os.path.join(one, "") for one in (config.output_folder, os.path.realpath(config.output_folder))}
    within = [text for one in folders if prompts.mention(text := one.encode(errors="surrogatepass"))]
    if not within:
        return frozenset()
    found = [index for index, (_, packed) in enumerate(prompts.encoded()) if any(one in packed for one in within)]
    return frozenset(os.path.basename(prompts[index].image) for index in found)


def _sparing(this: _Run, event: Event) -> Event:
    """Turn a result that would replace the image of a prompt into a failure, and drop it."""
    if not this.inputs or not isinstance(event, Saving) or event.outcome.outcome == "dropped":
        return event
    if this.inputs.isdisjoint(map(os.path.basename, event.part.targets)):
        return event
    event.part.drop()
    name = event.outcome.file or event.outcome.key
    error = f"its result {name} would replace the image {name} of a prompt; choose another output_folder"
    nothing = {"file": None, "format": None, "size_bytes": None, "mtime_ns": None, "sha256": None}
    return replace(event.outcome, outcome="failed", blame="prompt", error=error, more=(), **nothing)  # type: ignore[arg-type]


def _written(events: Sequence[Event], lines: ledger.Ledger) -> Iterator[Event]:
    """Write the outcomes down; results get their names after that, and only then count as saved.

    A run killed between the two leaves lines without files, which nobody believes; the other way round it would
    leave files that nobody knows, and replace them.
    """
    waiting = [event for event in events if isinstance(event, Saving)]
    try:
        lines.append([one if isinstance(one, Outcome) else one.outcome for one in events if _is_written(one)])
        for event in events:
            if isinstance(event, Saving):
                part = waiting.pop(0).part
                if event.outcome.outcome == "dropped":
                    part.drop()
                else:
                    part.keep()
                yield event.outcome
            else:
                yield event
    finally:
        for saving in waiting:
            saving.part.drop()


def _is_written(event: Event) -> TypeGuard[Saving | Outcome | Submitted]:
    return isinstance(event, Saving | Outcome | Submitted)


def _schedule(this: _Run, prompts: Prompts, found: Standing, usual_s: Mapping[str, float]) -> Schedule:
    settings = this.config.settings
    endpoints = this.config.endpoints
    backlogs = deal(found.pending, len(endpoints))
    return Schedule(
        [Lane(endpoint, backlog) for endpoint, backlog in zip(endpoints, backlogs, strict=True)],
        prompts,
        this.stop,
        failover=settings.failover,
        steal=settings.assignment == "steal",
        hedge=settings.hedge,
        retry=settings.retry,
        health=settings.health,
        load_size=settings.protocol.size if settings.protocol.kind == "batch" else 1,
        jobs=found.jobs,
        ends_at=this.ends_at,
        usual_s=usual_s,
    )


@contextmanager
def _open_ledger(this: _Run) -> Iterator[ledger.Ledger]:
    path = this.folder.state / ledger.LEDGER
    with closing(ledger.Ledger(path, run=this.name, redact=this.config.redactor.text)) as lines:
        yield lines


@contextmanager
def _opened(this: _Run, schedule: Schedule, processes: int) -> Iterator[engine.Work]:
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
    this: _Run, schedule: Schedule, workbench: Callable[[], Workbench], say: Callable[[int, str], None]
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
    with fit.shown(), Dask(schedule, terms, workbench, say=say) as workers:
        yield workers


def _where(this: _Run) -> str:
    """Return what names the place of this run's results on every machine; each shard has one of its own."""
    if not is_remote(this.config.settings.output_folder):
        return str(this.folder.state)
    return f"{this.config.settings.output_folder} {this.config.shard.folder if this.config.shard else ''}"


def _files_of(endpoint: Endpoint) -> list[str]:
    """Return the files that are needed to ask an endpoint."""
    return [one for one in (endpoint.verify, endpoint.cert, endpoint.key) if isinstance(one, str)]


def _close(this: _Run, tally: report.Tally, error: RunnerError | None, mirrored: mirror.Mirror | None) -> Summary:
    """Write the summary and the last lines of the log; what is mirrored goes up before, and the summary after it."""
    if mirrored:
        mirrored.finish()
        error = error or _left_behind(this, mirrored)
    summary = _summed_up(this, tally, error)
    if mirrored:
        mirrored.put_state()
        if error is None and (left := _left_behind(this, mirrored)):
            summary = _summed_up(this, tally, left)
    journal.conclude(summary)
    return summary


def _summed_up(this: _Run, tally: report.Tally, error: RunnerError | None) -> Summary:
    """Write the summary, and let the state be where it belongs."""
    folder = near(this.folder.shown)
    said = this.config.redactor.text(str(error)) if error else None
    summary = tally.summary(output_folder=folder, stopped=this.stop.reason, error=said)
    try:
        this.folder.write(SUMMARY, report.summary_json(summary))
        this.trail.ended(summary)
        this.folder.settle(hurry=this.stop.now)
    except RunnerError as refused:
        error = error or refused
        summary = tally.summary(output_folder=folder, stopped="error", error=str(error))
        with suppress(StorageError):
            this.folder.write(SUMMARY, report.summary_json(summary))
    return summary


def _left_behind(this: _Run, mirrored: mirror.Mirror) -> RunnerError | None:
    """Return what is to be said of results that are saved here and did not get into the bucket; None if all did."""
    _tell_notices(this)
    try:
        problem = mirrored.problem(near(this.folder.path))
    except RunnerError as refused:
        return refused
    return RunnerError(problem) if problem else None


def _check_limits(this: _Run, tally: report.Tally) -> None:
    """Ask to stop when there were too many failures."""
    most = this.config.settings.max_failures
    if most is not None and tally.failed >= most and not this.stop.asked:
        this.stop.ask("failures")


def _keep_config(this: _Run, prompts: Prompts) -> None:
    """Write the resolved config; with prompts that can't be read a second time, the list as well."""
    snapshot = None
    if not len(prompts) and (this.folder.state / CONFIG).exists():
        return  # nothing was asked for; what was before says more of the folder
    again = not any(
        source == "-" or "://" in source or _is_stream(this.config, source) for source in this.config.prompts
    )
    if not again or this.config.far:  # others can't read what lies on this machine
        as_json = needs_json(packed for _, packed in prompts.named())
        snapshot = [RICH_PROMPTS if as_json else PROMPTS]  # beside the config, wherever the folder is moved
        lines = written((packed for _, packed in prompts.named()), as_json=as_json)
        this.folder.write(snapshot[0], lines, mode=0o600)
    this.folder.write(CONFIG, this.config.resolved_yaml(snapshot))
    lists.remember(this.folder, this.name, prompts, this.config, again=again)


def _is_stream(config: Config, source: str) -> bool:
    """Tell whether a source is a pipe or a device, which can't be read a second time."""
    path = os.path.join(config.base, source)
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def near(path: Path | str) -> str:
    """Return ``path`` as a user in the current folder would type it; a URL as it is."""
    if is_remote(str(path)):
        return str(path)
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near


def _run_name() -> str:
    return f"{utc_now()}-{secrets.token_hex(2)}"


def _nobody(tally: report.Tally, event: Event | None) -> None:
    """Observe nothing."""
