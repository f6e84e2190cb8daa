"""Coils that are small, few or far away are healthy ones; what half a frame says of a coil is not the last word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding
from IntraopMRIReconstructionLib.reconstruct import assemble
from IntraopMRIReconstructionLib.reconstruct.assemble import Assembler
from IntraopMRIReconstructionLib.reconstruct.auto import reconstruct
from IntraopMRIReconstructionLib.reconstruct.collect import collector
from IntraopMRIReconstructionLib.reconstruct.suspicion import gain_step, unsteady_coils
from IntraopMRIReconstructionLib.simulate.raw_scans import radial_scan, spiral_scan
from scipy.ndimage import gaussian_filter

SHAPE = (24, 48, 48)


def loops(rng: np.random.Generator, count: int, radius: float) -> npt.NDArray[np.complexfloating]:
    """Sensitivities (coils, z, y, x) of loops of ``radius`` (halves of the field of view) about the object."""
    points = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij"), axis=-1)
    maps = []
    for _ in range(count):
        angle, height, phase = rng.uniform(0, 2 * np.pi), rng.uniform(-0.7, 0.7), rng.normal(size=3)
        away = points - np.array([height, 0.9 * np.sin(angle), 0.9 * np.cos(angle)])
        strength = (radius**2 + (away**2).sum(axis=-1)) ** -1.5
        maps.append(strength / strength.max() * np.exp(1j * (points @ phase)))
    return np.array(maps)


def energies(rng: np.random.Generator, coils: int, radius: float, noise: float) -> npt.NDArray[np.float64]:
    """Energy (z, y, coils) of the lines of a textured ellipsoid."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
    texture = gaussian_filter(rng.normal(size=SHAPE), 1.0)
    body = (k**2 / 0.64 + j**2 / 0.5 + i**2 / 0.4 < 1) * (1 + 2 * texture)
    images = np.fft.ifftshift(loops(rng, coils, radius) * body, (1, 2, 3))
    kspace = np.fft.fftshift(np.fft.fftn(images, axes=(1, 2, 3), norm="ortho"), (1, 2, 3))
    parts = rng.normal(size=(2, *kspace.shape))
    kspace += noise * np.abs(images).max() * (parts[0] + 1j * parts[1]) / np.sqrt(2)
    return np.asarray(np.moveaxis((np.abs(kspace) ** 2).sum(axis=3), 0, -1))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("radius", [0.12, 0.3, 0.5])
@pytest.mark.parametrize("coils", [2, 8, 16])
def test_small_coils_are_steady_in_any_order_and_at_any_time(coils: int, radius: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    energy = energies(rng, coils, radius, (0.002, 0.01, 0.05)[seed % 3])
    lines = np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE[:2])
    away = np.hypot(*np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE[:2]), indexing="ij"))
    orders = (lines, lines.T, lines[::2, ::2], lines.ravel()[::-1], np.argsort(away, axis=None))
    for order in orders:
        arrived = energy.reshape(-1, coils)[order.ravel()]
        for part in (0.25, 0.5, 0.75, 1.0):
            assert not unsteady_coils(arrived[: int(part * len(arrived))]).any()


@pytest.mark.parametrize("when", [0.2, 0.5, 0.6])
def test_a_coil_that_dies_is_not(when: float) -> None:
    rng = np.random.default_rng(3)
    energy = energies(rng, 8, 0.3, 0.002).reshape(-1, 8)
    order = np.argsort(rng.random(len(energy)))
    energy = energy[order]
    energy[int(when * len(energy)) :, 2] = energy.min()
    np.testing.assert_array_equal(np.flatnonzero(unsteady_coils(energy)), [2])


def test_more_lines_may_acquit_a_coil_until_the_next_frame_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = (1, 8, 8)
    encoding = Encoding(
        "scan", "cartesian", matrix, matrix, (5.0, 80.0, 80.0), (5.0, 80.0, 80.0), 4, np.diag([10.0, 10.0, 5.0, 1.0]),
        is_3d=False, repetitions=3,
    )  # fmt: skip
    assembler = Assembler(encoding)
    doubted: list[int] = [1]

    def suspicions(*_: Any) -> tuple[npt.NDArray[np.bool_], list[str]]:
        return np.isin(np.arange(4), doubted), []

    monkeypatch.setattr(assemble, "suspicions", suspicions)

    def add(rows: list[int], repetition: int) -> None:
        samples = np.ones((len(rows), 4, 8), np.complex64)
        place = np.array(rows, np.int32)
        assembler.add(Acquisition("scan", samples, place, np.zeros_like(place), repetition=repetition))

    add([0, 1, 2, 3], 0)
    assert assembler.kspace(0, 0).encoding.coils == 3
    doubted[:] = []
    add([4, 5, 6, 7], 0)
    assert assembler.kspace(0, 0).encoding.coils == 4
    doubted[:] = [2]
    add(list(range(8)), 1)
    assert assembler.kspace(0, 1).encoding.coils == 3
    assert assembler.kspace(0, 0).encoding.coils == 4
    doubted[:] = []
    add(list(range(8)), 2)
    assert assembler.kspace(0, 2).encoding.coils == 3
    assert assembler.dead_coils == (2,)


@pytest.mark.parametrize("make", [lambda: radial_scan(32, 4, 60, noise=0.02), lambda: spiral_scan(32, 4, 24)])
@pytest.mark.parametrize("decibel", [-6.0, 3.0])
def test_a_step_of_the_gain_between_readouts_is_said_and_undone(make: Any, decibel: float) -> None:
    scan = make()
    pictures, said = [], []
    for gain in (0.0, decibel):
        collected = collector(scan.encoding)
        for block in scan.blocks:
            samples = block.samples.copy()
            samples[len(samples) // 3 :] *= np.float32(10 ** (gain / 20))
            collected.add(replace(block, samples=samples))
        result = reconstruct(collected.kspace(), threads=1)
        pictures.append(result.image.array)
        said.append(" ".join(result.warnings))
    assert "gain" not in said[0]
    assert f"changed by {decibel:.0f}"[:-1] in said[1]
    assert "undone" in said[1]
    assert np.linalg.norm(pictures[1] - pictures[0]) < 0.03 * np.linalg.norm(pictures[0])


@pytest.mark.parametrize("seed", range(20))
def test_what_changes_the_signal_in_other_ways_is_no_step(seed: int) -> None:
    rng = np.random.default_rng(seed)
    time = np.arange(400)
    noise = 1 + rng.uniform(0, 0.3) * rng.standard_normal(400)
    steady = 1 + 5 * np.exp(-time / rng.uniform(1, 60))
    agent = 1 + 3 / (1 + np.exp(-(time - 200) / rng.uniform(5, 50)))
    breath = 1 + 0.4 * np.sin(time / rng.uniform(4, 50))
    recovering = 1 - 1.8 * np.exp(-(time % 50) / rng.uniform(10, 100))
    for signal in (np.ones(400), steady, agent, breath, recovering):
        assert gain_step(np.square(signal * noise)) is None
