"""What a sequence does to its lines by nature is no fault: nothing is corrected, and next to nothing said."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import ECHO_TRAIN, Acquisition, Encoding
from IntraopMRIReconstructionLib.reconstruct.assemble import Assembler
from IntraopMRIReconstructionLib.reconstruct.consistency import fitting
from IntraopMRIReconstructionLib.simulate.analytic import ring_of_coils
from IntraopMRIReconstructionLib.simulate.sequences import (
    WHITE,
    Signal,
    Slice,
    Views,
    balanced,
    breathing,
    echo_planar,
    gradient_echo,
    pulsing,
    random_head,
    turbo_spin_echo,
    views,
)

SIZE, FIELD, COILS = 96, 240.0, 6
WHOLE = np.ones((1, SIZE), bool)


def scans(rng: np.random.Generator) -> list[tuple[Views, Signal, float]]:
    """One of each kind: when its lines are read, its signal, and the part of k-space that is read."""
    found: list[tuple[Views, Signal, float]] = []
    for train in (4, 8, 16, 32):
        for way in ("linear", "centric"):
            seen = views(SIZE, train, way, train // 2)
            found.append((seen, turbo_spin_echo(seen, rng.uniform(0.016, 0.03) if train > 4 else 0.03, 4.0), 1.0))
    single = views(SIZE, SIZE, "linear", SIZE // 2)
    found.append((single, turbo_spin_echo(single, rng.uniform(0.004, 0.007), 9.0), 0.6))
    for way in ("linear", "centric"):
        one = views(SIZE, 1, way)
        seen = Views(np.zeros(SIZE, int), one.shot)
        found.append((seen, gradient_echo(seen, rng.uniform(0.004, 0.02), rng.uniform(8, 35)), 1.0))
        found.append((seen, gradient_echo(seen, 0.008, rng.uniform(7, 12), -1.0, rng.uniform(0.3, 0.9)), 1.0))
        found.append((seen, balanced(seen, 0.004, rng.uniform(30, 70), rng.uniform(-40, 40), 200), 1.0))
    for train in (3, 9):
        seen = views(SIZE, train, "linear", train // 2)
        found.append((seen, echo_planar(seen, rng.uniform(0.0008, 0.002), 0.004, rng.uniform(-25, 25)), 1.0))
    plain = views(SIZE, 1, "linear")
    steady = gradient_echo(plain, 0.3, 70.0)
    found.append((plain, pulsing(steady, plain, rng.uniform(2.2, 9), rng.uniform(0.2, 0.9)), 1.0))
    found.append((plain, breathing(steady, plain, rng.uniform(6, 40), rng.uniform(0.02, 0.1)), 1.0))
    return found


def read(head: Slice, signal: Signal, rng: np.random.Generator, part: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(k-space (coils, 1, lines, readout) with noise, lines (1, lines) that are there)."""
    clean = head.read(signal)
    level = 0.02 * np.abs(clean).max() / SIZE
    noise = level * (rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape))
    there = np.arange(SIZE) >= (1 - part) * SIZE
    return ((clean + noise) * there[:, None]).astype(np.complex64)[:, None], there[None]


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_what_a_sequence_does_to_its_lines_is_not_corrected(seed: int) -> None:
    rng = np.random.default_rng(seed)
    head = Slice((SIZE, SIZE), (FIELD, FIELD), random_head(rng), ring_of_coils(COILS, FIELD))
    said = []
    for seen, signal, part in scans(rng):
        samples, there = read(head, signal, rng, part)
        mended, words = fitting(samples, there, False, seen.order[None])
        assert mended is samples
        said.append(words)
        assert fitting(samples, there, False)[0] is samples
    assert sum(map(bool, said)) <= 1


def test_the_steps_of_an_echo_train_are_no_gain_and_a_line_of_one_is_still_found() -> None:
    rng = np.random.default_rng(5)
    head = Slice((SIZE, SIZE), (FIELD, FIELD), random_head(rng), ring_of_coils(COILS, FIELD))
    seen = views(SIZE, 4, "linear", 1)
    signal = turbo_spin_echo(seen, 0.025, 4.0)
    assert np.exp(-0.025 / WHITE.t2_s) < 0.75
    samples, _ = read(head, signal, rng)
    assert "or echoes of a train" in fitting(samples, WHOLE, False)[1]
    assert fitting(samples, WHOLE, False, seen.order[None])[1] == ""
    samples[:, :, 51] *= -1
    assert "expect ghosts" in fitting(samples, WHOLE, False, seen.order[None])[1]


@pytest.mark.parametrize(
    ("train", "in_order", "said"), [("", False, ""), ("", True, "or echoes"), ("4", True, ""), ("1", True, "corr")]
)
def test_when_lines_were_read_is_known_by_their_arrival_or_the_header(train: str, in_order: bool, said: str) -> None:
    rng = np.random.default_rng(5)
    head = Slice((SIZE, SIZE), (FIELD, FIELD), random_head(rng), ring_of_coils(COILS, FIELD))
    seen = views(SIZE, 4, "linear", 1)
    samples, _ = read(head, turbo_spin_echo(seen, 0.025, 4.0), rng)
    if train == "1":
        samples, _ = read(head, gradient_echo(views(SIZE, 1, "linear"), 0.3, 70.0), rng)
        samples[:, :, 48:] *= 0.5
    encoding = Encoding(
        "scan",
        "cartesian",
        (1, SIZE, SIZE),
        (1, SIZE, SIZE),
        (5.0, FIELD, FIELD),
        (5.0, FIELD, FIELD),
        COILS,
        np.eye(4),
        is_3d=False,
        metadata={ECHO_TRAIN: train},
    )
    rows = np.arange(SIZE, dtype=np.int32) if in_order else np.argsort(seen.order).astype(np.int32)
    assembler = Assembler(encoding)
    lines = np.ascontiguousarray(samples[:, 0].swapaxes(0, 1)[rows])
    assembler.add(Acquisition("scan", lines, rows, np.zeros_like(rows)))
    words = " ".join(assembler.kspace().warnings)
    assert said in words
    assert bool(said) == bool(words)
