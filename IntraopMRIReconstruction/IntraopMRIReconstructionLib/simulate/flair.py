"""The intraoperative T2 or FLAIR scan of a simulated case: tumour that is left, fluid, what surgery does to the wall.

Signal per tissue is that of a 3 T protocol in units of the lab (white matter of its T1 is 800), not of any patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..data import FloatArray, Image, Matrix
from ..geometry import apply, invert
from .anatomy import Anatomy, load_anatomy
from .grids import Shape, index_coordinates, resampled, sampled, smooth_noise, stream
from .head import CSF, GREY, WHITE
from .lesion import ENHANCING, NECROSIS, NON_ENHANCING
from .phantom import BrainCase
from .rendering import AIR, FLUID_LEVEL_MM, bias_field, rician


@dataclass(frozen=True)
class Sequence:
    """Signal of tissue; ``fluid``: CSF and saline. The darkest tissue of a T1 is bone, then fluid, grey, white."""

    name: str
    fluid: float
    grey: float
    white: float
    tumour: float
    necrosis: float
    swollen: float
    blood: float
    fat: float


FLAIR = Sequence("FLAIR", 90.0, 600.0, 480.0, 900.0, 420.0, 760.0, 1050.0, 700.0)
T2 = Sequence("T2", 1500.0, 640.0, 450.0, 900.0, 1250.0, 740.0, 330.0, 620.0)


@dataclass(frozen=True)
class Wall:
    """What surgery does around its cavity: swelling to this depth (mm), uneven, and patches of blood as deep as that;

    neither where a depth is 0.
    """

    swollen_mm: float = 2.5
    blood_mm: float = 1.2


def intraop_scan(
    case: BrainCase,
    sequence: Sequence = FLAIR,
    wall: Wall = Wall(),
    head: Anatomy | None = None,
    contrast: float = 1.0,
    grid: tuple[Matrix, Shape] | None = None,
) -> Image:
    """The scan (k, j, i) with bias field and Rician noise of the case's difficulty, on the grid of its other scans.

    ``head``: the anatomy that the case was made from, found by its name when None. ``contrast``: exponent of the
    signal, as another echo time gives it. ``grid``: another one in the same frame.
    """
    head = load_anatomy(case.anatomy) if head is None else head
    truth, brain = case.truth, case.truth.brain
    matrix, shape = (brain.ras_from_ijk, brain.array.shape) if grid is None else grid
    back = invert(truth.intraop_from_preop)
    static = _of_t1(resampled(head.head_t1, head.ras_from_ijk, matrix, shape, back), sequence)
    hull = resampled(head.hull_mm, head.ras_from_ijk, matrix, shape, back, outside=60.0)
    rows = np.flatnonzero(hull < 12.0)
    points = apply(matrix, np.stack(np.unravel_index(rows, shape)[::-1], axis=-1))
    at = index_coordinates(head.ras_from_ijk, truth.preop_from_intraop(points))
    height, aside = case.grown.opening.along_and_aside(apply(back, points).astype(np.float32))

    in_brain = sampled(ndimage.gaussian_filter(head.brain.astype(np.float32), 0.5), at)
    tissue = sampled(_tissue(case, head, sequence, wall), at)
    in_cavity = sampled(ndimage.gaussian_filter(case.resection.cavity.astype(np.float32), 0.5), at)
    fluid = np.where(height > FLUID_LEVEL_MM, np.float32(AIR), np.float32(sequence.fluid))
    opened = (aside < case.grown.opening.radius_mm) & (hull.ravel()[rows] > -1.0)
    outside = np.where(opened, fluid, static.ravel()[rows])
    static.ravel()[rows] = outside * (1 - in_brain) + in_brain * (tissue * (1 - in_cavity) + fluid * in_cavity)
    values = WHITE * (np.maximum(static, 0) / WHITE) ** contrast
    centre = apply(truth.intraop_from_preop, head.centre_ras_mm)
    shade = bias_field(matrix, shape, centre, case.difficulty.bias, stream(case.seed, f"bias {sequence.name}"))
    noise = stream(case.seed, f"noise {sequence.name}")
    level = case.difficulty.noise * sequence.white
    return Image(rician(values * shade, level, noise), matrix, name=sequence.name)


def preop_scan(case: BrainCase, sequence: Sequence = T2, head: Anatomy | None = None) -> Image:
    """The same sequence before surgery, on the preoperative grid, with little noise."""
    head = load_anatomy(case.anatomy) if head is None else head
    inside = ndimage.gaussian_filter(head.brain.astype(np.float32), 0.5)
    values = inside * _with_tumour(head, case.grown.label, sequence) + (1 - inside) * _of_t1(head.head_t1, sequence)
    noise = stream(case.seed, f"preop {sequence.name}")
    return Image(rician(np.maximum(values, 0), 0.012 * WHITE, noise), head.ras_from_ijk, name=f"preop {sequence.name}")


def _of_t1(t1: FloatArray, sequence: Sequence) -> FloatArray:
    """Signal of normal tissue from its T1: air, bone, fluid, grey, white, fat."""
    levels = [0.0, 0.06 * WHITE, 0.075 * WHITE, CSF, GREY, WHITE, 1.2 * WHITE, 2.5 * WHITE]
    signal = [0.0, 30.0, 60.0, sequence.fluid, sequence.grey, sequence.white, sequence.fat, sequence.fat]
    return np.interp(t1, levels, signal).astype(np.float32)


def _with_tumour(head: Anatomy, label: npt.NDArray[np.uint8], sequence: Sequence) -> FloatArray:
    result = _of_t1(head.brain_t1, sequence)
    for value, level in (
        (NON_ENHANCING, sequence.tumour),
        (ENHANCING, sequence.tumour),
        (NECROSIS, sequence.necrosis),
    ):
        weight = ndimage.gaussian_filter((label == value).astype(np.float32), 0.8)
        result += (level - result) * weight
    return result


def _tissue(case: BrainCase, head: Anatomy, sequence: Sequence, wall: Wall) -> FloatArray:
    """Signal of the brain before the shift, as surgery has left it, on the preoperative grid."""
    result = _with_tumour(head, case.grown.label, sequence)
    cavity = case.resection.cavity
    if not cavity.any():
        return result
    box = tuple(slice(max(s.start - 12, 0), s.stop + 12) for s in ndimage.find_objects(cavity.astype(np.uint8))[0])
    depth = ndimage.distance_transform_edt(~cavity[box]).astype(np.float32)
    rng, part = stream(case.seed, "wall"), result[box]
    small: Shape = tuple(n // 2 + 1 for n in part.shape)
    at = np.indices(part.shape, dtype=np.float32).reshape(3, -1) / 2.0
    uneven, patches = (sampled(smooth_noise(small, 3.0, rng), at).reshape(part.shape) for _ in range(2))
    if wall.swollen_mm:
        swollen = np.clip(1.0 + wall.swollen_mm * (1.0 + 0.4 * uneven) - depth, 0, 1)
        part += np.maximum(sequence.swollen - part, 0) * swollen
    if wall.blood_mm:
        blood = np.clip(0.5 + wall.blood_mm - depth, 0, 1) * np.clip(2 * patches - 0.4, 0, 1)
        part += (sequence.blood - part) * blood
    return result
