"""What is carried over lands where the truth says, with the method and the doubt beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from IntraopMRILib.register.carry_over import UNKNOWN_SHIFT_MM, CarryOver, uncertainty_at
from IntraopMRILib.register.deformable import DeformableRegistration
from IntraopMRILib.register.rigid import RigidRegistration
from IntraopMRIReconstructionLib.data import Image, Level, Reason, Verdict
from IntraopMRIReconstructionLib.errors import RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, corner_from_centre, invert, rotation_about

GOOD = Verdict((Reason("truth", 0.0, "mm", "0", Level.GOOD),))
REFUSED = Verdict((Reason("folded tissue", 3.0, "%", "none", Level.REFUSED),))
MOVED = np.array([3.0, -2.0, 4.0])


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
    mask = Image(np.ones((60, 60, 60), np.uint8), matrix)
    doubt = Image((2.0 + 0.01 * height).astype(np.float32), matrix)
    return DeformableRegistration(
        pose, Image(-push, matrix), Image(push, matrix), mask, mask, doubt, verdict, False, 1.0
    )


def test_points_with_shift_and_uncertainty(pose: np.ndarray, directions: np.ndarray) -> None:
    carried = CarryOver(rigid(pose), deformable(pose, directions)).points(
        {"target": (1.0, 2.0, 3.0), "tract": [(0.0, 0.0, 0.0), (5.0, 5.0, 20.0)]}
    )
    target, tract = carried
    np.testing.assert_allclose(target.now_mm[0], np.array([-2.0 + 10, 1.0, 8.0]) + MOVED, atol=1e-5)
    assert target.shift_mm == pytest.approx(np.linalg.norm(MOVED), abs=1e-5)
    assert target.uncertainty_mm == pytest.approx(2.0 + 0.01 * target.now_mm[0, 2], abs=1e-3)
    assert tract.now_mm.shape == (2, 3)
    assert tract.uncertainty_mm == pytest.approx(2.0 + 0.01 * tract.now_mm[1, 2], abs=1e-3)
    assert target.method == "deformable"
    assert target.accepted is None
    assert target.decided(True).accepted is True


def test_refused_deformable_falls_back_and_says_so(pose: np.ndarray) -> None:
    carry = CarryOver(rigid(pose), deformable(pose, np.eye(3), REFUSED))
    (target,) = carry.points({"target": (1.0, 2.0, 3.0)})
    np.testing.assert_allclose(target.now_mm[0], (8.0, 1.0, 8.0), atol=1e-9)
    assert target.uncertainty_mm == UNKNOWN_SHIFT_MM
    assert "folded tissue" in target.method


def test_refused_rigid_carries_nothing(pose: np.ndarray) -> None:
    with pytest.raises(RegistrationError, match="nothing may be carried over"):
        CarryOver(rigid(pose, REFUSED))
    with pytest.raises(RegistrationError, match="'lost' must be finite"):
        CarryOver(rigid(pose)).points({"lost": (np.nan, 0.0, 0.0)})


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
    np.testing.assert_allclose(uncertainty_at(doubt, [(0, 0, 10.0), (0, 0, -10.0)]), (2.1, 1.9), atol=1e-3)


def test_magnitude_and_arrows(pose: np.ndarray, directions: np.ndarray) -> None:
    moved = deformable(pose, directions)
    np.testing.assert_allclose(moved.magnitude().array, np.linalg.norm(MOVED), atol=1e-5)
    tails, heads = moved.arrows(20.0)
    assert tails.shape == (0, 3)
    whole = replace(moved, cavity=moved.cavity.with_array(np.zeros_like(moved.cavity.array)))
    tails, heads = whole.arrows(20.0)
    assert len(heads) == 6**3
    np.testing.assert_allclose(heads - tails, np.broadcast_to(MOVED, heads.shape), atol=1e-5)
