"""The way to a server: what believes its certificate, shows ours, and goes through a proxy."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import requests

from runner.client.exchange import Exchange
from runner.errors import TransportError
from runner.formats import words
from runner.records import Endpoint

PROXY_REFUSES = 407


def way_to(endpoint: Endpoint) -> dict[str, Any]:
    """Return the options of every request to an endpoint; a plain one has no more than ``verify``."""
    way: dict[str, Any] = {"verify": endpoint.verify}
    if endpoint.cert:
        way["cert"] = (endpoint.cert, endpoint.key) if endpoint.key else endpoint.cert
    if endpoint.proxy:
        way["proxies"] = {"all": endpoint.proxy}
    return way


def way_of_environment(session: requests.Session, url: str) -> dict[str, Any]:
    """Return what the environment says of proxies and certificates for a URL."""
    said = session.merge_environment_settings(url, {}, True, True, None)
    return {"proxies": said["proxies"], "verify": said["verify"] or True}


def query_of(endpoint: Endpoint) -> str:
    """Return what is added to the query of every request to an endpoint."""
    return urlencode(endpoint.query, quote_via=quote)


def refused_by_proxy(url: str, exchange: Exchange, response: requests.Response) -> TransportError:
    """Close the answer of a proxy that wants to know who asks, and return what it means: it reached no endpoint."""
    response.close()
    said = words(f"{response.status_code} {response.reason}".encode())
    return TransportError(f"{url}: the proxy {exchange.proxy}: {said}", status=response.status_code, reached=False)
