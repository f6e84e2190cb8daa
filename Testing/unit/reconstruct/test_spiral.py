from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.operators import trajectory
from IntraopMRIReconstructionLib.operators.remembered import REMEMBERED, remembered
from IntraopMRIReconstructionLib.reconstruct.auto import reconstruct
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.shots import Shots
from IntraopMRIReconstructionLib.reconstruct.spiral import KnownTrajectory
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, grid_points_mm, kspace_at, ring_of_coils, voxel_means
from IntraopMRIReconstructionLib.simulate.raw_scans import spiral_scan

SHAPE, COILS, FIELD, SHOTS = (80, 80), 4, 240.0, 16


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(k, samples, maps, truth)"""
    k = trajectory.spiral(SHOTS, 700, SHAPE[0])
    coils = ring_of_coils(COILS, FIELD)
    samples = kspace_at(k.astype(float) / FIELD, HEAD_2D, coils) * SHAPE[0] / FIELD**2
    points = grid_points_mm(SHAPE, (FIELD, FIELD))
    sensitivities = np.stack([coil.at(points) for coil in coils])
    strength = np.sqrt((np.abs(sensitivities) ** 2).sum(axis=0))
    truth = voxel_means(SHAPE, (FIELD, FIELD), HEAD_2D).real * strength
    return k, samples.astype(np.complex64), (sensitivities / strength).astype(np.complex64), truth


def error(image: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(np.abs(image) - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize("backend", ["finufft", "sparse"])
def test_full_spiral(case: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], backend: str) -> None:
    k, samples, maps, truth = case
    for given in (None, maps):
        scan = KnownTrajectory(k, SHAPE, COILS, given, 1, "finufft" if backend == "finufft" else "sparse")
        frame = scan.frame(samples, 3.0)
        # Turns lie at the Nyquist distance exactly, and the corners of k-space are not there.
        assert error(frame.image, truth) < 0.15
        assert frame.shots == SHOTS
        assert frame.age_s(3.5) == pytest.approx(0.5)


def test_half_of_the_shots(case: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]) -> None:
    k, samples, maps, truth = case
    scan = KnownTrajectory(k[::2], SHAPE, COILS, maps, 1)
    image = scan.iterative(samples[:, ::2], 15)
    assert error(image, truth) < 0.12
    assert error(image, truth) < 0.6 * error(scan.frame(samples[:, ::2]).image, truth)


def test_refused(case: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]) -> None:
    k, samples, maps, _ = case
    scan = KnownTrajectory(k, SHAPE, COILS)
    with pytest.raises(ReconstructionError, match="samples must have shape"):
        scan.frame(samples[:, :-1])
    with pytest.raises(ReconstructionError, match="NaN"):
        scan.frame(samples * np.complex64(np.nan))
    with pytest.raises(ReconstructionError, match="needs coil maps"):
        scan.iterative(samples)
    with pytest.raises(ReconstructionError, match="maps must have shape"):
        KnownTrajectory(k, SHAPE, COILS, maps[:2])


def test_frames_of_a_live_scan_share_what_depends_on_the_trajectory(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = spiral_scan(48, 4, 7)
    made = collector(scan.encoding)
    for block in scan.blocks:
        made.add(block)
    shots = made.kspace()
    assert isinstance(shots, Shots)
    calls: list[int] = []
    voronoi = trajectory.Voronoi

    def counted(points: np.ndarray) -> object:
        calls.append(len(points))
        return voronoi(points)

    monkeypatch.setattr(trajectory, "Voronoi", counted)
    first, again = reconstruct(shots, "gridding"), reconstruct(shots, "gridding")
    assert len(calls) == 1
    assert np.array_equal(first.image.array, again.image.array)
    # By content, not by the array that carries it.
    shots.k[0] *= 0.5
    other = reconstruct(shots, "gridding")
    assert len(calls) == 2
    assert not np.array_equal(first.image.array, other.image.array)


def test_what_is_remembered_cannot_be_changed_and_is_forgotten_in_turn() -> None:
    calls: list[float] = []

    @remembered
    def doubled(array: np.ndarray, factor: float = 2.0) -> np.ndarray:
        calls.append(factor)
        return np.asarray(array * factor)

    one = doubled(np.ones(3))
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 5
    assert doubled(np.ones(3)) is one
    assert doubled(np.ones(3), 3.0)[0] == 3
    assert doubled(np.ones(3), factor=4.0)[0] == 4
    assert doubled(np.ones((3, 1))).shape == (3, 1)
    assert len(calls) == 4
    for number in range(REMEMBERED):
        doubled(np.full(2, number))
    assert doubled(np.ones(3)) is not one
