"""How the enhancement of each piece of a residual changed over several contrast scans after one injection.

In the first minutes residual tumour climbs and what surgery caused stays low (PubMed 24138206: 42 places in 21
patients). By an hour it turns round: tumour has lost agent, damaged tissue goes on gaining it
(10.1371/journal.pone.0052008). So the course is information beside a piece and decides on none.

Each scan is freed of its gain by the tissue around, as the residual is. The noise of a mean is that of the same outline
elsewhere in normal tissue, which holds what the gain fit and a motion leave as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count, pairwise

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Measurement, Progress, no_progress
from IntraopMRIReconstructionLib.errors import AssessmentError, Cancelled
from IntraopMRIReconstructionLib.geometry import bounding_box, within_mm
from scipy import ndimage

from .enhancement import AGENT_SMOOTH_VOXELS, AGENT_Z, TISSUE_FRACTION, TRIM_SIGMA, on_grid, robust_sigma, subtraction
from .pieces import Piece

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]

SOURCE = "PubMed 24138206; 10.1371/journal.pone.0052008"
DEFINITION = (
    "Mean enhancement (contrast minus native scan) within the outline of this piece, newest contrast scan minus the "
    "first, in % of the signal of usual tissue; interval: the same outline elsewhere in normal tissue, its boundary, "
    "motion between the scans. In the first minutes after the injection residual tumour climbs and what surgery caused "
    "stays low; by an hour tumour has lost agent and damaged tissue goes on gaining it. It holds for one injection and "
    "one protocol, nothing resected or bled in between, and decides on no piece"
)
#: Scans farther apart (s) are not of one injection's course.
LONGEST_S = 3600.0
#: Beyond so many minutes from the first scan tumour may be losing agent, and damaged tissue goes on gaining it.
EARLY_MIN = 10.0
#: A change below this part of the enhancement is none that anybody acts on.
LEAST_CHANGE = 0.1
#: Blood only loses agent, mucosa and dura may gain some in the first minutes: what enhances elsewhere climbs by more
#: than this part when agent was given again, or was still arriving in the first scan.
GIVEN_AGAIN = 0.2
#: Fewer voxels that enhance elsewhere show nothing of that.
LEAST_ELSEWHERE = 20
#: Tissue that moved farther between two scans, mm, is not compared: a piece is some millimetres large.
MOST_MOVED_MM = 1.0
#: A measured motion is known to this part, and to no less than the brain moves by its pulse, mm.
MOTION_PART, LEAST_MOTION_MM = 0.3, 0.1
#: Smoothing that shows edges against noise. What noise there is makes each step too short, until one is this small, mm.
MOTION_SMOOTH_VOXELS, MOTION_STEPS, MOTION_DONE_MM = 1.0, 10, 0.01
#: Tissue around a piece that shows how it moved, mm; nearer than the second its own enhancement spreads.
AROUND_MM, OWN_MM = 12.0, 2.0
#: Normal tissue around the pieces that gain and noise are known from, mm; nearer than the second it is none.
CONTEXT_MM, AWAY_MM = 30.0, 6.0
#: Places of the outline in normal tissue: that many are tried, so many are needed; each with this part of it in tissue.
PLACES, LEAST_PLACES, IN_TISSUE = 400, 20, 0.7
#: Fewer voxels than this are no core of a piece.
LEAST_CORE = 4
_ALL = np.ones((3, 3, 3), dtype=bool)


class Trend(Enum):
    """Where the whole interval of a change lies, beside LEAST_CHANGE of the enhancement."""

    CLIMBS = "climbs"
    STAYS = "stays"
    FALLS = "falls"
    OPEN = "cannot be told"


@dataclass(frozen=True, eq=False)
class Course:
    """``minutes`` since the first contrast scan and ``enhancement`` of the piece then, one of each a scan, the newest
    last; ``change``: from the first to the newest, without a value, and nothing of the others, where there is none.
    """

    minutes: tuple[float, ...]
    enhancement: tuple[Measurement, ...]
    change: Measurement
    trend: Trend

    @property
    def late(self) -> bool:
        """Whether a climb does not speak for tumour any more."""
        return bool(self.minutes) and self.minutes[-1] > EARLY_MIN

    @property
    def head(self) -> str:
        """What it does: 'enhancement climbs'."""
        return f"{'change of ' if self.trend is Trend.OPEN else ''}enhancement {self.trend.value}"

    @property
    def caution(self) -> str:
        """What must be known beside a climb; empty otherwise."""
        speaks = self.trend is not Trend.CLIMBS or not self.late
        return "" if speaks else f"after {EARLY_MIN:.0f} min a climb is no sign of tumour"

    @property
    def text(self) -> str:
        """In words: 'enhancement climbs: 41 %, 55 % after 6 min'."""
        if self.change.value is None:
            return f"no course of enhancement: {self.change.missing_because}"
        told = (
            f"{m.value or 0.0:.0f} %" + (f" after {minutes:.0f} min" if minutes else "")
            for minutes, m in zip(self.minutes, self.enhancement, strict=True)
        )
        return "; ".join(filter(None, (f"{self.head}: {', '.join(told)}", self.caution)))


def courses(
    pieces: Sequence[Piece], native: Image, contrasts: Sequence[Image], progress: Progress = no_progress
) -> dict[int, Course]:
    """The course of each piece by its number.

    ``pieces``: of the residual on the newest of the ``contrasts``, which are in the order in which they were taken,
    all after one injection and with the same protocol. ``native``: without agent, in the position of the newest.
    Raises AssessmentError when the scans are no such series: other times or grids, agent that is not seen in one of
    them, or that was given again in between; Cancelled.
    """
    minutes = _minutes(contrasts)
    newest = contrasts[-1]
    for scan in contrasts[:-1]:
        same = scan.array.shape == newest.array.shape
        if not same or not np.allclose(scan.ras_from_ijk, newest.ras_from_ijk, atol=1e-3):
            raise AssessmentError(
                f"'{scan.name}' has other voxels than '{newest.name}', so a small piece looks fainter in one of them: "
                "repeat a scan with the same protocol and position"
            )
    if not pieces:
        return {}
    steps, total = count(), len(contrasts) + len(pieces)

    def step() -> None:
        if not progress(next(steps) / total, "measuring the course of enhancement"):
            raise Cancelled("the measurement of the course of enhancement was stopped")

    series = _Series(pieces, native, contrasts, step)
    based_on = (newest.uid, native.uid, *(scan.uid for scan in contrasts[:-1]))
    made = {}
    for piece in pieces:
        step()
        made[piece.number] = _course(series, piece, minutes, based_on)
    return made


def no_course(number: int, why: str, based_on: tuple[str, ...]) -> Course:
    """In the place of the course of piece ``number``, with the reason ``why`` there is none."""
    change = Measurement(_name(number), None, "%", DEFINITION, SOURCE, missing_because=why, based_on=based_on)
    return Course((), (), change, Trend.OPEN)


class _Series:
    """The scans around the pieces, freed of their gain, (k, j, i) in units of usual tissue: ``native`` and ``scans``,
    the newest last and as sharp as the first, the others brought to it by ``moved`` (k, j, i) mm. ``quiet``: normal
    tissue.
    """

    def __init__(
        self, pieces: Sequence[Piece], native: Image, contrasts: Sequence[Image], step: Callable[[], None]
    ) -> None:
        """``step``: called before each of the ``contrasts``."""
        step()
        grid = contrasts[-1]
        self.spacing = np.asarray(grid.spacing_mm)[::-1]
        every: Mask = np.zeros(grid.array.shape, dtype=bool)
        for piece in pieces:
            every[piece.box_in(grid)] |= piece.label.array != 0
        self.box, self._grid = bounding_box(every, np.ceil(CONTEXT_MM / self.spacing).astype(int)), grid
        away = ~within_mm(every[self.box], AWAY_MM, self.spacing)
        without = on_grid(native, grid, self.box)
        raw = [on_grid(scan, grid, self.box) for scan in contrasts]
        last = subtraction(raw[-1], without, away, grid.ras_from_ijk)
        self.native = last.tissue
        tissue = away & (self.native > TISSUE_FRACTION)
        self.scans: list[Array] = []
        self.moved: list[Vector] = []
        for scan in raw[:-1]:
            step()
            as_it_lay = subtraction(scan, without, away, grid.ras_from_ijk).values + self.native
            moved = _motion(last.values + self.native, as_it_lay, tissue, self.spacing)
            # The gain is fitted anew: tissue that lies elsewhere had gone into it.
            there = subtraction(_shifted(scan, moved / self.spacing), without, away, grid.ras_from_ijk)
            self.scans.append(there.values + self.native)
            self.moved.append(moved)
        # What an interpolation takes from the first scan would look like a climb.
        self.scans.append(_blurred(last.values + self.native, self.moved[0] / self.spacing))
        ends = self.scans[0] - self.native, last.values
        smooth = [ndimage.gaussian_filter(values, AGENT_SMOOTH_VOXELS) for values in ends]
        # Of both, so that noise raises neither.
        both = (smooth[0] + smooth[1]) / 2.0
        level = AGENT_Z * robust_sigma(both[tissue])
        self.quiet = tissue & (np.abs(both) < level)
        # At an edge, a motion looks like a loss or a gain of agent.
        within = away & ndimage.binary_erosion(self.native > TISSUE_FRACTION, iterations=2)
        self._same_injection(smooth[0], smooth[1], within & (both > level), contrasts)

    @staticmethod
    def _same_injection(first: Array, last: Array, elsewhere: Mask, contrasts: Sequence[Image]) -> None:
        if elsewhere.sum() < LEAST_ELSEWHERE:
            raise AssessmentError(
                "too little enhances elsewhere to show whether agent was given again between the contrast scans"
            )
        before, now = float(first[elsewhere].mean()), float(last[elsewhere].mean())
        if now > (1.0 + GIVEN_AGAIN) * before:
            raise AssessmentError(
                f"vessels and dura around enhance {100 * (now / before - 1):.0f} % more in '{contrasts[-1].name}' than "
                f"in '{contrasts[0].name}': agent was given again, or was still arriving, and everything climbs"
            )

    def mask(self, piece: Piece) -> Mask:
        """The piece in the box of the series."""
        result = np.zeros(self.quiet.shape, dtype=bool)
        at = piece.box_in(self._grid)
        result[tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(at, self.box, strict=True))] = (
            piece.label.array != 0
        )
        return result


def _course(series: _Series, piece: Piece, minutes: tuple[float, ...], based_on: tuple[str, ...]) -> Course:
    mask = series.mask(piece)
    try:
        moved = [_moved_beside(series, mask, number) for number in range(len(minutes) - 1)]
        places = _places(series, mask)
    except AssessmentError as error:
        return no_course(piece.number, str(error), based_on)
    readings = [_Reading(series, mask, number, by, places) for number, by in enumerate((*moved, np.zeros(3)))]
    first, last = readings[0], readings[-1]
    value, off = last.enhancement - first.enhancement, last.apart_from(first)
    least = LEAST_CHANGE * max(abs(first.enhancement), abs(last.enhancement))
    at_each = "Mean enhancement (contrast minus native scan) within the outline of this piece, in % of usual tissue"
    return Course(
        minutes,
        tuple(
            Measurement(
                f"Piece {piece.number}: enhancement"
                + (f" {after:.0f} min after the first contrast scan" if after else ""),
                100.0 * each.enhancement,
                "%",
                at_each,
                interval=_around(each.enhancement, each.error),
                based_on=based_on,
            )
            for after, each in zip(minutes, readings, strict=True)
        ),
        Measurement(
            _name(piece.number),
            100.0 * value,
            "%",
            f"{DEFINITION}. Here the scans are {minutes[-1]:.0f} min apart",
            SOURCE,
            _around(value, off),
            based_on=based_on,
        ),
        _trend(value - off, value + off, least),
    )


class _Reading:
    """Scan ``number`` within the outline ``mask`` of a piece; ``moved`` (k, j, i), mm: how the tissue around the piece
    lies in it beside the newest one."""

    def __init__(self, series: _Series, mask: Mask, number: int, moved: Vector, places: npt.NDArray[np.intp]) -> None:
        self._series, self._mask, self._places = series, mask, places
        self._box = bounding_box(mask, 4)
        self._own, self._without = mask[self._box], series.native[self._box]
        self._scan = series.scans[number][self._box]
        self._whole = _shifted(series.scans[number], moved / series.spacing)
        self.enhancement = self._mean(moved)
        self._motion = 0.0
        if number < len(series.moved):
            off = MOTION_PART * float(np.linalg.norm(series.moved[number] + moved)) + LEAST_MOTION_MM
            steps = off * np.vstack([np.eye(3), -np.eye(3)])
            # A motion goes into the fit of the gain as well: what the quiet tissue beside the piece changed by.
            beside = within_mm(mask, AROUND_MM, series.spacing) & series.quiet
            left = abs(float(np.median((series.scans[-1] - self._whole)[beside]))) if beside.any() else 0.0
            self._motion = left + max(abs(self._mean(moved + step) - self.enhancement) for step in steps)
        noise = self._noise(self._whole - series.native)
        self.error = float(np.hypot(noise, self._motion))

    def apart_from(self, first: _Reading) -> float:
        """How far off the difference to the ``first`` scan may be, 95 %."""
        noise = self._noise(self._whole - first._whole)
        return float(np.sqrt(noise**2 + first._motion**2 + self._boundary(first) ** 2))

    def _mean(self, moved: Vector) -> float:
        values = _shifted(self._scan, moved / self._series.spacing) - self._without
        return float(values[self._own].mean())

    def _noise(self, values: Array) -> float:
        """95 % of the means of the same outline elsewhere are below this; gain errors grow with the signal."""
        means = np.abs([values.reshape(-1)[place[place >= 0]].mean() for place in self._places])
        brighter = max(1.0, float(self._series.native[self._mask].mean()) + self.enhancement)
        return brighter * float(np.percentile(means, 95.0))

    def _boundary(self, first: _Reading) -> float:
        """How much otherwise the core of the piece, and the piece with a voxel all round, change."""
        now, before = (each._whole[self._box] - self._without for each in (self, first))
        core = ndimage.binary_erosion(self._own)
        outlines = [ndimage.binary_dilation(self._own), *([core] if core.sum() >= LEAST_CORE else [])]
        part = (self.enhancement - first.enhancement) / self.enhancement
        apart = [1.0 - float(before[o].mean()) / float(now[o].mean()) - part for o in outlines if now[o].mean() > 0]
        return max(map(abs, apart), default=0.0) * self.enhancement


def _moved_beside(series: _Series, mask: Mask, number: int) -> Vector:
    """How the tissue around a piece lies in that scan of the series beside the newest one, (k, j, i) mm. Raises
    AssessmentError when it has moved too far to be compared.
    """
    box = bounding_box(mask, np.ceil(AROUND_MM / series.spacing).astype(int))
    around = within_mm(mask[box], AROUND_MM, series.spacing) & ~within_mm(mask[box], OWN_MM, series.spacing)
    moved = _motion(series.scans[-1][box], series.scans[number][box], around, series.spacing)
    if (far := float(np.linalg.norm(series.moved[number] + moved))) > MOST_MOVED_MM:
        raise AssessmentError(f"the tissue around it moved {far:.1f} mm between the contrast scans")
    return moved


def _motion(now: Array, then: Array, around: Mask, spacing: Vector) -> Vector:
    """How far what is ``around`` lies in ``then`` from where it lies ``now``, (k, j, i) mm: least squares of the
    difference over the gradient, without what changed by itself. Of some voxels it is only known to be as many."""
    now = ndimage.gaussian_filter(now, MOTION_SMOOTH_VOXELS)
    moved: Vector = np.zeros(3)
    for _ in range(MOTION_STEPS):
        before = ndimage.gaussian_filter(_shifted(then, moved / spacing), MOTION_SMOOTH_VOXELS)
        slopes = [slope[around] for slope in np.gradient((now + before) / 2.0, *spacing)]
        design = np.stack([*slopes, np.ones_like(slopes[0])], axis=1).astype(np.float64)
        data = (now - before)[around].astype(np.float64)
        kept = np.ones(data.size, dtype=bool)
        for _ in range(4):
            part = design[kept]
            fit = np.linalg.solve(part.T @ part, part.T @ data[kept])
            rest = data - design @ fit
            kept = np.abs(rest) < TRIM_SIGMA * max(robust_sigma(rest[kept]), 1e-9)
        moved = moved + fit[:3]
        if np.linalg.norm(fit[:3]) < MOTION_DONE_MM:
            break
    return moved


def _places(series: _Series, mask: Mask) -> npt.NDArray[np.intp]:
    """Flat indices (places, voxels) of the outline elsewhere in normal tissue, -1 for a voxel of it that is none.

    Raises AssessmentError when there are too few.
    """
    voxels = np.argwhere(mask)
    offsets = voxels - voxels.mean(axis=0).round().astype(int)
    centres = np.argwhere(series.quiet)
    centres = centres[:: max(1, len(centres) // PLACES)]
    shape = np.array(mask.shape)
    found = []
    for centre in centres:
        at = centre + offsets
        seen = ((at >= 0) & (at < shape)).all(axis=1)
        index = np.where(seen, np.ravel_multi_index(tuple(np.clip(at, 0, shape - 1).T), mask.shape), 0)
        index = np.where(seen & series.quiet.reshape(-1)[index], index, -1)
        if (index >= 0).mean() >= IN_TISSUE:
            found.append(index)
    if len(found) < LEAST_PLACES:
        raise AssessmentError("too little normal tissue lies around it to know its noise")
    return np.array(found)


def _shifted(values: Array, voxels: Vector) -> Array:
    """``values`` at places that far away."""
    if not voxels.any():
        return values
    return np.asarray(ndimage.shift(values, -voxels, order=3, mode="nearest"), dtype=np.float32)


def _name(number: int) -> str:
    return f"Piece {number}: change of enhancement"


def _blurred(values: Array, voxels: Vector) -> Array:
    """``values`` where they are, as :func:`_shifted` by so much blurs: half of what there and back does."""
    return (values + _shifted(_shifted(values, voxels), -voxels)) / np.float32(2.0)


def _trend(low: float, high: float, least: float) -> Trend:
    if low > least:
        return Trend.CLIMBS
    if high < -least:
        return Trend.FALLS
    return Trend.STAYS if -least <= low and high <= least else Trend.OPEN


def _around(value: float, error: float) -> tuple[float, float]:
    return 100.0 * (value - error), 100.0 * (value + error)


def _minutes(contrasts: Sequence[Image]) -> tuple[float, ...]:
    """Of each scan since the first. Raises AssessmentError when they are not known to be a series."""
    times = []
    for scan in contrasts:
        if scan.acquired_utc_s is None:
            raise AssessmentError(f"it is not known when '{scan.name}' was taken: give its time")
        times.append(scan.acquired_utc_s)
    for (one, first), (two, second) in pairwise(zip(contrasts, times, strict=True)):
        if second <= first:
            raise AssessmentError(f"'{two.name}' was not taken after '{one.name}': choose them in that order")
    if times[-1] - times[0] > LONGEST_S:
        apart = (times[-1] - times[0]) / 60.0
        raise AssessmentError(f"'{contrasts[0].name}' and '{contrasts[-1].name}' were taken {apart:.0f} min apart")
    return tuple((each - times[0]) / 60.0 for each in times)
