"""What is looked at, and kept, before anything is sent."""

from __future__ import annotations

import os

from runner import journal, limits, lists
from runner.batch.places import CONFIG, PROMPTS, RICH_PROMPTS, near
from runner.batch.reading import history_of, standing_of
from runner.batch.records import Run
from runner.config import Config
from runner.errors import StorageError, UsageError
from runner.prompts import Prompts, needs_json, written
from runner.resume import Standing


def stand(this: Run, prompts: Prompts, *, overwrite: bool) -> tuple[Standing, float]:
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


def _check_space(this: Run, pending: int, average: float) -> None:
    """Compare the free space with what the results will need, as far as earlier ones tell.

    Raises StorageError if not even one fits; warns if not all do.
    """
    where = near(this.folder.path)
    if lack := this.folder.lack_of_room(average):
        needed = f", and a result needs about {average / 1e6:.1f} MB" if average else ""
        raise StorageError(f"{where}: {lack}{needed}; make space and run the same command again. Nothing was sent.")
    free = this.folder.free_bytes()
    if free < average * pending:
        journal.log.warning(
            "%d results of about %.1f MB need %.0f MB, but only %.0f MB are free in %s: the run ends when it is full",
            pending, average / 1e6, average * pending / 1e6, free / 1e6, where,
        )  # fmt: skip


def processes_for(this: Run, average_bytes: float) -> int:
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


def first_image(config: Config, prompts: Prompts, found: Standing) -> tuple[str, ...]:
    """Return the path of the first image that is to be read, if it is no URL."""
    first = prompts[found.pending[0]] if found.pending and config.protocol.reads_image else None
    return (first.image,) if first and first.image and not first.is_url else ()


def inputs_among_results(config: Config, prompts: Prompts) -> frozenset[str]:
    """Return the names of those images of prompts that lie in the output folder."""
    folders = {os.path.join(one, "") for one in (config.output_folder, os.path.realpath(config.output_folder))}
    within = [text for one in folders if prompts.mention(text := one.encode(errors="surrogatepass"))]
    if not within:
        return frozenset()
    found = [index for index, (_, packed) in enumerate(prompts.encoded()) if any(one in packed for one in within)]
    return frozenset(os.path.basename(prompts[index].image) for index in found)


def keep_config(this: Run, prompts: Prompts) -> None:
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
