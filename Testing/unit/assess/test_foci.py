"""Tumour that lies far from the cavity: another focus that nobody touched, the far end of a long one."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRILib.assess.residual import ResidualAssessment, assess_residual
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import AssessmentError

SIZE, ENHANCES = 72, 60.0
Ball = tuple[tuple[float, float, float], float]
FOCUS: Ball = ((-12.0, 0.0, 0.0), 9.0)
OTHER: Ball = ((14.0, 8.0, 6.0), 6.0)
HOLE: Ball = ((-12.0, 0.0, 0.0), 10.0)
LONG: tuple[Ball, ...] = (FOCUS, ((-2.0, 0.0, 0.0), 8.0), ((7.0, 0.0, 0.0), 8.0), ((14.0, 0.0, 0.0), 8.0))


def inside(balls: tuple[Ball, ...]) -> np.ndarray:
    """Part of each voxel (k, j, i) of 1 mm inside any of the balls, given in mm from the middle."""
    axis = np.arange(SIZE) - (SIZE - 1) / 2.0
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    parts = [
        np.clip(0.5 - (np.sqrt((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) - r), 0.0, 1.0) for (a, b, c), r in balls
    ]
    return np.max(parts, axis=0) if parts else np.zeros((SIZE,) * 3)


def operated(
    before: tuple[Ball, ...], hole: tuple[Ball, ...], left: tuple[Ball, ...], error_mm: float = 0.5
) -> tuple[ResidualAssessment, float]:
    """The assessment of tumour ``left`` of what was there ``before``, and its true volume in cm3."""
    rng = np.random.default_rng(3)
    residual, grid = inside(left), np.eye(4)
    grid[:3, 3] = -(SIZE - 1) / 2.0
    cavity = np.clip(inside(hole) - residual, 0.0, 1.0)
    native = (75.0 * (1.0 - cavity) + 25.0 * cavity) * inside((((0.0, 0.0, 0.0), 35.0),))
    vessels = np.zeros_like(native)
    vessels[:, 60:62, 30:32] = 90.0

    def scan(signal: np.ndarray, name: str) -> Image:
        noise = rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)
        return Image(np.abs(signal + 1.5 * noise).astype(np.float32), grid, name)

    contrast, plain = scan(native + vessels + ENHANCES * residual, "contrast"), scan(native, "native")
    tumour = Image((inside(before) > 0.5).astype(np.uint8), grid, "tumour")
    return assess_residual(contrast, plain, tumour, np.eye(4), error_mm), float(residual.sum()) / 1000.0


@pytest.mark.parametrize(
    ("before", "left"),
    [
        ((FOCUS, OTHER), (OTHER,)),
        ((FOCUS, OTHER), (((-4.0, 0.0, 0.0), 4.0), OTHER)),
        (LONG, (((14.0, 0.0, 0.0), 7.0),)),
    ],
    ids=["another focus", "another focus and a nodule at the wall", "far end of a long tumour"],
)
def test_tumour_far_from_the_cavity_is_residual(before: tuple[Ball, ...], left: tuple[Ball, ...]) -> None:
    """It was called resected: 100 % over an untouched focus of 0.9 cm3, and the interval ended at 0.03 cm3."""
    found, true_cm3 = operated(before, (HOLE,), left)
    assert found.volume_cm3 == pytest.approx(true_cm3, rel=0.1)
    assert found.interval_cm3[0] < true_cm3 < found.interval_cm3[1]


def test_a_focus_that_the_registration_puts_beside_itself_is_in_the_interval() -> None:
    """Less than half of it lies where the tumour is thought to have been: not counted, nor excluded."""
    moved: Ball = ((20.5, 8.0, 6.0), 3.0)
    found, true_cm3 = operated((FOCUS, OTHER), (HOLE,), (moved,), error_mm=3.0)
    assert found.volume_cm3 == 0.0
    assert found.interval_cm3[1] > true_cm3


def test_a_vessel_beside_the_tumour_and_far_from_the_cavity_is_none() -> None:
    """It lies in the margin, not in the tumour: the wall of the cavity does not reach it."""
    found, _ = operated((FOCUS, OTHER), (HOLE,), (((14.0, -1.5, 6.0), 1.8),), error_mm=3.0)
    assert found.volume_cm3 == 0.0
    assert found.measurements[2].value


def test_a_tumour_that_does_not_enhance_is_not_called_resected() -> None:
    """Nobody has touched it, nothing enhances: 100 % was told, class 1 or 2A."""
    with pytest.raises(AssessmentError, match="looks like tissue"):
        operated((FOCUS,), (), ())
    # The same where a cavity is seen is a complete resection.
    found, _ = operated((FOCUS,), (HOLE,), ())
    assert found.volume_cm3 == 0.0
    assert found.measurements[1].value == 100.0


def test_of_an_outline_wider_than_what_enhances_nothing_is_called_resected() -> None:
    """Outlined on FLAIR, nothing removed: the part that never enhanced was told to be gone."""
    found, true_cm3 = operated((((-12.0, 0.0, 0.0), 14.0),), (), (((-12.0, 0.0, 0.0), 8.0),))
    assert found.volume_cm3 == pytest.approx(true_cm3, rel=0.1)
    extent = found.measurements[1]
    assert extent.value is None
    assert "looks like tissue" in extent.missing_because
    assert found.rano.worst == "4"
    assert not found.resected.array.any()
    # A biopsy of a tumour that enhances as a whole leaves all of it, and that is a number.
    whole, _ = operated((FOCUS,), (), (FOCUS,))
    assert whole.measurements[1].value == pytest.approx(0.0, abs=3.0)


def test_where_the_residual_is_there_is_residual() -> None:
    """Views and pictures go there: between two pieces lay nothing but the cavity."""
    at_wall: Ball = ((-4.0, 0.0, 0.0), 4.0)
    found, _ = operated((FOCUS, OTHER), (HOLE,), (at_wall, OTHER))
    assert found.residual_centroid_ras_mm == pytest.approx(OTHER[0], abs=1.5)
