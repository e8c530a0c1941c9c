"""A file goes up to S3 in parts, several at a time; nobody sees it before the last one is there."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from runner.remote.refusals import RemoteError, WrongContentError
from runner.remote.room import Room
from runner.remote.sums import Sums, check_unchanged, etag_in, etag_of, md5_of, size_of

if TYPE_CHECKING:
    from runner.remote.s3 import Requests

_PARTS_MOST = 10_000
"""S3 takes no more."""


def upload_in_parts(
    requests: Requests,
    room: Room,
    file: BinaryIO,
    path: str,
    name: str,
    sha256: str | None,
    *,
    is_there: Callable[[str, Sums], bool],
) -> tuple[Sums, str]:
    """Upload the local file ``path``, open as ``file``; return what it sums up to, and what the store calls it there.

    Raises RemoteError.

    Whatever goes wrong, the upload is ended there, so that nobody pays for parts of nothing. What a killed process
    leaves of one, a rule of the bucket should remove (AbortIncompleteMultipartUpload, after a day).
    """
    key, what = requests.key(name), requests.connection.cannot(name, "written")
    upload: dict[str, Any] = {
        "Key": key,
        "UploadId": requests.of(what, "create_multipart_upload", Key=key)["UploadId"],
    }
    size = size_of(file)
    try:
        sums, parts = _sent(requests, room, file, size, what, upload)
        check_unchanged(path, size, sums, sha256)
        try:
            said = requests.of(what, "complete_multipart_upload", MultipartUpload={"Parts": parts}, **upload)
        except RemoteError as error:
            if error.kind != "absent" or not is_there(name, sums):  # else only the answer got lost
                raise
            said = {"ETag": sums.etag}
    except BaseException as error:
        with suppress(RemoteError):  # a store that can't be asked is left to its own rules
            requests.of(what, "abort_multipart_upload", last=True, **upload)
        if isinstance(error, RemoteError) and error.kind == "absent":
            raise WrongContentError("the upload was ended there before it was whole") from error
        raise
    return sums, etag_in(said)


def _sent(
    requests: Requests, room: Room, file: BinaryIO, size: int, what: str, upload: dict[str, Any]
) -> tuple[Sums, list[dict[str, Any]]]:
    """Read a file part by part, and send each; return its sums, and what the store calls the parts."""
    policy = requests.connection.policy
    length = max(policy.part_bytes, -(-size // _PARTS_MOST))
    read, sha256, md5s, etags = 0, hashlib.sha256(), list[bytes](), list[str]()
    sending: deque[Future[str]] = deque()

    def send(number: int, part: bytes) -> str:
        md5 = base64.b64encode(md5s[number - 1]).decode()
        said = requests.of(what, "upload_part", PartNumber=number, body=part, ContentMD5=md5, **upload)
        return str(said["ETag"])

    try:
        while part := room.read(file, length):
            read += len(part)
            sha256.update(part)
            md5s.append(md5_of(part))
            sending.append(room.sent(send, len(md5s), part))
            if len(sending) >= policy.at_once:
                etags.append(sending.popleft().result())
        while sending:
            etags.append(sending.popleft().result())
    finally:
        for one in sending:
            one.cancel()
        wait(sending)
    sums = Sums(read, b"", sha256.digest(), etag_of(md5s))
    return sums, [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
