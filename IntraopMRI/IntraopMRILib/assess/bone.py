"""Alignment of spine, hip and osteotomy: angles in anatomical planes, each with the definition it follows.

All vectors and points are RAS of a patient-aligned frame, mm. Scans are taken supine and the numbers say so.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Measurement, checked_rigid
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply

Vector = npt.NDArray[np.float64]

COBB_SOURCE = "Cobb; supine reads 7 to 10 deg below standing, 1748-7161-9-16"
SAGITTAL_SOURCE = "PMC9827318; SRS-Schwab modifiers"
CUP_SOURCE = "Murray 1993; the window of 30 to 50 / 5 to 25 deg is disputed, PMC3779547"
#: SRS-Schwab limits of the modifiers + and ++.
SCHWAB = {"PI - LL": (10.0, 20.0), "SVA": (40.0, 95.0), "PT": (20.0, 30.0)}
#: A fitted plane needs points that spread this far in two directions (mm), or its normal is noise.
LEAST_SPREAD_MM = 3.0
#: Points farther from their plane are not all of one surface; an endplate is hollow by 2 to 3 mm.
MOST_OFF_PLANE_MM = 5.0
#: A bone that lies farther from where it was planned is none: landmarks are exchanged, or axes are others.
MOST_TURNED_DEG, MOST_MOVED_MM = 60.0, 100.0
#: What adults measure, mm, with room: endplate of S1, distance of the femoral heads and of the iliac spines. Points
#: outside of it lie in other units or on one another.
S1_MM, HEADS_MM, SPINES_MM = (15.0, 80.0), (60.0, 300.0), (100.0, 400.0)
#: A normal whose part in the plane is shorter than this has no angle there.
LEAST_PROJECTION = 0.17


def plane_normal(points_ras_mm: npt.ArrayLike, toward_ras: npt.ArrayLike = (0.0, 0.0, 1.0)) -> Vector:
    """Unit normal (3,) of the plane through points (n >= 3, 3), on the side of ``toward_ras`` (superior by default).

    For endplates and cup rims. Raises AssessmentError when the points lie on a line, too close together or in no plane.
    """
    points = np.asarray(points_ras_mm, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < 3 or not np.isfinite(points).all():
        raise AssessmentError(f"a plane needs at least three finite points (n, 3), got shape {points.shape}")
    offsets = points - points.mean(axis=0)
    axes = np.linalg.svd(offsets, full_matrices=False)[2]
    spread = float(np.ptp(offsets @ axes[1]))
    if spread < LEAST_SPREAD_MM:
        raise AssessmentError(
            f"the points spread only {spread:.1f} mm across their line, {LEAST_SPREAD_MM:g} mm are needed: "
            "place them around the surface"
        )
    normal = axes[2]
    off = float(np.abs(offsets @ normal).max())
    if off > MOST_OFF_PLANE_MM:
        raise AssessmentError(
            f"a point lies {off:.1f} mm off the plane through all of them, {MOST_OFF_PLANE_MM:g} mm at most: check "
            "that all are of one surface"
        )
    return np.asarray(normal if normal @ np.asarray(toward_ras, dtype=np.float64) >= 0 else -normal)


def require_above(upper_ras_mm: npt.ArrayLike, lower_ras_mm: npt.ArrayLike, upper: str, lower: str) -> None:
    """Raise AssessmentError unless the middle of points (n, 3) lies above that of others: exchanged, a curve bends to
    the other side.
    """
    if np.asarray(upper_ras_mm).mean(axis=0)[2] <= np.asarray(lower_ras_mm).mean(axis=0)[2]:
        raise AssessmentError(f"{upper} must lie above {lower}: exchange the points, or check their axes")


def cobb_angle(
    upper_normal_ras: npt.ArrayLike,
    lower_normal_ras: npt.ArrayLike,
    plane: Literal["coronal", "sagittal"] = "coronal",
) -> Measurement:
    """Angle between the upper endplate of the upper end vertebra and the lower endplate of the lower one, signed.

    The arguments are the endplates' normals toward superior, RAS. A curve that is corrected beyond straight changes its
    sign: without one, 12 degrees to the other side would read as 12 degrees left over.
    """
    if plane not in ("coronal", "sagittal"):
        raise AssessmentError(f"a Cobb angle is measured in the coronal or the sagittal plane, got '{plane}'")
    keep, sign = {
        "coronal": (0, "+ is convex to the right, - to the left"),
        "sagittal": (1, "+ is lordosis, - kyphosis"),
    }[plane]
    upper, lower = (
        _tilt_deg(_unit(normal, "endplate normal"), keep) for normal in (upper_normal_ras, lower_normal_ras)
    )
    return Measurement(
        f"Cobb angle, {plane}, supine",
        lower - upper,
        "deg",
        "Between the upper endplate of the upper end vertebra and the lower endplate of the lower end vertebra, "
        f"projected on the {plane} plane, {sign}; supine",
        COBB_SOURCE,
    )


def sagittal_balance(
    l1_normal_ras: npt.ArrayLike,
    s1_endplate_ras_mm: npt.ArrayLike,
    femoral_heads_ras_mm: npt.ArrayLike,
    c7_centre_ras_mm: npt.ArrayLike | None = None,
) -> tuple[Measurement, ...]:
    """LL, SS, PT, PI, PI - LL and SVA of a supine patient, with the SRS-Schwab modifier in the definition.

    ``l1_normal_ras``: upper endplate of L1 toward superior. ``s1_endplate_ras_mm``: (2, 3) posterior and anterior
    corner of S1. ``femoral_heads_ras_mm``: (2, 3) centres. SVA is missing without the centre of C7.
    """
    corners = _points(s1_endplate_ras_mm, 2, "s1_endplate_ras_mm")
    heads = _points(femoral_heads_ras_mm, 2, "femoral_heads_ras_mm")
    posterior, anterior = corners
    if anterior[1] <= posterior[1]:
        raise AssessmentError("the first corner of S1 must be the posterior one: swap the two points")
    require_length(corners[0] - corners[1], S1_MM, "the corners of S1")
    require_length(heads[0] - heads[1], HEADS_MM, "the femoral heads")
    # In the sagittal plane an angle is measured from superior, positive when the normal leans to anterior.
    slope = float(np.rad2deg(np.arctan2(posterior[2] - anterior[2], anterior[1] - posterior[1])))
    to_hips = heads.mean(axis=0) - corners.mean(axis=0)
    if to_hips[2] >= 0:
        raise AssessmentError("the femoral heads must lie below S1: check which points were placed")
    tilt = float(np.rad2deg(np.arctan2(to_hips[1], -to_hips[2])))
    lordosis = slope - _tilt_deg(_unit(l1_normal_ras, "L1 normal"), 1)
    incidence = slope + tilt
    mismatch = incidence - lordosis

    def angle(name: str, value: float, definition: str) -> Measurement:
        return Measurement(name, value, "deg", f"{definition}; supine", SAGITTAL_SOURCE)

    results = [
        angle("Lumbar lordosis LL", lordosis, "Upper endplate of L1 to the endplate of S1, sagittal plane"),
        angle("Sacral slope SS", slope, "Endplate of S1 to the horizontal, sagittal plane"),
        angle(
            "Pelvic tilt PT",
            tilt,
            f"Vertical to the line from the middle of S1 to the hip axis; Schwab {_modifier('PT', tilt)}",
        ),
        angle("Pelvic incidence PI", incidence, "Perpendicular of S1 to the line from its middle to the hip axis"),
        angle("PI - LL", mismatch, f"Pelvic incidence minus lumbar lordosis; Schwab {_modifier('PI - LL', mismatch)}"),
    ]
    definition = "Horizontal distance from the plumb line of C7 to the posterior corner of S1, + is anterior"
    if c7_centre_ras_mm is None:
        reason = "C7 is not in the scan"
        sva = Measurement("Sagittal vertical axis SVA", None, "mm", definition, SAGITTAL_SOURCE, missing_because=reason)
    else:
        c7 = _points([c7_centre_ras_mm], 1, "c7_centre_ras_mm")[0]
        if c7[2] <= corners[:, 2].max():
            raise AssessmentError("C7 must lie above S1: check which points were placed")
        offset = float(c7[1] - posterior[1])
        text = f"{definition}; Schwab {_modifier('SVA', offset)}; supine"
        sva = Measurement("Sagittal vertical axis SVA", offset, "mm", text, SAGITTAL_SOURCE)
    return (*results, sva)


def pelvic_frame(right_asis: npt.ArrayLike, left_asis: npt.ArrayLike, pubis: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Rotation (3, 3) from RAS to the anterior pelvic plane: rows right, anterior, superior.

    The points are the anterior superior iliac spines and the middle of the pubic tubercles, (3,), RAS, mm.
    """
    right, left, low = _points([right_asis, left_asis, pubis], 3, "pelvic landmarks")
    across = right - left
    if across[0] <= 0:
        raise AssessmentError("the right iliac spine must lie to the right of the left one: swap the two points")
    require_length(across, SPINES_MM, "the anterior superior iliac spines")
    x = across / np.linalg.norm(across)
    up = (right + left) / 2.0 - low
    up -= (up @ x) * x
    if np.linalg.norm(up) < LEAST_SPREAD_MM:
        raise AssessmentError("the three pelvic landmarks lie on one line: place the pubic one below the spines")
    if up[2] <= 0:
        raise AssessmentError("the pubic tubercles must lie below the iliac spines: check which points were placed")
    z = up / np.linalg.norm(up)
    return np.stack([x, np.cross(z, x), z])


