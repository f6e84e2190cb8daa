"""Temperature from the water proton's resonance frequency, and the thermal dose.

Sources: Ishihara et al., Magn Reson Med 34:814 (1995); Rieke and Butts Pauly, J Magn Reson Imaging 27:376 (2008) for
the method, its coefficient and drift; Rieke et al., Magn Reson Med 51:1223 (2004) for the referenceless form; Sapareto
and Dewey, Int J Radiat Oncol Biol Phys 10:787 (1984) for CEM43. Fat does not shift with temperature: its voxels are
wrong.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ReconstructionError
from .phase import Mask, polynomial_background, unwrapped
from .unheated import MEDIAN_TO_SIGMA, Stillness, Unheated

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
#: between two frames, or when such voxels part it from the tissue around: the turn may as well have been the other way.
LOST_SIGNAL, WRAP_SHARE = 0.75, 0.85
#: Tissue with so many times the least signal in the reference is not lost by noise.
CLEAR = 2.0
#: Phases of frames that are kept take at most so much memory; without the oldest the unheated region stays as it is.
MAX_KEPT_BYTES = 2**30
#: A voxel so dark that its temperature is uncertain by more than this (standard deviation, C) has none: its dose, which
#: doubles with each degree, would be noise.
MOST_NOISE_C = 2.0
#: An interval holds 95 % of a normal error.
SIGMAS = 1.96
#: No tissue is so far above the break point, C; beyond it a dose would overflow.
MOST_ABOVE_C = 100.0


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
    if noise_c is None:
        known = change_c[np.isfinite(change_c)]
        noise_c = MEDIAN_TO_SIGMA * float(np.median(np.abs(known - np.median(known)))) if known.size else 0.0
    return -max(COOLED_C, COOLED_SIGMAS * noise_c)


def coldest(change_c: npt.NDArray[Any], below_c: float) -> float | None:
    """Change (C) of the coldest voxel within blocks of the map (z, y, x) that are colder than ``below_c`` throughout;
    None when there is no such block."""
    rows, columns = COOLED_BLOCK
    warm = np.where(np.isfinite(change_c), change_c, np.inf)
    y, x = warm.shape[1:]
    if y < rows or x < columns or not (warm < below_c).any():
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
    so that it has no temperature and its dose is not complete; ``hidden``: what of it was bright. ``stillness``: how
    unheated tissue lies to the reference. ``unseen_s``: time since the reference in which frames were missing,
    ``longest_unseen_s`` at a stretch.

    Of a drift that was taken away, otherwise None: ``noise_c``, standard deviation of unheated tissue about its
    baseline; ``deviation_c``, that of each voxel, from the noise of the phase in unheated tissue and the brightness of
    the voxel; ``dose_range_min``, doses if every frame were that much (95 %) colder or warmer, and time that was not
    seen as cold or as warm as the colder or warmer one of the frames about it.
    """

    temperature_c: Temperature
    dose_min: Temperature
    drift_c: float
    noise_c: float | None
    lost: Mask
    hidden: Mask
    stillness: Stillness
    deviation_c: Temperature | None = None
    dose_range_min: tuple[Temperature, Temperature] | None = None
    unseen_s: float = 0.0
    longest_unseen_s: float = 0.0

    def within(self, box: tuple[slice, ...]) -> Heat:
        """The part of a box (z, y, x)."""
        ranged, deviation = self.dose_range_min, self.deviation_c
        return replace(
            self,
            temperature_c=self.temperature_c[box],
            dose_min=self.dose_min[box],
            lost=self.lost[box],
            hidden=self.hidden[box],
            deviation_c=None if deviation is None else deviation[box],
            dose_range_min=None if ranged is None else (ranged[0][box], ranged[1][box]),
        )


@dataclass(frozen=True, eq=False)
class _Frame:
    """Phase since the reference of the tissue, and its noise: that of a channel times ``spread``, infinite where the
    phase is not known. ``unseen_s``: of the time since the frame before it, when frames were missing."""

    time_s: float
    unseen_s: float
    phase: Vector
    spread: Vector


