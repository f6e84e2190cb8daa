"""SENSE with known maps: closed form on a lattice, conjugate gradients for any sampling.

Sources: Pruessmann et al., Magn Reson Med 42:952-962 (1999) and 46:638-651 (2001).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.fft

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray, fft_order, image_from_kspace
from .unmixing import Lattice, Unmixing

#: Tikhonov weight of the closed form, relative to a map of unit strength: keeps the g-factor finite.
REGULARISATION = 1e-3
#: Iterations after which conjugate gradients have fitted the signal and begin to fit noise.
ITERATIONS = 10
#: Residual, relative to the start, at which more iterations change nothing that single precision can show.
TOLERANCE = 1e-5


def unmixing(maps: ComplexArray, lattice: Lattice) -> Unmixing:
    """Closed-form weights for a lattice from maps (coils, a, b).

    Raises ReconstructionError when the acceleration is above the number of coils or the lattice does not divide the
    matrix.
    """
    if lattice.acceleration > len(maps):
        raise ReconstructionError(f"an acceleration of {lattice.acceleration} cannot be undone with {len(maps)} coils")
    if not lattice.folds:
        raise ReconstructionError(
            f"closed-form SENSE needs a matrix {lattice.shape} that the acceleration {lattice.step} divides: use "
            "grappa or cg-sense"
        )
    phase = lattice.phase()
    turned = scipy.fft.ifftshift(maps, (-2, -1)) * phase.conj()
    folded = lattice.split(turned)  # (coils, sa, a / sa, sb, b / sb)
    coils, sa, na, sb, nb = folded.shape
    encode = folded.transpose(2, 4, 0, 1, 3).reshape(na, nb, coils, sa * sb) / np.float32(lattice.acceleration)
    adjoint = encode.conj().swapaxes(-1, -2)
    gram = adjoint @ encode
    gram += np.float32(REGULARISATION / lattice.acceleration**2) * np.eye(sa * sb, dtype=np.complex64)
    decode = np.linalg.solve(gram, adjoint).reshape(na, nb, sa, sb, coils)
    weights = decode.transpose(4, 2, 0, 3, 1).reshape(maps.shape) * phase.conj()
    return Unmixing(lattice, np.ascontiguousarray(scipy.fft.fftshift(weights, (-2, -1))))


class Encoding:
    """E: image (a, b) -> acquired samples of all coils; only E^H E and E^H y are ever needed.

    Where all of b is sampled, b is transformed once here and iterations work along a alone. Images inside are in FFT
    order; ``centred`` brings them back.
    """

    def __init__(self, kspace: ComplexArray, sampled: npt.NDArray[np.bool_], maps: ComplexArray, threads: int = 1):
        """``kspace`` (coils, a, b), ``sampled`` (a, b) or (a, 1) when whole rows were acquired, ``maps`` as k-space."""
        self._threads = threads
        self._sampled = sampled.astype(np.float32)
        self.sampled_share = float(sampled.mean())
        rows = sampled.shape[1] == 1 and kspace.shape[2] > 1
        self._axes = (-2,) if rows else (-2, -1)
        data = kspace * self._sampled
        if rows:
            data = image_from_kspace(data, (-1,), threads)
            self._maps = np.ascontiguousarray(np.moveaxis(fft_order(np.moveaxis(maps, -2, -1), 1), -1, -2))
        else:
            self._maps = np.ascontiguousarray(fft_order(maps))
        self._conjugate = self._maps.conj()
        self._work = scipy.fft.ifftn(data, axes=self._axes, norm="ortho", workers=threads, overwrite_x=True)
        self.adjoint_data = self._combined()

    def normal(self, image: ComplexArray) -> ComplexArray:
        """E^H E image."""
        np.multiply(self._maps, image, out=self._work)
        settings = {"axes": self._axes, "norm": "ortho", "workers": self._threads, "overwrite_x": True}
        self._work = scipy.fft.fftn(self._work, **settings)
        self._work *= self._sampled
        self._work = scipy.fft.ifftn(self._work, **settings)
        return self._combined()

    def centred(self, image: ComplexArray) -> ComplexArray:
        """The image with voxel N // 2 in the middle."""
        return np.asarray(scipy.fft.fftshift(image, self._axes))

    def _combined(self) -> ComplexArray:
        self._work *= self._conjugate
        return np.asarray(self._work.sum(axis=0))


def conjugate_gradients(
    encoding: Encoding,
    iterations: int = ITERATIONS,
    regularisation: float = 0.0,
    tick: Callable[[float], None] = lambda _fraction: None,
) -> ComplexArray:
    """Image (a, b) that minimises |E x - y|^2 + regularisation |x|^2, centred. ``tick`` is called each iteration."""
    residual = encoding.adjoint_data.copy()
    image = np.zeros_like(residual)
    direction = residual.copy()
    power = start = _power(residual)
    for iteration in range(iterations):
        tick(iteration / iterations)
        if power <= TOLERANCE**2 * start:
            break
        moved = encoding.normal(direction)
        if regularisation:
            moved += np.float32(regularisation) * direction
        length = np.float32(power / np.vdot(direction, moved).real)
        image += length * direction
        residual -= length * moved
        before, power = power, _power(residual)
        direction *= np.float32(power / before)
        direction += residual
    return encoding.centred(image)


def _power(values: ComplexArray) -> float:
    return float(np.vdot(values, values).real)
