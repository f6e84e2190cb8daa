from __future__ import annotations

import time
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.operators import trajectory
from IntraopMRIReconstructionLib.reconstruct import radial
from IntraopMRIReconstructionLib.reconstruct.gradient_delays import gradient_delays
from IntraopMRIReconstructionLib.reconstruct.radial import SlidingWindow, iterative_sense
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, grid_points_mm, kspace_at, ring_of_coils, voxel_means

MATRIX, READOUT, COILS, FIELD = 96, 192, 4, 240.0
DELAYS = np.array([[0.45, 0.08], [0.08, 0.3]])
#: NRMSE of a fully sampled Cartesian scan of the same head and matrix is 0.055: Gibbs ringing at its edges.
CARTESIAN_ERROR = 0.055


def golden_angles(spokes: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.arange(spokes) * trajectory.GOLDEN_ANGLE_RAD, np.float64)


def acquired(angles: np.ndarray, delays: np.ndarray | None = None) -> np.ndarray:
    """(coils, spokes, readout) in closed form."""
    k = trajectory.radial(angles, READOUT, MATRIX, delays).astype(float)
    data = kspace_at(k / FIELD, HEAD_2D, ring_of_coils(COILS, FIELD)) * MATRIX / FIELD**2
    return data.astype(np.complex64)


@cache
def truth() -> tuple[np.ndarray, np.ndarray]:
    """(head times root sum of squares of the coils (y, x), maps (coils, y, x))."""
    points = grid_points_mm((MATRIX, MATRIX), (FIELD, FIELD))
    coils = np.stack([coil.at(points) for coil in ring_of_coils(COILS, FIELD)])
    strength = np.sqrt((np.abs(coils) ** 2).sum(axis=0))
    head = voxel_means((MATRIX, MATRIX), (FIELD, FIELD), HEAD_2D).real
    return head * strength, (coils / strength).astype(np.complex64)


def error(image: np.ndarray) -> float:
    return float(np.linalg.norm(np.abs(image) - np.abs(truth()[0])) / np.linalg.norm(truth()[0]))


def window_of(data: np.ndarray, angles: np.ndarray, window: int, delays: np.ndarray | None = None) -> SlidingWindow:
    stream = SlidingWindow(MATRIX, COILS, READOUT, window, threads=1)
    if delays is not None:
        stream.delays = delays
    for number, angle in enumerate(angles):
        stream.add(data[:, number], angle)
    return stream


@cache
def spokes(count: int) -> tuple[np.ndarray, np.ndarray]:
    angles = golden_angles(count)
    return acquired(angles), angles


def test_enough_spokes_are_as_good_as_a_cartesian_scan() -> None:
    data, angles = spokes(144)
    stream = window_of(data, angles, 144)
    assert error(stream.frame().image) < 1.3 * CARTESIAN_ERROR
    stream.calibrate(truth()[1])
    assert error(stream.frame().image) < 1.3 * CARTESIAN_ERROR
    stream.calibrate()
    assert error(stream.frame().image) < 1.4 * CARTESIAN_ERROR


def test_window_holds_the_last_spokes_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    data, angles = spokes(60)
    fresh = window_of(data[:, -20:], angles[-20:], 20).coil_images()
    for between in (4096, 7):
        monkeypatch.setattr(radial, "SPOKES_BETWEEN_SUMS", between)
        slid = window_of(data, angles, 20)
        assert slid.spokes == 20
        assert np.abs(slid.coil_images() - fresh).max() < 1e-5 * np.abs(fresh).max()


def test_latency_is_that_of_the_last_spoke() -> None:
    data, angles = spokes(60)
    stream = SlidingWindow(MATRIX, COILS, READOUT, 8)
    stream.add(data[:, 0], angles[0], 1.0)
    stream.add(data[:, 1], angles[1], 2.0)
    frame = stream.frame()
    assert frame.shots == 2
    assert frame.age_s(2.25) == pytest.approx(0.25)
    stream.add(data[:, 2], angles[2])
    age = stream.frame().age_s()
    assert age is not None
    assert 0 <= age <= time.monotonic()


