"""What of a block shapes a result, and the name that stands for it."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any
from urllib.parse import urlencode

from runner.protocols.block import Block
from runner.redact import public_url


def digest(block: Block) -> str:
    """Return some digits that are others for a block that asks for something else."""
    return hashlib.sha256(json.dumps(shape(block), sort_keys=True).encode()).hexdigest()[:8]


def shape(block: Block) -> dict[str, Any]:
    """Return what shapes a result."""
    asked = ("path", "encoding", "files", "body", "query")
    shape: dict[str, Any] = {"kind": block.kind}
    for name in ("request", "upload"):
        section = getattr(block, name)
        if section is not None:
            shape[name] = {part: getattr(section, part) for part in asked}
            query = urlencode(section.query)
            shape[name]["query"] = public_url(f"http://query/?{query}").partition("?")[2]
            shape[name]["path"] = public_url(f"http://path{section.path}")
    shape["result"] = block.result.model_dump()
    shape["item"] = block.item
    shape["fetch"] = block.fetch and re.sub(r"\?.*", "", block.fetch.path)
    return shape
