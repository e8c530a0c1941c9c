"""A request of a block, filled in for a prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from runner.errors import AttemptError, ResultError
from runner.headers import is_header_value
from runner.protocols.block import FetchBlock, PollBlock, RequestBlock, ResultsBlock
from runner.protocols.documents import shown
from runner.protocols.template import Values, as_text, in_url, render
from runner.records import Request


def request(asked: RequestBlock, values: Values) -> Request:
    files, fields, content, content_type = {}, None, None, None
    match asked.encoding:
        case "multipart":
            image = values.image
            if asked.files and image is None:
                raise ResultError("the image: this prompt has none")
            files = {name: (image.name, image.content, image.content_type) for name in asked.files if image}
            fields = _fields(asked.body, values)
        case "form":
            content_type = "application/x-www-form-urlencoded"
            content = urlencode(_fields(asked.body, values)).encode()
        case "json" if asked.body is not None:
            content_type = "application/json"
            content = json.dumps(render(asked.body, values)).encode()
        case "raw":
            body = render(asked.body, values)
            is_image = isinstance(body, bytes) and values.image is not None
            content_type = values.image.content_type if is_image and values.image else "text/plain; charset=utf-8"
            content = body if isinstance(body, bytes) else as_text(body).encode()
    return Request(
        method=asked.method,
        path=_with_query(in_url(asked.path, values), asked.query, values),
        headers=_headers(asked.headers, values),
        files=files,
        fields=fields,
        content=content,
        content_type=content_type,
    )


def question(asked: PollBlock | FetchBlock | ResultsBlock, values: Values, content: bytes | None = None) -> Request:
    return Request(
        method=asked.method,
        path=_with_query(in_url(asked.path, values), asked.query, values),
        headers=_headers(asked.headers, values),
        content=content,
        content_type="application/json" if content is not None else None,
    )


def _fields(body: Any, values: Values) -> dict[str, str]:
    return {name: as_text(render(value, values)) for name, value in (body or {}).items()}


def _headers(template: Mapping[str, str], values: Values) -> dict[str, str]:
    """Fill headers in. Raises AttemptError for what no header can hold: that is the prompt's fault, and final."""
    filled = {name: as_text(render(value, values)) for name, value in template.items()}
    for name, value in filled.items():
        if not is_header_value(value):
            raise AttemptError(
                f"the header {name}: {shown(template[name])} became a text that no header can hold, such as one with "
                "a line end or with letters beyond latin-1",
                again=False,
                blame="prompt",
            )
    return filled


def _with_query(path: str, query: Mapping[str, Any], values: Values) -> str:
    if not query:
        return path
    return path + ("&" if "?" in path else "?") + urlencode(_fields(query, values))