def cup_orientation(
    cup_axis_ras: npt.ArrayLike, side: Literal["right", "left"], frame_from_ras: npt.ArrayLike | None = None
) -> tuple[Measurement, ...]:
    """Inclination and anteversion of an acetabular cup by all three definitions of Murray.

    ``cup_axis_ras``: outward axis of the opening (lateral, inferior). ``frame_from_ras``: rotation (3, 3) to the
    pelvic frame of :func:`pelvic_frame`, RAS itself when None. Raises AssessmentError when the axis points inward.
    """
    if side not in ("right", "left"):
        raise AssessmentError(f"a cup is right or left, got '{side}'")
    frame = np.eye(3) if frame_from_ras is None else _rotation(frame_from_ras, "frame_from_ras")
    n = frame @ _unit(cup_axis_ras, "cup axis")
    lateral = n[0] if side == "right" else -n[0]
    if lateral <= 0:
        raise AssessmentError(
            f"the axis of a {side} cup must point outward, to the {side}: check the side or turn it round"
        )
    if n[2] >= 0:
        raise AssessmentError(
            "the axis of a cup must point downward, out of its opening: turn it round, or check the pelvic landmarks"
        )
    ny, nz = float(n[1]), float(n[2])
    both = (
        ("radiographic", np.arctan2(lateral, -nz), np.arcsin(ny), "RI = atan2(|nx|, -nz)", "RA = asin(ny)"),
        ("operative", np.arcsin(lateral), np.arctan2(ny, -nz), "OI = asin(|nx|)", "OA = atan2(ny, -nz)"),
        ("anatomical", np.arccos(-nz), np.arctan2(ny, lateral), "AI = acos(-nz)", "AA = atan2(ny, |nx|)"),
    )
    frame_name = "scanner axes" if frame_from_ras is None else "anterior pelvic plane"
    return tuple(
        Measurement(f"Cup {what}, {name}", float(np.rad2deg(angle)), "deg", f"{formula}; {frame_name}", CUP_SOURCE)
        for name, inclination, version, first, second in both
        for what, angle, formula in (("inclination", inclination, first), ("anteversion", version, second))
    )


