"""The resection margin against spheres whose margin and free border are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRILib.assess.margin import Margin, resection_margin
from IntraopMRILib.assess.resection import cavity_volume
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply, corner_from_centre, rotation_about

#: The steps of a voxel mask leave this in doubt: half a voxel of the cavity, mm.
VOXEL_MM, STEP_MM = 1.5, 0.75
CAVITY_AT, CAVITY_MM = np.array([4.0, -6.0, 9.0]), 16.0
TURN = rotation_about((0.2, 1.0, -0.4), 25.0)
INTRAOP_FROM_PREOP = np.eye(4)
INTRAOP_FROM_PREOP[:3, :3] = TURN
INTRAOP_FROM_PREOP[:3, 3] = (3.0, 1.0, -2.0)


def ball(
    directions: np.ndarray, at: np.ndarray, radius_mm: float, spacing_mm: float, middle: np.ndarray, value: int = 1
) -> Image:
    size = int(np.ceil(100.0 / spacing_mm))
    grid = corner_from_centre(directions * spacing_mm, middle, (size, size, size))
    k, j, i = np.indices((size, size, size))
    points = apply(grid, np.stack([i, j, k], axis=-1).astype(float))
    return Image((value * (np.linalg.norm(points - at, axis=-1) < radius_mm)).astype(np.uint8), grid)


def operated(
    directions: np.ndarray,
    offset_mm: np.ndarray,
    radius_mm: float,
    error_mm: float = 0.5,
) -> Margin:
    """A tumour whose middle lies ``offset_mm`` (preoperative RAS) from that of the cavity."""
    there = CAVITY_AT + TURN @ offset_mm
    before = TURN.T @ (there - INTRAOP_FROM_PREOP[:3, 3])
    tumour = ball(np.diag([-1.0, 1.0, 1.0]), before, radius_mm, 1.0, before)
    cavity = ball(directions, CAVITY_AT, CAVITY_MM, VOXEL_MM, CAVITY_AT)
    brain = ball(directions, CAVITY_AT, 45.0, VOXEL_MM, CAVITY_AT)
    return resection_margin(tumour, cavity, brain, INTRAOP_FROM_PREOP, lambda p: np.full(len(p), error_mm))


@pytest.mark.parametrize(
    ("offset_mm", "radius_mm", "side"),
    [
        ((0.0, 3.0, 0.5), 9.0, "anterior"),
        ((0.0, -1.0, -6.0), 12.0, "inferior"),
        ((-9.0, 1.0, 0.0), 12.0, "left"),
    ],
)
def test_spheres(directions: np.ndarray, offset_mm: tuple[float, ...], radius_mm: float, side: str) -> None:
    offset = np.array(offset_mm)
    found = operated(directions, offset, radius_mm)
    away = float(np.linalg.norm(offset))
    true = CAVITY_MM - radius_mm - away
    assert found.closest.value == pytest.approx(true, abs=STEP_MM)
    assert found.closest.interval is not None
    assert found.closest.interval[0] <= true <= found.closest.interval[1]
    assert found.closest.interval[1] - found.closest.interval[0] == pytest.approx(2 * np.hypot(0.5, VOXEL_MM), abs=0.2)
    assert found.side == side
    assert found.at_ras_mm is not None
    expected = CAVITY_AT + TURN @ (offset * (1 + radius_mm / away))
    assert np.linalg.norm(found.at_ras_mm - expected) < 4.0
    part = beyond(away, radius_mm)
    assert found.outside.value == pytest.approx(part, abs=2.5)
    assert found.outside.interval is not None
    assert found.outside.interval[0] <= part <= found.outside.interval[1]
    # Beyond the interval, or it cannot be told.
    certain = true < -np.hypot(0.5, VOXEL_MM)
    assert [name.split()[0] for name in found.not_reached][:1] == ([side] if certain else [])
    words = f"not reached in: {side}" if certain else "cannot be told" if true < 1.5 else "encloses"
    assert words in found.text


def beyond(away_mm: float, radius_mm: float) -> float:
    """Part of a border outside the cavity, %: of a sphere beyond a plane it is the cap's height over the diameter."""
    cut = (CAVITY_MM**2 - radius_mm**2 - away_mm**2) / (2 * away_mm)
    return 50.0 * float(1 - np.clip(cut / radius_mm, -1, 1))


def test_the_opening_to_the_outside_is_no_wall() -> None:
    """A tumour at the surface: the cavity ends there with the brain, and the margin is that to the brain below."""
    axes = np.eye(3)
    cavity = ball(axes, np.zeros(3), 12.0, 1.0, np.zeros(3))
    heights = np.arange(cavity.array.shape[0]) + cavity.ras_from_ijk[2, 3]
    below = (heights < 5.0)[:, None, None]
    cavity = cavity.with_array(cavity.array * below)
    brain = cavity.with_array((np.ones(cavity.array.shape) * below).astype(np.uint8))
    tumour = ball(axes, np.array([0.0, 0.0, -1.0]), 5.5, 1.0, np.zeros(3))
    found = resection_margin(tumour, cavity, brain, np.eye(4), lambda p: np.zeros(len(p)))
    assert found.closest.value == pytest.approx(12.0 - 6.5, abs=0.6), "the top is half a millimetre from the outside"
    assert found.side == "inferior"


