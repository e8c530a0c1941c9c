"""The filesystem behind a URL, made anew when credentials were renewed, and the tries of what is asked of it."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import TimeoutError as NoResultYet
from datetime import datetime
from itertools import count
from typing import Any, TypeVar
from urllib.parse import urlsplit

from runner.errors import UsageError
from runner.extras import missing
from runner.remote.refusals import AbandonedError, Refusal, RemoteError, refusal_of
from runner.retry import back_off
from runner.settings import Upload

S3 = ("s3", "s3a")
_CONNECT_S = 10
_READ_S = 60
_LEAST_RATE = 20_000
"""Bytes a second: whatever moves slower than this does not move."""

_LOOK_S = 0.2
_LAST_S = 5
_CONNECTIONS = 64
"""So many at a time; what else is asked waits for one."""

_ENDS_AN_UPLOAD = ".AbortMultipartUpload"
"""What is still asked when the run is over."""

_BUGS = (TypeError, AttributeError, NameError, LookupError, AssertionError)

T = TypeVar("T")


class Connection:
    """Asks one filesystem, again and again where that may help; many threads may do so at once."""

    def __init__(self, url: str, policy: Upload, abandoned: threading.Event) -> None:
        """Ask nothing yet. Raises UsageError if what speaks this URL's scheme is not installed."""
        self.url = url
        self.policy = policy
        self.abandoned = abandoned
        self.scheme = urlsplit(url).scheme.lower()
        self._lock = threading.Lock()
        self._filesystem: Any = None
        self._path = ""
        _check_installed(url, self.scheme)

    @property
    def path(self) -> str:
        """What the filesystem calls the URL; known once something was asked."""
        return self._path

    def filesystem(self) -> Any:
        """Return the filesystem; it reads the credentials when it is asked for the first time."""
        from fsspec.core import url_to_fs

        with self._lock:
            if self._filesystem is None:
                self._filesystem, path = url_to_fs(self.url, skip_instance_cache=True, **self._options())
                self._path = str(path).rstrip("/")
                if self.scheme in S3:
                    self._filesystem.retries = 1
            return self._filesystem

    def _options(self) -> dict[str, Any]:
        if self.scheme not in S3:
            return {}
        return {
            "session": _session(self.check),
            "use_listings_cache": False,
            "default_block_size": self.policy.part_bytes,
            "max_concurrency": self.policy.at_once,
            "config_kwargs": {
                "connect_timeout": _CONNECT_S,
                "read_timeout": _READ_S,
                "max_pool_connections": max(_CONNECTIONS, self.policy.at_once),
                "retries": {"total_max_attempts": 1},  # the tries are ours: they can be abandoned
                "request_checksum_calculation": "when_required",  # we send Content-MD5, which every store knows
                "response_checksum_validation": "when_required",
            },
        }

    def cannot(self, name: str, done: str) -> str:
        """Begin the sentence that says what can't be done with a file: ``s3://bucket/chair.ply can't be written``."""
        return f"{self.url}{'/' if name else ''}{name} can't be {done}"

    def renew(self, used: Any) -> None:
        """Leave a filesystem whose credentials are no good any more; the next one reads them anew."""
        with self._lock:
            if self._filesystem is used:
                self._filesystem = None

    def check(self) -> None:
        """Raise AbandonedError if nothing should be asked any more."""
        if self.abandoned.is_set():
            raise AbandonedError

    def tried(self, what: str, ask: Callable[[Any], T], *, last: bool = False) -> T:
        """Return what ``ask`` gets from the filesystem, after as many tries as it takes, or as are allowed.

        ``what`` begins the sentence of the RemoteError that is raised else. ``last`` is asked when the run is over,
        too.
        """
        for attempt in count(1):
            filesystem = None
            try:
                if not last:
                    self.check()
                filesystem = self.filesystem()
                return ask(filesystem)
            except RemoteError:
                raise
            except _BUGS:
                raise
            except AbandonedError:
                gone = Refusal("again", "", "it was not waited for any longer", "do it again")
                raise _refused(what, gone, 1) from None
            except Exception as error:  # the libraries below share no root; bugs went on above
                refusal = refusal_of(error)
                if refusal.kind not in ("renew", "again") or attempt >= self.policy.attempts:
                    raise _refused(what, refusal, attempt) from error
                if refusal.kind == "renew":
                    self.renew(filesystem)
                if self.abandoned.wait(back_off(attempt, self.policy)):
                    raise _refused(what, refusal, attempt) from error
        raise AssertionError("count() has no end")

    def ask(self, filesystem: Any, method: str, *args: Any, moved_bytes: int = 0, **options: Any) -> Any:
        """Ask once; what would wait for ever is given up, and so is everything once the run is abandoned."""
        if not filesystem.async_impl:
            return getattr(filesystem, method)(*args, **options)
        return self.awaited(filesystem, getattr(filesystem, f"_{method}")(*args, **options), moved_bytes=moved_bytes)

    def awaited(
        self, filesystem: Any, coroutine: Coroutine[Any, Any, T], *, moved_bytes: int = 0, last: bool = False
    ) -> T:
        """Return what a coroutine of the filesystem returns; ``moved_bytes`` is how much it moves.

        ``last`` is what is still asked when the run is over.
        """

        last = last and self.abandoned.is_set()
        within_s = _LAST_S if last else _CONNECT_S + _READ_S + moved_bytes / _LEAST_RATE
        ends_at = time.monotonic() + within_s
        from asyncio import run_coroutine_threadsafe  # not where nobody needs it

        future = run_coroutine_threadsafe(coroutine, filesystem.loop)
        try:
            while True:
                try:
                    return future.result(_LOOK_S)
                except NoResultYet:
                    if future.done():
                        return future.result()
                    if self.abandoned.is_set() and not last:
                        raise AbandonedError from None
                    if time.monotonic() > ends_at:
                        raise TimeoutError("no answer in time") from None
        finally:
            future.cancel()


def _session(check: Callable[[], None]) -> Any:
    """Return a new session of botocore, which has read no credentials yet.

    It reads times quickly, which take two thirds of a long listing else. ``check`` is called right before a request
    goes out, and may raise.
    """
    from aiobotocore.session import get_session
    from botocore.utils import parse_timestamp

    def moment(said: Any) -> datetime:
        try:
            return datetime.fromisoformat(said.replace("Z", "+00:00"))
        except (AttributeError, ValueError):
            return parse_timestamp(said)  # type: ignore[no-any-return]

    def before_send(event_name: str, **_: object) -> None:
        if not event_name.endswith(_ENDS_AN_UPLOAD):
            check()

    session = get_session()
    session.register("before-send.s3", before_send)
    session.register_component("data_loader", _models())
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=moment)
    return session


@functools.cache
def _models() -> Any:
    """Return what reads the model of S3, and keeps it: that takes longer than all else of a session."""
    from botocore.loaders import create_loader

    return create_loader()


def _refused(what: str, refusal: Refusal, tries: int) -> RemoteError:
    error = RemoteError(refusal.sentence(what, tries))
    error.kind, error.code, error.tries = refusal.kind, refusal.code, tries
    return error


def _check_installed(url: str, scheme: str) -> None:
    """Raise UsageError if nothing that is installed speaks a scheme."""
    if absent := missing("s3"):
        raise UsageError(f"{url}: it needs {absent}")
    from fsspec import get_filesystem_class

    try:
        get_filesystem_class(scheme)
    except ImportError as error:
        raise UsageError(f"{url}: {error}") from error
    except ValueError as error:
        raise UsageError(f"{url}: nothing speaks {scheme}://; expected s3://, or another scheme of fsspec") from error
