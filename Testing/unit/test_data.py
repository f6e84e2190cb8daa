"""The frozen types refuse what no stage may work on, and never show a number without a reason."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, Pose, Reason, Verdict
from IntraopMRIReconstructionLib.errors import DataError


def test_image_knows_spacing_and_voxel_volume(directions: np.ndarray) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * (0.5, 1.0, 3.0)
    image = Image(np.zeros((2, 3, 4)), matrix)
    assert image.spacing_mm == pytest.approx((0.5, 1.0, 3.0))
    assert image.voxel_volume_ml == pytest.approx(0.0015)


def test_new_content_gets_a_new_uid_on_the_same_grid() -> None:
    image = Image(np.zeros((2, 3, 4)), np.eye(4), name="a")
    other = image.with_array(np.ones((2, 3, 4)))
    assert other.uid != image.uid
    assert other.name == "a"
    with pytest.raises(DataError, match="keep the grid"):
        image.with_array(np.ones((2, 3, 5)))


def test_a_flat_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"\(k, j, i\)"):
        Image(np.zeros((3, 4)), np.eye(4))


def test_pose_age_counts_from_its_reception() -> None:
    pose = Pose(np.eye(4), "pointer", received_monotonic_s=10.0, received_utc_s=0.0)
    assert pose.age_s(10.5) == pytest.approx(0.5)


def test_verdict_is_that_of_the_worst_reason_and_refused_without_any() -> None:
    good = Reason("overlap", 0.9, "", "> 0.5", Level.GOOD)
    check = Reason("residual motion", 2.5, "mm", "< 2 mm", Level.CHECK)
    assert Verdict((good,)).level is Level.GOOD
    assert Verdict((good, check)).level is Level.CHECK
    assert Verdict((good, check)).text == "check: residual motion 2.5 mm (expected < 2 mm)"
    assert Verdict(()).level is Level.REFUSED


def test_a_measurement_without_value_must_say_why() -> None:
    with pytest.raises(DataError, match="say why"):
        Measurement("residual", None, "cm3", "volume")
    with pytest.raises(DataError, match="finite"):
        Measurement("residual", float("nan"), "cm3", "volume")
    with pytest.raises(DataError, match="lower, upper"):
        Measurement("residual", 1.0, "cm3", "volume", interval=(2.0, 1.0))
