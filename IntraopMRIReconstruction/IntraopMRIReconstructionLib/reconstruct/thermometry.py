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
from .phase import Mask, monomials, polynomial_background

Complex = npt.NDArray[np.complexfloating[Any, Any]]
Temperature = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float32]

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
#: A voxel is lost until there is a new reference when it keeps less than this part of the least signal (gas, ice,
#: char): turns of a phase of noise cannot be counted; and when its phase turns by more than this part of half a turn
#: between two frames: the turn may as well have been the other way.
LOST_SIGNAL, WRAP_SHARE = 0.75, 0.85
#: Something moved when the brightness of unheated tissue changed by more than this share of it beyond its noise: the
#: phase of the reference then belongs to other tissue. Noise makes 0.01 of it, a head a quarter of a voxel away 0.1.
MOVED_SHARE = 0.1
#: Reference tissue that departs from the drift by more than so many standard deviations is left out of it: vessels,
#: and heat that nobody marked.
DRIFT_SIGMAS, DRIFT_PASSES = 3.0, 3
#: Phases of frames that are kept take at most so much memory; without the oldest the unheated region stays as it is.
MAX_KEPT_BYTES = 2**30
#: A voxel so dark that its temperature is uncertain by more than this (standard deviation, C) has none: its dose, which
#: doubles with each degree, would be noise.
MOST_NOISE_C = 2.0
#: An interval holds 95 % of a normal error.
SIGMAS = 1.96
#: Standard deviation of a normal error from its median absolute value.
MEDIAN_TO_SIGMA = 1.4826


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
    """State after a frame; arrays are (z, y, x).

    ``temperature_c``: NaN where it is not known. ``dose_min``: CEM43 in minutes since the reference. ``drift_c``: mean
    drift since the reference that was taken away. ``lost``: tissue of the reference whose phase could not be followed,
    so that it has no temperature and its dose is not complete. ``moved``: share by which unheated tissue changed its
    brightness beyond its noise.

    Of a drift that was taken away, otherwise None: ``noise_c``, standard deviation of unheated tissue about its
    baseline; ``deviation_c``, that of each voxel, from the noise of the phase in unheated tissue and the brightness of
    the voxel; ``dose_range_min``, doses if every frame were that much (95 %) colder or warmer.
    """

    temperature_c: Temperature
    dose_min: Temperature
    drift_c: float
    noise_c: float | None
    lost: Mask
    moved: float
    deviation_c: Temperature | None = None
    dose_range_min: tuple[Temperature, Temperature] | None = None


@dataclass(frozen=True, eq=False)
class _Frame:
    """Phase since the reference of the tissue, and its noise: that of a channel times ``spread``, infinite where the
    phase is not known."""

    time_s: float
    phase: Vector
    spread: Vector


