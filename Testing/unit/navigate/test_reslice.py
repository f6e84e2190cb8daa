from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRILib.navigate.reslice import PoseSmoother, slice_to_ras
from IntraopMRIReconstructionLib.data import Pose
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import rotation_about, rotation_angle_deg


def pose(rotation: Any = None, tip: Any = (1.0, 2.0, 3.0), at: Any = 0.0, valid: Any = True) -> Any:
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) if rotation is None else rotation
    matrix[:3, 3] = tip
    return Pose(matrix, "pointer", at, at, valid=valid)


TILTED = rotation_about((0.3, 0.8, -0.2), 71.0)


@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal", "in-plane", "in-plane 90", "probe's eye"])
@pytest.mark.parametrize(
    "rotation", [np.eye(3), TILTED, rotation_about((1, 0, 0), 90.0), rotation_about((1, 0, 0), 180)]
)
def test_every_plane_is_rigid_and_passes_through_the_tip(plane: Any, rotation: Any) -> None:
    matrix = slice_to_ras(plane, pose(rotation))
    assert matrix[:3, 3] == pytest.approx((1.0, 2.0, 3.0))
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1.0)


def test_standard_planes_are_radiological() -> None:
    assert slice_to_ras("axial", at_ras_mm=(0, 0, 0))[:3, 0] == pytest.approx((-1, 0, 0))
    assert slice_to_ras("axial", at_ras_mm=(0, 0, 0))[:3, 1] == pytest.approx((0, 1, 0))
    assert slice_to_ras("sagittal", at_ras_mm=(0, 0, 0))[:3, 0] == pytest.approx((0, -1, 0))
    assert slice_to_ras("coronal", at_ras_mm=(0, 0, 0))[:3, 0] == pytest.approx((-1, 0, 0))
    assert slice_to_ras("coronal", at_ras_mm=(0, 0, 0))[:3, 1] == pytest.approx((0, 0, 1))


def test_planes_of_the_tool() -> None:
    shaft = TILTED[:, 2]
    along = slice_to_ras("in-plane", pose(TILTED))
    across = slice_to_ras("in-plane 90", pose(TILTED))
    eye = slice_to_ras("probe's eye", pose(TILTED))
    # The tool enters from the top, so its shaft points down the picture.
    assert along[:3, 1] == pytest.approx(-shaft)
    assert across[:3, 1] == pytest.approx(-shaft)
    assert along[:3, 0] @ across[:3, 0] == pytest.approx(0.0, abs=1e-9)
    # Looking along the shaft: it points away from the viewer, superior stays up.
    assert eye[:3, 2] == pytest.approx(-shaft)
    assert eye[2, 1] > 0


def test_a_plane_needs_what_it_follows() -> None:
    with pytest.raises(DataError, match="pose or a point"):
        slice_to_ras("axial")
    with pytest.raises(DataError, match="follows a tool"):
        slice_to_ras("in-plane", at_ras_mm=(0, 0, 0))
    with pytest.raises(DataError, match="does not see"):
        slice_to_ras("axial", pose(valid=False))
    with pytest.raises(DataError, match="unknown plane"):
        slice_to_ras("upside down", pose())  # type: ignore[arg-type]


def test_smoothing_calms_a_still_hand() -> None:
    rng = np.random.default_rng(5)
    smoother = PoseSmoother()
    raw, smooth = [], []
    for n in range(200):
        rotation = TILTED @ rotation_about(rng.normal(size=3), 0.3 * rng.normal())
        noisy = pose(rotation, rng.normal(0, 0.2, 3), at=0.02 * n)
        steady = smoother.smooth(noisy)
        if n > 50:
            raw.append(np.linalg.norm(noisy.tip_ras_mm))
            smooth.append(np.linalg.norm(steady.tip_ras_mm))
            assert rotation_angle_deg(steady.ras_from_tool[:3, :3] @ TILTED.T) < 0.8
    assert np.mean(smooth) < 0.65 * np.mean(raw)


def test_smoothing_follows_a_quick_hand() -> None:
    smoother = PoseSmoother()
    for n in range(100):
        at = 0.02 * n
        moving = pose(rotation_about((0, 0, 1), 60 * at), (100.0 * at, 0, 0), at=at)
        steady = smoother.smooth(moving)
    # At 100 mm/s the picture may lag by a few millimetres only.
    assert np.linalg.norm(steady.tip_ras_mm - moving.tip_ras_mm) < 4.0
    assert rotation_angle_deg(steady.ras_from_tool[:3, :3] @ moving.ras_from_tool[:3, :3].T) < 4.0


def test_a_gap_and_an_unseen_tool_start_anew() -> None:
    smoother = PoseSmoother()
    smoother.smooth(pose(tip=(0, 0, 0), at=0.0))
    assert smoother.smooth(pose(tip=(50, 0, 0), at=2.0)).tip_ras_mm == pytest.approx((50, 0, 0))
    unseen = pose(tip=(9, 9, 9), at=2.02, valid=False)
    assert smoother.smooth(unseen) is unseen
    assert smoother.smooth(pose(tip=(80, 0, 0), at=2.04)).tip_ras_mm == pytest.approx((80, 0, 0))


@pytest.mark.parametrize("scale", [1.0, 1.0 + 2e-5])
def test_a_tool_that_rests_as_float32_is_no_turn(scale: float) -> None:
    """A matrix from the wire is orthonormal to 1e-5 only: its angle from itself is not zero, yet there is no axis."""
    rotation = TILTED.astype(np.float32).astype(np.float64) * scale
    smoother = PoseSmoother()
    for n in range(20):
        steady = smoother.smooth(pose(rotation, (0, 0, 1.0 * n), at=0.02 * n))
    np.testing.assert_allclose(steady.ras_from_tool[:3, :3], rotation, atol=1e-12)
