"""Calibration lines that were lost, made from the lines around them: what all coils see of a line follows from its
neighbours, by weights that every complete neighbourhood of the same block teaches.

Without it one lost line beside the centre leaves too little in one piece to calibrate from. The weights are those of
GRAPPA (Griswold et al., Magn Reson Med 47:1202-1210, 2002) at distance one, the easiest case that it has.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.linalg
from numpy.lib.stride_tricks import sliding_window_view

from ..operators.fourier import ComplexArray
from ..operators.sampling import Mask

#: Lines nearest to the lost one, and samples along the readout, that make a sample.
LINES, ALONG = 4, 5
#: Tikhonov weight, relative to the mean power of a source sample.
REGULARISATION = 1e-4
#: Equations for each unknown: fewer learn the noise, more only take time.
LEAST_EQUATIONS, ENOUGH_EQUATIONS = 1.5, 12
#: Samples in the middle of the readout that teach: beyond them is mostly noise.
TAUGHT_BY = 64


def filled(block: ComplexArray, known: Mask) -> tuple[ComplexArray, Mask]:
    """(``block`` (coils, z, y, x) with its lost lines, which lines (z, y) of it are good).

    ``known``: (z, y), the lines that came. A line whose surroundings teach too little stays as it is, and is not good.
    ``block`` itself is not changed.
    """
    result, good = block.copy(), known.copy()
    width = block.shape[3]
    middle = slice(max(0, width // 2 - TAUGHT_BY // 2), width // 2 + TAUGHT_BY // 2)
    for z, y in np.argwhere(~known):
        around = _around(known, int(z), int(y))
        taught = _taught(block[..., middle], known, around, (int(z), int(y)))
        if taught is None:
            continue
        padded = np.pad(block[:, around[:, 0] + z, around[:, 1] + y], ((0, 0), (0, 0), (ALONG // 2, ALONG // 2)))
        sources = sliding_window_view(padded, ALONG, axis=2).transpose(2, 0, 1, 3).reshape(width, -1)
        result[:, z, y] = (sources @ taught).T
        good[z, y] = True
    return result, good


def _around(known: Mask, z: int, y: int) -> npt.NDArray[np.int64]:
    """Offsets (n, 2) of the known lines nearest to a line, in pairs that lie opposite where there are such."""
    offsets = np.argwhere(known) - (z, y)
    return offsets[np.lexsort((np.abs(offsets[:, 0]), np.square(offsets).sum(axis=1)))[:LINES]]


def _taught(
    block: ComplexArray, known: Mask, around: npt.NDArray[np.int64], lost: tuple[int, int]
) -> ComplexArray | None:
    """Weights (sources, coils) of a line by those ``around`` it, from all places where these and the line itself are
    known; None when there are too few."""
    coils, inner = len(block), block.shape[3] - ALONG + 1
    unknowns = coils * len(around) * ALONG
    shape = np.array(known.shape)
    places = np.argwhere(known)
    for offset in around:
        moved = places + offset
        places = places[((moved >= 0) & (moved < shape)).all(axis=1)]
        places = places[known[tuple((places + offset).T)]]
    if not unknowns or inner < 1 or len(places) * inner < LEAST_EQUATIONS * unknowns:
        return None
    nearest = np.argsort(np.square(places - lost).sum(axis=1), kind="stable")
    places = places[nearest[: int(np.ceil(ENOUGH_EQUATIONS * unknowns / inner))]]
    windows = sliding_window_view(block, ALONG, axis=3)  # (coils, z, y, inner, along)
    each = [windows[:, places[:, 0] + z, places[:, 1] + y] for z, y in around]
    sources = np.stack(each, axis=1).transpose(2, 3, 0, 1, 4).reshape(-1, unknowns)
    targets = block[:, places[:, 0], places[:, 1], ALONG // 2 : ALONG // 2 + inner].reshape(coils, -1).T
    gram = sources.conj().T @ sources
    gram[np.diag_indices(unknowns)] += np.float32(REGULARISATION * float(np.trace(gram).real) / unknowns)
    return np.asarray(scipy.linalg.solve(gram, sources.conj().T @ targets, assume_a="pos", overwrite_a=True))