def test_a_wider_doubt_widens_the_interval() -> None:
    narrow, wide = (operated(np.eye(3), np.array([0.0, 0.0, 4.0]), 11.0, error) for error in (0.2, 3.0))
    assert narrow.closest.value == wide.closest.value
    for less, more, by in ((narrow.closest, wide.closest, 2.0), (narrow.outside, wide.outside, 10.0)):
        assert less.interval is not None
        assert more.interval is not None
        assert np.diff(more.interval)[0] > np.diff(less.interval)[0] + by


def test_infiltration_is_no_part_of_the_mass() -> None:
    axes = np.eye(3)
    cavity = ball(axes, np.zeros(3), 12.0, VOXEL_MM, np.zeros(3))
    brain = ball(axes, np.zeros(3), 45.0, VOXEL_MM, np.zeros(3))
    labels = ball(axes, np.zeros(3), 20.0, 1.0, np.zeros(3), value=3)
    core = ball(axes, np.zeros(3), 9.0, 1.0, np.zeros(3))
    tumour = labels.with_array(np.where(core.array > 0, 1, labels.array))
    found = resection_margin(tumour, cavity, brain, np.eye(4), lambda p: np.zeros(len(p)))
    assert found.closest.value == pytest.approx(3.0, abs=STEP_MM)


def test_without_cavity_there_is_no_number() -> None:
    axes = np.eye(3)
    tumour = ball(axes, np.zeros(3), 9.0, 1.0, np.zeros(3))
    brain = ball(axes, np.zeros(3), 45.0, VOXEL_MM, np.zeros(3))
    none = brain.with_array(np.zeros_like(brain.array))
    found = resection_margin(tumour, none, brain, np.eye(4), lambda p: np.zeros(len(p)))
    assert found.closest.value is None
    assert found.text == "No margin is given: no cavity was found."
    assert found.at_ras_mm is None


def test_bad_input_is_named() -> None:
    axes = np.eye(3)
    cavity = ball(axes, np.zeros(3), 12.0, VOXEL_MM, np.zeros(3))
    empty = cavity.with_array(np.zeros_like(cavity.array))
    with pytest.raises(AssessmentError, match="tumour segmentation is empty"):
        resection_margin(empty, cavity, cavity, np.eye(4), lambda p: np.zeros(len(p)))
    other = ball(axes, np.zeros(3), 12.0, 1.0, np.zeros(3))
    with pytest.raises(AssessmentError, match="on one grid"):
        resection_margin(other, cavity, other, np.eye(4), lambda p: np.zeros(len(p)))


@pytest.mark.parametrize("tumour_mm", [2.5, 8.0])
def test_a_narrow_cavity_is_not_smoothed_away(tumour_mm: float) -> None:
    """To half a voxel, of 2 mm, seen from inside it and from around it, on average over where the steps fall."""
    rng, found = np.random.default_rng(2), []
    for _ in range(6):
        at = rng.uniform(-1.0, 1.0, 3)
        cavity = ball(np.eye(3), at, 5.0, 2.0, np.zeros(3))
        brain = ball(np.eye(3), np.zeros(3), 45.0, 2.0, np.zeros(3))
        tumour = ball(np.eye(3), at, tumour_mm, 1.0, at)
        found.append(resection_margin(tumour, cavity, brain, np.eye(4), lambda p: np.zeros(len(p))).closest.value)
    assert np.mean([value for value in found if value is not None]) == pytest.approx(5.0 - tumour_mm, abs=0.9)


#: Grey values of fluid, tissue, clot in a native scan.
FLUID, TISSUE, CLOT = 150.0, 700.0, 1120.0


def native_scan(directions: np.ndarray, radius_mm: float, clot_mm: float, spacing_mm: float = 1.0) -> Image:
    """A cavity at the origin in tissue, partial volume counted, with a cap of clot on both sides of its wall."""
    size = int(np.ceil(66.0 / spacing_mm))
    grid = corner_from_centre(directions * spacing_mm, np.zeros(3), (size, size, size))
    k, j, i = np.indices((size, size, size))
    points = apply(grid, np.stack([i, j, k], axis=-1).astype(float))
    from_centre = np.linalg.norm(points, axis=-1)
    fluid = np.clip(0.5 - (from_centre - radius_mm) / spacing_mm, 0.0, 1.0)
    clot = np.clip(0.5 + (clot_mm / 2 - np.abs(from_centre - radius_mm)) / spacing_mm, 0.0, 1.0)
    clot *= points[..., 0] > 8.0
    noise = 20.0 * np.random.default_rng(1).normal(size=fluid.shape)
    return Image(((FLUID * fluid + TISSUE * (1 - fluid)) * (1 - clot) + CLOT * clot + noise).astype(np.float32), grid)


