from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRILib.assess.carry import carried_points
from IntraopMRILib.assess.residual import assess_residual
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import AssessmentError, Cancelled
from IntraopMRIReconstructionLib.geometry import apply, invert, rotation_about


def test_volume_place_and_extent_in_every_orientation(directions: np.ndarray, operation: Any) -> None:
    case = operation(4, directions)
    found = assess_residual(case.contrast, case.native, case.tumour, case.intraop_from_preop, 1.0, 3.0)
    assert found.volume_cm3 == pytest.approx(case.residual_cm3, rel=0.15)
    assert found.interval_cm3[0] < case.residual_cm3 < found.interval_cm3[1]
    place = found.residual_centroid_ras_mm
    assert place is not None
    # The centre of a crescent of 8 mm lies at its edge or in the cavity; views go to the inside of the crescent.
    assert np.linalg.norm(place - case.residual_centroid_ras_mm) < 4.0
    assert case.truth[tuple(np.rint(apply(invert(case.contrast.ras_from_ijk), place)).astype(int)[::-1])]
    eor = next(m for m in found.measurements if m.name == "Extent of resection")
    assert eor.value == pytest.approx(100 * (1 - case.residual_cm3 / case.preop_cm3), abs=4)
    assert eor.value is not None
    assert eor.interval is not None
    assert eor.interval[0] <= eor.value <= eor.interval[1]
    assert found.rano.value == "3A"
    overlap = 2 * (case.truth & (found.residual.array > 0)).sum() / (case.truth.sum() + found.residual.array.sum())
    assert overlap > 0.85
    assert not (found.residual.array & found.resected.array).any()
    assert case.contrast.uid in found.measurements[0].based_on


def test_a_function_does_what_its_matrix_does(operation: Any) -> None:
    case = operation(2, np.eye(3))
    by_matrix = assess_residual(case.contrast, case.native, case.tumour, case.intraop_from_preop, 1.0, 3.0)
    by_function = assess_residual(
        case.contrast, case.native, case.tumour, lambda points: apply(case.intraop_from_preop, points), 1.0, 3.0
    )
    assert np.array_equal(by_matrix.residual.array, by_function.residual.array)


def test_complete_resection_with_vessel_dura_blood_and_thin_wall_gives_zero(operation: Any) -> None:
    case = operation(5, np.eye(3), residual=False)
    found = assess_residual(case.contrast, case.native, case.tumour, case.intraop_from_preop, 1.0, 3.0)
    assert found.volume_cm3 == 0.0
    assert found.residual_centroid_ras_mm is None
    assert found.rano.value == "1 or 2A"
    # Nothing found is not proof of nothing: a small nodule stays possible.
    assert found.interval_cm3[1] > 0.03


def test_a_faint_solid_patch_is_not_counted_but_told(operation: Any) -> None:
    cases = [operation(4, np.eye(3), faint=faint) for faint in (False, True)]
    plain, faint = (assess_residual(c.contrast, c.native, c.tumour, c.intraop_from_preop, 1.0, 6.0) for c in cases)
    assert faint.volume_cm3 == pytest.approx(plain.volume_cm3, rel=0.05)
    told = [float(found.measurements[2].value or 0.0) for found in (plain, faint)]
    assert told[1] > told[0] + 0.1


def test_the_tumour_is_carried_to_where_the_transform_says(directions: np.ndarray) -> None:
    preop = Image(np.zeros((9, 9, 9), dtype=np.uint8), np.diag([2.0, 2.0, 3.0, 1.0]))
    preop.array[4, 3, 5] = 1
    grid = np.eye(4)
    grid[:3, :3] = directions * 0.8
    grid[:3, 3] = (-30, 10, 5)
    intraop = Image(np.zeros((20, 20, 20)), grid)
    move = np.eye(4)
    move[:3, :3] = rotation_about((1, 2, 3), 40.0)
    move[:3, 3] = (4, 5, 6)
    points = carried_points(preop.array > 0, preop, intraop, move)
    expected = apply(move, (10.0, 6.0, 12.0))
    assert apply(grid, points.mean(axis=0)) == pytest.approx(expected)
    # The points fill the voxel: its second moments are those of a box of 2 x 2 x 3 mm.
    back = apply(invert(move), apply(grid, points))
    assert back.std(axis=0) == pytest.approx(np.array([2.0, 2.0, 3.0]) / np.sqrt(12), rel=0.05)


