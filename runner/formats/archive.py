"""Is this file a whole ZIP that is safe to open? (PKWARE APPNOTE 6.3.10)

Members must fill the file from its first byte to the central directory, so that nothing hides before, between or
behind them and none counts twice; each is read through and its CRC compared. Refused: folders and links, names that
reach out of a folder, encryption, other compression than deflate, and more than the caps below.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from runner.errors import ResultError
from runner.formats.inflate import RAW_DEFLATE, inflated

MEMBERS_MAX = 10_000
UNPACKED_MAX = 4 * 1024**3
"""Bytes of all members together, unpacked."""

_DIRECTORY_MAX = 16 * 1024 * 1024
_END = struct.Struct("<4sHHHHIIH")
_LOCATOR = struct.Struct("<4sIQI")
_END_64 = struct.Struct("<4sQHHIIQQQQ")
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_COMMENT_MAX = 65535
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_LEVEL, _DESCRIBED, _UTF8 = 0x6, 0x8, 0x800
_BLOCK = 256 * 1024
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\:]")
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


@dataclass(frozen=True, slots=True)
class _Directory:
    """The central directory: where it begins and ends, and its number of members."""

    offset: int
    end: int
    members: int


def check(file: BinaryIO, size_bytes: int) -> None:
    """Raise ResultError unless the members fill the file, each is safe, and each has the CRC it claims."""
    directory = _directory(file, size_bytes)
    members = _members(file, directory)
    offset = 0
    for number, member in enumerate(members):
        if member.header_offset != offset:
            raise ResultError(f"ZIP: expected a member at byte {offset}, the next one is at {member.header_offset}")
        start = _local_end(file, member)
        _check_content(file, start, member)
        following = members[number + 1].header_offset if number + 1 < len(members) else directory.offset
        offset = _behind(file, start + member.compress_size, following, member)
    if offset != directory.offset:
        raise ResultError(f"ZIP: its members end at byte {offset}, its directory begins at {directory.offset}")


def _directory(file: BinaryIO, size_bytes: int) -> _Directory:
    """Find the central directory by the end record, which must end the file (with its comment, if it has one)."""
    tail_size = min(size_bytes, _END.size + _COMMENT_MAX)
    file.seek(size_bytes - tail_size)
    tail = file.read(tail_size)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise ResultError("ZIP: cut: it has no end record")
    _, disk, first_disk, here, members, length, offset, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        raise ResultError("ZIP: its end record is not the end of the file")
    end = size_bytes - tail_size + at
    locator = tail[max(0, at - _LOCATOR.size) : at]
    if locator.startswith(b"PK\6\7") and len(locator) == _LOCATOR.size:
        end, disk, first_disk, here, members, length, offset = _end_64(file, end - _LOCATOR.size)
    if (disk, first_disk) != (0, 0) or here != members:
        raise ResultError("ZIP: it is one part of several")
    if offset + length != end:
        raise ResultError(f"ZIP: its directory ends at byte {offset + length}, its end record begins at {end}")
    if members > MEMBERS_MAX or length > _DIRECTORY_MAX:
        raise ResultError(f"ZIP: {members} members (expected at most {MEMBERS_MAX}) listed in {length} bytes")
    return _Directory(offset, end, members)


def _end_64(file: BinaryIO, locator: int) -> tuple[int, ...]:
    """Return where the ZIP64 end record begins, and its fields; it must stand right before its locator."""
    begin = locator - _END_64.size
    if begin < 0:
        raise ResultError("ZIP: cut: it has no ZIP64 end record")
    file.seek(begin)
    magic, _, _, _, disk, first_disk, here, members, length, offset = _END_64.unpack(file.read(_END_64.size))
    if magic != b"PK\6\6":
        raise ResultError("ZIP: it has no ZIP64 end record before its locator")
    return begin, disk, first_disk, here, members, length, offset


def _members(file: BinaryIO, directory: _Directory) -> list[zipfile.ZipInfo]:
    """Return the members in the order of their places; each is safe by its name, kind and size."""
    try:
        members = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, EOFError) as error:
        raise ResultError(f"ZIP: its directory does not parse: {error}") from error
    if not members:
        raise ResultError("ZIP: it has no members")
    if len(members) != directory.members:
        raise ResultError(f"ZIP: it lists {len(members)} members, its end record says {directory.members}")
    names = set()
    for member in members:
        _check_safe(member)
        if member.filename.casefold() in names:
            raise ResultError(f"ZIP: two members named {member.filename!r}")
        names.add(member.filename.casefold())
    if sum(member.file_size for member in members) > UNPACKED_MAX:
        raise ResultError(f"ZIP: its members are more than {UNPACKED_MAX} bytes unpacked")
    return sorted(members, key=lambda member: member.header_offset)


def _check_safe(member: zipfile.ZipInfo) -> None:
    for name in (member.filename, member.orig_filename):
        if name in ("", ".", "..") or _UNSAFE.search(name):
            raise ResultError(f"ZIP: the member {name[:80]!r} has no plain file name")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ResultError(f"ZIP: the member {member.filename!r} is no plain file")
    if member.flag_bits & _ENCRYPTED:
        raise ResultError(f"ZIP: the member {member.filename!r} is encrypted")
    if member.flag_bits & ~(_LEVEL | _DESCRIBED | _UTF8):
        raise ResultError(f"ZIP: the member {member.filename!r} has the flags {member.flag_bits:#x}")
    if member.compress_type not in (_STORED, _DEFLATED):
        raise ResultError(f"ZIP: the member {member.filename!r} is compressed by method {member.compress_type}")


def _local_end(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Return where the content of a member begins, behind a header that must agree with the directory."""
    file.seek(member.header_offset)
    head = file.read(_LOCAL.size)
    if len(head) < _LOCAL.size or not head.startswith(b"PK\3\4"):
        raise ResultError(f"ZIP: expected a member at byte {member.header_offset}")
    _, _, bits, method, _, _, _, _, _, name_length, extra_length = _LOCAL.unpack(head)
    name = file.read(name_length).decode("utf-8" if bits & _UTF8 else "cp437", errors="replace")
    differ = (bits ^ member.flag_bits) & ~_LEVEL
    if differ or (method, name) != (member.compress_type, member.orig_filename):
        raise ResultError(f"ZIP: the member {member.filename!r} calls itself {name[:80]!r} where it stands")
    start: int = member.header_offset + _LOCAL.size + name_length + extra_length
    return start


