from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRILib.assess.implant import Spread, Trajectory, band, compare
from IntraopMRILib.assess.implant_detection import find_implant
from IntraopMRILib.assess.pedicle import pedicle_breach
from IntraopMRIReconstructionLib.data import Image, Level
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply, rotation_about


def line(entry: Any, tip: Any, diameter: Any, name: Any = "implant") -> Any:
    return Trajectory(np.array(entry, dtype=float), np.array(tip, dtype=float), diameter, name)


def values(measurements: Any) -> Any:
    return {m.name.split(": ", 1)[1]: m for m in measurements}


def test_parallel_shift_and_depth() -> None:
    planned = line((0, 0, 0), (0, 40, 0), 5.0, "L4 left")
    actual = line((1.2, 0, 0.9), (1.2, 43, 0.9), 5.0)
    found = values(compare(planned, actual))
    assert found["entry deviation"].value == pytest.approx(1.5)
    assert found["radial deviation"].value == pytest.approx(1.5)
    assert found["tip deviation"].value == pytest.approx(np.hypot(1.5, 3.0))
    assert found["depth deviation"].value == pytest.approx(3.0)
    assert found["angular deviation"].value == pytest.approx(0.0, abs=1e-9)


def test_depth_is_measured_along_the_plan_and_radial_across_the_actual_axis() -> None:
    planned = line((0, 0, 0), (0, 40, 0), 5.0)
    actual = line((0, 0, 0), rotation_about((0, 0, 1), 30.0) @ (0, 50, 0), 5.0)
    found = values(compare(planned, actual))
    assert found["depth deviation"].value == pytest.approx(50 * np.cos(np.pi / 6) - 40)
    assert found["radial deviation"].value == pytest.approx(40 * np.sin(np.pi / 6))
    assert found["entry deviation"].value == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("angle", [1e-4, 0.3, 7.0, 60.0])
def test_angle_and_its_parts(angle: Any) -> None:
    planned = line((0, 0, 0), (0, 40, 0), 5.0)
    axial = line((0, 0, 0), rotation_about((0, 0, 1), angle) @ (0, 40, 0), 5.0)
    found = values(compare(planned, axial))
    assert found["angular deviation"].value == pytest.approx(angle, rel=1e-6)
    assert found["angular deviation, axial part"].value == pytest.approx(angle, rel=1e-6)
    assert found["angular deviation, sagittal part"].value == pytest.approx(0.0, abs=1e-9)
    sagittal = line((0, 0, 0), rotation_about((1, 0, 0), -angle) @ (0, 40, 0), 5.0)
    found = values(compare(planned, sagittal))
    assert found["angular deviation, sagittal part"].value == pytest.approx(-angle, rel=1e-6)
    assert found["angular deviation, axial part"].value == pytest.approx(0.0, abs=1e-9)


def test_a_vertical_axis_has_no_axial_part_and_says_so() -> None:
    planned = line((0, 0, 0), (0, 1, -60), 1.3)
    axial = values(compare(planned, planned))["angular deviation, axial part"]
    assert axial.value is None
    assert "right angles" in axial.missing_because


def test_moving_both_changes_nothing() -> None:
    motion = np.eye(4)
    motion[:3, :3] = rotation_about((0.2, 0.9, -0.4), 50.0)
    motion[:3, 3] = (10, -30, 5)
    planned = line((3, 4, 5), (9, 40, 0), 5.0)
    actual = line((4, 3.5, 5.2), (10, 41, 2), 5.0)
    before = values(compare(planned, actual))
    after = values(compare(planned.moved(motion), actual.moved(motion)))
    for name in ("entry deviation", "tip deviation", "radial deviation", "depth deviation", "angular deviation"):
        assert after[name].value == pytest.approx(before[name].value)


