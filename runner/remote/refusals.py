"""What a store refused, in one sentence: what, where, why, what to do now; and whether asking again may help.

The errors of every library below fsspec end here. They are told by their names and codes, so that none of these
libraries is needed to read them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runner.errors import StorageError

_SHOWN = 200

_ABSENT = {"NoSuchKey", "404", "BlobNotFound", "NoSuchVersion"}
_RENEW = {
    *("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "RequestExpired"),
    *("UnauthorizedSSOTokenError", "SSOTokenLoadError", "TokenRetrievalError", "CredentialRetrievalError"),
    "RefreshError",
}
_NEVER = {
    "NoSuchBucket": "make the bucket, or correct the URL",
    "ContainerNotFound": "make the container, or correct the URL",
    "InvalidBucketName": "correct the URL",
    "InvalidURI": "correct the URL",
    "AccessDenied": "these credentials may not do that: allow it, or use others",
    "Forbidden": "these credentials may not do that: allow it, or use others",
    "AllAccessDisabled": "the bucket is closed: ask who runs it",
    "AccountProblem": "ask who runs the account",
    "NotSignedUp": "ask who runs the account",
    "AuthorizationPermissionMismatch": "these credentials may not do that: allow it, or use others",
    "AuthenticationFailed": "correct the credentials in the environment or the profile",
    "ClientAuthenticationError": "correct the credentials in the environment or the profile",
    "InvalidAccessKeyId": "correct the credentials in the environment or the profile",
    "SignatureDoesNotMatch": "correct the credentials in the environment or the profile",
    "AuthorizationHeaderMalformed": "name the bucket's region: AWS_REGION, or region of the profile",
    "IllegalLocationConstraintException": "name the bucket's region: AWS_REGION, or region of the profile",
    "PermanentRedirect": "name the bucket's region: AWS_REGION, or region of the profile",
    "NoRegionError": "name the bucket's region: AWS_REGION, or region of the profile",
    "RequestTimeTooSkewed": "set the clock of this machine",
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "PartialCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "ProfileNotFound": "correct AWS_PROFILE, or the file of profiles",
    "ConfigParseError": "correct the file of profiles",
    "DefaultCredentialsError": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
    "ParamValidationError": "correct the URL",
    "EntityTooLarge": "set upload.part_bytes higher, or choose a store that takes files of this size",
    "KeyTooLongError": "choose a shorter prefix",
    "MethodNotAllowed": "choose a store that can do that",
    "InvalidObjectState": "the object is in an archive: restore it there",
    "QuotaExceeded": "make space there",
    "403": "these credentials may not do that: allow it, or use others",
}
"""Codes and errors after which asking again can't help, and what can."""

_NEVER_ERRNO = {
    errno.ENOSPC,
    errno.EROFS,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}
_ONE_FILE = ("EntityTooLarge", "KeyTooLongError", "InvalidObjectState", errno.EISDIR, errno.ENAMETOOLONG)

_IN_WORDS = {
    "EndpointConnectionError": "nobody answers there",
    "FSTimeoutError": "no answer came in time",
    "ReadTimeoutError": "no answer came in time",
    "ConnectTimeoutError": "nobody answers there",
    "NoCredentialsError": "no credentials were found",
}


Kind = Literal["absent", "exists", "renew", "never", "again", "local"]
"""``never``: asking again can't help; ``local``: nor can it, but others may do, for it is about this one file: it
can't be read here, or is too much for the store."""


class RemoteError(StorageError):
    """What is at a URL can't be read or written, after all tries; the sentence says what to do."""

    kind: Kind = "never"
    code: str = ""
    tries: int = 1


class LocalFileError(RemoteError):
    """The store was not even asked: it is the file here that is gone, unreadable, or another than it was."""

    kind: Kind = "local"


class SaidError(Exception):
    """What a store said of one of several things it was asked at once."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        super().__init__(said.get("Message") or said.get("Code"))
        self.response = {"Error": dict(said)}


class WrongContentError(Exception):
    """What is there now is not what was sent."""


class AbandonedError(Exception):
    """Nobody waits for the answer any longer."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a store refused, and what may help: ``renew`` is trying again with credentials read anew."""

    kind: Kind
    code: str
    why: str
    advice: str

    def sentence(self, what: str, tries: int) -> str:
        """Say it of ``what``, such as ``s3://bucket/chair.ply can't be written``."""
        times = f", {tries} times" if tries > 1 else ""
        return f"{what}: {self.why}{times}; {self.advice}"


def refusal_of(error: BaseException) -> Refusal:
    """Read an error of any library below fsspec.

    >>> refusal_of(FileNotFoundError(2, "gone")).kind, refusal_of(ConnectionResetError(104, "reset")).kind
    ('absent', 'again')
    """
    said = list(_chain(error))
    codes = [code for one in said for code in _codes(one)]
    message = next((text for one in reversed(said) if (text := _message(one))), type(error).__name__)
    code = next((one for one in codes if one in _RENEW or one in _NEVER or one in _ABSENT), codes[0] if codes else "")
    why = _IN_WORDS.get(code) or (message if not code or code in message else f"{code} ({message})")
    if code in _RENEW:
        return Refusal("renew", code, why, "renew the credentials (environment or profile file), then do it again")
    if code in _NEVER:
        return Refusal("local" if code in _ONE_FILE else "never", code, why, _NEVER[code])
    if isinstance(error, NotImplementedError):
        return Refusal("never", "", "this kind of store can't do that", "choose another")
    if code in ("PreconditionFailed", "412") or isinstance(error, FileExistsError):
        return Refusal("exists", code, why, "remove it there, or choose another name")
    if code in _ABSENT or isinstance(error, FileNotFoundError):
        return Refusal("absent", code, why, "look whether the URL is right")
    if isinstance(error, OSError) and error.errno in _NEVER_ERRNO and not codes:
        kind: Kind = "local" if error.errno in _ONE_FILE else "never"
        return Refusal(kind, "", why, "make space there, or allow it")
    return Refusal("again", code, why, "do it again later")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it comes from, as far as it was said; s3fs hides the server's code there."""
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__


def _codes(error: BaseException) -> Iterator[str]:
    """Yield the server's code, the HTTP status as far as it means something, and the names of the error."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        yield from _texts(response.get("Error", {}).get("Code"))
    for name in ("error_code", "code", "status_code", "status"):  # azure, gcsfs, aiohttp
        yield from _texts(getattr(error, name, None))
    yield from (kind.__name__ for kind in type(error).__mro__ if kind.__module__.split(".")[0] not in _PLAIN)


_PLAIN = ("builtins", "fsspec", "asyncio", "concurrent", "socket", "runner")


def _texts(code: object) -> Iterator[str]:
    if isinstance(code, str | int) and str(code):
        yield str(code)


def _message(error: BaseException) -> str:
    response = getattr(error, "response", None)
    text = response.get("Error", {}).get("Message") if isinstance(response, dict) else None
    if not text and isinstance(error, OSError) and error.strerror:
        text = error.strerror
    text = " ".join(str(text or error).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
