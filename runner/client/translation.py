"""What the libraries raise, in the words of this house."""

from __future__ import annotations

import errno
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import urllib3

from runner.client.exchange import Exchange
from runner.errors import AttemptError, BusyError, TransportError
from runner.formats import words

_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)
"""Out of open files or of ports: that passes, and is no endpoint's fault."""

_NO_CONNECTION = "no connection within connect_s"
_NO_TUNNEL = "Tunnel connection failed"
_ABOUT_OURS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""What a server's alert is about that finds our certificate wrong."""

_STALE_S = 1.0
"""An old connection that closes so soon after a request was sent on it had been closed before."""


@contextmanager
def translated(url: str, exchange: Exchange, status: int | None = None) -> Iterator[None]:
    """Turn what ``requests`` and ``urllib3`` raise into a TransportError or BusyError."""

    def lost(what: str, *, refused: bool = False) -> TransportError:
        reached = exchange.reached and not refused
        return TransportError(f"{url}: {exchange.cut_because or what}", status=status, reached=reached)

    try:
        yield
    except AttemptError:
        raise
    except (requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError) as error:
        raise lost(_NO_CONNECTION) from error
    except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:
        raise lost(exchange.late if exchange.reached else _NO_CONNECTION) from error
    except requests.exceptions.RequestException as error:
        if status is None and _was_stale(exchange, error):
            raise BusyError(f"{url}: an old connection was closed as it was used again", wait_s=0) from error
        if not exchange.reached and any(getattr(one, "errno", 0) in _NO_MORE for one in _chain(error)):
            raise BusyError(f"{url}: no connection can be opened on this machine: {_cause(error)}") from error
        if refusal := _refusal(error):
            raise lost(refusal, refused=True) from error
        raise lost(_of_proxy(error, exchange) or _cause(error)) from error
    except urllib3.exceptions.HTTPError as error:
        raise lost(f"the body was cut: {_cause(error)}" if status else _cause(error)) from error
    except TimeoutError as error:  # a TLS socket that nobody wrapped
        raise lost("the body stalled" if status else exchange.late) from error
    except OSError as error:  # cut by us, a socket that nobody wrapped, a certificate file that is gone
        raise lost(str(error)) from error
    except ValueError as error:  # what the libraries make of a malformed header, such as a Location
        raise lost(f"an answer that is no HTTP: {error}") from error


def _was_stale(exchange: Exchange, error: BaseException) -> bool:
    """Tell whether the server had closed an idle connection before it saw the request."""
    return (
        exchange.reused
        and exchange.cut_because is None
        and any(isinstance(one, ConnectionError) for one in _chain(error))
        and time.monotonic() - (exchange.sent_at or time.monotonic()) < _STALE_S
    )


def _refusal(error: BaseException) -> str | None:
    """Say that the server does not take our certificate; with TLS 1.3 it says so after the request was sent."""
    for one in _chain(error):
        reason = (one.reason or "") if isinstance(one, ssl.SSLError) else ""
        if "ALERT_CERTIFICATE_REQUIRED" in reason:
            return "the server asks for a client certificate (cert)"
        if "ALERT" in reason and any(word in reason for word in _ABOUT_OURS):
            return f"the server does not take our certificate: {reason.replace('_', ' ').lower()}"
    return None


def _of_proxy(error: BaseException, exchange: Exchange) -> str | None:
    """Say what a proxy did, or that it is not there, if that is what went wrong."""
    cause = _cause(error)
    if not isinstance(error, requests.exceptions.ProxyError) and not cause.startswith(_NO_TUNNEL):
        return None
    if any(type(one) is urllib3.exceptions.ConnectTimeoutError for one in _chain(error)):
        cause = _NO_CONNECTION
    return f"the proxy {exchange.proxy or 'of the environment'}: {words(cause.encode())}"


def _cause(error: BaseException) -> str:
    """Return the innermost reason in the words of the operating system, where there is one."""
    chain = _chain(error)
    for one in reversed(chain):
        if isinstance(one, OSError) and one.strerror and not isinstance(one, requests.RequestException):
            return one.strerror
    return str(chain[-1]) or type(chain[-1]).__name__


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and what is nested in it, outermost first."""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        seen.append(found)
        nested = [arg for arg in found.args if isinstance(arg, BaseException)]
        found = getattr(found, "reason", None) if not nested else nested[0]
        if not isinstance(found, BaseException):
            found = seen[-1].__cause__ or seen[-1].__context__
    return seen