@pytest.mark.parametrize("backend", ["finufft", "sparse"])
def test_iterations_remove_the_streaks_of_few_spokes(backend: radial.Backend) -> None:
    data, angles = spokes(144)
    data, angles = data[:, :32], angles[:32]
    stream = window_of(data, angles, 32)
    stream.calibrate(truth()[1])
    k = trajectory.radial(angles, READOUT, MATRIX)
    weights = trajectory.radial_density(angles, READOUT, MATRIX, 32)
    seen: list[float] = []
    image = iterative_sense(data, k, truth()[1], weights, 12, 1, backend, seen.append)
    assert error(image) < 0.5 * error(stream.frame().image)
    assert error(image) < 0.11
    assert len(seen) == 12


@pytest.mark.parametrize("count", [8, 34])
def test_gradient_delays_are_found_from_where_spokes_cross(count: int) -> None:
    angles = golden_angles(count)
    found = gradient_delays(acquired(angles, DELAYS), angles, MATRIX)
    assert np.allclose(found.matrix, DELAYS, atol=1e-3)
    assert found.residual_after < 1e-3 < found.residual_before


def test_gradient_delays_under_noise() -> None:
    angles = golden_angles(34)
    data = acquired(angles, DELAYS)
    noise = np.random.default_rng(2).standard_normal((*data.shape, 2)) * 0.02
    found = gradient_delays(data + noise.view(np.complex128)[..., 0].astype(np.complex64), angles, MATRIX)
    assert np.allclose(found.matrix, DELAYS, atol=0.02)


def test_known_delays_bring_the_picture_back() -> None:
    angles = golden_angles(144)
    data = acquired(angles, DELAYS)
    assert error(window_of(data, angles, 144).frame().image) > 2 * CARTESIAN_ERROR
    # Delayed spokes miss the centre, where most of the signal is: what they sample is no longer even.
    assert error(window_of(data, angles, 144, DELAYS).frame().image) < 1.5 * CARTESIAN_ERROR


def test_delays_that_nothing_explains_are_refused() -> None:
    angles = golden_angles(12)
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((COILS, 12, READOUT)) + 1j * rng.standard_normal((COILS, 12, READOUT))
    with pytest.raises(ReconstructionError, match="no gradient delay"):
        gradient_delays(noise.astype(np.complex64), angles, MATRIX)
    with pytest.raises(ReconstructionError, match="centre of every spoke is zero"):
        gradient_delays(np.zeros((COILS, 12, READOUT), np.complex64), angles, MATRIX)
    with pytest.raises(ReconstructionError, match="at least 4 spokes"):
        gradient_delays(noise[:, :3], angles[:3], MATRIX)
    with pytest.raises(ReconstructionError, match="hardly cross"):
        gradient_delays(noise, np.linspace(0, 0.1, 12), MATRIX)
    with pytest.raises(ReconstructionError, match="NaN"):
        gradient_delays(np.where(noise.real > 2, np.nan, noise), angles, MATRIX)


def test_refused_spokes_leave_the_window_as_it_was() -> None:
    data, angles = spokes(60)
    stream = window_of(data[:, :5], angles[:5], 8)
    before = stream.coil_images()
    with pytest.raises(ReconstructionError, match="spoke must have shape"):
        stream.add(data[:, 0, :-1], 0.0)
    with pytest.raises(ReconstructionError, match="NaN"):
        stream.add(np.full((COILS, READOUT), np.nan, np.complex64), 0.0)
    assert np.array_equal(stream.coil_images(), before)
    with pytest.raises(ReconstructionError, match="maps must have shape"):
        stream.calibrate(truth()[1][:2])
    with pytest.raises(ReconstructionError, match="no spoke has arrived"):
        SlidingWindow(MATRIX, COILS, READOUT, 8).frame()
    with pytest.raises(ReconstructionError, match="needs a coil and a spoke"):
        SlidingWindow(MATRIX, COILS, READOUT, 0)
    with pytest.raises(ReconstructionError, match="samples must have shape"):
        iterative_sense(data, np.zeros((3, READOUT, 2)), truth()[1], np.ones((3, READOUT), np.float32))
