"""A lumbar spine of analytic shapes whose vertebrae move each on its own; a planned and a placed pedicle screw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..data import FloatArray, Image, Matrix
from ..errors import DataError
from ..geometry import apply, corner_from_centre, invert, rotation_about
from .grids import (
    Shape,
    axis_grid,
    index_coordinates,
    points_of,
    resampled,
    sampled,
    smooth_noise,
    smoothstep,
    stream,
)
from .head import BONE, CSF, FAT, MUSCLE, SKIN, WHITE
from .metal import TITANIUM_PPM, MetalScan, with_rod
from .phantom import random_pose
from .rendering import bias_field, rician

SPINE = "spine"
MARROW, DISC, NUCLEUS, ROOTS = 640.0, 300.0, 370.0, 420.0
#: Height of each vertebra's middle, from head to foot.
LEVELS_MM = {"L1": 72.0, "L2": 36.0, "L3": 0.0, "L4": -36.0, "L5": -72.0}
#: The vertebra that takes the screw.
INSTRUMENTED = "L3"
LOWER_MM, SHAPE = (-64.0, -92.0, -80.0), (160, 144, 128)
CORTEX_MM = 1.3
#: The lab scans beside metal with spectral bins, as MAVRIC and SEMAC do: what is left displaced is half a bin.
METAL_SCAN = MetalScan(field_t=3.0, readout_hz_per_mm=1000.0, spectral_bin_hz=1000.0)
#: Tissue this near to a vertebra (mm) goes with it; between two of them it shares the motion of both.
STIFF_MM = 0.2
NOISE, BIAS, ROTATION_DEG, TRANSLATION_MM = 0.025, 0.2, 6.0, 8.0


@dataclass(frozen=True, eq=False)
class Implant:
    """A straight screw: entry and tip (3,), RAS mm of the frame that the owner names, and its diameter (mm)."""

    entry_ras_mm: npt.NDArray[np.float64]
    tip_ras_mm: npt.NDArray[np.float64]
    diameter_mm: float
    susceptibility_ppm: float = TITANIUM_PPM

    @property
    def axis(self) -> npt.NDArray[np.float64]:
        """Unit vector from entry to tip."""
        along = self.tip_ras_mm - self.entry_ras_mm
        return np.asarray(along / np.linalg.norm(along))

    def moved(self, matrix: npt.ArrayLike) -> Implant:
        """The same screw after a rigid transform (4, 4)."""
        return replace(self, entry_ras_mm=apply(matrix, self.entry_ras_mm), tip_ras_mm=apply(matrix, self.tip_ras_mm))


@dataclass(frozen=True, eq=False)
class SpineTruth:
    """What nobody in the pipeline may read: poses, the screw in intraoperative RAS, and its deviations.

    ``intraop_from_preop``: of the vertebra that takes the screw; ``vertebrae``: of each, by name.
    ``deviations``: ``entry_mm`` (planned against actual line in the plane through the planned entry across the planned
    axis), ``tip_mm`` (Euclidean), ``radial_mm`` (planned tip to the actual line), ``depth_mm`` (signed, along the
    planned axis), ``angle_deg``.
    """

    intraop_from_preop: Matrix
    actual: Implant
    deviations: Mapping[str, float]
    vertebrae: Mapping[str, Matrix]


@dataclass(frozen=True, eq=False)
class SpineCase:
    """A spine before surgery with its ``plan`` (preoperative RAS), and the scan after the screw was placed.

    ``vertebrae``: preoperative labels, 1 for the first of ``LEVELS_MM`` and so on. ``pedicle``: label of the pedicle
    that the screw shall pass. ``scan``: how the scan encodes space beside metal.
    """

    seed: int
    preop: Image
    plan: Implant
    intraop: Mapping[str, Image]
    truth: SpineTruth
    vertebrae: Image
    pedicle: Image
    scan: MetalScan

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
    bend_deg: float = 0.0,
    slide_mm: float = 0.0,
    curve_deg: float = 0.0,
    scan: MetalScan = METAL_SCAN,
    own_poses: Mapping[str, npt.ArrayLike] | None = None,
) -> SpineCase:
    """Make a case; the same arguments give the same one.

    ``offset_mm`` and ``angle_deg`` of the placed screw are drawn from 1..3 mm and 1.5..5 degrees when None.
    ``directions``: (3, 3) columns of i, j, k of the scan in intraoperative RAS. ``bend_deg`` and ``slide_mm``: each
    vertebra turns and slides on its own by at most this, beside the motion of the whole spine. ``curve_deg``: each
    vertebra turns forward against the one below it by this (backward when negative), about the disc between them, as
    on a frame that bends the table; the instrumented one stays. ``own_poses`` (4, 4), by name, replaces all that.
    Raises DataError for negative values of the others.
    """
    rng = stream(seed, "screw")
    offset_mm = rng.uniform(1.0, 3.0) if offset_mm is None else offset_mm
    angle_deg = rng.uniform(1.5, 5.0) if angle_deg is None else angle_deg
    if min(offset_mm, angle_deg, bend_deg, slide_mm) < 0:
        raise DataError(
            f"offset_mm, angle_deg, bend_deg and slide_mm must not be negative, got {offset_mm}, {angle_deg}, "
            f"{bend_deg} and {slide_mm}"
        )
    matrix = axis_grid(LOWER_MM, 1.0)
    points = points_of(matrix, SHAPE)
    bones = {name: _vertebra(points, name) for name in LEVELS_MM}
    tissue = _spine(points, np.minimum.reduce(list(bones.values())), stream(seed, "spine"))
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
    if own_poses is None:
        curve = _curve(curve_deg)
        own = {name: curve[name] @ each for name, each in _own_motion(seed, bend_deg, slide_mm).items()}
    else:
        own = {name: np.asarray(each, dtype=np.float64) for name, each in own_poses.items()}
    poses = {name: np.asarray(pose @ own.get(name, np.eye(4))) for name in LEVELS_MM}
    actual = placed.moved(poses[INSTRUMENTED])
    if all(np.array_equal(each, pose) for each in poses.values()):
        picture = resampled(tissue, matrix, grid, shape, invert(pose))
    else:
        picture = sampled(tissue, _preop_coordinates(points_of(grid, shape), poses, bones, matrix), outside=0.0)
    ends = (actual.entry_ras_mm, actual.tip_ras_mm)
    picture = with_rod(picture, grid, ends, actual.diameter_mm, scan)
    picture = picture * bias_field(grid, shape, middle, BIAS, stream(seed, "spine bias"))
    preop = Image(rician(tissue, 0.012 * WHITE, stream(seed, "spine preop")), matrix, name="preop spine")
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for number, bone in enumerate(bones.values(), start=1):
        labels[bone < 0] = number
    pedicle = _pedicle(points, INSTRUMENTED, side) < 0
    truth = SpineTruth(poses[INSTRUMENTED], actual, deviations(plan, placed), poses)
    return SpineCase(
        seed,
        preop,
        plan,
        {SPINE: Image(picture.astype(np.float32), grid, name=SPINE)},
        truth,
        Image(labels, matrix, name="vertebrae"),
        Image(pedicle.astype(np.uint8), matrix, name="pedicle"),
        scan,
    )


def _own_motion(seed: int, bend_deg: float, slide_mm: float) -> dict[str, Matrix]:
    """Motion of each vertebra about its own middle, in preoperative RAS."""
    result = {}
    for name, level in LEVELS_MM.items():
        rng = stream(seed, f"vertebra {name}")
        middle = np.array([0.0, float(_axis_of_spine(np.array([level]))[0]) - 10.0, level])
        own = np.eye(4)
        own[:3, :3] = rotation_about(rng.standard_normal(3), bend_deg * rng.uniform(0.3, 1.0))
        slide = rng.standard_normal(3)
        own[:3, 3] = middle - own[:3, :3] @ middle + slide_mm * rng.uniform(0.3, 1.0) * slide / np.linalg.norm(slide)
        result[name] = own
    return result


def _curve(step_deg: float) -> dict[str, Matrix]:
    """Motion of each vertebra in preoperative RAS when each turns by a step against its neighbour."""
    names = list(LEVELS_MM)
    middle = names.index(INSTRUMENTED)
    result = {INSTRUMENTED: np.eye(4)}
    for side in (-1, 1):
        for number in range(middle + side, len(names) if side > 0 else -1, side):
            name, nearer = names[number], names[number - side]
            height = (LEVELS_MM[name] + LEVELS_MM[nearer]) / 2
            disc = np.array([0.0, float(_axis_of_spine(np.array([height]))[0]), height])
            turn = np.eye(4)
            # About R, right-handed: what lies above leans backward, so forward is the negative turn.
            turn[:3, :3] = rotation_about((1.0, 0.0, 0.0), side * step_deg)
            turn[:3, 3] = disc - turn[:3, :3] @ disc
            result[name] = result[nearer] @ turn
    return result


def _preop_coordinates(
    points: FloatArray, poses: Mapping[str, Matrix], bones: Mapping[str, FloatArray], matrix: Matrix
) -> FloatArray:
    """Preoperative (k, j, i) index of each intraoperative point: rigid in a bone, shared between bones by nearness."""
    total = np.zeros(points.shape[:3], dtype=np.float32)
    coordinates = np.zeros((3, *points.shape[:3]), dtype=np.float32)
    for name, pose in poses.items():
        there = index_coordinates(matrix, apply(invert(pose), points))
        outside = np.maximum(sampled(bones[name], there), 0) + np.float32(STIFF_MM)
        # Beyond the grid its edge is repeated: the distance grows on, so that far tissue takes part in all motions.
        weight = 1 / outside**3
        coordinates += weight * there
        total += weight
    return np.asarray(coordinates / total)


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
    return replace(plan, entry_ras_mm=entry, tip_ras_mm=entry + tilt @ plan.axis * length)


def _axis_of_spine(z: FloatArray) -> FloatArray:
    """A coordinate of the centre of the vertebral bodies: a gentle lordosis."""
    return np.asarray(6.0 - 9.0 * (z / 80.0) ** 2)


def _pedicle(points: FloatArray, name: str, side: float) -> FloatArray:
    """Distance function of one pedicle, mm, negative inside. ``side``: 1 right, -1 left."""
    x, z = points[..., 0], points[..., 2]
    y, h = points[..., 1] - _axis_of_spine(z), z - LEVELS_MM[name]
    t = np.clip((y + 36) / 26, 0, 1)
    round_ = np.hypot((side * x - (17.0 - 2.5 * t)) / 0.82, h - 2.0) - 7.0
    return np.asarray(np.maximum(round_, np.maximum(y + 8, -38 - y)))


def _vertebra(points: FloatArray, name: str) -> FloatArray:
    """Distance function of one vertebra, mm, negative inside."""
    x, z = points[..., 0], points[..., 2]
    y, h = points[..., 1] - _axis_of_spine(z), z - LEVELS_MM[name]
    waist = 1.0 - 0.10 * (1 - np.minimum((h / 13.5) ** 2, 1.0))
    radial = (np.hypot(x / (23.5 * waist), y / (17.5 * waist)) - 1) * 19.0
    body = np.maximum(radial, np.abs(h) - 13.0)
    facet = (np.sqrt(((np.abs(x) - 19) / 8) ** 2 + ((y + 38) / 7) ** 2 + (h / 13) ** 2) - 1) * 7
    lamina = np.maximum(np.abs(y + 38 + 0.35 * (18 - np.abs(x))) - 3.2, np.maximum(np.abs(x) - 18, np.abs(h + 4) - 9))
    process = np.maximum(np.abs(x) - 3.4, np.maximum(np.abs(y + 56) - 14, np.abs(h + 6) - 8.5))
    transverse = np.maximum(np.hypot(y + 30, h - 2) - 4.5, np.abs(np.abs(x) - 29) - 10)
    both = [_pedicle(points, name, side) for side in (-1.0, 1.0)]
    whole = np.minimum.reduce([body, *both, facet, lamina, process, transverse])
    # Neighbours' facets overlap in these shapes: each vertebra ends half way to the next.
    return np.asarray(np.maximum(whole, np.abs(h) - 17.9), dtype=np.float32)


def _spine(points: FloatArray, bone: FloatArray, rng: np.random.Generator) -> FloatArray:
    """T1 intensities at RAS points (k, j, i, 3); ``bone``: distance function of all vertebrae."""
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

    disc = np.hypot(x / 23.5, y / 17.5)
    tissue = np.where(disc < 1, np.where(disc < 0.6, NUCLEUS, DISC), tissue)
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
