"""Each vertebra registered on its own: bone is rigid, the spine is not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Level, Matrix, Progress, Reason, Verdict, checked_rigid, no_progress
from IntraopMRIReconstructionLib.errors import Cancelled, RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, invert, rotation_about, rotation_angle_deg
from scipy import ndimage, optimize

from .blocks import finish_with_blocks
from .sampling import Float32Array, Volume, checked_volume, mask_on, points_of
from .tones import KNOTS, Tones

#: Neighbouring vertebrae move against each other by a few degrees and millimetres even in a correction; more is a
#: jump to the next level.
CHECK_TURN_DEG, REFUSED_TURN_DEG = 15.0, 30.0
CHECK_SHIFT_MM, REFUSED_SHIFT_MM = 8.0, 18.0
#: Two bones that lie this deep in one another collide; masks and voxels explain less, mm.
CHECK_OVERLAP_MM, REFUSED_OVERLAP_MM = 1.5, 4.0
#: Soft tissue around a vertebra that helps to find it, mm; more of it belongs to what moves otherwise.
CONTEXT_MM = 3.0
#: Below this correlation of the bone's grey values the vertebra is not there.
REFUSED_CORRELATION, CHECK_CORRELATION = 0.4, 0.6
#: Part of a vertebra (0..1) that the scan must cover: what lies outside speaks neither for a pose nor against it.
CHECK_COVERED, REFUSED_COVERED = 0.95, 0.5
#: Smaller blocks than in a head: a vertebra is 40 mm wide.
BLOCK_VOXELS = 5
#: Offsets (mm) and turns about the three axes (degrees) that are tried around each start.
OFFSETS_MM, TURNS_DEG = (-6.0, 0.0, 6.0), (-8.0, 8.0)
#: The search works on pictures blurred by this (mm), at so many points of the bone, and refines the best few starts.
SEARCH_BLUR_MM, SEARCH_POINTS, SEARCH_STARTS = 1.5, 1500, 3
#: A turn of one radian moves the bone's rim by about this (mm): it makes turns and shifts alike for the optimiser.
ARM_MM = 20.0
#: Blocks are robust against what covers a part of the bone and the correlation is not, so it may fall by this.
LOST_CORRELATION = 0.05
#: A vertebra whose blocks are too few for the last refinement, as at the border of the scan, is no surer than the blur
#: of the pictures that it was found in, mm.
UNREFINED_MM = SEARCH_BLUR_MM
#: Blocks that agree to a voxel are sure.
CHECK_ERROR_MM, REFUSED_ERROR_MM = 1.0, 3.0


@dataclass(frozen=True, eq=False)
class VertebraRegistration:
    """``intraop_from_preop``: (4, 4) of this vertebra. ``correlation``: of its grey values after registration.

    ``error_mm``: median disagreement of its blocks. ``why``: what kept it from being found or refined, in words.
    """

    name: str
    intraop_from_preop: Matrix
    correlation: float
    error_mm: float
    verdict: Verdict
    why: str = ""


def register_vertebrae(
    fixed: Image,
    moving: Image,
    vertebrae: Mapping[str, Image],
    *,
    initial: npt.ArrayLike | None = None,
    progress: Progress = no_progress,
    threads: int = 2,
) -> tuple[VertebraRegistration, ...]:
    """Pose of each preoperative vertebra in the intraoperative image ``fixed``.

    ``vertebrae``: masks of single vertebrae in the preoperative frame, by name, in order from head to foot: order
    makes neighbours, which are checked against collision and implausible motion. ``initial``: intraop_from_preop
    (4, 4) of the whole spine; identity when None. A vertebra that cannot be found keeps the initial pose and is
    refused. Raises DataError for unusable images, RegistrationError without any mask; Cancelled.
    """
    if not vertebrae:
        raise RegistrationError("no vertebra was given: segment at least one in the preoperative image")
    seen = Volume(checked_volume(fixed, "intraoperative"), fixed.ras_from_ijk)
    known = Volume(checked_volume(moving, "preoperative"), moving.ras_from_ijk)
    first = np.eye(4) if initial is None else np.array(checked_rigid(initial, "initial"))
    bones = [_Bone(name, mask_on(mask, known, name), known) for name, mask in vertebrae.items()]
    blurred = _blurred(seen)
    found: dict[int, _Pose] = {}
    for done, (number, starts) in enumerate(_outward(bones, blurred, first, found)):
        if not progress(done / len(bones), f"registering {bones[number].name}"):
            raise Cancelled(f"vertebra registration was stopped at {bones[number].name}")
        found[number] = _one((seen, blurred), known, bones[number], starts, threads)
    results = []
    for number, bone in enumerate(bones):
        pose = found[number]
        reasons = [_low("correlation of the bone", pose.correlation, "", CHECK_CORRELATION, REFUSED_CORRELATION)]
        reasons.append(_low("part in the scan", pose.covered, "", CHECK_COVERED, REFUSED_COVERED))
        reasons.append(_high("error of the pose", pose.error_mm, "mm", CHECK_ERROR_MM, REFUSED_ERROR_MM))
        if pose.correlation < REFUSED_CORRELATION:
            pose = _Pose(
                first, pose.correlation, UNREFINED_MM, pose.covered, pose.why or "no place looks like this vertebra"
            )
        for other in (number - 1, number + 1):
            if other in found and found[other].correlation > REFUSED_CORRELATION:
                reasons += _against(bone, pose.matrix, bones[other], found[other].matrix)
        matrix = checked_rigid(pose.matrix, bone.name)
        results.append(
            VertebraRegistration(bone.name, matrix, pose.correlation, pose.error_mm, Verdict(tuple(reasons)), pose.why)
        )
    progress(1.0, "done")
    return tuple(results)


class _Bone:
    """A vertebra before surgery: its grey values with a little tissue around, its surface, its depth."""

    def __init__(self, name: str, inside: npt.NDArray[np.bool_], known: Volume) -> None:
        self.name = name
        spacing = known.spacing_kji_mm
        self.context = np.asarray(ndimage.distance_transform_edt(~inside, sampling=spacing) <= CONTEXT_MM)
        self.surface = _surface(inside, known)
        self.middle = self.surface.mean(axis=0)
        depth = ndimage.distance_transform_edt(inside, sampling=spacing).astype(np.float32)
        self.depth = Volume(depth, known.ras_from_ijk).cropped(inside, 2.0)
        chosen = np.flatnonzero(self.context)
        chosen = chosen[:: max(1, chosen.size // SEARCH_POINTS)]
        self.points = points_of(known, chosen)
        self.grey = _at(_blurred(known.cropped(self.context, 3 * SEARCH_BLUR_MM)), self.points)


@dataclass(frozen=True, eq=False)
class _Pose:
    matrix: Matrix
    correlation: float
    error_mm: float
    covered: float
    why: str = ""


def _outward(
    bones: list[_Bone], blurred: Volume, first: Matrix, found: Mapping[int, _Pose]
) -> Iterator[tuple[int, list[Matrix]]]:
    """The vertebra that the initial pose fits best, then its neighbours: each starts also where those were found."""
    fits = [_correlation(blurred, first, bone.points, bone.grey) for bone in bones]
    left = set(range(len(bones)))
    while left:
        beside = {n for n in left if {n - 1, n + 1} & found.keys()}
        number = max(beside or left, key=lambda n: fits[n])
        left.remove(number)
        poses = [found[n].matrix for n in (number - 1, number + 1) if n in found]
        yield number, [first, *poses]


def _one(seen: tuple[Volume, Volume], known: Volume, bone: _Bone, starts: list[Matrix], threads: int) -> _Pose:
    """Pose of one vertebra: search, climb, refine by blocks. The bone is the fixed side: it stays as it is."""
    fixed, blurred = seen
    pose = _climbed(blurred, bone, _candidates(blurred, bone, starts))
    cropped = known.cropped(bone.context, 2.0)
    mask = Image(bone.context.astype(np.uint8), known.ras_from_ijk)
    chosen = np.flatnonzero(mask_on(mask, cropped, bone.name))
    points, values = points_of(cropped, chosen), cropped.values.ravel()[chosen]
    low, high = np.percentile(fixed.values, (1, 99.5))
    # Blocks scale grey values on their own: a straight line between the ranges of the two pictures is enough.
    dark, bright = np.percentile(cropped.values, (1, 99.5))
    curve = np.linspace(float(dark), float(bright), KNOTS, dtype=np.float32)
    tones = Tones((float(low), max(float(high), float(low) + 1e-6)), curve)
    before, covered = _correlation(fixed, pose, points, values), _covered(fixed, pose, points)
    try:
        fit = finish_with_blocks(
            (cropped, fixed),
            (cropped, fixed),
            mask=mask,
            preop_from_intraop=pose,
            tones=tones,
            threads=threads,
            still=_silent,
            edge_voxels=BLOCK_VOXELS,
        )
    except RegistrationError as error:
        return _Pose(pose, before, UNREFINED_MM, covered, f"not refined: {error}")
    after = _correlation(fixed, fit.preop_from_intraop, points, values)
    if after < before - LOST_CORRELATION:
        return _Pose(pose, before, UNREFINED_MM, covered, "not refined: its blocks disagree with its grey values")
    return _Pose(fit.preop_from_intraop, after, fit.residual_mm, _covered(fixed, fit.preop_from_intraop, points))


def _candidates(blurred: Volume, bone: _Bone, starts: list[Matrix]) -> list[Matrix]:
    """The best few poses among shifts and turns of each start."""
    turns = [np.zeros(3)] + [turn * axis for axis in np.eye(3) for turn in TURNS_DEG]
    scored: list[tuple[float, int, Matrix]] = []
    for start in starts:
        for turn in turns:
            for x, y, z in itertools.product(OFFSETS_MM, repeat=3):
                step = np.concatenate([(x, y, z), np.deg2rad(turn) * ARM_MM])
                pose = _stepped(start, bone.middle, step)
                scored.append((_correlation(blurred, pose, bone.points[::3], bone.grey[::3]), len(scored), pose))
    return [pose for _, _, pose in sorted(scored, reverse=True)[:SEARCH_STARTS]]


def _climbed(blurred: Volume, bone: _Bone, candidates: list[Matrix]) -> Matrix:
    """The best pose that a climb from each candidate reaches."""

    def climb(start: Matrix) -> tuple[float, Matrix]:
        def cost(step: npt.NDArray[np.float64]) -> float:
            return -_correlation(blurred, _stepped(start, bone.middle, step), bone.points, bone.grey)

        done = optimize.minimize(cost, np.zeros(6), method="Powell", options={"xtol": 0.05, "ftol": 1e-4, "maxiter": 6})
        return -float(done.fun), _stepped(start, bone.middle, done.x)

    return max((climb(start) for start in candidates), key=lambda reached: reached[0])[1]


def _stepped(pose: Matrix, middle: npt.NDArray[np.float64], step: npt.NDArray[np.float64]) -> Matrix:
    """``pose`` after a shift (mm) and a turn (radians times ARM_MM) about where it puts ``middle``."""
    angle = float(np.linalg.norm(step[3:])) / ARM_MM
    result = pose.copy()
    if angle > 1e-9:
        result[:3, :3] = rotation_about(step[3:], np.rad2deg(angle)) @ pose[:3, :3]
    result[:3, 3] = apply(pose, middle) + step[:3] - result[:3, :3] @ middle
    return result


def _silent(_fraction: float, _what: str) -> None:
    return None


def _blurred(volume: Volume) -> Volume:
    sigma = SEARCH_BLUR_MM / np.asarray(volume.spacing_kji_mm)
    return Volume(ndimage.gaussian_filter(volume.values, sigma), volume.ras_from_ijk)


def _at(volume: Volume, points: npt.NDArray[np.float64]) -> Float32Array:
    ijk = apply(invert(volume.ras_from_ijk), points)
    return np.asarray(ndimage.map_coordinates(volume.values, ijk[:, ::-1].T, order=1, mode="constant", prefilter=False))


def _inside(volume: Volume, points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    ijk = apply(invert(volume.ras_from_ijk), points)
    return np.asarray(((ijk >= -0.5) & (ijk <= np.array(volume.values.shape[::-1]) - 0.5)).all(axis=1))


def _covered(fixed: Volume, intraop_from_preop: Matrix, points: npt.NDArray[np.float64]) -> float:
    """Part (0..1) of the points that the scan covers."""
    return float(_inside(fixed, apply(intraop_from_preop, points)).mean())


def _correlation(
    fixed: Volume, intraop_from_preop: Matrix, points: npt.NDArray[np.float64], values: Float32Array
) -> float:
    """Of the grey values at the points that the scan covers; 0 where it covers too few."""
    places = apply(intraop_from_preop, points)
    inside = _inside(fixed, places)
    if inside.mean() < REFUSED_COVERED:
        return 0.0
    seen, known = _at(fixed, places[inside]), values[inside]
    if seen.std() < 1e-6 or known.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(seen, known)[0, 1])


def _surface(inside: npt.NDArray[np.bool_], volume: Volume) -> npt.NDArray[np.float64]:
    edge = inside & ~ndimage.binary_erosion(inside)
    chosen = np.flatnonzero(edge)
    return points_of(volume, chosen[:: max(1, chosen.size // 3000)])


def _against(bone: _Bone, pose: Matrix, other: _Bone, other_pose: Matrix) -> list[Reason]:
    """Motion against a neighbour, and how deep the two bones would lie in one another."""
    relative = invert(other_pose) @ pose
    middle = (bone.middle + other.middle) / 2
    shift = float(np.linalg.norm(apply(relative, middle) - middle))
    overlaps = [
        float((_at(theirs.depth, apply(matrix, ours.surface)) - _at(theirs.depth, ours.surface)).max())
        for ours, theirs, matrix in ((bone, other, relative), (other, bone, invert(relative)))
    ]
    overlap = max(0.0, *overlaps)
    name = other.name
    return [
        _high(f"turn against {name}", rotation_angle_deg(relative), "deg", CHECK_TURN_DEG, REFUSED_TURN_DEG),
        _high(f"shift against {name}", shift, "mm", CHECK_SHIFT_MM, REFUSED_SHIFT_MM),
        _high(f"overlap with {name}", overlap, "mm", CHECK_OVERLAP_MM, REFUSED_OVERLAP_MM),
    ]


def _high(name: str, value: float, unit: str, check: float, refused: float) -> Reason:
    level = Level.REFUSED if value > refused else Level.CHECK if value > check else Level.GOOD
    return Reason(name, value, unit, f"below {check:g} {unit}", level)


def _low(name: str, value: float, unit: str, check: float, refused: float) -> Reason:
    level = Level.REFUSED if value < refused else Level.CHECK if value < check else Level.GOOD
    return Reason(name, value, unit, f"above {check:g} {unit}".rstrip(), level)
