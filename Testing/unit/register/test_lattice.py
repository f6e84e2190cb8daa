"""The spline, its subdivision, its adjoint and its bending energy have closed forms to hold against."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRILib.register.lattice import Basis, Bending, Lattice

BOX_MM = (48.0, 64.0, 40.0)
VOXELS, VOXEL_MM = (24, 32, 20), (2.0, 2.0, 2.0)


@pytest.fixture
def lattice() -> Lattice:
    return Lattice(16.0, BOX_MM)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def linear_nodes(lattice: Lattice) -> np.ndarray:
    """Coefficients that reproduce the position (k, j, i) in mm: cubic splines reproduce linear functions."""
    axes = [(np.arange(n) - 1) * lattice.spacing_mm for n in lattice.shape]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def test_weights_sum_to_one_and_reproduce_positions(lattice: Lattice) -> None:
    basis = Basis(lattice, VOXELS, VOXEL_MM)
    ones = basis.evaluated(np.ones((1, *lattice.shape), np.float32))
    np.testing.assert_allclose(ones, 1.0, atol=1e-5)
    position = basis.evaluated(linear_nodes(lattice))
    centres = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * 2.0 for n in VOXELS], indexing="ij"))
    np.testing.assert_allclose(position, centres, atol=1e-3)


def test_gathering_is_the_adjoint_of_evaluating(lattice: Lattice) -> None:
    basis = Basis(lattice, VOXELS, VOXEL_MM)
    nodes, voxels = noise((2, *lattice.shape)), noise((2, *VOXELS), 1)
    assert np.vdot(basis.evaluated(nodes), voxels) == pytest.approx(np.vdot(nodes, basis.gathered(voxels)), rel=1e-4)


def test_refining_keeps_the_displacement(lattice: Lattice) -> None:
    nodes = noise((3, *lattice.shape))
    fine = lattice.refined(nodes)
    assert fine.shape == (3, *lattice.finer().shape)
    before = Basis(lattice, VOXELS, VOXEL_MM).evaluated(nodes)
    after = Basis(lattice.finer(), VOXELS, VOXEL_MM).evaluated(fine)
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_resolutions_see_the_same_displacement(lattice: Lattice) -> None:
    nodes = noise((1, *lattice.shape))
    fine = Basis(lattice, VOXELS, VOXEL_MM).evaluated(nodes)[0]
    coarse = Basis(lattice, (12, 16, 10), (4.0, 4.0, 4.0)).evaluated(nodes)[0]
    averaged = fine.reshape(12, 2, 16, 2, 10, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(coarse, averaged, atol=0.05)


@pytest.mark.parametrize("first", [(0, 0, 0), (8, 16, 8), (3, 9, 6)])
def test_part_of_a_lattice_shows_the_same_displacement(lattice: Lattice, first: tuple[int, int, int]) -> None:
    nodes = noise((3, *lattice.shape))
    whole = Basis(lattice, VOXELS, VOXEL_MM).evaluated(nodes)
    size = (10, 12, 9)
    part, (k, j, i) = lattice.part(np.array(first) * 2.0, np.array(size) * 2.0)
    assert nodes[:, k, j, i].shape[1:] == part.shape
    shown = Basis(part, size, VOXEL_MM).evaluated(nodes[:, k, j, i])
    box = tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))
    np.testing.assert_allclose(shown, whole[(slice(None), *box)], atol=1e-5)


@pytest.mark.parametrize("loose", [False, True])
def test_bending_is_zero_for_affine_motion_and_symmetric(lattice: Lattice, loose: bool) -> None:
    firm = np.random.default_rng(2).uniform(0.05, 1.0, lattice.shape) if loose else np.ones(lattice.shape)
    bending = Bending(firm.astype(np.float32))
    assert np.abs(bending((linear_nodes(lattice) * 0.3 + 2.0).astype(np.float32))).max() < 1e-3
    a, b = noise((3, *lattice.shape)), noise((3, *lattice.shape), 1)
    assert np.vdot(bending(a), b) == pytest.approx(np.vdot(a, bending(b)), rel=1e-3)
    assert np.vdot(bending(a), a) > 0


def test_bending_counts_every_second_difference() -> None:
    bending = Bending(np.ones((9, 9, 9), np.float32))
    spike = np.zeros((1, 9, 9, 9), np.float32)
    spike[0, 4, 4, 4] = 1.0
    assert bending(spike)[0, 4, 4, 4] == pytest.approx(Bending.DIAGONAL)


def test_what_is_loose_bends_for_less() -> None:
    """A bend at one plane of nodes, along any axis, costs what that plane holds; elsewhere nothing."""
    for axis in range(3):
        bent = np.zeros((1, 9, 8, 7), np.float32)
        at = np.abs(np.arange(bent.shape[axis + 1]) - 3.0).astype(np.float32)
        bent += at.reshape([-1 if n == axis else 1 for n in range(3)])
        firm = np.ones(bent.shape[1:], np.float32)
        whole = float(np.vdot(bent, Bending(firm)(bent)))
        assert whole == pytest.approx(4.0 * bent.size / bent.shape[axis + 1]), "the second difference is 2"
        np.moveaxis(firm, axis, 0)[3] = 0.05
        assert float(np.vdot(bent, Bending(firm)(bent))) == pytest.approx(0.05 * whole, rel=1e-3)
