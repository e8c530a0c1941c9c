"""Sessions with connections of our own kind."""

from __future__ import annotations

from collections.abc import Mapping

import requests

from runner.client.connections import Adapter
from runner.version import __version__

AGENT = f"multiport-runner/{__version__}"


def session_of(connections: int, headers: Mapping[str, str], *, origins: int, query: str = "") -> requests.Session:
    session = requests.Session()
    adapter = Adapter(connections=connections, origins=origins, query=query)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers.update({"User-Agent": AGENT, "Accept-Encoding": "identity"})
    session.headers.update(headers)
    return session
