"""Planes that follow the pointer, and a pose that does not tremble."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Matrix, Pose
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import rotation_about, rotation_angle_deg

Vector = npt.NDArray[np.float64]
Plane = Literal["axial", "sagittal", "coronal", "in-plane", "in-plane 90", "probe's eye"]

#: Columns of the standard planes in RAS: picture right, picture up, towards the viewer. Radiological: the patient's
#: right is on the left of axial and coronal views, anterior on the left of sagittal ones.
_STANDARD: dict[str, tuple[Vector, Vector]] = {
    "axial": (np.array([-1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])),
    "sagittal": (np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0])),
    "coronal": (np.array([-1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])),
}
#: A direction whose part in the plane is shorter than this cannot point up.
LEAST_UPRIGHT = 0.2
#: One Euro filter (Casiez et al., CHI 2012): cut-off at rest in Hz, and how much it opens per mm/s or deg/s.
REST_HZ, OPENING_PER_MM_S, OPENING_PER_DEG_S = 1.5, 0.05, 0.05
SPEED_HZ = 1.0
#: Twice the sine of the smallest turn that has an axis: far below what any eye or tracker tells.
LEAST_SINE = 1e-7
#: A longer gap or a wider turn between two poses is a new beginning, not a motion to be smoothed.
GAP_S, GAP_DEG = 0.5, 90.0


def slice_to_ras(plane: Plane, pose: Pose | None = None, at_ras_mm: npt.ArrayLike | None = None) -> Matrix:
    """Plane as a (4, 4) rigid ``ras_from_slice``: columns picture right, picture up, normal, and the centre (mm).

    The matrix is right-handed: normal = right x up, toward the viewer (a view that wants the axial normal to point
    to superior flips that column). Standard planes pass through the tip (or ``at_ras_mm``) with the radiological
    picture directions. 'in-plane' and 'in-plane 90' contain the tool's shaft; 'probe's eye' looks along it.
    Raises DataError when the plane needs a pose and there is none, or when the tracker does not see the tool.
    """
    if pose is not None and not pose.valid:
        raise DataError(f"the tracker does not see '{pose.tool}': the planes stay where they are")
    centre = at_ras_mm if at_ras_mm is not None else None if pose is None else pose.tip_ras_mm
    if centre is None:
        raise DataError(f"the {plane} plane needs a pose or a point to pass through")
    if not np.isfinite(centre).all():
        raise DataError(
            f"the {plane} plane must pass through finite coordinates in mm, got {np.asarray(centre).tolist()}"
        )
    if plane in _STANDARD:
        right, up = _STANDARD[plane]
    elif pose is None:
        raise DataError(f"the {plane} plane follows a tool and needs its pose")
    else:
        right, up = _tool_plane(plane, pose.ras_from_tool[:3, :3])
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = right, up, _cross(right, up)
    matrix[:3, 3] = centre
    matrix.setflags(write=False)
    return matrix


def _tool_plane(plane: str, tool: npt.NDArray[np.float64]) -> tuple[Vector, Vector]:
    shaft = tool[:, 2]
    upright = _upright(shaft)
    across = _cross(upright, shaft)
    if plane == "in-plane":
        # The tool enters from the top of the picture: its shaft points down.
        return across, -shaft
    if plane == "in-plane 90":
        return -upright, -shaft
    if plane == "probe's eye":
        return -across, upright
    raise DataError(f"unknown plane '{plane}', expected one of {', '.join(get_args(Plane))}")


def _upright(shaft: Vector) -> Vector:
    """The direction across the shaft that is nearest to superior, or anterior when the tool stands upright."""
    for direction in (np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])):
        part = direction - (direction @ shaft) * shaft
        length = float(np.linalg.norm(part))
        if length > LEAST_UPRIGHT:
            return np.asarray(part / length)
    raise DataError(f"the tool's shaft {shaft.tolist()} is not a unit vector")


class PoseSmoother:
    """One Euro filter over poses: still hands give a still picture, quick motion is followed without lag."""

    def __init__(self) -> None:
        self._last: Pose | None = None
        self._position = np.zeros(3)
        self._rotation = np.eye(3)
        self._speed = 0.0
        self._turning = 0.0

    def smooth(self, pose: Pose) -> Pose:
        """The pose with a steadier matrix; times and validity unchanged. An unseen tool resets the filter."""
        last, self._last = self._last, pose if pose.valid else None
        if not pose.valid:
            return pose
        position, rotation = np.array(pose.tip_ras_mm), pose.ras_from_tool[:3, :3]
        step = 0.0 if last is None else pose.received_monotonic_s - last.received_monotonic_s
        missing = rotation @ self._rotation.T
        angle_deg = rotation_angle_deg(missing)
        if last is None or not 0.0 < step < GAP_S or angle_deg > GAP_DEG:
            self._position, self._rotation, self._speed, self._turning = position, rotation, 0.0, 0.0
            return pose
        share = _share(SPEED_HZ, step)
        moved = float(np.linalg.norm(position - last.tip_ras_mm)) / step
        turned = rotation_angle_deg(rotation @ last.ras_from_tool[:3, :3].T) / step
        self._speed += share * (moved - self._speed)
        self._turning += share * (turned - self._turning)
        toward = _share(REST_HZ + OPENING_PER_MM_S * self._speed, step)
        self._position = self._position + toward * (position - self._position)
        turn = _share(REST_HZ + OPENING_PER_DEG_S * self._turning, step)
        # The axis of a rotation lies in its skew part. A matrix that came as float32 is no exact rotation: its angle
        # may be told without there being an axis.
        axis = np.array([missing[2, 1] - missing[1, 2], missing[0, 2] - missing[2, 0], missing[1, 0] - missing[0, 1]])
        if np.linalg.norm(axis) > LEAST_SINE:
            self._rotation = rotation_about(axis, turn * angle_deg) @ self._rotation
        matrix = np.eye(4)
        matrix[:3, :3] = self._rotation
        matrix[:3, 3] = self._position
        return replace(pose, ras_from_tool=matrix)


def _cross(a: Vector, b: Vector) -> Vector:
    """Cross product of two (3,): numpy's own takes ten times as long, for any shape."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _share(cutoff_hz: float, step_s: float) -> float:
    """Weight of a new value in a first-order low pass."""
    rate = 2.0 * np.pi * cutoff_hz * step_s
    return float(rate / (rate + 1.0))
