"""Numbers of an ablation from its temperature and dose: peak, dose, volume above the lethal dose, structures at risk.

Each has its definition, its interval and its source, and none is given where what it rests on does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..data import Image, Matrix, Measurement
from ..errors import ReconstructionError
from ..geometry import apply, invert
from .thermometry import LETHAL_CEM43_MIN, MOST_NOISE_C, SIGMAS, Heat, Mask, coldest, cooling_from
from .unheated import MEDIAN_TO_SIGMA

PRF = "Ishihara 1995; Rieke and Butts Pauly 2008"
CEM43 = "Sapareto and Dewey 1984"
#: Temperature from which a structure at risk is in danger, C: the break point of the thermal dose, above which each
#: degree halves the time until tissue dies (Sapareto and Dewey 1984).
RISK_ALARM_C = 43.0
#: The mark must hold this share of tissue whose temperature is known, or its hottest place may be elsewhere.
LEAST_SEEN = 0.5
#: More than this share of the mark's tissue lost since the reference may have been its hottest part.
MOST_LOST = 0.05
#: Tissue from the mark's radius to this many times of it is beside the mark.
BESIDE = 1.5
#: Tissue beside the mark that is so much warmer than the reference, C, says that heat reaches beyond the mark.
BESIDE_C = 2.0
#: Points along each side of a voxel in the plane between which the edge of the lethal dose is drawn and counted.
FINER = 4
#: The hottest place stands out from the rest of the map by at least this, C, and by so many standard deviations of it.
STANDS_OUT_C, STANDS_OUT_SIGMAS = 3.0, 6.0
#: Frames that are missing at a stretch for longer than this, s, may have held a heating of their own: focused
#: ultrasound heats and lets cool in 10 to 20 s. The dose is then not known any more.
LONGEST_UNSEEN_S = 10.0
#: Something moved when unheated tissue lies this far from where the reference saw it, in voxels, and certainly so by
#: its noise; or when this share of its brightness changed beyond that.
MOVED_VOXELS, MOVED_SIGMAS, MOVED_SHARE = 0.25, 5.0, 0.1
#: What is told in the place of the highest value of a mark beside whose hottest place signal was lost.
HIDDEN = "signal was lost beside the hottest place (gas, ice or a wrapped phase), which may be hotter"
#: What the value in the middle of 3 x 3 voxels has of each by the parabola that fits them best (Savitzky and Golay,
#: Anal Chem 36:1627, 1964): of their noise it keeps 0.75, and a round top stays as high as it is.
PARABOLA = np.array([[-1, 2, -1], [2, 5, 2], [-1, 2, -1]]) / 9
#: A voxel holds the mean over the thickness of its slice. That of a parabola falls short of its middle by this part of
#: the second difference between slices, which here are as thick as they are far apart.
SLICE_MEAN = 1 / 24


@dataclass(frozen=True, eq=False)
class Marked:
    """Where the heat is: masks (z, y, x) of the mark and of what lies beside it. ``thickness``: of what a voxel is the
    mean of along z, by the distance of voxels; 0 when a voxel shows its middle."""

    inside: Mask
    beside: Mask
    thickness: float = 0.0

    @cached_property
    def box(self) -> tuple[slice, ...]:
        """What holds both, and a voxel more."""
        either = self.inside | self.beside
        seen = [np.flatnonzero(either.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        return tuple(slice(max(0, int(at[0]) - 1), int(at[-1]) + 2) for at in seen)

    @cached_property
    def cropped(self) -> Marked:
        """The same within its box."""
        return Marked(self.inside[self.box], self.beside[self.box], self.thickness)


@dataclass(frozen=True, eq=False)
class HeatNumbers:
    """Of one frame. ``lethal``: label of what has reached the lethal dose, on a finer grid in the plane of the slices,
    None where nothing has or nobody knows. ``notes``: what a person must know beside the numbers. ``missing_because``:
    why there are no numbers, "" when there are."""

    peak: Measurement
    dose: Measurement
    volume: Measurement
    lethal: Image | None = None
    notes: tuple[str, ...] = ()
    missing_because: str = ""

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Peak temperature, highest dose, volume above the lethal dose."""
        return self.peak, self.dose, self.volume

    def without_dose(self, why: str) -> HeatNumbers:
        """The same without doses."""
        dose, volume = (
            m if m.value is None else replace(m, value=None, interval=None, missing_because=why)
            for m in (self.dose, self.volume)
        )
        return replace(self, dose=dose, volume=volume, lethal=None)

    def without(self, why: str) -> HeatNumbers:
        """The same without values."""
        peak, dose, volume = (replace(m, value=None, interval=None, missing_because=why) for m in self.measurements)
        return HeatNumbers(peak, dose, volume, missing_because=why)