def osteotomy_deviation(
    planned_ras_from_bone: npt.ArrayLike, achieved_ras_from_bone: npt.ArrayLike, centre_bone_mm: npt.ArrayLike
) -> tuple[Measurement, ...]:
    """Achieved against planned pose of a bone: rotation as angle and in anatomical planes, translation of its centre.

    Poses are (4, 4) rigid, mm; ``centre_bone_mm`` (3,) in the bone's frame. The planes' parts are the components of
    the rotation vector about the R, A and S axes, right-handed. Raises AssessmentError when they are too far apart
    to be of one bone.
    """
    planned = checked_rigid(planned_ras_from_bone, "planned_ras_from_bone")
    achieved = checked_rigid(achieved_ras_from_bone, "achieved_ras_from_bone")
    rotation = achieved[:3, :3] @ planned[:3, :3].T
    vector = _rotation_vector_deg(rotation)
    centre = _points([centre_bone_mm], 1, "centre_bone_mm")[0]
    moved = apply(achieved, centre) - apply(planned, centre)
    turned_deg, moved_mm = float(np.linalg.norm(vector)), float(np.linalg.norm(moved))
    if turned_deg > MOST_TURNED_DEG or moved_mm > MOST_MOVED_MM:
        raise AssessmentError(
            f"the bone lies {moved_mm:.0f} mm from where it was planned and is turned by {turned_deg:.0f} deg: "
            "landmarks are exchanged, or the planned correction is of other axes"
        )
    source = "Rigid-body kinematics; rotation vector"
    planes = (("sagittal", "R"), ("coronal", "A"), ("axial", "S"))
    return (
        Measurement("Correction: rotation error", turned_deg, "deg", "Angle between the poses", source),
        *(
            Measurement(
                f"Correction: rotation error, {plane} plane",
                float(part),
                "deg",
                f"Rotation vector about the {axis} axis, right-handed",
                source,
            )
            for (plane, axis), part in zip(planes, vector, strict=True)
        ),
        Measurement(
            "Correction: translation error",
            moved_mm,
            "mm",
            "Distance of the bone's centres",
            source,
        ),
        *(
            Measurement(f"Correction: translation error, {axis}", float(part), "mm", f"Part along {axis}", source)
            for (_, axis), part in zip(planes, moved, strict=True)
        ),
    )


