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
    """Crop or zero-fill the last ``len(shape)`` axes about their centres N // 2. A view where it only crops, ``array``
    itself where nothing changes."""
    sizes = array.shape[array.ndim - len(shape) :]
    if sizes == tuple(shape):
        return array
    cut = array[_inside(sizes, shape)]
    kept = cut.shape[array.ndim - len(shape) :]
    if kept == tuple(shape):
        return cut
    result = np.zeros((*array.shape[: array.ndim - len(shape)], *shape), dtype=array.dtype)
    result[_inside(shape, kept)] = cut
    return result


def fft_order(array: npt.NDArray[Any], axes: int = 2) -> npt.NDArray[Any]:
    """Move the voxel N // 2 of the last ``axes`` axes to index 0 and take on the phase of a k-space centre at N // 2.

    For maps m in this order, ``m * ifft(K)`` with a bare inverse FFT of centred k-space K equals the centred product:
    the shifts of every frame are paid once, in the maps.
    """
    last = tuple(range(-axes, 0))
    return scipy.fft.ifftshift(array, last) * centre_phase(array.shape[-axes:])


def centre_phase(shape: Sequence[int]) -> ComplexArray:
    """Phase that a bare inverse FFT of centred k-space lacks, in FFT order, shape ``shape``."""
    phase = np.ones((1,) * len(shape), dtype=np.complex128)
    for axis, size in enumerate(shape):
        line = np.exp(-2j * np.pi * ((size // 2) * np.arange(size) % size) / size)
        phase = phase * line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return phase.astype(np.complex64)


def _inside(sizes: Sequence[int], wanted: Sequence[int]) -> tuple[Any, ...]:
    """Where the middle ``wanted`` of ``sizes`` lie along the last axes; everything when wanted is larger."""
    cut = [slice(size // 2 - want // 2, size // 2 - want // 2 + want) for size, want in zip(sizes, wanted, strict=True)]
    return (..., *(part if size > want else slice(None) for part, size, want in zip(cut, sizes, wanted, strict=True)))
