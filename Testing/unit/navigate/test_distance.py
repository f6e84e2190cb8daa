from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRILib.navigate.distance import ResidualDistance, SurfaceDistance, target_distance
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import apply

RADIUS = 7.3


def ball(directions: np.ndarray, spacing: Any = (1.0, 1.0, 1.0), radius: Any = RADIUS) -> Any:
    shape_ijk = np.rint(np.array([34, 30, 32]) / np.array(spacing)).astype(int)
    ras_from_ijk = np.eye(4)
    ras_from_ijk[:3, :3] = directions * np.array(spacing)
    ras_from_ijk[:3, 3] = (-12.3, 40.2, 7.7)
    centre = apply(ras_from_ijk, (shape_ijk - 1) / 2.0 + 0.21)
    k, j, i = np.indices(tuple(shape_ijk[::-1]))
    distance = np.linalg.norm(apply(ras_from_ijk, np.stack([i, j, k], axis=-1)) - centre, axis=-1)
    return Image((distance <= radius).astype(np.uint8), ras_from_ijk, "residual"), centre


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.9, 1.6)])
def test_distance_to_a_ball_is_right_below_the_voxel(directions: np.ndarray, spacing: Any) -> None:
    label, centre = ball(directions, spacing)
    distance = ResidualDistance(label)
    rng = np.random.default_rng(3)
    errors, angles = [], []
    for _ in range(200):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        r = rng.uniform(0.5, 40)
        found = distance.at(centre + r * direction)
        errors.append(found.distance_mm - (r - RADIUS))
        if abs(r - RADIUS) > 3:
            toward = -direction if r > RADIUS else direction
            angles.append(np.rad2deg(np.arccos(np.clip(found.direction_ras @ toward, -1, 1))) * (r > RADIUS))
    voxel = max(spacing)
    assert np.abs(np.mean(errors)) < 0.12 * voxel
    assert np.percentile(np.abs(errors), 95) < 0.45 * voxel
    assert np.max(np.abs(errors)) < 0.8 * voxel
    assert np.median(angles) < 8.0


def test_a_flat_wall_is_exact() -> None:
    array = np.zeros((20, 20, 20), dtype=np.uint8)
    array[:, :, :10] = 1
    distance = SurfaceDistance(Image(array, np.diag([2.0, 2.0, 2.0, 1.0])), "cord")
    # The surface lies half a voxel beyond the centre of voxel i = 9, at R = 19 mm.
    found = distance.at((30.0, 20.0, 20.0))
    assert found.distance_mm == pytest.approx(11.0, abs=1e-6)
    assert found.direction_ras == pytest.approx((-1.0, 0.0, 0.0), abs=1e-6)
    assert found.words == "left"
    assert distance.at((15.0, 20.0, 20.0)).distance_mm == pytest.approx(-4.0, abs=1e-6)
    assert distance.at((19.0, 20.3, 20.1)).distance_mm == pytest.approx(0.0, abs=1e-6)
    assert distance.at((19.0, 20.3, 20.1)).words == "at the surface"


def test_direction_in_words_names_the_larger_part_first() -> None:
    label, centre = ball(np.eye(3))
    found = ResidualDistance(label).at(centre + 20 * np.array([0.5, 0.0, -0.866]))
    assert found.words == "superior, left"


def test_a_single_voxel_still_has_a_surface() -> None:
    array = np.zeros((9, 9, 9), dtype=np.uint8)
    array[4, 4, 4] = 1
    found = ResidualDistance(Image(array, np.eye(4))).at((4.0, 4.0, 14.0))
    assert found.distance_mm == pytest.approx(9.4, abs=0.4)


def test_a_label_at_the_edge_of_the_volume_is_closed() -> None:
    array = np.ones((6, 6, 6), dtype=np.uint8)
    distance = ResidualDistance(Image(array, np.eye(4)))
    assert distance.at((2.5, 2.5, 9.5)).distance_mm == pytest.approx(4.0, abs=0.1)
    assert distance.at((2.5, 2.5, 2.5)).distance_mm == pytest.approx(-3.0, abs=0.1)


def test_measurement_carries_interval_and_origin() -> None:
    label, centre = ball(np.eye(3))
    measured = ResidualDistance(label).measure(centre + np.array([20.0, 0, 0]), error_mm=1.2)
    assert measured.interval is not None
    assert measured.interval[1] - measured.interval[0] == pytest.approx(2 * 1.3)
    assert measured.based_on == (label.uid,)
    assert target_distance((0, 3, 4), (0, 0, 0)).value == pytest.approx(5.0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="is empty"):
        ResidualDistance(Image(np.zeros((4, 4, 4)), np.eye(4)))
    label, _ = ball(np.eye(3))
    with pytest.raises(DataError, match="finite coordinates"):
        ResidualDistance(label).at((0.0, np.nan, 0.0))
