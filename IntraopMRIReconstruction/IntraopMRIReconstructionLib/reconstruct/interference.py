"""Signals from outside the patient: sparks (single samples) and radio interference at one frequency (a zipper).

Only what no scan of a person shows is named. What they look like: Heiland, From A as in Aliasing to Z as in Zipper:
Artifacts in MRI, Clin Neuroradiol 18:25-36 (2008).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy.ndimage import binary_dilation, maximum_filter1d

from ..data import Encoding
from ..operators.fourier import ComplexArray
from ..operators.sampling import Mask

#: A sample so many times stronger (power) than those around it is a spark. Of 10 000 simulated scans of heads, combs,
#: points and thin plates without one, those seen by several coils show up to 25, and those seen by one coil alone,
#: which smooths nothing, up to 70.
SPARK_LOUD, SPARK_LOUD_ALONE = 50.0, 150.0
#: It may reach so far on either side, and is compared with so many beyond.
SPARK, AROUND = 1, 8
#: A column of sparks is no accident: at most so many stand at the same place of the readout.
LEAST_COLUMN = 3
#: Lines away from the middle of k-space by this part of the matrix show edges and noise; so many on either side, of so
#: many slices or partitions, are looked at.
OUTER_SHARE, OUTER_LINES, OUTER_PLANES = 0.3, 24, 4
#: Fewer of them cannot tell interference from a bright point.
LEAST_OUTER = 16
#: Interference stands so many times (power) above the columns beside it, those next to it left out.
ZIPPER_LOUD, BESIDE, BEYOND = 10.0, 2, 9
#: Lines that follow one another agree on a bright point in the patient (0.9 and more), not on a radio wave whose phase
#: is another one each time. A wave that keeps step with the scanner is a point, and nobody can tell.
INCOHERENT, LAGS = 0.6, (1, 2, 3, 4)


def spikes(samples: ComplexArray, central: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which ``samples`` (lines, coils, readout), as they came, are sparks: (lines, readout).

    A picture is as wide as its field of view, so that its k-space rises and falls over two samples or more; one that
    stands ``SPARK_LOUD`` times above those on both sides is from elsewhere. ``central``, (readout,) or (lines,
    readout): about the centre of k-space, where the signal itself may stand so high. A column of them is no accident,
    but a centre that lies elsewhere than the header says.
    """
    parts = np.ascontiguousarray(samples, dtype=np.complex64).view(np.float32)
    squares = np.einsum("lcx,lcx->lx", parts, parts)
    reach = SPARK + 1
    loud = SPARK_LOUD if samples.shape[1] > 1 else SPARK_LOUD_ALONE
    # Broken numbers are for others to find.
    with np.errstate(over="ignore", invalid="ignore"):
        power = squares[:, 0::2] + squares[:, 1::2]
        padded = np.pad(power, ((0, 0), (reach, reach)))
        beside = np.maximum(padded[:, : -2 * reach], padded[:, 2 * reach :])
        found: npt.NDArray[np.bool_] = np.asarray((power > loud * beside) & ~central & np.isfinite(power))
    if not found.any():
        return found
    line, at = np.nonzero(found)
    offsets = np.concatenate([np.arange(-AROUND, -SPARK), np.arange(SPARK + 1, AROUND + 1)])
    places = at[:, None] + offsets
    there = (places >= 0) & (places < power.shape[1])
    around = np.where(there, power[line[:, None], places * there], 0).max(axis=1)
    sure = (around > 0) & (power[line, at] > loud * around)
    sure &= np.bincount(at, minlength=power.shape[1])[at] < LEAST_COLUMN
    found[line, at] = sure
    return np.asarray(binary_dilation(found, np.ones((1, 2 * SPARK + 1)))) if sure.any() else found


def zipper_words(samples: ComplexArray, acquired: Mask, encoding: Encoding) -> str:
    """Where interference at one frequency lies in the image of ``samples`` (coils, z, y, x), "" when there is none.

    ``acquired``: (z, y). A radio wave is as strong in the outermost lines of k-space as in the middle, at one place of
    the readout; a patient has points so bright, but their phase follows from line to line.
    """
    y, x = samples.shape[2:]
    away = np.arange(y) - y // 2
    rows = np.flatnonzero(acquired.any(axis=0) & (np.abs(away) > OUTER_SHARE * y))
    sides = [side for side in (rows[away[rows] < 0][:OUTER_LINES], rows[away[rows] > 0][-OUTER_LINES:]) if len(side)]
    lines = np.concatenate([*sides, rows[:0]])
    planes = np.flatnonzero(acquired[:, lines].all(axis=1))
    if len(lines) < LEAST_OUTER or not len(planes):
        return ""
    planes = planes[np.linspace(0, len(planes) - 1, min(OUTER_PLANES, len(planes))).astype(int)]
    hybrid = scipy.fft.ifft(samples[:, planes[:, None], lines], axis=-1, overwrite_x=True)
    parts = hybrid.view(np.float32)
    power = np.einsum("czyx,czyx->x", parts, parts).reshape(-1, 2).sum(axis=1)
    length = BEYOND - BESIDE
    after = maximum_filter1d(power, length, mode="wrap", origin=-(length // 2))
    around = np.maximum(np.roll(after, -BESIDE - 1), np.roll(after, BEYOND))
    at = int((power - ZIPPER_LOUD * around).argmax())
    if power[at] <= ZIPPER_LOUD * around[at] or _agreement(hybrid[..., at], [len(side) for side in sides]) > INCOHERENT:
        return ""
    aside_mm = ((at + x // 2) % x - x // 2) * encoding.encoded_fov_mm[2] / x
    if abs(aside_mm) > encoding.recon_fov_mm[2] / 2:
        return ""
    return (
        f"radio interference at one frequency, a zipper across the image {aside_mm:.0f} mm from its middle along the "
        "readout: look for equipment beside the scanner that was switched on, or an open door"
    )


def _agreement(column: ComplexArray, sides: list[int]) -> float:
    """How far lines (coils, z, lines) of both ``sides`` follow from those before, 0..1, at the best distance."""
    parts = np.split(column, np.cumsum(sides)[:-1], axis=-1)
    found = [0.0]
    for lag in LAGS:
        pairs = [(part[..., lag:], part[..., :-lag]) for part in parts]
        common = abs(complex(sum(np.vdot(one, other) for one, other in pairs)))
        whole = float(sum(np.linalg.norm(one) * np.linalg.norm(other) for one, other in pairs))
        found.append(common / max(whole, float(np.finfo(np.float32).tiny)))
    return max(found)
