"""A plan that was drawn from its tip to its entry is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from IntraopMRILib.assess.approach import approach_doubt, depth_mm, side_doubt
from IntraopMRILib.assess.implant import Trajectory
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import apply

RADIUS_MM, SIZE = 80.0, 100


def head(directions: np.ndarray) -> Image:
    """A ball of tissue with a ventricle, 2 mm voxels."""
    grid = np.eye(4)
    grid[:3, :3] = directions * 2.0
    grid[:3, 3] = (10.0, -5.0, 20.0) - grid[:3, :3] @ np.full(3, (SIZE - 1) / 2.0)
    k, j, i = np.indices((SIZE,) * 3)
    away = np.linalg.norm(apply(grid, np.stack([i, j, k], axis=-1)) - (10.0, -5.0, 20.0), axis=-1)
    rng = np.random.default_rng(0)
    return Image((np.where(away < 12.0, 5.0, (away < RADIUS_MM) * 100.0) + rng.random(away.shape)), grid, "T1")


def lead(entry: tuple[float, float, float], tip: tuple[float, float, float]) -> Trajectory:
    middle = np.array([10.0, -5.0, 20.0])
    return Trajectory(middle + entry, middle + tip, 1.5, "Lead left")


def test_depth_is_the_distance_to_the_air(directions: np.ndarray) -> None:
    depths = depth_mm(head(directions), np.array([[10.0, -5.0, 20.0], [10.0, -5.0, 70.0], [10.0, 65.0, 20.0]]))
    assert depths == pytest.approx([80.0, 30.0, 10.0], abs=3.0)
    # Without air there is no surface.
    full = Image(np.ones((40, 40, 40)), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert depth_mm(full, np.array([[10.0, 10.0, 10.0]])) is None
    assert depth_mm(head(directions), np.array([[500.0, 0.0, 0.0]])) is None


def test_a_lead_that_enters_in_the_depth_is_doubted(directions: np.ndarray) -> None:
    scan = head(directions)
    right = lead((30.0, 10.0, 60.0), (12.0, 0.0, -4.0))
    assert approach_doubt(right, scan) == ""
    swapped = replace(right, entry_ras_mm=right.tip_ras_mm, tip_ras_mm=right.entry_ras_mm)
    assert "Lead left" in approach_doubt(swapped, scan)
    assert "swapped" in approach_doubt(swapped, scan)


def test_a_screw_is_planned_from_behind(directions: np.ndarray) -> None:
    screw = Trajectory(np.array([20.0, -30.0, 0.0]), np.array([12.0, 15.0, 0.0]), 6.0, "L4 right")
    swapped = replace(screw, entry_ras_mm=screw.tip_ras_mm, tip_ras_mm=screw.entry_ras_mm)
    scan = head(directions)
    assert approach_doubt(screw, scan, "L4") == ""
    assert "front to back through L4" in approach_doubt(swapped, scan, "L4")
    # One across a vertebra, as from the side, is nobody's error.
    assert approach_doubt(replace(screw, tip_ras_mm=np.array([-20.0, -32.0, 0.0])), scan, "L4") == ""


@pytest.mark.parametrize(
    ("name", "r_mm", "doubted"),
    [
        ("L4 right", 18.0, False),
        ("L4 right", -18.0, True),
        ("Left L4", -18.0, False),
        ("Screw_left_L4", 18.0, True),
        ("L4", 18.0, False),
        ("from right to left", 18.0, False),
        ("Copyright", -18.0, False),
        ("L4 right", -1.0, False),
    ],
)
def test_the_side_in_a_name_is_that_of_the_patient(
    directions: np.ndarray, name: str, r_mm: float, doubted: bool
) -> None:
    """The patient lies 60 mm beside the middle of the scanner."""
    grid = np.eye(4)
    grid[:3, :3] = directions * 2.0
    grid[:3, 3] = np.array([60.0, 10.0, -5.0]) - grid[:3, :3] @ np.full(3, 19.5)
    bone = np.zeros((40, 40, 40), np.uint8)
    bone[8:32, 8:32, 8:32] = 1
    middle = np.array([60.0 + r_mm, 10.0, -5.0])
    behind = np.array([0.0, -20.0, 0.0])
    planned = Trajectory(middle + behind, middle - behind, 6.0, name)
    said = side_doubt(planned, Image(bone, grid), "L4")
    assert bool(said) is doubted
    assert not doubted or f"patient's {'right' if r_mm > 0 else 'left'}, {abs(r_mm):.0f} mm" in said
