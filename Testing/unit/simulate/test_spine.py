"""Spine cases: the screw is where the truth says, and its deviations are those of the definitions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import apply, invert
from IntraopMRIReconstructionLib.simulate.grids import index_coordinates, resampled, sampled
from IntraopMRIReconstructionLib.simulate.spine import (
    INSTRUMENTED,
    LEVELS_MM,
    SPINE,
    Implant,
    SpineCase,
    deviations,
    make_spine_case,
)
from scipy.spatial.transform import Rotation


def test_deviations_by_hand() -> None:
    plan = Implant(np.zeros(3), np.array([0.0, 40.0, 0.0]), 6.0)
    shifted = Implant(np.array([3.0, 1.0, 4.0]), np.array([3.0, 42.0, 4.0]), 6.0)
    found = deviations(plan, shifted)
    assert found["entry_mm"] == pytest.approx(5.0)
    assert found["radial_mm"] == pytest.approx(5.0)
    assert found["tip_mm"] == pytest.approx(np.sqrt(29.0))
    assert found["depth_mm"] == pytest.approx(2.0)
    assert found["angle_deg"] == pytest.approx(0.0, abs=1e-6)
    tilted = Implant(np.zeros(3), np.array([0.0, 40 * np.cos(0.1), 40 * np.sin(0.1)]), 6.0)
    found = deviations(plan, tilted)
    assert found["angle_deg"] == pytest.approx(np.degrees(0.1))
    assert found["radial_mm"] == pytest.approx(40 * np.sin(0.1))
    assert found["entry_mm"] == pytest.approx(0.0, abs=1e-9)


def test_the_void_is_where_the_truth_says(directions: np.ndarray) -> None:
    case = make_spine_case(6, directions=directions, spacing_mm=1.5)
    image, screw = case.intraop[SPINE], case.truth.actual
    along = np.linspace(2.0, np.linalg.norm(screw.tip_ras_mm - screw.entry_ras_mm) - 2.0, 30)
    axis = screw.entry_ras_mm + along[:, None] * screw.axis
    across = np.cross(screw.axis, (0.0, 0.0, 1.0))
    across /= np.linalg.norm(across)
    assert sampled(image.array, index_coordinates(image.ras_from_ijk, axis)).max() < 60
    for side in (-1, 1):
        beside = axis + side * (screw.diameter_mm / 2 + 4.0) * across
        assert np.median(sampled(image.array, index_coordinates(image.ras_from_ijk, beside))) > 150


def test_without_the_screw_the_pose_explains_the_scan(spine_case: SpineCase) -> None:
    image = spine_case.intraop[SPINE]
    pose = spine_case.truth.intraop_from_preop
    seen = resampled(
        spine_case.preop.array, spine_case.preop.ras_from_ijk, image.ras_from_ijk, image.array.shape, invert(pose)
    )
    inside = seen > 100
    assert np.corrcoef(seen[inside], image.array[inside])[0, 1] > 0.85


def test_wanted_deviations_come_out() -> None:
    case = make_spine_case(9, offset_mm=2.5, angle_deg=4.0, spacing_mm=4.0)
    assert case.truth.deviations["angle_deg"] == pytest.approx(4.0, abs=1e-6)
    assert case.truth.deviations["entry_mm"] == pytest.approx(2.5, abs=0.02)
    placed = case.truth.actual.moved(invert(case.truth.intraop_from_preop))
    assert deviations(case.plan, placed) == pytest.approx(dict(case.truth.deviations), abs=1e-6)


def test_the_plan_runs_through_bone(spine_case: SpineCase) -> None:
    plan, image = spine_case.plan, spine_case.preop
    points = plan.entry_ras_mm + np.linspace(0.15, 0.95, 20)[:, None] * (plan.tip_ras_mm - plan.entry_ras_mm)
    values = sampled(image.array, index_coordinates(image.ras_from_ijk, points))
    assert (values > 450).all()
    assert (values < 800).all()


def test_noise_leaves_the_clean_image_alone(spine_case: SpineCase) -> None:
    noisy = spine_case.noisy()
    assert noisy.uid != spine_case.intraop[SPINE].uid
    assert (noisy.array - spine_case.intraop[SPINE].array).std() > 5


def test_negative_deviation_is_refused() -> None:
    with pytest.raises(DataError, match="must not be negative, got -1"):
        make_spine_case(1, offset_mm=-1.0)


def test_a_moved_screw_keeps_its_shape(spine_case: SpineCase) -> None:
    pose = spine_case.truth.intraop_from_preop
    moved = spine_case.plan.moved(pose)
    assert moved.tip_ras_mm == pytest.approx(apply(pose, spine_case.plan.tip_ras_mm))
    assert deviations(moved, moved)["tip_mm"] == 0


def test_each_vertebra_moves_on_its_own(directions: np.ndarray) -> None:
    """The picture of each bone is that of the preoperative one, moved by its own true pose."""
    case = make_spine_case(4, spacing_mm=2.0, directions=directions, bend_deg=6.0, slide_mm=2.0)
    image, poses = case.intraop[SPINE], case.truth.vertebrae
    assert list(poses) == list(LEVELS_MM)
    for number, name in enumerate(poses, start=1):
        voxels = np.argwhere(case.vertebrae.array == number)[::7, ::-1]
        bone = apply(case.vertebrae.ras_from_ijk, voxels)
        before = sampled(case.preop.array, index_coordinates(case.preop.ras_from_ijk, bone))

        def seen(pose: np.ndarray, bone: np.ndarray = bone) -> np.ndarray:
            return sampled(image.array, index_coordinates(image.ras_from_ijk, apply(pose, bone)))

        own = np.corrcoef(before, seen(poses[name]))[0, 1]
        others = [np.corrcoef(before, seen(pose))[0, 1] for other, pose in poses.items() if other != name]
        # The metal takes a part of its vertebra away.
        assert own > (0.6 if name == INSTRUMENTED else 0.75)
        assert own > max(others)


def test_given_poses_are_used_and_the_screw_goes_with_its_vertebra() -> None:
    lifted = np.eye(4)
    lifted[:3, 3] = (0.0, 5.0, 0.0)
    still = make_spine_case(5, spacing_mm=3.0)
    case = make_spine_case(5, spacing_mm=3.0, own_poses={INSTRUMENTED: lifted})
    whole = still.truth.intraop_from_preop
    assert case.truth.vertebrae["L1"] == pytest.approx(whole)
    assert case.truth.intraop_from_preop == pytest.approx(whole @ lifted)
    assert case.truth.actual.tip_ras_mm == pytest.approx(
        apply(whole @ lifted @ invert(whole), still.truth.actual.tip_ras_mm)
    )
    assert case.truth.deviations == pytest.approx(dict(still.truth.deviations))


def test_the_plan_lies_in_the_pedicle(spine_case: SpineCase) -> None:
    plan, pedicle = spine_case.plan, spine_case.pedicle
    along = plan.entry_ras_mm + np.linspace(0.1, 0.6, 20)[:, None] * (plan.tip_ras_mm - plan.entry_ras_mm)
    assert sampled(pedicle.array, index_coordinates(pedicle.ras_from_ijk, along)).min() == 1
    assert set(np.unique(spine_case.vertebrae.array)) == set(range(len(LEVELS_MM) + 1))
    name = list(LEVELS_MM).index(INSTRUMENTED) + 1
    assert (spine_case.vertebrae.array[spine_case.pedicle.array > 0] == name).all()


@pytest.mark.parametrize("step_deg", [10.0, -6.0])
def test_a_curve_turns_each_vertebra_against_its_neighbour_about_their_disc(step_deg: float) -> None:
    case = make_spine_case(4, curve_deg=step_deg, spacing_mm=4.0)
    names = list(LEVELS_MM)
    for upper, lower in pairwise(names):
        between = invert(case.truth.vertebrae[lower]) @ case.truth.vertebrae[upper]
        assert Rotation.from_matrix(between[:3, :3]).as_rotvec(degrees=True) == pytest.approx([-step_deg, 0, 0])
        height = (LEVELS_MM[upper] + LEVELS_MM[lower]) / 2
        disc = np.array([0.0, 6.0 - 9.0 * (height / 80.0) ** 2, height])
        assert apply(between, disc) == pytest.approx(disc)
    assert case.truth.vertebrae[INSTRUMENTED] == pytest.approx(case.truth.intraop_from_preop)
