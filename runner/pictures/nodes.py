"""Where the nodes of a glTF stand, each of their instances, and the joints of skins. (Khronos glTF 2.0, 3.5, 3.7)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runner.pictures.shapes import Floats, UndrawnError

NODES_MAX = 100_000

Thing = dict[str, Any]
Matrix = npt.NDArray[np.float64]
Find = Callable[[str, Any], Thing]
"""Returns a thing of a kind by its number."""

Numbers = Callable[[Any, int], npt.NDArray[Any]]
"""Returns the rows of an accessor, so many numbers in each."""


def placed(roots: Sequence[int], find: Find) -> dict[int, Matrix]:
    """Return the matrix that places each node that stands below those roots."""
    open_ = [(number, np.eye(4)) for number in roots]
    found: dict[int, Matrix] = {}
    while open_:
        number, around = open_.pop()
        node = find("nodes", number)
        if number in found or len(found) > NODES_MAX:
            continue
        found[number] = around @ _matrix(node)
        open_ += [(child, found[number]) for child in node.get("children", [])]
    return found


def roots_of(nodes: Sequence[Thing]) -> list[int]:
    children = {child for node in nodes for child in node.get("children", [])}
    return [number for number in range(len(nodes)) if number not in children]


def instances(node: Thing, matrix: Matrix, numbers: Numbers) -> list[Matrix]:
    """Return the matrices of all places where a node's mesh stands (EXT_mesh_gpu_instancing); mostly one."""
    given = node.get("extensions", {}).get("EXT_mesh_gpu_instancing", {}).get("attributes", {})
    columns = {
        name.lower(): numbers(given[name], width)
        for name, width in (("TRANSLATION", 3), ("ROTATION", 4), ("SCALE", 3))
        if name in given
    }
    if not columns:
        return [matrix]
    count = min(len(rows) for rows in columns.values())
    if count > NODES_MAX:
        raise UndrawnError(f"a GLB of more than {NODES_MAX} instances")
    return [matrix @ _matrix({name: rows[place] for name, rows in columns.items()}) for place in range(count)]


def joints(skin: Thing, places: dict[int, Matrix], numbers: Callable[[Any, int], npt.NDArray[Any]]) -> Matrix:
    """Return a matrix for each joint of a skin, from where its vertices were bound to where they are."""
    of = [places.get(number, np.eye(4)) for number in skin["joints"]]
    if "inverseBindMatrices" not in skin:
        return np.stack(of)
    bound = numbers(skin["inverseBindMatrices"], 16).reshape(-1, 4, 4).transpose(0, 2, 1)
    return np.stack([there @ back for there, back in zip(of, bound, strict=False)])


def skinned(rows: npt.NDArray[Any], w: float, moves: Matrix, of: npt.NDArray[Any], weight: Floats) -> Matrix:
    """Return positions (``w`` is 1) or directions (0) where the joints that they hang on put them, by weight."""
    total = np.maximum(weight.sum(axis=1, keepdims=True), 1e-9)
    found = np.zeros((len(rows), 3))
    for column in range(4):
        move = moves[of[:, column].astype(np.int64).clip(0, len(moves) - 1), :3].astype(np.float32)
        there = np.einsum("nij,nj->ni", move[:, :, :3], rows.astype(np.float32)) + np.float32(w) * move[:, :, 3]
        found += there * (weight / total)[:, column, None]
    return found


def turned(normal: npt.NDArray[Any], matrix: Matrix) -> Floats:
    """Return unit normals as a node places them: by the inverse of its matrix, transposed."""
    turn = np.linalg.pinv(matrix[:3, :3]) if np.isfinite(matrix).all() else np.eye(3)
    return unit(normal @ turn)


def unit(vector: npt.NDArray[Any]) -> Floats:
    length = np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-20)
    return np.asarray(vector / length, dtype=np.float32)


def _matrix(node: Thing) -> Matrix:
    if "matrix" in node:
        given: Matrix = np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
        return given
    x, y, z, w = (float(part) for part in node.get("rotation", (0, 0, 0, 1)))
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), dtype=np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix
