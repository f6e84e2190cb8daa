"""A plausible head around a skull-stripped brain: CSF, dura, skull with marrow, muscle, fat, skin, eyes and neck.

Drawn from smooth distance shells. It is there so that registration and display meet a head, not as anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..data import FloatArray, Matrix
from .grids import Shape, coarser, distance_mm, points_of, resampled, smooth_noise, smoothstep, stream

# T1 intensities of the lab; white matter is 800.
WHITE, GREY, CSF, BLOOD_VESSEL = 800.0, 560.0, 150.0, 260.0
BONE, MARROW, MUSCLE, FAT, SKIN, VITREOUS, DURA = 45.0, 430.0, 360.0, 940.0, 520.0, 170.0, 300.0

#: Radius (mm) of the closing that turns the brain's folded surface into the inner skull.
HULL_CLOSING_MM = 12.0
#: Distances are taken on this grid (mm): shells are smooth, and it is 8 times as fast as 1 mm.
COARSE_MM = 2.0


@dataclass(frozen=True, eq=False)
class Head:
    """Static tissue around a brain, all arrays (k, j, i) float32 on the brain's grid.

    ``t1``: intensities with the brain replaced by CSF; ``enhancement``: what contrast agent adds (sinus, vessels,
    mucosa); ``hull_mm``: signed distance to the inner skull, negative inside.
    """

    t1: FloatArray
    enhancement: FloatArray
    hull_mm: FloatArray


def hull_distance(brain: npt.NDArray[np.bool_], ras_from_ijk: Matrix) -> FloatArray:
    """Signed distance (mm) to the inner skull around ``brain`` (k, j, i) on the same grid; negative inside."""
    coarse, shape = coarser(ras_from_ijk, brain.shape, COARSE_MM)
    small = resampled(brain, ras_from_ijk, coarse, shape, outside=None) > 0.5
    grown = distance_mm(small, COARSE_MM) < HULL_CLOSING_MM
    closed = distance_mm(~grown, COARSE_MM) > HULL_CLOSING_MM
    distance = ndimage.gaussian_filter(distance_mm(closed | small, COARSE_MM), 1.0)
    return resampled(distance, coarse, ras_from_ijk, brain.shape, outside=None)


def head_around(brain: npt.NDArray[np.bool_], ras_from_ijk: Matrix, seed: int) -> Head:
    """Draw a head around ``brain`` (k, j, i), an axis-aligned RAS grid of 1 mm; layers vary smoothly with ``seed``."""
    shape: Shape = brain.shape
    hull = hull_distance(brain, ras_from_ijk)
    coarse, small = coarser(ras_from_ijk, shape, COARSE_MM)
    rng = stream(seed, "head")
    points = points_of(coarse, small)
    where = np.argwhere(brain)
    low = where.min(axis=0)[::-1] + ras_from_ijk[:3, 3]
    high = where.max(axis=0)[::-1] + ras_from_ijk[:3, 3]
    at = (points - (low + high) / 2) / (high - low)  # brain box: -0.5 .. 0.5 along R, A, S
    hull_small = resampled(hull, ras_from_ijk, coarse, small, outside=None)

    csf = 2.2 + 0.5 * smooth_noise(small, 10, rng)
    bone = 6.5 + 1.2 * smooth_noise(small, 12, rng) + 2.5 * smoothstep((at[..., 1] - 0.3) * 4)
    scalp = 6.0 + 0.8 * smooth_noise(small, 12, rng)
    # Temples carry muscle, the vault does not.
    scalp += 9.0 * np.exp(-(((at[..., 2] + 0.2) / 0.16) ** 2)) * np.exp(-(((at[..., 1] - 0.12) / 0.2) ** 2))
    outer = _smooth_union(hull_small - csf - bone - scalp, _face_and_neck(at, high - low))
    outer = outer + 0.6 * smooth_noise(small, 5, rng)
    texture = smooth_noise(small, 1.0, rng)

    def fine(value: FloatArray) -> FloatArray:
        return resampled(value, coarse, ras_from_ijk, shape, outside=None)

    csf, bone, outer, texture = fine(csf), fine(bone), fine(outer), fine(texture)
    into_bone = (hull - csf) / bone
    depth = -outer
    t1 = np.where(depth < 1.8, SKIN, np.where(depth < 5.2, FAT, MUSCLE + 45 * texture))
    septa = (depth > 9) & (np.abs(texture) < 0.16)
    t1 = np.where(septa & (depth >= 5.2), 0.75 * FAT, t1)
    marrow = np.exp(-(((into_bone - 0.5) / 0.22) ** 2)) * (1 + 0.25 * texture)
    t1 = np.where(into_bone < 1.0, BONE + (MARROW - BONE) * marrow, t1)
    t1 = np.where(depth < 0, 0.0, t1)
    t1 = _eyes(t1, ras_from_ijk, low, high, hull)
    t1 = np.where(into_bone < 0, DURA, t1)
    t1 = np.where(hull < csf - 1.0, CSF, t1)

    enhancement = normal_enhancement(brain, hull, ras_from_ijk, csf, seed)
    t1 = np.where(enhancement > 500, BLOOD_VESSEL, t1)
    enhancement = enhancement + 120.0 * ((into_bone < 0) & (hull >= csf - 1.0))
    smooth = 0.6  # partial volume at the borders of the shells
    return Head(
        np.asarray(ndimage.gaussian_filter(t1.astype(np.float32), smooth)),
        np.asarray(ndimage.gaussian_filter(enhancement.astype(np.float32), smooth)),
        hull,
    )


def _smooth_union(first: FloatArray, second: FloatArray, radius_mm: float = 8.0) -> FloatArray:
    """Union of two distance fields with a fillet of about ``radius_mm``."""
    blend = np.clip(0.5 + 0.5 * (second - first) / radius_mm, 0, 1)
    return np.asarray(second + (first - second) * blend - radius_mm * blend * (1 - blend))


def _face_and_neck(at: FloatArray, size_mm: FloatArray) -> FloatArray:
    """Distance-like field (mm, negative inside) of a neck and a face, in units of the brain's box ``at``."""

    def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> FloatArray:
        scaled = (at - np.array(centre, np.float32)) / np.array(radii, np.float32)
        return np.asarray((np.linalg.norm(scaled, axis=-1) - 1) * min(np.asarray(radii) * size_mm))

    neck = np.hypot(at[..., 0] / 0.46, (at[..., 1] + 0.14) / 0.36) - 1
    neck = np.maximum(neck * 0.4 * float(size_mm[0]), (at[..., 2] + 0.2) * float(size_mm[2]))
    face = ellipsoid((0.0, 0.28, -0.55), (0.47, 0.33, 0.5))
    nose = ellipsoid((0.0, 0.58, -0.52), (0.09, 0.12, 0.16))
    return _smooth_union(_smooth_union(neck, face), nose)


