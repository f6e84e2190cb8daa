from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.operators import trajectory
from IntraopMRIReconstructionLib.operators.fourier import kspace_from_image
from IntraopMRIReconstructionLib.operators.nufft import Backend, Nufft
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, kspace_at, voxel_means
from IntraopMRIReconstructionLib.simulate.raw_scans import spiral_scan

SHAPE = (40, 33)
#: Share of the signal that the two back ends may be off: kernel of 5 cells, finufft asked for 1e-3.
ACCURACY = 4e-3
FIELD = 240.0


def direct(k: np.ndarray) -> np.ndarray:
    """The matrix (samples, y, x) of the transform, from its definition."""
    y, x = (np.arange(n) - n // 2 for n in SHAPE)
    phase = k[:, 1, None, None] * y[:, None] / SHAPE[0] + k[:, 0, None, None] * x / SHAPE[1]
    return np.exp(-2j * np.pi * phase) / np.sqrt(np.prod(SHAPE))


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    k = rng.uniform(-0.5, 0.5, (300, 2)) * SHAPE[::-1]
    images = rng.standard_normal((3, *SHAPE)) + 1j * rng.standard_normal((3, *SHAPE))
    samples = rng.standard_normal((3, 300)) + 1j * rng.standard_normal((3, 300))
    return k, images.astype(np.complex64), samples.astype(np.complex64)


@pytest.mark.parametrize("backend", ["finufft", "sparse"])
@pytest.mark.parametrize("coils", [1, 3])
def test_agrees_with_the_definition(
    case: tuple[np.ndarray, np.ndarray, np.ndarray], backend: Backend, coils: int
) -> None:
    k, images, samples = case
    images, samples = images[:coils], samples[:coils]
    nufft = Nufft(k, SHAPE, coils, backend=backend)
    matrix = direct(k)
    forward = np.einsum("myx,cyx->cm", matrix, images)
    adjoint = np.einsum("myx,cm->cyx", matrix.conj(), samples)
    for _ in range(2):  # the plan serves every frame
        assert np.linalg.norm(nufft.forward(images) - forward) < ACCURACY * np.linalg.norm(forward)
        assert np.linalg.norm(nufft.adjoint(samples) - adjoint) < ACCURACY * np.linalg.norm(adjoint)


def test_cartesian_positions_give_the_centred_fft(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    images = case[1]
    ky, kx = np.meshgrid(*(np.arange(n) - n // 2 for n in SHAPE), indexing="ij")
    found = Nufft(np.stack([kx, ky], axis=-1), SHAPE, 3).forward(images).reshape(images.shape)
    truth = kspace_from_image(images, (-2, -1))
    assert np.linalg.norm(found - truth) < ACCURACY * np.linalg.norm(truth)


def test_without_finufft(monkeypatch: pytest.MonkeyPatch, case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert Nufft(case[0], SHAPE, 3).backend == "sparse"
    with pytest.raises(ReconstructionError, match="finufft is not installed"):
        Nufft(case[0], SHAPE, 3, backend="finufft")


@pytest.mark.parametrize(
    ("k", "words"),
    [
        (np.zeros((5, 3)), r"shape \(\.\.\., 2\)"),
        (np.full((5, 2), np.nan), "5 positions .* NaN"),
        (np.full((5, 2), 400.0), "beyond half of the matrix"),
    ],
)
def test_refused_trajectories(k: np.ndarray, words: str) -> None:
    with pytest.raises(ReconstructionError, match=words):
        Nufft(k, SHAPE, 1)


def test_refused_data(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    nufft = Nufft(case[0], SHAPE, 3)
    with pytest.raises(ReconstructionError, match="samples must be"):
        nufft.adjoint(case[2][:, :-1])
    with pytest.raises(ReconstructionError, match="images must have shape"):
        nufft.forward(case[1][:2])
    with pytest.raises(ReconstructionError, match="at least 2 x 2"):
        Nufft(np.zeros((4, 2)), (1, 8), 1, backend="sparse")


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.5])
def test_densities_add_up_to_the_covered_area(delay: float) -> None:
    matrix, spokes = 64, 50
    angles = np.arange(spokes) * np.pi / spokes
    ramp = trajectory.radial_density(angles, 128, matrix, spokes, np.eye(2) * delay)
    assert ramp.sum() == pytest.approx(np.pi * (matrix / 2) ** 2, rel=0.01)


def test_cell_areas_agree_with_the_ramp() -> None:
    matrix, spokes, readout = 64, 128, 128
    angles = np.arange(spokes) * np.pi / spokes
    k = trajectory.radial(angles, readout, matrix)
    found = trajectory.density(k)
    ramp = trajectory.radial_density(angles, readout, matrix, spokes)
    assert np.allclose(found[:, 1 : readout // 2 - 2], ramp[:, 1 : readout // 2 - 2], rtol=0.02)
    assert found.sum() == pytest.approx(np.pi * (matrix / 2 + 0.5) ** 2, rel=0.02)
    with pytest.raises(ReconstructionError, match="at least 4 different"):
        trajectory.density(np.zeros((9, 2)))


def test_adjoint_with_densities_shows_the_brightness() -> None:
    matrix = 96
    k = spiral_scan(matrix, 1, 24).blocks[0].trajectory
    assert k is not None
    weights = trajectory.density(k)
    data = kspace_at(k.astype(float) / FIELD, HEAD_2D) * matrix / FIELD**2
    image = Nufft(k, (matrix, matrix), 1).adjoint((data * weights)[None].astype(np.complex64))[0]
    truth = voxel_means((matrix, matrix), (FIELD, FIELD), HEAD_2D)
    assert abs(np.vdot(truth, image) / np.vdot(truth, truth) - 1) < 0.03


def test_refused_shapes_of_trajectories() -> None:
    with pytest.raises(ReconstructionError, match="at least 2 samples"):
        trajectory.radial([0.0], 1, 64)
