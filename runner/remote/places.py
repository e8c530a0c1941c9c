"""Which output folders are elsewhere, and where on this machine their state is worked on."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from runner.settings import Upload

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def is_remote(folder: str) -> bool:
    """Tell whether an output folder is a URL, and not a path.

    >>> [is_remote(one) for one in ("s3://bucket/night", "results", "/srv/a:b")]
    [True, False, False]
    """
    return _URL.match(folder) is not None


def problem_of(url: str) -> str | None:
    """Say what is wrong with the URL of a folder, without what may be secret in it; None if nothing is."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "expected a URL such as s3://bucket/prefix"
    if "@" in parts.netloc:
        return "expected a URL without a name or password; credentials come from the environment or a profile"
    if parts.query or parts.fragment:
        return "expected a URL without ? or #"
    if not parts.netloc and parts.scheme not in ("file", "memory"):
        return f"expected a URL such as {parts.scheme}://bucket/prefix, got {url!r}"
    return None


def working_folder(url: str, spool: str | None = None) -> Path:
    """Return where on this machine the state of a remote folder is worked on, and results wait for their upload.

    ``spool`` stands in for ``$XDG_STATE_HOME/runner`` (``~/.local/state/runner``). Equal URLs have the same one.

    >>> str(working_folder("s3://bucket/night/", "/var/spool/runner"))
    '/var/spool/runner/s3-bucket-night-e97549b2'
    """
    url = url.rstrip("/")
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    base = Path(os.path.expanduser(spool)) if spool else Path(home) / "runner"
    name = _UNSAFE.sub("-", url.replace("://", "-"))[:80].strip("-")
    return Path(
        os.path.abspath(base / f"{name}-{hashlib.sha256(url.encode(errors='surrogatepass')).hexdigest()[:8]}")
    )


@dataclass(frozen=True, slots=True)
class Far:
    """A folder that is none of this machine: its URL, and how often what goes there is tried."""

    url: str
    policy: Upload = field(default_factory=Upload)

    @property
    def here(self) -> Path:
        """Where on this machine what belongs there is worked on."""
        return working_folder(self.url, self.policy.spool_folder)
