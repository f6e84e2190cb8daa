"""Lines that do not fit to those beside them are found, corrected where that is possible, and never where they do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from IntraopMRIReconstructionLib.data import Acquisition
from IntraopMRIReconstructionLib.reconstruct.assemble import Assembler
from IntraopMRIReconstructionLib.reconstruct.auto import reconstruct
from IntraopMRIReconstructionLib.reconstruct.consistency import fitting
from IntraopMRIReconstructionLib.simulate.analytic import Ellipsoid, cartesian_kspace, ring_of_coils
from unit.reconstruct.conftest import FIELD, Scan

Lines = npt.NDArray[np.complex64]
Fault = Callable[[Lines], None]
SIZE = 96


def image(samples: Lines) -> npt.NDArray[np.floating]:
    axes = (-3, -2, -1) if samples.shape[1] > 1 else (-2, -1)
    return np.sqrt((np.abs(np.fft.ifftn(np.fft.ifftshift(samples, axes), axes=axes)) ** 2).sum(axis=0))


def difference(one: Lines, other: Lines) -> float:
    """NRMSE of the images, the brightness of the whole being free."""
    a, b = image(one), image(other)
    return float(np.linalg.norm(a - b * (np.vdot(a, b) / np.vdot(b, b))) / np.linalg.norm(a))


def random_object(rng: np.random.Generator, filled: bool) -> tuple[Ellipsoid, ...]:
    reach = 1.6 if filled else rng.uniform(0.5, 0.95)
    whole = Ellipsoid((0.0, 0.0), (reach * 115, reach * 110))
    parts = (
        Ellipsoid(
            tuple(rng.uniform(-60, 60, 2)), tuple(rng.uniform(2, 45, 2)), rng.uniform(-0.5, 1), rng.uniform(0, 180)
        )
        for _ in range(rng.integers(2, 9))
    )
    return whole, *parts


def noisy(clean: npt.NDArray[np.complexfloating], noise: float, rng: np.random.Generator) -> Lines:
    parts = rng.standard_normal((*clean.shape, 2)) * noise
    return (clean + parts[..., 0] + 1j * parts[..., 1]).astype(np.complex64)


@pytest.mark.parametrize("coils", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("filled", [False, True])
def test_nothing_is_said_of_scans_without_a_fault(coils: int, filled: bool) -> None:
    rows = np.arange(SIZE)
    masks = [rows >= 0, rows > 38, (rows % 2 == 0) | (np.abs(rows - 48) < 12), rows % 3 == 0, rows < 60]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        clean = cartesian_kspace((SIZE, SIZE), (FIELD, FIELD), random_object(rng, filled), ring_of_coils(coils, FIELD))
        for noise in (0.002, 0.03, 0.14):
            samples = noisy(clean, noise, rng)[:, None]
            for mask in masks:
                there = np.where(mask[:, None], samples, 0).astype(np.complex64)
                assert fitting(there, mask[None], False)[1] == ""


def turned(row: int, degrees: float) -> Fault:
    def change(samples: Lines) -> None:
        samples[:, :, row] *= np.exp(1j * np.radians(degrees))

    return change


def quieter(row: int, decibel: float) -> Fault:
    def change(samples: Lines) -> None:
        samples[:, :, row:] *= 10 ** (-decibel / 20)

    return change


def later_turned(samples: Lines) -> None:
    samples[:, :, 53:] *= np.exp(0.6j)


def exchanged(samples: Lines) -> None:
    samples[:, :, [50, 53]] = samples[:, :, [53, 50]]


def every_second_turned(samples: Lines) -> None:
    samples[:, :, 1::2] *= np.exp(0.6j)


def from_elsewhere(samples: Lines) -> None:
    samples[:, :, 49] = samples[:, :, 52]


@pytest.mark.parametrize(
    ("fault", "words", "left"),
    [
        (turned(48, 180), "1 of them made from", 0.03),
        (turned(49, 60), "dB and 58°", 0.02),
        (quieter(48, 3), "by up to 2.", 0.02),
        (quieter(48, 6), "by up to 5.", 0.02),
        (quieter(42, 6), "by up to 5.", 0.02),
        (later_turned, "and 34°", 0.02),
        (from_elsewhere, "made from those beside", 0.03),
        (exchanged, "do not fit to those beside them", None),
        (every_second_turned, "expect ghosts", None),
    ],
)  # fmt: skip
def test_what_changes_in_mid_scan_is_said_and_corrected_where_possible(
    plane: Scan, fault: Fault, words: str, left: float | None
) -> None:
    whole = np.ones((1, SIZE), bool)
    faulty = plane.kspace.astype(np.complex64)
    fault(faulty)
    assert difference(plane.kspace, faulty) > 0.03
    mended, said = fitting(faulty, whole, False, np.arange(SIZE)[None])
    assert words in said
    assert (mended is faulty) == (left is None)
    if left is not None:
        assert difference(plane.kspace, mended) < left


def test_a_gain_that_nobody_knows_the_moment_of_is_left_as_it_came(plane: Scan) -> None:
    whole = np.ones((1, SIZE), bool)
    faulty = plane.kspace.astype(np.complex64)
    quieter(48, 6)(faulty)
    mended, said = fitting(faulty, whole, False)
    assert mended is faulty
    assert "or echoes of a train" in said
    turned(49, 60)(faulty := plane.kspace.astype(np.complex64))
    assert "corrected" in fitting(faulty, whole, False)[1]


@pytest.mark.parametrize(("seed", "coils", "noise", "row"), [(3, 4, 0.02, 40), (5, 8, 0.08, 42), (9, 8, 0.08, 42)])
def test_one_jump_of_a_single_line_that_is_seen_moves_no_other_line(
    seed: int, coils: int, noise: float, row: int
) -> None:
    """Of the two jumps of a line, the one to its weak neighbour may be too uncertain: the line is turned, not all."""
    parts = random_object(np.random.default_rng(seed), False)
    clean = cartesian_kspace((SIZE, SIZE), (FIELD, FIELD), parts, ring_of_coils(coils, FIELD))
    reference = noisy(clean, noise, np.random.default_rng(seed))[:, None]
    faulty = reference.copy()
    turned(row, 60)(faulty)
    mended, said = fitting(faulty, np.ones((1, SIZE), bool), False, np.arange(SIZE)[None])
    assert "corrected" in said
    assert difference(reference, mended) < 0.01 < difference(reference, faulty)


@pytest.mark.parametrize(("seed", "coils"), [(5, 4), (10, 8)])
def test_a_line_that_can_only_be_made_badly_is_not_called_corrected(seed: int, coils: int) -> None:
    """Made from the lines beside it, it fits better than it did, and leaves a fifth of the picture wrong."""
    parts = random_object(np.random.default_rng(seed), False)
    clean = cartesian_kspace((SIZE, SIZE), (FIELD, FIELD), parts, ring_of_coils(coils, FIELD))
    faulty = noisy(clean, 0.02, np.random.default_rng(seed))[:, None]
    turned(48, 180)(faulty)
    mended, said = fitting(faulty, np.ones((1, SIZE), bool), False, np.arange(SIZE)[None])
    assert mended is faulty
    assert "expect ghosts" in said


@pytest.mark.parametrize("calibrated", [False, True])
def test_of_accelerated_scans_the_fully_sampled_middle_is_looked_at(plane: Scan, calibrated: bool) -> None:
    rows = np.arange(SIZE)
    mask = (rows % 2 == 0) | ((np.abs(rows - 48) < 12) & calibrated)
    samples = (plane.kspace * mask[:, None]).astype(np.complex64)
    assert fitting(samples, mask[None], False)[1] == ""
    turned(46, 90)(samples)
    assert (fitting(samples, mask[None], False)[1] != "") == calibrated


def test_partitions_of_a_3d_scan_too(volume: Scan) -> None:
    whole = np.ones(volume.kspace.shape[1:3], bool)
    assert fitting(volume.kspace.astype(np.complex64), whole, True)[1] == ""
    for fault, said in (
        (turned_partition, "expect ghosts"),
        (quieter(20, 6), "echoes of"),
        (quieter(17, 6), "echoes of"),
    ):
        faulty = volume.kspace.astype(np.complex64)
        fault(faulty)
        assert said in fitting(faulty, whole, True)[1]


def turned_partition(samples: Lines) -> None:
    samples[:, 13] *= 1j


def test_the_lines_of_a_scan_are_looked_at_and_what_came_is_not_changed(plane: Scan) -> None:
    pictures, said = [], []
    for fault in (None, turned(49, 60)):
        samples = plane.kspace.astype(np.complex64)
        if fault:
            fault(samples)
        assembler = Assembler(plane.frame().encoding)
        rows = np.arange(SIZE, dtype=np.int32)
        block = np.ascontiguousarray(samples[:, 0].swapaxes(0, 1))
        assembler.add(Acquisition("scan", block, rows, np.zeros_like(rows)))
        for _ in range(2):
            frame = assembler.kspace()
            pictures.append(reconstruct(frame, threads=1).image.array)
            said.append(" ".join(frame.warnings))
    assert said[:2] == ["", ""]
    assert "corrected" in said[2]
    assert said[2] == said[3]
    assert np.linalg.norm(pictures[3] - pictures[0]) < 0.03 * np.linalg.norm(pictures[0])
