"""What makes a prompt the same one in the next run, and how it may be shown."""

from __future__ import annotations

import hashlib
import json
import os
from json.encoder import encode_basestring_ascii as quoted

from runner.records import URL, Prompt
from runner.redact import public_url


def shown(prompt: Prompt) -> str:
    """Return the prompt as ledger, log and errors may show it: a URL without its secrets, or the path."""
    return public_url(prompt.image) if prompt.is_url else prompt.image


def identity(image: str) -> str:
    """Return what makes the prompt the same one in the next run.

    A URL without its signature (that changes every night); of a local file the name, so that a moved folder
    keeps its results. Whether a local file's content changed is seen from the ledger (see ``resume``).
    """
    return public_url(image) if image.startswith(URL) else "file:" + os.path.basename(image)


def fingerprint(prompt: Prompt, *, seed: int, protocol: str) -> str:
    """Return the SHA-256 of all that shapes a result; two equal ones ask for the same generation.

    What is hashed is JSON: ``{"params": {}, "prompt": …, "protocol": …, "seed": …}``.
    """
    return Fingerprints(seed=seed, protocol=protocol).of(prompt.image).hex()


class Fingerprints:
    """Makes the fingerprints of all prompts of a run, from what they have in common."""

    def __init__(self, *, seed: int, protocol: str) -> None:
        rest = json.dumps({"protocol": protocol, "seed": seed}, sort_keys=True)
        self._head = hashlib.sha256(b'{"params": {}, "prompt": ')
        self._tail = f", {rest[1:]}"

    def of(self, image: str) -> bytes:
        """Return the fingerprint of a prompt with this image, 32 bytes."""
        digest = self._head.copy()
        digest.update(f"{quoted(identity(image))}{self._tail}".encode())
        return digest.digest()
