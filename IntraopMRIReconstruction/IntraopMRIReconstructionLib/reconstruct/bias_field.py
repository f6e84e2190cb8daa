"""Uneven brightness of surface coils: N4 when there is time, a quick estimate for live pictures.

Sources: Tustison et al., N4ITK, IEEE Trans Med Imaging 29:1310 (2010), by SimpleITK; Styner et al., IEEE Trans Med
Imaging 19:153 (2000) for a polynomial as the field, here of the logarithm and without voxels that stand out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from ..data import Image
from ..errors import ReconstructionError
from .phase import monomials

Mask = npt.NDArray[np.bool_]

#: Order of the quick polynomial: coil sensitivities change over several centimetres, tissue over less.
ORDER = 4
#: Grid of the quick estimate, fine enough for a polynomial.
COARSE_MM = 6.0
#: Passes that leave out voxels further from the field than ``OUTLIER`` robust deviations: other tissue, vessels, air.
PASSES = 3
OUTLIER = 2.5
#: N4: distance of B-spline knots, iterations at each of its levels, grid on which it works.
N4_KNOTS_MM = 120.0
N4_ITERATIONS = (40, 40, 30)
N4_GRID_MM = 4.0


@dataclass(frozen=True, eq=False)
class BiasCorrection:
    """``image``: evened out, same mean inside the object, float32. ``field``: (k, j, i) float32 that was divided by, of
    geometric mean 1 inside the object."""

    image: Image
    field: npt.NDArray[np.float32]


def quick(image: Image, mask: Mask | None = None) -> BiasCorrection:
    """Even out a magnitude image in the time of a frame. ``mask`` (k, j, i): the object; by Otsu when None.

    Tissue whose share changes steadily across the object is taken for bias: use :func:`n4` before measuring brightness.
    Raises ReconstructionError for an image that is not finite, of one brightness, or whose object is too small.
    """
    array, inside = _checked(image, mask)
    terms = monomials(array.shape, ORDER)
    steps = _steps(image.spacing_mm[::-1], array.shape, COARSE_MM)
    coarse = tuple(slice(step // 2, None, step) for step in steps)
    weight = inside[coarse]
    if weight.sum() < 4 * len(terms):
        raise ReconstructionError(
            f"an object of {int(inside.sum())} voxels is too small for a quick bias field: use N4 or another mask"
        )
    columns = np.stack([term[coarse][weight] for term in terms], axis=-1)
    logarithm = np.log(np.maximum(array[coarse][weight], np.float32(1e-3) * array[inside].mean()))
    kept = np.ones(len(logarithm), dtype=bool)
    found = np.zeros(len(terms))
    for _ in range(PASSES):
        found = np.linalg.lstsq(columns[kept], logarithm[kept], rcond=None)[0]
        left = logarithm - columns @ found
        left -= np.median(left)
        kept = np.abs(left) <= OUTLIER * max(1.4826 * float(np.median(np.abs(left))), 1e-6)
    field = np.zeros(array.shape)
    for share, term in zip(found, terms, strict=True):
        field += share * term
    return _divided(image, array, inside, field)


def n4(image: Image, mask: Mask | None = None) -> BiasCorrection:
    """Even out a magnitude image by N4 on a coarse grid; a second or two for a head. ``mask``: as in :func:`quick`."""
    array, inside = _checked(image, mask)
    # A single slice has no thickness for a B-spline to vary over.
    flat = np.maximum(array, 0).squeeze()
    spacing = np.array([size for size, count in zip(image.spacing_mm, array.shape[::-1], strict=True) if count > 1])
    if flat.ndim < 2:
        raise ReconstructionError(f"N4 needs an image of at least two axes, got shape {array.shape}: leave it out")
    whole = sitk.GetImageFromArray(flat)
    whole.SetSpacing([float(size) for size in spacing])
    region = sitk.GetImageFromArray(inside.reshape(flat.shape).astype(np.uint8))
    region.CopyInformation(whole)
    shrink = _steps(spacing, flat.shape[::-1], N4_GRID_MM)
    n4_filter = sitk.N4BiasFieldCorrectionImageFilter()
    n4_filter.SetMaximumNumberOfIterations(N4_ITERATIONS)
    # A cubic B-spline over n spans has n + 3 control points.
    extent = spacing * flat.shape[::-1]
    n4_filter.SetNumberOfControlPoints([max(1, round(float(size) / N4_KNOTS_MM)) + 3 for size in extent])
    try:
        n4_filter.Execute(sitk.Shrink(whole, shrink), sitk.Shrink(region, shrink))
        logarithm = sitk.GetArrayFromImage(n4_filter.GetLogBiasFieldAsImage(whole)).reshape(array.shape)
    except RuntimeError as error:
        why = str(error).splitlines()[-1]
        raise ReconstructionError(f"N4 found no bias field ({why}): use the quick one") from error
    return _divided(image, array, inside, logarithm)


def _steps(spacing: npt.NDArray[np.float64], shape: tuple[int, ...], wanted_mm: float) -> list[int]:
    return [max(1, min(round(wanted_mm / float(size)), n)) for size, n in zip(spacing, shape, strict=True)]


def _checked(image: Image, mask: Mask | None) -> tuple[npt.NDArray[np.float32], Mask]:
    array = np.asarray(image.array, dtype=np.float32)
    if array.ndim != 3 or not np.isfinite(array).all():
        raise ReconstructionError(f"a bias field needs a finite image (k, j, i), got shape {array.shape}")
    if mask is None:
        if np.ptp(array) == 0:
            raise ReconstructionError("a bias field cannot be found in an image of one brightness")
        otsu = sitk.OtsuThreshold(sitk.GetImageFromArray(array), 0, 1)
        mask = sitk.GetArrayFromImage(otsu).astype(bool)
    if mask.shape != array.shape or not mask.any():
        raise ReconstructionError(
            f"the mask of a bias field must have shape {array.shape} and a voxel, got {mask.shape} with "
            f"{int(mask.sum())}"
        )
    return array, np.asarray(mask, dtype=bool)


def _divided(image: Image, array: npt.NDArray[np.float32], inside: Mask, logarithm: npt.NDArray[Any]) -> BiasCorrection:
    field = np.exp(logarithm - logarithm[inside].mean()).astype(np.float32)
    even = array / field
    even *= np.float32(array[inside].mean() / even[inside].mean())
    return BiasCorrection(image.with_array(even, f"{image.name} evened out".strip()), field)
