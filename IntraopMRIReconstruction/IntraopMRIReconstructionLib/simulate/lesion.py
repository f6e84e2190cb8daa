"""A tumour, the way to it, its resection and what was left behind, before any brain shift.

All arrays (k, j, i) live on the anatomy's 1 mm grid or on a box of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..data import FloatArray
from ..errors import DataError
from ..geometry import apply
from .anatomy import SPACING_MM, Anatomy
from .fields import Opening
from .grids import coarser, index_coordinates, points_of, resampled, sampled, smooth_noise, stream

BoolArray = npt.NDArray[np.bool_]

#: Values of the preoperative tumour label.
ENHANCING, NECROSIS, NON_ENHANCING = 1, 2, 3
TUMOUR_LABELS = {"enhancing": ENHANCING, "necrosis": NECROSIS, "non-enhancing": NON_ENHANCING}

VOXEL_ML = SPACING_MM**3 / 1000.0
RIM_MM = 4.5
INFILTRATION_MM = 8.0
BONE_FLAP_RADIUS_MM = 27.0
CORRIDOR_RADIUS_MM = 9.0
#: Half the width of the box around the tumour and the way to it (voxels).
REACH = 56
#: Wanted depth of the tumour's centre under the brain surface, and its distance from the mid-line (mm).
DEPTH_MM = (19.0, 29.0)
OFF_MIDLINE_MM = 22.0


@dataclass(frozen=True, eq=False)
class Tumour:
    """A tumour before surgery: ``label`` (k, j, i) uint8 of TUMOUR_LABELS, and the craniotomy that gives access to it.

    ``box``: all of it and of the way to it lies inside; ``level_mm``: distance-like, positive inside rim and core, of
    the box alone.
    """

    label: npt.NDArray[np.uint8]
    level_mm: FloatArray
    box: tuple[slice, slice, slice]
    centre_ras_mm: npt.NDArray[np.float64]
    radius_mm: float
    opening: Opening


@dataclass(frozen=True, eq=False)
class Resection:
    """What surgery did, where the tissue lay before it; boolean (k, j, i).

    ``cavity``: all that was taken out, the corridor included. ``residual``: enhancing tumour left at the cavity's wall.
    ``residual_non_enhancing``: infiltrated tissue left.
    """

    cavity: BoolArray
    residual: BoolArray
    residual_non_enhancing: BoolArray


@dataclass(frozen=True)
class Filling:
    """What the cavity holds at the scan beside saline, with air on top.

    ``packed``: this part of its volume, from the bottom, is clot or haemostatic material with the native T1 ``signal``
    (white matter is 800), whose relative standard deviation is ``uneven``; ``bubbles``: part of that which is air.
    """

    packed: float = 0.0
    signal: float = 1120.0
    uneven: float = 0.1
    bubbles: float = 0.0


SALINE = Filling()


def make_tumour(anatomy: Anatomy, seed: int, tumour_ml: float) -> Tumour:
    """Grow a tumour whose rim and core have exactly ``tumour_ml`` in white matter near the surface.

    Raises DataError when the anatomy has no place for it.
    """
    if tumour_ml <= 0:
        raise DataError(f"tumour_ml must be positive, got {tumour_ml}")
    rng = stream(seed, "tumour")
    site = _site(anatomy, rng)
    k, j, i = (int(n) for n in np.round(index_coordinates(anatomy.ras_from_ijk, site)))
    box = (
        slice(max(k - REACH, 0), k + REACH),
        slice(max(j - REACH, 0), j + REACH),
        slice(max(i - REACH, 0), i + REACH),
    )
    around = anatomy.cropped(box)
    level = _level(around, site, tumour_ml, rng)
    label = np.zeros(anatomy.brain.shape, dtype=np.uint8)
    label[box] = _label(around, level, rng)
    centre = apply(around.ras_from_ijk, np.array(ndimage.center_of_mass(level >= 0))[::-1])
    radius = float((3 * tumour_ml * 1000 / (4 * np.pi)) ** (1 / 3))
    return Tumour(label, level, box, centre, radius, _opening(anatomy, centre))


def resect(
    anatomy: Anatomy, tumour: Tumour, seed: int, residual_ml: float, volume_change: FloatArray, leave_infiltration: bool
) -> Resection:
    """Take out all but ``residual_ml`` of the rim.

    ``volume_change`` (k, j, i): how much a voxel grows until the scan (Jacobian determinant of the shift), so that
    ``residual_ml`` is what the scan will show. The same ``seed`` with less leaves a part of the larger residual: a
    further resection. Raises DataError when more is asked for than half the rim.
    """
    around, label, opening = anatomy.cropped(tumour.box), tumour.label[tumour.box], tumour.opening
    points = points_of(around.ras_from_ijk, label.shape)
    height, aside = opening.along_and_aside(points)
    depth_of_centre = float((opening.centre_ras_mm - tumour.centre_ras_mm) @ opening.outward)
    corridor = around.brain & (aside < CORRIDOR_RADIUS_MM) & (height > -depth_of_centre)

    growth = volume_change[tumour.box]
    residual = _residual(tumour, points, residual_ml, growth, stream(seed, "residual"))
    core = (label == ENHANCING) | (label == NECROSIS)
    # The surgeon's margin: a thin layer beyond the rim goes too, but not beyond what is left behind.
    taken = core | corridor | ((tumour.level_mm > -1.2) & around.brain)
    guard = ndimage.binary_dilation(residual, iterations=3) & ~core
    cavity = taken & ~residual & ~guard
    infiltrated = label == NON_ENHANCING
    if not leave_infiltration:
        cavity |= infiltrated & ~guard

    def whole(part: BoolArray) -> BoolArray:
        result = np.zeros(anatomy.brain.shape, dtype=bool)
        result[tumour.box] = part
        return result

    return Resection(whole(cavity), whole(residual), whole(infiltrated & ~cavity))


def low_grade(tumour: Tumour) -> Tumour:
    """The same tumour, none of which enhances or is necrotic; nothing infiltrates beyond it."""
    label = np.zeros_like(tumour.label)
    label[tumour.box][tumour.level_mm >= 0] = NON_ENHANCING
    return replace(tumour, label=label)


def resect_part(anatomy: Anatomy, tumour: Tumour, seed: int, left: float) -> Resection:
    """Take all of a low-grade tumour but the part ``left`` (0..1) of its volume on the deep side, with the way to it.

    With nothing left a layer of the tissue around it goes too, with all left nothing is taken. Raises DataError for
    another part.
    """
    if not 0.0 <= left <= 1.0:
        raise DataError(f"the part that is left must be 0 to 1, got {left}")
    around, inside, opening = anatomy.cropped(tumour.box), tumour.level_mm >= 0, tumour.opening
    points = points_of(around.ras_from_ijk, inside.shape)
    tilt = stream(seed, "left").normal(0, 0.35, 3)
    deep = -(points - tumour.centre_ras_mm) @ (opening.outward + tilt - opening.outward * (tilt @ opening.outward))
    stays = deep > np.quantile(deep[inside], 1.0 - left) if left else np.zeros_like(inside)
    height, aside = opening.along_and_aside(points)
    centre_mm = float((opening.centre_ras_mm - tumour.centre_ras_mm) @ opening.outward)
    corridor = around.brain & (aside < CORRIDOR_RADIUS_MM) & (height > -centre_mm)
    cavity = (corridor | ((tumour.level_mm > -1.2) & around.brain)) & ~stays & (left < 1.0)

    def whole(part: BoolArray) -> BoolArray:
        result = np.zeros(anatomy.brain.shape, dtype=bool)
        result[tumour.box] = part
        return result

    return Resection(whole(cavity), whole(np.zeros_like(inside)), whole(inside & ~cavity))


def _site(anatomy: Anatomy, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A place in white matter, off the mid-line, above the skull base and not too deep."""
    coarse, small = coarser(anatomy.ras_from_ijk, anatomy.brain.shape, 3.0)
    hull = resampled(anatomy.hull_mm, anatomy.ras_from_ijk, coarse, small, outside=None)
    white = resampled(ndimage.gaussian_filter(anatomy.white, 4.0), anatomy.ras_from_ijk, coarse, small)
    offset = points_of(coarse, small) - anatomy.centre_ras_mm
    good = (-hull > DEPTH_MM[0]) & (-hull < DEPTH_MM[1]) & (np.abs(offset[..., 0]) > OFF_MIDLINE_MM)
    good &= (offset[..., 2] > 5.0) & (np.abs(offset[..., 1]) < 50.0)
    if not good.any():
        raise DataError(f"'{anatomy.name}' has no white matter where a tumour could be placed; name another T1 volume")
    candidates = np.argwhere(good & (white >= np.quantile(white[good], 0.7)))
    return apply(coarse, rng.choice(candidates)[::-1])


