"""The only place that turns LPS into RAS, centre origins into corner origins, and foreign units into mm and s."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .data import Image, Matrix, checked_affine
from .errors import DataError

#: Flips the first two axes: RAS from LPS and back.
RAS_FROM_LPS: Matrix = np.diag([-1.0, -1.0, 1.0, 1.0])
RAS_FROM_LPS.setflags(write=False)


def ras_from_lps_matrix(lps_from_x: npt.ArrayLike) -> Matrix:
    """Turn a matrix that leads to LPS into one that leads to RAS (only the target frame changes). (4, 4), mm."""
    return np.asarray(RAS_FROM_LPS @ checked_affine(lps_from_x, "lps_from_x"))


def ras_transform_from_lps_transform(lps_from_lps: npt.ArrayLike) -> Matrix:
    """Turn a transform between two LPS frames into the same motion between two RAS frames. (4, 4), mm."""
    return np.asarray(RAS_FROM_LPS @ checked_affine(lps_from_lps, "lps_from_lps") @ RAS_FROM_LPS)


def corner_from_centre(axes_mm: npt.ArrayLike, centre_mm: npt.ArrayLike, size_ijk: tuple[int, int, int]) -> Matrix:
    """Build ``ras_from_ijk`` whose origin is the centre of the first voxel from a volume's centre position.

    ``axes_mm``: (3, 3), columns are direction times spacing along i, j, k. ``centre_mm``: (3,), the centre of the
    whole volume, as OpenIGTLink IMAGE carries it. Each axis steps back (N - 1) / 2 voxels, not N / 2.
    """
    return _corner_from(axes_mm, centre_mm, (np.asarray(size_ijk) - 1) / 2.0)


def corner_from_fourier_centre(
    axes_mm: npt.ArrayLike, centre_mm: npt.ArrayLike, size_ijk: tuple[int, int, int]
) -> Matrix:
    """As :func:`corner_from_centre`, for a centre that lies on voxel N // 2: where a Fourier transform has its origin.

    MRD positions are meant so: the point at which the gradients add no phase, half a voxel off the middle of an even
    grid.
    """
    return _corner_from(axes_mm, centre_mm, np.asarray(size_ijk) // 2)


def _corner_from(axes_mm: npt.ArrayLike, place_mm: npt.ArrayLike, place_ijk: npt.NDArray[Any]) -> Matrix:
    """``ras_from_ijk`` of the grid whose index ``place_ijk`` (3,) lies at ``place_mm`` (3,)."""
    axes = np.asarray(axes_mm, dtype=np.float64)
    if axes.shape != (3, 3):
        raise DataError(f"axes_mm must have shape (3, 3), got {axes.shape}")
    matrix = np.eye(4)
    matrix[:3, :3] = axes
    matrix[:3, 3] = np.asarray(place_mm, dtype=np.float64) - axes @ place_ijk
    return checked_affine(matrix, "ras_from_ijk")


def centre_of(ras_from_ijk: npt.ArrayLike, size_ijk: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Centre of the volume in RAS mm, shape (3,): the inverse of :func:`corner_from_centre`."""
    return apply(ras_from_ijk, (np.asarray(size_ijk) - 1) / 2.0)


def middle_of(label: Image) -> npt.NDArray[np.float64]:
    """Middle, (3,) RAS mm, of the voxels of a label image that are not 0."""
    # In this order a whole volume takes milliseconds; the panel asks between two pictures.
    kji = np.unravel_index(np.flatnonzero(label.array != 0), label.array.shape)
    return apply(label.ras_from_ijk, np.array([index.mean() for index in kji[::-1]]))


