"""Distortion of EPI along its phase encoding, from two images whose blips run in opposite directions.

Sources: Chang and Fitzpatrick, IEEE Trans Med Imaging 11:319 (1992): both images show every point moved equally far, to
opposite sides, and signal is squeezed but not lost; Andersson, Skare, Ashburner, NeuroImage 20:870 (2003) for a smooth
field found by making the two corrected images alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.sparse.linalg
from scipy.ndimage import gaussian_filter, map_coordinates

from ..data import Progress, no_progress
from ..errors import Cancelled, ReconstructionError

Volume = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]

#: Smoothing of the images in voxels, coarse to fine, and Gauss-Newton steps at each: large shifts are found first.
LEVELS = ((4.0, 6), (2.0, 6), (1.0, 6))
#: Weight of the field's slopes against the images' difference, both over the images' strength.
SMOOTHNESS = 0.01
#: Iterations of the linear solver in each step; the next step begins where it stopped.
SOLVER_ITERATIONS = 60
#: Squeezing beyond this has put signals onto one another; their brightness can no longer be told apart.
MIN_STRETCH = 0.2
#: The two corrected images must be at least this much more alike, or there was no distortion of this kind.
MIN_GAIN = 0.02


@dataclass(frozen=True, eq=False)
class Undistorted:
    """``magnitude``: (z, y, x) float32, both images corrected and averaged. ``shift``: (z, y, x) float32 voxels along
    the phase encoding by which the blip-up image shows each point too far. ``difference_before`` and
    ``difference_after``: of the two images, over their strength. ``warnings``: what a person must know."""

    magnitude: Volume
    shift: Volume
    difference_before: float
    difference_after: float
    warnings: tuple[str, ...]


def from_opposed_blips(
    up: npt.NDArray[Any], down: npt.NDArray[Any], axis: int = 1, progress: Progress = no_progress
) -> Undistorted:
    """Correct magnitude images ``up`` and ``down`` (z, y, x) with opposite phase-encoding blips along ``axis``.

    ``progress`` is called each iteration; Cancelled when it returns False. Raises ReconstructionError for shapes that
    differ, values that are not finite, or an empty image. The field in Hz is ``shift`` times the bandwidth of a voxel.
    """
    if up.shape != down.shape or up.ndim != 3 or up.shape[axis] < 8:
        raise ReconstructionError(
            f"opposed blips need two images (z, y, x) of one shape with 8 voxels along the blips, got {up.shape} and "
            f"{down.shape}"
        )
    if not (np.isfinite(up).all() and np.isfinite(down).all() and np.any(up) and np.any(down)):
        raise ReconstructionError("opposed blips need finite images that are not empty: acquire both again")
    first, second = (np.moveaxis(np.abs(image).astype(np.float64), axis, -1) for image in (up, down))
    # The receiver may differ a little between both; the sum of all signal does not.
    second = second * (first.sum() / second.sum())
    scale = float(np.sqrt(np.mean((first + second) ** 2) / 4))
    shift = np.zeros(first.shape)
    slope, roughness = _operators(first.shape)
    whole, done = sum(count for _, count in LEVELS), 0
    for smoothing, iterations in LEVELS:
        sigma = [smoothing if size > 1 else 0.0 for size in first.shape]
        smooth = [gaussian_filter(image, sigma) / scale for image in (first, second)]
        for _ in range(iterations):
            if not progress(done / whole, "opposed blips"):
                raise Cancelled("distortion correction stopped")
            done += 1
            # Moving and squeezing together: d(corrected) = d/dy (image at its place times the change of shift).
            one, other = _moved(smooth[0], shift), _moved(smooth[1], -shift)
            difference = _corrected(smooth[0], shift) - _corrected(smooth[1], -shift)
            change = slope @ scipy.sparse.diags((one + other).ravel())
            system = change.T @ change + SMOOTHNESS * roughness
            wanted = -(change.T @ difference.ravel()) - SMOOTHNESS * (roughness @ shift.ravel())
            step, _ = scipy.sparse.linalg.cg(system, wanted, rtol=1e-3, maxiter=SOLVER_ITERATIONS)
            shift = shift + step.reshape(shift.shape)
    one, other = _corrected(first, shift), _corrected(second, -shift)
    strength = float(np.linalg.norm(first + second)) / 2
    before = float(np.linalg.norm(first - second)) / strength
    after = float(np.linalg.norm(one - other)) / strength
    warnings = []
    if before - after < MIN_GAIN:
        warnings.append(f"the two images are hardly more alike after correction ({after:.2f} of {before:.2f})")
    if (1 - np.abs(np.gradient(shift, axis=-1)) < MIN_STRETCH).any():
        warnings.append("signal is piled up in places, where brightness cannot be restored")
    magnitude = np.moveaxis((one + other) / 2, -1, axis)
    return Undistorted(
        magnitude.astype(np.float32), np.moveaxis(shift, -1, axis).astype(np.float32), before, after, tuple(warnings)
    )


def _corrected(image: Array, shift: Array) -> Array:
    """The image (..., n) whose points appear ``shift`` too far along the last axis, with their signal unsqueezed."""
    return _moved(image, shift) * np.maximum(1 + np.gradient(shift, axis=-1), 0)


def _moved(image: Array, shift: Array) -> Array:
    places = np.indices(image.shape, dtype=np.float64)
    places[-1] += shift
    return np.asarray(map_coordinates(image, places, order=1, mode="nearest"))


def _operators(shape: tuple[int, ...]) -> tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix]:
    """(slope along the last axis, sum of squared differences of neighbours along all axes) of a flat volume."""
    eyes = [scipy.sparse.identity(size) for size in shape]
    size = shape[-1]
    central = scipy.sparse.diags([-0.5, 0.5], [-1, 1], shape=(size, size)).tolil()
    central[0, :2], central[-1, -2:] = [-1, 1], [-1, 1]
    slope = scipy.sparse.kron(scipy.sparse.kron(eyes[0], eyes[1]), central).tocsr()
    roughness = scipy.sparse.csr_matrix((int(np.prod(shape)),) * 2)
    for axis, size in enumerate(shape):
        step = scipy.sparse.diags([-1.0, 1.0], [0, 1], shape=(max(size - 1, 0), size)) if size > 1 else None
        if step is not None:
            parts = [step.T @ step if a == axis else eye for a, eye in enumerate(eyes)]
            roughness = roughness + scipy.sparse.kron(scipy.sparse.kron(parts[0], parts[1]), parts[2])
    return slope, roughness.tocsr()
