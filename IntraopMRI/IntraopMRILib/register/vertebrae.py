"""Each vertebra registered on its own: bone is rigid, the spine is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Level, Matrix, Progress, Reason, Verdict, checked_rigid, no_progress
from IntraopMRIReconstructionLib.errors import Cancelled, IntraopError, RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, invert, rotation_angle_deg
from scipy import ndimage
from scipy.spatial import cKDTree

from .blocks import finish_with_blocks
from .sampling import Float32Array, Volume, checked_volume, mask_on, points_of
from .tones import KNOTS, Tones

#: Neighbouring vertebrae move against each other by a few degrees and millimetres even in a correction; more is a
#: jump to the next level.
CHECK_TURN_DEG, REFUSED_TURN_DEG = 15.0, 30.0
CHECK_SHIFT_MM, REFUSED_SHIFT_MM = 8.0, 18.0
#: Bones that come nearer than they were by more than this collide, mm.
COLLISION_MM = 1.5
#: Soft tissue around a vertebra that helps to find it, mm; more of it belongs to what moves otherwise.
CONTEXT_MM = 3.0
#: Below this correlation of the bone's grey values the vertebra is not there.
REFUSED_CORRELATION, CHECK_CORRELATION = 0.4, 0.6
#: Smaller blocks than in a head: a vertebra is 40 mm wide.
BLOCK_VOXELS = 5
#: Offsets (mm) along the spine and across it that are tried around the initial pose.
OFFSETS_MM = (-6.0, 0.0, 6.0)


@dataclass(frozen=True, eq=False)
class VertebraRegistration:
    """``intraop_from_preop``: (4, 4) of this vertebra. ``correlation``: of its grey values after registration."""

    name: str
    intraop_from_preop: Matrix
    correlation: float
    verdict: Verdict


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
    whole_fixed = Volume(checked_volume(fixed, "intraoperative"), fixed.ras_from_ijk)
    whole_moving = Volume(checked_volume(moving, "preoperative"), moving.ras_from_ijk)
    first = np.eye(4) if initial is None else np.array(checked_rigid(initial, "initial"))
    found: list[tuple[str, Matrix, float, str]] = []
    clouds = []
    guess = first
    for number, (name, mask) in enumerate(vertebrae.items()):
        if not progress(number / len(vertebrae), f"registering {name}"):
            raise Cancelled(f"vertebra registration was stopped at {name}")
        inside = mask_on(mask, whole_moving, name)
        clouds.append(_surface(inside, whole_moving))
        try:
            pose, correlation = _one(whole_fixed, whole_moving, inside, (first, guess), threads)
            guess = pose
            found.append((name, pose, correlation, ""))
        except IntraopError as error:
            found.append((name, first, 0.0, str(error)))
    results = []
    for number, (name, pose, correlation, _why) in enumerate(found):
        neighbours = [n for n in (number - 1, number + 1) if 0 <= n < len(found) and found[n][2] > REFUSED_CORRELATION]
        reasons = [_low("correlation of the bone", correlation, "", CHECK_CORRELATION, REFUSED_CORRELATION)]
        for other in neighbours:
            reasons += _against(found[other][0], pose, found[other][1], clouds[number], clouds[other])
        results.append(VertebraRegistration(name, checked_rigid(pose, name), correlation, Verdict(tuple(reasons))))
    progress(1.0, "done")
    return tuple(results)


def _one(
    fixed: Volume, moving: Volume, inside: npt.NDArray[np.bool_], starts: tuple[Matrix, Matrix], threads: int
) -> tuple[Matrix, float]:
    """Pose and correlation of one vertebra. The bone is the fixed side of the fit: it is what stays as it is."""
    context = ndimage.distance_transform_edt(~inside, sampling=moving.spacing_kji_mm) <= CONTEXT_MM
    bone = moving.cropped(np.asarray(context), 2.0)
    mask = Image(np.asarray(context).astype(np.uint8), moving.ras_from_ijk)
    points = points_of(bone, np.flatnonzero(mask_on(mask, bone, "vertebra")))
    values = bone.values.ravel()[np.flatnonzero(mask_on(mask, bone, "vertebra"))]
    offsets = [np.array([x, y, z]) for x in OFFSETS_MM for y in OFFSETS_MM for z in OFFSETS_MM]
    candidates = []
    for start in starts:
        for offset in offsets:
            pose = start.copy()
            pose[:3, 3] += offset
            candidates.append((_correlation(fixed, pose, points[::5], values[::5]), pose))
    best = max(candidates, key=lambda c: c[0])[1]
    low, high = np.percentile(fixed.values, (1, 99.5))
    # Blocks scale grey values on their own: a straight line leaves them as they are.
    tones = Tones((float(low), max(float(high), float(low) + 1e-6)), np.linspace(0, 1, KNOTS, dtype=np.float32))
    fit = finish_with_blocks(
        (bone, fixed),
        (bone, fixed),
        mask=mask,
        preop_from_intraop=best,
        tones=tones,
        threads=threads,
        still=_silent,
        edge_voxels=BLOCK_VOXELS,
    )
    return fit.preop_from_intraop, _correlation(fixed, fit.preop_from_intraop, points, values)


def _silent(_fraction: float, _what: str) -> None:
    return None


def _correlation(
    fixed: Volume, intraop_from_preop: Matrix, points: npt.NDArray[np.float64], values: Float32Array
) -> float:
    ijk = apply(invert(fixed.ras_from_ijk), apply(intraop_from_preop, points))
    seen = ndimage.map_coordinates(fixed.values, ijk[:, ::-1].T, order=1, mode="constant", prefilter=False)
    if seen.std() < 1e-6 or values.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(seen, values)[0, 1])


def _surface(inside: npt.NDArray[np.bool_], volume: Volume) -> npt.NDArray[np.float64]:
    edge = inside & ~ndimage.binary_erosion(inside)
    chosen = np.flatnonzero(edge)
    return points_of(volume, chosen[:: max(1, chosen.size // 3000)])


def _against(
    name: str, pose: Matrix, other: Matrix, cloud: npt.NDArray[np.float64], other_cloud: npt.NDArray[np.float64]
) -> list[Reason]:
    """Motion against a neighbour, and how much nearer the two bones have come."""
    relative = invert(other) @ pose
    middle = (cloud.mean(axis=0) + other_cloud.mean(axis=0)) / 2
    shift = float(np.linalg.norm(apply(relative, middle) - middle))
    before = float(cKDTree(other_cloud).query(cloud)[0].min())
    now = float(cKDTree(apply(other, other_cloud)).query(apply(pose, cloud))[0].min())
    nearer = max(0.0, before - now)
    return [
        _high(f"turn against {name}", rotation_angle_deg(relative), "deg", CHECK_TURN_DEG, REFUSED_TURN_DEG),
        _high(f"shift against {name}", shift, "mm", CHECK_SHIFT_MM, REFUSED_SHIFT_MM),
        _high(f"came nearer to {name} by", nearer, "mm", COLLISION_MM, 4 * COLLISION_MM),
    ]


def _high(name: str, value: float, unit: str, check: float, refused: float) -> Reason:
    level = Level.REFUSED if value > refused else Level.CHECK if value > check else Level.GOOD
    return Reason(name, value, unit, f"below {check:g} {unit}", level)


def _low(name: str, value: float, unit: str, check: float, refused: float) -> Reason:
    level = Level.REFUSED if value < refused else Level.CHECK if value < check else Level.GOOD
    return Reason(name, value, unit, f"above {check:g} {unit}".rstrip(), level)
