"""Axes of a leg and length of both legs: angles that were built in, in any position of the leg on the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRILib.assess.leg import leg_axes, leg_length
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import rotation_about

FEMUR, TIBIA, KNEE = 430.0, 360.0, 75.0


def toward(outward: float, deg: float) -> np.ndarray:
    """Up, leaning to lateral (R times ``outward``) by an angle in the coronal plane."""
    return np.array([outward * np.sin(np.deg2rad(deg)), 0.0, np.cos(np.deg2rad(deg))])


def leg(side: str, varus: float, ldfa: float, mpta: float, turn: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """A leg with these angles about its knee, turned as a whole."""
    outward = 1.0 if side == "right" else -1.0
    femur, tibia = toward(outward, -varus / 2), toward(outward, varus / 2)
    # The condyles make the angle mLDFA with the femur laterally, the plateau mMPTA with the tibia medially.
    condyle, plateau = toward(outward, -varus / 2 + ldfa), toward(outward, varus / 2 + mpta)
    points = {
        "femoral head": FEMUR * femur,
        "knee": np.zeros(3),
        "ankle": -TIBIA * tibia,
        "condyle medial": -KNEE / 2 * condyle,
        "condyle lateral": KNEE / 2 * condyle,
        "plateau medial": -KNEE / 2 * plateau,
        "plateau lateral": KNEE / 2 * plateau,
    }
    matrix = np.eye(3) if turn is None else turn
    return {name: matrix @ place + (80.0 * outward, 5.0, -300.0) for name, place in points.items()}


def values(measurements: Any) -> dict[str, float]:
    return {m.name.rpartition(",")[0]: m.value for m in measurements}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("varus", "ldfa", "mpta"), [(0.0, 87.0, 87.0), (8.0, 90.0, 82.0), (-6.0, 84.0, 91.0)])
@pytest.mark.parametrize("turned", [0.0, 25.0], ids=["straight", "turned outward"])
def test_the_angles_of_a_leg(side: Any, varus: float, ldfa: float, mpta: float, turned: float) -> None:
    outward = 1.0 if side == "right" else -1.0
    # The foot falls outward, and the leg lies aside and a little bent forward: none of it is a deformity.
    turn = rotation_about((0, 1, 0), -4.0 * outward) @ rotation_about((0, 0, 1), -turned * outward)
    found = values(leg_axes(leg(side, varus, ldfa, mpta, turn), side))
    assert found["Hip-knee-ankle angle HKA"] == pytest.approx(180.0 - varus, abs=0.05)
    assert found["mLDFA"] == pytest.approx(ldfa, abs=0.05)
    assert found["mMPTA"] == pytest.approx(mpta, abs=0.05)
    # Deformity of both bones and of the joint make up that of the leg.
    assert varus == pytest.approx(found["mLDFA"] - found["mMPTA"] + found["JLCA"], abs=0.1)


def test_what_is_not_in_the_scan_is_missing_and_named() -> None:
    points = leg("right", 5.0, 88.0, 85.0)
    knee = {name: place for name, place in points.items() if name != "femoral head"}
    found = {m.name: m for m in leg_axes(knee, "right")}
    assert found["mMPTA, right"].value == pytest.approx(85.0, abs=0.2)
    assert found["mLDFA, right"].value is None
    assert found["mLDFA, right"].missing_because == "not placed: femoral head"
    assert found["Hip-knee-ankle angle HKA, right"].value is None
    with pytest.raises(AssessmentError, match="middle of its knee, and both sides"):
        leg_axes({"knee": points["knee"], "ankle": points["ankle"]}, "right")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"femoral head": "ankle", "ankle": "femoral head"}, "wrong side of the knee"),
        ({"plateau medial": "plateau lateral", "plateau lateral": "plateau medial"}, "check the side"),
        ({"ankle": "plateau medial"}, "wrong side|mm apart"),
    ],
)
def test_exchanged_points_give_no_angle(change: dict[str, str], message: str) -> None:
    points = leg("right", 5.0, 88.0, 85.0)
    with pytest.raises(AssessmentError, match=message):
        leg_axes({**points, **{name: points[other] for name, other in change.items()}}, "right")
    with pytest.raises(AssessmentError, match="must lie to the left"):
        leg_axes(points, "left")
    with pytest.raises(AssessmentError, match="mm apart"):
        leg_axes({name: place / 10 for name, place in points.items()}, "right")


def pelvis(longer_mm: float, tilt_deg: float) -> dict[str, np.ndarray]:
    points = {
        "teardrop right": np.array([55.0, 10, 0]),
        "teardrop left": np.array([-55.0, 10, 0]),
        "trochanter right": np.array([70.0, -10, -40 - longer_mm]),
        "trochanter left": np.array([-70.0, -10, -40]),
        "head": np.array([90.0, 0, 20]),
        "shaft upper": np.array([132.0, 0, -60]),
        "shaft lower": np.array([132.0, 0, -160]),
    }
    return {name: rotation_about((0, 1, 0), tilt_deg) @ place for name, place in points.items()}


@pytest.mark.parametrize("tilt_deg", [0.0, 6.0], ids=["level", "the pelvis lies aslant"])
@pytest.mark.parametrize("longer_mm", [0.0, 7.0, -5.0])
def test_length_and_offset(longer_mm: float, tilt_deg: float) -> None:
    points = pelvis(longer_mm, tilt_deg)
    length, offset = leg_length(points, "right")
    assert length.value == pytest.approx(longer_mm)
    assert offset.value == pytest.approx(42.0)
    other, _ = leg_length(points, "left")
    assert other.value == pytest.approx(-longer_mm)
    del points["head"]
    assert leg_length(points, "right")[1].missing_because == "not placed: head"
    swapped = {**points, "teardrop right": points["teardrop left"], "teardrop left": points["teardrop right"]}
    with pytest.raises(AssessmentError, match="swap the two points"):
        leg_length(swapped, "right")


def test_condyles_and_plateau_exchanged_give_no_angle() -> None:
    """They gave each other's angles, all of them plausible."""
    points = leg("right", 5.0, 88.0, 85.0)
    points |= {name: np.add(place, (0.0, 0.0, 5.0)) for name, place in points.items() if name.startswith("condyle")}
    assert len(leg_axes(points, "right")) == 4
    exchanged = points | {f"condyle{end}": points[f"plateau{end}"] for end in (" medial", " lateral")}
    exchanged |= {f"plateau{end}": points[f"condyle{end}"] for end in (" medial", " lateral")}
    with pytest.raises(AssessmentError, match="condyles must lie above the plateau"):
        leg_axes(exchanged, "right")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trochanter right": "trochanter left", "trochanter left": "trochanter right"}, "swap the two points"),
        (
            {f"{one} {side}": f"{other} {side}" for side in ("right", "left")
             for one, other in (("teardrop", "trochanter"), ("trochanter", "teardrop"))},
            "below the teardrops",
        ),
        ({"head": "trochanter left"}, "mm apart"),
    ],
)  # fmt: skip
def test_exchanged_points_of_the_hips_give_no_length(change: dict[str, str], message: str) -> None:
    """The longer leg had been the shorter one, by as many millimetres."""
    points = pelvis(7.0, 0.0)
    with pytest.raises(AssessmentError, match=message):
        leg_length(points | {name: points[other] for name, other in change.items()}, "right")
