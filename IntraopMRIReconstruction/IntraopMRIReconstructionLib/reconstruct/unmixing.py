"""Linear parallel imaging in image space: per frame one small FFT and one weighted sum over coils.

GRAPPA, closed-form SENSE and plain combination differ only in their weights; all are calibrated once and used for
every frame of the same pattern. Source: Kellman, Adaptive sensitivity encoding, Magn Reson Med 45:846-852 (2001).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray


@dataclass(frozen=True)
class Lattice:
    """Planes of ``shape`` (a, b) of which every ``step``-th sample from ``offset`` is acquired along each axis."""

    shape: tuple[int, int]
    step: tuple[int, int] = (1, 1)
    offset: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if min(self.step) < 1 or any(not 0 <= o < s for o, s in zip(self.offset, self.step, strict=True)):
            raise ReconstructionError(f"a lattice offset must be within 0..step - 1, got {self.offset} of {self.step}")

    @property
    def acceleration(self) -> int:
        """Acquired one of so many samples."""
        return self.step[0] * self.step[1]

    @property
    def folds(self) -> bool:
        """Whether the aliased image repeats after a whole number of voxels."""
        return all(size % step == 0 for size, step in zip(self.shape, self.step, strict=True))

    @property
    def fold(self) -> Lattice:
        """The lattice to transform: itself when it folds, else the full plane with zeros between."""
        return self if self.folds else Lattice(self.shape)

    def phase(self) -> ComplexArray:
        """(a, b) in FFT order: the aliased centred image over the transform of the acquired samples alone."""
        lines = []
        for size, offset in zip(self.shape, self.offset, strict=True):
            lines.append(np.exp(2j * np.pi * ((offset - size // 2) * np.arange(size) % size) / size))
        return np.multiply.outer(*lines).astype(np.complex64)

    def split(self, array: npt.NDArray[np.complex64]) -> npt.NDArray[np.complex64]:
        """View (..., a, b) as (..., step a, a / step, step b, b / step): the voxels that fold onto one another."""
        (a, b), (sa, sb) = self.shape, self.step
        return array.reshape(*array.shape[:-2], sa, a // sa, sb, b // sb)


class Unmixing:
    """Weights of one plane. ``weights`` act on centred aliased coil images; see :meth:`image`.

    ``g_factor``: (a, b) float32, noise amplification over an unaccelerated scan beyond the square root of the
    acceleration, for coils whose noise is white (Pruessmann et al., Magn Reson Med 42:952, 1999).
    """

    def __init__(self, lattice: Lattice, weights: ComplexArray) -> None:
        """``weights``: (coils, a, b), centred: image = sum over coils of weights * zero-filled aliased coil images."""
        self.lattice = lattice
        fold = lattice.fold
        turned = scipy.fft.ifftshift(weights, (-2, -1)) * fold.phase()
        scale = np.float32(1 / np.sqrt(lattice.shape[0] * lattice.shape[1]))
        self._weights = fold.split(np.ascontiguousarray(turned * scale))
        parts = weights.view(np.float32)
        power = np.einsum("cab,cab->ab", parts, parts)
        self.g_factor: npt.NDArray[np.float32] = np.sqrt(power[:, 0::2] + power[:, 1::2]) / lattice.acceleration

    def image(self, kspace: ComplexArray, threads: int = 1) -> ComplexArray:
        """Centred complex image (a, b) from k-space (coils, a, b); only the samples of the lattice are used."""
        (sa, sb), (oa, ob) = self.lattice.step, self.lattice.offset
        acquired = kspace[:, oa::sa, ob::sb]
        if not self.lattice.folds:
            full = np.zeros_like(kspace)
            full[:, oa::sa, ob::sb] = acquired
            acquired = full
        coils = scipy.fft.ifft2(acquired, norm="forward", workers=threads)
        total = self._weights[0] * coils[0][:, None, :]
        product = np.empty_like(total)
        for weights, coil in zip(self._weights[1:], coils[1:], strict=True):
            np.multiply(weights, coil[:, None, :], out=product)
            total += product
        return np.asarray(scipy.fft.fftshift(total.reshape(self.lattice.shape)))


class Refreshed:
    """A calibration that is made once, used at once by every frame, and renewed beside the frames.

    ``current`` never waits after the first calibration; ``refresh`` starts a new one on a thread of its own unless
    one is under way, and frames use it from the moment it is ready.
    """

    def __init__(self, calibrate: Callable[[ComplexArray], Unmixing]) -> None:
        """``calibrate`` makes weights from calibration data and may take long."""
        self._calibrate = calibrate
        self._current: Unmixing | None = None
        self._next: Future[Unmixing] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="calibrate")

    def current(self, calibration: ComplexArray) -> Unmixing:
        """The newest weights that are ready; calibrates with ``calibration`` when there are none yet.

        A refresh that failed raises its error here once; the weights before it stay in use afterwards.
        """
        if self._next is not None and self._next.done():
            done, self._next = self._next, None
            self._current = done.result()
        if self._current is None:
            self._current = self._calibrate(calibration)
        return self._current

    def refresh(self, calibration: ComplexArray) -> None:
        """Begin to calibrate anew, from data that the caller will not change any more."""
        if self._next is None:
            self._next = self._pool.submit(self._calibrate, calibration)

    def close(self) -> None:
        """Let go of the thread; a calibration under way is finished and dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def combination(maps: ComplexArray) -> Unmixing:
    """Weights that combine a fully sampled plane by its maps (coils, a, b)."""
    return Unmixing(Lattice((maps.shape[1], maps.shape[2])), maps.conj())
