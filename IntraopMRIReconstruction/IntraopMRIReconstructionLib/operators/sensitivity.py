"""Coil sensitivities of one plane, from calibration lines (low resolution, ESPIRiT) or from coil images (Walsh, Inati).

All maps have shape (coils, a, b), complex64, and unit root sum of squares where there is signal. Their common phase is
that of the object at low resolution, so that a combined image is nearly real.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import uniform_filter

from ..errors import ReconstructionError
from .fourier import ComplexArray

#: Side of the ESPIRiT kernels in k-space (Uecker et al. use 6).
ESPIRIT_KERNEL = 6
#: Side of the smallest block that has all lags of two kernels.
ESPIRIT_SIDE = 2 * ESPIRIT_KERNEL - 1
#: Singular values of the calibration matrix below this share of the largest belong to noise.
ESPIRIT_SUBSPACE = 0.01
#: Maps are computed on a grid of at most this side and interpolated: kernels of 6 samples cannot vary faster.
ESPIRIT_GRID = 64
#: Power iterations for the largest eigenvector, begun at the low-resolution maps that are nearly there.
POWER_ITERATIONS = 12
#: Side in pixels of the blocks whose covariance the Walsh method takes.
WALSH_BLOCK = 4
#: Passes of the Inati method; it settles in about five (Inati et al., ISMRM 2014, 4407).
INATI_PASSES = 5
#: Side of the smoothing box of the Inati method, in pixels.
INATI_SMOOTHING = 7
#: Keeps a division defined where there is no signal at all; far below the rounding of single precision.
TINY = np.float32(1e-30)


def low_resolution(calibration: ComplexArray, shape: tuple[int, int]) -> ComplexArray:
    """Maps from a fully sampled centre block (coils, ca, cb): its images over their root sum of squares."""
    windows = [np.hanning(size + 2)[1:-1] if size > 2 else np.ones(size) for size in calibration.shape[1:]]
    # A block is so small that two matrix products are faster than the FFT of a plane filled with zeros.
    waves = [
        np.exp(2j * np.pi * np.outer(np.arange(size) - size // 2, np.arange(few) - few // 2) / size) * window
        for size, few, window in zip(shape, calibration.shape[1:], windows, strict=True)
    ]
    along_a = np.matmul(waves[0].astype(np.complex64), calibration)
    return normalised(np.matmul(along_a, waves[1].astype(np.complex64).T))


def espirit(calibration: ComplexArray, shape: tuple[int, int], support: float = 0.0) -> ComplexArray:
    """Maps (coils, *shape) from a fully sampled centre block (coils, ca, cb).

    ``support``: where the largest eigenvalue (1 inside the object) is below it, maps are 0.
    Source: Uecker et al., ESPIRiT, Magn Reson Med 71:990-1001 (2014). Raises ReconstructionError when the block is
    smaller than two kernels along an axis that has more than one sample.
    """
    coils, ca, cb = calibration.shape
    sides = (min(ESPIRIT_KERNEL, ca), min(ESPIRIT_KERNEL, cb))
    if any(1 < size < 2 * side - 1 for size, side in zip((ca, cb), sides, strict=True)):
        raise ReconstructionError(
            f"ESPIRiT needs a fully sampled centre of at least {ESPIRIT_SIDE} x {ESPIRIT_SIDE} samples, got {ca} x {cb}"
            ": acquire more calibration lines or use low-resolution maps"
        )
    grid = (min(shape[0], ESPIRIT_GRID), min(shape[1], ESPIRIT_GRID))
    gram = _pixel_gram(_row_space(calibration, sides), coils, sides, grid)
    start = low_resolution(calibration, grid)
    vectors = np.moveaxis(start, 0, -1)[..., None]
    for _ in range(POWER_ITERATIONS):
        vectors = gram @ vectors
        vectors /= np.linalg.norm(vectors, axis=-2, keepdims=True) + TINY
    maps = np.moveaxis(vectors[..., 0], -1, 0)
    maps = maps * _phase(np.sum(start * maps.conj(), axis=0))
    if support > 0:
        value = np.linalg.norm(gram @ vectors, axis=(-2, -1))
        maps = maps * (value >= support)
    return _interpolated(maps, shape)


def walsh(images: ComplexArray) -> ComplexArray:
    """Maps from coil images (coils, a, b): the dominant eigenvector of the covariance around each block of pixels.

    Source: Walsh, Gmitro, Marcellin, Adaptive reconstruction of phased array MR imagery, Magn Reson Med 43:682 (2000).
    """
    coils, *shape = images.shape
    block = WALSH_BLOCK
    padded = np.pad(images, ((0, 0), *((0, -size % block) for size in shape)))
    rows, columns = (size // block for size in padded.shape[1:])
    blocks = padded.reshape(coils, rows, block, columns, block).transpose(1, 3, 0, 2, 4)
    blocks = blocks.reshape(rows, columns, coils, block * block)
    covariance = blocks @ blocks.conj().swapaxes(-1, -2)
    covariance = uniform_filter(covariance, size=(3, 3, 1, 1), mode="nearest")
    vectors = _strongest_column(covariance)
    for _ in range(POWER_ITERATIONS):
        vectors = covariance @ vectors
        vectors /= np.linalg.norm(vectors, axis=-2, keepdims=True) + TINY
    maps = np.moveaxis(vectors[..., 0], -1, 0)
    means = np.moveaxis(blocks.mean(axis=-1), -1, 0)
    maps = maps * _phase(np.sum(means * maps.conj(), axis=0))
    full = _interpolated(maps, (rows * block, columns * block), first=(block - 1) / 2)
    return np.ascontiguousarray(full[:, : shape[0], : shape[1]])


def inati(images: ComplexArray) -> ComplexArray:
    """Maps from coil images (coils, a, b) by alternating combination and smoothing.

    Source: Inati, Hansen, Kellman, A fast optimal method for coil sensitivity estimation, ISMRM 2014, 4407.
    """
    weights = images.sum(axis=(1, 2), keepdims=True)
    maps = np.broadcast_to(weights / (np.linalg.norm(weights) + TINY), images.shape)
    for _ in range(INATI_PASSES):
        combined = np.sum(maps.conj() * images, axis=0)
        smooth = uniform_filter(images * combined.conj(), size=(1, INATI_SMOOTHING, INATI_SMOOTHING), mode="nearest")
        maps = normalised(smooth)
    mean = uniform_filter(np.sum(maps.conj() * images, axis=0), size=INATI_SMOOTHING, mode="nearest")
    return np.asarray(maps * _phase(mean), dtype=np.complex64)


def combined(images: npt.NDArray[np.complex64], maps: ComplexArray) -> ComplexArray:
    """Best linear combination (..., a, b) of coil images (coils, a, b) whose noise is white."""
    return np.asarray(np.einsum("cab,cab->ab", maps.conj(), images))


def normalised(maps: ComplexArray) -> ComplexArray:
    """Maps with a root sum of squares of 1; they stay 0 where they are 0."""
    parts = np.ascontiguousarray(maps).view(np.float32)
    power = np.einsum("cab,cab->ab", parts, parts)
    power = power[:, 0::2] + power[:, 1::2]
    # Real numbers: dividing complex by real takes numpy several times as long.
    scale = np.repeat(1 / (np.sqrt(power) + TINY), 2, axis=1)
    return np.asarray((parts * scale).view(np.complex64))


def _row_space(calibration: ComplexArray, sides: tuple[int, int]) -> ComplexArray:
    """Projector (n, n) onto what patches of calibration data span, n = coils * kernel * kernel."""
    patches = sliding_window_view(calibration, sides, axis=(1, 2))
    rows = patches.transpose(1, 2, 0, 3, 4).reshape(-1, calibration.shape[0] * sides[0] * sides[1])
    gram = rows.conj().T @ rows
    values, vectors = np.linalg.eigh(gram)
    kept = vectors[:, values > ESPIRIT_SUBSPACE**2 * values[-1]]
    return np.asarray(kept @ kept.conj().T)


def _pixel_gram(projector: ComplexArray, coils: int, sides: tuple[int, int], grid: tuple[int, int]) -> ComplexArray:
    """The operator's matrix at each pixel, (*grid, coils, coils): the Fourier transform of summed lag products."""
    ka, kb = sides
    pairs = projector.reshape(coils, ka, kb, coils, ka, kb)
    lags = np.zeros((2 * ka - 1, 2 * kb - 1, coils, coils), dtype=np.complex64)
    for a in range(ka):
        for b in range(kb):
            lags[ka - 1 - a : 2 * ka - 1 - a, kb - 1 - b : 2 * kb - 1 - b] += pairs[:, a, b].transpose(2, 3, 0, 1)
    waves = [_waves(side, size) for side, size in zip(sides, grid, strict=True)]
    half = np.tensordot(waves[0], lags, axes=1)
    full = np.matmul(waves[1], half.reshape(grid[0], 2 * kb - 1, coils * coils))
    return np.asarray(full.reshape(*grid, coils, coils).conj() / np.float32(ka * kb))


