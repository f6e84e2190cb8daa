"""Tip and shaft of tools with known geometry, with noise, slips and too little motion."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from IntraopMRILib.navigate.calibration import (
    MIN_POSES,
    PoseCollection,
    at_tip,
    calibrate_pivot,
    calibrate_spin,
    tool_from_tip,
)
from IntraopMRIReconstructionLib.data import Level, Pose
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import rotation_about

Array = npt.NDArray[np.float64]
TIP = np.array([3.0, -12.0, -158.0])
PIVOT = np.array([40.0, -20.0, 300.0])


def turned(rotation: Array, tip: Array = TIP, at: Array = PIVOT) -> Array:
    """Pose of a tool whose tip is at a point."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = at - rotation @ tip
    return matrix


def cone(count: int, half_angle_deg: float, seed: int = 0, held: Any = None) -> Array:
    """Rotations within a cone about the upright tool, with any turn about its own axis up to 20 degrees."""
    rng = np.random.default_rng(seed)
    base = rotation_about((1, 2, 3), 70.0) if held is None else held
    found = []
    for _ in range(count):
        around = rng.uniform(0, 2 * np.pi)
        tilt = half_angle_deg * np.sqrt(rng.uniform())
        turn = rotation_about((0, 0, 1), rng.uniform(-20, 20))
        found.append(base @ rotation_about((np.cos(around), np.sin(around), 0), tilt) @ turn)
    return np.array(found)