def marked(
    ras_from_ijk: Matrix,
    shape: tuple[int, int, int],
    spot_ras_mm: npt.ArrayLike,
    radius_mm: float,
    thickness: float = 0.0,
) -> Marked:
    """The sphere of a mark on a grid (z, y, x); ``thickness`` as in :class:`Marked`. Raises ReconstructionError when it
    holds nothing or all of it."""
    if not radius_mm > 0:
        raise ReconstructionError(f"the heated region needs a radius above 0 mm, got {radius_mm}")
    k, j, i = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    away = np.linalg.norm(apply(ras_from_ijk, np.stack([i, j, k], axis=-1)) - np.asarray(spot_ras_mm), axis=-1)
    inside = np.asarray(away <= radius_mm)
    if not inside.any() or inside.all():
        raise ReconstructionError(
            f"a region of {radius_mm:g} mm about {spot_ras_mm!r} holds "
            f"{'nothing' if not inside.any() else 'all'} of the scan: move the mark or change the radius"
        )
    return Marked(inside, np.asarray((away > radius_mm) & (away <= BESIDE * radius_mm)), thickness)


def heat_numbers(
    heat: Heat, tissue: Mask, mark: Marked | None, image: Image, baseline_c: float, moved_in: int | None = None
) -> HeatNumbers:
    """Numbers of the newest frame. ``image``: its map, for the grid and the uid. ``tissue``: with signal in the
    reference. ``moved_in``: frame from which on something has moved, None when nothing has."""
    empty, why = _named(baseline_c, image), why_missing(heat, tissue, mark, baseline_c, moved_in)
    if why:
        return empty.without(why)
    assert mark is not None
    assert heat.deviation_c is not None
    assert heat.dose_range_min is not None
    part, around = heat.within(mark.box), mark.cropped
    known, held = np.isfinite(part.temperature_c) & around.inside, around.inside & tissue[mark.box]
    lost = part.lost & held
    beside_c, notes = _beside(part, around, baseline_c), []
    if beside_c > BESIDE_C:
        notes.append(f"tissue beside the mark is {beside_c:.1f} °C warmer: make the radius larger")
    if lost.any():
        notes.append(f"{int(lost.sum())} voxels of the mark have lost their signal")
    if (hidden := MOVED_SIGMAS * heat.stillness.blur) > MOVED_VOXELS:
        notes.append(f"noise hides motion of less than {hidden:.1f} voxels")
    if heat.unseen_s > 0:
        notes.append(f"frames of {heat.unseen_s:.3g} s did not come: the dose of that time is between its neighbours'")
    peak = peak_of(heat, mark, baseline_c)
    assert part.dose_range_min is not None
    low, high = part.dose_range_min
    where = np.unravel_index(int(np.argmax(np.where(known, part.dose_min, -np.inf))), known.shape)
    voxel = image.voxel_volume_ml / FINER**2
    cores = [_above(dose, around.inside) for dose in (part.dose_min, low, high)]
    volumes = [0.0 if core is None else float(core.sum()) * voxel for core in cores]
    unseen = float(lost.sum()) * image.voxel_volume_ml
    found = HeatNumbers(
        replace(empty.peak, missing_because=HIDDEN) if peak is None else _valued(empty.peak, *peak),
        replace(empty.dose, missing_because=HIDDEN)
        if _hidden(part.hidden, where)
        else _valued(empty.dose, float(part.dose_min[where]), float(low[where]), float(high[where])),
        _valued(empty.volume, volumes[0], volumes[1], volumes[2] + unseen),
        None if cores[0] is None else _finer(cores[0], mark.box, image),
        tuple(notes),
    )
    why = too_long_unseen(heat)
    return found.without_dose(why) if why else found


def too_long_unseen(heat: Heat) -> str:
    """Why missing frames leave no dose; "" when there is one."""
    if heat.longest_unseen_s <= LONGEST_UNSEEN_S:
        return ""
    return f"frames of {heat.longest_unseen_s:.3g} s at a stretch did not come: how hot it was then is not known"


