"""Displacement fields: derivative and inverse of known maps, and the brain shift's promises."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import apply
from IntraopMRIReconstructionLib.simulate.fields import (
    Opening,
    Shift,
    brain_shift,
    invert_field,
    jacobian_determinant,
    random_field,
)
from IntraopMRIReconstructionLib.simulate.grids import axis_grid, index_coordinates, points_of, sampled

SHAPE = (48, 52, 56)
CONSISTENT_MM = 0.1


def oblique_grid(directions: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * 2.5
    matrix[:3, 3] = (-50.0, 30.0, -60.0)
    return matrix


def test_jacobian_of_a_linear_map_is_its_determinant(directions: np.ndarray) -> None:
    matrix = oblique_grid(directions)
    linear = np.array([[1.1, 0.1, 0.0], [-0.05, 0.9, 0.2], [0.0, 0.1, 1.05]])
    field = points_of(matrix, SHAPE) @ (linear - np.eye(3)).T
    found = jacobian_determinant(field, matrix)
    assert found == pytest.approx(np.linalg.det(linear), abs=2e-4)


def test_inverse_leads_back(directions: np.ndarray) -> None:
    matrix = oblique_grid(directions)
    window = np.hanning(SHAPE[0])[:, None, None] * np.hanning(SHAPE[1])[:, None] * np.hanning(SHAPE[2])
    field = random_field(SHAPE, 2.5, 18.0, 6.0, np.random.default_rng(0), weight=window.astype(np.float32))
    inverse = invert_field(field, matrix)
    inside = points_of(matrix, SHAPE)[8:-8, 8:-8, 8:-8].reshape(-1, 3)[::31].astype(np.float64)
    there = inside + sampled(field, index_coordinates(matrix, inside))
    back = there + sampled(inverse, index_coordinates(matrix, there))
    assert np.abs(there - inside).max() > 3
    assert np.linalg.norm(back - inside, axis=-1).max() < CONSISTENT_MM


def test_a_field_that_folds_is_not_inverted() -> None:
    matrix = axis_grid((0, 0, 0), 2.0)
    points = points_of(matrix, (12, 12, 40))
    field = np.zeros((12, 12, 40, 3), np.float32)
    field[..., 0] = 30 * np.sin(points[..., 0] / 8.0)
    with pytest.raises(DataError, match="does it fold"):
        invert_field(field, matrix)


@pytest.fixture(scope="module")
def ball() -> tuple[np.ndarray, np.ndarray, Opening]:
    """A spherical skull of 60 mm with an opening on its right side."""
    matrix = axis_grid((-70, -70, -70), 2.0)
    hull = np.linalg.norm(points_of(matrix, (71, 71, 71)), axis=-1) - 60.0
    return matrix, hull, Opening(np.array([60.0, 0, 0]), np.array([1.0, 0, 0]), 25.0)


@pytest.mark.parametrize("surface_mm", [9.0, -9.0])
def test_brain_shift_sinks_or_bulges_and_is_still_at_the_skull(
    ball: tuple[np.ndarray, np.ndarray, Opening], surface_mm: float
) -> None:
    matrix, hull, opening = ball
    shift = Shift(surface_mm, 2.5, 0.0, 1.0)
    field = brain_shift(matrix, hull, opening, np.array([35.0, 0, 0]), 15.0, shift, np.random.default_rng(3))
    at = index_coordinates(matrix, np.array([[58.0, 0, 0], [-58.0, 0, 0], [0, -58.0, 0], [0, 0, 58.0]]))
    surface, *skull = sampled(field, at)
    assert surface[0] == pytest.approx(-surface_mm, abs=2.5)
    assert np.abs(skull).max() < 0.3
    assert jacobian_determinant(field, matrix).min() > 0


def test_collapse_moves_the_wall_inward_by_its_amount(ball: tuple[np.ndarray, np.ndarray, Opening]) -> None:
    matrix, hull, opening = ball
    centre = np.array([10.0, 0, 0])
    shift = Shift(0.0, 2.5, 0.0, 0.0)
    field = brain_shift(matrix, hull, opening, centre, 16.0, shift, np.random.default_rng(3))
    outward = np.array([[0, 1.0, 0], [0, 0, 1.0], [-1.0, 0, 0]])
    moved = sampled(field, index_coordinates(matrix, centre + 16.0 * outward))
    assert np.einsum("pc,pc->p", moved, outward) == pytest.approx([-2.5] * 3, abs=0.15)


def test_a_shift_that_would_fold_is_refused(ball: tuple[np.ndarray, np.ndarray, Opening]) -> None:
    matrix, hull, opening = ball
    with pytest.raises(DataError, match="would fold the brain"):
        brain_shift(matrix, hull, opening, np.zeros(3), 15.0, Shift(60.0), np.random.default_rng(0))


def test_points_and_indices_agree(directions: np.ndarray) -> None:
    matrix = oblique_grid(directions)
    points = points_of(matrix, (4, 5, 6))
    assert points[3, 2, 1] == pytest.approx(apply(matrix, (1, 2, 3)), abs=1e-4)
    assert index_coordinates(matrix, points[3, 2, 1]) == pytest.approx([3, 2, 1], abs=1e-4)
