"""How far off a deformable registration may be, in mm for every voxel.

Perturb-and-MAP (Papandreou and Yuille, ICCV 2011) on the linearised fit: the residuals are given random signs in
patches (a wild bootstrap: where the images disagree, the perturbation is large), the prior its own noise, and each
perturbation is solved on the lattice. What no perturbation shows is what the prior itself cuts off where the shift
bends most: how far it pulls the shift back says how much that may be. At the walls of a cavity that drew in, which were
let go, the pull of whole tissue says how far the fit had to guess. A last term covers the wall, whose grey values are
those of surgery, and the surface that has let go of the dura, beyond which nothing is matched. The factors are
calibrated on simulated cases.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK
from IntraopMRIReconstructionLib.data import Image
from scipy import ndimage

from .lattice import Basis, Bending
from .matching import LevelFit
from .sampling import Float32Array

#: Perturbations; the variance they give is smoothed over SMOOTHING_MM, so few suffice.
PERTURBATIONS = 8
SMOOTHING_MM = 6.0
#: Residuals of neighbouring voxels err together over this length, voxels: interpolation, folds, partial volume.
PATCH_VOXELS = 3
#: The pull of the prior is smoothed less: it is largest at the wall itself.
PULL_SMOOTHING_MM = 4.0
#: 95 % radius = root of the sum of squares of FLOOR_MM, DATA x data deviation, PRIOR x prior deviation, PULL x the pull
#: of the prior, WHOLE x that of whole tissue and WALL_MM x exp(-distance to the cavity / WALL_REACH_MM). Calibrated on
#: cases of three heads (sinking, bulging, drawn in; a third of the shifts solved by elasticity), held against cases of
#: three others, none of them the benchmark's: within 15 mm of the cavity it covers 98 to 100 % of each of seven, with
#: 0.56 mm on average; farther away 97 % of eighteen, 93 to 100 % of each, with 0.31 mm.
FLOOR_MM, DATA, PRIOR, PULL, WHOLE, WALL_MM, WALL_REACH_MM = 0.05, 7.5, 4.0, 9.0, 3.0, 0.8, 1.5
#: Below a surface that has sunk away from the dura the wall's term falls more slowly: the border that is matched is of
#: the brain with the fluid upon it. Chosen on four cases under air (two heads, one with nothing resected), none of them
#: the benchmark's: of the top 25 mm it covers 94 to 100 % of each.
GAP_REACH_MM = 6.0
#: Deep in a large cavity the pull of whole tissue grows without end; no border carried over was off by more, mm.
WHOLE_MOST_MM = 2.5
#: The factors belong to this resolution. Neighbours share information (point spread, interpolation), so a finer grid
#: knows less than the number of its voxels says: both deviations grow with the root of its inverse.
FACTORS_AT_MM = 2.0
#: Doubt grows by this much for each mm outside the brain, where nothing was matched.
OUTSIDE = 0.2


def uncertainty_mm(
    fit: LevelFit,
    coefficients: Float32Array,
    shift: Image,
    brain: Image,
    from_cavity_mm: npt.NDArray[np.floating],
    from_gap_mm: npt.NDArray[np.floating],
) -> Image:
    """Radius (k, j, i) in mm, on the grid of ``shift``, that holds the true position in 95 of 100 cases.

    ``from_cavity_mm``, ``from_gap_mm``: distance of each voxel to the cavity, and to where the brain has let go of the
    dura; infinite without one.
    """
    data, prior, pull, whole = deviations_mm(fit, coefficients, shift)
    factor = float(np.sqrt(FACTORS_AT_MM / fit.voxel_mm))
    wall = WALL_MM * np.exp(-np.minimum(from_cavity_mm / WALL_REACH_MM, from_gap_mm / GAP_REACH_MM))
    spread = (DATA * factor * data) ** 2 + (PRIOR * factor * prior) ** 2
    guessed = (PULL * pull) ** 2 + np.minimum(WHOLE * whole, WHOLE_MOST_MM) ** 2
    radius = np.sqrt(FLOOR_MM**2 + spread + guessed + wall**2)
    outside = distance_mm(brain) if np.any(brain.array) else 0.0
    return Image((radius + OUTSIDE * outside).astype(np.float32), shift.ras_from_ijk, "uncertainty 95 % (mm)")


def distance_mm(mask: Image) -> Float32Array:
    """Distance of each voxel to the mask in mm, infinite without one.

    Maurer et al., IEEE PAMI 25:265, 2003.
    """
    if not np.any(mask.array):
        return np.full(mask.array.shape, np.inf, dtype=np.float32)
    image = SimpleITK.GetImageFromArray(np.asarray(mask.array != 0, dtype=np.uint8))
    image.SetSpacing(mask.spacing_mm.tolist())
    signed = SimpleITK.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    return np.maximum(SimpleITK.GetArrayViewFromImage(signed), np.float32(0))


def deviations_mm(fit: LevelFit, coefficients: Float32Array, shift: Image) -> list[Float32Array]:
    """Four images (k, j, i), mm, on the grid of ``shift``.

    Deviation from perturbed data, and from the perturbed prior; how far the prior pulls the shift back, and how far it
    would if all were whole tissue.
    """
    rng = np.random.default_rng(0)
    residual, gradient, weight = fit.weighed(coefficients)
    blocks = fit.blocks(gradient, weight)
    strength = gradient * (weight * residual)
    patches = (fit.points_kji / PATCH_VOXELS).astype(np.intp)
    shape = tuple((patches.max(axis=1) + 1).tolist())
    patch = np.ravel_multi_index(tuple(patches), shape)
    spread = np.float32(np.sqrt(np.average(residual**2, weights=weight + 1e-12)))
    basis = Basis(fit.basis.lattice, shift.array.shape[:3], shift.spacing_mm[::-1])

    def squared(push: Float32Array) -> Float32Array:
        return np.asarray((basis.evaluated(fit.solved(blocks, push)) ** 2).sum(axis=0))

    def deviation(squares: list[Float32Array], smoothing_mm: float) -> Float32Array:
        mean = sum(squares[1:], squares[0]) / len(squares)
        return np.sqrt(ndimage.gaussian_filter(mean, smoothing_mm / shift.spacing_mm[::-1], truncate=2.5))

    data, prior = [], []
    for _ in range(PERTURBATIONS):
        signs = rng.standard_normal(int(np.prod(shape))).astype(np.float32)[patch]
        data.append(squared(fit.gathered(list(strength * signs))))
    # The noise of the prior is as large as what it holds: what is gone holds less.
    held = np.sqrt(fit.stiffness * fit.bending.firm) * spread
    for _ in range(PERTURBATIONS // 2):
        prior.append(squared(_rough(held * rng.standard_normal(coefficients.shape).astype(np.float32))))
    whole = Bending(np.ones_like(fit.bending.firm))
    pulls = [[squared(fit.stiffness * bending(coefficients))] for bending in (fit.bending, whole)]
    smoothing = (SMOOTHING_MM, SMOOTHING_MM, PULL_SMOOTHING_MM, PULL_SMOOTHING_MM)
    return [deviation(squares, mm) for squares, mm in zip((data, prior, *pulls), smoothing, strict=True)]


def _rough(noise: Float32Array) -> Float32Array:
    """Noise whose covariance is about that of the bending operator: its square root applied to white noise."""
    result = np.zeros_like(noise)
    for axis in (1, 2, 3):
        result += 2.0 * noise - np.roll(noise, 1, axis) - np.roll(noise, -1, axis)
    return result
