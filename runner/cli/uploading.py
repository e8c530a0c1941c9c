"""``upload``: bring a folder's results into a bucket, after the run that made them."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from runner.cli.running import signals
from runner.errors import UsageError
from runner.mirror import Standing, upload_folder
from runner.redact import public_url
from runner.remote import is_remote, problem_of
from runner.report import plain
from runner.settings import Upload
from runner.stop import Stop
from runner.traces import config_in, expect_ledger

_SIGNALS = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}


def upload(arguments: Namespace) -> int:
    """Upload what of a folder is not in the bucket yet; 0 only if all of its saved results are there."""
    if is_remote(arguments.folder):
        url = public_url(arguments.folder)
        raise UsageError(f"FOLDER: expected an output folder on this machine, whose results go to URL, got {url}")
    folder = Path(arguments.folder)
    expect_ledger(folder)
    policy = _policy(folder, arguments.url)
    stop = Stop()
    with signals(stop, 0):
        found = upload_folder(folder, policy, stop, _say)
    if arguments.json:
        print(json.dumps({"success": found.why is None, "folder": arguments.folder, **asdict(found)}))
    else:
        print(_line(arguments.folder, found))
    return _SIGNALS.get(stop.reason or "", 1) if found.why is not None else 0


def _policy(folder: Path, url: str | None) -> Upload:
    """Return where to and how: as the last run in the folder would, if its config can be read. Raises UsageError."""
    policy = Upload()
    with suppress(UsageError):
        policy = config_in(folder).settings.upload
    to = url or policy.to
    if to is None:
        raise UsageError(f"name a URL such as s3://bucket/prefix; {folder}/.runner/config.yaml has no upload.to")
    problem = problem_of(to) if is_remote(to) else f"expected a URL such as s3://bucket/prefix, got {to!r}"
    if problem:
        raise UsageError(f"URL: {problem}")
    return policy.model_copy(update={"to": to})


def _line(folder: str, found: Standing) -> str:
    if problem := found.problem(folder):
        return plain(f"{folder}: {found.uploaded} files uploaded ({found.bytes / 1e6:.1f} MB); {problem}")
    new = f"{found.uploaded} files uploaded ({found.bytes / 1e6:.1f} MB)" if found.uploaded else "nothing was missing"
    return plain(f"{folder}: all {found.results} results are in {found.to}; {new}")


def _say(warning: str) -> None:
    with suppress(OSError, ValueError):
        print(f"warning: {plain(warning)}", file=sys.stderr)