def _waves(side: int, size: int) -> ComplexArray:
    lag = np.arange(-(side - 1), side)
    position = (np.arange(size) - size // 2) / size
    return np.exp(2j * np.pi * np.outer(position, lag)).astype(np.complex64)


def _strongest_column(covariance: ComplexArray) -> ComplexArray:
    power = np.abs(np.diagonal(covariance, axis1=-2, axis2=-1))
    return np.take_along_axis(covariance, power.argmax(axis=-1)[..., None, None], axis=-1)


def _phase(values: ComplexArray) -> ComplexArray:
    return values / (np.abs(values) + TINY)


def _interpolated(maps: ComplexArray, shape: tuple[int, int], first: float | None = None) -> ComplexArray:
    """Bilinear interpolation of (coils, a, b), renormalised where there is a map.

    ``first``: where the first old sample lies among the new ones; None puts the centres N // 2 upon one another.
    """
    for axis, size in ((1, shape[0]), (2, shape[1])):
        old = maps.shape[axis]
        if old == size:
            continue
        origin = size // 2 - (old // 2) * (size / old) if first is None else first
        at = np.clip((np.arange(size) - origin) * (old / size), 0, old - 1)
        low = np.minimum(at.astype(int), old - 2) if old > 1 else np.zeros(size, int)
        weight = (at - low).astype(np.float32).reshape((-1, 1) if axis == 1 else (1, -1))
        high = np.minimum(low + 1, old - 1)
        maps = np.take(maps, low, axis) * (1 - weight) + np.take(maps, high, axis) * weight
    return normalised(np.ascontiguousarray(maps, dtype=np.complex64))