def _opening(anatomy: Anatomy, centre: npt.NDArray[np.float64]) -> Opening:
    """The craniotomy on the nearest point of the inner skull."""
    coarse, small = coarser(anatomy.ras_from_ijk, anatomy.hull_mm.shape, 2.0)
    hull = resampled(anatomy.hull_mm, anatomy.ras_from_ijk, coarse, small, outside=None)
    gradient = np.stack(list(np.gradient(hull)), axis=-1)[..., ::-1]
    position = centre.copy()
    for _ in range(40):
        at = index_coordinates(coarse, position)
        height = float(sampled(hull, at))
        slope = sampled(gradient, at).astype(np.float64)
        outward = slope / max(float(np.linalg.norm(slope)), 1e-9)
        if abs(height) < 0.2:
            break
        position = position - 0.7 * height * outward
    axis = position - centre
    return Opening(position, axis / np.linalg.norm(axis), BONE_FLAP_RADIUS_MM)


def _level(anatomy: Anatomy, centre: npt.NDArray[np.float64], tumour_ml: float, rng: np.random.Generator) -> FloatArray:
    """Distance-like field of an irregular blob whose positive part inside the brain has exactly ``tumour_ml``."""
    coarse, small = coarser(anatomy.ras_from_ijk, anatomy.brain.shape, 2.0)
    points = points_of(coarse, small) - centre.astype(np.float32)
    stretch = np.exp(rng.normal(0, 0.1, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    blob = -np.linalg.norm(points * stretch.astype(np.float32), axis=-1)
    blob += 2.2 * smooth_noise(small, 4.0, rng) + 0.8 * smooth_noise(small, 1.8, rng)
    level = resampled(blob, coarse, anatomy.ras_from_ijk, anatomy.brain.shape, outside=None)
    # A tumour respects the ventricles and the surface.
    allowed = ndimage.binary_erosion(anatomy.brain, iterations=3) & (anatomy.brain_t1 > 330)
    allowed = ndimage.binary_opening(allowed) & (level > -40)
    wanted = round(tumour_ml / VOXEL_ML)
    values = level[allowed]
    if values.size <= wanted:
        raise DataError(f"a tumour of {tumour_ml} ml does not fit; choose less than {values.size * VOXEL_ML:.0f} ml")
    threshold = np.partition(values, values.size - wanted)[values.size - wanted]
    return np.where(allowed, level - threshold, np.minimum(level - threshold, -0.01)).astype(np.float32)


def _label(anatomy: Anatomy, level: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    coarse, small = coarser(anatomy.ras_from_ijk, anatomy.brain.shape, 2.0)
    uneven = resampled(smooth_noise(small, 3.0, rng), coarse, anatomy.ras_from_ijk, level.shape, outside=None)
    uneven = np.clip(uneven, -2.0, 2.0)
    label = np.zeros(level.shape, dtype=np.uint8)
    spread = INFILTRATION_MM * (0.7 + 0.4 * uneven)
    label[(level > -spread) & (level < 0) & (anatomy.white > 0.35) & anatomy.brain] = NON_ENHANCING
    label[level >= 0] = ENHANCING
    depth = SPACING_MM * ndimage.distance_transform_edt(level >= 0).astype(np.float32)
    label[depth > RIM_MM * (1 + 0.25 * uneven)] = NECROSIS
    return label


def _residual(
    tumour: Tumour, points: FloatArray, residual_ml: float, volume_change: FloatArray, rng: np.random.Generator
) -> BoolArray:
    """The part of the rim nearest to a point on its deep side: one piece that will have ``residual_ml``."""
    label = tumour.label[tumour.box]
    residual = np.zeros(label.shape, dtype=bool)
    rim = np.argwhere(label == ENHANCING)
    offset = points[tuple(rim.T)] - tumour.centre_ras_mm
    outward = tumour.opening.outward
    sideways = np.cross(outward, rng.standard_normal(3))
    direction = -0.6 * outward + sideways / np.linalg.norm(sideways)
    direction /= np.linalg.norm(direction)
    along = offset @ direction
    start = offset[np.argmax(along - 0.5 * np.linalg.norm(offset - along[:, None] * direction, axis=-1))]
    nearest = rim[np.argsort(np.linalg.norm(offset - start, axis=-1), kind="stable")]
    grown_ml = np.cumsum(volume_change[tuple(nearest.T)]) * VOXEL_ML
    if not 0 <= residual_ml <= grown_ml[-1] / 2:
        raise DataError(f"residual_ml must be 0 to half the rim ({grown_ml[-1] / 2:.1f} ml), got {residual_ml}")
    residual[tuple(nearest[: np.searchsorted(grown_ml, residual_ml)].T)] = True
    return residual
