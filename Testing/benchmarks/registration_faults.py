"""Pairs that go wrong on purpose, each with its truth: what a verdict must give away.

Every fault takes a sound pair and gives back (pair, pose to start from). Points that the faulty image no longer shows
are dropped; where nothing true is left (another patient) the errors still are what a surgeon would be off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import IntraopError
from IntraopMRIReconstructionLib.geometry import apply, invert, rotation_about
from IntraopMRIReconstructionLib.simulate.fields import random_field
from scipy import ndimage
from scipy.spatial import cKDTree

from .registration_cases import Pair, Points, make_pair, run

Pose = npt.NDArray[np.float64]
Fault = Callable[[Pair], tuple[Pair, Pose]]


def _seen(pair: Pair, shown: npt.NDArray[np.bool_]) -> Pair:
    return replace(pair, points=pair.points[shown], true_preop=pair.true_preop[shown], near=pair.near[shown])


def _with_fixed(pair: Pair, change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> Pair:
    return replace(pair, fixed=pair.fixed.with_array(change(pair.fixed.array.astype(np.float32)).astype(np.float32)))


def _about_brain(pair: Pair, turn: npt.NDArray[np.float64], shift_mm: tuple[float, float, float]) -> Pose:
    """The true pose, then a turn about the brain's middle and a shift, intraoperative RAS."""
    centre, matrix = pair.points.mean(axis=0), np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = centre - turn @ centre + np.array(shift_mm)
    return matrix @ pair.intraop_from_preop


def _shifted(shift_mm: tuple[float, float, float], degrees: float = 0.0) -> Fault:
    return lambda pair: (pair, _about_brain(pair, rotation_about((0.3, 0.4, 1.0), degrees), shift_mm))


def _preop_slab(part: float, upper: bool) -> Fault:
    """Only the upper or lower ``part`` of the preoperative brain was scanned."""

    def make(pair: Pair) -> tuple[Pair, Pose]:
        rows = np.flatnonzero(pair.moving_mask.array.any(axis=(1, 2)))
        low, high = int(rows[0]), int(rows[-1]) + 1
        cut = high - round(part * (high - low)) if upper else low + round(part * (high - low))
        rest = slice(cut, None) if upper else slice(0, cut)
        matrix = pair.moving.ras_from_ijk.copy()
        matrix[:3, 3] = apply(matrix, [0.0, 0.0, float(rest.start or 0)])
        images: dict[str, Any] = {
            n: Image(getattr(pair, n).array[rest].copy(), matrix) for n in ("moving", "moving_mask")
        }
        return replace(pair, **images), pair.intraop_from_preop

    return make


def _intraop_slab(pair: Pair) -> tuple[Pair, Pose]:
    """The intraoperative scan covers the half of the brain with the cavity's centre only."""
    middle = np.argwhere(pair.cavity.array)[:, 0].mean()
    rows = np.flatnonzero(pair.fixed_mask.array.any(axis=(1, 2)))
    half = (rows[-1] - rows[0]) // 4
    start = int(np.clip(middle - half, 0, None))
    rest = slice(start, int(middle + half))
    matrix = pair.fixed.ras_from_ijk.copy()
    matrix[:3, 3] = apply(matrix, [0.0, 0.0, float(start)])
    images: dict[str, Any] = {
        n: Image(getattr(pair, n).array[rest].copy(), matrix) for n in ("fixed", "fixed_mask", "cavity")
    }
    k = apply(invert(matrix), pair.points)[:, 2]
    return _seen(replace(pair, **images), (k >= 0) & (k <= rest.stop - rest.start - 1)), pair.intraop_from_preop


def _thick(pair: Pair) -> tuple[Pair, Pose]:
    """6 mm slices in both images."""

    def thicker(image: Image, mask: bool) -> Image:
        count = image.array.shape[0] // 6
        mean = image.array[: 6 * count].astype(np.float32).reshape(count, 6, *image.array.shape[1:]).mean(axis=1)
        matrix = image.ras_from_ijk @ np.diag([1.0, 1.0, 6.0, 1.0])
        matrix[:3, 3] = apply(image.ras_from_ijk, [0.0, 0.0, 2.5])
        return Image((mean > 0.5).astype(np.uint8) if mask else mean, matrix)

    names = ("fixed", "moving", "fixed_mask", "moving_mask", "tumour", "cavity")
    images: dict[str, Any] = {n: thicker(getattr(pair, n), n not in ("fixed", "moving")) for n in names}
    return replace(pair, **images), pair.intraop_from_preop


