"""Orthonormal periodic Daubechies wavelets of a plane, as products with small matrices.

A 256 x 256 complex plane takes two real 256 x 256 matrix products for its first level and an eighth of that for each
further one; BLAS does that faster than filters written as slices.
Source: Daubechies, Comm Pure Appl Math 41:909 (1988).
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from .fourier import ComplexArray

#: Low-pass filter of Daubechies wavelets with four vanishing moments.
DB4 = (
    0.23037781330885523,
    0.7148465705525415,
    0.6308807679295904,
    -0.02798376941698385,
    -0.18703481171888114,
    0.030841381835986965,
    0.032883011666982945,
    -0.010597401784997278,
)
#: The coarsest level keeps at least this many coefficients along an axis, twice the filter's length.
COARSEST = 16


class Wavelet:
    """Transform of planes (a, b) of one shape: ``coefficients = wavelet.forward(plane)``, ``wavelet.inverse`` back.

    Sides that do not halve often enough are filled with zeros at the end; the transform keeps the norm all the same.
    """

    def __init__(self, shape: tuple[int, int], levels: int = 4) -> None:
        """``levels``: at most so many; fewer when the plane is small."""
        self.shape = shape
        self.levels = max(0, min(levels, *(int(np.log2(max(1, size / COARSEST))) for size in shape)))
        step = 2**self.levels
        self.padded = (-(-shape[0] // step) * step, -(-shape[1] // step) * step)

    def forward(self, plane: ComplexArray) -> ComplexArray:
        """Coefficients (padded a, padded b), coarse ones first along both axes."""
        result = np.zeros(self.padded, dtype=np.complex64)
        result[: self.shape[0], : self.shape[1]] = plane
        for level in range(self.levels):
            a, b = self.padded[0] >> level, self.padded[1] >> level
            columns = np.ascontiguousarray(result[:a, :b])
            rows = np.ascontiguousarray(_product(_matrix(a), columns).T)
            result[:a, :b] = _product(_matrix(b), rows).T
        return result

    def inverse(self, coefficients: ComplexArray) -> ComplexArray:
        """The plane (a, b): the inverse, and the adjoint, of :meth:`forward`."""
        result = coefficients.copy()
        for level in reversed(range(self.levels)):
            a, b = self.padded[0] >> level, self.padded[1] >> level
            columns = np.ascontiguousarray(result[:a, :b])
            rows = np.ascontiguousarray(_product(_matrix(a).T, columns).T)
            result[:a, :b] = _product(_matrix(b).T, rows).T
        return np.ascontiguousarray(result[: self.shape[0], : self.shape[1]])

    def shrunk(self, plane: ComplexArray, threshold: float) -> ComplexArray:
        """The plane with every detail coefficient's magnitude lowered by ``threshold``; the coarsest part is kept."""
        coefficients = self.forward(plane)
        magnitude = np.abs(coefficients)
        np.maximum(magnitude, np.float32(1e-30), out=magnitude)
        gain = np.maximum(0, 1 - np.float32(threshold) / magnitude)
        gain[: self.padded[0] >> self.levels, : self.padded[1] >> self.levels] = 1
        coefficients *= gain
        return self.inverse(coefficients)


@functools.cache
def _matrix(size: int) -> npt.NDArray[np.float32]:
    """One level along one axis: the first half of the rows low-pass, the second high-pass, periodic, orthonormal."""
    low = np.asarray(DB4)
    high = low[::-1] * np.where(np.arange(len(low)) % 2, -1.0, 1.0)
    matrix = np.zeros((size, size))
    for row in range(size // 2):
        for tap in range(len(low)):
            column = (2 * row + tap) % size
            matrix[row, column] += low[tap]
            matrix[size // 2 + row, column] += high[tap]
    return matrix.astype(np.float32)


def _product(matrix: npt.NDArray[np.float32], plane: ComplexArray) -> ComplexArray:
    return np.asarray((matrix @ plane.view(np.float32)).view(np.complex64))
