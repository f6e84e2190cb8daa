"""Lines that do not fit to those beside them: gain or phase that changes in mid-scan, motion between shots, lines in
the wrong place or from another moment.

What several coils see of a line follows from its neighbours (as GRAPPA uses). A line that came with another gain or
phase follows from them but for a factor, one that belongs elsewhere does not follow at all. Source: Bydder, Larkman and
Hajnal, Detection and elimination of motion artifacts by regeneration of k-space, Magn Reson Med 47:677-686 (2002).

The middle of k-space is looked at, which makes nearly all of the picture, where lines lie side by side. Nobody can see
what changes slowly from line to line, nor what all lines have in common: mirrored or conjugated data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import binary_dilation

from ..operators.fourier import ComplexArray
from ..operators.sampling import Mask
from .lost_lines import filled

#: Lines and samples about the centre that are looked at; of 3D scans so many rows of them; virtual coils.
LINES, ALONG, ROWS, COILS = 48, 32, 4, 5
#: Samples of a neighbouring line that make one.
TAPS = 3
#: Tikhonov weight, relative to the mean power of a source sample. A line counts as much as any other unless it is
#: weaker than the strongest by the second factor (energy).
REGULARISATION, WEAK = 1e-4, 1e-3
#: Lines that do not follow teach less the second time, by how much of them is left unexplained.
PASSES, DOUBTED = 2, 0.02
#: So many lines with two neighbours teach how they follow from them. Of the strong ones (energy, relative to the
#: strongest) the third that follows best leaves no more than this part unexplained, noise aside: else there are too few
#: coils, or an object that reaches out of the field of view, and nothing can be told.
LEAST_LINES, STRONG, TYPICAL, FOLLOWS = 8, 0.01, 0.3, 0.03


class Limits(NamedTuple):
    """A line is foreign when this part of the energy about it is unexplained; a jump of gain or phase is one from so
    many standard deviations."""

    foreign: float
    deviations: float


#: Of 630 simulated scans without a fault, 0.31 and 21 are the most. Less may be left after a correction.
LIMITS, LEFT = Limits(0.4, 28.0), Limits(0.15, 9.0)
#: What is unexplained of a foreign line is at least so much of the energy of all lines: a picture changes by its root.
HARMFUL = 1e-3
#: A jump (natural logarithm of gain, or radians) is larger than this, known so well, and explains so much of its lines.
JUMP, SURE, EXPLAINED = 0.2, 0.04, 0.8
#: More jumps than this in a row of lines are not undone. At most so many lines are made from so many around them on
#: either side; so many are tried to find the worst.
MOST_UNDONE, MOST_MADE, AROUND, MOST_TRIED = 4, 3, 10, 12
#: Any other explanation of a jump leaves twice the strain, or gives up this part of what undoing it wins.
BETTER = 0.2
TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class Misfits:
    """``jumps``: complex logarithms (z, y) of gain and phase of a line against the one before it along y, and along z;
    0 where they agree. ``foreign``: (z, y) how little a line follows from those beside it, 0 where it does. ``judged``:
    how many slices, or axes of a 3D scan, could be looked at. ``strain``: sum of how little each line follows."""

    jumps: tuple[npt.NDArray[np.complex128], npt.NDArray[np.complex128]]
    foreign: npt.NDArray[np.float64]
    judged: int
    strain: float

    @property
    def gain_alone(self) -> bool:
        """Whether there are jumps, and none of the phase."""
        phases = max(float(np.abs(each.imag).max()) for each in self.jumps)
        return self.most_jumps > 0 and phases < JUMP

    @property
    def most_jumps(self) -> int:
        """Along any one row of lines."""
        return max(int(np.count_nonzero(each, axis=axis).max()) for each, axis in zip(self.jumps, (1, 0), strict=True))

    @property
    def words(self) -> str:
        """What is wrong, "" when nothing is."""
        found = []
        jumps = np.concatenate([each[each != 0] for each in self.jumps])
        if len(jumps):
            gain, phase = np.abs(jumps.real).max() * 20 / np.log(10), np.degrees(np.abs(jumps.imag).max())
            found.append(f"gain or phase jumps between lines, by up to {gain:.1f} dB and {phase:.0f}°")
        if number := np.count_nonzero(self.foreign):
            found.append(f"{number} lines do not fit to those beside them")
        return " and ".join(found)


def fitting(
    samples: ComplexArray,
    acquired: Mask,
    is_3d: bool,
    order: npt.NDArray[np.integer[Any]] | None = None,
    train: bool = False,
) -> tuple[ComplexArray, str]:
    """(``samples`` (coils, z, y, x), or a copy whose lines fit; what was wrong with them in words, "" when nothing).

    ``acquired``: (z, y), the lines that are there; ``order``: (z, y), when each was read, None when nobody knows;
    ``train``: whether several are read after each excitation, as far as the header says.
    A few jumps of gain or phase are undone and a few foreign lines made from those beside them, if everything fits
    afterwards and no other explanation fits as well; else the lines stay as they came. What changes from echo to echo
    of a train, or on the way to the steady state, comes and goes in time, and is no fault.
    """
    found = misfits(samples, acquired, is_3d)
    in_time = found.most_jumps == 0 or _in_time(found, acquired, is_3d, order)
    if found.gain_alone and not in_time:
        if order is None and not train:
            return samples, f"{found.words}: a change of gain in mid-scan, or echoes of a train; nobody can tell which"
        found = replace(found, jumps=(np.zeros_like(found.jumps[0]), np.zeros_like(found.jumps[1])))
    words, judged = found.words, found.judged
    if not words:
        return samples, ""
    refused = f"{words}: motion, a change of gain or field in mid-scan, or lines from elsewhere; expect ghosts"
    mended, good = samples.copy(), acquired.copy()
    while found.words and in_time and (acquired & ~good).sum() < MOST_MADE and found.judged == judged:
        if found.foreign.any():
            found, good = _without_worst(found, mended, good, is_3d)
            in_time = found.most_jumps == 0 or _in_time(found, good, is_3d, order)
        elif found.most_jumps <= MOST_UNDONE:
            if not _undone(found, mended, good, is_3d):
                return samples, refused
            found = misfits(mended, good, is_3d, LEFT)
            break
        else:
            break
    lost = acquired & ~good
    alone = not (lost[:, 1:] & lost[:, :-1]).any() and not (lost[1:] & lost[:-1] & is_3d).any()
    if not found.words and alone and _made(mended, good, lost, is_3d):
        found = misfits(mended, acquired, is_3d, Limits(FOLLOWS, LEFT.deviations))
        beside = binary_dilation(lost, np.ones((3 if is_3d else 1, 3)))
        strange = (found.foreign > LEFT.foreign) | ((found.foreign > 0) & beside)
        if not found.most_jumps and not strange.any() and found.judged == judged:
            done = f", {int(lost.sum())} of them made from those beside them" if lost.any() else ""
            return mended, f"{words}: corrected{done}, as far as can be told"
    return samples, refused


def _in_time(found: Misfits, acquired: Mask, is_3d: bool, order: npt.NDArray[np.integer[Any]] | None) -> bool:
    """Whether the jumps are a few moments of the scan. When nobody knows its ``order``, only lines that are turned
    alone surely are."""
    total = _total(found.jumps, is_3d)
    for z in [slice(None)] if is_3d else [slice(each, each + 1) for each in range(len(total))]:
        lines = acquired[z].copy()
        lines[:, : middle(lines.shape[1], LINES).start] = lines[:, middle(lines.shape[1], LINES).stop :] = False
        values = total[z][lines]
        if order is None:
            usual = np.median(values.real) + 1j * np.median(values.imag)
            if found.gain_alone or np.count_nonzero(np.abs(values - usual) > JUMP / 2) > MOST_MADE:
                return False
        else:
            values = values[np.argsort(order[z][lines], kind="stable")]
            if np.count_nonzero(np.abs(np.diff(values)) > JUMP / 2) > MOST_UNDONE:
                return False
    return True


def _undone(found: Misfits, samples: ComplexArray, good: Mask, is_3d: bool) -> bool:
    """Undo jumps in place, if that fits better than the lines as they came, and than any one jump taken for that of the
    single line before or after it."""
    for z in [slice(None)] if is_3d else [slice(each, each + 1) for each in range(len(good))]:
        part, lines = samples[:, z], good[z]
        jumps = [each[z] for each in found.jumps]
        seen = [(axis, int(n)) for axis in (0, 1) for n in np.flatnonzero(jumps[axis].any(axis=axis))]
        if not seen:
            continue
        fits = []
        for axis, n, side in [(0, 0, 0)] + [(axis, n, side) for axis, n in seen for side in (-1, 1)]:
            other = jumps[0].copy(), jumps[1].copy()
            along = other[1].T if axis else other[0]
            if side and 0 < n + side < along.shape[1]:
                along[:, n + side] -= along[:, n]
            mended = part * np.exp(-_total(other, is_3d))[:, :, None].astype(np.complex64)
            fits.append((misfits(mended, lines, is_3d, LEFT).strain, mended))
        (best, mended), (next_best, _) = sorted(fits, key=lambda fit: fit[0])[:2]
        before = misfits(part, lines, is_3d).strain
        if best >= before or next_best - best < min(best, BETTER * (before - best)):
            return False
        samples[:, z] = mended
    return True


def _without_worst(found: Misfits, samples: ComplexArray, good: Mask, is_3d: bool) -> tuple[Misfits, Mask]:
    """(what still does not fit, lines (z, y) that are good) without the one line whose loss makes most others fit."""
    near = binary_dilation(found.foreign > 0, np.ones((3 if is_3d else 1, 3))) & good
    candidates = np.argwhere(near)
    candidates = candidates[np.argsort(-found.foreign[near], kind="stable")][:MOST_TRIED]
    best, kept = found, good
    for line in candidates:
        without = good.copy()
        without[tuple(line)] = False
        left = misfits(samples, without, is_3d, LEFT)
        if left.judged == found.judged and left.foreign.sum() < best.foreign.sum():
            best, kept = left, without
    return (best, kept) if best is not found else (replace(found, judged=-1), good)


def _total(
    jumps: tuple[npt.NDArray[np.complex128], npt.NDArray[np.complex128]], is_3d: bool
) -> npt.NDArray[np.complex128]:
    """Sum (z, y) of the jumps up to each line, 0 at the centre of k-space."""
    total = np.cumsum(jumps[0], axis=1) + np.cumsum(jumps[1], axis=0)
    z, y = (size // 2 for size in total.shape)
    return np.asarray(total - (total[z, y] if is_3d else total[:, y : y + 1]))


def _made(samples: ComplexArray, good: Mask, lost: Mask, is_3d: bool) -> bool:
    """Put lines in the place of those ``lost``, made from those around that are ``good``; whether that was possible."""
    for z, y in np.argwhere(lost):
        reach = AROUND if is_3d else 0
        around = slice(max(0, z - reach), z + reach + 1), slice(max(0, y - AROUND), y + AROUND + 1)
        block, there = filled(samples[:, around[0], around[1]], good[around])
        samples[:, z, y] = block[:, z - around[0].start, y - around[1].start]
        if not there[z - around[0].start, y - around[1].start]:
            return False
    return True


def misfits(samples: ComplexArray, acquired: Mask, is_3d: bool, limits: Limits = LIMITS) -> Misfits:
    """What does not fit in ``samples``, as for :func:`fitting`; what exceeds ``limits``.

    Slices of a 2D scan are judged one by one, rows of a 3D scan by their sum as well.
    """
    shape = acquired.shape
    jumps, foreign = (np.zeros(shape, complex), np.zeros(shape, complex)), np.zeros(shape)
    judged, strain = 0, 0.0
    if len(samples) > 1:
        x, lines = middle(samples.shape[3], ALONG), middle(shape[1], LINES)
        for z in [middle(shape[0], ROWS)] if is_3d else [slice(each, each + 1) for each in range(shape[0])]:
            if found := _judged(samples[:, z, lines, x], acquired[z, lines], limits):
                jumps[0][slice(None) if is_3d else z, lines] += found[0]
                foreign[z, lines] += found[1]
                judged, strain = judged + 1, strain + found[2]
        if is_3d:
            z, rows = middle(shape[0], LINES), middle(shape[1], ROWS)
            if found := _judged(samples[:, z, rows, x].swapaxes(1, 2), acquired[z, rows].T, limits):
                jumps[1][z] += found[0].T
                foreign[z, rows] += found[1].T
                judged, strain = judged + 1, strain + found[2]
    return Misfits(jumps, foreign, judged, strain)


def _judged(
    block: ComplexArray, there: Mask, limits: Limits
) -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.float64], float] | None:
    """(jumps (1, lines), foreign (rows, lines), strain) of ``block`` (coils, rows, lines, x), lines being
    neighbours, of which those ``there`` (rows, lines) are; None when they do not follow from one another."""
    if (found := following(block, there)) is None:
        return None
    known, each, number = found.known, found.fit, found.lines[0].size
    jumps, foreign = np.zeros((1, there.shape[1]), complex), np.zeros(there.shape)
    foreign[:, 1:-1] = each.foreign(known, limits)
    together = each if len(there) == 1 else _Fit(found.parts.sum(axis=1, keepdims=True), number * len(there))
    jumps[:, 2:-1] = together.jumps(np.asarray(known.any(axis=0, keepdims=True)), limits)
    return jumps, foreign, each.strain(known)


class Following(NamedTuple):
    """Which lines (rows, lines - 2) between two others are ``known``; those ``lines`` (known, x, coils) and what
    follows for them from the one ``before`` and the one ``after``: their sum should be the line; ``parts`` (6, rows,
    lines - 2): products of the three."""

    known: Mask
    lines: ComplexArray
    before: ComplexArray
    after: ComplexArray
    parts: npt.NDArray[np.complex128]
    fit: _Fit


def following(block: ComplexArray, there: Mask) -> Following | None:
    """How the lines of ``block`` follow from those beside them, as for :func:`_judged`; None when they do not."""
    known = there[:, :-2] & there[:, 1:-1] & there[:, 2:]
    if np.count_nonzero(known) < LEAST_LINES:
        return None
    block = _compressed(block)
    windows = sliding_window_view(block, TAPS, axis=3).transpose(1, 2, 3, 0, 4)
    windows = windows.reshape(*windows.shape[:3], -1)
    before, after = windows[:, :-2][known], windows[:, 2:][known]
    edge = TAPS // 2
    lines = block[..., edge : block.shape[3] - edge].transpose(1, 2, 3, 0)[:, 1:-1][known]
    energy = _dot(lines, lines).real
    if not energy.any():
        return None
    sources = np.concatenate([before, after], axis=2)
    unknowns = sources.shape[2]
    even = 1 / np.sqrt(energy / energy.max() + WEAK)
    for _ in range(PASSES):
        scale = even.astype(np.float32)[:, None, None]
        equations = (sources * scale).reshape(-1, unknowns)
        gram = equations.conj().T @ equations
        gram[np.diag_indices(unknowns)] += np.float32(REGULARISATION * float(np.trace(gram).real) / unknowns)
        weights = np.linalg.solve(gram, equations.conj().T @ (lines * scale).reshape(len(equations), -1))
        first, second = before @ weights[: unknowns // 2], after @ weights[unknowns // 2 :]
        # Products (6, rows, lines) of what follows from either side and of the line itself.
        parts = np.zeros((6, *known.shape), complex)
        pairs = ((first, first), (second, second), (first, second), (first, lines), (second, lines), (lines, lines))
        for part, pair in zip(parts, pairs, strict=True):
            part[known] = _dot(*pair)
        each = _Fit(parts, lines[0].size)
        even /= 1 + each.strange[known] / DOUBTED
    strong = each.energy > STRONG * each.energy.max()
    noise = np.quantile(each.left[known], 0.25)
    if np.quantile((each.left[strong] - noise) / each.energy[strong], TYPICAL) > FOLLOWS:
        return None
    return Following(known, lines, first, second, parts, each)


class _Fit:
    """How lines (rows, lines) follow from the two beside them, each with a factor of its own."""

    def __init__(self, parts: npt.NDArray[np.complex128], number: int) -> None:
        """``parts``: (6, rows, lines) products as in :class:`Following`; ``number`` of samples of a line."""
        before, after, self.energy = (parts[n].real + TINY for n in (0, 1, 5))
        both, from_before, from_after = parts[2:5]
        self._unexplained = self.energy - 2 * (from_before + from_after - both).real + before + after
        apart = np.maximum(before * after - np.square(np.abs(both)), TINY)
        self._factors = (
            (after * from_before - both * from_after) / apart,
            (before * from_after - both.conj() * from_before) / apart,
        )
        explained = self._factors[0].conj() * from_before + self._factors[1].conj() * from_after
        self.left = np.maximum(self.energy - explained.real, 0)
        self._around = self.energy.copy()
        self._around[:, 1:] += self.energy[:, :-1]
        self._around[:, :-1] += self.energy[:, 1:]
        self.strange = np.maximum(self._unexplained, 0) / self._around
        self._variances = self.left / number * after / apart, self.left / number * before / apart

    def _beyond_noise(self, known: Mask) -> npt.NDArray[np.float64]:
        return np.asarray(self._unexplained - 2 * np.quantile(self._unexplained[known], 0.25))

    def strain(self, known: Mask) -> float:
        """How little all lines follow, noise aside."""
        return float((np.maximum(self._beyond_noise(known), 0) / self._around)[known].sum())

    def foreign(self, known: Mask, limits: Limits) -> npt.NDArray[np.float64]:
        """How little lines follow, 0 where they do."""
        unexplained = self._beyond_noise(known)
        share = unexplained / self._around
        return np.where(known & (share > limits.foreign) & (unexplained > HARMFUL * self.energy.sum()), share, 0)

    def jumps(self, known: Mask, limits: Limits) -> npt.NDArray[np.complex128]:
        """(rows, lines - 1) complex logarithm of what is multiplied from one line to the next, 0 where they agree."""
        # The later line as it follows from the one before, and the other way round.
        forth, back = self._factors[0][:, 1:], self._factors[1][:, :-1]
        sizes = np.abs(forth) + TINY, np.abs(back) + TINY
        found = 0.5 * np.log(sizes[0] / sizes[1]) + 1j * np.angle(forth / sizes[0] + back.conj() / sizes[1])
        variance = self._variances[0][:, 1:] / sizes[0] ** 2 + self._variances[1][:, :-1] / sizes[1] ** 2
        deviation = 0.5 * np.sqrt(variance)
        explained = known & (self.left < (1 - EXPLAINED) * self.energy)
        likely = explained[:, 1:] & explained[:, :-1] & (deviation < SURE) & (np.abs(found) > JUMP)
        sure = likely & (np.abs(found) > limits.deviations * deviation)
        # A single line jumps twice.
        beside = sure.copy()
        beside[:, 1:] |= sure[:, :-1]
        beside[:, :-1] |= sure[:, 1:]
        return np.where(sure | (likely & beside & (np.abs(found) > LEFT.deviations * deviation)), found, 0)


def _compressed(block: ComplexArray) -> ComplexArray:
    """``block`` (coils, ...) with the strongest ``COILS`` virtual coils."""
    if len(block) <= COILS:
        return block
    rows = block.reshape(len(block), -1)
    _, vectors = np.linalg.eigh(rows @ rows.conj().T)
    return np.asarray(np.tensordot(vectors[:, -COILS:].conj().T, block, axes=1))


def _dot(one: ComplexArray, other: ComplexArray) -> npt.NDArray[np.complex128]:
    return np.asarray(np.einsum("lxc,lxc->l", one.conj(), other), dtype=complex)


def middle(size: int, width: int) -> slice:
    """So many of ``size`` about the centre, at most all."""
    start = max(0, size // 2 - width // 2)
    return slice(start, min(size, start + width))
