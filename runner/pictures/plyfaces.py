"""The faces of a PLY, as triangles; those of more corners are cut into fans."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from runner.pictures.plyheader import Element, Header
from runner.pictures.shapes import FACES_MAX, Ints, UndrawnError, UnreadableError

_UNEQUAL_MAX = 300_000
"""Faces that are read one by one, as they have more than one number of corners."""


def faces_of(file: BinaryIO, header: Header, begin: int) -> tuple[Ints, int]:
    """Return the corners of all triangles, and how many there are; the faces begin at ``begin``."""
    names = [element.name for element in header.elements]
    place = names.index("face")
    face = header.elements[place]
    if face.count > FACES_MAX:
        raise UndrawnError(f"a PLY of more than {FACES_MAX // 1_000_000} million faces")
    between = header.elements[names.index("vertex") + 1 : place]
    key = next((name for name in face.lists if name.startswith("vertex_ind")), next(iter(face.lists)))
    if between or (not header.order and face.fields[0][0] != key):
        raise UndrawnError("a PLY of an unusual layout")
    file.seek(begin)
    if not header.order:
        rows = [
            [int(float(word)) for word in file.readline().split()] for _ in range(min(face.count, header.size_bytes))
        ]
        return _fans([row[1 : 1 + row[0]] for row in rows if row])
    content = file.read()
    return _equal(content, face, header.order, key) or _fans(_walked(content, face, header.order, key))


def _equal(content: bytes, face: Element, order: str, key: str) -> tuple[Ints, int] | None:
    """Return the triangles if all faces have as many corners as the first; None if not."""
    counts = _counts(content, face, order)
    if counts is None:
        return None
    parts = []
    for name, kind in face.fields:
        if name in face.lists:
            count_kind, value_kind = face.lists[name]
            parts += [(f"{name} count", order + count_kind), (name, order + value_kind, (counts[name],))]
        else:
            parts.append((name, order + kind))
    dtype = np.dtype(parts)
    total = face.count * max(0, counts[key] - 2)
    if face.count * dtype.itemsize > len(content):
        return None
    if total > FACES_MAX:
        raise UndrawnError(f"a PLY of more than {FACES_MAX // 1_000_000} million triangles")
    rows = np.frombuffer(content, dtype=dtype, count=face.count)
    if any((rows[f"{name} count"] != counts[name]).any() for name in face.lists):
        return None
    corners = rows[key].astype(np.int64)
    fans = [corners[:, [0, second, second + 1]] for second in range(1, counts[key] - 1)]
    return (np.concatenate(fans) if fans else np.empty((0, 3), dtype=np.int64)), total


def _counts(content: bytes, face: Element, order: str) -> dict[str, int] | None:
    """Return how long each list of the first face is; None if it is cut."""
    at, counts = 0, {}
    for name, kind in face.fields:
        if name not in face.lists:
            at += np.dtype(kind).itemsize
            continue
        count_kind, value_kind = (np.dtype(order + one) for one in face.lists[name])
        if at + count_kind.itemsize > len(content):
            return None
        counts[name] = int(np.frombuffer(content, count_kind, 1, at)[0])
        at += count_kind.itemsize + max(0, counts[name]) * value_kind.itemsize
        if not 0 <= counts[name] <= len(content):
            return None
    return counts


def _walked(content: bytes, face: Element, order: str, key: str) -> list[list[int]]:
    if face.count > _UNEQUAL_MAX:
        raise UndrawnError(f"a PLY of more than {_UNEQUAL_MAX} unequal faces")
    at, found = 0, []
    for _ in range(face.count):
        for name, kind in face.fields:
            if name not in face.lists:
                at += np.dtype(kind).itemsize
                continue
            count_kind, value_kind = (np.dtype(order + one) for one in face.lists[name])
            count = int(np.frombuffer(content, count_kind, 1, at)[0])
            if count < 0:
                raise UnreadableError(f"a face of {count} corners")
            at += count_kind.itemsize
            if name == key:
                found.append(np.frombuffer(content, value_kind, count, at).tolist())
            at += count * value_kind.itemsize
    return found


def _fans(faces: list[list[int]]) -> tuple[Ints, int]:
    triangles = [[one[0], one[k], one[k + 1]] for one in faces for k in range(1, len(one) - 1)]
    return np.array(triangles, dtype=np.int64).reshape(-1, 3), len(triangles)