def why_missing(heat: Heat, tissue: Mask, mark: Marked | None, baseline_c: float, moved_in: int | None) -> str:
    """Why a frame has no numbers; "" when it has. Arguments as in :func:`heat_numbers`."""
    if mark is None or heat.deviation_c is None:
        return "drift not corrected: mark the heated spot"
    if moved_in is not None:
        return f"something moved in frame {moved_in}: take a new reference when the tissue has cooled"
    part, inside = heat.within(mark.box), mark.cropped.inside
    known, held = np.isfinite(part.temperature_c) & inside, inside & tissue[mark.box]
    if held.sum() < LEAST_SEEN * inside.sum():
        return "no signal in most of the mark (metal, gas, ice or bone): move the mark"
    lost = part.lost & held
    if lost.sum() > MOST_LOST * held.sum():
        share = 100 * lost.sum() / held.sum()
        return f"signal lost in {share:.0f} % of the mark (gas, ice, metal or a wrapped phase), maybe the hottest part"
    if known.sum() < LEAST_SEEN * held.sum():
        return f"too noisy: most of the mark is uncertain by more than {MOST_NOISE_C:g} °C"
    change = np.where(known, part.temperature_c - np.float32(baseline_c), np.nan)
    cold = coldest(change, cooling_from(change, heat.noise_c))
    if cold is not None and -cold > np.nanmax(change):
        return (
            f"the mark cools by up to {-cold:.1f} °C: it is frozen, or the phase of this scanner runs the other way "
            '(its header must then say "phase_sign": "-1")'
        )
    return ""


def peak_of(heat: Heat, mark: Marked, baseline_c: float) -> tuple[float, float, float] | None:
    """Temperature at the hottest place within the mark, and its interval, C; None where none is known, and where signal
    was lost beside it.

    The place is the middle of the hottest 3 x 3 voxels: the hottest of hundreds would be that with most noise. Its
    value is that of the parabola through them, and what the mean over the slice takes away is put back.
    """
    part, around = heat.within(mark.box), mark.cropped
    known = np.isfinite(part.temperature_c) & around.inside
    if part.deviation_c is None or not known.any():
        return None
    z, y, x = _hottest(part.temperature_c - np.float32(baseline_c), known, 0.5)[0]
    if _hidden(part.hidden, (z, y, x)):
        return None
    hottest, variance = _top(part, z, y, x) or (
        float(part.temperature_c[z, y, x]),
        float(part.deviation_c[z, y, x]) ** 2,
    )
    if mark.thickness > 0 and 0 < z < len(known) - 1:
        above, below = _top(part, z + 1, y, x), _top(part, z - 1, y, x)
        if above is not None and below is not None:
            share = SLICE_MEAN * mark.thickness**2
            hottest += share * (2 * hottest - above[0] - below[0])
            variance = (1 + 2 * share) ** 2 * variance + share**2 * (above[1] + below[1])
    margin = SIGMAS * float(np.sqrt(variance)) + abs(_beside(part, around, baseline_c))
    return hottest, hottest - margin, hottest + margin


def _hidden(hidden: Mask, at: tuple[Any, ...]) -> bool:
    """Whether what lost its signal adjoins the hottest 3 x 3 voxels: it may have been hotter."""
    z, y, x = (int(index) for index in at)
    return bool(hidden[max(0, z - 1) : z + 2, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].any())


def _top(heat: Heat, z: int, y: int, x: int) -> tuple[float, float] | None:
    """Temperature (C) in the middle of 3 x 3 voxels by their parabola, and its variance; None unless all are known."""
    near = z, slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
    assert heat.deviation_c is not None
    values, deviations = heat.temperature_c[near], heat.deviation_c[near]
    if values.shape != PARABOLA.shape or not np.isfinite(values).all():
        return None
    return float((PARABOLA * values).sum()), float(((PARABOLA * deviations) ** 2).sum())


