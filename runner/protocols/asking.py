"""A request of a block, filled in for a prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from runner.errors import ResultError
from runner.protocols.block import FetchBlock, PollBlock, RequestBlock, ResultsBlock
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
        headers={name: as_text(render(value, values)) for name, value in asked.headers.items()},
        files=files,
        fields=fields,
        content=content,
        content_type=content_type,
    )


def question(asked: PollBlock | FetchBlock | ResultsBlock, values: Values, content: bytes | None = None) -> Request:
    headers = getattr(asked, "headers", {})
    return Request(
        method=asked.method,
        path=in_url(asked.path, values),
        headers={name: as_text(render(value, values)) for name, value in headers.items()},
        content=content,
        content_type="application/json" if content is not None else None,
    )


def _fields(body: Any, values: Values) -> dict[str, str]:
    return {name: as_text(render(value, values)) for name, value in (body or {}).items()}


def _with_query(path: str, query: Mapping[str, Any], values: Values) -> str:
    if not query:
        return path
    return path + ("&" if "?" in path else "?") + urlencode(_fields(query, values))
