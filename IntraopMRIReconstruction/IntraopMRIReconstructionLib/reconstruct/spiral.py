"""Spiral, or any other known trajectory, frame by frame: everything that depends on the trajectory is made once.

Source: Jackson et al., Selection of a convolution function for Fourier inversion using gridding, IEEE Trans Med Imaging
10:473 (1991), with the NUFFT of :mod:`..operators.nufft`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray
from ..operators.nufft import Backend, Nufft
from ..operators.trajectory import density
from . import sense
from .radial import iterative_sense
from .realtime import Frame


class KnownTrajectory:
    """Reconstructs frames whose samples lie along one trajectory."""

    def __init__(
        self,
        k: npt.NDArray[Any],
        shape: tuple[int, int],
        coils: int,
        maps: ComplexArray | None = None,
        threads: int = 2,
        backend: Backend = "auto",
    ) -> None:
        """``k``: (shots, readout, 2) = (kx, ky) in cycles per field of view; ``shape``: (y, x); ``maps``:
        (coils, y, x), None for the root sum of squares."""
        if maps is not None and maps.shape != (coils, *shape):
            raise ReconstructionError(f"maps must have shape {(coils, *shape)}, got {maps.shape}: one for each coil")
        self._nufft = Nufft(k, shape, coils, threads, backend)
        self._k, self._maps, self._threads, self._backend = k, maps, threads, backend
        self._conjugate = None if maps is None else maps.conj()
        self.weights = density(k)

    def frame(self, samples: ComplexArray, received_monotonic_s: float | None = None) -> Frame:
        """The picture of ``samples`` (coils, shots, readout): complex with maps, else a magnitude."""
        received = time.monotonic() if received_monotonic_s is None else received_monotonic_s
        images = self._nufft.adjoint(self._checked(samples) * self.weights)
        if self._conjugate is None:
            image: npt.NDArray[Any] = np.sqrt(np.sum(np.abs(images) ** 2, axis=0))
        else:
            images *= self._conjugate
            image = images.sum(axis=0)
        return Frame(image, self._k.shape[0], received)

    def iterative(self, samples: ComplexArray, iterations: int = sense.ITERATIONS) -> ComplexArray:
        """Image (y, x) of undersampled ``samples`` by iterative SENSE; needs maps."""
        if self._maps is None:
            raise ReconstructionError("iterative SENSE needs coil maps: give them with the trajectory")
        checked = self._checked(samples)
        return iterative_sense(checked, self._k, self._maps, self.weights, iterations, self._threads, self._backend)

    def _checked(self, samples: ComplexArray) -> ComplexArray:
        expected = (self._nufft.coils, *self._k.shape[:-1])
        if samples.shape != expected:
            raise ReconstructionError(
                f"samples must have shape (coils, shots, readout) = {expected}, got {samples.shape}"
            )
        if not np.isfinite(samples).all():
            raise ReconstructionError("a frame with NaN or infinite samples was dropped")
        return samples
