"""Numbers of an ablation from its temperature and dose: peak, dose, volume above the lethal dose, structures at risk.

Each has its definition, its interval and its source, and none is given where what it rests on does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..data import Image, Matrix, Measurement
from ..errors import ReconstructionError
from ..geometry import apply, invert
from .thermometry import LETHAL_CEM43_MIN, MEDIAN_TO_SIGMA, MOST_NOISE_C, MOVED_SHARE, SIGMAS, Heat, Mask

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


@dataclass(frozen=True, eq=False)
class Marked:
    """Where the heat is: masks (z, y, x) of the mark and of what lies beside it."""

    inside: Mask
    beside: Mask


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

    def untimed(self) -> HeatNumbers:
        """The same without doses, where the scan does not say how long a frame takes."""
        why = "the scan does not say how long a frame takes"
        dose, volume = (
            m if m.value is None else replace(m, value=None, interval=None, missing_because=why)
            for m in (self.dose, self.volume)
        )
        return replace(self, dose=dose, volume=volume, lethal=None)

    def without(self, why: str) -> HeatNumbers:
        """The same without values."""
        peak, dose, volume = (replace(m, value=None, interval=None, missing_because=why) for m in self.measurements)
        return HeatNumbers(peak, dose, volume, missing_because=why)


def marked(ras_from_ijk: Matrix, shape: tuple[int, int, int], spot_ras_mm: npt.ArrayLike, radius_mm: float) -> Marked:
    """The sphere of a mark on a grid (z, y, x). Raises ReconstructionError when it holds nothing or all of it."""
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
    return Marked(inside, np.asarray((away > radius_mm) & (away <= BESIDE * radius_mm)))


def heat_numbers(
    heat: Heat, tissue: Mask, mark: Marked | None, image: Image, baseline_c: float, moved_in: int | None = None
) -> HeatNumbers:
    """Numbers of the newest frame. ``image``: its map, for the grid and the uid. ``tissue``: with signal in the
    reference. ``moved_in``: frame from which on something has moved, None when nothing has."""
    empty, why = _named(baseline_c, image), why_missing(heat, tissue, mark, moved_in)
    if why:
        return empty.without(why)
    assert mark is not None
    assert heat.deviation_c is not None
    assert heat.dose_range_min is not None
    known, held = np.isfinite(heat.temperature_c) & mark.inside, mark.inside & tissue
    lost = heat.lost & held
    beside_c, notes = _beside(heat, mark, baseline_c), []
    if beside_c > BESIDE_C:
        notes.append(f"tissue beside the mark is {beside_c:.1f} °C warmer: make the radius larger")
    if lost.any():
        notes.append(f"{int(lost.sum())} voxels of the mark have lost their signal")
    peak = peak_of(heat, mark, baseline_c)
    assert peak is not None
    low, high = heat.dose_range_min
    where = np.unravel_index(int(np.argmax(np.where(known, heat.dose_min, -np.inf))), known.shape)
    voxel = image.voxel_volume_ml / FINER**2
    cores = [_above(dose, mark.inside) for dose in (heat.dose_min, low, high)]
    volumes = [float(core.sum()) * voxel for core in cores]
    unseen = float(lost.sum()) * image.voxel_volume_ml
    return HeatNumbers(
        _valued(empty.peak, *peak),
        _valued(empty.dose, float(heat.dose_min[where]), float(low[where]), float(high[where])),
        _valued(empty.volume, volumes[0], volumes[1], volumes[2] + unseen),
        _finer(cores[0], image) if cores[0].any() else None,
        tuple(notes),
    )


def why_missing(heat: Heat, tissue: Mask, mark: Marked | None, moved_in: int | None) -> str:
    """Why a frame has no numbers; "" when it has. Arguments as in :func:`heat_numbers`."""
    if mark is None or heat.deviation_c is None:
        return "drift not corrected: mark the heated spot"
    if moved_in is not None:
        return f"something moved in frame {moved_in}: take a new reference when the tissue has cooled"
    known, held = np.isfinite(heat.temperature_c) & mark.inside, mark.inside & tissue
    if held.sum() < LEAST_SEEN * mark.inside.sum():
        return "no signal in most of the mark (metal, gas, ice or bone): move the mark"
    lost = heat.lost & held
    if lost.sum() > MOST_LOST * held.sum():
        share = 100 * lost.sum() / held.sum()
        return f"signal lost in {share:.0f} % of the mark (gas, ice, metal or a wrapped phase), maybe the hottest part"
    if known.sum() < LEAST_SEEN * held.sum():
        return f"too noisy: most of the mark is uncertain by more than {MOST_NOISE_C:g} °C"
    return ""


def peak_of(heat: Heat, mark: Marked, baseline_c: float) -> tuple[float, float, float] | None:
    """Temperature at the hottest place within the mark, and its interval, C; None where none is known.

    The place is the middle of the hottest 3 x 3 voxels: the hottest of hundreds would be that with most noise.
    """
    known = np.isfinite(heat.temperature_c) & mark.inside
    if heat.deviation_c is None or not known.any():
        return None
    at, _mean = _hottest(heat.temperature_c - baseline_c, known, 0.5)
    hottest = float(heat.temperature_c[at])
    margin = SIGMAS * float(heat.deviation_c[at]) + abs(_beside(heat, mark, baseline_c))
    return hottest, hottest - margin, hottest + margin


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
    return (
        _valued(temperature, value, value - margin, value + margin),
        _valued(dose, float(heat.dose_min[most]), float(low[most]), float(high[most])),
        "" if whole >= 99 else f"{whole} % of {name} are in the slices of the scan",
    )


def hottest_place(heat: Heat, image: Image) -> npt.NDArray[np.float64] | None:
    """Where the map stands out most, (3,) RAS mm, as the mean of 3 x 3 voxels; None when no place does.

    Needs no mark: what all tissue has in common, as a drift, does not count.
    """
    known = np.isfinite(heat.temperature_c)
    if not known.any():
        return None
    rise = heat.temperature_c - np.nanmedian(heat.temperature_c)
    noise = MEDIAN_TO_SIGMA * float(np.nanmedian(np.abs(rise)))
    at, mean = _hottest(rise, known, 0.99)
    if mean < max(STANDS_OUT_C, STANDS_OUT_SIGMAS * noise / 3):
        return None
    return apply(image.ras_from_ijk, np.array(at[::-1], np.float64))


def _hottest(rise_c: npt.NDArray[np.floating], known: Mask, share: float) -> tuple[tuple[int, int, int], float]:
    """Index (z, y, x) of the known voxel whose 3 x 3 voxels in the plane are hottest, and their mean (C).

    At least this ``share`` of the nine must be known, where there is such a place.
    """
    count = ndimage.uniform_filter(known.astype(np.float64), (1, 3, 3), mode="constant")
    mean = ndimage.uniform_filter(np.where(known, rise_c, 0.0).astype(np.float64), (1, 3, 3), mode="constant")
    # A voxel on its own at an edge is more noise than most.
    enough = known & (count > share)
    chosen = enough if enough.any() else known
    mean = np.where(chosen, mean / np.maximum(count, 1e-9), -np.inf)
    z, y, x = np.unravel_index(int(np.argmax(mean)), mean.shape)
    return (int(z), int(y), int(x)), float(mean[z, y, x])


def _named(baseline_c: float, image: Image) -> HeatNumbers:
    """What the numbers are; no values yet."""
    none, based = "not measured", (image.uid,)
    size = " x ".join(f"{side:.1f}" for side in image.spacing_mm)
    return HeatNumbers(
        Measurement(
            "Peak temperature", None, "°C",
            f"voxel ({size} mm) in the middle of the hottest 3 x 3 within the mark, from a baseline taken as "
            f"{baseline_c:g} °C; interval (95 %): noise of the phase in unheated tissue by the brightness of the "
            "voxel, plus what the drift correction leaves beside the mark", PRF, missing_because=none, based_on=based,
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


def _above(dose_min: npt.NDArray[np.float32], inside: Mask) -> Mask:
    """Where the dose within a mark is lethal, (z, FINER y, FINER x). Between voxels its logarithm, which follows the
    temperature, is interpolated."""
    logarithm = np.log2(np.maximum(np.where(inside, dose_min, 0.0), 2.0**-20))
    result = np.zeros((inside.shape[0], *(FINER * size for size in inside.shape[1:])), dtype=bool)
    # A seed of one voxel may reach up to its neighbours, no further.
    at = np.argwhere(logarithm >= np.log2(LETHAL_CEM43_MIN))
    if not len(at):
        return result
    low, high = np.maximum(at.min(axis=0) - 1, 0), np.minimum(at.max(axis=0) + 2, inside.shape)
    (z0, y0, x0), (z1, y1, x1) = low.tolist(), high.tolist()
    y, x = ((np.arange(FINER * (b - a)) + 0.5) / FINER - 0.5 for a, b in ((y0, y1), (x0, x1)))
    for z in range(z0, z1):
        plane = ndimage.map_coordinates(
            logarithm[z, y0:y1, x0:x1], np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest"
        )
        result[z, FINER * y0 : FINER * y1, FINER * x0 : FINER * x1] = plane >= np.log2(LETHAL_CEM43_MIN)
    return result


def _finer(label: Mask, image: Image) -> Image:
    shift = np.eye(4)
    shift[:2, 3] = (1 - FINER) / (2 * FINER)
    grid = image.ras_from_ijk @ shift @ np.diag([1 / FINER, 1 / FINER, 1.0, 1.0])
    name = f"above {LETHAL_CEM43_MIN:g} CEM43"
    return Image(label.astype(np.uint8), grid, name, image.acquired_utc_s, image.patient_id)


def has_moved(heat: Heat) -> bool:
    """Whether the tissue of a frame is not where it was in the reference."""
    return heat.moved > MOVED_SHARE


def told(measurement: Measurement) -> str:
    """Value and interval with their unit, in one line."""
    value, bounds = measurement.value, measurement.interval
    assert value is not None
    between = "" if bounds is None else f" ({bounds[0]:.3g} to {bounds[1]:.3g})"
    return f"{value:.3g}{between} {measurement.unit}"
