"""The simulated artefact of a rod: its field is Schenck's, no signal is made or lost, polarity mirrors it."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import invert, rotation_about
from IntraopMRIReconstructionLib.simulate import metal
from IntraopMRIReconstructionLib.simulate.grids import points_of
from IntraopMRIReconstructionLib.simulate.metal import MetalScan, with_rod

SIZE = 72


def grid_of(directions: np.ndarray, spacing_mm: float = 1.0) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * spacing_mm
    matrix[:3, 3] = -matrix[:3, :3] @ np.full(3, (SIZE - 1) / 2)
    return matrix


def ends(directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A rod along the j axis of the scan."""
    return directions @ (0.0, -18.0, 0.0), directions @ (0.0, 18.0, 0.0)


def test_the_field_is_that_of_a_long_cylinder() -> None:
    box = np.eye(4)
    box[:3, :3] *= 0.5
    box[:3, 3] = (-16.0, -30.0, -16.0)
    shape = (64, 120, 64)
    points = points_of(box, shape)
    rod = metal._rod(points, (np.array([0, -30.0, 0]), np.array([0, 30.0, 0])), 5.0, 0.5)
    north = (0.3, 0.0, 0.954)
    hz = metal._field(rod, box, MetalScan(1.5, field_ras=north))
    x, z = points[..., 0].astype(float), points[..., 2].astype(float)
    r = np.hypot(x, z)
    angle = np.arctan2(z, x) - np.arctan2(north[2], north[0])
    half = 42.577478518e6 * 1.5 * 182e-6 / 2
    expected = half * (2.5 / np.maximum(r, 2.5)) ** 2 * np.cos(2 * angle) / np.hypot(north[0], north[2]) ** -2
    middle = (np.abs(points[..., 1]) < 5) & (r > 3.5) & (r < 10)
    error = hz[middle] - expected[middle]
    assert np.std(error) < 0.03 * half
    assert abs(np.mean(error)) < 0.03 * half


def test_signal_is_moved_not_made(directions: np.ndarray) -> None:
    plain = np.full((SIZE,) * 3, 100.0, np.float32)
    scan = with_rod(plain, grid_of(directions), ends(directions), 5.0, MetalScan(readout_hz_per_mm=2000.0))
    lost_mm3 = float((plain - scan).sum()) / 100.0
    # All that is missing is the metal, but for the noise floor in the void.
    assert lost_mm3 == pytest.approx(np.pi * 2.5**2 * 36, rel=0.12)


def test_reversed_polarity_mirrors_the_void(directions: np.ndarray) -> None:
    """The field is even about the middle of the rod: reading backwards shows the picture turned by half a turn."""
    plain = np.full((SIZE,) * 3, 100.0, np.float32)
    both = [
        with_rod(plain, grid_of(directions), ends(directions), 5.0, MetalScan(readout_hz_per_mm=sign * 600.0))
        for sign in (1, -1)
    ]
    mirrored = both[1][::-1, ::-1, ::-1]
    inner = (slice(12, -12),) * 3
    assert np.corrcoef(both[0][inner].ravel(), mirrored[inner].ravel())[0, 1] > 0.98
    assert np.corrcoef(both[0][inner].ravel(), both[1][inner].ravel())[0, 1] < 0.9


def test_the_void_moves_away_from_the_metal_and_bins_keep_it_there() -> None:
    directions = rotation_about((0, 0, 1), 0.0)
    plain = np.full((SIZE,) * 3, 100.0, np.float32)
    middles = {}
    for name, scan in {
        "plain": MetalScan(readout_hz_per_mm=800.0),
        "bins": MetalScan(readout_hz_per_mm=800.0, spectral_bin_hz=800.0),
    }.items():
        row = with_rod(plain, grid_of(directions), ends(directions), 5.0, scan)[35:37, 36].mean(axis=0)
        middles[name] = float(np.median(np.flatnonzero(row < 60))) - (SIZE - 1) / 2
    assert abs(middles["plain"]) > 0.8
    assert abs(middles["bins"]) <= 0.5


def test_slices_are_displaced_too() -> None:
    plain = np.full((SIZE,) * 3, 100.0, np.float32)
    grid = grid_of(np.eye(3))
    sliced = with_rod(plain, grid, ends(np.eye(3)), 5.0, MetalScan(readout_hz_per_mm=1e6, slice_hz_per_mm=800.0))
    void = sliced[:, 34:38].mean(axis=1) < 50
    k, i = (np.flatnonzero(void.any(axis=axis)).mean() - (SIZE - 1) / 2 for axis in (1, 0))
    assert abs(k) > 0.8
    assert abs(i) < 0.6


def test_refused() -> None:
    with pytest.raises(DataError, match="gradients"):
        MetalScan(readout_hz_per_mm=0.0)
    outside = np.array([500.0, 0, 0]), np.array([540.0, 0, 0])
    with pytest.raises(DataError, match="outside the scan"):
        with_rod(np.ones((20, 20, 20), np.float32), invert(np.eye(4)), outside, 5.0, MetalScan())