def alignment_change(
    names: tuple[str, str],
    poses: tuple[npt.ArrayLike, npt.ArrayLike],
    error_deg: float,
    based_on: tuple[str, ...] = (),
) -> tuple[Measurement, ...]:
    """How far the angle between two vertebrae has changed in the sagittal, coronal and axial plane.

    ``names``, ``poses``: upper and lower vertebra and their ``now_from_before`` (4, 4) rigid, RAS. ``error_deg``: of
    one pose. No endplate is outlined: the poses alone carry the change of every Cobb angle between the two. Signs as in
    :func:`cobb_angle`: more lordosis (extension), more bend to the left (convex to the right), the upper one turned
    more to the left.
    """
    upper, lower = (checked_rigid(pose, f"pose of {name}")[:3, :3] for pose, name in zip(poses, names, strict=True))
    _require_error(error_deg, "error_deg")
    # In the patient's axes before surgery, so that a patient who lies otherwise has not changed.
    vector = _rotation_vector_deg(lower.T @ upper)
    error = float(np.sqrt(2.0) * error_deg)
    signs = (
        ("lordosis, sagittal", 1.0, "R", "+ is more lordosis"),
        ("scoliosis, coronal", -1.0, "A", "+ bends more to the left, convex to the right"),
        ("rotation, axial", 1.0, "S", "+ turns the upper one to the left"),
    )
    return tuple(
        Measurement(
            f"{names[0]} to {names[1]}: change of {what}",
            sign * float(part),
            "deg",
            f"Rotation of {names[0]} against {names[1]} since the scan before surgery about the {axis} axis, {words}",
            f"Rotation vector of the relative pose; {COBB_SOURCE}",
            (sign * float(part) - error, sign * float(part) + error) if error else None,
            based_on=based_on,
        )
        for (what, sign, axis, words), part in zip(signs, vector, strict=True)
    )


def _require_error(value_deg: float, name: str) -> None:
    if not (np.isfinite(value_deg) and value_deg >= 0):
        raise AssessmentError(f"{name} must be zero or more degrees, got {value_deg}")


def require_length(between: Vector, least_most_mm: tuple[float, float], what: str) -> None:
    """Raise AssessmentError when a vector, mm, is shorter or longer than that of any patient."""
    length, (least, most) = float(np.linalg.norm(between)), least_most_mm
    if not least <= length <= most:
        raise AssessmentError(
            f"{what} lie {length:.3g} mm apart, {least:g} to {most:g} mm are possible: check the points and their units"
        )


def _rotation(matrix: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    rows = np.asarray(matrix, dtype=np.float64)
    if rows.shape != (3, 3):
        raise AssessmentError(f"{name} must be a rotation (3, 3), got shape {rows.shape}")
    pose = np.eye(4)
    pose[:3, :3] = rows
    return np.asarray(checked_rigid(pose, name)[:3, :3])


def _unit(vector: npt.ArrayLike, name: str) -> Vector:
    result = np.asarray(vector, dtype=np.float64)
    length = float(np.linalg.norm(result))
    if result.shape != (3,) or not np.isfinite(length) or length < 1e-9:
        raise AssessmentError(f"the {name} must be a vector of three that is not zero, got {result.tolist()}")
    return np.asarray(result / length)


def _points(points: Any, count: int, name: str) -> npt.NDArray[np.float64]:
    result = np.asarray(points, dtype=np.float64)
    if result.shape != (count, 3) or not np.isfinite(result).all():
        raise AssessmentError(f"{name} must be {count} finite points in mm, got shape {result.shape}")
    return result


def _tilt_deg(normal: Vector, axis: int) -> float:
    """How far a normal leans from superior toward R (axis 0) or A (axis 1), in that plane."""
    if normal[2] < 0:
        raise AssessmentError(f"the endplate normal {normal.round(2).tolist()} must point to superior: turn it round")
    if float(np.hypot(normal[axis], normal[2])) < LEAST_PROJECTION:
        raise AssessmentError(f"the endplate normal {normal.round(2).tolist()} stands across the plane of the angle")
    return float(np.rad2deg(np.arctan2(normal[axis], normal[2])))


def _modifier(name: str, value: float) -> str:
    low, high = SCHWAB[name]
    return "0" if value < low else "+" if value <= high else "++"


def _rotation_vector_deg(rotation: npt.NDArray[np.float64]) -> Vector:
    # From the quaternion: stays exact near zero and near 180 degrees.
    from scipy.spatial.transform import Rotation

    return np.rad2deg(Rotation.from_matrix(rotation).as_rotvec())
