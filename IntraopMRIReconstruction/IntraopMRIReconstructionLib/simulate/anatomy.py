"""Heads for the lab: the MNI152 template that ships in the nilearn wheel, or any T1 volume that a person names.

The template (ICBM 2009a symmetric, Fonov et al., NeuroImage 2011) is read from the wheel's files; the package itself
is never imported. It is skull-stripped, so a plausible head is drawn around it. A volume that has a head keeps it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy import ndimage

from ..data import FloatArray, Image, Matrix
from ..errors import DataError
from ..geometry import apply
from .fields import invert_field, random_field
from .grids import Shape, axis_grid, coarser, distance_mm, index_coordinates, points_of, resampled, sampled, stream
from .head import CSF, GREY, WHITE, head_around, hull_distance, normal_enhancement
from .volumes import read_volume

SPACING_MM = 1.0
TEMPLATE = "mni152"
#: One real head (Holmes et al., J Comput Assist Tomogr 1998) and its brain, when Debian's mricron-data is installed.
COLIN = "colin27"
COLIN_FOLDER = Path("/usr/share/mricron/templates")
#: Two more heads made from the template by large smooth warps and another aspect: (seed, scale along R, A, S).
VARIANTS = {"mni152-broad": (11, (1.07, 0.95, 0.98)), "mni152-long": (23, (0.94, 1.05, 1.03))}
VARIANT_WARP_MM = 7.0
#: When the brain fills more than this part of all that is not air, the volume is skull-stripped.
BARE_BRAIN = 0.8
#: A brain outside these bounds (ml) was not segmented but something else was.
BRAIN_ML = (500.0, 2200.0)
#: A brain is found from a cube of this half-width (mm), this far below the top of the head; its tissue lies within
#: this range of the cube's median: darker is CSF and muscle, brighter is fat.
MIDDLE_MM, MIDDLE_BELOW_TOP_MM, BRAIN_RANGE = 30.0, 75.0, (0.62, 1.6)
#: Veins, nerves and fat that tie the brain to the scalp are thinner than twice this (mm).
BRIDGE_MM = 4.5
#: Room for the head that is drawn around a skull-stripped brain.
HEAD_MARGIN_MM = 26.0
#: Air that is kept around a head (mm).
AIR_MARGIN_MM = 4.0


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A head at 1 mm on an axis-aligned RAS grid; all arrays (k, j, i) float32 unless said.

    ``brain_t1``: native T1 inside the brain, white matter about 800. ``head_t1``: all that is not brain, the brain's
    place filled with CSF. ``enhancement``: what contrast agent adds to normal tissue. ``brain`` (bool).
    ``white``: white matter fraction. ``hull_mm``: signed distance to the inner skull, negative inside.
    """

    name: str
    ras_from_ijk: Matrix
    brain_t1: FloatArray
    head_t1: FloatArray
    enhancement: FloatArray
    brain: npt.NDArray[np.bool_]
    white: FloatArray
    hull_mm: FloatArray

    @property
    def t1(self) -> Image:
        """Native T1 of the healthy head."""
        alpha = ndimage.gaussian_filter(self.brain.astype(np.float32), 0.5)
        return Image(alpha * self.brain_t1 + (1 - alpha) * self.head_t1, self.ras_from_ijk, name=self.name)

    def cropped(self, box: tuple[slice, slice, slice]) -> Anatomy:
        """The part inside ``box`` (k, j, i), at the same place in space."""
        matrix = self.ras_from_ijk.copy()
        matrix[:3, 3] = apply(matrix, [s.start for s in box[::-1]])
        return Anatomy(
            self.name,
            matrix,
            self.brain_t1[box],
            self.head_t1[box],
            self.enhancement[box],
            self.brain[box],
            self.white[box],
            self.hull_mm[box],
        )

    @property
    def centre_ras_mm(self) -> npt.NDArray[np.float64]:
        """Centre of mass of the brain, RAS, mm."""
        return apply(self.ras_from_ijk, np.array(ndimage.center_of_mass(self.brain))[::-1])


def anatomies() -> list[str]:
    """Names that :func:`load_anatomy` knows beside file paths.

    The template, its warped variants (other shapes, the same mean brain), and the real head 'colin27' where installed.
    """
    return [TEMPLATE, *VARIANTS, *([COLIN] if (COLIN_FOLDER / "ch2.nii.gz").exists() else [])]


@lru_cache(maxsize=2)
def load_anatomy(name_or_path: str = TEMPLATE) -> Anatomy:
    """A named head (:func:`anatomies`) or the T1 volume at a path.

    Raises DataError as :func:`read_volume` does, and when no brain is found in the volume.
    """
    if name_or_path == TEMPLATE:
        return _template()
    if name_or_path in VARIANTS:
        return _variant(name_or_path)
    if name_or_path == COLIN and COLIN in anatomies():
        head, bare = (read_volume(COLIN_FOLDER / name) for name in ("ch2.nii.gz", "ch2bet.nii.gz"))
        return from_volume(replace(head, name=COLIN), bare.with_array(bare.array > 0))
    if "/" not in name_or_path and "." not in name_or_path and not Path(name_or_path).exists():
        raise DataError(
            f"no anatomy is named '{name_or_path}'; choose one of {', '.join(anatomies())} or a file's path"
        )
    return from_volume(read_volume(name_or_path))


