"""What do servers send instead of a result? Pages of a proxy, and JSON that says what went wrong."""

from __future__ import annotations

import codecs
import json

_WORDS = 200
_ERROR_STARTS = (b'{"detail"', b'{"error')


def text_kind(head: bytes) -> str | None:
    """Name the kind of text that servers send instead of a file, if this is the start of one.

    >>> [text_kind(head) for head in (b"<!DOCTYPE html>", b'{"error": 1}', b"GIF89a", b"<?xml?><svg/>")]
    ['an HTML page', 'JSON', None, None]
    """
    start = head.lstrip()[:512].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")) and b"<svg" not in start:
        return "an HTML page"
    return "JSON" if start.startswith((b"{", b"[")) else None


def words(head: bytes) -> str:
    """Return the start of a text body on one line, for an error message."""
    text = " ".join(head.decode("utf-8", errors="replace").split())
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _WORDS else text[: _WORDS - 1] + "…"


def says_error(body: object) -> bool:
    """Tell whether a JSON document speaks of an error: it has ``detail``, or an ``error…`` that is set.

    >>> [says_error(body) for body in ({"detail": "x"}, {"error_code": 7}, {"error": None, "mesh": 1}, {"error": ""})]
    [True, True, False, True]
    """
    if not isinstance(body, dict):
        return False
    errors = [key for key in body if key.startswith("error")]
    return "detail" in body or any(body[key] for key in errors) or (bool(errors) and len(errors) == len(body))


def starts_error(head: bytes) -> bool:
    """Tell whether these bytes are a JSON error, or (cut) begin like one.

    >>> [starts_error(head) for head in (b'{"error": "no", "t', b'{"mesh": "no", "t', b'{"mesh": 1, "detail": 2}')]
    [True, False, True]
    """
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if not start.startswith(b"{"):
        return False
    try:
        return says_error(json.loads(start))
    except (ValueError, RecursionError):
        return start[:64].replace(b" ", b"").startswith(_ERROR_STARTS)
