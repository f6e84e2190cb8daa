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


class NoiseSums:
    """Noise of all coils, as sums: what its covariance needs, whether it comes once or with every frame of a day."""

    def __init__(self, coils: int) -> None:
        self.number = 0
        self._products = np.zeros((coils, coils), dtype=np.complex128)
        self._powers = np.zeros((coils, coils))
        self._broken = np.zeros(coils, dtype=bool)

    def add(self, noise: npt.NDArray[np.complex64]) -> None:
        """Take in samples (coils, n)."""
        samples = noise.astype(np.complex128)
        broken = ~np.isfinite(samples).all(axis=1)
        samples[broken] = 0
        self._broken |= broken
        powers = np.square(samples.real) + np.square(samples.imag)
        self.number += noise.shape[1]
        self._products += samples @ samples.conj().T
        self._powers += powers @ powers.T

    def covariance(self, coils: npt.NDArray[np.intp]) -> npt.NDArray[np.complex128]:
        """Covariance of ``coils``; E[n n^H], mean not removed (receivers have no offset).

        Raises ReconstructionError for too few samples, broken numbers, and what is no noise.
        """
        least = MIN_SAMPLES_PER_COIL * len(coils)
        if self.number < least:
            raise ReconstructionError(
                f"{self.number} noise samples are too few for {len(coils)} coils, at least {least} are needed"
            )
        if self._broken[coils].any():
            raise ReconstructionError("the noise lines carry NaN or infinity: repeat the noise scan")
        found: npt.NDArray[np.complex128] = self._products[np.ix_(coils, coils)] / self.number
        # Of the power of all coils together: mean square over squared mean.
        burst = float(self._powers[np.ix_(coils, coils)].sum() / self.number)
        burst /= max(float(np.trace(found).real) ** 2, np.finfo(np.float64).tiny)
        if burst > MAX_BURST:
            raise ReconstructionError(
                f"the noise lines carry signal or spikes (their power varies {burst:.3g} fold, that of noise at most "
                "2): were they marked as noise by mistake?"
            )
        return found


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
