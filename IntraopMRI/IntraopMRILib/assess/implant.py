"""Planned against actual implants: screws, leads, needles. All points in one RAS frame, mm."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Measurement, checked_rigid
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply

Vector = npt.NDArray[np.float64]

PLACEMENT_SOURCE = "Planned against actual trajectory, PMC7358954, PMC5557874"
BAND_SOURCE = "Pedicle screw accuracy bands, s13018-023-04206-5"
#: Upper limits (mm, deg) of the published bands.
BANDS = (("optimal", 0.5, 2.5), ("inaccurate", 2.0, 5.0))
#: Beyond these two trajectories are not one implant: another one was found, or the frames differ. Spine surgery misses
#: its plan by millimetres; the search for a void reaches 10 mm, see :mod:`.implant_detection`.
MOST_APART_MM, MOST_TURNED_DEG = 100.0, 60.0
#: A trajectory whose projection is shorter than this part of it has no direction in that plane.
LEAST_PROJECTION = 0.17
#: Directions across an axis that are tried: between two of them nothing changes by more than half a percent.
AROUND = 36
#: Places along a shaft whose distances from another one are averaged.
SAMPLES = 50
#: Susceptibility of metals against tissue, ppm (Schenck 1996).
METALS_PPM = {"titanium": 182.0, "cobalt-chromium": 900.0}


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A straight implant from entry to tip: (3,) points in RAS, mm, and its diameter in mm.

    ``susceptibility_ppm``: of its metal against tissue (see METALS_PPM), None when unknown.
    """

    entry_ras_mm: Vector
    tip_ras_mm: Vector
    diameter_mm: float
    name: str = "implant"
    susceptibility_ppm: float | None = None

    def __post_init__(self) -> None:
        for name in ("entry_ras_mm", "tip_ras_mm"):
            point = np.array(getattr(self, name), dtype=np.float64)
            if point.shape != (3,) or not np.isfinite(point).all():
                raise AssessmentError(f"{name} of '{self.name}' must be three finite coordinates in mm, got {point}")
            point.setflags(write=False)
            object.__setattr__(self, name, point)
        if not (np.isfinite(self.diameter_mm) and self.diameter_mm > 0):
            raise AssessmentError(f"the diameter of '{self.name}' must be positive, got {self.diameter_mm} mm")
        ppm = self.susceptibility_ppm
        if ppm is not None and not (np.isfinite(ppm) and ppm != 0):
            raise AssessmentError(f"the susceptibility of '{self.name}' must be a number that is not 0, got {ppm} ppm")
        if self.length_mm < self.diameter_mm:
            raise AssessmentError(
                f"'{self.name}' is {self.length_mm:.2f} mm long, less than its diameter {self.diameter_mm:.2f} mm: "
                "set entry and tip apart"
            )

    @property
    def ends(self) -> tuple[Vector, Vector]:
        """Entry and tip, RAS, mm."""
        return self.entry_ras_mm, self.tip_ras_mm

    @property
    def length_mm(self) -> float:
        """Distance from entry to tip."""
        return float(np.linalg.norm(self.tip_ras_mm - self.entry_ras_mm))

    @property
    def direction(self) -> Vector:
        """Unit vector (3,) from entry to tip, RAS."""
        return np.asarray((self.tip_ras_mm - self.entry_ras_mm) / self.length_mm)

    def moved(self, to_ras_from_ras: npt.ArrayLike) -> Trajectory:
        """The same implant in another RAS frame; (4, 4) rigid, mm: metal keeps its length."""
        matrix = checked_rigid(to_ras_from_ras, "to_ras_from_ras")
        return replace(self, entry_ras_mm=apply(matrix, self.entry_ras_mm), tip_ras_mm=apply(matrix, self.tip_ras_mm))


