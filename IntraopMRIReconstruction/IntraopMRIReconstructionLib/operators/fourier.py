"""The centred orthonormal Fourier transform, and the change of matrix between encoding and image.

Convention of the whole library: ``image = centred inverse FFT of k-space``,
``x[n] = 1 / sqrt(N) * sum_k X[k] * exp(+2 pi i (k - N // 2) (n - N // 2) / N)``, so white noise keeps its variance.
The centre of the field of view is the voxel N // 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

ComplexArray = npt.NDArray[np.complex64]


def image_from_kspace(kspace: npt.NDArray[Any], axes: Sequence[int], threads: int = 1) -> npt.NDArray[Any]:
    """Centred orthonormal inverse FFT along ``axes``; complex64 stays complex64."""
    moved = scipy.fft.ifftshift(kspace, axes)
    image = scipy.fft.ifftn(moved, axes=axes, norm="ortho", workers=threads, overwrite_x=True)
    return np.asarray(scipy.fft.fftshift(image, axes))


def kspace_from_image(image: npt.NDArray[Any], axes: Sequence[int], threads: int = 1) -> npt.NDArray[Any]:
    """Centred orthonormal FFT along ``axes``: the inverse and the adjoint of :func:`image_from_kspace`."""
    moved = scipy.fft.ifftshift(image, axes)
    kspace = scipy.fft.fftn(moved, axes=axes, norm="ortho", workers=threads, overwrite_x=True)
    return np.asarray(scipy.fft.fftshift(kspace, axes))


def resized(array: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    """Crop or zero-fill the last ``len(shape)`` axes about their centres N // 2. A view where it only crops."""
    first = array.ndim - len(shape)
    cut = array[(..., *(_inner(size, wanted) for size, wanted in zip(array.shape[first:], shape, strict=True)))]
    if cut.shape[first:] == tuple(shape):
        return cut
    result = np.zeros((*array.shape[:first], *shape), dtype=array.dtype)
    result[(..., *(_inner(wanted, size) for size, wanted in zip(cut.shape[first:], shape, strict=True)))] = cut
    return result


def _inner(size: int, wanted: int) -> slice:
    """Where the middle ``wanted`` of ``size`` lie; everything when wanted is larger."""
    if wanted >= size:
        return slice(None)
    start = size // 2 - wanted // 2
    return slice(start, start + wanted)
