"""Make the gallery: take what is kept, draw what is new, judge all of it, and forget what is gone."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from runner.errors import StorageError
from runner.pictures import oddities, prompts
from runner.pictures.drawers import Drawers, DrawersError
from runner.pictures.entries import Entry
from runner.pictures.jobs import Job, Refused
from runner.pictures.prompts import Downloads, is_remote, job_of
from runner.pictures.records import UNREADABLE, Gallery, Picture, Wanted
from runner.pictures.store import Store
from runner.remote import Folder

_HASH = re.compile(r"[0-9a-f]{64}")
_NEEDED = ("numpy", "PIL")

Observe = Callable[[int, int], None]


def made(folder: Folder, wanted: Sequence[Wanted], *, most: int, offline: bool, observe: Observe) -> Gallery:
    """Do what ``runner.pictures.gallery`` says."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        return Gallery(notes=(f"no pictures: {' and '.join(missing)} not installed (the extra report)",))
    store = Store(folder.path)
    try:
        plan = _plan(wanted, folder, store, most, offline=offline)
        notes = [store.note, *_draw(plan.jobs, folder, store, observe), plan.note()]
        store.tidy(plan.keys())
        pictures = _judged(dict(_placed(wanted, plan, store)))
        return Gallery(pictures, tuple(note for note in (*notes, *_undrawn(plan, store)) if note))
    finally:
        store.close()


@dataclass(slots=True)
class _Plan:
    """By row, the job of its result and of its prompt's image, None where there is none; and those to do now."""

    results: dict[int, Job | None] = field(default_factory=dict)
    prompts: dict[int, Job | None] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    over: int = 0

    def keys(self) -> set[tuple[str, str]]:
        return {(job.of, job.key) for jobs in (self.results, self.prompts) for job in jobs.values() if job}

    def note(self) -> str:
        return f"results that are not drawn: {self.over:,} more" if self.over else ""


def _plan(wanted: Sequence[Wanted], folder: Folder, store: Store, most: int, *, offline: bool) -> _Plan:
    """Find out what is asked for, and what of it is not kept; each is drawn once, however many rows it has."""
    plan = _Plan()
    for one in wanted:
        plan.results[one.row] = _result_job(one, folder)
        plan.prompts[one.row] = job_of(one.image) if one.image else None
    results = _new(plan.results.values(), store)
    prompts = [job for job in _new(plan.prompts.values(), store) if not (offline and is_remote(job.path))]
    plan.jobs = results[:most] + prompts[:most]
    plan.over = len(results) - len(results[:most])
    return plan


def _new(jobs: Iterable[Job | None], store: Store) -> list[Job]:
    found = {job.key: job for job in jobs if job and not store.find(job.of, job.key, job.size_bytes)}
    return list(found.values())


def _result_job(wanted: Wanted, folder: Folder) -> Job | None:
    """Return the job that draws a result; None if there is no file."""
    found = None
    with suppress(StorageError):
        found = folder.stamp(wanted.file.name) if wanted.file else None
    if found is None:
        return None
    key = wanted.sha256
    if not _HASH.fullmatch(key):
        name = f"{wanted.file}\0{found.size_bytes}\0{found.mtime_ns}"
        key = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    return Job("result", key, str(wanted.file), wanted.format, found.size_bytes)


def _draw(jobs: Sequence[Job], folder: Folder, store: Store, observe: Observe) -> list[str]:
    """Draw all of them, and note each as soon as it is there. Return what a reader has to know of it."""
    if not jobs:
        return []
    refused: Counter[str] = Counter()
    done = 0
    with _work(jobs, folder, store) as (futures, downloads):
        try:
            for future in as_completed(futures):
                answer = future.result()
                if isinstance(answer, Refused):
                    refused[answer.why] += 1
                elif answer:
                    _note(answer, store, refused)
                done += 1
                observe(done, len(jobs))
        except DrawersError as error:
            return [f"pictures that are missing: {len(jobs) - done:,} ({error})"]
    left_out = [f"pictures that can't be kept: {count:,} ({why})" for why, count in refused.items()]
    return [*left_out, downloads.note()]


