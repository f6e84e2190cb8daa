"""Noise of a coil array: covariance, prewhitening, and what it makes of an image (SNR units).

Source: Kellman and McVeigh, Image reconstruction in SNR units, Magn Reson Med 54:1439-1447 (2005).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import ReconstructionError

#: Independent noise samples for each coil below which a covariance is a guess (its error is about 1 / sqrt(n)).
MIN_SAMPLES_PER_COIL = 16
#: A covariance whose smallest eigenvalue is below this share of the largest cannot be inverted in single precision.
MIN_EIGENVALUE_SHARE = 1e-6

#: Mean square of the power of noise over the square of its mean: 1 + 1 / coils (2 for a single one), with margin for
#: few samples. The lines of a picture have their power in the middle: many times more.
MAX_BURST = 4.0


def covariance_of(noise: npt.NDArray[np.complex64]) -> npt.NDArray[np.complex128]:
    """Covariance (coils, coils) of noise samples (coils, n); E[n n^H], mean not removed (receivers have no offset).

    Raises ReconstructionError for too few samples, broken numbers, and what is no noise.
    """
    coils, number = noise.shape
    if number < MIN_SAMPLES_PER_COIL * coils:
        raise ReconstructionError(
            f"{number} noise samples are too few for {coils} coils, at least {MIN_SAMPLES_PER_COIL * coils} are needed"
        )
    if not np.isfinite(noise).all():
        raise ReconstructionError("the noise lines carry NaN or infinity: repeat the noise scan")
    samples = noise.astype(np.complex128)
    power = (np.abs(samples) ** 2).sum(axis=0)
    burst = float(np.mean(power**2) / max(np.mean(power) ** 2, np.finfo(np.float64).tiny))
    if burst > MAX_BURST:
        raise ReconstructionError(
            f"the noise lines carry signal or spikes (their power varies {burst:.3g} fold, that of noise at most 2): "
            "were they marked as noise by mistake?"
        )
    return np.asarray(samples @ samples.conj().T / number)


def whitening_matrix(covariance: npt.NDArray[np.complex128]) -> npt.NDArray[np.complex64]:
    """Matrix W (coils, coils) so that W n has unit covariance: the inverse Cholesky factor.

    Raises ReconstructionError when a coil has no noise or two coils are copies of one another.
    """
    values = np.linalg.eigvalsh(covariance)
    if values[0] <= MIN_EIGENVALUE_SHARE * values[-1]:
        raise ReconstructionError(
            f"the noise covariance is singular (eigenvalues {values[0]:.3g} to {values[-1]:.3g}): a coil has no noise "
            "or two coils carry the same signal"
        )
    return np.linalg.inv(np.linalg.cholesky(covariance)).astype(np.complex64)


def mixed(
    matrix: npt.NDArray[np.complex64],
    samples: npt.NDArray[np.complex64],
    lines: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.complex64]:
    """Apply a coil matrix (new, coils) to samples (coils, z, y, x), one z after another so that temporaries stay small.

    ``lines``: (z, y), where samples are not 0; all of them when None.
    """
    result = np.zeros((len(matrix), *samples.shape[1:]), dtype=np.complex64)
    for z in range(samples.shape[1]):
        rows: slice | npt.NDArray[np.bool_] = slice(None) if lines is None else lines[z]
        result[:, z, rows] = np.tensordot(matrix, samples[:, z, rows], axes=1)
    return result
