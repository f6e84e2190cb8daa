"""Where the tip of a tracked tool is and which way its shaft points, from poses of the tool being pivoted and spun.

Both rest on the mean M of the rotations: a direction d of the tool turns by the part 1 - |M d|^2 of a full turn's
spread. The shaft is the direction that spinning does not turn; a tip is found only when pivoting turned them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Level, Matrix, Pose, Reason, Verdict, checked_rigid
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import rotation_about, rotation_angle_deg

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Model = TypeVar("Model")

#: Fewer poses are no calibration: noise and slips could not be told apart.
MIN_POSES = 30
#: A tool at rest would outweigh its motion: a pose counts when it differs from the last one by either.
NEW_DEG, NEW_MM = 0.5, 0.5
#: More poses add nothing: the error of the mean is then a twentieth of the tracker's noise.
MOST_POSES = 500
#: The gates of a neuronavigation project, and half of them: beyond the first nothing is calibrated.
REFUSED_PIVOT_MM, CHECK_PIVOT_MM = 0.8, 0.4
REFUSED_SPIN_DEG, CHECK_SPIN_DEG = 1.0, 0.5
#: How far the direction that was turned least must have turned, root mean square: a cone of 2 x 23 and 2 x 17 degrees.
PIVOT_COVERED_DEG, PIVOT_TOO_LITTLE_DEG = 16.0, 12.0
#: Range of the turn about the shaft.
SPIN_COVERED_DEG, SPIN_TOO_LITTLE_DEG = 90.0, 45.0
#: Poses that may be set aside as slips of the tip or errors of the tracker, share.
CHECK_ASIDE, REFUSED_ASIDE = 0.15, 0.3
#: Small samples from which a fit without slips is looked for: with 30 % slips all fail once in 10^5.
SAMPLES, SAMPLE_SIZE = 64, 5
#: A pose further off than this many times the noise is set aside: one honest pose in 400.
OUTLYING = 3.75
#: Median length of a 3D error and median size of an angle of two errors, in standard deviations of one component.
MEDIAN_3D, MEDIAN_2D = 1.538, 1.177
#: Below these errors no pose is set aside: no tracker is better.
FLOOR_MM, FLOOR_DEG = 0.05, 0.02
#: A tip nearer to the tracked origin than this does not say which way the shaft points.
SHORT_MM = 10.0


@dataclass(frozen=True, eq=False)
class PivotCalibration:
    """``tip_mm``: (3,) tip in the tool's own frame. ``pivot_mm``: (3,) where it rested, in the tracker's frame.

    ``rms_mm``: root mean square distance of the tip from there, of the poses kept. ``covered_deg``: how far the
    direction of the tool that was turned least has turned, root mean square. ``error_mm``: standard error of the tip.
    """

    tip_mm: Array
    pivot_mm: Array
    rms_mm: float
    covered_deg: float
    error_mm: float
    poses: int
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class SpinCalibration:
    """``shaft``: (3,) unit vector in the tool's own frame, of unknown sign. ``rms_deg``: root mean square angle of the

    shaft from its mean, of the poses kept. ``covered_deg``: range of the turn about it, 0..360.
    """

    shaft: Array
    rms_deg: float
    covered_deg: float
    poses: int
    verdict: Verdict


class PoseCollection:
    """Poses of one tool that is being calibrated. Unseen, repeated and resting poses are left out."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self._matrices: list[Matrix] = []

    def __len__(self) -> int:
        return len(self._matrices)

    @property
    def matrices(self) -> Array:
        """(n, 4, 4), tracker's frame from tool, mm."""
        return np.array(self._matrices).reshape(-1, 4, 4)

    def add(self, pose: Pose) -> bool:
        """Take in a pose, as the tracker sends it; whether it was new. Poses of other tools are no part of it."""
        if not pose.valid or pose.tool != self.tool or len(self) >= MOST_POSES:
            return False
        if self._matrices:
            last = self._matrices[-1]
            turned = rotation_angle_deg(pose.ras_from_tool[:3, :3] @ last[:3, :3].T)
            if turned < NEW_DEG and np.linalg.norm(pose.ras_from_tool[:3, 3] - last[:3, 3]) < NEW_MM:
                return False
        self._matrices.append(pose.ras_from_tool)
        return True


