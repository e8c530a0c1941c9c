"""The ZIP of a batch, opened with care: base names only, no bombs, nothing that is not asked for."""

from __future__ import annotations

import json
import lzma
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any

from runner.errors import ResultError
from runner.formats import words
from runner.formats.archive import MEMBERS_MAX

_MANIFEST_MAX_BYTES = 16 * 1024 * 1024
_BLOCK = 256 * 1024
_BROKEN = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
    NotImplementedError, RuntimeError, EOFError, OSError, ValueError,
)  # fmt: skip
"""What ``zipfile`` raises for archives that are broken, encrypted, or packed in ways it does not know."""


class Archive:
    """The members of a ZIP, by their names. Those in folders, and those that stand twice, count for nothing.

    Raises ResultError wherever it turns out to be broken.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        try:
            self._zip = zipfile.ZipFile(file)
            members = self._zip.infolist()
        except _BROKEN as error:
            raise ResultError(f"expected a ZIP of results: {error}") from error
        if len(members) > MEMBERS_MAX:
            raise ResultError(f"expected a ZIP of results, got one with {len(members)} members")
        names = Counter(one.filename for one in members)
        plain = [one for one in members if not set(one.filename) & {"/", "\\", "\0"} and names[one.filename] == 1]
        self._members = {one.filename: one for one in plain}

    def close(self) -> None:
        self._zip.close()
        self._file.close()

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a member; its checksum is looked at when it ends."""
        try:
            with self._zip.open(self._members[name]) as member:
                while chunk := member.read(_BLOCK):
                    yield chunk
        except _BROKEN as error:
            raise ResultError(f"{name} in the ZIP of results is broken: {error}") from error

    def failures(self, manifest: str | None) -> dict[str, str]:
        """Return what the manifest says went wrong, by the prompts' names in the batch; {} without one."""
        if manifest is None or manifest not in self._members:
            return {}
        content = b""
        for chunk in self.chunks(manifest):
            content += chunk
            if len(content) > _MANIFEST_MAX_BYTES:
                raise ResultError(f"{manifest} in the ZIP of results is longer than {_MANIFEST_MAX_BYTES} bytes")
        try:
            return dict(_failures(json.loads(content)))
        except (ValueError, RecursionError):  # then the members alone say who has a result
            return {}


_NAMES = ("stem", "key", "id", "name")
_REASONS = ("error", "reason", "message", "detail")


def _failures(manifest: Any) -> Iterator[tuple[str, str]]:
    """Yield name and reason; servers write them as a mapping, or as a list of names or of mappings.

    >>> dict(_failures({"a": "no object", "b": {"error": "timeout"}}))
    {'a': 'no object', 'b': 'timeout'}
    >>> dict(_failures([{"stem": "a", "reason": "no object"}, "b"]))
    {'a': 'no object', 'b': ''}
    """
    if isinstance(manifest, dict):
        nested = next((value for value in manifest.values() if isinstance(value, list)), None)
        if nested is not None and len(manifest) == 1:
            yield from _failures(nested)
            return
        for name, said in manifest.items():
            yield str(name), _reason(said)
    for one in manifest if isinstance(manifest, list) else ():
        if isinstance(one, dict):
            name = next((one[field] for field in _NAMES if field in one), None)
            if name is not None:
                yield str(name), _reason(one)
        else:
            yield str(one), ""


def _reason(said: Any) -> str:
    if isinstance(said, dict):
        said = next((said[field] for field in _REASONS if field in said), said)
    return words((said if isinstance(said, str) else json.dumps(said)).encode(errors="replace"))
