"""What is carried over lands where the truth says, with the method and the doubt beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from IntraopMRILib.register.carry_over import (
    UNKNOWN_SHIFT_MM,
    CarryOver,
    LocalShift,
    local_shift,
    shown_arrows,
    shown_shift,
    shown_uncertainty,
    uncertainty_at,
)
from IntraopMRILib.register.deformable import DeformableRegistration
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.errors import RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, corner_from_centre, invert, rotation_about

GOOD = Verdict((Reason("truth", 0.0, "mm", "0", Level.GOOD),))
REFUSED = Verdict((Reason("folded tissue", 3.0, "%", "none", Level.REFUSED),))
MOVED = np.array([3.0, -2.0, 4.0])
HOLE = np.array([-25.0, 0.0, 10.0])


@pytest.fixture
def pose() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((0, 0, 1), 90.0)
    matrix[:3, 3] = (10.0, 0.0, 5.0)
    return matrix


def rigid(pose: np.ndarray, verdict: Verdict = GOOD) -> RigidRegistration:
    return RigidRegistration(pose, verdict, 1.0, 0.5, 0.9, 0.1, 1.0)


def deformable(pose: np.ndarray, directions: np.ndarray, verdict: Verdict = GOOD) -> DeformableRegistration:
    """Everything moved by MOVED beyond the pose; the doubt grows with height."""
    matrix = corner_from_centre(directions * 2.0, (0.0, 0.0, 0.0), (60, 60, 60))
    k, j, i = np.indices((60, 60, 60))
    height = apply(matrix, np.stack([i, j, k], axis=-1).astype(float))[..., 2]
    push = np.broadcast_to(MOVED, (60, 60, 60, 3)).astype(np.float32)
    points = apply(matrix, np.stack([i, j, k], axis=-1).astype(float))
    brain = Image((np.linalg.norm(points, axis=-1) < 55.0).astype(np.uint8), matrix)
    cavity = Image((np.linalg.norm(points - HOLE, axis=-1) < 8.0).astype(np.uint8), matrix)
    doubt = Image((1.0 + 0.01 * height).astype(np.float32), matrix)
    return DeformableRegistration(
        pose, Image(-push, matrix), Image(push, matrix), cavity, brain, doubt, verdict, False, 1.0
    )


def preop_of(pose: np.ndarray, now: npt.ArrayLike) -> np.ndarray:
    """Preoperative place of the tissue that is at ``now``."""
    return apply(invert(pose), np.asarray(now) - MOVED)


def test_points_with_shift_and_uncertainty(pose: np.ndarray, directions: np.ndarray) -> None:
    carry = CarryOver(rigid(pose), deformable(pose, directions))
    target = carry.item("target", "lead", (1.0, 2.0, 3.0))
    tract = carry.item("risk", "tract", [(0.0, 0.0, 0.0), (5.0, 5.0, 20.0)])
    np.testing.assert_allclose(target.now_mm[0], np.array([-2.0 + 10, 1.0, 8.0]) + MOVED, atol=1e-5)
    np.testing.assert_allclose(target.rigid_mm[0], (8.0, 1.0, 8.0), atol=1e-9)
    assert target.key == "target.lead"
    assert target.shift_mm == pytest.approx(np.linalg.norm(MOVED), abs=1e-5)
    assert target.uncertainty_mm == pytest.approx(1.0 + 0.01 * target.now_mm[0, 2], abs=1e-3)
    assert tract.now_mm.shape == (2, 3)
    assert tract.mean_shift_mm == pytest.approx(tract.shift_mm, abs=1e-5)
    assert tract.uncertainty_mm == pytest.approx(1.0 + 0.01 * tract.now_mm[1, 2], abs=1e-3)
    assert target.method == "deformable"
    assert target.verdict.level is Level.GOOD


def test_nothing_moves_before_a_person_has_accepted(pose: np.ndarray) -> None:
    target = CarryOver(rigid(pose), deformable(pose, np.eye(3))).item("target", "lead", (1.0, 2.0, 3.0))
    assert target.accepted is None
    assert target.position_mm is target.rigid_mm
    assert target.basis == "rigid pose"
    accepted = target.decided(True, " Dr. Example ", "2026-01-02T14:32:10.000+00:00")
    assert accepted.position_mm is target.now_mm
    assert accepted.basis == "carried over, accepted by Dr. Example at 14:32 UTC"
    rejected = accepted.decided(False, "Dr. Example", "2026-01-02T14:33:10.000+00:00")
    assert rejected.position_mm is target.rigid_mm
    with pytest.raises(RegistrationError, match="name of the person"):
        target.decided(True, "  ", "2026-01-02T14:32:10.000+00:00")


@pytest.mark.parametrize(
    ("place", "reason", "level"),
    [
        ((0.0, 0.0, 0.0), "", Level.GOOD),
        (tuple(HOLE), "in the cavity 100 %", Level.REFUSED),
        ((0.0, 0.0, 58.0), "outside the brain 100 %", Level.REFUSED),
    ],
)
def test_where_a_thing_lies_decides_whether_it_is_offered(
    pose: np.ndarray, directions: np.ndarray, place: tuple[float, ...], reason: str, level: Level
) -> None:
    item = CarryOver(rigid(pose), deformable(pose, directions)).item("target", "lead", preop_of(pose, place))
    assert item.verdict.level is level
    assert reason in item.verdict.text
    if level is Level.REFUSED:
        with pytest.raises(RegistrationError, match="cannot be carried over"):
            item.decided(True, "Dr. Example", "2026-01-02T14:32:10.000+00:00")


def test_a_registration_with_signs_against_it_makes_no_item_good(pose: np.ndarray) -> None:
    check = Verdict((Reason("misfit", 0.5, "", "at most 0.45", Level.CHECK),))
    item = CarryOver(rigid(pose), deformable(pose, np.eye(3), check)).item("target", "lead", (1.0, 2.0, 3.0))
    assert item.verdict.level is Level.CHECK
    assert item.offered


def test_a_bent_path_is_said(pose: np.ndarray) -> None:
    found = deformable(pose, np.eye(3))
    middle = np.argmin(np.abs(np.arange(60) - 30))
    bent = found.inverse_shift.array.copy()
    bent[middle - 3 : middle + 3, ..., 0] += 4.0
    found = replace(found, inverse_shift=found.inverse_shift.with_array(bent))
    path = np.linspace(preop_of(pose, (0.0, 0.0, 30.0)), preop_of(pose, (0.0, 0.0, -30.0)), 61)
    assert "bend of the path" in CarryOver(rigid(pose), found).item("plan", "screw", path).verdict.text
    straight = CarryOver(rigid(pose), deformable(pose, np.eye(3))).item("plan", "screw", path)
    assert straight.verdict.level is Level.GOOD


def test_refused_deformable_falls_back_and_offers_nothing(pose: np.ndarray) -> None:
    carry = CarryOver(rigid(pose), deformable(pose, np.eye(3), REFUSED))
    target = carry.item("target", "lead", (1.0, 2.0, 3.0))
    np.testing.assert_allclose(target.now_mm[0], (8.0, 1.0, 8.0), atol=1e-9)
    assert target.uncertainty_mm == UNKNOWN_SHIFT_MM
    assert "folded tissue" in target.method
    assert not target.offered


def test_refused_rigid_carries_nothing(pose: np.ndarray) -> None:
    with pytest.raises(RegistrationError, match="nothing may be carried over"):
        CarryOver(rigid(pose, REFUSED))
    for points in ((np.nan, 0.0, 0.0), np.zeros((0, 3)), (1.0, 2.0)):
        with pytest.raises(RegistrationError, match="'lost' must be finite"):
            CarryOver(rigid(pose)).item("target", "lost", points)


def test_shift_at_the_pointer_is_blank_where_it_is_not_known(pose: np.ndarray, directions: np.ndarray) -> None:
    found = deformable(pose, directions)
    here = local_shift(found, (5.0, 5.0, 10.0))
    assert isinstance(here, LocalShift)
    assert here.shift_mm == pytest.approx(np.linalg.norm(MOVED), abs=1e-5)
    assert here.uncertainty_mm == pytest.approx(1.1, abs=1e-3)
    assert local_shift(found, HOLE) == "in the cavity"
    assert local_shift(found, (0.0, 0.0, 57.0)) == "outside the brain"
    assert local_shift(found, (0.0, 0.0, 500.0)) == "outside the brain"


def test_maps_show_only_what_is_known(pose: np.ndarray, directions: np.ndarray) -> None:
    found = deformable(pose, directions)
    known = (found.brain.array != 0) & (found.cavity.array == 0)
    for image in (shown_shift(found), shown_uncertainty(found)):
        assert ((image.array >= 0) == known).all()
    np.testing.assert_allclose(shown_shift(found).array[known], np.linalg.norm(MOVED), atol=1e-5)
    arrows = shown_arrows(found)
    drawn = np.linalg.norm(arrows.array, axis=-1) > 0
    heads = apply(arrows.ras_from_ijk, np.argwhere(drawn)[:, ::-1].astype(float)) + MOVED
    assert (np.linalg.norm(heads - HOLE, axis=1) > 8.0 - 2.0).all()
    assert (np.linalg.norm(heads, axis=1) < 55.0 + 2.0).all()
    assert drawn.sum() > 0.9 * known.sum()


@pytest.mark.parametrize("with_shift", [False, True])
def test_labels_and_volumes(pose: np.ndarray, directions: np.ndarray, with_shift: bool) -> None:
    preop_grid = corner_from_centre(np.eye(3), (0.0, 0.0, 0.0), (50, 50, 50))
    k, j, i = np.indices((50, 50, 50))
    points = apply(preop_grid, np.stack([i, j, k], axis=-1).astype(float))
    label = Image((np.linalg.norm(points - (4.0, -3.0, 2.0), axis=-1) < 9.0).astype(np.uint8) * 7, preop_grid)
    like = Image(np.zeros((40, 40, 40), np.uint8), corner_from_centre(directions * 1.5, (10.0, 0.0, 5.0), (40, 40, 40)))
    carry = CarryOver(rigid(pose), deformable(pose, directions) if with_shift else None)
    moved = carry.volume(label, like, label=True)
    assert moved.array.dtype == label.array.dtype
    assert set(np.unique(moved.array)) == {0, 7}
    centre = apply(like.ras_from_ijk, np.argwhere(moved.array)[:, ::-1].astype(float)).mean(axis=0)
    expected = apply(pose, (4.0, -3.0, 2.0)) + (MOVED if with_shift else 0.0)
    np.testing.assert_allclose(centre, expected, atol=0.2)
    ramp = Image(points[..., 0].astype(np.float32), preop_grid)
    value = carry.volume(ramp, like).array[20, 20, 20]
    here = apply(like.ras_from_ijk, (20.0, 20.0, 20.0))
    assert value == pytest.approx(apply(invert(pose), here - (MOVED if with_shift else 0.0))[0], abs=0.02)


def test_doubt_at_the_pointer(pose: np.ndarray, directions: np.ndarray) -> None:
    doubt = deformable(pose, directions).uncertainty
    np.testing.assert_allclose(uncertainty_at(doubt, [(0, 0, 10.0), (0, 0, -10.0)]), (1.1, 0.9), atol=1e-3)


def test_magnitude(pose: np.ndarray, directions: np.ndarray) -> None:
    np.testing.assert_allclose(deformable(pose, directions).magnitude().array, np.linalg.norm(MOVED), atol=1e-5)
