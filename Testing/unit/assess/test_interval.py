"""The interval of a residual: what it is made of, and whether the truth lies in it where nothing was set on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchmarks.residual_scenes import SET_ON, UNSEEN, operations
from IntraopMRILib.assess.interval import BOUNDARY_VOXELS, EDGE_GOES_ON, interval_cm3, left_open, likely_cm3
from IntraopMRILib.assess.lesion import label_volume
from IntraopMRILib.assess.outline import Outline
from IntraopMRILib.assess.residual import assess_residual
from IntraopMRIReconstructionLib.data import Image

RADIUS = 8.0
FROM_MIDDLE = np.linalg.norm(np.indices((29, 29, 29)) - 14.0, axis=0)
NONE = np.zeros(FROM_MIDDLE.shape, dtype=bool)
EVERYWHERE = ~NONE
ONE_MM = np.ones(3)


def ball() -> Outline:
    """A solid residual of 8 mm on voxels of 1 mm."""
    inside = FROM_MIDDLE < RADIUS
    whole = inside.astype(np.float32)
    return Outline(
        inside, NONE, NONE, NONE, inside.astype(np.int32), 0 * whole, 0 * whole, whole, (float(inside.sum()),)
    )


def likely(found: Outline, sure: np.ndarray = EVERYWHERE) -> tuple[float, float]:
    return likely_cm3(found.volume_voxels / 1000, left_open(found, sure), 0.001, ONE_MM)


def interval(found: Outline, sure: np.ndarray = EVERYWHERE) -> tuple[float, float]:
    return interval_cm3(found.volume_voxels / 1000, left_open(found, sure), 0.001, ONE_MM)


def test_a_solid_ball_is_known_to_part_of_a_voxel() -> None:
    low, high = likely(ball())
    layer = 4 * np.pi * RADIUS**2 / 1000
    volume = ball().volume_voxels / 1000
    assert volume - low == pytest.approx(BOUNDARY_VOXELS * layer, rel=0.05)
    assert high - volume == pytest.approx(BOUNDARY_VOXELS * layer, rel=0.05)


def test_the_interval_allows_a_voxel_all_round() -> None:
    low, high = interval(ball())
    shells = [4 / 3 * np.pi * (RADIUS + deep) ** 3 / 1000 for deep in (-1.5, -1.0, 1.0, 1.5)]
    assert shells[0] < low < shells[1]
    assert shells[2] < high < shells[3]
    speck = replace(ball(), mask=FROM_MIDDLE < 0.5, pieces=(FROM_MIDDLE < 0.5).astype(np.int32), piece_voxels=(1.0,))
    assert interval(speck) == pytest.approx((0.0, 0.019))


def test_what_is_no_thicker_than_a_wall_may_be_none_of_it_and_what_goes_on_may_be_more() -> None:
    plain = likely(ball())
    whole = ball().mask.astype(np.float32)
    assert likely(replace(ball(), slender=whole))[0] == 0.0
    assert likely(replace(ball(), slender=whole))[1] == plain[1]
    around = (FROM_MIDDLE >= RADIUS) & (FROM_MIDDLE < RADIUS + 1)
    bright = np.ones(whole.shape, dtype=np.float32)
    sheet = replace(ball(), tapering=whole)
    assert likely(sheet)[1] - plain[1] == pytest.approx(EDGE_GOES_ON * ball().volume_voxels / 1000)
    for name in ("beyond", "doubtful"):
        more = likely(replace(ball(), share=bright, **{name: around}))
        assert more[0] == plain[0]
        assert more[1] - plain[1] >= 0.999 * around.sum() / 1000


@pytest.mark.parametrize(("lost", "dropped"), [(0.3, 0.3), (0.6, 0.6), (0.85, 1.0)])
def test_a_shift_takes_out_what_lies_outside_and_most_of_a_piece_with_all_of_it(lost: float, dropped: float) -> None:
    heights = np.sort(np.nonzero(ball().mask)[0])
    cut = heights[round(lost * len(heights))]
    sure = np.arange(29)[:, None, None] + 0 * FROM_MIDDLE >= cut
    volume = ball().volume_voxels / 1000
    low = likely(ball(), sure)[0]
    assert low == pytest.approx(max(0.0, likely(ball())[0] - dropped * volume), abs=0.1 * volume)


def test_doubtful_pieces_bound_what_was_not_found() -> None:
    nothing = replace(ball(), mask=NONE, pieces=NONE.astype(np.int32), piece_voxels=())
    unseen = 4 / 3 * np.pi * 2.0**3 / 1000
    assert interval(nothing) == pytest.approx((0.0, unseen))
    doubtful = replace(nothing, doubtful=ball().mask)
    low, high = interval(doubtful)
    assert low == 0.0
    assert high > ball().volume_voxels / 1000
    assert high == pytest.approx(likely(doubtful)[1] + unseen), "a nodule may lie beside what is in doubt"


@pytest.mark.parametrize("seed", [100, 103, 105])
def test_a_wall_that_enhances_is_never_residual_for_sure(operation: Any, seed: int) -> None:
    """All tumour is out, and coarse voxels make the wall look thick: a least residual would be told for sure."""
    case = operation(seed, np.eye(3), residual=False, spacing=(1.25, 1.25, 1.25))
    found = assess_residual(case.contrast, case.native, case.tumour, case.intraop_from_preop, 1.0, 3.0)
    assert found.interval_cm3[0] == 0.0
    assert found.rano.best == "1 or 2A"


@pytest.mark.slow
def test_truth_lies_in_the_interval_of_operations_it_was_not_set_on() -> None:
    assert not set(SET_ON) & set(UNSEEN)
    held, likely_held, widths = [], [], []
    for seed in UNSEEN[:6]:
        for case in operations(seed):
            found = assess_residual(case.contrast, case.native, case.tumour, case.intraop_from_preop, case.error_mm)
            low, high = found.interval_cm3
            held.append(low <= case.residual_cm3 <= high)
            if found.volume_cm3:
                low, high = found.likely_cm3
                likely_held.append(low <= case.residual_cm3 <= high)
                widths.append((high - low) / found.volume_cm3)
    assert all(held)
    assert sum(likely_held) >= len(likely_held) - 1
    # By a voxel either way it is three times the volume.
    assert np.median(widths) < 1.5


def test_a_thick_slice_is_open_by_its_thickness_and_its_plane_by_its_voxels() -> None:
    """On 5 mm slices a residual of 1.2 cm3 was told to be up to 18 cm3: 5 mm in each direction."""
    array = np.zeros((9, 30, 30), np.uint8)
    array[3:6, 10:20, 10:20] = 1
    found = label_volume(Image(array, np.diag([1.0, 1.0, 5.0, 1.0])), "outline")
    assert found.value == pytest.approx(1.5)
    assert found.interval is not None
    low, high = found.interval
    # A voxel less and more on each side; corners of the larger box are farther than a voxel.
    assert low == pytest.approx(8 * 8 * 5 / 1000.0)
    assert 12 * 12 * 25 / 1000.0 * 0.9 < high <= 12 * 12 * 25 / 1000.0
