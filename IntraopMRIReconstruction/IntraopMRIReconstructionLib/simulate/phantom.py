"""Brain cases with known truth: before surgery, and during it in two contrasts.

Tissue moves from x before surgery to x + u(x) (brain shift), then the whole head by the rigid patient pose. Images
are pulled through the inverse with one interpolation. Both displacement fields of the truth live in the intraoperative
frame, so that their length is the brain shift in mm whatever the pose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..data import FloatArray, Image, Matrix, checked_rigid
from ..errors import DataError
from ..geometry import apply, corner_from_centre, invert, rotation_about
from .anatomy import TEMPLATE, Anatomy, load_anatomy
from .exposure import BARE, IN_THEATRE, Exposure
from .fields import Shift, brain_shift, invert_field, jacobian_determinant
from .grids import Shape, coarser, index_coordinates, resampled, sampled, stream
from .head import WHITE
from .lesion import SALINE, Filling, Resection, Tumour, low_grade, make_tumour, resect, resect_part
from .rendering import Look, bias_field, render_intraop, render_preop, rician

#: Fields are made on this grid (mm); they are smooth over 12 mm and more.
FIELD_SPACING_MM = 2.0
#: What the scan must show beyond the head (mm), and the multiple that its matrix is rounded up to.
FOV_MARGIN_MM, MATRIX_STEP = 6.0, 8
NATIVE, CONTRAST = "T1 native", "T1 contrast"


@dataclass(frozen=True)
class Difficulty:
    """What makes a case hard. ``noise``: Rician, as a fraction of white matter; ``bias``: largest relative shading;

    ``contrast``: 0 keeps the preoperative grey/white contrast, 1 changes it by up to a third; ``blood``: clot on the
    cavity's wall, bright with and without contrast agent; ``wall``: thin enhancement that surgery causes; ``filling``:
    what the cavity holds; ``exposure``: the surroundings of the open skull.
    """

    shift: Shift = field(default_factory=Shift)
    rotation_deg: float = 8.0
    translation_mm: float = 10.0
    bias: float = 0.3
    noise: float = 0.04
    contrast: float = 1.0
    blood: bool = True
    wall: bool = True
    filling: Filling = SALINE
    exposure: Exposure = BARE


DIFFICULTIES: Mapping[str, Difficulty] = {
    "easy": Difficulty(Shift(4.0, 1.0, 0.0, 0.7), 4.0, 5.0, 0.15, 0.02, 0.3, blood=False, wall=False),
    "standard": Difficulty(Shift(7.0, 2.0, 0.0, 1.0), 6.0, 8.0, 0.2, 0.03, 0.6),
    "hard": Difficulty(),
    "outward": Difficulty(Shift(-6.0, 1.5, 2.0, 1.5)),
    "air": Difficulty(Shift(7.0, 2.0, 0.0, 1.0, sag_mm=10.0, up=(0.0, 1.0, 0.3)), exposure=IN_THEATRE),
    "prolapse": Difficulty(Shift(-9.0, 1.5, 2.0, 1.5), exposure=IN_THEATRE),
}


@dataclass(frozen=True, eq=False)
class Truth:
    """What nobody in the pipeline may read. RAS, mm.

    ``intraop_from_preop``: rigid pose (4, 4). ``pull``: displacement d on a 2 mm grid over the intraoperative scan,
    array (k, j, i, 3): intraoperative point y was at intraop_from_preop^-1 (y + d(y)). ``push``: its inverse: the point
    x before surgery is now at q + push(q) with q = intraop_from_preop x. Both are meant inside the brain.
    ``residual``, ``residual_non_enhancing``, ``cavity``, ``brain``: boolean images on the intraoperative grid, the
    brain without the cavity.
    """

    intraop_from_preop: Matrix
    pull: Image
    push: Image
    residual: Image
    residual_non_enhancing: Image
    cavity: Image
    brain: Image

    @property
    def residual_ml(self) -> float:
        """Volume of the enhancing residual: its voxels times their volume."""
        return float(np.count_nonzero(self.residual.array)) * self.residual.voxel_volume_ml

    def preop_from_intraop(self, points_intraop_ras: npt.ArrayLike) -> FloatArray:
        """Where intraoperative points (..., 3) were before surgery, preoperative RAS mm."""
        points = np.asarray(points_intraop_ras, dtype=np.float64)
        return apply(invert(self.intraop_from_preop), points + displacement_at(self.pull, points))

    def intraop_from_preop_points(self, points_preop_ras: npt.ArrayLike) -> FloatArray:
        """Where points (..., 3) from before surgery are now, intraoperative RAS mm."""
        moved = apply(self.intraop_from_preop, points_preop_ras)
        return np.asarray(moved + displacement_at(self.push, moved))

    def pull_on(self, grid: Image) -> FloatArray:
        """``pull`` at every voxel of an intraoperative image, (k, j, i, 3), float32."""
        return resampled(self.pull.array, self.pull.ras_from_ijk, grid.ras_from_ijk, grid.array.shape[:3], outside=None)


def displacement_at(displacement: Image, points_ras: npt.ArrayLike) -> FloatArray:
    """Displacement of ``displacement`` at points (..., 3) by linear interpolation, the edge beyond its grid."""
    return sampled(displacement.array, index_coordinates(displacement.ras_from_ijk, points_ras)).astype(np.float64)


@dataclass(frozen=True, eq=False)
class BrainCase:
    """A patient with a tumour, before and during surgery. ``grown``, ``resection``, ``truth``: not for the pipeline.

    ``preop``: contrast-enhanced T1, ``flair``, ``tumour`` (label of TUMOUR_LABELS), on one grid in preoperative RAS.
    ``intraop``: free of noise, by name 'T1 native' and 'T1 contrast', on one grid in intraoperative RAS.
    """

    seed: int
    difficulty: Difficulty
    anatomy: str
    preop: Image
    flair: Image
    tumour: Image
    intraop: Mapping[str, Image]
    grown: Tumour
    resection: Resection
    truth: Truth

    def noisy(self, name: str, noise: float | None = None) -> Image:
        """An intraoperative image with Rician noise of the difficulty, or ``noise`` as a fraction of white matter."""
        image = self.intraop[name]
        level = self.difficulty.noise if noise is None else noise
        return image.with_array(rician(image.array, level * WHITE, stream(self.seed, f"noise {name}")))


def make_brain_case(
    seed: int,
    anatomy: str | Anatomy = TEMPLATE,
    difficulty: str | Difficulty = "standard",
    *,
    tumour_ml: float | None = None,
    residual_ml: float | None = None,
    stage: int = 1,
    spacing_mm: float = 1.0,
    directions: npt.ArrayLike | None = None,
    leave_infiltration: bool = True,
    low_grade_left: float | None = None,
) -> BrainCase:
    """Make a case; the same arguments give the same case.

    ``anatomy``: a name of :func:`anatomies`, a path, or a loaded one. ``tumour_ml`` 20..35 and ``residual_ml`` 0.5..2
    are drawn when None. ``stage`` 2 is the next scan of the same surgery: name a smaller ``residual_ml``; shift and
    pose differ a little. ``directions``: (3, 3) columns of i, j, k in intraoperative RAS, axial RAS when None.
    ``low_grade_left``: the tumour does not enhance, and this part (0..1) of it is left; ``residual_ml`` says nothing.
    Raises DataError for an unknown name, an impossible volume or a motion that would fold tissue.
    """
    head = load_anatomy(anatomy) if isinstance(anatomy, str) else anatomy
    hardness = _difficulty(difficulty)
    drawn = stream(seed, "volumes")
    volumes = drawn.uniform(22, 33), drawn.uniform(0.7, 1.8)
    tumour_ml = volumes[0] if tumour_ml is None else tumour_ml
    residual_ml = volumes[1] if residual_ml is None else residual_ml
    tumour = make_tumour(head, seed, tumour_ml)
    if low_grade_left is not None:
        tumour = low_grade(tumour)

    coarse, small = coarser(head.ras_from_ijk, head.brain.shape, FIELD_SPACING_MM)
    hull = resampled(head.hull_mm, head.ras_from_ijk, coarse, small, outside=None)
    shift = replace(hardness.shift, surface_mm=hardness.shift.surface_mm * (1.0 if stage == 1 else 1.15))
    rng = stream(seed, "shift")
    moved = brain_shift(coarse, hull, tumour.opening, tumour.centre_ras_mm, tumour.radius_mm, shift, rng)
    pull_aligned = invert_field(moved, coarse)
    growth = resampled(jacobian_determinant(moved, coarse), coarse, head.ras_from_ijk, head.brain.shape, outside=None)
    if low_grade_left is None:
        resection = resect(head, tumour, seed, residual_ml, growth, leave_infiltration)
    else:
        resection = resect_part(head, tumour, seed, low_grade_left)

    pose = random_pose(stream(seed, "pose", stage), head.centre_ras_mm, hardness.rotation_deg, hardness.translation_mm)
    grid, shape = _scan_grid(head, pose, spacing_mm, np.eye(3) if directions is None else np.asarray(directions))
    look = Look(hardness.contrast, hardness.blood, hardness.wall, hardness.filling, hardness.exposure)
    pull_grid = Image(pull_aligned, coarse, name="pull")
    native, contrast, masks = render_intraop(head, tumour, resection, look, shift, pull_grid, pose, grid, shape, seed)
    shade = bias_field(grid, shape, apply(pose, head.centre_ras_mm), hardness.bias, stream(seed, "bias", stage))

    def in_intraop_frame(vectors: FloatArray, name: str) -> Image:
        field_grid, field_shape = coarser(grid, shape, FIELD_SPACING_MM)
        on_grid = resampled(vectors, coarse, field_grid, field_shape, invert(pose), outside=None)
        return Image(on_grid @ pose[:3, :3].T.astype(np.float32), field_grid, name=name)

    truth = Truth(
        pose,
        in_intraop_frame(pull_aligned, "pull"),
        in_intraop_frame(moved, "push"),
        **{name: Image(mask, grid, name=name) for name, mask in masks.items()},
    )
    t1c, flair = render_preop(head, tumour, seed)
    return BrainCase(
        seed,
        hardness,
        head.name,
        Image(t1c, head.ras_from_ijk, name="preop T1 contrast"),
        Image(flair, head.ras_from_ijk, name="preop FLAIR"),
        Image(tumour.label, head.ras_from_ijk, name="tumour"),
        {NATIVE: Image(native * shade, grid, name=NATIVE), CONTRAST: Image(contrast * shade, grid, name=CONTRAST)},
        tumour,
        resection,
        truth,
    )


def random_pose(rng: np.random.Generator, centre_ras_mm: npt.ArrayLike, rotation_deg: float, shift_mm: float) -> Matrix:
    """Rigid ``intraop_from_preop``: about ``centre_ras_mm``, by 60 to 100 % of the given angle and distance."""
    centre = np.asarray(centre_ras_mm, dtype=np.float64)
    axis, way = rng.standard_normal(3), rng.standard_normal(3)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about(axis, rotation_deg * rng.uniform(0.6, 1.0))
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + way / np.linalg.norm(way) * shift_mm * rng.uniform(0.6, 1.0)
    return checked_rigid(matrix, "intraop_from_preop")


def _difficulty(difficulty: str | Difficulty) -> Difficulty:
    if isinstance(difficulty, Difficulty):
        return difficulty
    if difficulty not in DIFFICULTIES:
        raise DataError(f"no difficulty is named '{difficulty}'; choose one of {', '.join(DIFFICULTIES)}")
    return DIFFICULTIES[difficulty]


def _scan_grid(
    head: Anatomy, pose: Matrix, spacing_mm: float, directions: npt.NDArray[np.float64]
) -> tuple[Matrix, Shape]:
    """A field of view about the head as the pose puts it; axes follow ``directions``."""
    tissue = np.argwhere(ndimage.zoom(head.head_t1, 0.25, order=1) > 200)[:, ::-1] * 4.0
    extent = apply(pose, apply(head.ras_from_ijk, tissue)) @ directions
    low, high = extent.min(axis=0) - FOV_MARGIN_MM, extent.max(axis=0) + FOV_MARGIN_MM
    size = (np.ceil((high - low) / spacing_mm / MATRIX_STEP) * MATRIX_STEP).astype(int)
    grid = corner_from_centre(directions * spacing_mm, directions @ ((low + high) / 2), tuple(size.tolist()))
    return grid, (int(size[2]), int(size[1]), int(size[0]))