def _mirrored(pair: Pair) -> tuple[Pair, Pose]:
    names = ("moving", "moving_mask", "tumour")
    images: dict[str, Any] = {n: getattr(pair, n).with_array(getattr(pair, n).array[:, :, ::-1].copy()) for n in names}
    return replace(pair, **images), pair.intraop_from_preop


def _void(radius_mm: float) -> Fault:
    """A metal's signal void, dark with a bright rim, opposite to the cavity, which nobody masked."""

    def make(pair: Pair) -> tuple[Pair, Pose]:
        cavity = _middle(pair.cavity)
        centre = 2 * np.argwhere(pair.fixed_mask.array).mean(axis=0) - cavity
        distance = np.linalg.norm(np.moveaxis(np.indices(pair.fixed.array.shape), 0, -1) - centre, axis=-1)
        strength = 1 / (1 + np.exp((distance - radius_mm) / 1.5))
        rim = np.exp(-(((distance - radius_mm - 3) / 2.5) ** 2))
        return _with_fixed(pair, lambda v: v * (1 - strength) + 1200 * rim), pair.intraop_from_preop

    return make


def _further_resection(radius_mm: float) -> Fault:
    """The cavity is much larger than where the tumour was: a sphere of fluid about its middle."""

    def make(pair: Pair) -> tuple[Pair, Pose]:
        centre = _middle(pair.cavity)
        distance = np.linalg.norm(np.moveaxis(np.indices(pair.fixed.array.shape), 0, -1) - centre, axis=-1)
        gone = (distance < radius_mm) & (pair.fixed_mask.array != 0)
        at = np.round(apply(invert(pair.fixed.ras_from_ijk), pair.points)[:, ::-1]).astype(int)
        fluid = pair.fixed.array[pair.cavity.array != 0].mean()
        wetter = _with_fixed(pair, lambda v: np.where(gone, fluid, v))
        return _seen(wetter, ~gone[tuple(at.T)]), pair.intraop_from_preop

    return make


def _packed(level: float, part: float = 1.0) -> Fault:
    """The lowest ``part`` of the cavity holds clot or packing, ``level`` times as bright as the brain."""

    def make(pair: Pair) -> tuple[Pair, Pose]:
        cavity = pair.cavity.array != 0
        brain = float(np.median(pair.fixed.array[(pair.fixed_mask.array != 0) & ~cavity]))
        rows = np.indices(cavity.shape)[0]
        low = cavity & (rows <= np.quantile(rows[cavity], part))
        grain = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal(cavity.shape), 1.5)
        packing = level * brain * (1 + 0.1 * grain / grain.std())
        share = ndimage.gaussian_filter(low.astype(np.float32), 0.6)
        return _with_fixed(pair, lambda v: v * (1 - share) + packing * share), pair.intraop_from_preop

    return make


