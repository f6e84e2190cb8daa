from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.operators.fourier import image_from_kspace
from IntraopMRIReconstructionLib.reconstruct import metal
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, cartesian_kspace, ring_of_coils

FIELD = 240.0
Z, X = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])


def test_blur_of_a_tilted_view_is_undone() -> None:
    size, slice_mm, tilt = 128, 4.0, 30.0
    kspace = cartesian_kspace((size, size), (FIELD, FIELD), HEAD_2D, ring_of_coils(2, FIELD))
    truth = image_from_kspace(kspace.copy(), (-2, -1))
    width = slice_mm * np.tan(np.deg2rad(tilt))
    cycles = (np.arange(size) - size // 2) / FIELD
    # A slice seen from aside is a box: the mean of the picture moved by every part of its width.
    places = (np.arange(400) + 0.5) / 400 * width - width / 2
    blurred = image_from_kspace(
        (kspace * np.exp(2j * np.pi * np.outer(places, cycles)).mean(axis=0)).astype(np.complex64), (-2, -1)
    )
    found = metal.vat_deblurred(blurred, tilt, slice_mm, FIELD)
    assert np.linalg.norm(blurred - truth) > 0.02 * np.linalg.norm(truth)
    assert np.linalg.norm(found - truth) < 1e-3 * np.linalg.norm(truth)
    noise = np.random.default_rng(8).standard_normal((64, 128)).astype(np.complex64)
    assert np.linalg.norm(metal.vat_deblurred(noise, 75, 10, FIELD)) < 5.01 * np.linalg.norm(noise)


def test_bins_of_mavric_make_one_picture_and_a_field() -> None:
    centres = np.arange(-12, 13) * 1000.0
    truth = np.linspace(-9000, 9000, 4 * 5 * 6).reshape(4, 5, 6)
    # Gaussian bins as wide as MAVRIC's (FWHM 2.25 kHz) overlap so that their squares add up to a constant.
    bins = np.stack([np.exp(-4 * np.log(2) * ((truth - centre) / 2250) ** 2) for centre in centres])
    found = metal.mavric(bins, centres)
    assert np.allclose(found.magnitude, found.magnitude.mean(), rtol=0.01)
    assert np.abs(found.hz - truth).max() < 30
    assert np.isnan(metal.mavric(bins * 0, centres).hz).all()
    assert np.isnan(metal.mavric(bins, centres, noise=10.0).hz).all()


def test_slices_of_semac_go_back_to_their_place() -> None:
    rng = np.random.default_rng(9)
    truth = rng.uniform(0.5, 1, (9, 6, 7))
    moved = rng.integers(-2, 3, truth.shape)  # how many slices metal moved each voxel
    excited = np.zeros((9, 5, 6, 7))
    for z in range(9):
        for offset in range(-2, 3):
            s = z + offset
            if 0 <= s < 9:
                excited[s, 2 - offset] += np.where(moved[z] == offset, truth[z], 0)
    found = metal.semac(excited, 0, 9)
    reached = (np.arange(9)[:, None, None] + moved >= 0) & (np.arange(9)[:, None, None] + moved < 9)
    assert np.allclose(found, truth * reached)


def test_field_of_a_cylinder() -> None:
    points = np.array([[4.0, 0, 0], [0, 0, 4.0], [0, 9.0, 4.0], [0.5, 0, 0], [0, 0, -8.0]])
    hz = metal.cylinder_hz(points, np.array([0, 1.0, 0]), 2.0, 182.0, 1.5, Z)
    half = 42.577478518e6 * 1.5 * 182e-6 / 2
    assert np.allclose(hz, half * np.array([-1 / 4, 1 / 4, 1 / 4, 0, 1 / 16]))
    assert np.allclose(metal.cylinder_hz(points, Z, 2.0, 182.0, 1.5, Z), 0)


def scene() -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """(field (z, y, x) of a titanium rod along y in a field along z, the rod, spacing)"""
    spacing = (0.5, 2.0, 0.5)
    axes = [(np.arange(n) - n // 2) * step for n, step in zip((161, 8, 161), spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    points = np.stack([x, y, z], axis=-1)
    return metal.cylinder_hz(points, np.array([0, 1.0, 0]), 2.5, 182.0, 1.5, Z), np.hypot(x, z) < 2.5, spacing


@pytest.mark.parametrize("hz_per_mm", [100.0, 400.0])
def test_extent_of_the_artefact(hz_per_mm: float) -> None:
    hz, rod, spacing = scene()
    found = metal.void_around(hz, rod, spacing, hz_per_mm, np.inf)
    # On both axes |f| = C (R / r)^2, which falls to the tolerance of 1 mm at r = R sqrt(C / hz_per_mm).
    reach = 2.5 * np.sqrt(42.577478518e6 * 1.5 * 182e-6 / 2 / hz_per_mm) - 2.5
    assert found.readout_mm == pytest.approx(reach, abs=0.75)
    assert found.slice_mm == pytest.approx(reach, abs=0.75)
    assert found.shift_mm[1] == 0
    assert found.shift_mm[0] == pytest.approx(np.abs(hz).max() / hz_per_mm)
    assert found.mask[rod].all()


def test_other_displaced_signal_is_not_of_the_implant() -> None:
    hz, rod, spacing = scene()
    hz[5:10, :, 5:10] = 1e4
    found = metal.void_around(hz, rod, spacing, 400.0, 2000.0)
    assert not found.mask[5:10, :, 5:10].any()
    unknown = hz.copy()
    unknown[np.abs(hz) > 2000] = np.nan
    assert np.array_equal(metal.void_around(unknown, rod, spacing, 400.0, 2000.0).mask, found.mask)


def test_refused() -> None:
    hz, rod, spacing = scene()
    with pytest.raises(ReconstructionError, match="reaches the rim"):
        metal.void_around(hz, rod, spacing, 5.0, np.inf)
    with pytest.raises(ReconstructionError, match="with 0 voxels"):
        metal.void_around(hz, rod & False, spacing, 100.0, 100.0)
    with pytest.raises(ReconstructionError, match="must be positive"):
        metal.void_around(hz, rod, spacing, 0.0, 100.0)
    with pytest.raises(ReconstructionError, match="rising centres"):
        metal.mavric(np.zeros((2, 3, 3, 3)), np.array([1.0, 0.0]))
    with pytest.raises(ReconstructionError, match="NaN"):
        metal.mavric(np.full((2, 3, 3, 3), np.nan), np.array([0.0, 1.0]))
    with pytest.raises(ReconstructionError, match="SEMAC needs"):
        metal.semac(np.zeros((2, 3, 3)), 0, 3)
    with pytest.raises(ReconstructionError, match="tilt below 80"):
        metal.vat_deblurred(np.zeros((2, 2), np.complex64), 85, 4, FIELD)
    with pytest.raises(ReconstructionError, match="radius and a field"):
        metal.cylinder_hz(np.zeros((1, 3)), Z, 0.0, 182.0, 1.5, X)
