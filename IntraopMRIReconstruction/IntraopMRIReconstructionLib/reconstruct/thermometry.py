"""Temperature from the water proton's resonance frequency, and the thermal dose.

Sources: Ishihara et al., Magn Reson Med 34:814 (1995); Rieke and Butts Pauly, J Magn Reson Imaging 27:376 (2008) for
the method, its coefficient and drift; Rieke et al., Magn Reson Med 51:1223 (2004) for the referenceless form; Sapareto
and Dewey, Int J Radiat Oncol Biol Phys 10:787 (1984) for CEM43. Fat does not shift with temperature: its voxels are
wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ReconstructionError
from .phase import Mask, polynomial_background

Complex = npt.NDArray[np.complexfloating[Any, Any]]
Temperature = npt.NDArray[np.float32]

#: Shift of the water resonance in parts per million for each degree, in aqueous tissue (Rieke, table 1).
PPM_PER_C = -0.01
#: Gyromagnetic ratio of the proton over 2 pi, Hz per tesla.
HZ_PER_TESLA = 42.577478518e6
#: Voxels darker than this share of the 99th percentile have a phase of noise: they get no temperature.
SIGNAL_SHARE = 0.1
#: Thermal dose halves for each degree below 43 C, and quarters below (Sapareto and Dewey).
BREAK_C, ABOVE, BELOW = 43.0, 0.5, 0.25
#: Temperature of the body before anything was heated, degrees C.
BODY_C = 37.0
#: Lesion threshold of many tissues, equivalent minutes at 43 C.
LETHAL_CEM43_MIN = 240.0
#: Tissue has cooled when a block of so many voxels (y, x) of a slice is colder throughout by more than this, C, and by
#: more than so many standard deviations of the noise: single dark voxels are off by more.
COOLED_BLOCK, COOLED_C, COOLED_SIGMAS = (2, 2), 1.0, 3.0


def radians_per_c(field_t: float, echo_time_s: float) -> float:
    """Phase in radians that one degree adds at ``echo_time_s``; its sign is that of the coefficient."""
    if not (np.isfinite([field_t, echo_time_s]).all() and 0.01 <= field_t <= 12 and 0 < echo_time_s < 0.5):
        raise ReconstructionError(
            f"thermometry needs the field in tesla and the echo time in seconds, got {field_t} T and {echo_time_s} s"
        )
    return float(2 * np.pi * HZ_PER_TESLA * PPM_PER_C * 1e-6 * field_t * echo_time_s)


def signal_mask(image: Complex) -> Mask:
    """Voxels (z, y, x) bright enough for a phase that means something."""
    magnitude = np.abs(image)
    return np.asarray(magnitude > SIGNAL_SHARE * np.percentile(magnitude, 99))


def cem43_minutes(temperature_c: npt.NDArray[Any], duration_s: float) -> npt.NDArray[np.float64]:
    """Equivalent minutes at 43 C of ``duration_s`` at ``temperature_c`` (any shape); 0 where it is NaN."""
    rate = np.where(temperature_c >= BREAK_C, ABOVE, BELOW) ** (BREAK_C - np.asarray(temperature_c, np.float64))
    return np.asarray(np.nan_to_num(rate, nan=0.0, posinf=np.inf) * (duration_s / 60.0))


def cooling_from(change_c: npt.NDArray[Any], noise_c: float | None) -> float:
    """Change, C and below 0, from which tissue has cooled for certain. ``noise_c`` None: taken from the map itself,
    most of which is neither heated nor cooled."""
    known = change_c[np.isfinite(change_c)]
    if noise_c is None:
        noise_c = 1.4826 * float(np.median(np.abs(known - np.median(known)))) if known.size else 0.0
    return -max(COOLED_C, COOLED_SIGMAS * noise_c)


def coldest(change_c: npt.NDArray[Any], below_c: float) -> float | None:
    """Change (C) of the coldest voxel within blocks of the map (z, y, x) that are colder than ``below_c`` throughout;
    None when there is no such block."""
    rows, columns = COOLED_BLOCK
    warm = np.where(np.isfinite(change_c), change_c, np.inf)
    y, x = warm.shape[1:]
    if y < rows or x < columns:
        return None
    moved = [warm[:, a : y - rows + a + 1, b : x - columns + b + 1] for a in range(rows) for b in range(columns)]
    cold = np.maximum.reduce(moved) < below_c
    return float(np.minimum.reduce(moved)[cold].min()) if cold.any() else None


def referenceless(
    image: Complex, heated: Mask, field_t: float, echo_time_s: float, order: int = 3, phase_sign: int = 1
) -> Temperature:
    """Temperature change (z, y, x) in C within ``heated`` from this one image; NaN elsewhere and where it is dark.

    The phase without heat is a polynomial fitted around ``heated``, which must hold all heat and leave enough tissue.
    Use where the organ moves; changes beyond half a turn of phase alias. ``phase_sign``: see :class:`Thermometer`.
    """
    if heated.shape != image.shape or not heated.any():
        raise ReconstructionError(
            f"the heated region must be a mask of shape {image.shape} with a voxel, got {heated.shape} with "
            f"{int(heated.sum())}"
        )
    bright = signal_mask(image)
    background = polynomial_background(image, order, bright & ~heated)
    change = np.angle(image * np.exp(-1j * background)) * phase_sign / radians_per_c(field_t, echo_time_s)
    return np.where(heated & bright, change, np.nan).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Heat:
    """State after a frame. ``temperature_c``: (z, y, x), NaN where the signal is too weak; ``dose_min``: (z, y, x)
    CEM43 in minutes since the start; ``drift_c``: mean drift that was taken away; ``noise_c``: standard deviation of
    unheated tissue about its baseline, None when no unheated tissue was named."""

    temperature_c: Temperature
    dose_min: npt.NDArray[np.float32]
    drift_c: float
    noise_c: float | None


class Thermometer:
    """Temperature against a baseline image, frame by frame.

    Phase is followed from frame to frame, so that heating beyond one turn is right as long as no voxel changes by more
    than half a turn between frames.
    """

    def __init__(
        self,
        baseline: Complex,
        field_t: float,
        echo_time_s: float,
        baseline_c: float = BODY_C,
        unheated: Mask | None = None,
        drift_order: int = 1,
        phase_sign: int = 1,
    ) -> None:
        """``baseline``: complex (z, y, x) before heating. ``unheated``: tissue that stays at ``baseline_c``; the drift
        of the field is a polynomial of ``drift_order`` fitted there, none is corrected without it.
        ``phase_sign``: 1 when a higher frequency turns the phase forwards (as in this library), -1 for scanners that
        store the conjugate. Raises ReconstructionError for a wrong field, echo time, sign or mask."""
        self._per_c = radians_per_c(field_t, echo_time_s) * phase_sign
        if phase_sign not in (1, -1):
            raise ReconstructionError(f"phase_sign must be 1 or -1, got {phase_sign}")
        if unheated is not None and unheated.shape != baseline.shape:
            raise ReconstructionError(f"the unheated region must have shape {baseline.shape}, got {unheated.shape}")
        if not np.isfinite(baseline).all() or not np.any(baseline):
            raise ReconstructionError("the baseline image of thermometry must be finite and not empty: scan again")
        self._previous = baseline
        self._bright = signal_mask(baseline)
        self._unheated, self._order, self._baseline_c = unheated, drift_order, baseline_c
        self._phase = np.zeros(baseline.shape)
        self._dose = np.zeros(baseline.shape)
        self._time_s: float | None = None

    @property
    def unambiguous_c(self) -> float:
        """Change between two frames beyond which the phase aliases, C."""
        return float(np.pi / abs(self._per_c))

    def add(self, image: Complex, time_s: float) -> Heat:
        """Take in the next complex image (z, y, x), acquired at ``time_s`` on any steady clock.

        The dose of a frame lasts from the frame before it. Raises ReconstructionError, and keeps the state as it was,
        when the shape, a value or the order in time is wrong.
        """
        if image.shape != self._previous.shape:
            raise ReconstructionError(f"an image of thermometry must have shape {self._previous.shape}: {image.shape}")
        if not np.isfinite(image).all():
            raise ReconstructionError("an image of thermometry with NaN or infinite values was dropped")
        if self._time_s is not None and time_s <= self._time_s:
            raise ReconstructionError(
                f"images of thermometry must follow in time, got {time_s} s after {self._time_s} s"
            )
        step = image * np.conj(self._previous)
        drift = np.zeros(image.shape)
        if self._unheated is not None:
            drift = polynomial_background(step, self._order, self._unheated & self._bright)
        self._phase += np.angle(step * np.exp(-1j * drift))
        temperature = (self._baseline_c + self._phase / self._per_c).astype(np.float32)
        bright = self._bright & signal_mask(image)
        temperature[~bright] = np.nan
        if self._time_s is not None:
            self._dose += cem43_minutes(temperature, time_s - self._time_s)
        self._previous, self._time_s = image, time_s
        known = None if self._unheated is None else temperature[self._unheated & bright]
        noise = float(np.std(known)) if known is not None and known.size else None
        mean_drift = float(drift[bright].mean() / self._per_c) if bright.any() else 0.0
        return Heat(temperature, self._dose.astype(np.float32), mean_drift, noise)
