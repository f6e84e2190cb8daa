"""A low-grade tumour and its T2 and FLAIR: what is left is bright, fluid is dark on FLAIR and bright on T2."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.simulate.flair import FLAIR, T2, Wall, intraop_scan, preop_scan
from IntraopMRIReconstructionLib.simulate.lesion import NON_ENHANCING
from IntraopMRIReconstructionLib.simulate.phantom import BrainCase, make_brain_case
from scipy import ndimage


@pytest.fixture(scope="module")
def case() -> BrainCase:
    return make_brain_case(4, low_grade_left=0.5, spacing_mm=3.0, tumour_ml=24.0)


def inside(scan: Image, mask: Image) -> float:
    deep = ndimage.binary_erosion(mask.array)
    return float(np.median(scan.array[deep]))


def test_the_asked_part_of_a_tumour_that_does_not_enhance_is_left(case: BrainCase) -> None:
    assert np.unique(case.tumour.array).tolist() == [0, NON_ENHANCING]
    before = np.count_nonzero(case.tumour.array) * case.tumour.voxel_volume_ml
    left = case.resection.residual_non_enhancing
    assert before == pytest.approx(24.0, rel=0.02)
    assert np.count_nonzero(left) * case.tumour.voxel_volume_ml == pytest.approx(0.5 * before, rel=0.01)
    assert not (left & case.resection.cavity).any()
    # The brain shift changes volumes, and moves what is left.
    assert case.truth.residual_non_enhancing.array.any()
    assert not case.truth.residual.array.any()


def test_fluid_and_tumour_look_as_the_sequence_shows_them(case: BrainCase) -> None:
    truth = case.truth
    flair, t2 = (intraop_scan(case, sequence, Wall(0.0, 0.0)) for sequence in (FLAIR, T2))
    brain = truth.brain.with_array(truth.brain.array & ~truth.residual_non_enhancing.array)
    assert inside(flair, truth.residual_non_enhancing) > 1.3 * inside(flair, brain)
    assert inside(flair, truth.cavity) < 0.4 * inside(flair, brain)
    assert inside(t2, truth.residual_non_enhancing) > 1.3 * inside(t2, brain)
    assert inside(t2, truth.cavity) > inside(t2, truth.residual_non_enhancing)
    assert inside(preop_scan(case, T2), case.tumour.with_array(case.tumour.array > 0)) > 1.5 * T2.white


def test_surgery_makes_the_wall_bright(case: BrainCase) -> None:
    rim = ndimage.binary_dilation(case.truth.cavity.array) & case.truth.brain.array
    rim &= ~ndimage.binary_dilation(case.truth.residual_non_enhancing.array)
    without, swollen = (intraop_scan(case, FLAIR, Wall(mm, 0.0)).array[rim] for mm in (0.0, 5.0))
    assert np.median(swollen) > 1.1 * np.median(without)
