"""What makes a prompt the same one in the next run, and how it may be shown."""

from __future__ import annotations

import hashlib
import json
import os
import re
from json.encoder import encode_basestring_ascii as quoted

from runner.prompts.packing import encode, unpacked
from runner.records import URL, Prompt
from runner.redact import public_url


def shown(prompt: Prompt) -> str:
    """Return the prompt as ledger, log and errors may show it: a URL without its secrets, the path, or the text.

    A long text is cut, and stands on one line.
    """
    if not prompt.image:
        text = " ".join((prompt.text or "").split())
        return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    return public_url(prompt.image) if prompt.is_url else prompt.image


def identity(image: str) -> str:
    """Return what makes the prompt the same one in the next run.

    A URL without its signature (that changes every night); of a local file the name, so that a moved folder
    keeps its results. Whether a local file's content changed is seen from the ledger (see ``resume``).
    """
    return public_url(image) if image.startswith(URL) else "file:" + os.path.basename(image)


def fingerprint(prompt: Prompt, *, seed: int, protocol: str) -> str:
    """Return the SHA-256 of all that shapes a result; two equal ones ask for the same generation.

    What is hashed is JSON: ``{"params": {…}, "prompt": …, "protocol": …, "seed": …}``, with ``"text"`` if there is
    one; ``prompt`` is the identity of the image, the seed the prompt's own if it has one. The key plays no part.
    """
    return Fingerprints(seed=seed, protocol=protocol).of(encode(prompt)).hex()


_SHOWN = 200

_canonical = json.JSONEncoder(sort_keys=True).encode

_verbatim = re.compile(rb"https?://[!$->A-\[\]-~]*").fullmatch
"""Knows URLs that are their own identity, and need no escapes in JSON."""


class Fingerprints:
    """Makes the fingerprints of all prompts of a run, from what they have in common."""

    def __init__(self, *, seed: int, protocol: str) -> None:
        self._protocol = protocol
        self._seed = seed
        rest = json.dumps({"protocol": protocol, "seed": seed}, sort_keys=True)
        self._begin = hashlib.sha256(b'{"params": {}, "prompt": "').copy
        self._end = f'", {rest[1:]}'.encode()

    def of(self, kept: bytes) -> bytes:
        """Return the fingerprint of a packed prompt (in UTF-8, lone surrogates passed), 32 bytes."""
        if kept[:1] == b"{":
            return hashlib.sha256(self._document(kept).encode()).digest()
        digest = self._begin()
        digest.update((kept if _verbatim(kept) else _escaped(kept)) + self._end)
        return digest.digest()

    def _document(self, kept: bytes) -> str:
        """Return what is hashed of a prompt that is more than an image."""
        said = unpacked(kept.decode(errors="surrogatepass"))
        image = said.get("image", "")
        document = {
            "params": said.get("params", {}),
            "prompt": identity(image) if image else "",
            "protocol": self._protocol,
            "seed": said.get("seed", self._seed),
        }
        if "text" in said:
            document["text"] = said["text"]
        return _canonical(document)


def _escaped(image: bytes) -> bytes:
    """Return an image's identity as it stands in JSON."""
    return quoted(identity(image.decode(errors="surrogatepass")))[1:-1].encode()
