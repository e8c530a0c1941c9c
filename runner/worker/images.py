"""The images of prompts: read or downloaded, and kept while their prompt waits for another attempt."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time

from runner import formats
from runner.client import IMAGE_MAX_BYTES, WebClient
from runner.clock import since
from runner.errors import ImageError
from runner.prompts import shown
from runner.records import Image, Task

_KEPT_BYTES = 32 * 1024 * 1024


class Images:
    """Gives tasks their images. Of those that wait for another attempt it keeps the latest, up to ``_KEPT_BYTES``."""

    def __init__(self, client: WebClient) -> None:
        self._client = client
        self._images: dict[int, Image] = {}
        self._size_bytes = 0
        self._lock = threading.Lock()

    def of(self, task: Task) -> Image:
        """Return the image of a task, and note how long that took. Raises ImageError."""
        kept = self._take(task)
        if kept is not None:
            return kept
        begun = time.monotonic()
        task.image_attempts += 1
        prompt = task.prompt
        try:
            image = self._client.fetch(prompt.image) if prompt.is_url else _read_image(prompt.image)
        finally:
            task.image_s += since(begun)
        head = image.content[:1024]
        if page := formats.text_kind(head):
            raise ImageError(f"image: {shown(prompt)} is no image, but {page}: {formats.words(head)}")
        task.image_attempts = 0
        return image

    def keep(self, task: Task, image: Image | None) -> None:
        """Keep an image for the task's next attempt; others may have to make room."""
        if image is None:
            return
        with self._lock:
            old = self._images.pop(task.prompt.index, None)
            self._images[task.prompt.index] = image
            self._size_bytes += image.size_bytes - (old.size_bytes if old else 0)
            while self._size_bytes > _KEPT_BYTES:
                self._size_bytes -= self._images.pop(next(iter(self._images))).size_bytes

    def abandon(self) -> None:
        """Cut the downloads under way, and begin none any more."""
        self._client.abandon()

    def _take(self, task: Task) -> Image | None:
        with self._lock:
            image = self._images.pop(task.prompt.index, None)
            self._size_bytes -= image.size_bytes if image else 0
            return image


def _read_image(path: str) -> Image:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"image: {path} is no regular file")
            content = file.read(IMAGE_MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"image: {path}: {error.strerror}") from error
    if len(content) > IMAGE_MAX_BYTES:
        raise ImageError(f"image: {path} is longer than {IMAGE_MAX_BYTES} bytes")
    if not content:
        raise ImageError(f"image: {path} is empty")
    name = os.path.basename(path).encode(errors="replace").decode()
    return Image(name, content, hashlib.sha256(content).hexdigest(), status.st_mtime_ns)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file as an ``opener``; a pipe that nobody writes to doesn't block."""
    return os.open(path, flags | os.O_NONBLOCK)
