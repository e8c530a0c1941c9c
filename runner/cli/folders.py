"""``status``, ``report``, ``verify`` and ``prune``: what is in an output folder, whether it is whole, what may go."""

from __future__ import annotations

import io
import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from runner import pruning
from runner.chronicle import Run, chronicle_of, markdown_lines, text_lines, verdict
from runner.cli import standing, targets
from runner.cli.output import counting
from runner.errors import UsageError
from runner.extras import missing
from runner.progress import progress_in
from runner.records import Summary
from runner.report import plain
from runner.reporting import THUMBNAILS, write_report
from runner.status import Status, last_run, latest_summary, status_of
from runner.storage import refusals
from runner.traces import here
from runner.verification import Flaw
from runner.verification import verify as verify_all


def status(arguments: Namespace) -> int:
    """Print how an output folder stands; 0 only if every prompt has its result."""
    found = status_of(here(arguments.folder))
    if arguments.missing_file == "-":
        sys.stdout.writelines(found.lines_to_do())
        return _all_there(found)
    if arguments.missing_file:
        lines = found.lines_to_do(arguments.missing_file)
        targets.write_lines("--missing-file", arguments.missing_file, lines, found)
    if arguments.json:
        _print_object(standing.status_fields(arguments.folder, found))
    else:
        for line in standing.status_lines(arguments.folder, found):
            print(line)
    return _all_there(found)


def report(arguments: Namespace) -> int:
    """Tell how the last run in a folder went, and how the folder stands: as a page in it, or on stdout."""
    path = here(arguments.folder)
    if arguments.format == "html":
        return _write_page(path, arguments)
    with _told_to(arguments.output, path):
        told = chronicle_of(path)
        if arguments.format == "json":
            last = last_run(path, progress_in(path))
            _print_object(standing.report_fields(told, _summary(path, told.run), last))
        else:
            for line in text_lines(told) if arguments.format == "text" else markdown_lines(told):
                print(line)
    return 0


@contextmanager
def _told_to(file: str | None, folder: Path) -> Iterator[None]:
    """Let what is printed go to a file, if one is named. Raises UsageError, StorageError."""
    if file in (None, "-"):
        yield
        return
    assert file is not None
    target = targets.checked_for("--output", file, folder)
    said = io.StringIO()
    with redirect_stdout(said):
        yield
    with refusals(f"{file} can't be written"):
        targets.write_to(file, target, [said.getvalue()])


def _summary(path: Path, shown: Run | None) -> Summary | None:
    """Return the summary of the run that is told of, or else the last that ended, if there is one to be read."""
    with suppress(UsageError):
        return latest_summary(path, shown.name, shown.left) if shown else latest_summary(path)
    return None


def _write_page(path: Path, arguments: Namespace) -> int:
    if absent := missing("report"):
        raise UsageError(f"report.html needs {absent}; --format text needs nothing")
    if arguments.output and (arguments.output == "-" or targets.is_open(arguments.output)):
        raise UsageError(f"--output {arguments.output}: expected a file for a page; the other formats may go there")
    thumbnails = THUMBNAILS if arguments.thumbnails is None else arguments.thumbnails
    if thumbnails < 0:
        raise UsageError(f"--thumbnails: expected a number, 0 or more, got {thumbnails}")
    to = targets.checked_for("--output", arguments.output, path) if arguments.output else None
    with counting("picture") as shown:
        written = write_report(
            path,
            to=to,
            thumbnails=thumbnails,
            offline=arguments.offline,
            observe=shown.observe,
        )
    size = f"{written.size_bytes / 1e6:.1f} MB"
    print(f"{plain(arguments.output or written.place)}: {plain(verdict(written.told))} ({size})")
    for note in (*written.told.notes, *written.notes):
        print(f"note: {plain(note)}")
    return 0


def verify(arguments: Namespace) -> int:
    """Read every result again and name each that is not whole; 0 only if all are."""
    path = here(arguments.folder)
    listing = _Listing(arguments.folder) if arguments.json else None
    with counting("result") as shown:

        def tell(flaw: Flaw) -> None:
            if listing:
                listing.add({"key": flaw.key, "file": flaw.file, "state": flaw.state, "wrong": flaw.wrong})
            else:
                shown.say(f"{flaw.state:<10}  {plain(flaw.file)}: {plain(flaw.wrong)}")

        found = verify_all(path, tell=tell, observe=shown.observe, discard=arguments.discard)
    if listing:
        listing.close(standing.verify_fields(found))
    else:
        for line in standing.verify_lines(arguments.folder, found, discarded=arguments.discard):
            print(line)
    return 0 if found.success else 1


def prune(arguments: Namespace) -> int:
    """List the files that belong to no prompt, and remove them if asked to; 1 if one could not be removed."""
    path = here(arguments.folder)
    only = tuple(arguments.only or pruning.KINDS)
    sure = arguments.only or ()
    found = pruning.prune(path, only, sure=sure) if arguments.yes else pruning.strays_of(path, only)
    if arguments.json:
        _print_object(standing.prune_fields(arguments.folder, found))
    else:
        for line in standing.prune_lines(arguments.folder, found, done=arguments.yes):
            print(line)
    return 1 if found.left else 0


def _all_there(found: Status) -> int:
    return 0 if not found.failed and not found.missing else 1


class _Listing:
    """One JSON object that begins with what is not whole, written as it is found: nobody keeps a million names."""

    def __init__(self, folder: str) -> None:
        self._before = f'{{"folder": {_json(folder)}, "flaws": ['

    def add(self, flaw: Mapping[str, Any]) -> None:
        sys.stdout.write(self._before + _json(flaw))
        self._before = ", "

    def close(self, fields: Iterable[tuple[str, Any]]) -> None:
        begun = "" if self._before == ", " else self._before
        rest = "".join(f", {_json(name)}: {_json(value)}" for name, value in fields)
        sys.stdout.write(f"{begun}]{rest}}}\n")


def _print_object(fields: Iterable[tuple[str, Any]]) -> None:
    """Print one JSON object on one line; what an iterator gives becomes a list, one by one."""
    mark = "{"
    for name, value in fields:
        sys.stdout.write(f"{mark}{_json(name)}: ")
        mark = ", "
        if isinstance(value, Iterator):
            sys.stdout.write("[")
            for number, one in enumerate(value):
                sys.stdout.write((", " if number else "") + _json(one))
            sys.stdout.write("]")
        else:
            sys.stdout.write(_json(value))
    sys.stdout.write("}\n")


def _json(value: Any) -> str:
    """Return JSON that a person can read; a name that is no Unicode has its bytes escaped."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text
