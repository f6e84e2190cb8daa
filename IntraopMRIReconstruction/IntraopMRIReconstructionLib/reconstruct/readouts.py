"""Readouts of a Cartesian scan on the grid: forward order, the echo at N // 2, oversampling removed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

from ..data import Encoding
from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray
from ..operators.sampling import PARTIAL_SHARE

#: A ratio of the fields of view counts as a whole number within this (headers carry single precision).
OVERSAMPLING_TOLERANCE = 1e-3


class Readouts:
    """Places the readouts of one scan by their echo.

    Sample n was taken n - centre steps from the centre of k-space, ``centre`` being the header's along x. It belongs
    at that place of the matrix, whether a readout is short (asymmetric echo) or as long as the matrix with its echo
    elsewhere; a sample that would lie outside carries more detail than the matrix can show and is left out.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._size = encoding.encoded_matrix[2]
        self._centre = encoding.centre_index[2]
        self._stated = encoding.centre is not None
        self._length: int | None = None
        #: Samples that remain of a readout.
        self.kept = _kept_samples(encoding)

    @property
    def range(self) -> tuple[int, int]:
        """First and last + 1 kept sample that was acquired; all of them while too few lack to be worth completing."""
        if self._length is None:
            return 0, self.kept
        start = self._size // 2 - self._centre
        first, stop = max(0, start), min(self._size, start + self._length)
        if self._size - (stop - first) <= PARTIAL_SHARE * self._size:
            return 0, self.kept
        scale = self.kept / self._size
        return int(np.ceil(first * scale)), int(stop * scale)

    def check(self, length: int) -> None:
        """Raise ReconstructionError unless a readout of ``length`` samples fits the header and those before."""
        if length > self._size or (length < self._size and not self._stated) or not 0 <= self._centre < length:
            raise ReconstructionError(
                f"a readout has {length} samples, the header's encoded matrix {self._size} with the centre at "
                f"{self._centre}: they do not fit"
            )
        if self._length not in (None, length):
            raise ReconstructionError(f"readouts of one scan must have one length, got {length} samples now")
        self._length = length

    def central(self, length: int, reverse: npt.NDArray[np.bool_], cycles: float) -> npt.NDArray[np.bool_]:
        """Which samples (lines, length) lie within ``cycles`` per field of view of the centre of k-space; lines marked
        ``reverse`` (lines,) were read backwards."""
        near: npt.NDArray[np.bool_] = np.abs(np.arange(length) - self._centre) <= cycles * self._size / self.kept
        return np.where(reverse[:, None], near[::-1], near)

    def on_grid(self, lines: ComplexArray, reverse: npt.NDArray[np.bool_]) -> ComplexArray:
        """Lines (n, coils, kept) from (n, coils, samples); those marked ``reverse`` (n,) were read backwards."""
        if reverse.any():
            lines = np.where(reverse[:, None, None], lines[..., ::-1], lines)
        start, length = self._size // 2 - self._centre, lines.shape[2]
        if start or length != self._size:
            first, stop = max(0, start), min(self._size, start + length)
            full = np.zeros((*lines.shape[:2], self._size), dtype=np.complex64)
            full[..., first:stop] = lines[..., first - start : stop - start]
            lines = full
        return lines if self.kept == self._size else _cropped(lines, self.kept)


def _kept_samples(encoding: Encoding) -> int:
    """Samples of a readout that remain when oversampling is removed; all of them when the ratio is not whole."""
    x = encoding.encoded_matrix[2]
    ratio = encoding.encoded_fov_mm[2] / encoding.recon_fov_mm[2]
    kept = round(x / ratio)
    if ratio > 1.0 and abs(x / ratio - kept) < OVERSAMPLING_TOLERANCE * x / ratio and kept >= 1:
        return kept
    return x


def _cropped(lines: ComplexArray, kept: int) -> ComplexArray:
    """Keep the middle ``kept`` pixels of the readout (..., x) in image space, orthonormal and centred."""
    x = lines.shape[-1]
    image = scipy.fft.fftshift(scipy.fft.ifft(scipy.fft.ifftshift(lines, -1), norm="ortho"), -1)
    start = x // 2 - kept // 2
    inner = scipy.fft.ifftshift(image[..., start : start + kept], -1)
    result: ComplexArray = scipy.fft.fftshift(scipy.fft.fft(inner, norm="ortho"), -1)
    return result
