"""Say a summary as JSON and as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from runner.records import EndpointTotals, Summary
from runner.report.causes import Cause

_SHOWN = 5
_ANSWER = ("total", "saved", "skipped", "failed", "pending", "seconds", "output_folder")


def answer_json(summary: Summary) -> str:
    """Return the one line that goes to stdout: the counts, and ``error`` unless all went well."""
    return json.dumps(_answer(summary), ensure_ascii=False)


def _answer(summary: Summary) -> dict[str, Any]:
    answer: dict[str, Any] = {"success": summary.success}
    answer |= {name: getattr(summary, name) for name in _ANSWER}
    if not summary.success:
        answer["error"] = verdict(summary)
    if summary.runs:
        answer["runs"] = [_answer(one) for one in summary.runs]
    return answer


def summary_json(summary: Summary) -> str:
    """Return all that is known about the run, for ``summary.json``."""
    return json.dumps({"success": summary.success} | asdict(summary), ensure_ascii=False, indent=2) + "\n"


def verdict(summary: Summary) -> str:
    """Say in one sentence how the run ended."""
    if wrong := [one for one in summary.runs if not one.success]:
        said = [f"{one.output_folder}: {verdict(one)}" for one in wrong[:_SHOWN]]
        return "; ".join([*said, *([f"and {len(wrong) - _SHOWN} more runs"] if len(wrong) > _SHOWN else [])])
    if summary.error:
        return summary.error
    parts = []
    if summary.failed:
        parts.append(f"{summary.failed} of {summary.total} prompts failed")
        if summary.failures:
            first = summary.failures[0]
            parts[-1] += f" (first: {first.key}: {first.error})"
    if summary.pending:
        parts.append(f"{summary.pending} still pending: {why(summary.stopped)}; the same command goes on")
    return "; ".join(parts) or f"{summary.saved + summary.skipped} of {summary.total} prompts have a verified result"


def alarm(summary: Summary) -> str | None:
    """Say in one sentence what a person should know of a run; None if nothing is wrong."""
    said = [] if summary.success else [verdict(summary)]
    if out := [one.name for one in summary.endpoints if one.out]:
        said.append(f"out at the end: {', '.join(out[:_SHOWN])}" + (" …" if len(out) > _SHOWN else ""))
    return "; ".join([*said, *summary.warnings]) or None


def why(stopped: str | None) -> str:
    """Say in words why a run ended early."""
    reasons = {
        "window": "the time window is over",
        "failures": "max_failures is reached",
        "down": "no endpoint could be used for health.all_down_s",
        None: "not begun",
    }
    return reasons.get(stopped) or str(stopped)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as aligned columns; numbers stand right.

    >>> print(table(["name", "n"], [["a", 5], ["long", 10]]))
    name   n
    a      5
    long  10
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *cells]) for column in range(len(header))]
    right = [
        bool(rows) and all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in [list(header), *cells]
    )


def _seconds(one: EndpointTotals) -> str:
    if one.median_s is None:
        return "-"
    return f"{one.median_s:.1f}" + (" SLOW" if one.slow else "")


def endpoint_table(summary: Summary) -> str:
    """Return one line an endpoint: what it saved, how often it was asked, how busy it was."""
    return table(
        ["endpoint", "saved", "failed", "attempts", "outages", "median s", "busy s", "busy %", "MB"],
        [
            [
                one.name,
                one.saved,
                one.failed,
                one.attempts,
                one.outages,
                _seconds(one),
                round(one.busy_s, 1),
                round(100 * one.busy_s / (summary.seconds * one.slots)) if summary.seconds else 0,
                round(one.bytes / 1e6, 1),
            ]
            for one in summary.endpoints
        ],
    )


def cause_text(cause: Cause) -> str:
    """Say how often a cause was, its first error in full, and where."""
    where = ", ".join(cause.endpoints[:_SHOWN])
    more = f" and {len(cause.endpoints) - _SHOWN} more" if len(cause.endpoints) > _SHOWN else ""
    example = cause.key if cause.count == 1 else f"such as {cause.key}"
    return f"{cause.count}× {cause.error} ({example}; {where}{more})"


def and_more(count: int, what: str) -> Iterator[str]:
    """Yield a line that says how many more there are, if there are."""
    if count > 0:
        yield f"  … and {count} more {what}"


def plain(text: str) -> str:
    """Return a text from outside as a terminal may have it: on one line, with nothing in it that moves a cursor.

    >>> print(plain("chair\\x1b[2J"))
    chair\\x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def in_words(seconds: float) -> str:
    """Say how long something takes or is ago, as a person would.

    >>> [in_words(s) for s in (0.4, 59, 61, 7300, 200_000)]
    ['0 s', '59 s', '1 min', '2 h', '2 days']
    """
    for unit, length_s in (("days", 86400 * 2), ("h", 3600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds // (86400 if unit == 'days' else length_s):.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