def _eyes(t1: FloatArray, ras_from_ijk: Matrix, low: FloatArray, high: FloatArray, hull: FloatArray) -> FloatArray:
    """Dark vitreous in bright orbital fat, and air in the nose and sinuses."""
    x, y, z = _open_axes(ras_from_ijk, t1.shape, (low + high) / 2)
    size = high - low
    outside = (hull > 6.0) & (t1 > 0)

    def ball(at: tuple[float, float, float], radii_mm: tuple[float, float, float]) -> FloatArray:
        terms = ((w - a * n) / r for w, a, n, r in zip((x, y, z), at, size, radii_mm, strict=True))
        return sum(np.square(term, dtype=np.float32) for term in terms)

    for side in (-1.0, 1.0):
        orbit, eye = ball((side * 0.23, 0.40, -0.33), (18, 24, 17)), ball((side * 0.23, 0.46, -0.33), (12, 12, 12))
        t1 = np.where((orbit < 1) & outside, FAT, t1)
        t1 = np.where((eye < 1.16) & outside, MUSCLE, t1)
        t1 = np.where((eye < 1) & outside, VITREOUS, t1)
        t1 = np.where((ball((side * 0.17, 0.36, -0.56), (13, 17, 17)) < 1) & outside, 8.0, t1)
    return np.asarray(np.where((ball((0, 0.42, -0.5), (8, 30, 20)) < 1) & outside, 8.0, t1))


def _open_axes(ras_from_ijk: Matrix, shape: Shape, centre: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """R, A, S coordinates about ``centre`` of an axis-aligned grid of 1 mm, each broadcastable to (k, j, i)."""
    x, y, z = (np.arange(n, dtype=np.float32) + (ras_from_ijk[a, 3] - centre[a]) for a, n in enumerate(shape[::-1]))
    return x[None, None, :], y[None, :, None], z[:, None, None]


def normal_enhancement(
    brain: npt.NDArray[np.bool_], hull_mm: FloatArray, ras_from_ijk: Matrix, csf_mm: FloatArray | float, seed: int
) -> FloatArray:
    """What contrast agent adds to healthy tissue: superior sagittal sinus, falx, a net of surface vessels; (k, j, i).

    ``csf_mm``: how thick the fluid between the inner skull and the brain is.
    """
    shape: Shape = brain.shape
    where = np.argwhere(brain)[:, ::-1]
    centre = (where.min(axis=0) + where.max(axis=0)) / 2 + ras_from_ijk[:3, 3]
    x, y, z = _open_axes(ras_from_ijk, shape, centre)
    vault = (z > 0) | ((y < -60) & (z > -25))
    sinus = vault & (np.hypot(x / 4.5, (hull_mm - csf_mm + 1.0) / 4.0) < 1)
    falx = vault & (np.abs(x) < 0.9) & (hull_mm > -28) & (hull_mm < csf_mm) & ~brain
    coarse, small = coarser(ras_from_ijk, shape, COARSE_MM)
    rng = stream(seed, "vessels")
    nets = [resampled(smooth_noise(small, 3.2, rng), coarse, ras_from_ijk, shape, outside=None) for _ in range(2)]
    vessel = (np.hypot(*nets) < 0.16) & (hull_mm > -7) & (hull_mm < csf_mm - 0.5) & (z > -35)
    return np.asarray(750.0 * sinus + 620.0 * vessel + 220.0 * falx, dtype=np.float32)
