from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRILib.assess import bone
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import rotation_about

UP = np.array([0.0, 0.0, 1.0])


def values(measurements: Any) -> Any:
    return {m.name: m.value for m in measurements}


@pytest.mark.parametrize("angle", [0.0, 12.5, 48.0])
def test_cobb_in_its_plane_only(angle: Any) -> None:
    coronal = rotation_about((0, 1, 0), angle) @ UP
    assert bone.cobb_angle(UP, coronal).value == pytest.approx(angle)
    assert bone.cobb_angle(UP, coronal, "sagittal").value == pytest.approx(0.0, abs=1e-9)
    sagittal = rotation_about((1, 0, 0), angle) @ UP
    # Leaning back above: lordosis. Leaning to the right below and to the left above: convex to the right.
    assert bone.cobb_angle(sagittal, UP, "sagittal").value == pytest.approx(angle)
    assert bone.cobb_angle(UP, sagittal, "sagittal").value == pytest.approx(-angle)
    assert bone.cobb_angle(coronal, UP).value == pytest.approx(-angle)
    assert "supine" in bone.cobb_angle(UP, UP).name


def test_cobb_of_opposite_tilts_adds_up_and_ignores_the_other_plane() -> None:
    upper = rotation_about((1, 0, 0), 20.0) @ rotation_about((0, 1, 0), 15.0) @ UP
    lower = rotation_about((0, 1, 0), -22.0) @ UP
    # Tilted out of the plane, the projection of the upper one is steeper than its own angle.
    expected = np.rad2deg(np.arctan2(upper[0], upper[2])) + 22.0
    assert bone.cobb_angle(upper, lower).value == pytest.approx(-expected)


def test_plane_normal_of_a_tilted_endplate_in_every_orientation(directions: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    truth = rotation_about((1, 1, 0), 25.0) @ UP
    across = np.linalg.svd(truth[None])[2][1:]
    points = rng.normal(0, 12, (9, 2)) @ across + [10.0, -4.0, 60.0]
    # Read out on a grid with these axes and brought back: the plane is the same.
    again = (points @ directions) @ directions.T
    assert bone.plane_normal(again) == pytest.approx(truth)
    assert bone.plane_normal(again, toward_ras=-truth) == pytest.approx(-truth)


def test_sagittal_balance_by_construction() -> None:
    slope, tilt, lordosis = 41.0, 17.0, 52.0
    middle = np.array([0.0, -30.0, 0.0])
    along = np.array([0.0, np.cos(np.deg2rad(slope)), -np.sin(np.deg2rad(slope))])
    corners = np.stack([middle - 17 * along, middle + 17 * along])
    hips = middle + 100 * np.array([0.0, np.sin(np.deg2rad(tilt)), -np.cos(np.deg2rad(tilt))])
    heads = hips + np.array([[85.0, 0, 0], [-85.0, 0, 0]])
    l1 = rotation_about((1, 0, 0), -(slope - lordosis)) @ UP
    c7 = corners[0] + [0.0, 45.0, 400.0]
    found = values(bone.sagittal_balance(l1, corners, heads, c7))
    assert found["Sacral slope SS"] == pytest.approx(slope)
    assert found["Pelvic tilt PT"] == pytest.approx(tilt)
    assert found["Pelvic incidence PI"] == pytest.approx(slope + tilt)
    assert found["Lumbar lordosis LL"] == pytest.approx(lordosis)
    assert found["PI - LL"] == pytest.approx(slope + tilt - lordosis)
    assert found["Sagittal vertical axis SVA"] == pytest.approx(45.0)
    texts = {m.name: m.definition for m in bone.sagittal_balance(l1, corners, heads, c7)}
    assert "Schwab +;" in texts["Sagittal vertical axis SVA"]
    assert "Schwab 0;" in texts["Pelvic tilt PT"]
    without = bone.sagittal_balance(l1, corners, heads)[-1]
    assert without.value is None
    assert "C7" in without.missing_because


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("inclination", "anteversion"), [(45.0, 0.0), (40.0, 15.0), (52.0, 22.0)])
def test_cup_against_murrays_relations(side: Any, inclination: Any, anteversion: Any) -> None:
    ri, ra = np.deg2rad([inclination, anteversion])
    lateral = 1.0 if side == "right" else -1.0
    # Radiographic: project on the coronal plane for RI; RA is the angle to that plane.
    axis = np.array([lateral * np.sin(ri) * np.cos(ra), np.sin(ra), -np.cos(ri) * np.cos(ra)])
    found = values(bone.cup_orientation(axis, side))
    assert found["Cup inclination, radiographic"] == pytest.approx(inclination)
    assert found["Cup anteversion, radiographic"] == pytest.approx(anteversion, abs=1e-9)
    # Murray 1993, from radiographic to anatomical and operative.
    assert found["Cup inclination, anatomical"] == pytest.approx(np.rad2deg(np.arccos(np.cos(ri) * np.cos(ra))))
    assert found["Cup anteversion, anatomical"] == pytest.approx(
        np.rad2deg(np.arctan2(np.tan(ra), np.sin(ri))), abs=1e-9
    )
    assert found["Cup inclination, operative"] == pytest.approx(np.rad2deg(np.arcsin(np.sin(ri) * np.cos(ra))))
    assert found["Cup anteversion, operative"] == pytest.approx(
        np.rad2deg(np.arctan2(np.tan(ra), np.cos(ri))), abs=1e-9
    )