def calibrate_pivot(tracker_from_tool: npt.ArrayLike) -> PivotCalibration:
    """Tip of a tool whose tip rested in one point while it was turned about it. ``tracker_from_tool``: (n, 4, 4), mm.

    Least squares of tip and resting point (the algebraic one-step method, Yaniv 2015), on the poses that a search over
    small samples finds free of slips (least median of squares, Rousseeuw 1984). DataError for fewer than MIN_POSES.
    """
    rotations, places = _checked(tracker_from_tool)

    def fit(kept: Indices) -> tuple[Array, Array]:
        turn, place = rotations[kept].mean(axis=0), places[kept].mean(axis=0)
        offset = places[kept] - place
        # Sum of (R - M)^T (R - M) is n (1 - M^T M); a hinge leaves it singular: pinv then takes the nearest tip.
        right = -np.einsum("nji,nj->i", rotations[kept] - turn, offset) / len(offset)
        tip = np.linalg.pinv(np.eye(3) - turn.T @ turn, rcond=1e-9, hermitian=True) @ right
        return tip, turn @ tip + place

    def errors(found: tuple[Array, Array]) -> Array:
        return np.asarray(np.linalg.norm(rotations @ found[0] + places - found[1], axis=1))

    robust = _fit_without_slips(len(places), fit, errors, FLOOR_MM / MEDIAN_3D, MEDIAN_3D)
    tip, pivot = robust.model
    rms = float(np.sqrt(np.mean(robust.errors[robust.kept] ** 2)))
    turned = _unturned(rotations[robust.kept])[0]
    covered = float(np.rad2deg(np.arcsin(np.sqrt(turned[0]))))
    # The inverse of the normal matrix n (1 - M^T M), times the variance of one component.
    error = rms * float(np.sqrt((1.0 / np.maximum(turned, 1e-9)).sum() / (3.0 * len(robust.kept))))
    verdict = Verdict(
        (
            _limited("pivot residual", rms, "mm", CHECK_PIVOT_MM, REFUSED_PIVOT_MM),
            _enough("turned", covered, PIVOT_COVERED_DEG, PIVOT_TOO_LITTLE_DEG),
            _limited("poses set aside", robust.aside_percent, "%", 100 * CHECK_ASIDE, 100 * REFUSED_ASIDE),
        )
    )
    return PivotCalibration(tip, pivot, rms, covered, error, len(robust.kept), verdict)


def calibrate_spin(tracker_from_tool: npt.ArrayLike) -> SpinCalibration:
    """Shaft of a tool that was spun about it. ``tracker_from_tool``: (n, 4, 4). DataError for fewer than MIN_POSES.

    The shaft is the direction whose places on the sphere scatter least about their mean; slips as for the pivot.
    """
    rotations, _ = _checked(tracker_from_tool)

    def fit(kept: Indices) -> Array:
        return _unturned(rotations[kept])[1]

    def errors(shaft: Array) -> Array:
        directions = rotations @ shaft
        middle = np.median(directions, axis=0)
        across = np.linalg.norm(np.cross(directions, middle / np.linalg.norm(middle)), axis=1)
        return np.asarray(np.rad2deg(np.arcsin(np.minimum(across, 1.0))))

    robust = _fit_without_slips(len(rotations), fit, errors, FLOOR_DEG / MEDIAN_2D, MEDIAN_2D)
    rms = float(np.sqrt(np.mean(robust.errors[robust.kept] ** 2)))
    covered = _range_about(robust.model, rotations[robust.kept])
    verdict = Verdict(
        (
            _limited("spin residual", rms, "deg", CHECK_SPIN_DEG, REFUSED_SPIN_DEG),
            _enough("turned", covered, SPIN_COVERED_DEG, SPIN_TOO_LITTLE_DEG),
            _limited("poses set aside", robust.aside_percent, "%", 100 * CHECK_ASIDE, 100 * REFUSED_ASIDE),
        )
    )
    return SpinCalibration(robust.model, rms, covered, len(robust.kept), verdict)


