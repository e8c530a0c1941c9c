"""Where the picture of a prompt's image comes from: a file here, or a download that is drawn and thrown away."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

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
    """Downloads of prompts' images. After so many failures in a row, no more are begun: the host is not to be had."""

    def __init__(self, folder: Path) -> None:
        timeouts = Timeouts(connect_s=_WITHIN_S / 2, image_s=_WITHIN_S)
        self._client = WebClient(timeouts, connections=AT_A_TIME)
        self._folder = folder
        self._lock = threading.Lock()  # guards what follows
        self._in_a_row = 0
        self._failed = 0
        self._first = ""

    def draw(self, job: Job, drawers: Drawers) -> Entry | Refused | None:
        """Download an image and have it drawn, from any thread; None if it can't be had. Raises DrawersError."""
        if self._in_a_row >= FAILURES_MAX:
            self._count("")
            return None
        try:
            image = self._client.fetch(job.path)
        except ImageError as error:
            self._count(str(error))
            return None
        if len(image.content) > IMAGE_MAX_BYTES:
            self._count(f"an image of more than {IMAGE_MAX_BYTES // 1_000_000} MB")
            return None
        with self._lock:
            self._in_a_row = 0
        return self._drawn(job, image.content, drawers)

    def _drawn(self, job: Job, content: bytes, drawers: Drawers) -> Entry | Refused:
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".download.", suffix=".part") as file:
                file.write(content)
                file.flush()
                return drawers.draw(Job("prompt", job.key, file.name, "", 0))
        except OSError as error:
            return Refused(error.strerror or str(error))

    def _count(self, error: str) -> None:
        with self._lock:
            self._failed += 1
            self._in_a_row += 1
            self._first = self._first or error

    def note(self) -> str:
        """Say how many images could not be had; "" if all could."""
        if not self._failed:
            return ""
        images = "1 prompt image" if self._failed == 1 else f"{self._failed:,} prompt images"
        gave_up = f"; after {FAILURES_MAX} in a row no more were tried" if self._in_a_row >= FAILURES_MAX else ""
        return f"{images} could not be had ({self._first}){gave_up}"

    def abandon(self) -> None:
        with suppress(OSError):
            self._client.abandon()

    def close(self) -> None:
        self._client.close()