def test_uncertainty_gives_intervals_that_do_not_go_below_zero() -> None:
    planned = line((0, 0, 0), (0, 40, 0), 5.0)
    found = values(compare(planned, planned, uncertainty_mm=0.7))
    assert found["tip deviation"].interval == pytest.approx((0.0, 0.7))
    assert found["depth deviation"].interval == pytest.approx((-0.7, 0.7))
    assert found["angular deviation"].interval[1] == pytest.approx(np.rad2deg(np.arctan(0.7 * np.sqrt(2) / 40)))


@pytest.mark.parametrize(
    ("shift", "angle", "expected"),
    [(0.4, 0.0, "optimal"), (0.6, 0.0, "inaccurate"), (0.0, 2.6, "inaccurate"), (2.1, 0.0, "unacceptable")],
)
def test_bands(shift: Any, angle: Any, expected: Any) -> None:
    planned = line((0, 0, 0), (0, 40, 0), 5.0)
    # Turned about the tip and the entry alike, so that a pure angle stays within the distance limits.
    tip = rotation_about((0, 0, 1), angle) @ (0, 20, 0)
    actual = line((shift - tip[0], 20 - tip[1], 0), (shift + tip[0], 20 + tip[1], 0), 5.0)
    assert band(compare(planned, actual)).value == expected


@pytest.mark.parametrize(
    ("entry", "tip", "diameter", "message"),
    [
        ((0, 0, 0), (0, 0, 1), 5.0, "less than its diameter"),
        ((0, 0, np.nan), (0, 0, 9), 5.0, "finite"),
        ((0, 0), (0, 0, 9), 5.0, "three"),
        ((0, 0, 0), (0, 0, 9), 0.0, "diameter"),
    ],
)
def test_impossible_trajectories(entry: Any, tip: Any, diameter: Any, message: Any) -> None:
    with pytest.raises(AssessmentError, match=message):
        line(entry, tip, diameter)


def test_swapped_ends_are_noticed() -> None:
    planned = line((0, 0, 0), (0, 40, 0), 5.0)
    with pytest.raises(AssessmentError, match="swapped"):
        compare(planned, line((0, 40, 0), (0, 0, 0), 5.0))


def test_the_void_is_found_in_every_orientation(directions: np.ndarray, instrumented: Any) -> None:
    case = instrumented(3, directions)
    plan = Trajectory(case.planned_entry, case.planned_tip, case.diameter_mm, "L4 left")
    found = find_implant(case.image, plan)
    axis = (case.tip - case.entry) / np.linalg.norm(case.tip - case.entry)
    for end, truth in ((found.trajectory.tip_ras_mm, case.tip), (found.trajectory.entry_ras_mm, case.entry)):
        off = end - truth
        assert np.linalg.norm(off - (off @ axis) * axis) < 0.15
        # Here the void blooms along the axis as much as across it: the uncertainty must say so.
        assert abs(off @ axis) < found.uncertainty_mm
    assert values(compare(found.trajectory, Trajectory(case.entry, case.tip, 5.5)))["angular deviation"].value < 0.3
    assert found.verdict.level is Level.GOOD
    assert found.void_diameter_mm == pytest.approx(5.5 + 2 * 0.8, abs=0.3)
    assert 0.3 < found.uncertainty_mm < 1.0
    volume = np.pi * (5.5 / 2 + 0.8) ** 2 * (np.linalg.norm(case.tip - case.entry) + 1.6)
    assert found.void.array.sum() * found.void.voxel_volume_ml * 1000 == pytest.approx(volume, rel=0.15)


def test_thick_slices_and_more_blooming_widen_the_uncertainty(instrumented: Any) -> None:
    sharp = instrumented(1, np.eye(3), bloom_mm=0.3)
    coarse = instrumented(1, np.eye(3), bloom_mm=1.5, spacing=(0.8, 0.8, 2.0), noise=0.05)
    found = []
    for case in (sharp, coarse):
        found.append(find_implant(case.image, Trajectory(case.planned_entry, case.planned_tip, case.diameter_mm)))
        assert np.linalg.norm(found[-1].trajectory.tip_ras_mm - case.tip) < 1.1 * found[-1].uncertainty_mm
    assert found[1].uncertainty_mm > found[0].uncertainty_mm + 0.3


