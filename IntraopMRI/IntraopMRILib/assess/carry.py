"""A preoperative segmentation carried to the intraoperative grid, as points rather than by an inverted field."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, checked_affine
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply, invert
from scipy import ndimage

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
#: A rigid or affine (4, 4) matrix, or a function that maps preoperative RAS points (n, 3), mm, to intraoperative ones.
Mapping = npt.ArrayLike | Callable[[Points], Points]
#: Tissue keeps its size: points that spread by another factor were mapped in other units or onto one place.
SIZE_KEPT = (0.5, 2.0)
#: So many points show how a mapping spreads them.
SPREAD_POINTS = 20_000
#: A scan may end this part of the tumour early (an edge of the field of view at its border); what it does not show,
#: nobody can call resected.
MOST_UNSEEN = 0.01
#: More points would not move the outline by a tenth of a voxel, but cost seconds.
MOST_POINTS = 4_000_000


def carried_points(mask: Mask, preop: Image, intraop: Image, intraop_from_preop: Mapping) -> Points:
    """Index positions (n, 3), order i j k, on the intraoperative grid that the voxels of ``mask`` (k, j, i) cover.

    Each voxel is sampled finely enough that neighbouring points lie at most half an intraoperative voxel apart.
    Raises AssessmentError when the mapping returns another shape or values that are not finite.
    """
    ratio = np.asarray(preop.spacing_mm) / float(intraop.spacing_mm.min())
    samples = np.maximum(1, np.ceil(2.0 * ratio)).astype(int)
    voxels = np.argwhere(mask)[:, ::-1].astype(np.float64)
    while samples.max() > 1 and len(voxels) * int(samples.prod()) > MOST_POINTS:
        samples = np.maximum(1, samples - 1)
    offsets = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n - 0.5 for n in samples], indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    preop_points = apply(preop.ras_from_ijk, (voxels[:, None] + offsets[None]).reshape(-1, 3))
    points = mapped(intraop_from_preop, preop_points)
    return apply(invert(intraop.ras_from_ijk), points)


def mapped(intraop_from_preop: Mapping, points: Points) -> Points:
    """Map preoperative RAS points (n, 3), mm, to intraoperative RAS.

    Raises AssessmentError when what comes back is no place of the same tissue: not finite, mirrored, of another size.
    """
    if callable(intraop_from_preop):
        result = np.asarray(intraop_from_preop(points), dtype=np.float64)
    else:
        result = apply(checked_affine(intraop_from_preop, "intraop_from_preop"), points)
    if result.shape != points.shape or not np.isfinite(result).all():
        raise AssessmentError(
            f"the registration must map {points.shape} points to as many finite points, got shape {result.shape}: "
            "register again"
        )
    _check_spread(points, result)
    return result


def _check_spread(before: Points, now: Points) -> None:
    few = slice(None, None, max(1, len(before) // SPREAD_POINTS))
    offsets, moved = (points[few] - points[few].mean(axis=0) for points in (before, now))
    size, size_now = (float(np.sqrt((o**2).sum(axis=1).mean())) for o in (offsets, moved))
    if size == 0.0:
        return
    if not SIZE_KEPT[0] <= size_now / size <= SIZE_KEPT[1]:
        raise AssessmentError(
            f"the registration makes the tumour {size_now / size:.2g} times as large, {SIZE_KEPT[0]} to "
            f"{SIZE_KEPT[1]} are possible: check its units (mm) and register again"
        )
    # Of points in a plane the determinant is nothing but rounding.
    if float(np.linalg.det(offsets.T @ moved / len(offsets))) < -1e-6 * (size * size_now) ** 3:
        raise AssessmentError("the registration mirrors the patient, right would be left: register again")


def occupied(points_ijk: Points, box: tuple[slice, slice, slice]) -> Mask:
    """Voxels of ``box`` (k, j, i slices of the intraoperative grid) that the points fall into, single gaps closed."""
    start = np.array([s.start for s in box])
    shape = tuple(s.stop - s.start for s in box)
    index = np.rint(points_ijk[:, ::-1]).astype(np.int64) - start
    inside = ((index >= 0) & (index < shape)).all(axis=1)
    result = np.zeros(shape, dtype=bool)
    result[tuple(index[inside].T)] = True
    # A field that stretches tissue may leave pinholes between the points.
    return np.asarray(result | ndimage.binary_closing(result))


def box_around(points_ijk: Points, image: Image, context_mm: float) -> tuple[slice, slice, slice]:
    """Part (k, j, i) of ``image`` around points (n, 3), i j k, with ``context_mm`` to each side."""
    pad = context_mm / np.asarray(image.spacing_mm)
    size = np.array(image.array.shape[:3])[::-1]
    low = np.clip(np.floor(points_ijk.min(axis=0) - pad).astype(int), 0, size - 1)
    high = np.clip(np.ceil(points_ijk.max(axis=0) + pad).astype(int) + 1, low + 1, size)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return k, j, i


def require_seen(points_ijk: Points, grid: Image, scan: Image, name: str) -> None:
    """``points_ijk`` (n, 3) of the tumour, on ``grid``, must lie in ``scan``: outside of it residual is not seen.

    Raises AssessmentError.
    """
    index = apply(invert(scan.ras_from_ijk), apply(grid.ras_from_ijk, points_ijk[:: max(1, len(points_ijk) // 20_000)]))
    outside = ((index < -0.5) | (index > np.array(scan.array.shape[:3])[::-1] - 0.5)).any(axis=1)
    if outside.mean() > MOST_UNSEEN:
        raise AssessmentError(
            f"{100 * outside.mean():.0f} % of the carried-over tumour lies outside the {name}: what is left there "
            "would not be seen; scan a region that covers it, or check the registration"
        )