@dataclass(frozen=True, eq=False)
class Spread:
    """Where the ends of an implant may lie instead, mm: an error of ``ball_mm`` in all directions, of ``across_mm``
    across ``axis_ras`` (3,) and of ``along_mm`` along it.

    ``turning``: the part (0..1) of ``across_mm`` that each end may move on its own, so that the axis turns.
    """

    ball_mm: float = 0.0
    axis_ras: Vector = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))
    across_mm: float = 0.0
    along_mm: float = 0.0
    turning: float = 1.0

    def __post_init__(self) -> None:
        for name in ("ball_mm", "across_mm", "along_mm", "turning"):
            if not 0 <= getattr(self, name) < np.inf:
                raise AssessmentError(f"{name} of a spread must be finite and not negative, got {getattr(self, name)}")

    @property
    def reach_mm(self) -> float:
        """Farthest that an end may lie from where it was found."""
        return float(np.hypot(self.across_mm, self.along_mm)) + self.ball_mm

    def widened(self, by_mm: float) -> Spread:
        """The same with an independent error of ``by_mm`` in all directions."""
        if not (np.isfinite(by_mm) and by_mm >= 0):
            raise AssessmentError(f"uncertainty_mm must be zero or more, got {by_mm}")
        return replace(self, ball_mm=float(np.hypot(self.ball_mm, by_mm)))

    def of(self, matrix: npt.ArrayLike) -> float:
        """Largest length of ``matrix`` (n, 3) times an error, such as a projection or a unit vector (1, 3)."""
        rows = np.atleast_2d(np.asarray(matrix, dtype=np.float64))
        along = self.along_mm * rows @ self.axis_ras
        turns = np.linspace(0.0, 2.0 * np.pi, AROUND, endpoint=False)
        disc = np.stack([np.cos(turns), np.sin(turns)], axis=1) @ np.linalg.svd(self.axis_ras[None])[2][1:]
        # Across and along are at right angles: what both do together is less than the sum of what each does.
        both = self.across_mm * disc @ rows.T
        lengths = [np.linalg.norm(both + side * along, axis=1).max() for side in (1.0, -1.0)]
        return float(max(lengths)) + self.ball_mm * float(np.linalg.norm(rows, 2))

    def angle_deg(self, length_mm: float) -> float:
        """How far the axis of an implant of this length may turn when its ends move against one another."""
        apart = float(np.hypot(np.sqrt(2.0) * self.ball_mm, 2.0 * self.turning * self.across_mm))
        return float(np.rad2deg(np.arctan2(apart, length_mm)))


@dataclass(frozen=True)
class Band:
    """In which published band a placement lies, and the best and worst that its intervals allow."""

    value: str
    best: str
    worst: str
    definition: str = "optimal to 0.5 mm and 2.5 deg at entry and tip; inaccurate to 2 mm and 5 deg; then unacceptable"
    source: str = BAND_SOURCE

    @property
    def text(self) -> str:
        """The band, or the range of bands when the measurement cannot tell."""
        return self.value if self.best == self.worst else f"{self.best} to {self.worst}: cannot be told"


def compare(
    planned: Trajectory,
    actual: Trajectory,
    uncertainty_mm: float = 0.0,
    based_on: tuple[str, ...] = (),
    spread: Spread | None = None,
) -> tuple[Measurement, ...]:
    """Entry, tip, radial, depth and angular deviation of ``actual`` from ``planned`` (same RAS frame).

    ``uncertainty_mm`` of one against the other, alike in all directions, such as that of the registration, and the
    ``spread`` of the actual ends give the intervals; there are none without both. Raises AssessmentError when the two
    run in opposite directions (entry and tip swapped) or are too far from one another to be one implant.
    """
    may = (Spread() if spread is None else spread).widened(uncertainty_mm)
    u, v = planned.direction, actual.direction
    if float(u @ v) <= 0:
        raise AssessmentError(
            f"planned and actual '{planned.name}' run {np.rad2deg(np.arccos(u @ v)):.0f} deg apart: "
            "entry and tip of one of them are probably swapped"
        )
    label = planned.name
    tip = actual.tip_ras_mm - planned.tip_ras_mm
    apart, turned = float(np.linalg.norm(tip)), _angle_deg(u, v)
    if apart > MOST_APART_MM or turned > MOST_TURNED_DEG:
        raise AssessmentError(
            f"planned and actual '{label}' end {apart:.0f} mm apart and are turned by {turned:.0f} deg: they are not "
            "one implant, or lie in different frames; check names and registration"
        )
    # Onto the plane across the plan along the actual axis, and onto the plane across the actual axis.
    to_entry_plane = np.eye(3) - np.outer(v, u) / (u @ v)
    across_actual = np.eye(3) - np.outer(v, v)
    at_entry = actual.entry_ras_mm - planned.entry_ras_mm
    at_target = actual.entry_ras_mm - planned.tip_ras_mm
    angle_error = may.angle_deg(actual.length_mm)

    def one(name: str, value: float, unit: str, definition: str, error: float, signed: bool = False) -> Measurement:
        low = value - error if signed else max(0.0, value - error)
        interval = (low, value + error) if error > 0 else None
        return Measurement(f"{label}: {name}", value, unit, definition, PLACEMENT_SOURCE, interval, based_on=based_on)

    def distance(name: str, offset: Vector, definition: str, projector: Vector) -> Measurement:
        return one(name, float(np.linalg.norm(projector @ offset)), "mm", definition, may.of(projector))

    depth = float(tip @ u)
    return (
        distance(
            "entry deviation",
            at_entry,
            "Distance from the planned entry to the actual axis in the plane through the planned entry across the "
            "planned axis",
            to_entry_plane,
        ),
        distance("tip deviation", tip, "|actual tip - planned target|", np.eye(3)),
        distance(
            "radial deviation",
            at_target,
            "Perpendicular distance from the planned target to the actual axis",
            across_actual,
        ),
        one(
            "depth deviation",
            depth,
            "mm",
            "Actual tip minus planned target along the planned axis, + is deeper",
            may.of(u),
            True,
        ),
        one(
            "angular deviation",
            turned,
            "deg",
            "acos |u . v| of planned and actual axis",
            angle_error,
        ),
        _planar("axial", 2, label, u, v, angle_error, based_on),
        _planar("sagittal", 0, label, u, v, angle_error, based_on),
    )


