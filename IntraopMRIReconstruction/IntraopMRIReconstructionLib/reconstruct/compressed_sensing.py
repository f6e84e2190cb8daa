"""Compressed sensing of one plane: parallel imaging data, sparse in wavelets or in differences.

Sources: Lustig, Donoho, Pauly, Magn Reson Med 58:1182 (2007); Beck and Teboulle, SIAM J Imaging Sci 2:183 (2009) for
the accelerated iteration; Chambolle and Pock, J Math Imaging Vis 40:120 (2011) for total variation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..operators.fourier import ComplexArray
from ..operators.wavelet import Wavelet
from .sense import Encoding, conjugate_gradients

Tick = Callable[[float], None]

#: Share of the brightness of bright tissue by which wavelet coefficients, or differences, shrink.
WAVELET_WEIGHT = 0.004
VARIATION_WEIGHT = 0.004
ITERATIONS = 30
#: Brightness that counts as bright tissue: not the maximum, which a single vessel or fat may set.
BRIGHT_QUANTILE = 0.98
#: Shifts of the wavelet grid; trying others each iteration takes the blocks out of the picture.
MAX_SHIFT = 8
SEED = 1


def brightness(encoding: Encoding) -> float:
    """Brightness of bright tissue, from the data before any iteration."""
    return float(np.quantile(np.abs(encoding.adjoint_data), BRIGHT_QUANTILE))


def l1_wavelet(
    encoding: Encoding,
    weight: float = WAVELET_WEIGHT,
    iterations: int = ITERATIONS,
    tick: Tick = lambda _fraction: None,
) -> ComplexArray:
    """Centred image (a, b) that fits the data with few wavelet coefficients.

    ``weight``: relative to the brightness of bright tissue. Maps must have unit root sum of squares, so that a step
    of 1 is safe. ``tick`` is called each iteration.
    """
    threshold = weight * brightness(encoding)
    image = encoding.adjoint_data
    wavelet = Wavelet((image.shape[0], image.shape[1]))
    rng = np.random.default_rng(SEED)
    ahead, momentum = image, 1.0
    for iteration in range(iterations):
        tick(iteration / iterations)
        moved = ahead + (encoding.adjoint_data - encoding.normal(ahead))
        shift = tuple(rng.integers(0, MAX_SHIFT, 2))
        shrunk = wavelet.shrunk(np.roll(moved, shift, (0, 1)), threshold)
        new = np.roll(shrunk, (-shift[0], -shift[1]), (0, 1))
        after = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + np.float32((momentum - 1) / after) * (new - image)
        image, momentum = new, after
    return encoding.centred(image)