def _check_content(file: BinaryIO, start: int, member: zipfile.ZipInfo) -> None:
    name = f"ZIP: {member.filename}"
    file.seek(start)
    if member.compress_type == _DEFLATED:
        blocks = inflated(file, member.compress_size, RAW_DEFLATE, name)
    else:
        blocks = _blocks(file, member.compress_size)
    size = crc = 0
    for block in blocks:
        size += len(block)
        crc = zlib.crc32(block, crc)
        if size > member.file_size:
            break
    if size != member.file_size:
        raise ResultError(
            f"{name}: expected {member.file_size} bytes, got {'more' if size > member.file_size else size}"
        )
    if crc != member.CRC:
        raise ResultError(f"{name}: damaged: its CRC differs")


def _blocks(file: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    while size_bytes and (block := file.read(min(size_bytes, _BLOCK))):
        size_bytes -= len(block)
        yield block


def _behind(file: BinaryIO, end: int, following: int, member: zipfile.ZipInfo) -> int:
    """Return where a member ends: ``following``, if just its data descriptor, where it has one, lies between."""
    if not member.flag_bits & _DESCRIBED or not 12 <= following - end <= 24:
        return end
    file.seek(end)
    found = file.read(following - end).removeprefix(b"PK\7\x08")
    sizes = (member.compress_size, member.file_size)
    known = [
        struct.pack(form, member.CRC, *sizes) for form in ("<III", "<IQQ") if form == "<IQQ" or max(sizes) < 2**32
    ]
    return following if found in known else end