def noisy(poses: Array, mm: float, deg: float, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    result = poses.copy()
    for pose in result:
        axis = rng.normal(size=3)
        pose[:3, :3] = pose[:3, :3] @ rotation_about(axis, rng.normal() * deg)
        pose[:3, 3] += rng.normal(0, mm, 3)
    return result


def pivoted(count: int = 200, half_angle_deg: float = 30.0, seed: int = 0) -> Array:
    return np.array([turned(r) for r in cone(count, half_angle_deg, seed)])


def plus_pivot(poses: Array) -> Array:
    """The tip as Plus and SlicerIGT find it: least squares, repeated without what lies 3 deviations off."""
    kept = np.arange(len(poses))
    while True:
        rows = np.concatenate([np.hstack([p[:3, :3], -np.eye(3)]) for p in poses[kept]])
        found = np.linalg.lstsq(rows, -np.concatenate([p[:3, 3] for p in poses[kept]]), rcond=None)[0]
        error = np.linalg.norm((rows @ found).reshape(-1, 3) + poses[kept][:, :3, 3], axis=1)
        inside = np.abs(error - error.mean()) <= 3 * error.std()
        if inside.all() or inside.sum() < MIN_POSES:
            return np.asarray(found[:3])
        kept = kept[inside]


def test_exact_poses_give_the_exact_tip() -> None:
    found = calibrate_pivot(pivoted())
    np.testing.assert_allclose(found.tip_mm, TIP, atol=1e-8)
    np.testing.assert_allclose(found.pivot_mm, PIVOT, atol=1e-8)
    assert found.rms_mm < 1e-8
    assert found.poses == 200
    assert found.verdict.level is Level.GOOD


def test_the_stated_error_is_the_true_one() -> None:
    """Root mean square of the true error over many tools, against the mean square of what each states."""
    clean = pivoted(100)
    true, stated = [], []
    for seed in range(60):
        found = calibrate_pivot(noisy(clean, 0.15, 0.0, seed))
        true.append(np.sum((found.tip_mm - TIP) ** 2))
        stated.append(found.error_mm**2)
        assert found.verdict.level is Level.GOOD
    assert np.sqrt(np.mean(stated)) == pytest.approx(np.sqrt(np.mean(true)), rel=0.2)
    assert np.sqrt(np.mean(true)) < 0.12


def test_noise_of_an_optical_tracker_leaves_a_tenth_of_a_millimetre() -> None:
    found = calibrate_pivot(noisy(pivoted(300), 0.1, 0.05))
    assert np.linalg.norm(found.tip_mm - TIP) < 0.1
    assert found.rms_mm == pytest.approx(0.27, abs=0.08)


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_slips_are_set_aside(share: float) -> None:
    """The tip jumps out of the divot for a while: no worse than without slips, and better than the usual rejection."""
    poses = noisy(pivoted(300), 0.1, 0.05)
    slips = int(share * len(poses))
    poses[40 : 40 + slips, :3, 3] += np.array([6.0, -4.0, 3.0])
    found = calibrate_pivot(poses)
    ours, theirs = np.linalg.norm(found.tip_mm - TIP), np.linalg.norm(plus_pivot(poses) - TIP)
    assert ours < 0.15
    assert ours <= theirs + 1e-3
    assert found.poses == pytest.approx(len(poses) - slips, abs=6)
    assert found.verdict.level is (Level.GOOD if share < 0.1 else Level.CHECK)


def test_without_slips_it_is_as_good_as_plain_least_squares() -> None:
    poses = [noisy(pivoted(150, seed=s), 0.2, 0.1, s) for s in range(20)]
    ours = [np.linalg.norm(calibrate_pivot(p).tip_mm - TIP) for p in poses]
    theirs = [np.linalg.norm(plus_pivot(p) - TIP) for p in poses]
    assert np.mean(ours) < 1.05 * np.mean(theirs)


def test_too_little_motion_is_refused() -> None:
    found = calibrate_pivot(noisy(pivoted(half_angle_deg=6.0), 0.1, 0.05))
    assert found.verdict.level is Level.REFUSED
    assert "turn the tool further" in found.verdict.text


def test_a_hinge_is_refused_however_far_it_turns() -> None:
    """About one axis the tip may lie anywhere along it: the residual alone would call this perfect."""
    held = rotation_about((1, 2, 3), 70.0)
    hinge = np.array([turned(held @ rotation_about((1, 0, 0), angle)) for angle in np.linspace(-40, 40, 120)])
    found = calibrate_pivot(hinge)
    assert found.rms_mm < 1e-6
    assert found.covered_deg < 1.0
    assert found.verdict.level is Level.REFUSED


def test_a_tip_that_wanders_is_refused() -> None:
    poses = pivoted(200)
    poses[:, :3, 3] += np.random.default_rng(3).normal(0, 1.0, (200, 3))
    found = calibrate_pivot(poses)
    assert found.verdict.level is Level.REFUSED
    assert "pivot residual" in found.verdict.text


def spun(shaft: Array, to_deg: float, count: int = 150, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    held = rotation_about((3, 1, 2), 50.0)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = [held @ rotation_about(shaft, angle) for angle in rng.uniform(0, to_deg, count)]
    return poses


SHAFT = np.array([0.1, -0.2, 1.0]) / np.linalg.norm([0.1, -0.2, 1.0])


def angle_deg(found: Array, true: Array = SHAFT) -> float:
    return float(np.rad2deg(np.arccos(min(1.0, abs(float(found @ true))))))


@pytest.mark.parametrize("to_deg", [100.0, 200.0, 350.0])
def test_the_shaft_is_found_and_the_turn_measured(to_deg: float) -> None:
    found = calibrate_spin(spun(SHAFT, to_deg))
    assert angle_deg(found.shaft) < 1e-4
    assert found.covered_deg == pytest.approx(to_deg, abs=8)
    assert found.verdict.level is Level.GOOD


def test_noise_hardly_turns_the_shaft() -> None:
    found = calibrate_spin(noisy(spun(SHAFT, 180.0), 0.1, 0.3))
    assert angle_deg(found.shaft) < 0.1
    assert 0.1 < found.rms_deg < 0.5


def test_poses_that_tilted_are_set_aside() -> None:
    poses = spun(SHAFT, 180.0)
    poses[10:30, :3, :3] = rotation_about((1, 0, 0), 8.0) @ poses[10:30, :3, :3]
    found = calibrate_spin(noisy(poses, 0.0, 0.1))
    assert angle_deg(found.shaft) < 0.1
    assert found.poses < 135


def test_pivoting_is_no_spin_and_a_short_spin_is_none() -> None:
    assert calibrate_spin(pivoted()).verdict.level is Level.REFUSED
    short = calibrate_spin(spun(SHAFT, 30.0))
    assert short.verdict.level is Level.REFUSED
    assert "turned" in short.verdict.text


def test_too_few_or_broken_poses_are_refused_in_words() -> None:
    with pytest.raises(DataError, match=f"at least {MIN_POSES}"):
        calibrate_pivot(pivoted(MIN_POSES - 1))
    broken = pivoted(50)
    broken[3, 0, 0] = np.nan
    with pytest.raises(DataError, match="finite"):
        calibrate_spin(broken)
    with pytest.raises(DataError, match="shape"):
        calibrate_pivot(np.eye(4))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_calibrated_pose_has_the_tip_as_origin_and_z_up_the_shaft(sign: float) -> None:
    shaft = -TIP / np.linalg.norm(TIP)
    pose = Pose(turned(rotation_about((0, 1, 1), 33.0)), "Pointer", 0.0, 0.0)
    at = at_tip(pose, tool_from_tip(TIP, sign * shaft))
    np.testing.assert_allclose(at.tip_ras_mm, PIVOT, atol=1e-9)
    body = pose.ras_from_tool[:3, 3]
    np.testing.assert_allclose(at.ras_from_tool[:3, 2], (body - PIVOT) / np.linalg.norm(body - PIVOT), atol=1e-9)


def test_without_a_shaft_the_tool_keeps_its_axes_and_near_a_tip_its_z() -> None:
    np.testing.assert_array_equal(tool_from_tip(TIP)[:3, :3], np.eye(3))
    np.testing.assert_allclose(tool_from_tip((0, 0, 0), (0, 0, -1.0)), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(tool_from_tip((0, 0, 100.0), (0, 0, 1.0))[:3, 2], (0, 0, -1), atol=1e-12)
    with pytest.raises(DataError, match="unit vector"):
        tool_from_tip(TIP, (0, 0, 2.0))


def test_a_collection_takes_what_is_new_of_its_own_tool() -> None:
    collected = PoseCollection("Pointer")
    one, two = pivoted(2)
    assert collected.add(Pose(one, "Pointer", 0.0, 0.0))
    assert not collected.add(Pose(one, "Pointer", 0.1, 0.1)), "the tool rests"
    assert not collected.add(Pose(two, "Suction", 0.2, 0.2)), "another tool"
    assert not collected.add(Pose(two, "Pointer", 0.3, 0.3, valid=False)), "not seen"
    assert collected.add(Pose(two, "Pointer", 0.4, 0.4))
    assert len(collected) == 2
    np.testing.assert_array_equal(collected.matrices, [one, two])
