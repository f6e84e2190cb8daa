"""A lumbar spine of analytic shapes with a planned and an actually placed pedicle screw, and the true deviations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..data import FloatArray, Image, Matrix
from ..errors import DataError
from ..geometry import apply, corner_from_centre, invert, rotation_about
from .grids import Shape, axis_grid, points_of, resampled, smooth_noise, smoothstep, stream
from .head import BONE, CSF, FAT, MUSCLE, SKIN, WHITE
from .phantom import random_pose
from .rendering import bias_field, rician

SPINE = "spine"
MARROW, DISC, NUCLEUS, ROOTS = 640.0, 300.0, 370.0, 420.0
LEVELS_MM = (-72.0, -36.0, 0.0, 36.0, 72.0)
LOWER_MM, SHAPE = (-64.0, -92.0, -80.0), (160, 144, 128)
CORTEX_MM = 1.3
#: The void of the metal exceeds it by this much (mm), and swells and shrinks around it as a dipole does.
BLOOM_MM, DIPOLE = 0.8, 0.4
NOISE, BIAS, ROTATION_DEG, TRANSLATION_MM = 0.025, 0.2, 6.0, 8.0


@dataclass(frozen=True, eq=False)
class Implant:
    """A straight screw: entry and tip (3,), RAS mm of the frame that the owner names, and its diameter (mm)."""

    entry_ras_mm: npt.NDArray[np.float64]
    tip_ras_mm: npt.NDArray[np.float64]
    diameter_mm: float

    @property
    def axis(self) -> npt.NDArray[np.float64]:
        """Unit vector from entry to tip."""
        along = self.tip_ras_mm - self.entry_ras_mm
        return np.asarray(along / np.linalg.norm(along))

    def moved(self, matrix: npt.ArrayLike) -> Implant:
        """The same screw after a rigid transform (4, 4)."""
        return Implant(apply(matrix, self.entry_ras_mm), apply(matrix, self.tip_ras_mm), self.diameter_mm)


@dataclass(frozen=True, eq=False)
class SpineTruth:
    """What nobody in the pipeline may read: rigid pose, the screw in intraoperative RAS, and its deviations.

    ``deviations``: ``entry_mm`` (planned against actual line in the plane through the planned entry across the planned
    axis), ``tip_mm`` (Euclidean), ``radial_mm`` (planned tip to the actual line), ``depth_mm`` (signed, along the
    planned axis), ``angle_deg``.
    """

    intraop_from_preop: Matrix
    actual: Implant
    deviations: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class SpineCase:
    """A spine before surgery with its ``plan`` (preoperative RAS), and the scan after the screw was placed."""

    seed: int
    preop: Image
    plan: Implant
    intraop: Mapping[str, Image]
    truth: SpineTruth

    def noisy(self, name: str = SPINE) -> Image:
        """The intraoperative image with Rician noise."""
        image = self.intraop[name]
        return image.with_array(rician(image.array, NOISE * WHITE, stream(self.seed, "spine noise")))


def make_spine_case(
    seed: int,
    *,
    offset_mm: float | None = None,
    angle_deg: float | None = None,
    spacing_mm: float = 1.0,
    directions: npt.ArrayLike | None = None,
) -> SpineCase:
    """Make a case; the same arguments give the same one.

    ``offset_mm`` and ``angle_deg`` of the placed screw are drawn from 1..3 mm and 1.5..5 degrees when None.
    ``directions``: (3, 3) columns of i, j, k of the scan in intraoperative RAS. Raises DataError for negative values.
    """
    rng = stream(seed, "screw")
    offset_mm = rng.uniform(1.0, 3.0) if offset_mm is None else offset_mm
    angle_deg = rng.uniform(1.5, 5.0) if angle_deg is None else angle_deg
    if offset_mm < 0 or angle_deg < 0:
        raise DataError(f"offset_mm and angle_deg must not be negative, got {offset_mm} and {angle_deg}")
    matrix = axis_grid(LOWER_MM, 1.0)
    tissue = _spine(points_of(matrix, SHAPE), stream(seed, "spine"))
    side = 1.0 if seed % 2 else -1.0
    bend = _axis_of_spine(np.zeros(1))[0]
    plan = Implant(np.array([side * 19.0, bend - 40.0, 2.0]), np.array([side * 9.0, bend + 7.0, -1.0]), 6.5)
    placed = _misplaced(plan, offset_mm, angle_deg, rng)

    pose = random_pose(stream(seed, "spine pose"), (0.0, -20.0, 0.0), ROTATION_DEG, TRANSLATION_MM)
    axes = np.eye(3) if directions is None else np.asarray(directions, dtype=np.float64)
    extent = np.abs(axes.T) @ (np.array(SHAPE[::-1]) + 8.0)
    size = tuple(int(n) for n in np.ceil(extent / spacing_mm / 8) * 8)
    middle = apply(pose, apply(matrix, (np.array(SHAPE[::-1]) - 1) / 2))
    grid = corner_from_centre(axes * spacing_mm, middle, (size[0], size[1], size[2]))
    shape: Shape = (size[2], size[1], size[0])
    actual = placed.moved(pose)
    scan = resampled(tissue, matrix, grid, shape, invert(pose))
    scan = _with_metal(scan, points_of(grid, shape), actual, axes[:, 0])
    scan = scan * bias_field(grid, shape, middle, BIAS, stream(seed, "spine bias"))
    preop = Image(rician(tissue, 0.012 * WHITE, stream(seed, "spine preop")), matrix, name="preop spine")
    truth = SpineTruth(pose, actual, deviations(plan, placed))
    return SpineCase(seed, preop, plan, {SPINE: Image(scan.astype(np.float32), grid, name=SPINE)}, truth)


def deviations(plan: Implant, placed: Implant) -> dict[str, float]:
    """Deviations of a placed screw from its plan, both in one frame; see :class:`SpineTruth` for the definitions."""
    u, v = plan.axis, placed.axis
    at_entry = placed.entry_ras_mm + v * (u @ (plan.entry_ras_mm - placed.entry_ras_mm)) / (u @ v)
    offset = plan.tip_ras_mm - placed.entry_ras_mm
    return {
        "entry_mm": float(np.linalg.norm(at_entry - plan.entry_ras_mm)),
        "tip_mm": float(np.linalg.norm(placed.tip_ras_mm - plan.tip_ras_mm)),
        "radial_mm": float(np.linalg.norm(offset - v * (v @ offset))),
        "depth_mm": float(u @ (placed.tip_ras_mm - plan.tip_ras_mm)),
        "angle_deg": float(np.degrees(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v))),
    }


def _misplaced(plan: Implant, offset_mm: float, angle_deg: float, rng: np.random.Generator) -> Implant:
    across = np.cross(plan.axis, rng.standard_normal(3))
    across /= np.linalg.norm(across)
    tilt = rotation_about(np.cross(plan.axis, rng.standard_normal(3)), angle_deg)
    entry = plan.entry_ras_mm + offset_mm * across
    length = float(np.linalg.norm(plan.tip_ras_mm - plan.entry_ras_mm)) + rng.uniform(-2.0, 2.0)
    return Implant(entry, entry + tilt @ plan.axis * length, plan.diameter_mm)


def _axis_of_spine(z: FloatArray) -> FloatArray:
    """A coordinate of the centre of the vertebral bodies: a gentle lordosis."""
    return np.asarray(6.0 - 9.0 * (z / 80.0) ** 2)


def _spine(points: FloatArray, rng: np.random.Generator) -> FloatArray:
    """T1 intensities at RAS points (k, j, i, 3)."""
    x, z = points[..., 0], points[..., 2]
    y = points[..., 1] - _axis_of_spine(z)
    shape: Shape = x.shape
    grain, coarse_grain = smooth_noise(shape, 1.0, rng), smooth_noise(shape, 4.0, rng)
    wavy = y + 1.5 * coarse_grain

    tissue = np.full(shape, 0.88 * FAT, dtype=np.float32) * (1 + 0.05 * coarse_grain)
    muscles = (
        np.hypot((np.abs(x) - 30) / 24, (wavy + 46) / 21),
        np.hypot((np.abs(x) - 40) / 18, (wavy - 2) / 22),
        np.hypot((np.abs(x) - 13) / 9, (wavy + 52) / 13),
    )
    for muscle in muscles:
        streak = np.where(np.abs(grain + 0.6 * coarse_grain) < 0.12, 0.7 * FAT, MUSCLE * (1 + 0.06 * grain))
        tissue = np.where(muscle < 1, np.where(muscle > 0.96, 0.9 * FAT, streak), tissue)
    for vessel, radius in ((-12.0, 8.5), (13.0, 9.5)):
        tissue = np.where(np.hypot(x - vessel, y - 32) < radius, 90.0, tissue)

    body = np.full(shape, np.inf, dtype=np.float32)
    posterior = np.full(shape, np.inf, dtype=np.float32)
    disc = np.hypot(x / 23.5, y / 17.5)
    for level in LEVELS_MM:
        h = z - level
        waist = 1.0 - 0.10 * (1 - (h / 13.5) ** 2)
        radial = (np.hypot(x / (23.5 * waist), y / (17.5 * waist)) - 1) * 19.0
        body = np.minimum(body, np.maximum(radial, np.abs(h) - 13.0))
        t = np.clip((y + 36) / 26, 0, 1)
        middle = 17.0 - 2.5 * t
        pedicle = np.hypot((np.abs(x) - middle) / 0.82, h - 2.0) - 7.0
        posterior = np.minimum(posterior, np.maximum(pedicle, np.maximum(y + 8, -38 - y)))
        facet = np.sqrt(((np.abs(x) - 19) / 8) ** 2 + ((y + 38) / 7) ** 2 + (h / 13) ** 2) - 1
        posterior = np.minimum(posterior, facet * 7)
        lamina = np.maximum(
            np.abs(y + 38 + 0.35 * (18 - np.abs(x))) - 3.2, np.maximum(np.abs(x) - 18, np.abs(h + 4) - 9)
        )
        process = np.maximum(np.abs(x) - 3.4, np.maximum(np.abs(y + 56) - 14, np.abs(h + 6) - 8.5))
        transverse = np.maximum(np.hypot(y + 30, h - 2) - 4.5, np.abs(np.abs(x) - 29) - 10)
        posterior = np.minimum.reduce([posterior, lamina, process, transverse])
    tissue = np.where(disc < 1, np.where(disc < 0.6, NUCLEUS, DISC), tissue)
    bone = np.minimum(posterior, body)
    cortex = smoothstep(-bone / CORTEX_MM - 0.4)
    tissue = np.where(bone < 0, BONE + (MARROW * (1 + 0.07 * grain) - BONE) * cortex, tissue)
    canal = np.hypot(x / 11.5, (y + 27) / 8.5)
    tissue = np.where((canal < 1.12), 0.95 * FAT, tissue)
    sac = np.hypot(x / 9.0, (y + 26) / 6.8)
    tissue = np.where(sac < 1, np.where((grain > 0.9) & (y < -26), ROOTS, CSF), tissue)
    skin = points[..., 1] + 86 - 4.0 * (x / 64) ** 2
    tissue = np.where(skin < 2.5, SKIN, tissue)
    tissue = np.where(skin < 0, 0.0, tissue)
    return np.asarray(ndimage.gaussian_filter(tissue.astype(np.float32), 0.6))


def _with_metal(scan: FloatArray, points: FloatArray, screw: Implant, readout: npt.NDArray[np.float64]) -> FloatArray:
    """Signal void of a screw with dipole-like blooming and bright pile-up beside it along the readout."""
    offset = points - screw.entry_ras_mm.astype(np.float32)
    along = offset @ screw.axis.astype(np.float32)
    length = float(np.linalg.norm(screw.tip_ras_mm - screw.entry_ras_mm))
    across = offset - along[..., None] * screw.axis.astype(np.float32)
    aside = np.linalg.norm(across, axis=-1)
    first = readout - screw.axis * (screw.axis @ readout)
    cosine = (across @ (first / np.linalg.norm(first)).astype(np.float32)) / np.maximum(aside, 1e-3)
    lobes = 2 * cosine**2 - 1
    void_radius = screw.diameter_mm / 2 + BLOOM_MM * (1 + DIPOLE * lobes)
    beyond = np.abs(along - length / 2) - length / 2
    outside = np.maximum(aside - void_radius, beyond - BLOOM_MM / 2)
    metal = np.clip(0.5 - outside, 0, 1)
    pile_up = 0.7 * WHITE * np.clip(lobes, 0, 1) * np.exp(-(((outside - 1.2) / 0.8) ** 2)) * (beyond < 0)
    return np.asarray(scan * (1 - metal) + 8.0 * metal + pile_up * (1 - metal), dtype=np.float32)