class Thermometer:
    """Temperature against a baseline image, frame by frame.

    Phase is followed from frame to frame, so that heating beyond one turn is right as long as no voxel changes by more
    than half a turn between frames. The phase of every frame is kept (tissue only), so that the unheated region may be
    told, or corrected, at any time.
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
        if not np.isfinite(baseline).all() or not np.any(baseline):
            raise ReconstructionError("the baseline image of thermometry must be finite and not empty: scan again")
        self._bright = signal_mask(baseline)
        self._shape = baseline.shape
        self._previous = baseline[self._bright]
        self._magnitude = np.abs(self._previous).astype(np.float32)
        self._basis = np.stack([term[self._bright] for term in monomials(self._shape, drift_order)], axis=-1)
        self._order, self._baseline_c = drift_order, baseline_c
        self._phase = np.zeros(self._magnitude.shape)
        self._lost = np.zeros(self._magnitude.shape, dtype=bool)
        self._brightness = self._magnitude
        self._frames: list[_Frame] = []
        self._dropped = False
        self._known: npt.NDArray[np.bool_] | None = None
        self._dose = np.zeros((3, *self._magnitude.shape))
        if unheated is not None:
            self._known = self._checked(unheated)

    @property
    def unambiguous_c(self) -> float:
        """Change between two frames beyond which the phase aliases, C."""
        return float(np.pi / abs(self._per_c))

    @property
    def tissue(self) -> Mask:
        """Voxels (z, y, x) with enough signal in the reference."""
        return self._bright

    def add(self, image: Complex, time_s: float) -> Heat:
        """Take in the next complex image (z, y, x), acquired at ``time_s`` on any steady clock.

        The dose of a frame lasts from the frame before it. Raises ReconstructionError, and keeps the state as it was,
        when the shape, a value or the order in time is wrong.
        """
        if image.shape != self._shape:
            raise ReconstructionError(f"an image of thermometry must have shape {self._shape}: {image.shape}")
        if not np.isfinite(image).all():
            raise ReconstructionError("an image of thermometry with NaN or infinite values was dropped")
        if self._frames and time_s <= self._frames[-1].time_s:
            raise ReconstructionError(
                f"images of thermometry must follow in time, got {time_s} s after {self._frames[-1].time_s} s"
            )
        now = image[self._bright]
        step = now * np.conj(self._previous)
        # What turns all tissue alike, such as a drift, must not bring single voxels to half a turn.
        common = np.angle(step.sum())
        turn = np.angle(step * np.exp(-1j * common))
        magnitude = np.abs(now).astype(np.float32)
        whole = np.abs(image)
        least = SIGNAL_SHARE * float(np.percentile(whole, 99))
        lost = self._lost | (magnitude < LOST_SIGNAL * least) | (np.abs(turn) > WRAP_SHARE * np.pi)
        phase = self._phase + turn + common
        with np.errstate(divide="ignore"):
            spread = np.sqrt(1 / self._magnitude**2 + 1 / magnitude**2)
        spread[lost] = np.inf
        frame = _Frame(time_s, phase.astype(np.float32), spread.astype(np.float32))
        dose = self._dose.copy()
        heat = self._measured(frame, self._frames[-1] if self._frames else None, self._known, dose, magnitude)
        self._previous, self._phase, self._lost, self._dose = now, phase, lost, dose
        self._brightness = magnitude
        self._frames.append(frame)
        if len(self._frames) > 1 and len(self._frames) * 2 * frame.phase.nbytes > MAX_KEPT_BYTES:
            self._dropped = True
            del self._frames[0]
        return heat

    def told(self, unheated: Mask | None, baseline_c: float) -> list[Heat]:
        """Another region and baseline hold from the reference on; all frames by them.

        Raises ReconstructionError, and keeps the state as it was, for a mask that is too small or of another shape, and
        when the first frames are not kept any more.
        """
        if self._dropped:
            raise ReconstructionError(
                f"the mark cannot be changed after more than {len(self._frames)} frames: take a new reference"
            )
        known = None if unheated is None else self._checked(unheated)
        before, self._baseline_c = self._baseline_c, baseline_c
        dose, found, last = np.zeros_like(self._dose), [], None
        try:
            for frame in self._frames:
                found.append(self._measured(frame, last, known, dose, self._brightness))
                last = frame
        except ReconstructionError:
            self._baseline_c = before
            raise
        self._known, self._dose = known, dose
        return found

    def _checked(self, unheated: Mask) -> npt.NDArray[np.bool_]:
        if unheated.shape != self._shape:
            raise ReconstructionError(f"the unheated region must have shape {self._shape}, got {unheated.shape}")
        known = np.asarray(unheated[self._bright])
        self._enough(known)
        return known

    def _enough(self, known: npt.NDArray[np.bool_]) -> None:
        least = 4 * self._basis.shape[1]
        if known.sum() < least:
            raise ReconstructionError(
                f"the drift of the field needs at least {least} voxels of tissue away from the heat, got "
                f"{int(known.sum())}: move the mark or make its radius smaller"
            )

    def _measured(
        self,
        frame: _Frame,
        before: _Frame | None,
        known: npt.NDArray[np.bool_] | None,
        dose: npt.NDArray[np.float64],
        magnitude: Vector,
    ) -> Heat:
        """Temperature of a frame; adds to ``dose`` (3, tissue): as measured, and the ends of its interval."""
        seen = np.isfinite(frame.spread)
        still = seen if known is None else known & seen
        phase, deviation, drift, channel = frame.phase.astype(np.float64), None, 0.0, 0.0
        noise: float | None = None
        if known is not None:
            fitted = self._drift(frame, still)
            phase -= fitted
            drift = float(fitted[seen].mean() / self._per_c) if seen.any() else 0.0
            channel = MEDIAN_TO_SIGMA * float(np.median(np.abs(phase[still]) / frame.spread[still]))
            deviation = channel * frame.spread / abs(self._per_c)
            seen = seen & (deviation <= MOST_NOISE_C)
            noise = float(np.std(phase[still]) / abs(self._per_c))
        temperature = np.where(seen, self._baseline_c + phase / self._per_c, np.nan)
        if before is not None:
            duration = frame.time_s - before.time_s
            margin = 0.0 if deviation is None else SIGMAS * np.where(seen, deviation, 0.0)
            for number, off in enumerate((0.0, -margin, margin)):
                dose[number] += cem43_minutes(temperature + off, duration)
        lost = np.zeros(self._shape, dtype=bool)
        lost[self._bright] = np.isinf(frame.spread)
        ranged = None if deviation is None else (self._whole(dose[1], 0.0), self._whole(dose[2], 0.0))
        return Heat(
            self._whole(temperature, np.nan),
            self._whole(dose[0], 0.0),
            drift,
            noise,
            lost,
            self._moved(magnitude, still, channel),
            None if deviation is None else self._whole(np.where(seen, deviation, np.nan), np.nan),
            ranged,
        )

    def _drift(self, frame: _Frame, known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Phase of the drift in all tissue: a polynomial, fitted where nothing is heated and weighted by the noise."""
        self._enough(known)
        weight = known / np.where(known, frame.spread, 1.0) ** 2
        for number in range(DRIFT_PASSES):
            weighted = self._basis * weight[:, None]
            found = np.linalg.lstsq(weighted.T @ self._basis, weighted.T @ frame.phase, rcond=None)[0]
            left = (frame.phase - self._basis @ found) / np.where(known, frame.spread, np.inf)
            if number < DRIFT_PASSES - 1:
                sigma = MEDIAN_TO_SIGMA * float(np.median(np.abs(left[known])))
                kept = known & (np.abs(left) <= max(DRIFT_SIGMAS * sigma, 1e-6))
                weight = kept / np.where(known, frame.spread, 1.0) ** 2
        return np.asarray(self._basis @ found)

    def _moved(self, magnitude: Vector, still: npt.NDArray[np.bool_], channel: float) -> float:
        """Share by which the brightness of ``still`` tissue differs from the reference's, beyond the noise of a
        ``channel``."""
        before, now = self._magnitude[still].astype(np.float64), magnitude[still].astype(np.float64)
        power = float(before @ before)
        if not power:
            return 0.0
        gain = float(now @ before) / power
        beyond = float(np.sum((now - gain * before) ** 2)) - (1 + gain**2) * channel**2 * len(now)
        return float(np.sqrt(max(0.0, beyond) / max(gain**2 * power, np.finfo(float).tiny)))

    def _whole(self, values: npt.NDArray[np.float64], elsewhere: float) -> Temperature:
        result = np.full(self._shape, elsewhere, dtype=np.float32)
        result[self._bright] = values
        return result
