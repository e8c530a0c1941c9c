"""What ``status``, ``report``, ``verify`` and ``prune`` say of a folder, as text and as the fields of a JSON object.

Whatever came from outside, such as keys and errors, is made safe for a terminal here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from runner.chronicle import Chronicle, Outage, Run
from runner.clock import utc_age_s
from runner.pruning import Pruned, Stray
from runner.records import Summary
from runner.report import Cause, and_more, cause_text, in_words, plain, table, why
from runner.status import LastRun, OfShard, Status
from runner.verification import Verified

_SHOWN = 20
_NAMED = 5


def _counts(found: Status) -> dict[str, int]:
    return {
        "total": found.total,
        "saved": found.saved,
        "failed": len(found.failed),
        "missing": len(found.missing),
        "earlier": len(found.earlier),
        "unknown": len(found.unknown),
    }


def status_fields(folder: str, found: Status) -> Iterator[tuple[str, Any]]:
    """Yield what ``status --json`` says, name by name."""
    yield from _counts(found).items()
    yield "folder", folder
    yield "endpoints", [asdict(share) | {"last_saved_at": share.last_saved_at or None} for share in found.shares]
    yield "causes", [_cause_fields(cause) for cause in found.causes]
    yield "last_run", _last_run_fields(found.last_run)
    yield "shards", (_shard_fields(one) for one in found.shards)
    saved_at = found.last_result_at
    yield "last_result", {"at": saved_at, "age_s": round(utc_age_s(saved_at))} if saved_at else None
    yield "running", {**found.progress, **_pace(found.progress)} if found.progress else None
    yield "free_bytes", found.free_bytes
    yield "held", found.held
    yield "unreadable_lines", found.unreadable_lines
    yield "failures", ({"key": key, "prompt": prompt, "error": error} for key, prompt, error in found.failures())
    yield "unknown_files", found.unknown


def _shard_fields(one: OfShard) -> dict[str, Any]:
    counts = {name: getattr(one, name) for name in ("total", "saved", "failed", "missing")}
    return {"shard": str(one.shard)} | counts | {"last_run": _last_run_fields(one.last_run)}


def _last_run_fields(last: LastRun | None) -> dict[str, Any] | None:
    return asdict(last) | {"age_s": round(utc_age_s(last.began_at))} if last else None


def _cause_fields(cause: Cause) -> dict[str, Any]:
    return {
        "cause": cause.text,
        "count": cause.count,
        "key": cause.key,
        "error": cause.error,
        "endpoints": list(cause.endpoints),
    }


def _pace(progress: Mapping[str, Any]) -> dict[str, float | None]:
    """Return how many prompts a minute end, and in how many seconds none is pending; None while nobody can say."""
    try:
        ended, seconds = progress["saved"] + progress["failed"], float(progress["seconds"])
        a_minute = 60 * ended / seconds
        return {"a_minute": round(a_minute, 1), "eta_s": round(60 * progress["pending"] / a_minute)}
    except (KeyError, TypeError, ValueError, ArithmeticError):  # it has just begun
        return {"a_minute": None, "eta_s": None}


def status_lines(folder: str, found: Status) -> Iterator[str]:
    """Yield what ``status`` says, for a person to read in five seconds."""
    yield f"{plain(folder)}: " + ", ".join(f"{count} {name}" for name, count in _counts(found).items())
    yield from _run_lines(found)
    if found.shards:
        yield ""
        yield _shard_table(found.shards)
    if found.shares:
        yield ""
        yield _share_table(found)
    if found.causes:
        yield ""
        yield "failed:"
        yield from (f"  {plain(cause_text(cause))}" for cause in found.causes[:_SHOWN])
        yield from and_more(len(found.causes) - _SHOWN, "causes (--json lists all)")
    if found.missing:
        keys = (found.prompts[index].key for index in found.missing[:_NAMED])
        yield _named("missing", keys, len(found.missing), "--missing-file F writes all")
    if found.unknown:
        yield _named("unknown", found.unknown[:_NAMED], len(found.unknown), "--json lists all")


def _run_lines(found: Status) -> Iterator[str]:
    if found.progress:
        yield _progress_line(found.progress)
    parts = [_last_run_text(found.last_run)] if found.last_run and found.last_run.ended else []
    if found.last_result_at:
        parts.append(f"last result {_ago(found.last_result_at)}")
    where = " here, where results wait for the bucket" if found.config.far else ""
    parts.append(f"{found.free_bytes / 1e9:.1f} GB free{where}")
    if found.held:
        parts.append(f"{found.held} results wait here for their upload: the next run sends them")
    if found.unreadable_lines:
        parts.append(f"{found.unreadable_lines} unreadable lines in the ledger")
    yield "; ".join(parts)


def _last_run_text(last: LastRun) -> str:
    began = f"last run began {_ago(last.began_at)}"
    if last.ended == "killed":
        return f"{began}: {plain(last.error)}" if last.error else f"{began} and left no summary (killed?)"
    took = f" after {in_words(last.seconds)}" if last.seconds is not None else ""
    if last.ended == "done":
        return f"{began}, done{took}"
    return f"{began}, stopped{took}: {plain(last.error or why(last.stopped))}"


def _progress_line(progress: Mapping[str, Any]) -> str:
    said = {name: progress.get(name) for name in ("total", "saved", "skipped", "failed", "pending")}
    counts = ", ".join(f"{plain(str(count))} {name}" for name, count in said.items())
    pace = _pace(progress)
    eta = "unknown" if pace["eta_s"] is None else in_words(pace["eta_s"])
    rate = "" if pace["a_minute"] is None else f"; {pace['a_minute']}/min"
    runs = progress.get("runs")
    who = f"{runs} shards are at work" if runs else f"a run is going on (pid {plain(str(progress.get('pid')))})"
    return f"{who}: {counts}{rate}, ETA {eta}"


def _share_table(found: Status) -> str:
    shown = found.shares[:_SHOWN]
    rows = [
        [
            plain(one.name),
            one.saved,
            one.failed,
            round(one.bytes / 1e6, 1),
            "-" if one.median_s is None else f"{one.median_s:.1f}",
            _ago(one.last_saved_at) if one.last_saved_at else "-",
        ]
        for one in shown
    ]
    text = table(["endpoint", "saved", "failed", "MB", "median s", "last saved"], rows)
    return "\n".join([text, *and_more(len(found.shares) - _SHOWN, "endpoints (--json lists all)")])


def _shard_table(shards: Sequence[OfShard]) -> str:
    """Return a line for each shard: of many those that are not done first."""
    order = shards if len(shards) <= _SHOWN else sorted(shards, key=lambda one: one.saved == one.total)
    shown = sorted(order[:_SHOWN], key=lambda one: one.shard.number)
    rows = [[str(one.shard), one.saved, one.failed, one.missing, _shard_text(one)] for one in shown]
    text = table(["shard", "saved", "failed", "missing", "its last run"], rows)
    return "\n".join([text, *and_more(len(shards) - _SHOWN, "shards (--json lists all)")])


def _shard_text(one: OfShard) -> str:
    last = one.last_run
    if last is None:
        return "-"
    if last.ended is None:
        return f"goes on, begun {_ago(last.began_at)}"
    return _last_run_text(last).removeprefix("last run ")


def _named(title: str, names: Iterable[str], count: int, rest: str) -> str:
    more = f" and {count - _NAMED} more ({rest})" if count > _NAMED else ""
    return f"{title}: " + ", ".join(map(plain, names)) + more


def _ago(then: str) -> str:
    return f"{in_words(utc_age_s(then))} ago"


def report_fields(told: Chronicle, summary: Summary | None, last: LastRun | None) -> Iterator[tuple[str, Any]]:
    """Yield what ``report --format json`` says: the last summary, if there is one, and what the report is made of."""
    if summary:
        yield "success", summary.success
        yield "exit_code", summary.exit_code
        yield from ((name, value) for name, value in asdict(summary).items() if name != "run")  # it stands below
    yield "causes", [_cause_fields(cause) for cause in told.causes]
    yield "last_run", _last_run_fields(last)
    yield "folder", told.folder
    yield "standing", {name: getattr(told, name) for name in ("total", "saved", "failed", "pending")}
    yield "run", _run_fields(told, told.run)
    yield "run_before", _run_fields(told, told.previous)
    yield "changes", asdict(told.changes)
    yield "outages", [asdict(one) | _named_places(told, one) for one in told.outages]
    yield "notes", told.notes


def _run_fields(told: Chronicle, run: Run | None) -> dict[str, Any] | None:
    if run is None:
        return None
    turns = [asdict(turn) | {"endpoint": told.endpoints[turn.endpoint].name} for turn in run.turns]
    return asdict(run) | {"a_minute": round(run.a_minute, 2), "turns": turns}


def _named_places(told: Chronicle, one: Outage) -> dict[str, str]:
    return {"run": told.runs[one.run].name, "endpoint": told.endpoints[one.endpoint].name}


def verify_fields(found: Verified) -> Iterator[tuple[str, Any]]:
    """Yield what ``verify --json`` says beside the flaws."""
    yield from (
        (name, value) for name, value in asdict(found).items() if name not in ("removed", "left", "unreadable_lines")
    )
    yield "unreadable_lines", found.unreadable_lines
    yield "removed", found.removed
    yield "not_removed", [{"file": name, "why": reason} for name, reason in found.left]


def verify_lines(folder: str, found: Verified, *, discarded: bool) -> Iterator[str]:
    """Yield what ``verify`` says in the end."""
    if discarded:
        yield f"removed {len(found.removed)} damaged files; the next run makes them again"
        yield from (f"not removed: {plain(name)}: {plain(reason)}" for name, reason in found.left)
    if found.unreadable_lines:
        yield f"{found.unreadable_lines} unreadable lines in the ledger were passed over; what they said is lost"
    if found.no_ledger:
        yield f"{plain(folder)} has no ledger any more: nothing says what its files should be"
    if found.gone:
        yield f"{found.gone} results of earlier lists are gone, as after prune"
    states = {"whole": found.whole, "damaged": found.damaged, "missing": found.missing}
    if found.unreadable:
        states["unreadable"] = found.unreadable
    counts = ", ".join(f"{count} {name}" for name, count in states.items())
    size = f"{found.bytes / 1e6:.1f} MB" if found.bytes < 1e9 else f"{found.bytes / 1e9:.1f} GB"
    yield f"{plain(folder)}: {found.files} files: {counts} ({size} in {found.seconds:.1f} s)"
    if found.damaged and not discarded:
        yield f"To have the damaged ones made again: runner verify {plain(folder)} --discard, then run again"


def prune_fields(folder: str, found: Pruned) -> Iterator[tuple[str, Any]]:
    """Yield what ``prune --json`` says, name by name."""
    removed = {stray.name for stray in found.removed}
    yield "folder", folder
    yield "lists", found.sources
    yield "count", len(found.strays)
    yield "bytes", sum(stray.size_bytes for stray in found.strays)
    yield "removed", len(removed)
    yield "removed_bytes", sum(stray.size_bytes for stray in found.removed)
    yield "kept", found.kept
    yield "spared", found.spared
    yield "running", found.at_work
    yield "doubt", " ".join(found.objections()) or None
    yield "not_removed", [{"file": name, "why": reason} for name, reason in found.left]
    yield (
        "files",
        (
            {"name": one.name, "kind": one.kind, "size_bytes": one.size_bytes, "removed": one.name in removed}
            for one in found.strays
        ),
    )


def prune_lines(folder: str, found: Pruned, *, done: bool) -> Iterator[str]:
    """Yield what ``prune`` says."""
    removed = set(found.removed)
    for stray in found.strays:
        verb = "removed  " if stray in removed else ""
        yield f"{verb}{stray.kind:<7}  {stray.size_bytes:>12}  {plain(stray.name)}"
    yield from (f"not removed: {plain(name)}: {plain(reason)}" for name, reason in found.left)
    if found.spared:
        yield (
            f"{found.spared} unknown files are left alone: they may be yours, for {plain(folder)} holds "
            f"{plain(str(found.shared_with))} too; remove them by hand"
        )
    if found.at_work:
        yield "a run is going on: its temp files are not listed"
    if done and found.strays and not found.removed:
        yield f"{plain(folder)}: nothing was removed; {_total(found.strays)} are still there"
    else:
        total = _total(found.removed if done else found.strays)
        yield f"{plain(folder)}: {total}{' removed' if found.removed else ''}"
    if not done and found.strays:
        lists = ", ".join(map(plain, found.sources))
        yield f"Going by the prompts of {lists}. Nothing was removed; --yes removes them"
    if not done:
        yield from (f"warning: {plain(one)}" for one in found.objections())


def _total(strays: Sequence[Stray]) -> str:
    if not strays:
        return "nothing to remove"
    counts = Counter(stray.kind for stray in strays)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{len(strays)} files that belong to no prompt ({kinds}), {_megabytes(strays)}"


def _megabytes(strays: Sequence[Stray]) -> str:
    return f"{sum(stray.size_bytes for stray in strays) / 1e6:.1f} MB"
