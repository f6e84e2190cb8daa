"""Linear parallel imaging in image space: per frame one small FFT and one weighted sum over coils.

GRAPPA, closed-form SENSE and plain combination differ only in their weights; all are calibrated once and used for
every frame of the same pattern. Source: Kellman, Adaptive sensitivity encoding, Magn Reson Med 45:846-852 (2001).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.fft

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray
from ..operators.parallel import one_blas_thread

_Made = TypeVar("_Made")

#: Patients and coils move slowly: weights of this age are renewed, so that calibration takes little of a core.
REFRESH_AFTER_S = 1.0


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


class Calibrations:
    """Weights, or coil maps, that frames of one scan share: made once, used at once by every frame, renewed beside
    the frames.

    For repeated 2D frames; a volume's weights would fill the memory. Safe to use from several threads.
    """

    def __init__(self, refresh_after_s: float = REFRESH_AFTER_S) -> None:
        """``refresh_after_s``: age from which weights are made anew, with the data of the frame that finds them old."""
        self._refresh_after_s = refresh_after_s
        self._lock = threading.Lock()
        self._ready: dict[Hashable, tuple[Any, float]] = {}
        self._pending: dict[Hashable, Future[Any]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="calibrate")

    def weights(self, key: Hashable, calibrate: Callable[[], _Made]) -> _Made:
        """The newest weights that are ready for ``key``; only the first call for a key waits for ``calibrate``.

        ``calibrate`` may run later on another thread: it must hold data that nobody changes. A renewal that failed
        raises its error here once; the weights before it stay in use afterwards.
        """
        with self._lock:
            pending = self._pending.get(key)
            if pending is not None and pending.done():
                del self._pending[key]
                self._ready[key] = (pending.result(), time.monotonic())
            ready: tuple[_Made, float] | None = self._ready.get(key)
            if ready is not None:
                if key not in self._pending and time.monotonic() - ready[1] >= self._refresh_after_s:
                    self._pending[key] = self._pool.submit(calibrate)
                return ready[0]
        made = calibrate()
        with self._lock:
            self._ready[key] = (made, time.monotonic())
        return made

    def close(self) -> None:
        """Let go of the thread; a calibration under way is finished and dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Ahead:
    """Weights of the planes of one frame, made in a thread of its own while the frame's last lines still arrive.

    Weights are handed out only to the very calibration block that they were made from, else made there and then: the
    image is the same with and without. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._begun: dict[Hashable, tuple[ComplexArray, Future[Unmixing]]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="calibrate ahead")

    def begin(self, key: Hashable, block: ComplexArray, calibrate: Callable[[ComplexArray], Unmixing]) -> None:
        """Make the weights of the calibration ``block`` (coils, ca, cb), of which a copy is taken."""
        kept = block.copy()

        def made() -> Unmixing:
            with one_blas_thread():
                return calibrate(kept)

        self._begun[key] = kept, self._pool.submit(made)

    def weights(self, key: Hashable, block: ComplexArray, calibrate: Callable[[ComplexArray], Unmixing]) -> Unmixing:
        """The weights of ``block``; they are let go, since each plane of a frame is needed once."""
        begun = self._begun.pop(key, None)
        if begun is None or begun[1].cancel() or not np.array_equal(begun[0], block):
            return calibrate(block)
        return begun[1].result()

    def close(self) -> None:
        """Let go of the thread and the weights; a calibration under way is finished and dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._begun.clear()


def combination(maps: ComplexArray) -> Unmixing:
    """Weights that combine a fully sampled plane by its maps (coils, a, b)."""
    return Unmixing(Lattice((maps.shape[1], maps.shape[2])), maps.conj())
