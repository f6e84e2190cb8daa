from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.operators.fourier import image_from_kspace
from IntraopMRIReconstructionLib.reconstruct import epi
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, Ellipsoid, cartesian_kspace, kspace_at, ring_of_coils

MATRIX, FIELD = 64, 240.0
COILS = ring_of_coils(4, FIELD)
#: A delay of the backward lines in k-space samples and their phase: the truth of the ghost.
DELAY, PHASE = 0.35, 0.9
OBJECT = (*HEAD_2D[:2], Ellipsoid((30.0, 25.0), (15.0, 9.0), 0.5), Ellipsoid((-25.0, -50.0), (8.0, 12.0), 0.7))
BACKWARD = np.arange(MATRIX) % 2 == 1


@cache
def clean() -> np.ndarray:
    return cartesian_kspace((MATRIX, MATRIX), (FIELD, FIELD), OBJECT, COILS)


def at(kx: np.ndarray, ky: np.ndarray) -> np.ndarray:
    """Closed-form samples (coils, ky, x) at positions in cycles per field of view."""
    k = np.stack(np.broadcast_arrays(kx, ky[:, None]), axis=-1) / FIELD
    return (kspace_at(k, OBJECT, COILS) * MATRIX / FIELD**2).astype(np.complex64)


@cache
def ghosted() -> np.ndarray:
    kx, ky = (np.arange(MATRIX) - MATRIX // 2,) * 2
    moved = at(kx + DELAY, ky) * np.exp(1j * PHASE)
    return np.where(BACKWARD[:, None], moved, clean()).astype(np.complex64)


def picture(kspace: np.ndarray) -> np.ndarray:
    return np.sqrt((np.abs(image_from_kspace(kspace.copy(), (-2, -1))) ** 2).sum(axis=0))


def error(kspace: np.ndarray) -> float:
    return float(np.linalg.norm(picture(kspace) - picture(clean())) / np.linalg.norm(picture(clean())))


def test_positions_on_ramps() -> None:
    flat = epi.Trapezoid(0.0, 64e-6, 1e-6, 64).positions(MATRIX)
    assert np.allclose(flat, np.arange(64) - 31.5)
    ramps = epi.Trapezoid(20e-6, 40e-6, 0.5e-6, 160).positions(MATRIX)
    assert np.allclose(ramps, -ramps[::-1])
    assert np.diff(ramps)[0] < 0.1 * np.diff(ramps)[80]
    # By hand: the area is 60 us, of which the ramp of 20 us carries 10.
    assert np.interp(20e-6, (np.arange(160) + 0.5) * 0.5e-6, ramps) == pytest.approx(-MATRIX / 2 * 40 / 60, abs=0.05)


def test_ramp_samples_come_back_onto_the_grid() -> None:
    positions = epi.Trapezoid(20e-6, 44e-6, 0.5e-6, 160, 2e-6).positions(MATRIX)
    samples = at(positions, np.arange(MATRIX) - MATRIX // 2)
    found = np.einsum("xs,cys->cyx", epi.regridding(positions, MATRIX), samples).astype(np.complex64)
    assert error(found) < 0.02
    naive = samples[..., :: len(positions) // MATRIX][..., :MATRIX]
    assert error(np.ascontiguousarray(naive)) > 10 * error(found)


def test_ghost_from_navigators() -> None:
    kx = np.arange(MATRIX) - MATRIX // 2
    drift = np.exp(0.2j)
    first, second, third = at(kx, np.zeros(1)), at(kx + DELAY, np.zeros(1)) * np.exp(1j * PHASE), at(kx, np.zeros(1))
    ghost = epi.ghost_from_navigators(np.concatenate([first / drift, third * drift], axis=1), second)
    assert ghost.offset_rad == pytest.approx(PHASE, abs=0.02)
    assert ghost.slope_rad == pytest.approx(-2 * np.pi * DELAY, abs=0.05)
    assert ghost.sure
    assert error(ghosted()) > 0.3
    assert error(epi.without_ghost(ghosted(), BACKWARD, ghost)) < 0.03


@pytest.mark.parametrize("with_reference", [False, True])
def test_ghost_from_entropy(with_reference: bool) -> None:
    ghost = epi.ghost_from_entropy(ghosted(), BACKWARD, picture(clean()) if with_reference else None)
    assert ghost.offset_rad == pytest.approx(PHASE, abs=0.05)
    assert ghost.slope_rad == pytest.approx(-2 * np.pi * DELAY, abs=0.1)
    assert ghost.sure
    assert error(epi.without_ghost(ghosted(), BACKWARD, ghost)) < 0.06


def test_a_reference_decides_for_an_object_off_the_middle() -> None:
    """Half a field away from the middle the assumption is wrong, and only a reference finds the object."""
    shift = np.where(BACKWARD, -1, 1)[:, None]
    reference = picture(clean() * shift)
    away = ghosted() * shift
    found = epi.ghost_from_entropy(away.astype(np.complex64), BACKWARD, reference)
    assert found.offset_rad == pytest.approx(PHASE, abs=0.05)
    assumed = epi.ghost_from_entropy(away.astype(np.complex64), BACKWARD)
    assert abs(np.angle(np.exp(1j * (assumed.offset_rad - PHASE)))) > 3


def test_an_object_that_fills_the_field_is_not_sure() -> None:
    rng = np.random.default_rng(7)
    noise = rng.standard_normal((2, 32, 32)) + 1j * rng.standard_normal((2, 32, 32))
    ghost = epi.ghost_from_entropy(noise.astype(np.complex64), np.arange(32) % 2 == 0)
    assert not ghost.sure
    assert "half the field" in ghost.how


def test_refused() -> None:
    with pytest.raises(ReconstructionError, match="do not fit a gradient"):
        epi.Trapezoid(10e-6, 40e-6, 1e-6, 100).positions(MATRIX)
    with pytest.raises(ReconstructionError, match="cannot make 64 voxels"):
        epi.regridding(np.linspace(-32, 32, 40), MATRIX)
    with pytest.raises(ReconstructionError, match="navigators must have shape"):
        epi.ghost_from_navigators(clean()[:, :1], clean()[:2, :1])
    with pytest.raises(ReconstructionError, match="carry no signal"):
        epi.ghost_from_navigators(clean()[:, :1] * 0, clean()[:, :1])
    with pytest.raises(ReconstructionError, match="one direction"):
        epi.ghost_from_entropy(clean(), np.zeros(MATRIX, bool))
    with pytest.raises(ReconstructionError, match="direction for each ky"):
        epi.without_ghost(clean(), BACKWARD[:-1], epi.Ghost(0.0, 0.0, True, ""))
    with pytest.raises(ReconstructionError, match="NaN"):
        epi.ghost_from_entropy(clean() * np.complex64(np.nan), BACKWARD)
    with pytest.raises(ReconstructionError, match="reference image must have shape"):
        epi.ghost_from_entropy(clean(), BACKWARD, np.ones((3, 3)))
