"""Frames and origins: known points, all four orientations."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib import geometry
from IntraopMRIReconstructionLib.data import Image, checked_rigid
from IntraopMRIReconstructionLib.errors import DataError
from scipy import ndimage


def test_lps_to_ras_flips_the_first_two_axes_of_a_point() -> None:
    lps_from_ijk = np.eye(4)
    lps_from_ijk[:3, 3] = (1.0, 2.0, 3.0)
    assert geometry.apply(geometry.ras_from_lps_matrix(lps_from_ijk), (10.0, 20.0, 30.0)) == pytest.approx(
        (-11.0, -22.0, 33.0)
    )


def test_a_motion_in_lps_is_the_same_motion_in_ras() -> None:
    moves_left_10 = np.eye(4)
    moves_left_10[0, 3] = 10.0  # +x of LPS is left
    assert geometry.apply(geometry.ras_transform_from_lps_transform(moves_left_10), (0, 0, 0)) == pytest.approx(
        (-10.0, 0.0, 0.0)
    )


def test_centre_origin_steps_back_half_of_n_minus_one(directions: np.ndarray) -> None:
    spacing, size = np.array([0.5, 1.0, 3.0]), (4, 5, 7)
    centre = np.array([12.0, -30.0, 45.0])
    ras_from_ijk = geometry.corner_from_centre(directions * spacing, centre, size)
    # The middle index of the volume, (N - 1) / 2, lies exactly at the centre.
    assert geometry.apply(ras_from_ijk, (1.5, 2.0, 3.0)) == pytest.approx(centre)
    assert geometry.centre_of(ras_from_ijk, size) == pytest.approx(centre)
    one_step_along_k = geometry.apply(ras_from_ijk, (0, 0, 1)) - geometry.apply(ras_from_ijk, (0, 0, 0))
    assert one_step_along_k == pytest.approx(3.0 * directions[:, 2])


def test_inverse_undoes(directions: np.ndarray) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * (0.9, 1.1, 2.0)
    matrix[:3, 3] = (5.0, -7.0, 11.0)
    assert geometry.invert(matrix) @ matrix == pytest.approx(np.eye(4))


def test_resample_matrix_finds_the_same_place_in_both_grids(directions: np.ndarray) -> None:
    fine, coarse, moved = np.eye(4), np.eye(4), np.eye(4)
    fine[:3, :3] = directions * 0.5
    coarse[:3, :3] = np.eye(3) * 2.0
    coarse[:3, 3] = (-4.0, 3.0, 1.0)
    moved[:3, 3] = (1.0, 0.0, 0.0)
    coarse_from_fine = geometry.resample_matrix(fine, coarse, moved)
    index = (3.0, 4.0, 5.0)
    there = geometry.apply(coarse, geometry.apply(coarse_from_fine, index))
    assert there == pytest.approx(geometry.apply(fine, index) + np.array([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("angle", [1e-5, 0.5, 37.0, 90.0, 179.9])
def test_rotation_angle_is_exact_also_near_zero(angle: float) -> None:
    assert geometry.rotation_angle_deg(geometry.rotation_about((1, -2, 0.5), angle)) == pytest.approx(angle, rel=1e-6)


def test_pose_error_names_distance_at_the_point_and_angle() -> None:
    true, estimated = np.eye(4), np.eye(4)
    estimated[:3, :3] = geometry.rotation_about((0, 0, 1), 2.0)
    distance, angle = geometry.pose_error(estimated, true, (100.0, 0.0, 0.0))
    assert angle == pytest.approx(2.0)
    assert distance == pytest.approx(200.0 * np.sin(np.deg2rad(1.0)))


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        (np.eye(3), "shape"),
        (np.diag([1, 1, np.nan, 1]), "finite"),
        (np.diag([1.0, 1.0, -1.0, 1.0]), "mirror"),
        (np.diag([1000.0, 1000.0, 1000.0, 1.0]), "orthonormal"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
    ],
)
def test_a_matrix_that_is_no_pose_is_refused_and_named(matrix: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=f"pose.*{says}"):
        checked_rigid(matrix, "pose")


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.9, 1.3), (5.0, 0.5, 0.5)])
@pytest.mark.parametrize("radius", [0.4, 1.0, 3.0, 5.5])
def test_a_ball_around_a_mask_is_the_threshold_of_its_distance(
    spacing: tuple[float, float, float], radius: float
) -> None:
    rng = np.random.default_rng(3)
    for share in (0.001, 0.02, 0.5):
        mask = rng.random((19, 23, 17)) < share
        mask[2, 3, 4] = True
        away = ndimage.distance_transform_edt(~mask, sampling=spacing)
        deep = ndimage.distance_transform_edt(mask, sampling=spacing)
        edge = radius * (1 + 1e-6)
        np.testing.assert_array_equal(geometry.within_mm(mask, radius, spacing), away <= edge)
        np.testing.assert_array_equal(~geometry.within_mm(~mask, radius, spacing), deep > edge)


def test_a_ball_around_nothing_is_nothing_and_one_at_the_corner_is_cut() -> None:
    mask = np.zeros((4, 5, 6), dtype=bool)
    assert not geometry.within_mm(mask, 3.0, 1.0).any()
    mask[0, 0, 0] = True
    assert geometry.within_mm(mask, 1.0, 1.0).sum() == 4
    assert geometry.within_mm(mask, 100.0, 1.0).all()
    assert mask.sum() == 1


def test_the_middle_of_a_label_is_in_its_frame(directions: np.ndarray) -> None:
    array = np.zeros((9, 8, 7), dtype=np.uint8)
    array[2:5, 1:4, 5] = 3
    ras_from_ijk = np.eye(4)
    ras_from_ijk[:3, :3] = directions * (1.0, 2.0, 3.0)
    ras_from_ijk[:3, 3] = (-5.0, 7.0, 1.0)
    expected = ras_from_ijk @ (5.0, 2.0, 3.0, 1.0)
    assert geometry.middle_of(Image(array, ras_from_ijk)) == pytest.approx(expected[:3])
