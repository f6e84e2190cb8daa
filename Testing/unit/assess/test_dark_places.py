"""Dark places that are no implant: air beside the patient, where the scan ends, a sheet; and implants close to them."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRILib.assess.implant import Trajectory
from IntraopMRILib.assess.implant_detection import find_implant
from IntraopMRIReconstructionLib.data import Image, Level
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply
from scipy import ndimage

SIZE, EDGE = 60, 19.0
OFF = np.array([-1.5, 0.5, 1.0])
DARK = {
    "air beside the patient": lambda r, a, s: r > EDGE,
    "air beside a curved surface": lambda r, a, s: r > EDGE + 3.0 * np.sin(a / 6.0),
    "the last columns of the scan": lambda r, a, s: r > 25.5,
    "a slab that runs to the edge": lambda r, a, s: (r > EDGE) & (np.abs(s) < 6.0),
    "a sheet": lambda r, a, s: np.abs(r - EDGE) < 2.0,
}


def scene(directions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(patchy tissue with noise, ``ras_from_ijk``, points (3, k, j, i))."""
    rng = np.random.default_rng(2)
    grid = np.eye(4)
    grid[:3, :3] = directions
    grid[:3, 3] = -directions @ np.full(3, (SIZE - 1) / 2)
    k, j, i = np.indices((SIZE,) * 3)
    ras = np.moveaxis(apply(grid, np.stack([i, j, k], axis=-1)), -1, 0)
    tissue = 100 + 40 * ndimage.gaussian_filter(rng.normal(size=(SIZE,) * 3), 3)
    return tissue + 3.0 * rng.normal(size=tissue.shape), grid, ras


@pytest.mark.parametrize("kind", DARK)
def test_a_dark_region_at_the_edge_is_no_implant(kind: str) -> None:
    """Nearly all of these were taken for the void of a screw, three times as wide as the screw: 'check'."""
    tissue, grid, ras = scene(np.eye(3))
    tissue[DARK[kind](*ras)] = 3.0
    plan = Trajectory(np.array([21.0, -17, 1]), np.array([22.0, 18, -1]), 6.0)
    with pytest.raises(AssessmentError, match="part of the shaft with tissue on every side"):
        find_implant(Image(np.abs(tissue).astype(np.float32), grid), plan)


def test_a_screw_near_the_surface_is_found_where_it_is(directions: np.ndarray) -> None:
    tissue, grid, ras = scene(directions)
    tissue[ras[0] > EDGE] = 3.0
    truth = Trajectory(np.array([11.0, -17, 1]), np.array([12.0, 18, -1]), 6.0)
    off = np.moveaxis(ras, 0, -1) - truth.entry_ras_mm
    along = off @ truth.direction
    away = np.linalg.norm(off - along[..., None] * truth.direction, axis=-1)
    tissue[(away < 3.0) & (along > 0) & (along < truth.length_mm)] = 3.0
    plan = Trajectory(truth.entry_ras_mm + OFF, truth.tip_ras_mm - 0.5 * OFF, 6.0)
    found = find_implant(Image(np.abs(tissue).astype(np.float32), grid), plan, search_radius_mm=6.0)
    assert found.verdict.level is Level.GOOD
    np.testing.assert_allclose(found.trajectory.tip_ras_mm, truth.tip_ras_mm, atol=0.7)


@pytest.mark.parametrize("outside_mm", [4.0, 8.0])
def test_a_needle_that_comes_in_from_outside_is_found(outside_mm: float) -> None:
    """A part of it lies in air, where there is nothing beside it on any side."""
    tissue, grid, ras = scene(np.eye(3))
    truth = Trajectory(np.array([2.0, -24, 1]), np.array([-3.0, 16, 3]), 2.5)
    tissue[ras[1] < -24.0 + outside_mm] = 3.0
    off = np.moveaxis(ras, 0, -1) - truth.entry_ras_mm
    along = off @ truth.direction
    away = np.linalg.norm(off - along[..., None] * truth.direction, axis=-1)
    tissue[(away < 1.7) & (along > 0) & (along < truth.length_mm)] = 3.0
    plan = Trajectory(truth.entry_ras_mm + OFF, truth.tip_ras_mm - 0.5 * OFF, 2.5)
    found = find_implant(Image(np.abs(tissue).astype(np.float32), grid), plan, search_radius_mm=5.0)
    assert found.verdict.reasons[-1].value == pytest.approx(1.0 - outside_mm / truth.length_mm, abs=0.15)
    np.testing.assert_allclose(found.trajectory.tip_ras_mm, truth.tip_ras_mm, atol=1.0)


@pytest.mark.parametrize(("diameter", "apart_mm"), [(5.0, 9.0), (2.5, 7.0)], ids=["screws", "needles"])
@pytest.mark.parametrize("which", [0, 1])
def test_of_two_alike_the_one_that_lies_as_planned_is_found(
    directions: np.ndarray, diameter: float, apart_mm: float, which: int
) -> None:
    """The darker of both was taken, a 'good' void 8 mm from where it was planned."""
    tissue, grid, ras = scene(directions)
    by = np.array([apart_mm, 0.0, 0.0])
    first = Trajectory(np.array([-4.0, -17, 1]), np.array([-3.0, 18, 0]), diameter)
    both = [first, Trajectory(first.entry_ras_mm + by, first.tip_ras_mm + by, diameter)]
    for number, each in enumerate(both):
        off = np.moveaxis(ras, 0, -1) - each.entry_ras_mm
        along = off @ each.direction
        away = np.linalg.norm(off - along[..., None] * each.direction, axis=-1)
        # The neighbour is the darker one.
        tissue[(away < diameter / 2 + 0.4) & (along > 0) & (along < each.length_mm)] = 3.0 + 6.0 * (number == which)
    truth = both[which]
    plan = Trajectory(truth.entry_ras_mm + OFF, truth.tip_ras_mm - 0.5 * OFF, diameter)
    found = find_implant(Image(np.abs(tissue).astype(np.float32), grid), plan)
    np.testing.assert_allclose(found.trajectory.tip_ras_mm, truth.tip_ras_mm, atol=0.9)