def in_structure(
    heat: Heat, image: Image, name: str, labels: tuple[Image, ...], within_mm: float
) -> tuple[Measurement, Measurement, str]:
    """Highest temperature and dose of a structure at risk, and what a person must know beside them.

    ``labels``: where it may be, in the frame of ``image`` (not 0 is part of it). ``within_mm``: how far it may be from
    there, by the registration.
    """
    where = f"within {within_mm:.1f} mm (error of the registration) of where the plan is carried to"
    temperature = Measurement(
        f"{name}: highest temperature", None, "°C", f"hottest voxel {where}; interval: noise of the phase", PRF,
        missing_because="not in the slices of the scan", based_on=(image.uid,),
    )  # fmt: skip
    dose = replace(
        temperature, name=f"{name}: highest dose (CEM43)", unit="min",
        definition=f"equivalent minutes at 43 °C, highest {where}; interval: every frame colder or warmer by its noise",
        source=CEM43,
    )  # fmt: skip
    part, whole = np.zeros(image.array.shape, dtype=bool), 0
    for label in labels:
        ijk = np.argwhere(label.array != 0)[:, ::-1].astype(np.float64)
        found = np.rint(apply(invert(image.ras_from_ijk) @ label.ras_from_ijk, ijk)).astype(int)[:, ::-1]
        inside = ((found >= 0) & (found < part.shape)).all(axis=1)
        part[tuple(found[inside].T)] = True
        whole = max(whole, int(inside.sum() * 100 / max(1, len(found))))
    if not part.any():
        return temperature, dose, f"{name} is not in the slices of the scan"
    if within_mm > 0:
        part |= ndimage.distance_transform_edt(~part, sampling=image.spacing_mm[::-1]) <= within_mm
    known = part & np.isfinite(heat.temperature_c)
    if not known.any() or heat.deviation_c is None or heat.dose_range_min is None:
        why = "no signal there" if heat.deviation_c is not None else "drift not corrected: mark the heated spot"
        return replace(temperature, missing_because=why), replace(dose, missing_because=why), f"{name}: {why}"
    at = np.unravel_index(int(np.argmax(np.where(known, heat.temperature_c, -np.inf))), known.shape)
    most = np.unravel_index(int(np.argmax(np.where(known, heat.dose_min, -np.inf))), known.shape)
    value, margin = float(heat.temperature_c[at]), SIGMAS * float(heat.deviation_c[at])
    low, high = heat.dose_range_min
    notes = [f"{whole} % of {name} are in the slices of the scan"] if whole < 99 else []
    if gone := int((part & heat.lost).sum()):
        notes.append(f"{gone} voxels of {name} have lost their signal and may be hotter")
    return (
        _valued(temperature, value, value - margin, value + margin),
        _valued(dose, float(heat.dose_min[most]), float(low[most]), float(high[most])),
        "; ".join(notes),
    )


def hottest_place(heat: Heat, image: Image) -> npt.NDArray[np.float64] | None:
    """Where the map stands out most, (3,) RAS mm, as the mean of 3 x 3 voxels; None when no place does.

    Needs no mark: what all tissue has in common, as a drift, does not count.
    """
    known = np.isfinite(heat.temperature_c)
    if not known.any():
        return None
    values = heat.temperature_c[known]
    middle = np.median(values)
    rise = heat.temperature_c - middle
    noise = MEDIAN_TO_SIGMA * float(np.median(np.abs(values - middle)))
    at, mean = _hottest(rise, known, 0.99)
    if mean < max(STANDS_OUT_C, STANDS_OUT_SIGMAS * noise / 3):
        return None
    return apply(image.ras_from_ijk, np.array(at[::-1], np.float64))


def _hottest(rise_c: npt.NDArray[np.floating], known: Mask, share: float) -> tuple[tuple[int, int, int], float]:
    """Index (z, y, x) of the known voxel whose 3 x 3 voxels in the plane are hottest, and their mean (C).

    At least this ``share`` of the nine must be known, where there is such a place.
    """
    count = _nine(known.astype(np.float32))
    mean = _nine(np.where(known, rise_c, 0.0).astype(np.float32))
    # A voxel on its own at an edge is more noise than most.
    enough = known & (count > 9 * share)
    chosen = enough if enough.any() else known
    mean = np.where(chosen, mean / np.maximum(count, 1.0), -np.inf)
    z, y, x = np.unravel_index(int(np.argmax(mean)), mean.shape)
    return (int(z), int(y), int(x)), float(mean[z, y, x])


