"""Planned against actual implants: screws, leads, needles. All points in one RAS frame, mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Measurement, checked_affine
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply

Vector = npt.NDArray[np.float64]

PLACEMENT_SOURCE = "Planned against actual trajectory, PMC7358954, PMC5557874"
BAND_SOURCE = "Pedicle screw accuracy bands, s13018-023-04206-5"
#: Upper limits (mm, deg) of the published bands.
BANDS = (("optimal", 0.5, 2.5), ("inaccurate", 2.0, 5.0))
#: A trajectory whose projection is shorter than this part of it has no direction in that plane.
LEAST_PROJECTION = 0.17


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A straight implant from entry to tip: (3,) points in RAS, mm, and its diameter in mm."""

    entry_ras_mm: Vector
    tip_ras_mm: Vector
    diameter_mm: float
    name: str = "implant"

    def __post_init__(self) -> None:
        for field in ("entry_ras_mm", "tip_ras_mm"):
            point = np.array(getattr(self, field), dtype=np.float64)
            if point.shape != (3,) or not np.isfinite(point).all():
                raise AssessmentError(f"{field} of '{self.name}' must be three finite coordinates in mm, got {point}")
            point.setflags(write=False)
            object.__setattr__(self, field, point)
        if not (np.isfinite(self.diameter_mm) and self.diameter_mm > 0):
            raise AssessmentError(f"the diameter of '{self.name}' must be positive, got {self.diameter_mm} mm")
        if self.length_mm < self.diameter_mm:
            raise AssessmentError(
                f"'{self.name}' is {self.length_mm:.2f} mm long, less than its diameter {self.diameter_mm:.2f} mm: "
                "set entry and tip apart"
            )

    @property
    def length_mm(self) -> float:
        """Distance from entry to tip."""
        return float(np.linalg.norm(self.tip_ras_mm - self.entry_ras_mm))

    @property
    def direction(self) -> Vector:
        """Unit vector (3,) from entry to tip, RAS."""
        return np.asarray((self.tip_ras_mm - self.entry_ras_mm) / self.length_mm)

    def moved(self, to_ras_from_ras: npt.ArrayLike) -> Trajectory:
        """The same implant in another RAS frame; (4, 4), mm."""
        matrix = checked_affine(to_ras_from_ras, "to_ras_from_ras")
        return Trajectory(apply(matrix, self.entry_ras_mm), apply(matrix, self.tip_ras_mm), self.diameter_mm, self.name)


@dataclass(frozen=True)
class Band:
    """In which published band a placement lies, with the limits that decide."""

    value: str
    definition: str = "optimal to 0.5 mm and 2.5 deg at entry and tip; inaccurate to 2 mm and 5 deg; then unacceptable"
    source: str = BAND_SOURCE


