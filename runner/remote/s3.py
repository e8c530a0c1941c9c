"""A bucket that speaks S3, by s3fs: each request tried and checked by itself, down to the part of a file."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from runner.remote.connection import Connection
from runner.remote.parts import upload_in_parts
from runner.remote.records import Entry
from runner.remote.refusals import RemoteError, SaidError, WrongContentError
from runner.remote.room import Room
from runner.remote.sums import Sums, check_unchanged, etag_in, md5_of, opened, size_of, sums_of

_PAGE = _REMOVED_AT_ONCE = 1000
_FEW = 3
_NO_BATCHES = ("NotImplemented", "MissingContentMD5", "InvalidRequest", "MalformedXML")


class Requests:
    """Asks a bucket, one kind of request after another. ``where`` is the URL, for sentences."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._bucket, _, prefix = connection.url.partition("://")[2].partition("/")
        self._prefix = f"{prefix}/" if prefix else ""

    def key(self, name: str) -> str:
        return self._prefix + name

    def name(self, key: str) -> str:
        """Return the name of an object, "" of the mark that some tools make of a folder."""
        return "" if key.endswith("/") else key[len(self._prefix) :]

    def of(self, what: str, method: str, *, body: bytes | None = None, last: bool = False, **asked: Any) -> Any:
        """Ask, as often as it takes; ``last`` also when the run is over. Raises RemoteError."""

        def once(filesystem: Any) -> Any:
            sent = {} if body is None else {"Body": _Body(body, self.connection)}
            return self.once(filesystem, method, moved_bytes=len(body or b""), last=last, **sent, **asked)

        return self.connection.tried(what, once, last=last)

    def once(self, filesystem: Any, method: str, *, moved_bytes: int = 0, last: bool = False, **asked: Any) -> Any:
        coroutine = filesystem._call_s3(method, Bucket=self._bucket, **asked)
        return self.connection.awaited(filesystem, coroutine, moved_bytes=moved_bytes, last=last)

    def content(self, what: str, *, moved_bytes: int, **asked: Any) -> bytes:
        """Return what an object holds, or a range of it."""

        async def got(filesystem: Any) -> bytes:
            answer = await filesystem._call_s3("get_object", Bucket=self._bucket, **asked)
            async with answer["Body"] as body:
                return bytes(await body.read())

        awaited = self.connection.awaited
        return self.connection.tried(what, lambda fs: awaited(fs, got(fs), moved_bytes=moved_bytes))

    def pages(self, what: str, **asked: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages of a listing, a thousand objects each; each is tried by itself."""
        while True:
            page = self.of(what, "list_objects_v2", **asked)
            yield page
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]


class _Body(io.BytesIO):
    """What goes up; not the rest of it once the run is abandoned: the store takes no half of an object."""

    def __init__(self, content: bytes, connection: Connection) -> None:
        super().__init__(content)
        self._connection = connection

    def read(self, size: int | None = -1, /) -> bytes:
        self._connection.check()
        return super().read(size)


class Bucket:
    """The objects below a URL of S3."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._requests = Requests(connection)
        self._part_bytes = connection.policy.part_bytes
        self._room = Room(self._part_bytes, connection.policy.at_once)

    def put(self, path: str, name: str, sha256: str | None) -> None:
        what = self._connection.cannot(name, "written")

        def once(_: Any) -> None:
            with opened(path) as file:
                size = size_of(file)
                if size < 2 * self._part_bytes:
                    sums, etag = self._put_whole(file, path, name, size, sha256)
                else:
                    sums, etag = upload_in_parts(
                        self._requests, self._room, file, path, name, sha256, is_there=self._is_there
                    )
            head = self._found(name)
            if head is None or not self._is_same(name, head, sums):
                if head and etag and etag_in(head) == etag:  # else it is another's by now, and may be whole
                    self.remove([name])
                raise WrongContentError("its size or checksum there is not that of the file")

        self._connection.tried(what, once)

    def _put_whole(self, file: BinaryIO, path: str, name: str, size: int, sha256: str | None) -> tuple[Sums, str]:
        """Upload at once; return what it sums up to, and what the store calls what came there."""
        with self._room.of(size):
            content = file.read(size + 1)
            sums = sums_of(io.BytesIO(content))
            check_unchanged(path, size, sums, sha256)
            return sums, etag_in(self._put_object(name, content, sums.md5))

    def _put_object(self, name: str, content: bytes, md5: bytes, **more: Any) -> dict[str, Any]:
        what, key = self._connection.cannot(name, "written"), self._requests.key(name)
        sent = base64.b64encode(md5).decode()  # the store refuses a body that has another
        return dict(self._requests.of(what, "put_object", Key=key, body=content, ContentMD5=sent, **more))

    def write(self, name: str, content: bytes) -> None:
        self._put_object(name, content, md5_of(content))

    def create(self, name: str, content: bytes) -> bool:
        try:
            self._put_object(name, content, md5_of(content), IfNoneMatch="*")
        except RemoteError as error:
            if error.kind != "exists":
                raise
            return self.read(name) == content  # else only the answer got lost
        return True

    def read(self, name: str) -> bytes | None:
        key = self._requests.key(name)
        try:
            return self._requests.content(self._connection.cannot(name, "read"), moved_bytes=0, Key=key)
        except RemoteError as error:
            if error.kind == "absent":
                return None
            raise

    def fetch(self, name: str, file: BinaryIO) -> int:
        """Write an object into a file, all of it of one version; return its size in bytes."""
        head = self._head(name)
        size = int(head["ContentLength"])
        version = {"IfMatch": head["ETag"]} if "ETag" in head else {}
        for block in self._blocks(name, size, **version):
            file.write(block)
        return size

    def _blocks(self, name: str, size: int, **more: Any) -> Iterator[bytes]:
        what, key = self._connection.cannot(name, "read"), self._requests.key(name)
        for start in range(0, size, self._part_bytes):
            end = min(start + self._part_bytes, size)
            asked = {"Key": key, "Range": f"bytes={start}-{end - 1}", **more}
            yield self._requests.content(what, moved_bytes=end - start, **asked)

    def entry(self, name: str) -> Entry | None:
        head = self._found(name)
        return Entry(name, int(head["ContentLength"]), head["LastModified"].timestamp()) if head else None

    def _head(self, name: str) -> dict[str, Any]:
        what, key = self._connection.cannot(name, "read"), self._requests.key(name)
        try:
            return dict(self._requests.of(what, "head_object", Key=key))
        except RemoteError as error:
            if error.code not in ("400", "403", "404"):
                raise
            next(self._requests.pages(what, Prefix=key, MaxKeys=1))  # an answer to HEAD can't say why; this one does
            raise

    def _found(self, name: str) -> dict[str, Any] | None:
        try:
            return self._head(name)
        except RemoteError as error:
            if error.kind == "absent":
                return None
            raise

    def _is_there(self, name: str, sums: Sums) -> bool:
        head = self._found(name)
        return head is not None and self._is_same(name, head, sums)

    def _is_same(self, name: str, head: dict[str, Any], sums: Sums) -> bool:
        """Compare size and ETag; where that is no MD5 (KMS, and stores of other habits), read all of it back."""
        if int(head["ContentLength"]) != sums.size_bytes:
            return False
        if etag_in(head) == sums.etag:
            return True
        found = hashlib.sha256()
        for block in self._blocks(name, sums.size_bytes):
            found.update(block)
        return found.digest() == sums.sha256

    def entries(self, below: str) -> Iterator[Entry]:
        for page in self._pages(below):
            for one in page.get("Contents", ()):
                if name := self._requests.name(one["Key"]):
                    yield Entry(name, one["Size"], one["LastModified"].timestamp())

    def folders(self, below: str) -> Iterator[str]:
        for page in self._pages(below):
            for one in page.get("CommonPrefixes", ()):
                yield self._requests.name(one["Prefix"].rstrip("/"))

    def _pages(self, below: str) -> Iterator[dict[str, Any]]:
        prefix = self._requests.key(f"{below}/" if below else "")
        return self._requests.pages(
            self._connection.cannot(below, "listed"), Prefix=prefix, Delimiter="/", MaxKeys=_PAGE
        )

    def remove(self, names: Sequence[str]) -> None:
        if len(names) < _FEW:
            self._remove_each(names)
            return
        for start in range(0, len(names), _REMOVED_AT_ONCE):
            some = names[start : start + _REMOVED_AT_ONCE]
            try:
                self._remove_batch(some)
            except RemoteError as error:
                if error.code not in _NO_BATCHES:
                    raise
                self._remove_each(some)  # some stores know no batches

    def _remove_each(self, names: Sequence[str]) -> None:
        for name in names:
            self._requests.of(self._connection.cannot(name, "removed"), "delete_object", Key=self._requests.key(name))

    def _remove_batch(self, names: Sequence[str]) -> None:
        objects = [{"Key": self._requests.key(name)} for name in names]

        def once(filesystem: Any) -> None:
            said = self._requests.once(filesystem, "delete_objects", Delete={"Objects": objects, "Quiet": True})
            for one in said.get("Errors", ()):
                if one.get("Code") != "NoSuchKey":
                    raise SaidError(one)

        self._connection.tried(self._connection.cannot(names[0], "removed"), once)