def apart_mm(ends_ras_mm: tuple[Vector, Vector], other: Trajectory) -> float:
    """Mean distance of a shaft from ``other``: an implant that is too deep or too short is still the same one."""
    entry, tip = ends_ras_mm
    points = entry + np.linspace(0.0, 1.0, SAMPLES)[:, None] * (tip - entry) - other.entry_ras_mm
    depth = np.clip(points @ other.direction, 0.0, other.length_mm)
    return float(np.linalg.norm(points - depth[:, None] * other.direction, axis=1).mean())


def band(measurements: tuple[Measurement, ...]) -> Band:
    """The accuracy band of a result of :func:`compare`: entry and tip distance and angle must all lie within it.

    Best and worst come from the lower and upper ends of the intervals.
    """
    found = {m.name.split(": ", 1)[-1]: m for m in measurements}
    try:
        deciding = [found[name] for name in ("entry deviation", "tip deviation", "angular deviation")]
    except KeyError as missing:
        raise AssessmentError(
            f"the band needs the measurements of one comparison, {missing} is not among them"
        ) from None
    values = [m.value if m.value is not None else np.inf for m in deciding]
    bounds = [m.interval or (value, value) for m, value in zip(deciding, values, strict=True)]
    return Band(*(_band_of(*three) for three in (values, [low for low, _ in bounds], [high for _, high in bounds])))


def _band_of(entry_mm: float, tip_mm: float, angle_deg: float) -> str:
    for name, limit_mm, limit_deg in BANDS:
        if max(entry_mm, tip_mm) <= limit_mm and angle_deg <= limit_deg:
            return name
    return "unacceptable"


def _angle_deg(u: Vector, v: Vector) -> float:
    # atan2 stays exact for small angles, where acos loses half of the digits.
    return float(np.rad2deg(np.arctan2(np.linalg.norm(np.cross(u, v)), abs(u @ v))))


def _planar(
    plane: str, axis: int, label: str, u: Vector, v: Vector, error_deg: float, based_on: tuple[str, ...]
) -> Measurement:
    """The part of the angle in the plane across an ``axis`` of RAS."""
    normal = np.eye(3)[axis]
    a, b = u - u[axis] * normal, v - v[axis] * normal
    name = f"{label}: angular deviation, {plane} part"
    definition = f"Angle between planned and actual axis projected on the {plane} plane, right-handed about its normal"
    if min(np.linalg.norm(a), np.linalg.norm(b)) < LEAST_PROJECTION:
        reason = f"the axis stands almost at right angles to the {plane} plane, so it has no direction in it"
        return Measurement(name, None, "deg", definition, PLACEMENT_SOURCE, missing_because=reason)
    angle = float(np.rad2deg(np.arctan2(np.cross(a, b) @ normal, a @ b)))
    error = error_deg / float(np.linalg.norm(b))
    interval = (angle - error, angle + error) if error > 0 else None
    return Measurement(name, angle, "deg", definition, PLACEMENT_SOURCE, interval, based_on=based_on)
