"""Compressed sensing of one plane: parallel imaging data, sparse in wavelets or in differences.

Sources: Lustig, Donoho, Pauly, Magn Reson Med 58:1182 (2007); Beck and Teboulle, SIAM J Imaging Sci 2:183 (2009) for
the accelerated iteration; Chambolle and Pock, J Math Imaging Vis 40:120 (2011) for total variation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..operators.fourier import ComplexArray
from ..operators.wavelet import Wavelet
from .sense import Encoding

Tick = Callable[[float], None]

#: Share of the brightness of bright tissue by which wavelet coefficients, or differences, shrink.
WAVELET_WEIGHT = 0.0035
VARIATION_WEIGHT = 0.0035
#: Iterations for each unit of acceleration, and their bounds: fewer samples, slower convergence.
ITERATIONS_PER_ACCELERATION = 10
ITERATION_BOUNDS = (15, 60)
#: The weight begins so many times higher and falls to its value over the first half of the iterations: coarse
#: structure first, which saves about ten iterations at fourfold acceleration.
FIRST_WEIGHT = 16.0
#: Dual steps for each total-variation step; the dual is kept between iterations, so few are enough.
DUAL_STEPS = 3
#: Brightness that counts as bright tissue: not the maximum, which a single vessel or fat may set.
BRIGHT_QUANTILE = 0.98
#: Shifts of the wavelet grid; trying others each iteration takes the blocks out of the picture.
MAX_SHIFT = 8
SEED = 1


def brightness(encoding: Encoding) -> float:
    """Brightness of bright tissue, from the data before any iteration."""
    return float(np.quantile(np.abs(encoding.adjoint_data), BRIGHT_QUANTILE))


def enough_iterations(sampled_share: float) -> int:
    """Iterations after which an image from this share of k-space no longer changes to the eye."""
    low, high = ITERATION_BOUNDS
    return min(high, max(low, round(ITERATIONS_PER_ACCELERATION / sampled_share)))


def l1_wavelet(
    encoding: Encoding,
    weight: float = WAVELET_WEIGHT,
    iterations: int | None = None,
    tick: Tick = lambda _fraction: None,
) -> ComplexArray:
    """Centred image (a, b) that fits the data with few wavelet coefficients.

    ``weight``: relative to the brightness of bright tissue. Maps must have unit root sum of squares, so that a step
    of 1 is safe. ``iterations``: see :func:`enough_iterations`. ``tick`` is called each iteration.
    """
    image = encoding.adjoint_data
    wavelet = Wavelet((image.shape[0], image.shape[1]))
    rng = np.random.default_rng(SEED)

    def shrink(plane: ComplexArray, threshold: float) -> ComplexArray:
        shift = tuple(rng.integers(0, MAX_SHIFT, 2))
        shrunk = wavelet.shrunk(np.roll(plane, shift, (0, 1)), threshold)
        return np.roll(shrunk, (-shift[0], -shift[1]), (0, 1))

    return _accelerated(encoding, shrink, weight, iterations, tick)


def total_variation(
    encoding: Encoding,
    weight: float = VARIATION_WEIGHT,
    iterations: int | None = None,
    tick: Tick = lambda _fraction: None,
) -> ComplexArray:
    """Centred image (a, b) that fits the data with small differences between neighbours; see :func:`l1_wavelet`."""
    dual = np.zeros((2, *encoding.adjoint_data.shape), dtype=np.complex64)

    def flatten(plane: ComplexArray, threshold: float) -> ComplexArray:
        # The dual problem: plane - threshold * adjoint differences of a field whose length is at most 1. Differences
        # have a norm of at most sqrt(8), hence the step.
        if not threshold:
            return plane
        for _ in range(DUAL_STEPS):
            smooth = plane - np.float32(threshold) * _differences_adjoint(dual)
            dual[...] += _differences(smooth) / np.float32(8 * threshold)
            length = np.sqrt(np.square(np.abs(dual)).sum(axis=0))
            dual[...] /= np.maximum(1, length)
        return np.asarray(plane - np.float32(threshold) * _differences_adjoint(dual))

    return _accelerated(encoding, flatten, weight, iterations, tick)


def _accelerated(
    encoding: Encoding,
    shrink: Callable[[ComplexArray, float], ComplexArray],
    weight: float,
    iterations: int | None,
    tick: Tick,
) -> ComplexArray:
    """FISTA with a falling weight."""
    iterations = enough_iterations(encoding.sampled_share) if iterations is None else iterations
    threshold = weight * brightness(encoding)
    image = ahead = encoding.adjoint_data
    momentum = 1.0
    for iteration in range(iterations):
        tick(iteration / iterations)
        moved = encoding.adjoint_data - encoding.normal(ahead)
        moved += ahead
        first = FIRST_WEIGHT ** max(0.0, 1.0 - 2.0 * iteration / iterations)
        new = shrink(moved, threshold * first)
        after = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + np.float32((momentum - 1) / after) * (new - image)
        image, momentum = new, after
    return encoding.centred(image)


def _differences(plane: ComplexArray) -> ComplexArray:
    """Periodic forward differences along both axes, (2, a, b)."""
    return np.stack([np.roll(plane, -1, axis) - plane for axis in (0, 1)])


def _differences_adjoint(field: ComplexArray) -> ComplexArray:
    return np.asarray(sum(np.roll(field[axis], 1, axis) - field[axis] for axis in (0, 1)))
