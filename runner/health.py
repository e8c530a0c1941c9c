"""Ask an endpoint how it is."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from runner.client import Client
from runner.errors import TransportError
from runner.formats import words
from runner.protocols import Protocol
from runner.records import Endpoint
from runner.redact import public_url

PROBE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Health:
    """What a probe found. ``status`` is ``healthy`` or what is wrong; ``latency_s`` that of ``/health``."""

    endpoint: Endpoint
    healthy: bool
    status: str
    version: str = ""
    latency_s: float = 0.0


def probe(endpoint: Endpoint, protocol: Protocol, client: Client) -> Health:
    """Ask health and version once. Never raises for a server that is down: that is the answer."""
    begun = time.monotonic()
    try:
        code, body = client.get(protocol.health_path, timeout_s=PROBE_TIMEOUT_S)
        latency_s = time.monotonic() - begun
        said = _field(body, "status")
        healthy = code == 200 and said in ("healthy", "ok", "ready", "")
        status = said or ("healthy" if healthy else f"{code}: {words(body)}")
        version_code, version = client.get(protocol.version_path, timeout_s=PROBE_TIMEOUT_S)
    except TransportError as error:
        return Health(endpoint, False, str(error).removeprefix(f"{public_url(endpoint.url)}: "))
    named = (_field(version, "version") or words(version)) if version_code == 200 else ""
    return Health(endpoint, healthy, status, named, latency_s)


def _field(body: bytes, name: str) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    return str(document.get(name, "")) if isinstance(document, dict) else ""
