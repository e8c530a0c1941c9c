"""How a kind of server speaks: which request to send for a prompt, and what its status means."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass
from typing import Literal

from runner.records import Image, Request

StatusClass = Literal["ok", "busy", "retry", "permanent"]


@dataclass(frozen=True, slots=True)
class Protocol:
    """One request whose answer's body is the result (``sync``)."""

    name: str
    path: str
    image_field: str
    seed_field: str
    health_path: str
    version_path: str


PRESETS = {
    "404-splat": Protocol(
        name="404-splat",
        path="/generate",
        image_field="prompt_image_file",
        seed_field="seed",
        health_path="/health",
        version_path="/version",
    )
}


def generation_request(protocol: Protocol, image: Image, seed: int) -> Request:
    """Return the request that asks for one generation."""
    content_type = mimetypes.guess_type(image.name)[0] or "application/octet-stream"
    return Request(
        method="POST",
        path=protocol.path,
        files={protocol.image_field: (image.name, image.content, content_type)},
        fields={protocol.seed_field: str(seed)},
    )


def status_class(status: int, *, retry_after: bool = False) -> StatusClass:
    """Tell what a status means for the attempt: a success, come back later, worth another try, or final.

    A 503 is busy only if it says when to come back; proxies say it of servers that are gone.

    >>> [status_class(status) for status in (200, 429, 503, 500, 422, 302)]
    ['ok', 'busy', 'retry', 'retry', 'permanent', 'permanent']
    >>> status_class(503, retry_after=True)
    'busy'
    """
    if status == 200:
        return "ok"
    if status == 429 or (status == 503 and retry_after):
        return "busy"
    return "retry" if status in (408, 425) or status >= 500 else "permanent"