def template_file(what: str) -> Path:
    """Path of the template's ``t1``, ``gm`` or ``wm`` volume. Raises DataError when the wheel is not installed."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "the MNI152 template is missing; get it with 'pip install --no-deps nilearn', or name your own T1 volume"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data"
    return folder / f"mni_icbm152_{what}_tal_nlin_sym_09a_converted.nii.gz"


def from_volume(volume: Image, brain_mask: Image | None = None) -> Anatomy:
    """An anatomy from a T1 volume with or without a head, any orientation and spacing; finds the brain if not given."""
    background, brightest = (float(np.percentile(volume.array, part)) for part in (1, 99.5))
    if background == brightest:
        raise DataError(
            f"no brain was found in '{volume.name}' (nearly every voxel is {background:g}, as in a label); name a "
            "T1-weighted volume of a whole head in mm"
        )
    dimmest = background + 0.2 * _otsu(volume.array - background)
    matrix, shape = _lab_grid(volume, dimmest, AIR_MARGIN_MM)

    def on_grid() -> FloatArray:
        return np.maximum(
            resampled(volume.array, volume.ras_from_ijk, matrix, shape, outside=background) - background, 0
        )

    t1 = on_grid()
    brain = _find_brain(t1, matrix)
    foreground = ndimage.binary_fill_holes(t1 > 0.5 * _otsu(t1))
    has_head = brain_mask is not None or brain.sum() < BARE_BRAIN * foreground.sum()
    if not has_head:
        matrix, shape = _lab_grid(volume, dimmest, HEAD_MARGIN_MM)
        t1 = on_grid()
        brain = _largest(ndimage.binary_fill_holes(t1 > 0.1 * np.percentile(t1[t1 > 0], 90)))
    elif brain_mask is not None:
        brain = resampled(brain_mask.array, brain_mask.ras_from_ijk, matrix, shape) > 0.5
    volume_ml = float(brain.sum()) * SPACING_MM**3 / 1000
    if not BRAIN_ML[0] <= volume_ml <= BRAIN_ML[1]:
        raise DataError(
            f"no brain was found in '{volume.name}' ({volume_ml:.0f} ml where {BRAIN_ML[0]:.0f} to {BRAIN_ML[1]:.0f} "
            "were expected); name a T1-weighted volume of a whole head in mm"
        )
    grey, white = _tissue_levels(t1[brain])
    scaled = np.interp(t1, [0, grey * 0.45, grey, white, white * 2.2], [0, CSF, GREY, WHITE, 1700.0]).astype(np.float32)
    fraction = np.clip((scaled - GREY) / (WHITE - GREY), 0, 1) * brain
    if not has_head:
        return _with_drawn_head(volume.name, matrix, scaled, brain, fraction.astype(np.float32), seed=1)
    hull = hull_distance(brain, matrix)
    # The outermost voxels stay: a found brain ends within tissue here and there, and must not be outlined in black.
    head = np.where(ndimage.binary_erosion(brain), np.float32(CSF), scaled)
    glow = ndimage.gaussian_filter(normal_enhancement(brain, hull, matrix, 2.0, seed=1), 0.6)
    return Anatomy(volume.name, matrix, scaled, head, glow, brain, fraction.astype(np.float32), hull)


def _template() -> Anatomy:
    t1, grey, white = (read_volume(template_file(what)) for what in ("t1", "gm", "wm"))
    matrix, shape = _lab_grid(t1, -np.inf, 0.0)
    value, gm, wm = (resampled(image.array, image.ras_from_ijk, matrix, shape) for image in (t1, grey, white))
    brain = ndimage.binary_fill_holes(ndimage.binary_opening(value > 0))
    levels = [0.0, 60.0, 100.0, 165.0, 222.0, 255.0]
    scaled = np.interp(value, levels, [60.0, 120.0, 290.0, GREY, WHITE, 880.0]).astype(np.float32)
    # The template is a mean of many brains; its tissue maps bring back the contrast of a single one.
    tissue = (gm * GREY + wm * WHITE + np.maximum(255.0 - gm - wm, 0) * CSF) / 255.0
    crisp = (0.6 * scaled + 0.4 * tissue).astype(np.float32)
    return _with_drawn_head(TEMPLATE, matrix, crisp, brain, np.asarray(wm / 255.0, dtype=np.float32), seed=0)


def _with_drawn_head(
    name: str, matrix: Matrix, t1: FloatArray, brain: npt.NDArray[np.bool_], white: FloatArray, seed: int
) -> Anatomy:
    head = head_around(brain, matrix, seed)
    return Anatomy(name, matrix, t1, head.t1, head.enhancement, brain, white, head.hull_mm)


def _variant(name: str) -> Anatomy:
    """The template, scaled and bent by a large smooth field, with a head of its own."""
    source = load_anatomy(TEMPLATE)
    seed, scale = VARIANTS[name]
    coarse, small = coarser(source.ras_from_ijk, source.brain.shape, 3.0)
    bend = random_field(small, 3.0, 22.0, VARIANT_WARP_MM, stream(seed, "variant"))
    pull = invert_field(bend, coarse)
    points = points_of(source.ras_from_ijk, source.brain.shape)
    centre = source.centre_ras_mm
    points = ((points - centre) / np.array(scale) + centre).astype(np.float32)
    points += sampled(pull, index_coordinates(coarse, points))
    at = index_coordinates(source.ras_from_ijk, points)
    brain = sampled(source.brain, at, outside=0.0) > 0.5
    t1, white = sampled(source.brain_t1, at, order=1), sampled(source.white, at, order=1)
    return _with_drawn_head(name, source.ras_from_ijk, t1, brain, white, seed)


def _lab_grid(volume: Image, above: float, margin_mm: float) -> tuple[Matrix, Shape]:
    """Axis-aligned RAS grid of 1 mm around the voxels brighter than ``above``, and ``margin_mm`` more."""
    tissue = np.argwhere(volume.array > above)[:, ::-1]
    corners = apply(volume.ras_from_ijk, tissue)
    low, high = np.floor(corners.min(axis=0) - margin_mm), np.ceil(corners.max(axis=0) + margin_mm)
    size = np.round((high - low) / SPACING_MM).astype(int) + 1
    return axis_grid(low, SPACING_MM), (int(size[2]), int(size[1]), int(size[0]))


def _find_brain(t1: FloatArray, matrix: Matrix) -> npt.NDArray[np.bool_]:
    """Brain of a T1 with head: tissue as bright as the middle of the head, thin bridges cut, grown to its surface."""
    coarse, small = coarser(matrix, t1.shape, 2.0)
    rough = resampled(t1, matrix, coarse, small)
    foreground = rough > _otsu(rough)
    if not foreground.any():
        return np.zeros(t1.shape, dtype=bool)
    top, middle = np.flatnonzero(foreground.any(axis=(1, 2)))[-1], ndimage.center_of_mass(foreground)
    centre = (top - MIDDLE_BELOW_TOP_MM / 2.0, middle[1], middle[2])
    box = tuple(slice(max(int(c - MIDDLE_MM / 2.0), 0), max(int(c + MIDDLE_MM / 2.0), 1)) for c in centre)
    inside = rough[box][foreground[box]]
    tissue = float(np.median(inside)) if inside.size else float(np.median(rough[foreground]))
    low, high = BRAIN_RANGE[0] * tissue, BRAIN_RANGE[1] * tissue
    bright = (rough > low) & (rough < high)
    pieces, count = ndimage.label(distance_mm(bright, 2.0) < -BRIDGE_MM)
    if count == 0:
        return np.zeros(t1.shape, dtype=bool)
    core = pieces == 1 + np.argmax(np.bincount(pieces[box].ravel(), minlength=count + 1)[1:])
    reach = resampled(distance_mm(core, 2.0), coarse, matrix, t1.shape, outside=None) < BRIDGE_MM + 5.0
    grown = reach & (t1 > low) & (t1 < high)
    sulci = distance_mm(distance_mm(resampled(grown, matrix, coarse, small) > 0.5, 2.0) < 5.0, 2.0) < -4.0
    closed = resampled(sulci, coarse, matrix, t1.shape) > 0.5
    return _largest(ndimage.binary_fill_holes(closed | grown))


def _tissue_levels(values: FloatArray) -> tuple[float, float]:
    """Grey and white matter intensity in a T1 brain, by three-class Otsu."""
    line = SimpleITK.GetImageFromArray(np.ascontiguousarray(values[None, :]))
    thresholds = SimpleITK.OtsuMultipleThresholdsImageFilter()
    thresholds.SetNumberOfThresholds(2)
    classes = SimpleITK.GetArrayFromImage(thresholds.Execute(line))[0]
    return float(np.median(values[classes == 1])), float(np.median(values[classes == 2]))


def _otsu(values: FloatArray) -> float:
    """Otsu's threshold over a histogram of 256 bins (IEEE Trans SMC 1979)."""
    counts, edges = np.histogram(values, 256, range=(0.0, float(np.percentile(values, 99.5))))
    middle = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    mean_below = np.cumsum(counts * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = mean_below / below - (mean_below[-1] - mean_below) / above
    return float(middle[np.nanargmax(below * above * gap**2)])


def _largest(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return np.asarray(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]))
