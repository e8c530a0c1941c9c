"""Is this file a whole JSON document, and no error of the server? (RFC 8259)

Cut objects, lists and texts are found; a number at the top could be longer. ``NaN`` and ``Infinity`` pass, as Python
servers send them.
"""

from __future__ import annotations

import json
from typing import BinaryIO

from runner.errors import ResultError
from runner.formats.answers import says_error, words

_SIZE_MAX = 64 * 1024 * 1024


def check(file: BinaryIO, size_bytes: int) -> None:
    """Raise ResultError unless ``file`` is UTF-8, parses to its end, and is no answer about an error."""
    if size_bytes > _SIZE_MAX:
        raise ResultError(f"JSON: {size_bytes} bytes; more than {_SIZE_MAX} can't be checked")
    content = file.read()
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ResultError(f"JSON: it does not parse: {error}: {words(content[:512])}") from error
    if says_error(document):
        raise ResultError(f"expected a result, got JSON: {words(content[:512])}")