def test_anisotropic_voxels_and_other_gain(operation: Any) -> None:
    case = operation(0, np.eye(3), spacing=(0.9, 0.9, 1.5), gain=4.0)
    found = assess_residual(case.contrast, case.native, case.tumour, case.intraop_from_preop, 1.0, 3.0)
    assert found.volume_cm3 == pytest.approx(case.residual_cm3, rel=0.2)


def test_a_native_scan_on_another_grid_is_resampled(operation: Any) -> None:
    case = operation(4, np.eye(3))
    flipped = case.native.array[:, :, ::-1].copy()
    size = flipped.shape[2]
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = size - 1
    native = Image(flipped, case.native.ras_from_ijk @ flip)
    same = assess_residual(case.contrast, case.native, case.tumour, case.intraop_from_preop, 1.0, 3.0)
    other = assess_residual(case.contrast, native, case.tumour, case.intraop_from_preop, 1.0, 3.0)
    assert other.volume_cm3 == pytest.approx(same.volume_cm3, rel=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tumour": "empty"}, "segmentation is empty"),
        ({"tumour": "core only"}, "no enhancing part"),
        ({"registration_error_mm": float("nan")}, "registration_error_mm"),
        ({"registration_error_mm": -1.0}, "registration_error_mm"),
        ({"intraop_from_preop": "far"}, "outside the intraoperative scan"),
        ({"contrast": "nan"}, "not finite"),
        ({"contrast": "4d"}, "one volume"),
        ({"intraop_from_preop": "broken"}, "register again"),
    ],
)
def test_bad_input_says_what_to_do(operation: Any, change: Any, message: Any) -> None:
    case = operation(4, np.eye(3))
    far = np.eye(4)
    far[:3, 3] = 500.0
    nan = case.contrast.array.copy()
    nan[3, 3, 3] = np.nan
    choices = {
        "empty": case.tumour.with_array(case.tumour.array * 0),
        "core only": case.tumour.with_array(np.where(case.tumour.array == 1, 0, case.tumour.array)),
        "far": far,
        "nan": case.contrast.with_array(nan),
        "4d": case.contrast.with_array(case.contrast.array[..., None]),
        "broken": lambda points: points[:-1],
    }
    arguments = {
        "contrast": case.contrast,
        "native": case.native,
        "tumour": case.tumour,
        "intraop_from_preop": case.intraop_from_preop,
        "registration_error_mm": 1.0,
    } | {key: choices[value] if isinstance(value, str) else value for key, value in change.items()}
    with pytest.raises(AssessmentError, match=message):
        assess_residual(**arguments)


def test_stopping(operation: Any) -> None:
    case = operation(4, np.eye(3))
    with pytest.raises(Cancelled):
        assess_residual(
            case.contrast,
            case.native,
            case.tumour,
            case.intraop_from_preop,
            1.0,
            progress=lambda fraction, what: fraction < 0.5,
        )


@pytest.mark.parametrize("noise", [0.03, 0.08])
def test_scans_that_are_exchanged_or_without_agent_give_no_number(operation: Any, noise: float) -> None:
    """Both would say '0 cm3' over two cm3 of tumour: nothing enhances where nothing was given."""
    case = operation(5, np.eye(3), noise=noise)
    assess_residual(case.contrast, case.native, case.tumour, case.intraop_from_preop, 1.0, 3.0)
    with pytest.raises(AssessmentError, match="exchanged"):
        assess_residual(case.native, case.contrast, case.tumour, case.intraop_from_preop, 1.0, 3.0)
    rng = np.random.default_rng(2)
    again = np.abs(case.native.array + rng.normal(0, 90 * noise, case.native.array.shape)).astype(np.float32)
    without = case.native.with_array(1.2 * again)
    with pytest.raises(AssessmentError, match="agent was given"):
        assess_residual(without, case.native, case.tumour, case.intraop_from_preop, 1.0, 3.0)
