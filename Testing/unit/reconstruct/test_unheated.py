"""Drift, noise and motion by tissue that is not heated, on several kinds of anatomy with known shifts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.ablation import has_moved, heat_numbers, marked
from IntraopMRIReconstructionLib.reconstruct.thermometry import Heat, Thermometer, radians_per_c
from IntraopMRIReconstructionLib.reconstruct.unheated import Unheated
from numpy.typing import NDArray

SHAPE = (3, 64, 72)
Anatomy = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def edge(inside: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 inside (above 0), 0 outside, with an edge that voxels can show; in voxels."""
    return np.asarray(1 / (1 + np.exp(-2 * inside)))


def head(z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Skull, brain with folds, ventricles."""
    r = np.hypot(x / 30, (y - 0.5 * z) / 27)
    brain = edge(27 * (0.85 - r)) * (0.6 + 0.15 * np.sin(x / 2) * np.cos(y / 2.4 + z / 2))
    return brain + 0.9 * edge(27 * (1 - r)) * edge(27 * (r - 0.93)) - 0.4 * edge(6 - np.hypot(x, y - z))


def liver(z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """A large even organ with few vessels in a darker body that is wider than the picture."""
    organ = edge(22 - np.hypot(1.1 * (x - 4), y + z))
    vessels = edge(2 - np.hypot(x - 10, y - 4 - 2 * z)) + edge(2 - np.hypot(x + 2 - z, y + 8))
    return 0.35 + 0.45 * organ + 0.3 * vessels


def spine(z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vertebrae and discs in a column, muscle beside it."""
    column = edge(9 - np.abs(x)) * (0.7 + 0.25 * np.tanh(4 * np.sin((y + z) / 3.5)))
    return column + edge(np.abs(x) - 10) * (0.4 + 0.05 * np.sin((x + y + 2 * z) / 3))


def smooth(z: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tissue without an edge in sight."""
    return np.asarray(0.8 + 0.25 * np.cos(x / 14) * np.cos(y / 12) + 0.05 * z)


def picture(anatomy: Anatomy, moved: tuple[float, ...] = (0.0, 0.0, 0.0)) -> NDArray[np.complex128]:
    """The anatomy, displaced by so many voxels (z, y, x)."""
    z, y, x = (np.arange(size) - (size - 1) / 2 - off for size, off in zip(SHAPE, moved, strict=True))
    whole = np.meshgrid(z, y, x, indexing="ij")
    turned = np.exp(0.05j * whole[2] - 0.03j * whole[1])
    return np.asarray(anatomy(whole[0], whole[1], whole[2]) * turned)


def noisy(image: NDArray[np.complex128], noise: float, rng: np.random.Generator) -> NDArray[np.complex128]:
    pair = rng.standard_normal((2, *SHAPE))
    return np.asarray(image + noise * (pair[0] + 1j * pair[1]))


def unheated() -> NDArray[np.bool_]:
    y, x = (np.arange(size) - size / 2 for size in SHAPE[1:])
    return np.broadcast_to(np.hypot(y[:, None], x) > 9, SHAPE)


def frame(
    anatomy: Anatomy, moved: tuple[float, ...], noise: float, seed: int, mark: bool = True, gain: float = 1.0
) -> Heat:
    """What a thermometer says of the second of two frames."""
    rng = np.random.default_rng(seed)
    scan = Thermometer(noisy(picture(anatomy), noise, rng), 3.0, 0.012, unheated=unheated() if mark else None)
    scan.add(noisy(picture(anatomy), noise, rng), 0.0)
    return scan.add(noisy(gain * picture(anatomy, moved), noise, rng), 1.0)


@pytest.mark.parametrize("anatomy", [head, liver, spine, smooth])
@pytest.mark.parametrize("moved", [(0.0, 0.0, 0.4), (0.0, -0.35, 0.2), (0.0, 0.0, 1.0)])
def test_motion_is_found_in_voxels_on_any_anatomy(anatomy: Anatomy, moved: tuple[float, ...]) -> None:
    heat = frame(anatomy, moved, 0.01, 3, gain=1.1)
    assert has_moved(heat)
    if max(np.abs(moved)) < 0.5:
        assert heat.stillness.shift_voxels == pytest.approx(moved, abs=0.15)


@pytest.mark.parametrize("anatomy", [head, liver, spine])
@pytest.mark.parametrize("slices", [0.5, -0.5])
def test_motion_across_the_slices_is_found(anatomy: Anatomy, slices: float) -> None:
    # What runs aslant through the slices looks the same when it moves within them.
    assert has_moved(frame(anatomy, (slices, 0.0, 0.0), 0.01, 3))


@pytest.mark.parametrize("anatomy", [head, liver, spine, smooth])
@pytest.mark.parametrize("noise", [0.005, 0.02, 0.08, 0.16])
@pytest.mark.parametrize("mark", [True, False])
def test_noise_is_no_motion(anatomy: Anatomy, noise: float, mark: bool) -> None:
    for seed in range(6):
        heat = frame(anatomy, (0.0, 0.0, 0.0), noise, seed, mark)
        assert not has_moved(heat), heat.stillness
        still = frame(anatomy, (0.0, 0.05, 0.05), noise, seed, mark)
        assert not has_moved(still), still.stillness


@pytest.mark.parametrize("anatomy", [head, liver, spine])
def test_noise_does_not_make_motion_small(anatomy: Anatomy) -> None:
    """Slopes of noise are no slopes of tissue: a fit that takes them for such finds half of the motion."""
    found = [frame(anatomy, (0.0, 0.0, 0.4), 0.06, seed).stillness for seed in range(6)]
    assert np.mean([still.shift_voxels[2] for still in found]) == pytest.approx(0.45, abs=0.12)
    spread = np.std([still.shift_voxels for still in found], axis=0).max()
    # On the safe side where most slopes are noise.
    assert 0.5 < np.mean([still.blur for still in found]) / spread < 5.0


def test_what_noise_hides_is_said() -> None:
    rng = np.random.default_rng(4)
    grid = np.eye(4)
    image = Image(np.zeros(SHAPE, np.float32), grid, "map")
    mark = marked(grid, SHAPE, (36.0, 32.0, 1.0), 9.0)
    for noise, hidden in ((0.01, False), (0.15, True)):
        scan = Thermometer(noisy(picture(liver), noise, rng), 3.0, 0.03, unheated=~mark.inside)
        heat = scan.add(noisy(picture(liver), noise, rng), 0.0)
        notes = heat_numbers(heat, scan.tissue, mark, image, 37.0).notes
        assert any("noise hides motion of less than" in note for note in notes) == hidden


def test_a_part_that_moves_on_its_own_is_noticed() -> None:
    rng = np.random.default_rng(1)
    before = picture(head)
    after = before.copy()
    after[:, :30] = picture(head, (0.0, 0.0, 2.5))[:, :30]
    after[:, 34:] = picture(head, (0.0, 0.0, -2.5))[:, 34:]
    scan = Thermometer(noisy(before, 0.02, rng), 3.0, 0.012, unheated=unheated())
    heat = scan.add(noisy(after, 0.02, rng), 0.0)
    assert heat.stillness.shift < 0.25
    assert has_moved(heat)


def test_the_motion_of_every_frame_is_its_own_when_the_mark_changes() -> None:
    rng = np.random.default_rng(2)
    scan = Thermometer(noisy(picture(head), 0.02, rng), 3.0, 0.012)
    moves = (0.0, 0.0, 0.6, 0.0)
    for number, move in enumerate(moves):
        scan.add(noisy(picture(head, (0.0, 0.0, move)), 0.02, rng), float(number))
    assert [has_moved(heat) for heat in scan.told(unheated(), 37.0)] == [False, False, True, False]


def test_drift_beyond_a_turn_and_heat_that_nobody_marked() -> None:
    rng = np.random.default_rng(3)
    per_c = radians_per_c(3.0, 0.012)
    y, x = (np.linspace(-1, 1, size) for size in SHAPE[1:])
    # 1.5 ppm in all, 0.4 ppm more from side to side; a tenth of the tissue is warm.
    drift = 2 * np.pi * 42.577 * 3.0 * 0.012 * (1.5 + 0.2 * x + 0.1 * y[:, None])
    warm = np.zeros(SHAPE)
    warm[:, :7] = 8.0
    scan = Thermometer(noisy(picture(smooth), 0.01, rng), 3.0, 0.012, unheated=unheated())
    for number in range(1, 7):
        turned = picture(smooth) * np.exp(1j * (drift + per_c * warm) * number / 6)
        heat = scan.add(noisy(np.asarray(turned), 0.01, rng), float(number))
    assert float(np.nanmedian(heat.temperature_c[:, 10:])) == pytest.approx(37.0, abs=0.05)
    assert float(np.nanmedian(heat.temperature_c[:, :6])) == pytest.approx(45.0, abs=0.2)
    assert heat.noise_c is not None
    assert heat.deviation_c is not None
    assert np.isfinite(heat.deviation_c).all()
    expected = np.sqrt(2) * 0.01 / np.abs(picture(smooth)) / -per_c
    assert float(np.median(heat.deviation_c / expected)) == pytest.approx(1.0, abs=0.05)


def test_too_little_tissue() -> None:
    bright = np.ones(SHAPE, dtype=bool)
    known = np.zeros(bright.sum(), dtype=bool)
    known[:15] = True
    with pytest.raises(ReconstructionError, match="at least 16 voxels of tissue away from the heat, got 15"):
        Unheated(np.ones(SHAPE, np.float32), bright, 1, known)
    known[:40] = True
    tissue = Unheated(np.ones(SHAPE, np.float32), bright, 1, known)
    spread = np.ones(len(known), np.float32)
    spread[:30] = np.inf
    with pytest.raises(ReconstructionError, match="got 10"):
        tissue.drift(np.zeros(len(known), np.float32), spread)
