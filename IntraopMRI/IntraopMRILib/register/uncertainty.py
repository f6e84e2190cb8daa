"""How far off a deformable registration may be, in mm for every voxel.

Perturb-and-MAP (Papandreou and Yuille, ICCV 2011) on the linearised fit: the residuals are given random signs in
patches (a wild bootstrap: where the images disagree, the perturbation is large), the prior its own noise, and each
perturbation is solved on the lattice. What the linear picture cannot see (a wrong local minimum, tissue that tore) is
covered by terms for the cavity's wall and the displacement itself. The factors are calibrated on simulated cases.
"""

from __future__ import annotations

import numpy as np
from IntraopMRIReconstructionLib.data import Image
from scipy import ndimage

from .lattice import Basis
from .matching import LevelFit
from .sampling import Float32Array

#: Perturbations; the variance they give is smoothed over SMOOTHING_MM, so few suffice.
PERTURBATIONS = 8
SMOOTHING_MM = 6.0
#: Residuals of neighbouring voxels err together over this length, voxels: interpolation, folds, partial volume.
PATCH_VOXELS = 3
#: 95 % radius = root of the sum of squares of: floor, DATA x data deviation, PRIOR x prior deviation,
#: WALL x exp(-distance to the cavity / WALL_MM) and MOVED x displacement.
FLOOR_MM, DATA, PRIOR, WALL, WALL_MM, MOVED = 0.25, 2.5, 1.0, 0.5, 8.0, 0.05


def uncertainty_mm(fit: LevelFit, coefficients: Float32Array, shift: Image, brain: Image, cavity: Image) -> Image:
    """Radius (k, j, i) in mm, on the grid of ``shift``, that holds the true position in 95 of 100 cases."""
    data, prior = deviations_mm(fit, coefficients, shift)
    distance = distance_mm(cavity)
    moved = np.linalg.norm(shift.array, axis=-1)
    wall = WALL * np.exp(-distance / WALL_MM)
    radius = np.sqrt(FLOOR_MM**2 + (DATA * data) ** 2 + (PRIOR * prior) ** 2 + wall**2 + (MOVED * moved) ** 2)
    # Outside the brain nothing was matched: the doubt grows with the way to what was.
    outside = ndimage.distance_transform_edt(brain.array == 0, sampling=brain.spacing_mm[::-1])
    return Image((radius + 0.2 * outside).astype(np.float32), shift.ras_from_ijk, "uncertainty 95 % (mm)")


def distance_mm(mask: Image) -> np.ndarray:
    """Distance of each voxel to the mask in mm, infinite without one."""
    if not np.any(mask.array):
        return np.full(mask.array.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(mask.array == 0, sampling=mask.spacing_mm[::-1]))


def deviations_mm(fit: LevelFit, coefficients: Float32Array, shift: Image) -> tuple[Float32Array, Float32Array]:
    """Deviations (k, j, i) in mm on the grid of ``shift`` from perturbed data and from the perturbed prior."""
    rng = np.random.default_rng(0)
    residual, gradient, weight = fit.weighed(coefficients)
    blocks = fit.blocks(gradient, weight)
    strength = gradient * (weight * residual)
    patches = (fit.points_kji / PATCH_VOXELS).astype(np.intp)
    shape = tuple((patches.max(axis=1) + 1).tolist())
    patch = np.ravel_multi_index(tuple(patches), shape)
    spread = float(np.sqrt(np.average(residual**2, weights=weight + 1e-12)))
    basis = Basis(fit.basis.lattice, shift.array.shape[:3], shift.spacing_mm[::-1])
    results = []
    for draws in ("data", "prior"):
        variance = np.zeros(shift.array.shape[:3], dtype=np.float32)
        for _ in range(PERTURBATIONS if draws == "data" else PERTURBATIONS // 2):
            if draws == "data":
                signs = rng.standard_normal(int(np.prod(shape))).astype(np.float32)[patch]
                push = fit.gathered(list(strength * signs))
            else:
                noise = rng.standard_normal(coefficients.shape).astype(np.float32)
                push = np.sqrt(fit.stiffness) * np.float32(spread) * _rough(noise)
            variance += (basis.evaluated(fit.solved(blocks, push)) ** 2).sum(axis=0)
        variance /= PERTURBATIONS if draws == "data" else PERTURBATIONS // 2
        sigma = SMOOTHING_MM / shift.spacing_mm[::-1]
        results.append(np.sqrt(ndimage.gaussian_filter(variance, sigma, truncate=2.5)))
    return results[0], results[1]


def _rough(noise: Float32Array) -> Float32Array:
    """Noise whose covariance is about that of the bending operator: its square root applied to white noise."""
    result = np.zeros_like(noise)
    for axis in (1, 2, 3):
        result += 2.0 * noise - np.roll(noise, 1, axis) - np.roll(noise, -1, axis)
    return result
