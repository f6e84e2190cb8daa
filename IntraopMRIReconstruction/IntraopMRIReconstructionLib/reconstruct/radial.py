"""Golden-angle radial imaging in real time: every new spoke is gridded once, and a frame costs one FFT.

Sources: Winkelmann et al., IEEE Trans Med Imaging 26:68 (2007) for the golden angle; Pruessmann et al., Magn Reson Med
46:638 (2001) for iterative SENSE along any trajectory. Delays of the gradients: :mod:`.gradient_delays`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.sparse

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray, kspace_from_image, resized
from ..operators.nufft import Backend, Gridding, Nufft
from ..operators.sensitivity import low_resolution
from ..operators.trajectory import radial, radial_density
from . import sense
from .realtime import Frame

#: After so many spokes (about 20 s) single precision has lost a few parts in a million; summing anew takes a few ms.
SPOKES_BETWEEN_SUMS = 4096


class SlidingWindow:
    """The last ``window`` spokes on an oversampled grid, in a ring: a new spoke is added, the oldest taken away.

    The ring keeps what each spoke put on the grid, to take the same away; every ``SPOKES_BETWEEN_SUMS`` spokes the grid
    is summed up anew, so that rounding errors never pile up. Not for use by two threads at once.
    """

    def __init__(self, matrix: int, coils: int, readout: int, window: int, threads: int = 2) -> None:
        """``matrix``: side of the square image; ``readout``: samples of a spoke, over the same k-space extent."""
        if min(coils, window) < 1:
            raise ReconstructionError(f"a window needs a coil and a spoke, got {coils} coils and {window} spokes")
        self._readout, self._coils, self._window, self._threads = readout, coils, window, threads
        self._matrix = matrix
        self._gridding = Gridding((matrix, matrix))
        cells = self._gridding.grid[0] * self._gridding.grid[1]
        self._grid = np.zeros((coils, cells), dtype=np.complex64)
        self._since_sum = 0
        self._ring: deque[tuple[npt.NDArray[np.int64], ComplexArray]] = deque()
        self._touched = np.zeros(cells, dtype=bool)
        self._where = np.zeros(cells, dtype=np.int32)
        self._weights: ComplexArray | None = None
        self._received: float | None = None
        #: Symmetric (2, 2) gradient delays, see :mod:`.gradient_delays`; used by spokes added from then on.
        self.delays = np.zeros((2, 2))

    @property
    def spokes(self) -> int:
        """How many spokes the window holds."""
        return len(self._ring)

    def add(self, spoke: ComplexArray, angle_rad: float, received_monotonic_s: float | None = None) -> None:
        """Take in one spoke (coils, readout). Raises ReconstructionError when its shape is wrong or a value NaN."""
        if spoke.shape != (self._coils, self._readout):
            raise ReconstructionError(
                f"a spoke must have shape (coils, readout) = {(self._coils, self._readout)}, got {spoke.shape}"
            )
        if not np.isfinite(spoke).all() or not np.isfinite(angle_rad):
            raise ReconstructionError("a spoke with NaN or infinite values was refused: the window would never lose it")
        if len(self._ring) == self._window:
            cells, values = self._ring.popleft()
            self._grid[:, cells] -= values
        cells, values = self._gridded(spoke, angle_rad)
        self._ring.append((cells, values))
        self._grid[:, cells] += values
        self._since_sum += 1
        if self._since_sum == SPOKES_BETWEEN_SUMS:
            self._since_sum = 0
            self._grid[:] = 0
            for cells, values in self._ring:
                self._grid[:, cells] += values
        self._received = time.monotonic() if received_monotonic_s is None else received_monotonic_s

    def coil_images(self) -> ComplexArray:
        """Centred complex images (coils, y, x) of the window."""
        grid = self._grid.reshape(self._coils, *self._gridding.grid)
        return self._gridding.images(grid, self._threads) * np.float32(self._scale())

    def calibrate(self, maps: ComplexArray | None = None) -> None:
        """Combine coils by ``maps`` (coils, y, x) from now on; without, by maps from the centre of this window.

        The centre is what the window's spokes sample densely enough, 2 / pi lines for each of them.
        """
        if maps is None:
            side = max(2, min(self._matrix, int(2 / np.pi * self.spokes)))
            kspace = kspace_from_image(self.coil_images(), (-2, -1), self._threads)
            maps = low_resolution(resized(kspace, (side, side)), (self._matrix, self._matrix))
        if maps.shape != (self._coils, *self._gridding.shape):
            raise ReconstructionError(
                f"maps must have shape {(self._coils, *self._gridding.shape)}, got {maps.shape}: one for each coil"
            )
        self._weights = maps.conj() * (self._gridding.correction / np.float32(self._matrix))

    def frame(self) -> Frame:
        """The picture of the window: complex when maps are known, else the root sum of squares.

        Raises ReconstructionError when no spoke has arrived.
        """
        if self._weights is None:
            images = self.coil_images().view(np.float32)
            power = np.einsum("cab,cab->ab", images, images)
            return Frame(np.sqrt(power[:, 0::2] + power[:, 1::2]), self.spokes, self._received)
        scale = np.float32(self._scale())
        grid = self._grid.reshape(self._coils, *self._gridding.grid)
        whole = scipy.fft.ifft2(grid, norm="forward", workers=self._threads)
        image = np.empty(self._gridding.shape, dtype=np.complex64)
        for to, part in self._gridding.quadrants():
            total = np.multiply(self._weights[0][to], whole[0][part], out=image[to])
            for weights, coil in zip(self._weights[1:], whole[1:], strict=True):
                total += weights[to] * coil[part]
        image *= scale
        return Frame(image, self.spokes, self._received)

    def _scale(self) -> float:
        if not self._ring:
            raise ReconstructionError("no spoke has arrived yet: there is nothing to show")
        return 1 / len(self._ring)

    def _gridded(self, spoke: ComplexArray, angle_rad: float) -> tuple[npt.NDArray[np.int64], ComplexArray]:
        """(cells (n,), values (coils, n)) of one spoke: each cell once, so that arrays can be added by index."""
        k = radial(angle_rad, self._readout, self._matrix, self.delays)[0]
        cells, weights = self._gridding.taps(k)
        self._touched[cells] = True
        unique = np.flatnonzero(self._touched)
        self._touched[unique] = False
        self._where[unique] = np.arange(len(unique), dtype=np.int32)
        pointer = np.arange(len(k) + 1, dtype=np.int32) * np.int32(weights.shape[1])
        local = scipy.sparse.csr_matrix(
            (weights.ravel(), self._where[cells].ravel(), pointer), shape=(len(k), len(unique))
        )
        # As if one spoke covered everything; a frame divides by the number of spokes that it has.
        area = radial_density(angle_rad, self._readout, self._matrix, 1, self.delays)
        weighted = (spoke * area).astype(np.complex64)
        columns = np.ascontiguousarray(weighted.T).view(np.float32)
        return unique, np.ascontiguousarray((local.T @ columns).view(np.complex64).T)


def iterative_sense(
    samples: ComplexArray,
    k: npt.NDArray[Any],
    maps: ComplexArray,
    weights: npt.NDArray[np.float32],
    iterations: int = sense.ITERATIONS,
    threads: int = 2,
    backend: Backend = "auto",
    tick: Callable[[float], None] = lambda _fraction: None,
) -> ComplexArray:
    """Image (y, x) from few spokes, or any trajectory, by conjugate gradients with known coil maps.

    ``samples`` (coils, ...) and ``weights`` (...), the density, lie along ``k`` (..., 2) in cycles per field of view;
    ``maps``: (coils, y, x). ``tick`` is called each iteration. Raises ReconstructionError for shapes that disagree.
    """
    if samples.shape != (len(maps), *k.shape[:-1]) or weights.shape != k.shape[:-1]:
        raise ReconstructionError(
            f"samples must have shape (coils, ...) = {(len(maps), *k.shape[:-1])} and weights {k.shape[:-1]}, got "
            f"{samples.shape} and {weights.shape}"
        )
    encoding = TrajectoryEncoding(samples, k, maps, weights, threads, backend)
    return sense.conjugate_gradients(encoding, iterations, tick=tick)


class TrajectoryEncoding(sense.Encoding):
    """E for samples along a trajectory, each weighted by its density, which makes E^H E nearly the identity."""

    def __init__(
        self,
        samples: ComplexArray,
        k: npt.NDArray[Any],
        maps: ComplexArray,
        weights: npt.NDArray[np.float32],
        threads: int = 1,
        backend: Backend = "auto",
    ) -> None:
        """See :func:`iterative_sense`. The base class's Cartesian set-up has no part in this."""
        self._nufft = Nufft(k, (maps.shape[1], maps.shape[2]), len(maps), threads, backend)
        self._maps, self._conjugate = maps, maps.conj()
        self._density = weights.reshape(-1).astype(np.float32)
        self.adjoint_data = self._back(samples.reshape(len(maps), -1))

    def normal(self, image: ComplexArray) -> ComplexArray:
        """E^H W E image."""
        return self._back(self._nufft.forward(self._maps * image))

    def centred(self, image: ComplexArray) -> ComplexArray:
        """The image itself: nothing here is in FFT order."""
        return image

    def _back(self, samples: ComplexArray) -> ComplexArray:
        images = self._nufft.adjoint(samples * self._density)
        images *= self._conjugate
        return np.asarray(images.sum(axis=0))
