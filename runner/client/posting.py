"""A message sent once, to whoever wants to know how a run ended.

The URL and the headers may be secret, so errors name the host alone. The environment's proxies and certificates are
used; a redirect is an answer and is not followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from urllib.parse import urlsplit

import requests

from runner.client.exchange import UnderWay
from runner.client.session import AGENT, session_of
from runner.client.translation import translated
from runner.client.way import way_of_environment


def post(url: str, content: bytes, headers: Mapping[str, str], *, timeout_s: float) -> int:
    """POST ``content`` and return the answer's status; its body is not read. Raises TransportError, BusyError."""
    shown = host_of(url)
    late = f"no answer within {round(timeout_s, 1):g} s"
    with closing(session_of(1, {}, origins=1)) as session:
        exchange = UnderWay().begin(timeout_s, late)
        exchange.awaits(timeout_s, late)
        with translated(shown, exchange), exchange.here():
            prepared = requests.Request("POST", url, {"User-Agent": AGENT, **headers}, data=content).prepare()
            response = session.get_adapter(url).send(
                prepared, stream=True, timeout=(timeout_s, timeout_s), **way_of_environment(session, url)
            )
            exchange.arrived(response)
        exchange.end()
        with response:
            return response.status_code


def host_of(url: str) -> str:
    """Return the part of a URL that any error may show.

    >>> host_of("https://me:pw@chat.example:8443/hooks/secret?token=x")
    'chat.example'
    """
    return urlsplit(url).hostname or "the url"
