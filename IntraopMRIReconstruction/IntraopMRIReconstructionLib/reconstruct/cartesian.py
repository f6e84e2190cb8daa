"""Fully sampled Cartesian k-space to a magnitude image: inverse FFT and root sum of squares, coil by coil.

Source: Roemer et al., The NMR phased array, Magn Reson Med 16:192-225 (1990).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

from ..data import Encoding
from ..operators.fourier import resized
from .grid import fourier_axes, full_matrix, interpolation_gain
from .result import Step


def root_sum_of_squares(
    samples: npt.NDArray[np.complex64], encoding: Encoding, step: Step, threads: int = 2
) -> npt.NDArray[np.float32]:
    """Magnitude (z, y, x) on the recon grid from k-space (coils, z, y, x) on the encoded grid, which stays as it is.

    Coils are transformed one after the other and accumulated, so that one coil is in memory at a time.
    """
    full = full_matrix(encoding)
    axes = fourier_axes(encoding)
    power = np.zeros(full, dtype=np.float32)
    for coil, kspace in enumerate(samples):
        step(coil / len(samples), "Fourier transform")
        # Without shifts before and after, coil images differ from the centred ones by a phase and a roll only.
        image = scipy.fft.ifftn(resized(kspace, full), axes=axes, workers=threads, norm="ortho")
        parts = image.view(np.float32)
        np.multiply(parts, parts, out=parts)
        power += parts[..., 0::2]
        power += parts[..., 1::2]
    np.sqrt(power, out=power)
    power *= np.float32(interpolation_gain(encoding))
    centred = scipy.fft.fftshift(power, axes)
    return np.ascontiguousarray(resized(centred, encoding.recon_matrix))
