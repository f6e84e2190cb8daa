"""A patient who moved once in mid-scan along the readout is named with the moment and the shift; nothing else is."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from IntraopMRIReconstructionLib.data import Acquisition
from IntraopMRIReconstructionLib.reconstruct.assemble import Assembler
from IntraopMRIReconstructionLib.reconstruct.motion import motion
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, cartesian_kspace, ring_of_coils
from IntraopMRIReconstructionLib.simulate.sequences import (
    Slice,
    gradient_echo,
    moved,
    random_head,
    turbo_spin_echo,
    views,
)
from unit.reconstruct.conftest import FIELD, Scan
from unit.reconstruct.test_sequences import scans

SIZE, COILS = 96, 4
ROWS = np.arange(SIZE)
MASKS = {1: ROWS >= 0, 2: (ROWS % 2 == 0) | (np.abs(ROWS - 48) < 12), 3: (ROWS % 3 == 0) | (np.abs(ROWS - 48) < 12)}

Lines = npt.NDArray[np.complex64]


@cache
def head(shift_mm: tuple[float, float] = (0.0, 0.0), turn_deg: float = 0.0) -> Slice:
    parts = moved(random_head(np.random.default_rng(1)), shift_mm, turn_deg)
    return Slice((SIZE, SIZE), (FIELD, FIELD), parts, ring_of_coils(COILS, FIELD))


def noisy(clean: Lines, noise: float = 0.02) -> Lines:
    """(coils, 1, lines, readout)"""
    rng = np.random.default_rng(7)
    parts = rng.standard_normal((*clean.shape, 2)) * (noise * np.abs(clean).max() / SIZE)
    return (clean + parts[..., 0] + 1j * parts[..., 1]).astype(np.complex64)[:, None]


def share_said(words: str) -> float:
    return float(words.split("about ")[1].split()[0])


def shift_said(words: str) -> float:
    return float(words.split(" mm")[0].split()[-1])


@pytest.mark.parametrize("reduction", [1, 2, 3])
@pytest.mark.parametrize(("shift", "line"), [(1.0, 44), (-3.0, 40), (5.0, 48)])
def test_the_moment_and_the_shift_along_the_readout_are_named(shift: float, line: int, reduction: int) -> None:
    seen = views(SIZE, 1, "linear")
    signal = gradient_echo(seen, 0.3, 70.0)
    later = head((shift, 1.0)).read(signal)
    samples = noisy(np.where((line <= ROWS)[:, None], later, head().read(signal)))
    there = MASKS[reduction][None]
    words = motion(np.where(there[..., None], samples, 0), there, False, seen.order[None], FIELD)
    assert abs(shift_said(words) - abs(shift)) < 0.15 * abs(shift) + 0.1
    share = 100 * np.count_nonzero(there[0, :line]) / np.count_nonzero(there)
    assert f"from line {line} on, about {share:.0f} % into the scan" in words


@pytest.mark.parametrize("way", ["linear", "centric"])
def test_between_two_shots_of_an_echo_train_too(way: str) -> None:
    seen = views(SIZE, 8, way, 4)
    signal = turbo_spin_echo(seen, 0.012, 4.0)
    still, later = head().read(signal), head((-3.0, 1.0)).read(signal)
    assert motion(noisy(still), MASKS[1][None], False, seen.order[None], FIELD) == ""
    samples = noisy(np.where((seen.shot >= 6)[:, None], later, still))
    words = motion(samples, MASKS[1][None], False, seen.order[None], FIELD)
    assert abs(shift_said(words) - 3.0) < 0.6
    # To within a shot.
    assert abs(share_said(words) - 50) < 100 / 12


@pytest.mark.parametrize("outer", ["partitions", "lines"])
def test_in_a_3d_scan_too(volume: Scan, outer: str) -> None:
    size_z, size_y, size_x = volume.matrix
    slope = np.exp(-2j * np.pi * (np.arange(size_x) - size_x // 2) * 3.0 / FIELD)
    samples = volume.kspace.astype(np.complex64)
    there = np.ones((size_z, size_y), bool)
    order = np.arange(there.size).reshape(there.shape if outer == "partitions" else there.T.shape)
    order = order if outer == "partitions" else order.T
    assert motion(samples, there, True, order, FIELD) == ""
    samples[:, order >= there.size // 2] *= slope.astype(np.complex64)
    words = motion(samples, there, True, order, FIELD)
    assert abs(shift_said(words) - 3.0) < 0.3
    assert abs(share_said(words) - 50) < 3


@pytest.mark.parametrize("seed", [2, 4])
def test_nothing_is_said_of_what_a_sequence_does_by_nature(seed: int) -> None:
    rng = np.random.default_rng(seed)
    still = Slice((SIZE, SIZE), (FIELD, FIELD), random_head(rng), ring_of_coils(4, FIELD))
    for seen, signal, part in scans(rng):
        samples = noisy(still.read(signal))
        for mask in MASKS.values():
            there = (mask & ((1 - part) * SIZE <= ROWS))[None]
            for order in (seen.order[None], None):
                assert motion(np.where(there[..., None], samples, 0), there, False, order, FIELD) == ""


def test_a_motion_is_said_and_never_corrected(plane: Scan) -> None:
    samples = plane.kspace[:, 0].astype(np.complex64)
    # Both moments of the phantom are real ones, the coils stay where they are.
    parts = [replace(part, centre_mm=(part.centre_mm[0] + 2.0, part.centre_mm[1] + 3.0)) for part in HEAD_2D]
    later = cartesian_kspace((SIZE, SIZE), (FIELD, FIELD), parts, ring_of_coils(len(samples), FIELD))
    samples[:, 42:] = later[:, 42:]
    encoding = plane.frame().encoding
    assembler = Assembler(encoding)
    rows = np.arange(SIZE, dtype=np.int32)
    assembler.add(Acquisition("scan", np.ascontiguousarray(samples.swapaxes(0, 1)), rows, np.zeros_like(rows)))
    frame = assembler.kspace()
    words = " ".join(frame.warnings)
    assert "moved in mid-scan, by 2." in words
    assert "corrected" not in words
    assert np.array_equal(frame.samples[:, 0], samples)


def test_a_line_that_is_turned_alone_is_no_motion(plane: Scan) -> None:
    samples = plane.kspace.astype(np.complex64)
    samples[:, :, 48] *= -1
    assert motion(samples, MASKS[1][None], False, ROWS[None], FIELD) == ""
