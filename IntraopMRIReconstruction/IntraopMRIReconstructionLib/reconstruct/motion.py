"""A patient who moved once in mid-scan: lines read afterwards have a phase that slopes along the readout.

What several coils see of a line follows from its neighbours (see ``consistency``) but for that slope, where one of the
two was read before the motion and the other after it. Source: Bydder, Larkman and Hajnal, Detection and elimination of
motion artifacts by regeneration of k-space, Magn Reson Med 47:677-686 (2002).

Nothing is corrected: a motion along the phase encoding, which turns a whole line and hardly those in the middle, is not
told from a change of the field, and one that turns the head without a shift is not seen.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..operators.fourier import ComplexArray
from ..operators.sampling import Mask
from .consistency import LINES, ROWS, TINY, Following, following, middle

#: Samples about the centre that are looked at: a slope needs more of them than a jump.
ALONG = 48
#: How often the slope is fitted to what the last one left.
FITS = 4
#: A slope leaves less than this part of what it explains: what turned alone or came from elsewhere has none.
UNEXPLAINED = 0.5
#: A motion is larger than this (millimetres) and than so many standard deviations.
SHIFT_MM, DEVIATIONS = 0.5, 5.0

Floats = npt.NDArray[np.float64]


class _Slopes(NamedTuple):
    """Of pairs of neighbouring lines: when the first and second were read, the slope of the phase from one to the other
    (radians per sample), and its weight (inverse variance)."""

    first: npt.NDArray[np.integer[Any]]
    second: npt.NDArray[np.integer[Any]]
    slopes: Floats
    weights: Floats


def motion(
    samples: ComplexArray, acquired: Mask, is_3d: bool, order: npt.NDArray[np.integer[Any]] | None, field_mm: float
) -> str:
    """What is seen of a motion during the scan in words, "" when nothing is.

    ``samples``: (coils, z, y, x); ``acquired``, ``order``: as for :func:`.consistency.fitting`, None being the order of
    k-space; ``field_mm``: field of view along the readout.
    """
    if len(samples) < 2:
        return ""
    times = np.arange(acquired.size).reshape(acquired.shape) if order is None else order
    x, y = middle(samples.shape[3], ALONG), middle(acquired.shape[1], LINES)
    found = []
    for z in [middle(len(acquired), ROWS)] if is_3d else [slice(each, each + 1) for each in range(len(acquired))]:
        found.append(_slopes(samples[:, z, y, x], acquired[z, y], times[z, y]))
    if is_3d:
        z, y = middle(len(acquired), LINES), middle(acquired.shape[1], ROWS)
        block = samples[:, z, y, x].swapaxes(1, 2)
        found.append(_slopes(block, acquired[z, y].T, times[z, y].T))
    pairs = [each for each in found if each is not None]
    if not pairs:
        return ""
    first, second, slopes, weights = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    moments = np.unique(times[acquired])
    # A pair tells of every moment from after its earlier line up to its later one.
    begin = np.searchsorted(moments, np.minimum(first, second)) + 1
    end = np.searchsorted(moments, np.maximum(first, second)) + 1
    sums = np.zeros((2, len(moments) + 1))
    for total, values in zip(sums, (weights, weights * slopes * np.sign(second - first)), strict=True):
        np.add.at(total, begin, values)
        np.add.at(total, end, -values)
    known, moved = np.cumsum(sums, axis=1)[:, :-1]
    known = np.maximum(known, weights.max() * 1e-9 + TINY)
    likely = np.abs(moved) / np.sqrt(known)
    shifts = -moved / known * field_mm / (2 * np.pi)
    worst = int(np.argmax(np.where(np.abs(shifts) > SHIFT_MM, likely, 0)))
    if likely[worst] < DEVIATIONS or abs(shifts[worst]) <= SHIFT_MM:
        return ""
    place = np.argwhere(acquired & (times == moments[worst]))[0]
    line = f"line {place[1]}" + (f" of partition {place[0]}" if is_3d else "")
    share = np.count_nonzero(times[acquired] < moments[worst]) / np.count_nonzero(acquired)
    when = f"from {line} on, about {100 * share:.0f} % into the scan" + (
        " if read in its order" if order is None else ""
    )
    return (
        f"the patient moved in mid-scan, by {abs(shifts[worst]):.1f} mm along the readout, {when} (turns and motion "
        "along the phase encoding are not seen): expect blurred edges and ghosts"
    )


def _slopes(block: ComplexArray, there: Mask, times: npt.NDArray[np.integer[Any]]) -> _Slopes | None:
    """Slopes between neighbouring lines of ``block`` (coils, rows, lines, x); None when they do not follow."""
    found = following(block, there)
    return None if found is None else _fitted(found, times)


def _fitted(found: Following, times: npt.NDArray[np.integer[Any]]) -> _Slopes:
    row, line = np.nonzero(found.known[:, :-1] & found.known[:, 1:])
    place = np.cumsum(found.known).reshape(found.known.shape) - 1
    one, two = place[row, line], place[row, line + 1]
    # The later line as it follows from the one before, and the other way round: without what its other side explains.
    forth, back = found.before[two], found.after[one]
    seen, seen_back = (found.lines - found.after)[two], (found.lines - found.before)[one]
    cross = _sum(forth.conj() * seen) + _sum(back * seen_back.conj())
    power = _sum(np.square(np.abs(forth)) + np.square(np.abs(back))).real + TINY
    energy = _sum(np.square(np.abs(seen)) + np.square(np.abs(seen_back))).real + power
    k = np.arange(cross.shape[1]) - cross.shape[1] // 2
    moments = np.stack([(power * k**n).sum(axis=1) for n in range(3)])
    apart = np.maximum(moments[0] * moments[2] - moments[1] ** 2, TINY)
    turn, slope = np.zeros(len(row)), np.zeros(len(row))
    for _ in range(FITS):
        left = cross * np.exp(-1j * (turn[:, None] + slope[:, None] * k))
        whole, sloped = left.imag.sum(axis=1), (left.imag * k).sum(axis=1)
        turn += (moments[2] * whole - moments[1] * sloped) / apart
        slope += (moments[0] * sloped - moments[1] * whole) / apart
    left = cross * np.exp(-1j * (turn[:, None] + slope[:, None] * k))
    unexplained = np.maximum((energy - 2 * left.real).mean(axis=1), TINY)
    explained = unexplained < UNEXPLAINED * (energy - power).mean(axis=1)
    variances = unexplained / 2 * moments[0] / apart
    return _Slopes(times[row, line + 1], times[row, line + 2], slope, explained / variances)


def _sum(products: ComplexArray) -> npt.NDArray[np.complex128]:
    """Over coils."""
    return np.asarray(products.sum(axis=2), dtype=complex)
