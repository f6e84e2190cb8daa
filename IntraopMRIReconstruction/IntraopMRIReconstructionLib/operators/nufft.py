"""The non-uniform Fourier transform of planes and volumes: finufft where it is installed, else sparse gridding.

Convention as in :mod:`.fourier`: ``samples[m] = 1 / sqrt(Ny Nx) * sum_n image[n] exp(-2 pi i k[m] . n / N)`` with n
counted from the voxel N // 2 and k = (kx, ky) or (kx, ky, kz) in cycles per field of view, so that a Cartesian k gives
the centred orthonormal FFT. Sources: Barnett, Magland, af Klinteberg, SIAM J Sci Comput 41:C479 (2019) for the kernel
and finufft; Beatty, Nishimura, Pauly, IEEE Trans Med Imaging 24:799 (2005) for gridding with little oversampling.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.sparse

from ..errors import ReconstructionError
from .fourier import ComplexArray

FloatArray = npt.NDArray[np.float32]
Backend = Literal["auto", "finufft", "sparse"]

#: Relative error asked of finufft: far below the noise of a scan; its default of 1e-6 takes six times as long.
ACCURACY = 1e-3
#: Size of the oversampled grid over the matrix; the FFT of that grid is most of the work.
OVERSAMPLING = 1.25
#: Side of the gridding kernel in cells; with this oversampling the error is about 2e-3.
WIDTH = 5
#: Shape parameter of the kernel for that width and oversampling (Barnett et al., section 3.2).
BETA = 0.97 * np.pi * WIDTH * (1 - 1 / (2 * OVERSAMPLING))
#: Largest sparse matrix for a volume: each sample reaches WIDTH^3 cells.
MAX_SPARSE_BYTES = 2 * 2**30
#: Points of the quadrature of the kernel's Fourier transform: exact to double precision for this shape.
QUADRATURE = 64


class Gridding:
    """Where samples fall on the oversampled grid of planes ``shape`` (y, x), or volumes, and with what weights.

    Grids are in FFT order: k = 0 at index 0.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """``shape``: matrix (y, x) or (z, y, x) of the image, each at least 2."""
        if min(shape) < 2:
            raise ReconstructionError(f"gridding needs a matrix of at least 2 x 2, got {shape}")
        self.shape = shape
        self.grid = tuple(int(scipy.fft.next_fast_len(max(int(np.ceil(OVERSAMPLING * n)), WIDTH + 1))) for n in shape)
        self._axes = tuple(range(-len(shape), 0))
        self._scale = np.float32(1 / np.sqrt(math.prod(shape)))
        #: (y, x) factor, centred, that undoes the kernel in the image.
        self.correction: FloatArray = functools.reduce(
            np.multiply.outer,
            [1 / _kernel_spectrum((np.arange(n) - n // 2) / g) for n, g in zip(shape, self.grid, strict=True)],
        ).astype(np.float32)

    def taps(self, k: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int32], FloatArray]:
        """(cells, weights), both (samples, WIDTH^2), of positions ``k`` (samples, 2) = (kx, ky); 3 of volumes."""
        cells: npt.NDArray[Any] = np.zeros((len(k), 1), np.int32)
        weights: FloatArray = np.ones((len(k), 1), np.float32)
        for axis, size in enumerate(self.grid):
            at: npt.NDArray[Any] = k[:, -1 - axis] * (size / self.shape[axis])
            first = np.ceil(at - WIDTH / 2).astype(np.int32)
            index = first[:, None] + np.arange(WIDTH, dtype=np.int32)
            values = _kernel((index - at[:, None]).astype(np.float32))
            cells = (cells[:, :, None] * np.int32(size) + (index % size)[:, None, :]).reshape(len(k), -1)
            weights = (weights[:, :, None] * values[:, None, :]).reshape(len(k), -1)
        return cells, weights

    def matrix(self, k: npt.NDArray[Any]) -> scipy.sparse.csr_matrix:
        """Sparse (samples, cells) interpolation from the grid; its transpose spreads samples onto the grid.

        Raises ReconstructionError when it would take more than ``MAX_SPARSE_BYTES``.
        """
        each = WIDTH ** len(self.shape)
        if 2 * len(k) * each * 8 > MAX_SPARSE_BYTES:
            raise ReconstructionError(
                f"{len(k)} samples of a volume are too many without finufft, at most "
                f"{MAX_SPARSE_BYTES // (16 * each)}: install finufft"
            )
        cells, weights = self.taps(k)
        pointer = np.arange(len(k) + 1) * each
        size = (len(k), math.prod(self.grid))
        return scipy.sparse.csr_matrix((weights.ravel(), cells.ravel(), pointer), shape=size)

    def quadrants(self) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
        """The 4 parts of a plane, 8 of a volume: (where in the centred image, where in the grid in FFT order)."""
        halves = [
            ((slice(n // 2, n), slice(0, n - n // 2)), (slice(0, n // 2), slice(g - n // 2, g)))
            for n, g in zip(self.shape, self.grid, strict=True)
        ]
        return [
            (tuple(image for image, _ in part), tuple(grid for _, grid in part)) for part in itertools.product(*halves)
        ]

    def images(self, grid: ComplexArray, threads: int = 1) -> ComplexArray:
        """Centred coil images (coils, y, x) from grids (coils, *grid), kernel undone."""
        whole = scipy.fft.ifftn(grid, axes=self._axes, norm="forward", workers=threads)
        images = np.empty((len(grid), *self.shape), dtype=np.complex64)
        for image, part in self.quadrants():
            np.multiply(whole[(slice(None), *part)], self.correction[image], out=images[(slice(None), *image)])
        images *= self._scale
        return images

    def grids(self, images: ComplexArray, threads: int = 1) -> ComplexArray:
        """Grids (coils, *grid) from centred coil images: the adjoint of :meth:`images`."""
        padded = np.zeros((len(images), *self.grid), dtype=np.complex64)
        for image, part in self.quadrants():
            np.multiply(images[(slice(None), *image)], self.correction[image], out=padded[(slice(None), *part)])
        padded *= self._scale
        return np.asarray(scipy.fft.fftn(padded, axes=self._axes, workers=threads, overwrite_x=True))


class Nufft:
    """The transform for fixed positions, planned once and used for every frame.

    ``backend``: what is used, "finufft" or "sparse".
    """

    def __init__(
        self, k: npt.NDArray[Any], shape: tuple[int, ...], coils: int, threads: int = 1, backend: Backend = "auto"
    ) -> None:
        """``k``: (..., 2) = (kx, ky) in cycles per field of view; ``shape``: (y, x); of volumes (..., 3), (z, y, x).

        Raises ReconstructionError when a position is not finite or lies outside -N / 2 .. N / 2, or when finufft is
        asked for by name and not installed.
        """
        self.k: FloatArray = checked_positions(k, shape)
        self.shape, self.coils, self._threads = shape, coils, threads
        installed = importlib.util.find_spec("finufft") is not None
        if backend == "finufft" and not installed:
            raise ReconstructionError("backend finufft is not installed: install finufft or use backend 'sparse'")
        self.backend: Literal["finufft", "sparse"] = "finufft" if installed and backend != "sparse" else "sparse"
        self._scale = np.float32(1 / np.sqrt(math.prod(shape)))
        self._plans: dict[int, Any] = {}
        if self.backend == "sparse":
            self._gridding = Gridding(shape)
            self._interpolate = self._gridding.matrix(self.k)
            self._spread = self._interpolate.T.tocsr()

    def adjoint(self, samples: ComplexArray) -> ComplexArray:
        """Coil images (coils, y, x) from samples (coils, ...) along ``k``; weighted by density they are a picture."""
        flat = self._checked(samples, (self.coils, len(self.k)))
        if self.backend == "finufft":
            images: ComplexArray = np.asarray(self._plan(1).execute(flat * self._scale), dtype=np.complex64)
            return images.reshape(self.coils, *self.shape)
        grid = _real_product(self._spread, flat).reshape(self.coils, *self._gridding.grid)
        return self._gridding.images(grid, self._threads)

    def forward(self, images: ComplexArray) -> ComplexArray:
        """Samples (coils, samples) from coil images (coils, y, x)."""
        if images.shape != (self.coils, *self.shape):
            raise ReconstructionError(f"images must have shape {(self.coils, *self.shape)}, got {images.shape}")
        if self.backend == "finufft":
            full = np.ascontiguousarray(images, dtype=np.complex64)
            full = full if self.coils > 1 else full[0]
            values: ComplexArray = np.asarray(self._plan(2).execute(full), dtype=np.complex64)
            return values.reshape(self.coils, -1) * self._scale
        grid = self._gridding.grids(np.ascontiguousarray(images, dtype=np.complex64), self._threads)
        return _real_product(self._interpolate, grid.reshape(self.coils, -1))

    def _checked(self, samples: ComplexArray, shape: tuple[int, int]) -> ComplexArray:
        if samples.shape[0] != shape[0] or samples.size != shape[0] * shape[1]:
            raise ReconstructionError(f"samples must be (coils, samples) = {shape}, got {samples.shape}")
        return np.ascontiguousarray(samples.reshape(shape), dtype=np.complex64)

    def _plan(self, kind: int) -> Any:
        """finufft's plan of type 1 (samples to image) or 2, made when first needed."""
        if kind not in self._plans:
            finufft = importlib.import_module("finufft")
            sign = 1 if kind == 1 else -1
            # 0 lets finufft count: with more threads than physical cores it takes twice as long.
            threads = 1 if self._threads == 1 else 0
            settings = {"dtype": "complex64", "upsampfac": OVERSAMPLING, "nthreads": threads, "showwarn": 0}
            plan = finufft.Plan(kind, self.shape, self.coils, ACCURACY, sign, **settings)
            turns = (2 * np.pi / np.array(self.shape[::-1])).astype(np.float32)
            plan.setpts(*np.ascontiguousarray((self.k * turns).T)[::-1])
            self._plans[kind] = plan
        return self._plans[kind]


def checked_positions(k: npt.NDArray[Any], shape: tuple[int, ...]) -> FloatArray:
    """``k`` (..., 2) as (samples, 2) float32; ReconstructionError when it does not belong to the matrix ``shape``."""
    if k.ndim < 2 or k.shape[-1] != len(shape) or k.size == 0:
        names = "(kx, ky)" if len(shape) == 2 else "(kx, ky, kz)"
        raise ReconstructionError(f"a trajectory must have shape (..., {len(shape)}) = {names}, got {k.shape}")
    flat = k.reshape(-1, len(shape))
    if not np.isfinite(flat).all():
        raise ReconstructionError(f"{int((~np.isfinite(flat)).any(axis=1).sum())} positions of the trajectory are NaN")
    # A delayed spoke leaves the matrix by a little, and comes back on the other side where the signal has vanished.
    limit = np.array(shape[::-1]) / 2 * 1.1 + 1
    reach = np.abs(flat).max(axis=0)
    if (reach > limit).any():
        raise ReconstructionError(
            f"the trajectory reaches {reach.tolist()} cycles per field of view along (x, y ...), beyond half of the "
            f"matrix {shape[::-1]}: check its unit or reconstruct a larger matrix"
        )
    return np.ascontiguousarray(flat, dtype=np.float32)


def _kernel(cells: FloatArray) -> FloatArray:
    """Exponential of a semicircle, at distances in cells within WIDTH / 2."""
    inside = np.maximum(0, 1 - np.square(cells * np.float32(2 / WIDTH)))
    return np.exp(np.float32(BETA) * (np.sqrt(inside) - 1)).astype(np.float32)


def _kernel_spectrum(cycles_per_cell: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    nodes, weights = np.polynomial.legendre.leggauss(QUADRATURE)
    values = np.exp(BETA * (np.sqrt(1 - nodes**2) - 1)) * weights * WIDTH / 2
    return np.asarray(np.cos(np.multiply.outer(cycles_per_cell, np.pi * WIDTH * nodes)) @ values)


def _real_product(matrix: scipy.sparse.csr_matrix, rows: ComplexArray) -> ComplexArray:
    """``rows`` (coils, n) times a real sparse (m, n): (coils, m), without making the matrix complex."""
    columns = np.ascontiguousarray(rows.T).view(np.float32)
    return np.ascontiguousarray((matrix @ columns).view(np.complex64).T)
