"""Gradient delays of a radial scan, from the points where its spokes cross.

After Rosenzweig, Holme, Uecker, Simple auto-calibrated gradient delay estimation from few spokes using radial
intersections (RING), Magn Reson Med 81:1898 (2019); here all crossings are fitted together, below the sample distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy.interpolate import CubicSpline
from scipy.optimize import least_squares

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray

#: Oversampling of a spoke before splines interpolate it; then their error is far below the noise.
OVERSAMPLING = 4
#: Delays are looked for within so many cycles per field of view; gradient systems of today stay below 1.
MAX_DELAY = 3.0
#: Spokes that cross at less than this angle meet over a length rather than in a point.
MIN_CROSSING_DEG = 20.0
#: A fit that leaves a larger share of the signal at the crossings has found no delay but motion or noise.
MAX_RESIDUAL = 0.2
#: Least spokes for the three unknowns, with enough crossings to average noise.
MIN_SPOKES = 4


@dataclass(frozen=True)
class Delays:
    """Gradient delays of a radial scan.

    ``matrix``: symmetric (2, 2), cycles per field of view: a spoke of direction n is moved by ``matrix @ n``.
    ``residual_before`` and ``residual_after``: signal difference where spokes cross, over the signal there.
    """

    matrix: npt.NDArray[np.float64]
    residual_before: float
    residual_after: float


def gradient_delays(spokes: ComplexArray, angles_rad: npt.NDArray[np.float64], matrix: int) -> Delays:
    """Find the delays under which spokes agree where they cross.

    ``spokes``: (coils, spokes, readout) as acquired, reaching ``matrix`` / 2; ``angles_rad``: (spokes,). With delays S,
    spokes of directions n and m meet where a n + S n = b m + S m, near the centre; the S sought is the one for which
    sample a of the one equals sample b of the other in every coil. Raises ReconstructionError for too few spokes,
    values that are not finite, or when no delay explains the data.
    """
    count = spokes.shape[1]
    if count < MIN_SPOKES or angles_rad.shape != (count,):
        raise ReconstructionError(
            f"gradient delays need at least {MIN_SPOKES} spokes with an angle each, got {count} spokes and angles of "
            f"shape {angles_rad.shape}"
        )
    if not np.isfinite(spokes).all():
        raise ReconstructionError("gradient delays cannot be found from spokes with NaN or infinite values")
    direction = np.stack([np.cos(angles_rad), np.sin(angles_rad)], axis=-1)
    one, other = np.triu_indices(count, 1)
    sine = direction[one, 0] * direction[other, 1] - direction[one, 1] * direction[other, 0]
    crossing = np.abs(sine) > np.sin(np.deg2rad(MIN_CROSSING_DEG))
    if crossing.sum() < 3:
        raise ReconstructionError("the spokes hardly cross: gradient delays need spokes of more different angles")
    one, other, sine = one[crossing], other[crossing], sine[crossing]
    splines = [_spline(spoke, matrix) for spoke in spokes.swapaxes(0, 1)]
    n, m = direction[one], direction[other]

    def signals(delays: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        step = (m - n) @ np.array([[delays[0], delays[2]], [delays[2], delays[1]]])  # a n - b m
        a = (step[:, 0] * m[:, 1] - step[:, 1] * m[:, 0]) / sine
        b = (step[:, 0] * n[:, 1] - step[:, 1] * n[:, 0]) / sine
        first = np.empty((len(one), len(spokes)), dtype=np.complex128)
        second = np.empty_like(first)
        for number, spline in enumerate(splines):
            first[one == number] = spline(a[one == number])
            second[other == number] = spline(b[other == number])
        return first, second

    def difference(delays: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        first, second = signals(delays)
        return (first - second).ravel().view(np.float64) / level

    level = float(np.sqrt(np.mean(np.abs(signals(np.zeros(3))[0]) ** 2)))
    if level == 0:
        raise ReconstructionError("the centre of every spoke is zero: there is no signal to find gradient delays from")
    fit = least_squares(difference, np.zeros(3), bounds=(-MAX_DELAY, MAX_DELAY), x_scale=0.1, diff_step=1e-3)
    before, after = (float(np.sqrt(2 * np.mean(difference(x) ** 2))) for x in (np.zeros(3), fit.x))
    if after > MAX_RESIDUAL or np.abs(fit.x).max() > 0.99 * MAX_DELAY:
        raise ReconstructionError(
            f"no gradient delay within {MAX_DELAY:g} cycles per field of view makes the spokes agree where they cross "
            f"({100 * after:.0f} % of the signal is left): use the trajectory as it was planned"
        )
    return Delays(np.array([[fit.x[0], fit.x[2]], [fit.x[2], fit.x[1]]]), before, after)


def _spline(spoke: ComplexArray, matrix: int) -> CubicSpline:
    """Interpolates the middle of one spoke (coils, readout) by its distance along the spoke, cycles per FOV."""
    readout = spoke.shape[1]
    profile = scipy.fft.ifft(scipy.fft.ifftshift(spoke.astype(np.complex128), axes=1), axis=1)
    wide = np.zeros((len(spoke), readout * OVERSAMPLING), dtype=np.complex128)
    half = readout // 2
    wide[:, : readout - half] = profile[:, : readout - half]
    wide[:, -half:] = profile[:, -half:]
    fine = scipy.fft.fftshift(scipy.fft.fft(wide, axis=1), axes=1)
    at = (np.arange(fine.shape[1]) - fine.shape[1] // 2) * (matrix / readout / OVERSAMPLING)
    # Spokes meet within (1 + 1 / sin) delays of the centre.
    near = np.abs(at) <= 2 * MAX_DELAY * (1 + 1 / np.sin(np.deg2rad(MIN_CROSSING_DEG)))
    return CubicSpline(at[near], fine[:, near].T)