def _nine(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Sum of 3 x 3 voxels of each slice (z, y, x)."""
    rows = values.copy()
    rows[:, 1:] += values[:, :-1]
    rows[:, :-1] += values[:, 1:]
    result = rows.copy()
    result[:, :, 1:] += rows[:, :, :-1]
    result[:, :, :-1] += rows[:, :, 1:]
    return result


def _named(baseline_c: float, image: Image) -> HeatNumbers:
    """What the numbers are; no values yet."""
    none, based = "not measured", (image.uid,)
    size = " x ".join(f"{side:.1f}" for side in image.spacing_mm)
    return HeatNumbers(
        Measurement(
            "Peak temperature", None, "°C",
            f"middle of the hottest 3 x 3 voxels ({size} mm) within the mark, by their parabola, from a baseline of "
            f"{baseline_c:g} °C; interval (95 %): noise of the phase in unheated tissue by the brightness of the "
            "voxels, plus what the drift correction leaves beside the mark", PRF, missing_because=none, based_on=based,
        ),
        Measurement(
            "Highest dose (CEM43)", None, "min",
            "equivalent minutes at 43 °C since the reference in the voxel of the mark with the highest dose; interval: "
            "every frame colder or warmer by its noise (95 %)", CEM43, missing_because=none, based_on=based,
        ),
        Measurement(
            f"Volume above {LETHAL_CEM43_MIN:g} CEM43", None, "cm3",
            f"tissue within the mark and the slices of the scan with a dose of at least {LETHAL_CEM43_MIN:g} min at "
            "43 °C, its edge interpolated between voxels; interval: every frame colder or warmer by its noise (95 %), "
            "and tissue whose signal was lost", CEM43, missing_because=none, based_on=based,
        ),
    )  # fmt: skip


def _valued(measurement: Measurement, value: float, low: float, high: float) -> Measurement:
    return replace(measurement, value=value, interval=(low, high), missing_because="")


def _beside(heat: Heat, mark: Marked, baseline_c: float) -> float:
    """Mean rise (C) of tissue beside the mark, each voxel weighted by its noise; 0 where there is none."""
    assert heat.deviation_c is not None
    known = mark.beside & np.isfinite(heat.temperature_c)
    if not known.any():
        return 0.0
    weight = 1 / np.maximum(heat.deviation_c[known].astype(np.float64), 1e-3) ** 2
    return float(np.sum(weight * (heat.temperature_c[known] - baseline_c)) / weight.sum())


def _above(dose_min: npt.NDArray[np.float32], inside: Mask) -> Mask | None:
    """Where the dose within a mark is lethal, (z, FINER y, FINER x), None where nowhere. Between voxels its logarithm,
    which follows the temperature, is interpolated."""
    # A seed of one voxel may reach up to its neighbours, no further.
    at = np.argwhere(inside & (dose_min >= LETHAL_CEM43_MIN))
    if not len(at):
        return None
    result = np.zeros((inside.shape[0], *(FINER * size for size in inside.shape[1:])), dtype=bool)
    low, high = np.maximum(at.min(axis=0) - 1, 0), np.minimum(at.max(axis=0) + 2, inside.shape)
    (z0, y0, x0), (z1, y1, x1) = low.tolist(), high.tolist()
    box = slice(z0, z1), slice(y0, y1), slice(x0, x1)
    logarithm = np.log2(np.maximum(np.where(inside[box], dose_min[box], 0.0), 2.0**-20))
    finer = _between(y1 - y0) @ logarithm @ _between(x1 - x0).T
    result[z0:z1, FINER * y0 : FINER * y1, FINER * x0 : FINER * x1] = finer >= np.log2(LETHAL_CEM43_MIN)
    return result


@lru_cache(maxsize=64)
def _between(count: int) -> npt.NDArray[np.float64]:
    """What ``FINER`` points for each of ``count`` voxels in a row have of these by linear interpolation, (points,
    count); beyond the last middle as there."""
    at = np.clip((np.arange(FINER * count) + 0.5) / FINER - 0.5, 0, count - 1)
    return np.asarray(np.maximum(0.0, 1 - np.abs(at[:, None] - np.arange(count))))


def _finer(label: Mask, box: tuple[slice, ...], image: Image) -> Image:
    """The label of a box of an image, on the finer grid of all of it."""
    z, y, x = image.array.shape
    whole = np.zeros((z, FINER * y, FINER * x), np.uint8)
    rows, columns = (
        slice(FINER * part.start, FINER * part.start + size)
        for part, size in zip(box[1:], label.shape[1:], strict=True)
    )
    whole[box[0], rows, columns] = label
    shift = np.eye(4)
    shift[:2, 3] = (1 - FINER) / (2 * FINER)
    grid = image.ras_from_ijk @ shift @ np.diag([1 / FINER, 1 / FINER, 1.0, 1.0])
    name = f"above {LETHAL_CEM43_MIN:g} CEM43"
    return Image(whole, grid, name, image.acquired_utc_s, image.patient_id)


def has_moved(heat: Heat) -> bool:
    """Whether the tissue of a frame is not where it was in the reference."""
    still = heat.stillness
    return (still.shift > MOVED_VOXELS and still.sigmas > MOVED_SIGMAS) or still.changed > MOVED_SHARE


def told(measurement: Measurement) -> str:
    """Value and interval with their unit, in one line."""
    value, bounds = measurement.value, measurement.interval
    assert value is not None
    between = "" if bounds is None else f" ({bounds[0]:.3g} to {bounds[1]:.3g})"
    return f"{value:.3g}{between} {measurement.unit}"