def compare(
    planned: Trajectory,
    actual: Trajectory,
    uncertainty_mm: float = 0.0,
    axial_normal_ras: npt.ArrayLike = (0.0, 0.0, 1.0),
    sagittal_normal_ras: npt.ArrayLike = (1.0, 0.0, 0.0),
    based_on: tuple[str, ...] = (),
) -> tuple[Measurement, ...]:
    """Entry, tip, radial, depth and angular deviation of ``actual`` from ``planned`` (same RAS frame).

    ``uncertainty_mm`` of the actual ends gives the intervals. The normals name the patient's axial and sagittal
    planes (RAS axes by default). Raises AssessmentError when the two run in opposite directions: entry and tip swapped.
    """
    if not (np.isfinite(uncertainty_mm) and uncertainty_mm >= 0):
        raise AssessmentError(f"uncertainty_mm must be zero or more, got {uncertainty_mm}")
    u, v = planned.direction, actual.direction
    if float(u @ v) <= 0:
        raise AssessmentError(
            f"planned and actual '{planned.name}' run {np.rad2deg(np.arccos(u @ v)):.0f} deg apart: "
            "entry and tip of one of them are probably swapped"
        )
    label = planned.name
    crossing = _crossing(actual, planned.entry_ras_mm, u)
    tip = actual.tip_ras_mm - planned.tip_ras_mm
    to_target = planned.tip_ras_mm - actual.entry_ras_mm
    angle_error = float(np.rad2deg(np.arctan2(np.sqrt(2.0) * uncertainty_mm, actual.length_mm)))

    def one(name: str, value: float, unit: str, definition: str, error: float, signed: bool = False) -> Measurement:
        low = value - error if signed else max(0.0, value - error)
        interval = (low, value + error) if error > 0 else None
        return Measurement(f"{label}: {name}", value, unit, definition, PLACEMENT_SOURCE, interval, based_on=based_on)

    return (
        one(
            "entry deviation",
            float(np.linalg.norm(crossing - planned.entry_ras_mm)),
            "mm",
            "Distance from the planned entry to the actual axis in the plane through the planned entry across the "
            "planned axis",
            uncertainty_mm,
        ),
        one("tip deviation", float(np.linalg.norm(tip)), "mm", "|actual tip - planned target|", uncertainty_mm),
        one(
            "radial deviation",
            float(np.linalg.norm(to_target - (to_target @ v) * v)),
            "mm",
            "Perpendicular distance from the planned target to the actual axis",
            uncertainty_mm,
        ),
        one(
            "depth deviation",
            float(tip @ u),
            "mm",
            "Actual tip minus planned target along the planned axis, + is deeper",
            uncertainty_mm,
            True,
        ),
        one("angular deviation", _angle_deg(u, v), "deg", "acos |u . v| of planned and actual axis", angle_error),
        _planar("axial", label, u, v, axial_normal_ras, angle_error, based_on),
        _planar("sagittal", label, u, v, sagittal_normal_ras, angle_error, based_on),
    )


def band(measurements: tuple[Measurement, ...]) -> Band:
    """The accuracy band of a result of :func:`compare`: entry and tip distance and angle must all lie within it."""
    values = {m.name.split(": ", 1)[-1]: m.value for m in measurements}
    try:
        distance = max(values["entry deviation"] or 0.0, values["tip deviation"] or 0.0)
        angle = values["angular deviation"] or 0.0
    except KeyError as missing:
        raise AssessmentError(
            f"the band needs the measurements of one comparison, {missing} is not among them"
        ) from None
    for name, limit_mm, limit_deg in BANDS:
        if distance <= limit_mm and angle <= limit_deg:
            return Band(name)
    return Band("unacceptable")


def _crossing(trajectory: Trajectory, point: Vector, normal: Vector) -> Vector:
    """Where the axis of ``trajectory`` crosses the plane through ``point``."""
    along = float((point - trajectory.entry_ras_mm) @ normal) / float(trajectory.direction @ normal)
    return np.asarray(trajectory.entry_ras_mm + along * trajectory.direction)


def _angle_deg(u: Vector, v: Vector) -> float:
    # atan2 stays exact for small angles, where acos loses half of the digits.
    return float(np.rad2deg(np.arctan2(np.linalg.norm(np.cross(u, v)), abs(u @ v))))


def _planar(
    plane: str,
    label: str,
    u: Vector,
    v: Vector,
    normal_ras: npt.ArrayLike,
    error_deg: float,
    based_on: tuple[str, ...],
) -> Measurement:
    normal = np.asarray(normal_ras, dtype=np.float64)
    length = float(np.linalg.norm(normal))
    if normal.shape != (3,) or not np.isfinite(length) or length < 1e-9:
        raise AssessmentError(f"the normal of the {plane} plane must be a vector that is not zero, got {normal}")
    normal = normal / length
    a, b = u - (u @ normal) * normal, v - (v @ normal) * normal
    name = f"{label}: angular deviation, {plane} part"
    definition = f"Angle between planned and actual axis projected on the {plane} plane, right-handed about its normal"
    if min(np.linalg.norm(a), np.linalg.norm(b)) < LEAST_PROJECTION:
        reason = f"the axis stands almost at right angles to the {plane} plane, so it has no direction in it"
        return Measurement(name, None, "deg", definition, PLACEMENT_SOURCE, missing_because=reason)
    angle = float(np.rad2deg(np.arctan2(np.cross(a, b) @ normal, a @ b)))
    error = error_deg / float(np.linalg.norm(b))
    interval = (angle - error, angle + error) if error > 0 else None
    return Measurement(name, angle, "deg", definition, PLACEMENT_SOURCE, interval, based_on=based_on)