def test_without_an_implant_it_refuses(instrumented: Any) -> None:
    for seed in range(3):
        case = instrumented(seed, np.eye(3), implant=False)
        with pytest.raises(AssessmentError, match="no signal void"):
            find_implant(case.image, Trajectory(case.planned_entry, case.planned_tip, case.diameter_mm, "L4"))


def test_a_plan_outside_the_image_is_refused(instrumented: Any) -> None:
    case = instrumented(0, np.eye(3))
    with pytest.raises(AssessmentError, match=r"leaves the image by \d+\.\d mm"):
        find_implant(case.image, Trajectory(case.planned_entry + 200, case.planned_tip + 200, case.diameter_mm))


@pytest.mark.parametrize(("shift", "grade"), [(0.0, "A"), (3.0, "B"), (5.0, "C"), (7.0, "D"), (8.9, "E")])
def test_gertzbein_robbins_by_a_known_shift(directions: np.ndarray, shift: Any, grade: Any) -> None:
    # A pedicle of radius 4 mm along A about (0, 0, 0); a screw of radius 2 mm shifted to the right by `shift`.
    size = 81
    ras_from_ijk = np.eye(4)
    ras_from_ijk[:3, :3] = directions * 0.5
    ras_from_ijk[:3, 3] = -ras_from_ijk[:3, :3] @ np.full(3, (size - 1) / 2)
    k, j, i = np.indices((size, size, size))
    ras = apply(ras_from_ijk, np.stack([i, j, k], axis=-1))
    mask = (np.hypot(ras[..., 0], ras[..., 2]) <= 4.0) & (np.abs(ras[..., 1]) <= 8.0)
    screw = line((shift, -18, 0), (shift, 18, 0), 4.0, "L4 right")
    breach = pedicle_breach(screw, Image(mask.astype(np.uint8), ras_from_ijk), midline_r_mm=-20.0)
    assert breach.grade == grade
    assert breach.measurement.value == pytest.approx(max(0.0, shift + 2.0 - 4.0), abs=0.3)
    assert breach.direction == ("none" if grade == "A" else "lateral")


@pytest.mark.parametrize(
    ("shift", "across_mm", "text"),
    [
        (0.0, 0.5, "A"),
        (1.0, 2.5, "A to B; inside the pedicle wall: cannot be told"),
        (5.0, 1.5, "B to D, lateral"),
        (3.0, 0.2, "B, lateral"),
    ],
)
def test_grade_is_a_range_when_it_cannot_be_told(shift: float, across_mm: float, text: str) -> None:
    size = 81
    grid = np.diag([0.5, 0.5, 0.5, 1.0])
    grid[:3, 3] = -20.0
    k, j, i = np.indices((size, size, size))
    ras = apply(grid, np.stack([i, j, k], axis=-1))
    mask = (np.hypot(ras[..., 0], ras[..., 2]) <= 4.0) & (np.abs(ras[..., 1]) <= 8.0)
    screw = line((shift, -18, 0), (shift, 18, 0), 4.0, "L4 right")
    spread = Spread(0.1, screw.direction, across_mm=across_mm, along_mm=9.0)
    breach = pedicle_breach(screw, Image(mask.astype(np.uint8), grid), -20.0, spread)
    assert breach.text == text
    assert breach.measurement.interval is not None
    low, high = breach.measurement.interval
    assert low <= max(0.0, shift - 2.0) <= high


def test_breach_needs_a_pedicle_on_the_way() -> None:
    mask = np.zeros((20, 20, 20), dtype=np.uint8)
    with pytest.raises(AssessmentError, match="empty"):
        pedicle_breach(line((0, 0, 0), (0, 9, 0), 2.0), Image(mask, np.eye(4)))
    mask[15:, 15:, 15:] = 1
    with pytest.raises(AssessmentError, match="does not pass"):
        pedicle_breach(line((0, -30, 0), (0, -10, 0), 2.0), Image(mask, np.eye(4)))