def test_a_tilted_pelvis_is_taken_out(directions: np.ndarray) -> None:
    axis = np.array([0.6, 0.25, -0.76])
    turn = rotation_about((1.0, 0.2, 0.1), 14.0)
    landmarks = [np.array(p, dtype=float) for p in ((120, 0, 0), (-120, 0, 0), (0, 0, -90))]
    frame = bone.pelvic_frame(*(turn @ p + [5.0, 6.0, 7.0] for p in landmarks))
    assert frame == pytest.approx(turn.T)
    straight = values(bone.cup_orientation(axis, "right"))
    assert values(bone.cup_orientation(turn @ axis, "right", frame)) == pytest.approx(straight)


def test_osteotomy_rotation_and_translation() -> None:
    planned = np.eye(4)
    planned[:3, :3] = rotation_about((0, 0, 1), 30.0)
    planned[:3, 3] = (10, 20, 30)
    error = rotation_about((1, 0, 0), 4.0)
    achieved = np.eye(4)
    achieved[:3, :3] = error @ planned[:3, :3]
    centre = np.array([5.0, -3.0, 12.0])
    achieved[:3, 3] = planned[:3, :3] @ centre + planned[:3, 3] - achieved[:3, :3] @ centre + [1.0, 0, -2.0]
    found = values(bone.osteotomy_deviation(planned, achieved, centre))
    assert found["Correction: rotation error"] == pytest.approx(4.0)
    assert found["Correction: rotation error, sagittal plane"] == pytest.approx(4.0)
    assert found["Correction: rotation error, axial plane"] == pytest.approx(0.0, abs=1e-9)
    assert found["Correction: translation error"] == pytest.approx(np.sqrt(5.0))
    assert found["Correction: translation error, S"] == pytest.approx(-2.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bone.plane_normal(np.array([[0, 0, 0], [10, 0, 0], [20, 0.1, 0]])), "around the surface"),
        (lambda: bone.plane_normal(np.eye(3)[:2]), "three finite points"),
        (lambda: bone.cobb_angle((0, 1, 0), UP), "across the plane"),
        (lambda: bone.cobb_angle((0, 0, 0), UP), "not zero"),
        (lambda: bone.cup_orientation((0.6, 0.2, -0.7), "left"), "outward, to the left"),
        (lambda: bone.pelvic_frame((-120, 0, 0), (120, 0, 0), (0, 0, -90)), "swap"),
        (lambda: bone.pelvic_frame((120, 0, 0), (-120, 0, 0), (0, 0, 0)), "one line"),
        (
            lambda: bone.sagittal_balance(UP, [[0, 10, 0], [0, -10, 5]], [[90, 0, -90], [-90, 0, -90]]),
            "posterior one",
        ),
        (lambda: bone.sagittal_balance(UP, [[0, -10, 5], [0, 10, 0]], [[90, 0, 90], [-90, 0, 90]]), "below S1"),
    ],
)
def test_misplaced_points_are_named(call: Any, message: Any) -> None:
    with pytest.raises(AssessmentError, match=message):
        call()


@pytest.mark.parametrize("whole_deg", [0.0, 35.0])
def test_change_between_two_vertebrae_is_that_of_their_cobb_angles(whole_deg: float) -> None:
    """The endplates, had somebody outlined them, would say the same; how the patient lies now does not count."""
    upper = rotation_about((1, 0, 0), -4.0) @ UP
    own = np.eye(4)
    own[:3, :3] = rotation_about((1, 0, 0), 6.0)
    whole = np.eye(4)
    whole[:3, :3] = rotation_about((0.3, -0.8, 0.5), whole_deg)
    found = values(bone.alignment_change(("L1", "L4"), (whole @ own, whole), 0.2))
    assert found["L1 to L4: change of lordosis, sagittal"] == pytest.approx(6.0)
    assert found["L1 to L4: change of scoliosis, coronal"] == pytest.approx(0.0, abs=1e-9)
    heads, sacrum = np.array([[90.0, 10, -60], [-90, 10, -60]]), np.array([[0.0, -15, 0], [0, 15, -10]])

    def lordosis(normal: np.ndarray) -> float:
        return float(values(bone.sagittal_balance(normal, sacrum, heads))["Lumbar lordosis LL"])

    assert lordosis(own[:3, :3] @ upper) - lordosis(upper) == pytest.approx(6.0)


def test_signs_of_a_bend_and_a_turn() -> None:
    bend, turn = np.eye(4), np.eye(4)
    # The top of the upper one goes to the left; its front goes to the left.
    bend[:3, :3] = rotation_about((0, 1, 0), -5.0)
    turn[:3, :3] = rotation_about((0, 0, 1), 3.0)
    assert (bend[:3, :3] @ UP)[0] < 0
    assert (turn[:3, :3] @ (0, 1, 0))[0] < 0
    bent = bone.alignment_change(("T12", "L3"), (bend, np.eye(4)), 0.0)
    assert values(bent)["T12 to L3: change of scoliosis, coronal"] == pytest.approx(5.0)
    assert bone.cobb_angle(bend[:3, :3] @ UP, UP).value == pytest.approx(5.0), "the same sign as of a Cobb angle"
    assert bent[0].interval is None
    turned = bone.alignment_change(("T12", "L3"), (turn, np.eye(4)), 0.5)
    assert values(turned)["T12 to L3: change of rotation, axial"] == pytest.approx(3.0)
    assert turned[2].interval == pytest.approx((3.0 - np.sqrt(0.5), 3.0 + np.sqrt(0.5)))