def apply(matrix: npt.ArrayLike, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Map points, shape (..., 3), with a (4, 4) affine."""
    affine = np.asarray(matrix, dtype=np.float64)
    return np.asarray(np.asarray(points, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3])


def invert(matrix: npt.ArrayLike) -> Matrix:
    """Inverse of a (4, 4) affine, with an exact last row."""
    affine = checked_affine(matrix, "matrix")
    result = np.eye(4)
    result[:3, :3] = np.linalg.inv(affine[:3, :3])
    result[:3, 3] = -result[:3, :3] @ affine[:3, 3]
    return result


def resample_matrix(
    to_ras_from_ijk: npt.ArrayLike,
    from_ras_from_ijk: npt.ArrayLike,
    from_ras_from_to_ras: npt.ArrayLike | None = None,
) -> Matrix:
    """Index matrix that leads from voxels of one grid (``to``) to voxels of another (``from``), (4, 4), i j k order.

    ``from_ras_from_to_ras``: transform between the two RAS frames, identity when None.
    """
    between = np.eye(4) if from_ras_from_to_ras is None else checked_affine(from_ras_from_to_ras, "transform")
    return np.asarray(invert(from_ras_from_ijk) @ between @ checked_affine(to_ras_from_ijk, "to_ras_from_ijk"))


def rotation_about(axis: npt.ArrayLike, angle_deg: float) -> npt.NDArray[np.float64]:
    """(3, 3) rotation by ``angle_deg`` about ``axis`` (Rodrigues). Raises DataError for a zero axis."""
    direction = np.asarray(axis, dtype=np.float64)
    length = float(np.linalg.norm(direction))
    if length < 1e-12:
        raise DataError(f"rotation axis must not be zero, got {direction.tolist()}")
    x, y, z = direction / length
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(angle_deg)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def rotation_angle_deg(rotation: npt.ArrayLike) -> float:
    """Angle of a rotation in degrees, 0..180. Uses the chord, which stays exact near zero.

    ``rotation``: (3, 3), or the upper-left part of a (4, 4) matrix.
    """
    matrix = np.asarray(rotation, dtype=np.float64)[:3, :3]
    chord = float(np.linalg.norm(matrix - np.eye(3))) / (2.0 * np.sqrt(2.0))
    return float(np.rad2deg(2.0 * np.arcsin(min(1.0, chord))))


def farthest_apart_mm(first: npt.ArrayLike, second: npt.ArrayLike, points_mm: npt.ArrayLike) -> float:
    """Largest distance between where two transforms (4, 4) put one of the points (n, 3)."""
    return float(np.linalg.norm(apply(first, points_mm) - apply(second, points_mm), axis=1).max())


def pose_error(estimated: npt.ArrayLike, true: npt.ArrayLike, at_mm: npt.ArrayLike) -> tuple[float, float]:
    """(distance in mm at the point ``at_mm``, angle in degrees) between two rigid transforms (4, 4)."""
    difference = apply(estimated, at_mm) - apply(true, at_mm)
    relative: Any = np.asarray(estimated)[:3, :3] @ np.asarray(true)[:3, :3].T
    return float(np.linalg.norm(difference)), rotation_angle_deg(relative)


def within_mm(mask: npt.NDArray[np.bool_], radius_mm: float, spacing_kji_mm: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Voxels (k, j, i) whose middle is at most ``radius_mm`` from that of a voxel of ``mask``: dilation by a ball.

    Exact, as the threshold of a Euclidean distance transform, in a tenth of its time for radii of a few voxels: the
    least squared distance is found axis by axis (Felzenszwalb and Huttenlocher, Theory of Computing 8:415, 2012), and
    only as far as the radius. What lies deeper than it is ``~within_mm(~mask, ...)``; beyond the border is nothing.
    """
    spacing = np.broadcast_to(np.asarray(spacing_kji_mm, dtype=np.float64), (mask.ndim,))
    # Distances of whole voxels are exact in binary only by chance: what lies on the sphere is within it.
    reach = radius_mm * (1.0 + 1e-6)
    result = np.zeros_like(mask)
    if not mask.any():
        return result
    steps = np.floor(reach / spacing).astype(int).tolist()
    box = []
    for axis, wide in enumerate(steps):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(max(0, int(hit[0]) - wide), int(hit[-1]) + 1 + wide))
    squared = np.where(mask[tuple(box)], np.float32(0), np.float32(4.0 * reach * reach))
    for axis, wide in enumerate(steps):
        before = np.moveaxis(squared, axis, 0)
        squared = squared.copy()
        nearest = np.moveaxis(squared, axis, 0)
        for step in range(1, min(wide, len(before) - 1) + 1):
            away = np.float32((step * spacing[axis]) ** 2)
            np.minimum(nearest[step:], before[:-step] + away, out=nearest[step:])
            np.minimum(nearest[:-step], before[step:] + away, out=nearest[:-step])
    result[tuple(box)] = squared <= reach * reach
    return result


def closed_mm(mask: npt.NDArray[np.bool_], radius_mm: float, spacing_kji_mm: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Closing of ``mask`` (k, j, i) by a ball, see :func:`within_mm`; beyond its border nothing is filled."""
    wide = int(np.ceil(radius_mm / np.min(spacing_kji_mm))) + 1
    near = within_mm(np.pad(mask, wide), radius_mm, spacing_kji_mm)
    return ~within_mm(~near, radius_mm, spacing_kji_mm)[(slice(wide, -wide),) * mask.ndim]


def bounding_box(inside: npt.NDArray[np.bool_], margin: npt.ArrayLike = (0, 0, 0)) -> tuple[slice, slice, slice]:
    """Slices (k, j, i) around the True voxels, widened by ``margin`` voxels. Raises DataError when there are none."""
    if not inside.any():
        raise DataError("the mask is empty: no voxel to work on")
    slices = []
    for axis, extra in enumerate(np.broadcast_to(margin, (3,)).tolist()):
        hit = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        slices.append(slice(max(0, int(hit[0]) - extra), min(inside.shape[axis], int(hit[-1]) + 1 + extra)))
    return slices[0], slices[1], slices[2]
