"""Axes of a leg and length of both from landmarks: what is planned before an osteotomy or a hip is replaced.

Points are RAS, mm. A leg is measured in its own frontal plane, which the line through its knee shows: a leg that lies
turned outward has no other angles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Measurement
from IntraopMRIReconstructionLib.errors import AssessmentError

from .bone import require_length

Vector = npt.NDArray[np.float64]
Places = Mapping[str, Vector]
Side = Literal["right", "left"]

AXES_SOURCE = "Paley and Tetsworth 1992; MacDessi et al. 2021"
LENGTH_SOURCE = "Woolson et al. 1999, from the line through the teardrops"
#: What adults measure, mm, with room: across a knee, along a thigh or a shank, between the teardrops.
KNEE_MM, BONE_MM, TEARDROPS_MM = (30.0, 130.0), (200.0, 650.0), (60.0, 250.0)
#: From the middle of a femoral head to the axis of its shaft, mm, with room.
OFFSET_MM = (5.0, 110.0)
#: Condyles lie above the plateau by what cartilage and meniscus leave; points are placed to about so many mm.
PLACED_MM = 2.0
SIDES: tuple[Side, Side] = ("right", "left")
MEDIAL, LATERAL = " medial", " lateral"
#: Each angle: its definition and the landmarks that it needs beside the knee.
ANGLES = {
    "Hip-knee-ankle angle HKA": (
        "Between the mechanical axes of femur and tibia on the medial side; 180 is straight, below is varus",
        ("femoral head", "ankle"),
    ),
    "mLDFA": (
        "Mechanical lateral distal femoral angle: mechanical axis of the femur to the line of the condyles, lateral",
        ("femoral head", "condyle medial", "condyle lateral"),
    ),
    "mMPTA": (
        "Mechanical medial proximal tibial angle: mechanical axis of the tibia to the line of the plateau, medial",
        ("ankle", "plateau medial", "plateau lateral"),
    ),
    "JLCA": (
        "Joint line convergence angle: line of the condyles to that of the plateau, + opens laterally",
        ("condyle medial", "condyle lateral", "plateau medial", "plateau lateral"),
    ),
}


def leg_axes(points: Places, side: Side) -> tuple[Measurement, ...]:
    """HKA, mLDFA, mMPTA and JLCA of one leg in its frontal plane; what its landmarks (3,) do not show is missing.

    ``points``: 'femoral head', 'knee', 'ankle' centres and the lowest points of the condyles, highest of the plateau,
    'condyle medial' and so on. Raises AssessmentError when no line through the knee is there, or points were exchanged.
    """
    _require_side(side)
    lines = {bone: _line(points, bone, side) for bone in ("condyle", "plateau") if _has(points, bone)}
    if "knee" not in points or not lines:
        raise AssessmentError("a leg needs the middle of its knee, and both sides of its condyles or of its plateau")
    knee = points["knee"]
    bones = {}
    for name, sign in (("femoral head", 1.0), ("ankle", -1.0)):
        if name in points:
            bones[name] = sign * (points[name] - knee)
            if bones[name][2] <= 0:
                raise AssessmentError(f"the {name} lies on the wrong side of the knee: check which points were placed")
            require_length(bones[name], BONE_MM, f"knee and {name}")
    # The frontal plane holds the line through the knee and the axis of the leg.
    up = sum(bones.values(), np.zeros(3)) if bones else np.array([0.0, 0.0, 1.0])
    up = up / np.linalg.norm(up)
    if len(lines) == 2:
        gap = sum((points["condyle" + end] - points["plateau" + end]) @ up for end in (MEDIAL, LATERAL)) / 2.0
        if gap < -PLACED_MM:
            raise AssessmentError("the condyles must lie above the plateau: exchange their points")
    outward = next(iter(lines.values()))
    outward = outward - (outward @ up) * up
    outward = outward / np.linalg.norm(outward)

    def tilt(vector: Vector) -> float:
        """From the axis of the leg toward lateral, deg, in the frontal plane."""
        return float(np.rad2deg(np.arctan2(vector @ outward, vector @ up)))

    # Across the leg, a line is told by how far its normal leans.
    lean = {bone: tilt(line) - 90.0 for bone, line in lines.items()}
    femur, tibia = (tilt(bones[name]) if name in bones else np.nan for name in ("femoral head", "ankle"))
    condyle, plateau = lean.get("condyle", np.nan), lean.get("plateau", np.nan)
    values = {
        "Hip-knee-ankle angle HKA": 180.0 + femur - tibia,
        "mLDFA": 90.0 + condyle - femur,
        "mMPTA": 90.0 + plateau - tibia,
        "JLCA": plateau - condyle,
    }

    def one(name: str, definition: str, needs: tuple[str, ...]) -> Measurement:
        lacking = [landmark for landmark in needs if landmark not in points]
        text = f"{definition}; frontal plane of the leg by the line through its knee, supine"
        if lacking:
            why = f"not placed: {', '.join(lacking)}"
            return Measurement(f"{name}, {side}", None, "deg", text, AXES_SOURCE, missing_because=why)
        return Measurement(f"{name}, {side}", values[name], "deg", text, AXES_SOURCE)

    return tuple(one(name, *about) for name, about in ANGLES.items())


def leg_length(points: Places, side: Side) -> tuple[Measurement, ...]:
    """How much longer the leg of the operated ``side`` is than the other, and the offset of its femur, mm.

    ``points`` (3,): 'teardrop right' and 'teardrop left', 'trochanter right' and 'trochanter left' (lesser); for the
    offset the centre of the 'head' of that side, of bone or metal, and 'shaft upper' and 'shaft lower' of its femur.
    """
    _require_side(side)
    across = points["teardrop right"] - points["teardrop left"]
    if across[0] <= 0:
        raise AssessmentError("the right teardrop must lie to the right of the left one: swap the two points")
    require_length(across, TEARDROPS_MM, "the teardrops")
    right = across / np.linalg.norm(across)
    # In the plane of the pelvis' line and the patient's axis: how far a leg is bent forward does not count.
    down = -np.array([0.0, 0.0, 1.0])
    down -= (down @ right) * right
    down /= np.linalg.norm(down)
    below: dict[str, float] = {
        each: float((points[f"trochanter {each}"] - points[f"teardrop {each}"]) @ down) for each in SIDES
    }
    if (points["trochanter right"] - points["trochanter left"]) @ right <= 0:
        raise AssessmentError("the right trochanter must lie to the right of the left one: swap the two points")
    # One hip that is dislocated may stand above its teardrop, never both.
    if max(below.values()) <= 0:
        raise AssessmentError("the lesser trochanters must lie below the teardrops: exchange their points")
    other = "left" if side == "right" else "right"
    definition = (
        "Lesser trochanters below the line through the teardrops, operated side minus the other, + is longer; both "
        "legs alike turned and bent, supine"
    )
    name = f"Leg length difference, {side} operated"
    length = Measurement(name, below[side] - below[other], "mm", definition, LENGTH_SOURCE)
    definition = "Distance of the middle of the femoral head from the axis of the femur's shaft"
    name = f"Femoral offset, {side}"
    needs = ("head", "shaft upper", "shaft lower")
    lacking = [landmark for landmark in needs if landmark not in points]
    if lacking:
        why = f"not placed: {', '.join(lacking)}"
        return length, Measurement(name, None, "mm", definition, LENGTH_SOURCE, missing_because=why)
    head, upper, lower = (points[landmark] for landmark in needs)
    require_length(upper - lower, (20.0, 500.0), "the points on the shaft")
    axis = (upper - lower) / np.linalg.norm(upper - lower)
    aside = (head - lower) - ((head - lower) @ axis) * axis
    require_length(aside, OFFSET_MM, "the head and the axis of the shaft")
    return length, Measurement(name, float(np.linalg.norm(aside)), "mm", definition, LENGTH_SOURCE)


def _has(points: Places, bone: str) -> bool:
    return bone + MEDIAL in points and bone + LATERAL in points


def _line(points: Places, bone: str, side: Side) -> Vector:
    """From the medial to the lateral point of a bone at the knee."""
    line = points[bone + LATERAL] - points[bone + MEDIAL]
    if (line[0] if side == "right" else -line[0]) <= 0:
        raise AssessmentError(
            f"the lateral point of the {bone} of a {side} leg must lie to the {side} of the medial one: check the "
            "side, or swap the points"
        )
    require_length(line, KNEE_MM, f"the points of the {bone}")
    return np.asarray(line)


def _require_side(side: str) -> None:
    if side not in SIDES:
        raise AssessmentError(f"a leg is right or left, got '{side}'")
