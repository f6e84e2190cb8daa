"""The pedicle that grades a screw: of any voxel, cut to its own size, or found in the outline of its vertebra."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRILib.assess.implant import Trajectory
from IntraopMRILib.assess.pedicle import pedicle_breach, pedicle_of
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply

RADIUS, AT_R = 5.0, 15.0


def grid_of(
    directions: np.ndarray, spacing: tuple[float, float, float], wide_mm: float = 90.0
) -> tuple[np.ndarray, np.ndarray]:
    """``ras_from_ijk`` of a grid about the origin, and its points (k, j, i, 3)."""
    size = (np.ceil(wide_mm / np.array(spacing)).astype(int) // 2) * 2 + 1
    grid = np.eye(4)
    grid[:3, :3] = directions @ np.diag(spacing)
    grid[:3, 3] = -grid[:3, :3] @ ((size - 1) / 2)
    k, j, i = np.indices(tuple(size[::-1].tolist()))
    return grid, apply(grid, np.stack([i, j, k], axis=-1))


def vertebra(directions: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Image:
    """A body in front, a lamina behind, and two pedicles of RADIUS between them at A -20 to -5, AT_R to either side."""
    grid, ras = grid_of(directions, spacing)
    r, a, s = np.moveaxis(ras, -1, 0)
    body = (np.hypot(r / 24.0, (a - 10.0) / 15.0) <= 1.0) & (np.abs(s) <= 13.0)
    lamina = (np.abs(a + 25.0) <= 5.0) & (np.abs(r) <= 26.0) & (np.abs(s) <= 12.0)
    pedicles = (np.hypot(np.abs(r) - AT_R, s) <= RADIUS) & (a <= 5.0) & (a >= -22.0)
    return Image((body | lamina | pedicles).astype(np.uint8), grid, "L3")


def screw(at: tuple[float, float] = (AT_R, 0.0), length_mm: float = 45.0) -> Trajectory:
    return Trajectory(np.array([at[0], -32.0, at[1]]), np.array([at[0], -32.0 + length_mm, at[1]]), 6.0, "Screw L3")


@pytest.mark.parametrize(
    ("off", "truth", "grade", "direction"),
    [
        ((0.0, 0.0), 0.0, "A", "none"),
        ((3.5, 0.0), 1.5, "B", "lateral"),
        ((-5.0, 0.0), 3.0, "C", "medial"),
        ((0.0, 7.0), 5.0, "D", "cranial"),
        ((0.0, -9.0), 7.0, "E", "caudal"),
    ],
)
def test_the_outline_of_the_vertebra_is_enough(
    directions: np.ndarray, off: tuple[float, float], truth: float, grade: str, direction: str
) -> None:
    pedicle = pedicle_of(screw(), vertebra(directions))
    assert "cut from the outline of L3" in pedicle.name
    breach = pedicle_breach(screw((AT_R + off[0], off[1])), pedicle, 0.0)
    assert breach.measurement.value == pytest.approx(truth, abs=0.6)
    assert (breach.grade, breach.direction) == (grade, direction)
    assert pedicle.name in breach.measurement.definition


def test_the_pedicle_that_is_cut_is_the_one_of_the_plan() -> None:
    bone = vertebra(np.eye(3))
    for side in (1.0, -1.0):
        pedicle = pedicle_of(screw((side * AT_R, 0.0)), bone)
        places = apply(pedicle.ras_from_ijk, np.argwhere(pedicle.array)[:, ::-1])
        assert places[:, 0].mean() == pytest.approx(side * AT_R, abs=0.6)
        assert -22.0 <= places[:, 1].min() <= -17.0
        assert -8.0 <= places[:, 1].max() <= 0.0


@pytest.mark.parametrize("at", [(0.0, 0.0), (AT_R, 40.0)], ids=["through the canal", "beside the bone"])
def test_where_the_plan_passes_no_pedicle_none_is_cut(at: tuple[float, float]) -> None:
    with pytest.raises(AssessmentError, match=r"passes no narrow part of 'L3'.*called 'L3 pedicle'"):
        pedicle_of(screw(at), vertebra(np.eye(3)))


@pytest.mark.parametrize("spacing", [(0.3, 0.3, 0.3), (1.0, 1.0, 1.0), (1.0, 1.0, 3.0), (0.6, 0.6, 4.0)])
@pytest.mark.parametrize("off", [(3.0, 0.0), (-9.0, 0.0), (0.0, 9.0)])
def test_a_segment_that_is_cut_to_its_own_size_gives_the_same_grade(
    spacing: tuple[float, float, float], off: tuple[float, float]
) -> None:
    """Slicer keeps the box of a segment: 3.6 mm beyond it the distance stood still, and E was told to be D."""
    grid, ras = grid_of(np.eye(3), spacing, 26.0)
    inside = (np.hypot(ras[..., 0], ras[..., 2]) <= RADIUS) & (np.abs(ras[..., 1]) <= 9.0)
    voxels = np.argwhere(inside)
    low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    corner = grid.copy()
    corner[:3, 3] = apply(grid, low[::-1].astype(float))
    implant = Trajectory(np.array([off[0], -20.0, off[1]]), np.array([off[0], 20.0, off[1]]), 6.0)
    whole, cut = (
        pedicle_breach(implant, label, -30.0)
        for label in (Image(inside.astype(np.uint8), grid), Image(inside[box].astype(np.uint8), corner))
    )
    truth = float(np.hypot(*off)) + 3.0 - RADIUS
    assert cut.measurement.value == pytest.approx(whole.measurement.value)
    assert (cut.text, cut.direction) == (whole.text, whole.direction)
    assert cut.direction == {3.0: "lateral", -9.0: "medial", 0.0: "cranial"}[off[0]]
    interval = cut.measurement.interval
    assert interval is not None
    assert interval[0] <= truth <= interval[1]
    # The surface of the label itself is known to half a voxel.
    assert cut.measurement.value == pytest.approx(truth, abs=0.25 + 0.5 * max(spacing))
