from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.field_map import field_map
from IntraopMRIReconstructionLib.reconstruct.phase import unwrapped, wrapped

SHAPE = (8, 40, 44)
TIMES = (0.0042, 0.0065, 0.0089, 0.0135)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """(true field in Hz, magnitude): a head-like ball whose field exceeds what the first echo pair can tell."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    hz = 500 * x * y - 200 * y**2 + 150 * x + 40 * z
    return hz, np.where(x**2 + y**2 < 0.9, 1.0, 0.0)


def echoes(hz: np.ndarray, magnitude: np.ndarray, times: tuple[float, ...], noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(5)
    images = np.stack([magnitude * np.exp(1j * (2 * np.pi * hz * t + 0.7)) * np.exp(-t / 0.03) for t in times])
    return images + noise * (rng.standard_normal(images.shape) + 1j * rng.standard_normal(images.shape))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_known_field_beyond_the_first_wrap(count: int) -> None:
    hz, magnitude = scene()
    assert np.ptp(hz[magnitude > 0]) > 1 / (TIMES[1] - TIMES[0])
    found = field_map(echoes(hz, magnitude, TIMES[:count]), TIMES[:count])
    assert np.abs(found.hz - hz)[found.mask].max() < 0.01
    assert np.isnan(found.hz[~found.mask]).all()
    assert np.array_equal(found.mask, magnitude > 0)
    assert found.parts == 1
    assert np.isnan(found.deviation_hz[found.mask]).all() == (count == 2)


def test_more_echoes_are_more_accurate_and_say_how_much() -> None:
    hz, magnitude = scene()
    images = echoes(hz, magnitude, TIMES, noise=0.02)
    two, four = field_map(images[:2], TIMES[:2]), field_map(images, TIMES)
    errors = [np.std((found.hz - hz)[magnitude > 0]) for found in (two, four)]
    assert errors[1] < 0.5 * errors[0]
    assert np.sqrt(np.mean(four.deviation_hz[four.mask] ** 2)) == pytest.approx(errors[1], rel=0.35)


def test_coils_with_phases_of_their_own() -> None:
    hz, magnitude = scene()
    _, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    coils = np.stack([np.exp(2j * x) * (1 + 0.5 * y), np.exp(-1j * y + 1) * (1 - 0.5 * y)])
    found = field_map(coils[:, None] * echoes(hz, magnitude, TIMES), TIMES)
    assert np.abs(found.hz - hz)[found.mask].max() < 0.01


def test_separate_parts_are_counted() -> None:
    hz, magnitude = scene()
    magnitude[:, :, 18:22] = 0
    assert field_map(echoes(hz, magnitude, TIMES), TIMES).parts == 2


def test_unwrapping_goes_around_noise() -> None:
    truth = np.fromfunction(lambda y, x: 0.04 * (x - 30) ** 2 + 0.2 * y, (60, 60))
    weight = np.ones((60, 60))
    phase = wrapped(truth)
    rng = np.random.default_rng(6)
    phase[20:30, 20:30] = rng.uniform(-np.pi, np.pi, (10, 10))
    weight[20:30, 20:30] = 0.01
    found, parts = unwrapped(phase, weight, np.ones((60, 60), bool))
    good = weight == 1
    turns = (found - truth)[good] / (2 * np.pi)
    assert parts.max() == 1
    assert np.allclose(turns, np.round(turns[0]), atol=1e-9)


def test_refused() -> None:
    hz, magnitude = scene()
    images = echoes(hz, magnitude, TIMES)
    with pytest.raises(ReconstructionError, match="at least two echoes"):
        field_map(images[:1], TIMES[:1])
    with pytest.raises(ReconstructionError, match="echo times must rise"):
        field_map(images, TIMES[::-1])
    with pytest.raises(ReconstructionError, match="echo times must rise and be in seconds"):
        field_map(images, (4.2, 6.5, 8.9, 13.5))
    with pytest.raises(ReconstructionError, match="NaN"):
        field_map(images * complex(np.nan), TIMES)
    with pytest.raises(ReconstructionError, match="mask is empty"):
        field_map(images, TIMES, np.zeros(SHAPE, bool))
    with pytest.raises(ReconstructionError, match="must have one shape"):
        unwrapped(hz, magnitude, np.ones((3, 3), bool))
    with pytest.raises(ReconstructionError, match="NaN or infinite"):
        unwrapped(hz * np.nan, magnitude, magnitude > 0)
