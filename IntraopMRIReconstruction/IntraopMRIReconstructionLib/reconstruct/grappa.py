"""GRAPPA along one or two axes, with its kernels turned into image-space weights.

Sources: Griswold et al., Magn Reson Med 47:1202-1210 (2002); Breuer et al., Magn Reson Med 62:739-746 (2009) for the
image-space form and its noise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.linalg
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray
from .unmixing import Lattice, Unmixing

#: Acquired samples that a kernel takes along an accelerated axis, and samples along the other.
TAPS_ACCELERATED = 4
TAPS_FULL = 5
#: Tikhonov weight, relative to the mean power of a source sample: below the noise of any scan worth accelerating.
REGULARISATION = 1e-4
#: Rows of an image whose weights are made at a time, so that what is between stays in the cache.
BLOCK_ROWS = 16
#: Equations for each unknown of a kernel below which it would learn the noise.
MIN_EQUATIONS_PER_UNKNOWN = 1.5
#: Places of a kernel along an accelerated axis below which errors are 1.6 to 3 times those of many (R2 to R4, 8 coils).
ENOUGH_PLACES = 8


def calibrate(
    calibration: ComplexArray, lattice: Lattice, maps: ComplexArray, regularisation: float = REGULARISATION
) -> Unmixing:
    """Weights that fill the lattice's gaps and combine coils by ``maps`` (coils, a, b) in one step.

    ``calibration``: (coils, ca, cb) fully sampled centre block. Raises ReconstructionError when the acceleration is
    above the number of coils or the block is too small.
    """
    kernels, spread = _kernels(calibration, lattice, regularisation)
    coils, size_a, size_b = maps.shape
    waves = [_waves(size, offsets) for size, offsets in zip(lattice.shape, spread, strict=True)]
    # rows[a] (coils out * taps b, coils in): kernels summed over their taps along a.
    rows = np.tensordot(waves[0], kernels, axes=(1, 2)).transpose(0, 1, 3, 2).reshape(size_a, -1, coils)
    conjugate = maps.conj().transpose(1, 2, 0)[..., None]
    weights = np.empty((size_a, size_b, coils), dtype=np.complex64)
    for first in range(0, size_a, BLOCK_ROWS):
        block = slice(first, first + BLOCK_ROWS)
        features = (conjugate[block] * waves[1][:, None, :]).reshape(-1, size_b, rows.shape[1])
        np.matmul(features, rows[block], out=weights[block])
    weights = np.ascontiguousarray(weights.transpose(2, 0, 1))
    return Unmixing(lattice, weights)


def least_calibration(lattice: Lattice, coils: int, along_b: int) -> int:
    """Samples along a that the calibration block needs when it has ``along_b`` along b."""
    windows = [_taps(step) for step in lattice.step]
    unknowns = coils * len(windows[0]) * len(windows[1])
    places_b = max(1, along_b - _reach(lattice.step[1]) + 1)
    return _reach(lattice.step[0]) - 1 + max(1, int(np.ceil(MIN_EQUATIONS_PER_UNKNOWN * unknowns / places_b)))


def enough_calibration(step: int) -> int:
    """Calibration lines along an axis accelerated by ``step`` from which more make little difference."""
    return _reach(step) - 1 + ENOUGH_PLACES


def _kernels(
    calibration: ComplexArray, lattice: Lattice, regularisation: float
) -> tuple[ComplexArray, list[npt.NDArray[np.int64]]]:
    """(kernels (coils out, coils in, taps a, taps b) over all offsets, the offsets along a and b).

    One set of sources serves all gaps of a lattice cell, so that one factorisation fills them all.
    """
    coils = len(calibration)
    if lattice.acceleration > coils:
        raise ReconstructionError(
            f"an acceleration of {lattice.acceleration} cannot be undone with {coils} coils: use compressed sensing "
            "or scan with less acceleration"
        )
    taps = [_taps(step) for step in lattice.step]
    reach = [_reach(step) for step in lattice.step]
    needed = least_calibration(lattice, coils, calibration.shape[2])
    if calibration.shape[1] < needed or calibration.shape[2] < reach[1]:
        raise ReconstructionError(
            f"GRAPPA with acceleration {lattice.step} and {coils} coils needs at least {needed} x {reach[1]} "
            f"calibration samples, got {calibration.shape[1]} x {calibration.shape[2]}: acquire more calibration lines"
        )
    windows = sliding_window_view(calibration, reach, axis=(1, 2))  # (coils, places a, places b, reach a, reach b)
    origin = [-int(tap[0]) for tap in taps]
    picked = windows[..., taps[0] + origin[0], :][..., taps[1] + origin[1]]
    sources = picked.transpose(1, 2, 0, 3, 4).reshape(-1, coils * len(taps[0]) * len(taps[1]))
    gaps = [(a, b) for a in range(lattice.step[0]) for b in range(lattice.step[1]) if a or b]
    targets = (
        np.concatenate([windows[..., origin[0] + a, origin[1] + b].reshape(coils, -1).T for a, b in gaps], axis=1)
        if gaps
        else np.empty((len(sources), 0), np.complex64)
    )
    gram = sources.conj().T @ sources
    gram[np.diag_indices(len(gram))] += regularisation * float(np.trace(gram).real) / len(gram)
    solved = scipy.linalg.solve(gram, sources.conj().T @ targets, assume_a="pos", overwrite_a=True)
    solved = solved.reshape(coils, len(taps[0]), len(taps[1]), len(gaps), coils)

    spread = [np.arange(tap[0] - (step - 1), tap[-1] + 1) for tap, step in zip(taps, lattice.step, strict=True)]
    kernels = np.zeros((coils, coils, len(spread[0]), len(spread[1])), dtype=np.complex64)
    kernels[np.arange(coils), np.arange(coils), -int(spread[0][0]), -int(spread[1][0])] = 1
    for number, (a, b) in enumerate(gaps):
        at = np.ix_(taps[0] - a - spread[0][0], taps[1] - b - spread[1][0])
        kernels[(slice(None), slice(None), *at)] += solved[:, :, :, number].transpose(3, 0, 1, 2)
    return kernels, spread


def _taps(step: int) -> npt.NDArray[np.int64]:
    """Offsets of a kernel's sources from the lattice point before its targets."""
    if step == 1:
        return np.arange(-(TAPS_FULL // 2), TAPS_FULL // 2 + 1)
    return step * np.arange(1 - TAPS_ACCELERATED // 2, 1 + TAPS_ACCELERATED // 2)


def _reach(step: int) -> int:
    taps = _taps(step)
    return int(taps[-1] - taps[0]) + 1


def _waves(size: int, offsets: npt.NDArray[np.int64]) -> ComplexArray:
    """Image-space factor (size, offsets) of taking the k-space sample that lies ``offset`` further."""
    position = (np.arange(size) - size // 2) / size
    return np.exp(-2j * np.pi * np.outer(position, offsets)).astype(np.complex64)
