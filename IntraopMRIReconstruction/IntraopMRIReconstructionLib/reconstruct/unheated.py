"""What tissue that is not heated says of a frame of thermometry: how the field drifts, how much noise there is, and
whether the patient lies where the reference saw him.

What depends on the reference alone is worked out once; a frame costs a few products of vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ReconstructionError
from .phase import Mask, monomials

Vector = npt.NDArray[np.float32]
Square = npt.NDArray[np.float64]

#: Reference tissue that departs from the drift by more than so many standard deviations is left out of it: vessels,
#: and heat that nobody marked.
DRIFT_SIGMAS, DRIFT_PASSES = 3.0, 10
#: The drift is found when a pass changes less than this part of what is left out.
SETTLED = 1e-3
#: Standard deviation of a normal error from its median absolute value, known within 2 % from so many values.
MEDIAN_TO_SIGMA, ENOUGH_FOR_SIGMA = 1.4826, 4096
#: Of the slopes of the brightness at least this part (of their power) is taken for tissue, whatever the noise.
LEAST_OF_SLOPES = 0.25
TINY = float(np.finfo(np.float32).tiny)
#: Voxels for each coefficient of the drift.
LEAST_FOR_DRIFT = 4


@dataclass(frozen=True)
class Stillness:
    """How a frame lies to the reference. ``shift_voxels``: along z, y, x, 0 along an axis of one voxel; ``sigmas``:
    that length by its own noise. ``changed``: share of the brightness that changed beyond shift, gain and noise.
    ``blur``: standard deviation of the shift, in voxels, in the direction in which noise hides it most."""

    shift_voxels: tuple[float, float, float]
    sigmas: float
    changed: float
    blur: float

    @property
    def shift(self) -> float:
        """Length in voxels."""
        return float(np.linalg.norm(self.shift_voxels))


class Unheated:
    """Tissue of a reference; arrays are of its bright voxels, in the order of ``bright``."""

    def __init__(self, magnitude: npt.NDArray[np.float32], bright: Mask, order: int, known: Mask | None) -> None:
        """``magnitude``, ``bright``: (z, y, x) of the reference and where it has signal. ``order``: of the polynomial
        that the drift is. ``known``: which of the bright voxels are not heated, None when nobody has said. Raises
        ReconstructionError when these are too few."""
        self._basis = np.stack([term[bright] for term in monomials(bright.shape, order)]).astype(np.float32)
        self._known = np.ones(self._basis.shape[1], dtype=bool) if known is None else known
        self._check(int(self._known.sum()))
        self._where = np.flatnonzero(self._known)
        self._sampled = self._where[:: max(1, len(self._where) // ENOUGH_FOR_SIGMA)]
        power = magnitude[bright] ** 2 * self._known
        # The phase's variance falls with the power.
        self._weighted = self._basis * power
        self._normal = self._weighted.astype(np.float64) @ self._basis.T
        self._axes = [axis for axis, size in enumerate(bright.shape) if size > 1]
        slopes = [np.gradient(magnitude, axis=axis)[bright] for axis in self._axes]
        self._looks = np.stack([magnitude[bright], *slopes]) * self._known
        self._seen = self._looks.astype(np.float64) @ self._looks.T
        # Noise of the reference makes slopes of its own: half its variance, at the ends of an axis twice as much.
        sides = [0.5 + 3.0 / bright.shape[axis] for axis in self._axes]
        self._noise_power = np.array([1.0, *sides])

    def drift(self, phase: Vector, spread: Vector) -> tuple[Vector, float]:
        """(phase of the drift in all tissue, standard deviation of a channel's noise).

        ``spread``: how much more noise than a channel the phase of a voxel has, infinite where it is not known. Raises
        ReconstructionError when too little is known.
        """
        wrong = np.isinf(spread)
        lost = self._where[wrong[self._where]]
        self._check(len(self._where) - len(lost))
        out, fitted, sigma = lost, phase, 0.0
        sharp = 1 / spread
        for _ in range(DRIFT_PASSES):
            taken = self._weighted[:, out].astype(np.float64)
            side = self._weighted @ phase - taken @ phase[out]
            found = np.linalg.lstsq(self._normal - taken @ self._basis[:, out].T, side, rcond=None)[0]
            fitted = found.astype(np.float32) @ self._basis
            left = np.abs((phase - fitted) * sharp)
            sigma = self._sigma(left, wrong)
            wrong = (left > max(DRIFT_SIGMAS * sigma, 1e-6)) & self._known
            wrong[lost] = True
            changed = np.count_nonzero(wrong) - len(out)
            if abs(changed) <= SETTLED * len(self._where):
                break
            out = np.flatnonzero(wrong)
        return fitted, sigma

    def stillness(self, magnitude: Vector, lost: npt.NDArray[np.bool_], channel: float) -> Stillness:
        """How a frame of this ``magnitude`` lies to the reference, beyond the noise of a ``channel``."""
        out = self._where[lost[self._where]]
        looks = self._looks[:, out].astype(np.float64)
        raw, count = self._seen - looks @ looks.T, len(self._where) - len(out)
        if not raw[0, 0] > 0:
            return Stillness((0.0, 0.0, 0.0), 0.0, 0.0, np.inf)
        of_noise = np.minimum(count * channel**2 * self._noise_power, (1 - LEAST_OF_SLOPES) * np.diag(raw))
        inverse = np.linalg.pinv(raw - np.diag(of_noise))
        found = inverse @ (self._looks @ magnitude - looks @ magnitude[out])
        left = magnitude * self._known - found.astype(np.float32) @ self._looks
        left[out] = 0.0
        gain = max(float(found[0]), TINY)
        noise = (1 + float(found @ (self._noise_power * found))) * channel**2
        moved = -found[1:] / gain
        spread = (inverse @ raw @ inverse)[1:, 1:] * noise / gain**2
        sigmas = float(np.sqrt(max(0.0, moved @ np.linalg.pinv(spread) @ moved))) if noise > 0 else np.inf
        shift = np.zeros(3)
        shift[self._axes] = moved
        z, y, x = shift.tolist()
        beyond = float(left @ left) - noise * count
        changed = float(np.sqrt(max(0.0, beyond) / (gain**2 * raw[0, 0])))
        return Stillness((z, y, x), sigmas, changed, float(np.sqrt(np.linalg.norm(spread, 2))))

    def deviation(self, values: Vector, lost: npt.NDArray[np.bool_]) -> float:
        """Standard deviation of values in tissue that was not ``lost``."""
        known = self._known & ~lost
        kept, count = values * known, np.count_nonzero(known)
        return float(np.sqrt(max(0.0, kept @ kept / count - (kept.sum() / count) ** 2)))

    def _sigma(self, sizes: Vector, wrong: npt.NDArray[np.bool_]) -> float:
        known = self._sampled[~wrong[self._sampled]]
        return MEDIAN_TO_SIGMA * float(np.median(sizes[known])) if len(known) else 0.0

    def _check(self, count: int) -> None:
        least = LEAST_FOR_DRIFT * len(self._basis)
        if count < least:
            raise ReconstructionError(
                f"the drift of the field needs at least {least} voxels of tissue away from the heat, got {count}: move "
                "the mark or make its radius smaller"
            )
