"""Where the picture of a prompt's image comes from: a file here, or a download that is drawn and thrown away."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlsplit

from runner.client import WebClient
from runner.errors import ImageError
from runner.pictures.drawers import Drawers
from runner.pictures.entries import Entry
from runner.pictures.jobs import Job, Refused
from runner.settings import Timeouts

AT_A_TIME = 8
_WITHIN_S = 10.0
IMAGE_MAX_BYTES = 30_000_000
FAILURES_MAX = 20
"""So many failures of a host in a row, and it is asked no more for this report."""

SILENT_MAX = 5
"""So often a host may give no answer at all, whatever it does between."""

LOST_MAX_S = 60.0
"""So long all hosts together may be waited for in vain."""

AGAIN_S = 24 * 3600
"""What was no image that can be drawn is asked for again after that."""


def is_remote(image: str) -> bool:
    return image.startswith(("http://", "https://"))


def job_of(image: str) -> Job | None:
    """Return the job that draws an image; None for one that is not there. The path of a remote one is its URL."""
    if is_remote(image):
        return Job("prompt", hashlib.sha256(image.encode(errors="surrogatepass")).hexdigest(), image, "", 0)
    try:
        status = os.stat(image)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    name = f"{image}\0{status.st_size}\0{status.st_mtime_ns}"
    key = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    return Job("prompt", key, image, "", status.st_size)


class Downloads:
    """Downloads of prompts' images. Hosts that can't be reached, or that only fail, are not asked for ever."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, now_s: Callable[[], float] = time.time) -> None:
        timeouts = Timeouts(connect_s=_WITHIN_S / 2, image_s=_WITHIN_S)
        self._client = WebClient(timeouts, connections=AT_A_TIME)
        self._clock = clock
        self._now_s = now_s
        self._lock = threading.Lock()  # guards what follows
        self._lost_s = 0.0
        self._in_a_row: Counter[str] = Counter()
        self._silent: Counter[str] = Counter()
        self._failed = 0
        self._untried = 0
        self._first = ""

    def draw(self, job: Job, drawers: Drawers) -> Entry | Refused | None:
        """Download an image and have it drawn, from any thread; None if it can't be had. Raises DrawersError."""
        host = urlsplit(job.path).netloc
        if self._is_given_up(host):
            with self._lock:
                self._untried += 1
            return None
        begun = self._clock()
        try:
            image = self._client.fetch(job.path)
            if len(image.content) > IMAGE_MAX_BYTES:
                raise ImageError(f"image: one of more than {IMAGE_MAX_BYTES // 1_000_000} MB", status=200)
        except ImageError as error:
            self._count(host, error, self._clock() - begun)
            return None
        with self._lock:
            self._in_a_row[host] = 0
        content = base64.b64encode(image.content).decode()
        answer = drawers.draw(Job("prompt", job.key, "", "", 0, content))
        if isinstance(answer, Entry) and not answer.thumbnail_bytes:
            return replace(answer, until_s=int(self._now_s() + AGAIN_S))
        return answer

    def _is_given_up(self, host: str) -> bool:
        return self._lost_s >= LOST_MAX_S or self._silent[host] >= SILENT_MAX or self._in_a_row[host] >= FAILURES_MAX

    def _count(self, host: str, error: ImageError, lost_s: float) -> None:
        with self._lock:
            self._failed += 1
            self._in_a_row[host] += 1
            if error.status is None:
                self._silent[host] += 1
                self._lost_s += lost_s
            self._first = self._first or _said(error)

    def note(self) -> str:
        """Say how many images could not be had; "" if all could."""
        if not self._failed:
            return ""
        images = "1 prompt image" if self._failed == 1 else f"{self._failed:,} prompt images"
        untried = f"; {self._untried:,} more were not tried after that" if self._untried else ""
        return f"{images} could not be had ({self._first}){untried}"

    def abandon(self) -> None:
        with suppress(OSError):
            self._client.abandon()

    def close(self) -> None:
        self._client.close()


def _said(error: ImageError) -> str:
    """Say what happened without the name of a clock, which tells a reader of a report nothing."""
    return str(error).replace(f"image_s ({_WITHIN_S:g} s)", f"{_WITHIN_S:g} s")