def _note(entry: Entry, store: Store, refused: Counter[str]) -> None:
    try:
        store.add(entry)
    except OSError as error:
        refused[error.strerror or str(error)] += 1


@contextmanager
def _work(
    jobs: Sequence[Job], folder: Folder, store: Store
) -> Iterator[tuple[list[Future[Entry | Refused | None]], Downloads]]:
    """Work on jobs in threads that wait for processes and downloads; leaving this ends whatever is not done."""
    with ExitStack() as stack:
        drawers = stack.enter_context(Drawers(store.path, len(jobs)))
        downloads = Downloads()
        stack.callback(downloads.close)
        drawing = stack.enter_context(ThreadPoolExecutor(drawers.count))
        fetching = stack.enter_context(ThreadPoolExecutor(prompts.AT_A_TIME))
        stack.callback(drawers.end)
        stack.callback(downloads.abandon)
        for threads in (drawing, fetching):
            stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        yield (
            [
                fetching.submit(downloads.draw, job, drawers)
                if is_remote(job.path)
                else drawing.submit(_drawn, job, folder, drawers)
                for job in jobs
            ],
            downloads,
        )


def _drawn(job: Job, folder: Folder, drawers: Drawers) -> Entry | Refused | None:
    """Have a file drawn, a result from wherever it is. Raises DrawersError."""
    if job.of != "result":
        return drawers.draw(job)
    try:
        with folder.lent(os.path.basename(job.path)) as path:
            return drawers.draw(replace(job, path=path))
    except StorageError as error:
        return Refused(str(error))


def _placed(wanted: Sequence[Wanted], plan: _Plan, store: Store) -> Iterator[tuple[int, Picture]]:
    """Yield the picture of every row of which something is known."""
    for one in wanted:
        job, prompt_job = plan.results[one.row], plan.prompts[one.row]
        prompt = store.find("prompt", prompt_job.key, prompt_job.size_bytes) if prompt_job else None
        shown = store.path / prompt.thumbnail if prompt and prompt.thumbnail_bytes else None
        entry = store.find("result", job.key, job.size_bytes) if job else None
        if entry:
            yield one.row, _picture(entry, store.path, shown)
        elif one.file is not None and job is None:
            flag = (UNREADABLE, "it is not there, or no file that can be read")
            yield one.row, Picture("other", prompt=shown, flags=(flag,))
        elif shown:
            yield one.row, Picture("other", prompt=shown)


def _picture(entry: Entry, folder: Path, prompt: Path | None) -> Picture:
    return Picture(
        entry.kind,
        thumbnail=folder / entry.thumbnail if entry.thumbnail_bytes else None,
        prompt=prompt,
        model=folder / entry.model if entry.model_bytes else None,
        count=entry.count,
        box=entry.box,
        words=entry.words,
        flags=entry.flags,
    )


def _judged(pictures: dict[int, Picture]) -> dict[int, Picture]:
    """Flag those whose boxes are far off the others', unless they are flagged already."""
    sizes = {row: (one.kind, max(one.box)) for row, one in pictures.items() if one.box and not one.flags}
    for row, sentence in oddities.odd_sizes(sizes).items():
        pictures[row] = replace(pictures[row], flags=(oddities.flag(sentence),))
    return pictures


def _undrawn(plan: _Plan, store: Store) -> list[str]:
    """Say what there are no pictures of, and how many."""
    found = (store.find("result", job.key) for job in plan.results.values() if job)
    counts = Counter(entry.why for entry in found if entry and entry.why)
    notes = [f"no picture of {why}" + (f" ({count:,} results)" if count > 1 else "") for why, count in counts.items()]
    jobs = {job.key: job for job in plan.prompts.values() if job}
    asked = (store.find("prompt", job.key, job.size_bytes) for job in jobs.values())
    if none := sum(entry is not None and not entry.thumbnail_bytes for entry in asked):
        notes.append(f"prompt images that can't be drawn: {none:,} (no images, damaged, or of a format like SVG)")
    return notes
