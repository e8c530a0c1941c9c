"""How a run ended, told to a command or a webhook: to people who would not look otherwise."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runner import report
from runner.notice.command import tell_command
from runner.notice.webhook import tell_webhook
from runner.records import Summary
from runner.settings import Notify

__all__ = ["notify"]

FAILURES_TOLD = 20

Redact = Callable[[str], str]


def notify(
    settings: Notify,
    summary: Summary,
    *,
    exit_code: int,
    name: str,
    redact: Redact,
    folder: Path | None = None,
) -> list[str]:
    """Tell how a run ended, if it is worth telling; return what went wrong with that, one sentence each.

    ``name`` is the config file's, ``folder`` (default: the current one) is where a command runs. It takes
    ``timeout_s`` for each of command and webhook at the most, and raises nothing.
    """
    if not is_due(settings, summary, exit_code=exit_code):
        return []
    told = message(summary, exit_code=exit_code, name=name, redact=redact)
    return [f"notify: {redact(problem)}" for problem in _told(settings, told, folder) if problem]


def is_due(settings: Notify, summary: Summary, *, exit_code: int) -> bool:
    """Tell whether an end is one to tell of: a window that is over is no failure."""
    return settings.when == "always" or not _is_in_order(summary, exit_code)


def _is_in_order(summary: Summary, exit_code: int) -> bool:
    if summary.runs:
        return all(_is_in_order(one, one.exit_code) for one in summary.runs)
    return exit_code == 0 or (exit_code == 75 and summary.stopped == "window")


def message(summary: Summary, *, exit_code: int, name: str, redact: Redact) -> dict[str, Any]:
    """Return what is told: the answer that goes to stdout, and what one needs to know elsewhere.

    ``text`` is a sentence for people; chats show the field of that name.
    """
    host = socket.gethostname()
    answer = json.loads(report.answer_json(summary))
    answer |= {"exit_code": exit_code, "config": name, "host": host}
    answer["text"] = f"{name or 'runner'} on {host}: {report.verdict(summary)}"
    answer["failures"] = [
        {"key": one.key, "endpoint": one.endpoint, "error": one.error} for one in summary.failures[:FAILURES_TOLD]
    ]
    return dict(_public(answer, redact))


def _told(settings: Notify, told: dict[str, Any], folder: Path | None) -> Iterator[str | None]:
    content = json.dumps(told, ensure_ascii=False).encode() + b"\n"
    if settings.command is not None:
        yield tell_command(settings.command, told, content, timeout_s=settings.timeout_s, folder=folder)
    if settings.url is not None:
        yield tell_webhook(settings.url, settings.headers, content, timeout_s=settings.timeout_s)


def _public(value: Any, redact: Redact) -> Any:
    """Return a value without secrets, its texts in UTF-8 (names of files may hold other bytes)."""
    match value:
        case str():
            return redact(value).encode(errors="backslashreplace").decode()
        case dict():
            return {name: _public(one, redact) for name, one in value.items()}
        case list():
            return [_public(one, redact) for one in value]
    return value
