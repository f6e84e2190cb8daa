"""Brain cases: what the truth says is what the pictures show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import apply, invert, rotation_angle_deg
from IntraopMRIReconstructionLib.simulate.anatomy import Anatomy
from IntraopMRIReconstructionLib.simulate.exposure import IN_THEATRE
from IntraopMRIReconstructionLib.simulate.fields import Shift, jacobian_determinant
from IntraopMRIReconstructionLib.simulate.grids import index_coordinates, resampled, sampled
from IntraopMRIReconstructionLib.simulate.lesion import ENHANCING, NECROSIS, NON_ENHANCING, Filling
from IntraopMRIReconstructionLib.simulate.phantom import CONTRAST, NATIVE, BrainCase, Difficulty, make_brain_case
from scipy import ndimage

#: No shift, blood, bias or other contrast: what remains is the pose alone.
STILL = Difficulty(Shift(0.0, 0.0, 0.0, 0.0), 8.0, 10.0, 0.0, 0.0, 0.0, blood=False, wall=False)


def voxels(mask: Image) -> np.ndarray:
    return apply(mask.ras_from_ijk, np.argwhere(mask.array)[:, ::-1])


def preop_seen_during_surgery(case: BrainCase) -> np.ndarray:
    """The preoperative image carried to the scan by the whole truth."""
    truth = case.truth
    grid = case.intraop[NATIVE]
    k, j, i = np.indices(grid.array.shape)
    points = apply(grid.ras_from_ijk, np.stack([i, j, k], axis=-1).reshape(-1, 3))
    at = index_coordinates(case.preop.ras_from_ijk, truth.preop_from_intraop(points))
    return sampled(case.preop.array, at).reshape(grid.array.shape)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def test_tumour_is_in_white_matter_and_of_the_wanted_size(small_head: Anatomy) -> None:
    case = make_brain_case(11, small_head, STILL, tumour_ml=24.0, spacing_mm=3.0)
    label = case.tumour.array
    assert np.isin(label, (ENHANCING, NECROSIS)).sum() == 24_000
    assert abs(case.grown.centre_ras_mm[0] - small_head.centre_ras_mm[0]) > 15
    assert small_head.brain[label > 0].all()
    for value in (ENHANCING, NECROSIS, NON_ENHANCING):
        assert (label == value).sum() > 1000
    # The necrotic core nowhere touches healthy tissue: the rim lies between.
    core = np.argwhere(label == NECROSIS)
    for step in np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)]):
        assert np.isin(label[tuple((core + step).T)], (ENHANCING, NECROSIS)).all()


def test_truth_volumes_are_sums_over_the_masks(hard_case: BrainCase) -> None:
    truth = hard_case.truth
    assert truth.residual_ml == pytest.approx(truth.residual.array.sum() / 1000, rel=1e-9)
    assert 0.5 < truth.residual_ml < 2.0
    assert not (truth.residual.array & truth.cavity.array).any()
    assert not (truth.brain.array & truth.cavity.array).any()


@pytest.mark.parametrize("wanted_ml", [0.6, 1.9])
def test_residual_is_as_large_as_asked_after_the_shift(small_head: Anatomy, wanted_ml: float) -> None:
    case = make_brain_case(5, small_head, "hard", residual_ml=wanted_ml, spacing_mm=1.5)
    assert case.truth.residual_ml == pytest.approx(wanted_ml, rel=0.06)


def test_residual_is_a_part_of_the_rim_at_the_cavity(hard_case: BrainCase) -> None:
    resection = hard_case.resection
    assert (hard_case.grown.label[resection.residual] == ENHANCING).all()
    around = np.zeros_like(resection.residual)
    for axis in range(3):
        for step in (-1, 1):
            around |= np.roll(resection.residual, step, axis)
    assert (around & resection.cavity).sum() > 50


def test_only_the_residual_enhances_and_blood_is_bright_in_both(hard_case: BrainCase) -> None:
    native, contrast = hard_case.intraop[NATIVE].array, hard_case.intraop[CONTRAST].array
    gain = contrast - native
    truth = hard_case.truth
    assert np.median(gain[truth.residual.array]) > 250
    assert np.median(np.abs(gain[truth.brain.array & ~truth.residual.array])) < 5
    blood = (native > 950) & truth.brain.array
    assert blood.sum() > 200
    assert np.median(gain[blood]) < 50


@pytest.fixture(scope="module")
def still(small_head: Anatomy) -> BrainCase:
    return make_brain_case(7, small_head, STILL, spacing_mm=2.0)


def test_clot_lies_at_the_bottom_of_the_cavity_and_saline_above(small_head: Anatomy, still: BrainCase) -> None:
    case = make_brain_case(7, small_head, replace(STILL, filling=Filling(0.5, 900.0, 0.05)), spacing_mm=2.0)
    np.testing.assert_array_equal(case.truth.cavity.array, still.truth.cavity.array)
    inside = ndimage.binary_erosion(case.truth.cavity.array)
    native, contrast = (case.intraop[name].array[inside] for name in (NATIVE, CONTRAST))
    packed = native > 600
    assert packed.mean() == pytest.approx(0.5, abs=0.06)
    assert np.median(native[packed]) == pytest.approx(900.0, rel=0.03)
    assert np.median(contrast[packed] - native[packed]) < 1.0
    height, _ = case.grown.opening.along_and_aside(
        apply(
            invert(case.truth.intraop_from_preop), apply(case.truth.cavity.ras_from_ijk, np.argwhere(inside)[:, ::-1])
        )
    )
    assert np.quantile(height[packed], 0.98) < np.quantile(height[~packed], 0.02) + 2.0


def test_a_brain_that_sinks_leaves_air_under_the_dura_and_fluid_below(small_head: Anatomy, still: BrainCase) -> None:
    up = np.array([0.0, 1.0, 0.0])
    sunk = replace(STILL, shift=replace(STILL.shift, sag_mm=9.0, up=(0.0, 1.0, 0.0)))
    case = make_brain_case(7, small_head, sunk, spacing_mm=2.0)
    truth = case.truth
    brain, was_brain = (each.truth.brain.array | each.truth.cavity.array for each in (case, still))
    gap = ndimage.binary_erosion(was_brain & ~ndimage.binary_dilation(brain))
    places = apply(invert(truth.intraop_from_preop), apply(truth.brain.ras_from_ijk, np.argwhere(gap)[:, ::-1]))
    opening = case.grown.opening
    closed = opening.along_and_aside(places)[1] > opening.radius_mm + 3.0
    heights, values = (places @ up)[closed], case.intraop[NATIVE].array[gap][closed]
    assert heights.max() - heights[values < 50].min() == pytest.approx(1.5 * 9.0, abs=5.0)
    assert (values < 50).sum() * truth.brain.voxel_volume_ml > 5.0
    assert heights[values > 100].max() < heights[values < 50].min() + 3.0
    points = voxels(truth.brain)
    before = truth.preop_from_intraop(points)
    sinking = np.linalg.norm(apply(truth.intraop_from_preop, before) - points, axis=-1)
    assert sinking.max() == pytest.approx(9.0, abs=1.0)
    assert np.median(sinking[before @ up < (before @ up).max() - 90.0]) < 0.1


def test_an_opened_skull_is_dressed_as_in_theatre(small_head: Anatomy, still: BrainCase) -> None:
    """Dura about the opening enhances, scalp lies folded beside it, pins leave voids; the brain stays as it was."""
    bare, dressed = still, make_brain_case(7, small_head, replace(STILL, exposure=IN_THEATRE), spacing_mm=2.0)
    np.testing.assert_array_equal(bare.truth.brain.array, dressed.truth.brain.array)
    deep = ndimage.binary_erosion(bare.truth.brain.array, iterations=3)
    native = [each.intraop[NATIVE].array for each in (bare, dressed)]
    np.testing.assert_allclose(native[1][deep], native[0][deep], atol=1e-3)
    more = (native[1] - native[0]) * ~ndimage.binary_dilation(deep, iterations=5)
    voxel_ml = bare.truth.brain.voxel_volume_ml
    assert (more > 200).sum() * voxel_ml > 8.0, "flap"
    assert ((more < -200) & (native[1] < 20)).sum() * voxel_ml > 0.3, "pins"
    gain = [each.intraop[CONTRAST].array - each.intraop[NATIVE].array for each in (bare, dressed)]
    dura = (gain[1] - gain[0] > 200) & ~bare.truth.brain.array
    assert 2.0 < dura.sum() * voxel_ml < 40.0


def test_fields_are_inverse_and_do_not_fold(hard_case: BrainCase) -> None:
    truth = hard_case.truth
    points = voxels(truth.brain)[::53]
    before = truth.preop_from_intraop(points)
    assert np.linalg.norm(truth.intraop_from_preop_points(before) - points, axis=-1).max() < 0.1
    for field in (truth.pull, truth.push):
        assert jacobian_determinant(field.array, field.ras_from_ijk).min() > 0
    assert 7.0 < np.linalg.norm(truth.pull_on(truth.brain)[truth.brain.array], axis=-1).max() < 14.0


def test_truth_explains_the_picture(small_head: Anatomy, directions: np.ndarray) -> None:
    case = make_brain_case(4, small_head, "standard", spacing_mm=2.0, directions=directions)
    truth = case.truth
    assert case.intraop[NATIVE].ras_from_ijk[:3, :3] == pytest.approx(directions * 2.0)
    healthy = truth.brain.array & ~truth.residual_non_enhancing.array & ~truth.residual.array
    shifted = healthy & (np.linalg.norm(truth.pull_on(truth.brain), axis=-1) > 2.0)
    scan = case.intraop[NATIVE].array
    whole = preop_seen_during_surgery(case)
    rigid = resampled(
        case.preop.array,
        case.preop.ras_from_ijk,
        truth.brain.ras_from_ijk,
        scan.shape,
        invert(truth.intraop_from_preop),
    )
    assert correlation(scan[shifted], whole[shifted]) > 0.9
    assert correlation(scan[shifted], whole[shifted]) > correlation(scan[shifted], rigid[shifted]) + 0.1


def test_pose_alone_moves_the_picture_rigidly(small_head: Anatomy) -> None:
    case = make_brain_case(2, small_head, STILL, spacing_mm=2.0)
    pose = case.truth.intraop_from_preop
    assert 4.0 < rotation_angle_deg(pose) <= 8.0
    inside = case.truth.brain.array & ~case.truth.residual.array
    assert np.abs(case.truth.pull.array).max() == 0
    difference = (case.intraop[NATIVE].array - preop_seen_during_surgery(case))[inside]
    assert np.median(np.abs(difference)) < 20


def test_same_arguments_same_case(small_head: Anatomy, hard_case: BrainCase) -> None:
    first, again = (make_brain_case(7, small_head, "hard", spacing_mm=4.0) for _ in range(2))
    assert np.array_equal(again.noisy(CONTRAST).array, first.noisy(CONTRAST).array)
    assert np.array_equal(again.preop.array, hard_case.preop.array)
    assert np.array_equal(again.truth.intraop_from_preop, hard_case.truth.intraop_from_preop)


def test_further_resection_leaves_a_part_of_the_residual(small_head: Anatomy, hard_case: BrainCase) -> None:
    later = make_brain_case(7, small_head, "hard", residual_ml=0.3, stage=2, spacing_mm=1.5)
    assert later.truth.residual_ml == pytest.approx(0.3, rel=0.15)
    assert not (later.resection.residual & ~hard_case.resection.residual).any()
    assert np.array_equal(later.tumour.array, hard_case.tumour.array)
    assert not np.array_equal(later.truth.intraop_from_preop, hard_case.truth.intraop_from_preop)


def test_complete_resection_leaves_nothing(small_head: Anatomy) -> None:
    case = make_brain_case(7, small_head, "easy", residual_ml=0.0, spacing_mm=2.0)
    assert case.truth.residual_ml == 0.0


def test_noise_is_rician_of_the_wanted_size(hard_case: BrainCase) -> None:
    noisy = hard_case.noisy(NATIVE, 0.05).array
    clean = hard_case.intraop[NATIVE].array
    bright = clean > 600
    assert (noisy - clean)[bright].std() == pytest.approx(0.05 * 800, rel=0.03)
    air = clean < 1
    assert noisy[air].mean() == pytest.approx(0.05 * 800 * np.sqrt(np.pi / 2), rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"difficulty": "impossible"}, "no difficulty is named 'impossible'; choose one of easy"),
        ({"residual_ml": 30.0}, "residual_ml must be 0 to half the rim"),
        ({"residual_ml": -1.0}, "residual_ml must be 0 to half the rim"),
        ({"tumour_ml": -3.0}, "tumour_ml must be positive, got -3"),
        ({"tumour_ml": 5000.0}, "does not fit; choose less than"),
        ({"difficulty": Difficulty(Shift(80.0))}, "would fold the brain"),
    ],
)
def test_impossible_cases_are_refused(small_head: Anatomy, arguments: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        make_brain_case(1, small_head, spacing_mm=4.0, **{"difficulty": "easy", **arguments})
