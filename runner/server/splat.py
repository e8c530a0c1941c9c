"""Turn an object's image into 3D Gaussian splats: a front and a back shell over the inflated silhouette.

The frame is COLMAP's, as in the original 3D Gaussian Splatting: x to the right, y down, z away from the viewer who
sees the front. The object fits into a box of side 1 around the origin.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runner.server.image import Floats, Subject

_SH_C0 = 0.28209479177387814
"""The spherical harmonic of degree 0; a splat's colour is 0.5 + _SH_C0 × f_dc."""

_FIELDS = (
    ("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")
    + ("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")
)  # fmt: skip
_PER_CELL = 2
_STEEPEST = 4
"""Where the surface is steep it is larger than its cells; so many times as many splats at the most."""
_THINNER = 0.25
_DEPTH = 0.8
_BACK_SHADE = 0.75


def generate(subject: Subject, seed: int) -> bytes:
    """Return a binary PLY of splats; the same seed gives the same bytes, another seed samples other points."""
    rng = np.random.default_rng(seed & 0xFFFF_FFFF_FFFF_FFFF)
    height = subject.height * _DEPTH
    slope_y, slope_x = np.gradient(np.where(subject.mask, height, 0))
    row, column = np.nonzero(subject.mask)
    steepness = np.sqrt(1 + slope_x[row, column] ** 2 + slope_y[row, column] ** 2)
    samples = np.ceil(_PER_CELL * np.minimum(steepness, _STEEPEST)).astype(int)
    row, column = np.repeat(row, samples), np.repeat(column, samples)
    shift = rng.uniform(-0.5, 0.5, size=(2, row.size))
    above = height[row, column] + shift[0] * slope_y[row, column] + shift[1] * slope_x[row, column]
    normal = np.stack([-slope_x[row, column], -slope_y[row, column], np.full(row.size, -1.0)], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    size = max(subject.mask.shape) - 2  # without the empty cell around
    x = (column + 0.5 + shift[1] - subject.mask.shape[1] / 2) / size
    y = (row + 0.5 + shift[0] - subject.mask.shape[0] / 2) / size
    z = -np.maximum(above, 0) / size
    colour = subject.colour[row, column]
    front = _shell(np.stack([x, y, z], axis=1), normal, colour, rng, size)
    mirror = np.array([1, 1, -1], dtype=np.float32)
    back = _shell(np.stack([x, y, -z], axis=1), normal * mirror, colour * _BACK_SHADE, rng, size)
    return _ply(np.concatenate([front, back]))


def _shell(
    position: npt.NDArray[np.float64],
    normal: npt.NDArray[np.float64],
    colour: Floats,
    rng: np.random.Generator,
    size: int,
) -> Floats:
    """Return one row of ``_FIELDS`` a splat: a disc that lies in the surface."""
    count = len(position)
    opacity = rng.uniform(0.90, 0.99, size=(count, 1))
    radius = rng.uniform(0.5, 0.7, size=(count, 1)) / size
    scale = np.concatenate([radius, radius, radius * _THINNER], axis=1)
    rows = [position, normal, (colour - 0.5) / _SH_C0, np.log(opacity / (1 - opacity)), np.log(scale)]
    return np.concatenate([*rows, _turn_z_to(normal)], axis=1).astype(np.float32)


def _turn_z_to(normal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return unit quaternions (w, x, y, z) that turn the z axis, the discs' thin one, into the line of ``normal``."""
    up = np.where(normal[:, 2:] < 0, -normal, normal)  # a disc has no front, so the shorter turn will do
    quaternion = np.stack([1 + up[:, 2], -up[:, 1], up[:, 0], np.zeros(len(up))], axis=1)
    return quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)


def _ply(rows: Floats) -> bytes:
    """Write the layout of the 3D Gaussian Splatting reference code (Kerbl et al., 2023), without higher harmonics."""
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property float {name}" for name in _FIELDS]
    return "\n".join([*header, "end_header", ""]).encode("ascii") + rows.astype("<f4").tobytes()