def seen(
    directions: np.ndarray,
    tumour_mm: np.ndarray,
    radius_mm: float,
    clot_mm: float,
    carried_off_mm: np.ndarray | None = None,
) -> tuple[Margin, Margin]:
    """Margin by masks of 2.5 mm that end before the clot, and by the native scan; the radius is that of the error."""
    pose, off = np.eye(4), np.zeros(3) if carried_off_mm is None else carried_off_mm
    pose[:3, 3] = off
    at = np.array([0.4, -0.7, 0.9])
    cavity = ball(directions, np.zeros(3), CAVITY_MM - clot_mm / 2, 2.5, at)
    brain = ball(directions, np.zeros(3), 42.0, 2.5, at)
    tumour = ball(np.diag([-1.0, 1.0, 1.0]), tumour_mm, radius_mm, 1.0, tumour_mm)
    native = native_scan(directions, CAVITY_MM, clot_mm)
    coarse, sharp = (
        resection_margin(tumour, cavity, brain, pose, lambda p: np.full(len(p), np.linalg.norm(off)), scan)
        for scan in (None, native)
    )
    return coarse, sharp


def test_the_scan_shows_the_wall_sharper_than_the_mask(directions: np.ndarray) -> None:
    coarse, sharp = seen(directions, np.array([-5.0, 0.0, 0.0]), 13.0, 0.0)
    true = CAVITY_MM - 13.0 - 5.0
    for found in (coarse, sharp):
        assert found.closest.interval is not None
        assert found.closest.interval[0] <= true <= found.closest.interval[1]
    assert sharp.closest.value == pytest.approx(true, abs=0.35)
    assert np.diff(sharp.closest.interval or (0, 9))[0] < np.diff(coarse.closest.interval or (0, 9))[0] - 1.0
    assert sharp.side == "left"


@pytest.mark.parametrize("way", [*np.eye(3), *-np.eye(3)])
def test_the_share_outside_holds_the_truth_of_a_border_carried_wrong(way: np.ndarray) -> None:
    """One side lies too far out then, the other too far in: not all of the border errs the same way."""
    coarse, sharp = seen(np.eye(3), np.array([-7.0, 0.0, 0.0]), 13.0, 0.0, 1.2 * way)
    for found in (coarse, sharp):
        assert found.outside.interval is not None
        assert found.outside.interval[0] <= beyond(7.0, 13.0) <= found.outside.interval[1]
    assert np.diff(sharp.outside.interval or (0, 99))[0] < 0.55 * np.diff(coarse.outside.interval or (0, 0))[0]


def test_clot_on_the_wall_is_open_and_its_middle_is_taken(directions: np.ndarray) -> None:
    """Three millimetres of clot, half of them within the wall, where the tumour was."""
    coarse, sharp = seen(directions, np.array([6.0, 0.0, 0.0]), 13.0, 3.0)
    true = CAVITY_MM - 13.0 - 6.0
    assert sharp.closest.value == pytest.approx(true, abs=0.6)
    assert coarse.closest.value is not None
    assert coarse.closest.value < true - 0.9, "the mask ends before the clot"
    assert sharp.closest.interval is not None
    assert sharp.closest.interval[0] < true - 2.0, "the wall may lie on either side of the clot"
    assert sharp.closest.interval[1] > true + 2.0
    assert "clot" in sharp.closest.definition


@pytest.mark.parametrize("spacing_mm", [2.5, 1.0])
def test_a_scan_that_shows_no_more_changes_nothing(spacing_mm: float) -> None:
    """As coarse as the mask, or without all of the cavity."""
    axes = np.eye(3)
    cavity = ball(axes, np.zeros(3), 12.0, 2.0, np.zeros(3))
    brain = ball(axes, np.zeros(3), 45.0, 2.0, np.zeros(3))
    tumour = ball(axes, np.zeros(3), 9.0, 1.0, np.zeros(3))
    native = native_scan(axes, 12.0, 0.0, spacing_mm)
    if spacing_mm < 2.0:
        native = Image(native.array[: len(native.array) // 2], native.ras_from_ijk)
    plain, same = (
        resection_margin(tumour, cavity, brain, np.eye(4), lambda p: np.zeros(len(p)), scan) for scan in (None, native)
    )
    assert same.closest.value == plain.closest.value
    assert same.closest.interval == plain.closest.interval


def test_no_margin_and_no_volume_where_clot_hides_the_wall() -> None:
    tumour = ball(np.eye(3), CAVITY_AT, 12.0, 1.0, CAVITY_AT)
    cavity = ball(np.eye(3), CAVITY_AT, CAVITY_MM, VOXEL_MM, CAVITY_AT)
    brain = ball(np.eye(3), CAVITY_AT, 45.0, VOXEL_MM, CAVITY_AT)
    assert cavity_volume(cavity).value is not None
    array = cavity.array.copy()
    array[: array.shape[0] // 2] *= 2
    packed = cavity.with_array(array)
    found = resection_margin(tumour, packed, brain, np.eye(4), lambda p: np.full(len(p), 0.5))
    for number in (found.closest, found.outside, cavity_volume(packed)):
        assert number.value is None
        assert number.interval is None
        assert "of the cavity hold clot or packing, whose border is not seen" in number.missing_because
    assert found.at_ras_mm is None
    assert "clot or packing" in found.text
