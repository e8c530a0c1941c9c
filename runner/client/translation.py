"""What the libraries raise, in the words of this house."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import urllib3

from runner.client.exchange import Exchange
from runner.errors import AttemptError, BusyError, TransportError

_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)
"""Out of open files or of ports: that passes, and is no endpoint's fault."""

_STALE_S = 1.0
"""An old connection that closes so soon after a request was sent on it had been closed before."""


@contextmanager
def translated(url: str, exchange: Exchange, status: int | None = None) -> Iterator[None]:
    """Turn what ``requests`` and ``urllib3`` raise into a TransportError or BusyError."""

    def lost(what: str) -> TransportError:
        return TransportError(f"{url}: {exchange.cut_because or what}", status=status, reached=exchange.reached)

    try:
        yield
    except AttemptError:
        raise
    except (requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError) as error:
        raise lost("no connection within connect_s") from error
    except (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError) as error:
        raise lost(exchange.late) from error
    except requests.exceptions.RequestException as error:
        if status is None and _was_stale(exchange, error):
            raise BusyError(f"{url}: an old connection was closed as it was used again", wait_s=0) from error
        if not exchange.reached and any(getattr(one, "errno", 0) in _NO_MORE for one in _chain(error)):
            raise BusyError(f"{url}: no connection can be opened on this machine: {_cause(error)}") from error
        raise lost(_cause(error)) from error
    except urllib3.exceptions.HTTPError as error:
        raise lost(f"the body was cut: {_cause(error)}" if status else _cause(error)) from error
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
