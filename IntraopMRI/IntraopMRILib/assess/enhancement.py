"""Relative enhancement: how much brighter tissue became with contrast agent, freed of bias field and scanner gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Matrix, checked_affine
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import resample_matrix
from scipy import ndimage

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

#: Voxels darker than this part of the bright tissue are air, bone, fluid or cavity: they cannot carry the gain fit.
TISSUE_FRACTION = 0.35
#: Residuals of the smooth fits beyond this many robust sigmas are anatomy or enhancement, not gain.
TRIM_SIGMA = 2.5
#: Enough voxels for ten coefficients to be known far below the noise; more only costs time.
FIT_VOXELS = 60_000
#: Fewer tissue voxels cannot hold the ten coefficients of the bias field against noise.
LEAST_TISSUE_VOXELS = 1_000

#: Vessels, dura and mucosa take up agent in every head: at least this part of the tissue around a tumour is brighter
#: than its noise by AGENT_Z, and more of it than is darker. In two scans without agent chance alone gives a millionth.
LEAST_ENHANCING, AGENT_Z = 0.001, 5.0
#: A little smoothing shows thin vessels against noise.
AGENT_SMOOTH_VOXELS = 0.6


@dataclass(frozen=True, eq=False)
class Enhancement:
    """Enhancement in a box of the contrast grid, in units of the local tissue signal (0.5: half as bright again).

    ``values``: (k, j, i). ``sigma``: robust noise of ``values`` in tissue away from the region.
    ``tissue``: (k, j, i), signal over that of usual tissue: without agent where a native scan exists.
    """

    values: Array
    tissue: Array
    sigma: float


def on_grid(image: Image, grid: Image, box: tuple[slice, slice, slice]) -> Array:
    """Voxels of ``image`` on the ``box`` of ``grid``; resampled linearly when its own grid differs. float32."""
    if image.array.shape == grid.array.shape and np.allclose(image.ras_from_ijk, grid.ras_from_ijk, atol=1e-4):
        return np.asarray(image.array[box], dtype=np.float32)
    start = np.array([s.start for s in box[::-1]], dtype=float)
    shift = np.eye(4)
    shift[:3, 3] = start
    index = resample_matrix(grid.ras_from_ijk @ shift, image.ras_from_ijk)
    # scipy indexes k, j, i: both sides of the index matrix are reversed.
    kji = index[:3, :3][::-1, ::-1]
    shape = tuple(s.stop - s.start for s in box)
    result = ndimage.affine_transform(
        np.asarray(image.array, dtype=np.float32), kji, index[:3, 3][::-1], output_shape=shape, order=1, mode="constant"
    )
    return np.asarray(result, dtype=np.float32)


def subtraction(contrast: Array, native: Array, away: Mask, ras_from_ijk: Matrix) -> Enhancement:
    """Contrast minus native, both (k, j, i), after the smooth gain between them is fitted away.

    ``away``: voxels outside the region of interest, the only ones that the fits may look at.
    Raises AssessmentError when there is too little tissue to compare the two scans.
    """
    tissue = away & _bright(native) & _bright(contrast)
    _require(tissue)
    points = _coordinates(native.shape, ras_from_ijk)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_gain = _smooth_fit(np.log(contrast / native), tissue, points)
        log_level = _smooth_fit(np.log(native), tissue, points)
    level = np.exp(-log_level)
    values = (contrast * np.exp(-log_gain) - native) * level
    return _centred(values, native * level, tissue)


def log_relative(values: Array, tissue: Mask, ras_from_ijk: Matrix) -> Array:
    """Natural logarithm of ``values`` over those of usual ``tissue``, both (k, j, i), a smooth bias field taken away.

    Raises AssessmentError when there is too little tissue.
    """
    _require(tissue)
    logs = np.log(np.maximum(values, 1e-3 * float(np.median(values[tissue]))))
    relative = logs - _smooth_fit(logs, tissue, _coordinates(values.shape, ras_from_ijk))
    return np.asarray(relative - np.median(relative[tissue]), dtype=np.float32)


def require_agent(enhancement: Enhancement, away: Mask) -> None:
    """Raise AssessmentError unless the agent is seen in tissue ``away`` from the region of interest.

    Without it (not given yet, or the two scans exchanged) nothing would enhance, and a residual of zero would be told.
    """
    values = ndimage.gaussian_filter(enhancement.values, AGENT_SMOOTH_VOXELS)
    values = values[away & (enhancement.tissue > TISSUE_FRACTION)]
    limit = AGENT_Z * robust_sigma(values)
    brighter, darker = float(np.mean(values > limit)), float(np.mean(values < -limit))
    if brighter < max(LEAST_ENHANCING, darker):
        raise AssessmentError(
            f"only {100 * brighter:.2f} % of the tissue around the tumour is brighter in the contrast scan and "
            f"{100 * darker:.2f} % is darker, where vessels and dura should enhance: check that the agent was given "
            "and that the native and the contrast scan are not exchanged; no residual is given"
        )


def robust_sigma(values: npt.ArrayLike) -> float:
    """Standard deviation of the normal part of ``values``, from the median absolute deviation."""
    array = np.asarray(values)
    return 1.4826 * float(np.median(np.abs(array - np.median(array))))


def _require(tissue: Mask) -> None:
    found = int(tissue.sum())
    if found < LEAST_TISSUE_VOXELS:
        raise AssessmentError(
            f"only {found} voxels of normal tissue surround the tumour region, {LEAST_TISSUE_VOXELS} are needed to "
            "calibrate the enhancement: check that the scan covers the tumour and that the registration is right"
        )


def _bright(array: Array) -> Mask:
    return np.asarray(array > TISSUE_FRACTION * np.percentile(array, 90.0))


def _centred(values: Array, relative: Array, tissue: Mask) -> Enhancement:
    sample = values[tissue]
    centred = np.asarray(values - np.median(sample), dtype=np.float32)
    return Enhancement(centred, np.asarray(relative, dtype=np.float32), max(robust_sigma(sample), 1e-6))


def _coordinates(shape: tuple[int, ...], ras_from_ijk: Matrix) -> tuple[Array, Array, Array]:
    """Open grids of k, j, i positions in mm about the centre, scaled to about -1..1 by the largest side."""
    spacing = np.linalg.norm(checked_affine(ras_from_ijk, "ras_from_ijk")[:3, :3], axis=0)[::-1]
    half = max((n - 1) * s / 2.0 for n, s in zip(shape, spacing, strict=True)) or 1.0
    axes = [((np.arange(n) - (n - 1) / 2.0) * s / half).astype(np.float32) for n, s in zip(shape, spacing, strict=True)]
    return axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]


def _terms(z: Array, y: Array, x: Array) -> list[Array]:
    return [np.ones_like(z), z, y, x, z * z, y * y, x * x, z * y, z * x, y * x]


def _smooth_fit(values: Array, where: Mask, points: tuple[Array, Array, Array]) -> Array:
    """Trimmed least-squares quadratic of ``values`` over ``where``, evaluated on the whole box."""
    index = np.flatnonzero(where)
    index = index[:: max(1, index.size // FIT_VOXELS)]
    k, j, i = np.unravel_index(index, where.shape)
    z, y, x = points
    design = np.stack(_terms(z[k, 0, 0], y[0, j, 0], x[0, 0, i]), axis=1).astype(np.float64)
    data = values.reshape(-1)[index].astype(np.float64)
    keep = np.isfinite(data)
    coefficients: npt.NDArray[np.float64] = np.zeros(design.shape[1])
    for _ in range(6):
        coefficients = np.asarray(np.linalg.lstsq(design[keep], data[keep], rcond=None)[0], dtype=np.float64)
        residual = data - design @ coefficients
        spread = max(robust_sigma(residual[keep]), 1e-9)
        keep = np.isfinite(residual) & (np.abs(residual - np.median(residual[keep])) < TRIM_SIGMA * spread)
    field = np.zeros(where.shape, dtype=np.float32)
    for coefficient, term in zip(coefficients, _terms(z, y, x), strict=True):
        field += np.float32(coefficient) * term
    return field