def _distorted(largest_mm: float, smooth_mm: float) -> Fault:
    """The scanner's field bends the intraoperative image along j by up to ``largest_mm``: as echo-planar images are."""

    def make(pair: Pair) -> tuple[Pair, Pose]:
        shape = pair.fixed.array.shape
        small = tuple(-(-n // 4) for n in shape)
        bend = random_field((small[0], small[1], small[2]), 4.0, smooth_mm, largest_mm, np.random.default_rng(5))
        along = ndimage.zoom(bend[..., 1], [n / s for n, s in zip(shape, small, strict=True)], order=1)
        grid = np.indices(shape, dtype=np.float32)
        grid[1] += along / float(pair.fixed.spacing_mm[1])
        ijk = apply(invert(pair.fixed.ras_from_ijk), pair.points)
        # What point y shows now stood at y + bend(y); the truth of the points there is looked up by nearness.
        moved = ndimage.map_coordinates(along, ijk[:, ::-1].T, order=1)[:, None] * pair.fixed.ras_from_ijk[:3, 1]
        distance, index = cKDTree(pair.points).query(pair.points + moved)
        true = pair.true_preop[index] + (pair.points + moved - pair.points[index]) @ pair.intraop_from_preop[:3, :3]
        warped = _with_fixed(pair, lambda v: ndimage.map_coordinates(v, grid, order=1))
        return _seen(replace(warped, true_preop=true), distance < 4.0), pair.intraop_from_preop

    return make


def _noisy(part: float) -> Fault:
    def make(pair: Pair) -> tuple[Pair, Pose]:
        rng = np.random.default_rng(1)
        level = part * float(np.percentile(pair.fixed.array[pair.fixed_mask.array != 0], 80))
        return _with_fixed(pair, lambda v: np.hypot(v + level * rng.standard_normal(v.shape), level)), (
            pair.intraop_from_preop
        )

    return make


def _ghosted(pair: Pair) -> tuple[Pair, Pose]:
    """The patient moved during the scan: three ghosts along j, each half as bright."""

    def ghosts(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return values + sum(0.5 * np.roll(values, step, axis=1) for step in (9, 21, 40))

    return _with_fixed(pair, ghosts), pair.intraop_from_preop


def _folded_contrast(pair: Pair) -> tuple[Pair, Pose]:
    """Grey and white matter equally bright, fluid brighter: no order of tones is left."""
    top = float(np.percentile(pair.fixed.array[pair.fixed_mask.array != 0], 90))
    return _with_fixed(pair, lambda v: top * np.abs(1.0 - v / (0.8 * top))), pair.intraop_from_preop


def _inverted_contrast(pair: Pair) -> tuple[Pair, Pose]:
    top = float(np.percentile(pair.fixed.array, 99.5))
    return _with_fixed(pair, lambda v: np.where(v > 0.05 * top, np.maximum(1.1 * top - v, 0), v)), (
        pair.intraop_from_preop
    )


def another_patient(other: Pair) -> Fault:
    """``other``'s preoperative image, brought onto this patient's brain by the centres."""

    def make(pair: Pair) -> tuple[Pair, Pose]:
        pose = pair.intraop_from_preop.copy()
        pose[:3, 3] += pair.points.mean(axis=0) - apply(pose, other.true_preop.mean(axis=0))
        return replace(pair, moving=other.moving, moving_mask=other.moving_mask, tumour=other.tumour), pose

    return make


def _middle(mask: Image) -> Points:
    return np.asarray(np.argwhere(mask.array).mean(axis=0))


FAULTS: Mapping[str, Fault] = {
    "pose off by 8 mm": _shifted((5.0, -5.0, 4.0)),
    "pose off by 15 mm, 10 deg": _shifted((9.0, 9.0, -8.0), 10.0),
    "pose off by 35 mm": _shifted((20.0, -20.0, 20.0)),
    "preop upper half": _preop_slab(0.5, True),
    "preop lower half": _preop_slab(0.5, False),
    "preop upper two thirds": _preop_slab(0.67, True),
    "intraop half-height slab": _intraop_slab,
    "6 mm slices": _thick,
    "mirrored": _mirrored,
    "signal void 25 mm": _void(25.0),
    "signal void 40 mm": _void(40.0),
    "further resection 38 mm": _further_resection(38.0),
    "cavity full of bright clot": _packed(1.5),
    "cavity full of packing as bright as brain": _packed(1.0),
    "cavity half full of clot": _packed(1.3, 0.5),
    "field bends by 8 mm": _distorted(8.0, 16.0),
    "field bends by 15 mm": _distorted(15.0, 12.0),
    "noise 25 %": _noisy(0.25),
    "noise 60 %": _noisy(0.6),
    "ghosts": _ghosted,
    "folded contrast": _folded_contrast,
    "inverted contrast": _inverted_contrast,
}

#: Whose head stands in for another patient's.
OTHER = ("mni152-long", "standard", 991)


def judged_faults(pair: Pair) -> dict[str, Any]:
    """Every fault of ``pair`` through our engine: p95 error in mm, verdict and reason; 'refused' where it raises."""
    faults = {**FAULTS, "another patient": another_patient(make_pair(*OTHER))}
    judged: dict[str, dict[str, Any]] = {}
    for name, fault in faults.items():
        broken, pose = fault(pair)
        start = float(np.quantile(broken.errors(apply(invert(pose), broken.points)), 0.95))
        try:
            found = run("ours 2 mm auto cavity", broken, pose)
            p95 = float(np.quantile(found["errors"], 0.95))
            judged[name] = {"start_p95": start, "p95": p95, "verdict": found["verdict"], "reason": found["reason"]}
        except IntraopError as error:
            judged[name] = {"start_p95": start, "p95": start, "verdict": "refused", "reason": str(error)}
    return {"faults": judged}