class _Dose:
    """CEM43 since the reference (3, tissue) in minutes: as measured, and the ends of its interval."""

    def __init__(self, size: int) -> None:
        self.sum = np.zeros((3, size), np.float32)
        self.unseen_s = self.longest_unseen_s = 0.0
        self._rate = np.zeros((3, size), np.float32)

    def copy(self) -> _Dose:
        """One that goes on without this one."""
        result = copy(self)
        result.sum = self.sum.copy()
        return result

    def add(self, rate: npt.NDArray[np.float32], duration_s: float, unseen_s: float) -> None:
        """Count ``rate`` (3, tissue) for the time since the frame before."""
        self.sum += rate * np.float32((duration_s - unseen_s) / 60)
        if unseen_s > 0:
            before, between = self._rate, np.empty_like(rate)
            between[0] = (rate[0] + before[0]) / 2
            np.minimum(rate[1], before[1], out=between[1])
            np.maximum(rate[2], before[2], out=between[2])
            self.sum += between * np.float32(unseen_s / 60)
        self.unseen_s += unseen_s
        self.longest_unseen_s = max(self.longest_unseen_s, unseen_s)

    def follow(self, rate: npt.NDArray[np.float32]) -> None:
        """The rates of the frame that the next one comes after."""
        self._rate = rate


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
        whole = np.abs(baseline).astype(np.float32)
        self._least = SIGNAL_SHARE * float(np.percentile(whole, 99))
        self._bright = whole > self._least
        self._at = np.flatnonzero(self._bright)
        self._reference, self._order = whole, drift_order
        self._previous = baseline.ravel()[self._at]
        self._magnitude = whole.ravel()[self._at]
        self._variance = 1 / self._magnitude**2
        self._baseline_c = baseline_c
        self._phase = np.zeros(len(self._at))
        self._lost = np.zeros(len(self._at), dtype=bool)
        self._frames: list[_Frame] = []
        self._dropped = False
        self._dose = _Dose(len(self._at))
        self._told = unheated is not None
        self._unheated = self._tissue(unheated)

    @property
    def unambiguous_c(self) -> float:
        """Change between two frames beyond which the phase aliases, C."""
        return float(np.pi / abs(self._per_c))

    @property
    def tissue(self) -> Mask:
        """Voxels (z, y, x) with enough signal in the reference."""
        return self._bright

    def add(self, image: Complex, time_s: float, unseen_s: float = 0.0) -> Heat:
        """Take in the next complex image (z, y, x), acquired at ``time_s`` on any steady clock.

        The dose of a frame lasts from the frame before it, but for ``unseen_s`` of that time, in which frames are
        missing. Raises ReconstructionError, and keeps the state as it was, when the shape, a value or the order in time
        is wrong.
        """
        if image.shape != self._bright.shape:
            raise ReconstructionError(f"an image of thermometry must have shape {self._bright.shape}: {image.shape}")
        if not np.isfinite(image).all():
            raise ReconstructionError("an image of thermometry with NaN or infinite values was dropped")
        if self._frames and time_s <= self._frames[-1].time_s:
            raise ReconstructionError(
                f"images of thermometry must follow in time, got {time_s} s after {self._frames[-1].time_s} s"
            )
        now = image.ravel()[self._at]
        step = now * np.conj(self._previous)
        # What turns all tissue alike, such as a drift, must not bring single voxels to half a turn.
        common = float(np.angle(step.sum()))
        turn = np.angle(step * np.exp(-1j * common).astype(step.dtype))
        magnitude = np.abs(now).astype(np.float32)
        lost = self._lost | (magnitude < LOST_SIGNAL * self._least * self._gain(magnitude))
        lost |= self._may_be_wrapped(turn, magnitude, ~lost)
        phase = self._phase + turn + common
        with np.errstate(divide="ignore"):
            spread = np.sqrt(self._variance + 1 / magnitude**2)
        spread[lost] = np.inf
        frame = _Frame(time_s, unseen_s, phase.astype(np.float32), spread)
        dose = self._dose.copy()
        heat = self._measured(frame, self._frames[-1] if self._frames else None, dose)
        self._previous, self._phase, self._lost, self._dose = now, phase, lost, dose
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
        before = self._told, self._unheated, self._baseline_c
        self._told, self._unheated, self._baseline_c = unheated is not None, self._tissue(unheated), baseline_c
        dose, found, last = _Dose(len(self._at)), [], None
        try:
            for frame in self._frames:
                found.append(self._measured(frame, last, dose))
                last = frame
        except ReconstructionError:
            self._told, self._unheated, self._baseline_c = before
            raise
        self._dose = dose
        return found

    def _tissue(self, unheated: Mask | None) -> Unheated:
        if unheated is not None and unheated.shape != self._bright.shape:
            raise ReconstructionError(f"the unheated region must have shape {self._bright.shape}, got {unheated.shape}")
        known = None if unheated is None else unheated.ravel()[self._at]
        return Unheated(self._reference, self._bright, self._order, known)

    def _gain(self, magnitude: Vector) -> float:
        """How much brighter than the reference a frame is as a whole."""
        return float(magnitude @ self._magnitude / (self._magnitude @ self._magnitude))

    def _may_be_wrapped(
        self, turn: Vector, magnitude: Vector, followed: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Where a phase may have turned by more than half a turn: it came near that, or it does not go with that of the
        tissue around within a slice."""
        size = np.abs(turn)
        result = np.asarray(size > WRAP_SHARE * np.pi)
        if size.max() <= np.pi / 2:
            return result
        whole = self._whole(np.where(followed, turn, 0.0), 0.0)
        trust, inside = self._whole(magnitude, 0.0), self._whole(followed, 0.0) > 0
        torn = np.zeros(whole.shape, dtype=bool)
        for number, plane in enumerate(whole):
            if max(np.abs(np.diff(plane, axis=axis)).max(initial=0.0) for axis in (0, 1)) > np.pi:
                torn[number] = np.abs(unwrapped(plane, trust[number], inside[number])[0] - plane) > np.pi
        return np.asarray(result | torn.ravel()[self._at])

    def _measured(self, frame: _Frame, before: _Frame | None, dose: _Dose) -> Heat:
        """Temperature of a frame; goes on with ``dose``."""
        lost = np.isinf(frame.spread)
        fitted, channel = self._unheated.drift(frame.phase, frame.spread)
        with np.errstate(divide="ignore", invalid="ignore"):
            magnitude: Vector = (1 / np.sqrt(frame.spread**2 - self._variance)).astype(np.float32)
        magnitude[lost] = 0.0
        stillness = self._unheated.stillness(magnitude, lost, channel)
        seen, change = ~lost, frame.phase / np.float32(self._per_c)
        deviation: Vector | None = None
        drift, noise = 0.0, None
        if self._told:
            fitted /= np.float32(self._per_c)
            change -= fitted
            drift = float(fitted.mean())
            deviation = frame.spread * np.float32(channel / abs(self._per_c))
            seen &= deviation <= MOST_NOISE_C
            noise = self._unheated.deviation(change, lost)
        change[~seen] = np.nan
        temperature = change + np.float32(self._baseline_c)
        margin = None if deviation is None else np.float32(SIGMAS) * deviation
        rate = _rates(temperature, margin)
        if before is not None:
            dose.add(rate, frame.time_s - before.time_s, frame.unseen_s)
        dose.follow(rate)
        ranged = None if deviation is None else (self._whole(dose.sum[1], 0.0), self._whole(dose.sum[2], 0.0))
        whole_lost = np.zeros(self._bright.size, dtype=bool)
        whole_lost[self._at] = lost
        return Heat(
            self._whole(temperature, np.nan),
            self._whole(dose.sum[0], 0.0),
            drift,
            noise,
            whole_lost.reshape(self._bright.shape),
            whole_lost.reshape(self._bright.shape) & (self._reference > CLEAR * self._least),
            stillness,
            None if deviation is None else self._whole(np.where(seen, deviation, np.nan), np.nan),
            ranged,
            dose.unseen_s,
            dose.longest_unseen_s,
        )

    def _whole(self, values: npt.NDArray[Any], elsewhere: float) -> Temperature:
        result = np.full(self._bright.size, elsewhere, dtype=np.float32)
        result[self._at] = values
        return result.reshape(self._bright.shape)


def _rates(temperature_c: Vector, margin_c: Vector | None) -> npt.NDArray[np.float32]:
    """CEM43 per minute (3, n) at a temperature, and that much below and above it; 0 where it is NaN."""
    rates = np.empty((3, len(temperature_c)), np.float32)
    for number, sign in enumerate((0, -1, 1)):
        if margin_c is None and number:
            rates[number] = rates[0]
            continue
        above = temperature_c - np.float32(BREAK_C)
        if margin_c is not None and number:
            above += sign * margin_c
        np.minimum(above, MOST_ABOVE_C, out=above)
        # 0.5 and 0.25 to the power of what is missing to the break point.
        above[above < 0] *= np.float32(np.log(BELOW) / np.log(ABOVE))
        np.exp(above * np.float32(-np.log(ABOVE)), out=rates[number])
    return np.nan_to_num(rates, copy=False, nan=0.0)