def tool_from_tip(tip_mm: npt.ArrayLike, shaft: npt.ArrayLike | None = None) -> Matrix:
    """(4, 4) to multiply poses with from the right: then the origin is the tip and +z leads up the shaft.

    ``tip_mm`` and ``shaft`` (3,) in the tool's frame; without a shaft the tool keeps its own axes. The shaft's sign is
    the one that leads from the tip to the tracked body, or along the tool's own +z when both are in one place.
    """
    tip = np.asarray(tip_mm, dtype=np.float64)
    matrix = np.eye(4)
    matrix[:3, 3] = tip
    if shaft is not None:
        direction = np.asarray(shaft, dtype=np.float64)
        if direction.shape != (3,) or not np.isclose(np.linalg.norm(direction), 1.0, atol=1e-6):
            raise DataError(f"the shaft must be a unit vector (3,), got {direction.tolist()}")
        upward = -tip if np.linalg.norm(tip) > SHORT_MM else np.array([0.0, 0.0, 1.0])
        direction = direction if direction @ upward >= 0 else -direction
        axis = np.cross((0.0, 0.0, 1.0), direction)
        if np.linalg.norm(axis) < 1e-9:
            axis = np.array([1.0, 0.0, 0.0])
        matrix[:3, :3] = rotation_about(axis, float(np.rad2deg(np.arccos(np.clip(direction[2], -1.0, 1.0)))))
    return checked_rigid(matrix, "tool_from_tip")


def at_tip(pose: Pose, tool_from_tip: npt.ArrayLike) -> Pose:
    """The pose of the calibrated tip."""
    return replace(pose, ras_from_tool=pose.ras_from_tool @ checked_rigid(tool_from_tip, "tool_from_tip"))


@dataclass(frozen=True, eq=False)
class _Robust(Generic[Model]):
    model: Model
    errors: Array
    kept: Indices

    @property
    def aside_percent(self) -> float:
        return 100.0 * (1.0 - len(self.kept) / len(self.errors))


def _fit_without_slips(
    count: int, fit: Callable[[Indices], Model], errors: Callable[[Model], Array], floor: float, median: float
) -> _Robust[Model]:
    """The fit to all poses but those that lie ``OUTLYING`` times the noise off it."""
    # The same poses give the same calibration: no one may roll the dice again until it fits.
    rng = np.random.default_rng(0)
    best, least = fit(np.arange(count)), np.inf
    for _ in range(SAMPLES):
        model = fit(rng.choice(count, SAMPLE_SIZE, replace=False))
        middle = float(np.median(errors(model)))
        if middle < least:
            best, least = model, middle
    kept = np.arange(count)
    for _ in range(10):
        distance = errors(best)
        noise = max(floor, float(np.median(distance)) / median)
        now = np.flatnonzero(distance <= OUTLYING * noise)
        best = fit(now)
        if np.array_equal(now, kept):
            break
        kept = now
    return _Robust(best, errors(best), kept)


def _checked(matrices: npt.ArrayLike) -> tuple[Array, Array]:
    poses = np.asarray(matrices, dtype=np.float64)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not np.isfinite(poses).all():
        raise DataError(f"poses must be finite matrices of shape (n, 4, 4), got shape {poses.shape}")
    if len(poses) < MIN_POSES:
        raise DataError(f"{len(poses)} different poses, at least {MIN_POSES} are needed: go on moving the tool")
    return poses[:, :3, :3], poses[:, :3, 3]


def _unturned(rotations: Array) -> tuple[Array, Array]:
    """By how much each principal direction of the tool turned, 0..1 ascending, and the one that turned least."""
    mean = rotations.mean(axis=0)
    turned, directions = np.linalg.eigh(np.eye(3) - mean.T @ mean)
    return np.clip(turned, 0.0, 1.0), directions[:, 0]


def _range_about(axis: Array, rotations: Array) -> float:
    """The angle in degrees that a turn about ``axis`` has swept: all but the widest gap between its places."""
    side = np.cross(axis, np.eye(3)[int(np.argmin(np.abs(axis)))])
    side /= np.linalg.norm(side)
    # In the frame of the first pose, so that only the turn about the axis is left.
    turned = np.einsum("ji,njk,k->ni", rotations[0], rotations, side)
    angles = np.sort(np.rad2deg(np.arctan2(turned @ np.cross(axis, side), turned @ side)))
    gaps = np.diff(np.append(angles, angles[0] + 360.0))
    return float(360.0 - gaps.max())


def _limited(name: str, value: float, unit: str, check: float, refused: float) -> Reason:
    level = Level.REFUSED if value > refused else Level.CHECK if value > check else Level.GOOD
    return Reason(name, value, unit, f"below {check:g} {unit}", level)


def _enough(name: str, value: float, wanted: float, too_little: float) -> Reason:
    level = Level.REFUSED if value < too_little else Level.CHECK if value < wanted else Level.GOOD
    return Reason(name, value, "deg", f"above {wanted:g} deg: turn the tool further, in all directions", level)
