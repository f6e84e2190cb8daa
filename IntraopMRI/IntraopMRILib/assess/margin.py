"""The margin of a resection by geometry: how far the wall of the cavity lies beyond the tumour's border.

It says what the scan shows, where no enhancement helps: a mass is removed completely only when the cavity encloses all
of its border. It is no histological margin, which only the specimen has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Measurement
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply, invert
from scipy import ndimage
from scipy.spatial import KDTree

from .carry import Mapping, mapped
from .labels import checked_label, filled_because
from .wall import Wall, plain_wall, sharp_wall

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SOURCE = "Geometry of the carried-over border and the cavity; no histological margin (UICC R classification)"
#: Steps of a voxel mask are smoothed by this (voxels) before its border is taken between the voxels.
SMOOTH_VOXELS = 0.8
#: A side of the tumour counts as not reached when more than this part of its border lies outside the cavity, %:
#: less is a few points at the edge of the side.
LEAST_OUTSIDE = 5.0
#: Less of the border, %, in brain or cavity is another place than that of the tumour: a tumour at the surface has no
#: more than half of its border there.
LEAST_SEEN = 50.0
#: Sides of the patient by axis (R, A, S): toward plus, toward minus.
SIDES = (("right", "left"), ("anterior", "posterior"), ("superior", "inferior"))


@dataclass(frozen=True, eq=False)
class Margin:
    """``closest``: mm, + is inside the cavity. ``outside``: part of the border outside the cavity, %.

    ``side``: where the closest point lies, seen from the tumour's middle in the patient's axes; ``at_ras_mm``: the
    point itself, (3,) intraoperative RAS. ``not_reached``: sides whose border lies outside the cavity for certain,
    beyond every interval, worst first. Without a cavity the measurements have no value, and there is no point.
    """

    closest: Measurement
    outside: Measurement
    side: str = ""
    at_ras_mm: Points | None = None
    not_reached: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it in one sentence."""
        if self.closest.value is None:
            return f"No margin is given: {self.closest.missing_because}."
        low, high = self.closest.interval or (self.closest.value,) * 2
        sides = ", ".join(self.not_reached)
        reached = (
            "the cavity encloses the tumour's border" if low >= 0 else "whether it is reached all round cannot be told"
        )
        if sides:
            reached = f"tumour border not reached in: {sides}"
        return f"Closest margin {self.closest.value:.1f} mm ({low:.1f} to {high:.1f}), {self.side}; {reached}."


def resection_margin(
    tumour: Image,
    cavity: Image,
    brain: Image,
    intraop_from_preop: Mapping,
    uncertainty_mm: Callable[[Points], npt.NDArray[np.float64]],
    native: Image | None = None,
) -> Margin:
    """Signed distance from the tumour's border, carried over, to the wall of the cavity, everywhere on the border.

    ``tumour``: preoperative label; 3 and above (infiltration) is no part of the mass. ``cavity``, ``brain``: labels on
    one intraoperative grid. The wall is where the cavity meets brain: its opening to the outside is none. Where clot or
    packing fills a part of it (label 2) no margin is given.
    ``intraop_from_preop``: as in :mod:`.carry`. ``uncertainty_mm``: 95 % radius (n,) at intraoperative RAS points.
    ``native``: scan without agent in the same position, in which the wall is seen sharper, see :mod:`.wall`; where clot
    lies over the wall, the middle of the clot is taken and its thickness is part of the interval.
    Interval: that radius and what is open about the wall (a voxel of its scan, clot), at each point of the border.
    Raises AssessmentError for what is no tumour or no label, and for labels on different grids.
    """
    labels = checked_label(tumour, "tumour segmentation")
    mass = (labels == 1) | (labels == 2) if (labels > 2).any() else labels > 0
    if not mass.any():
        raise AssessmentError("the tumour segmentation is empty: outline the tumour on the preoperative volume first")
    if cavity.array.shape != brain.array.shape or not np.allclose(cavity.ras_from_ijk, brain.ras_from_ijk):
        raise AssessmentError("cavity and brain must lie on one grid: register again")
    checked_label(brain, "brain mask", may_fill=True)
    based_on = (cavity.uid, tumour.uid) if native is None else (cavity.uid, tumour.uid, native.uid)
    if not checked_label(cavity, "resection cavity").any():
        return no_margin("no cavity was found", based_on)
    if filled := filled_because(cavity):
        return no_margin(filled, based_on)
    wall = plain_wall(cavity, brain) if native is None else sharp_wall(cavity, brain, native)
    before, weights = _border(mass, tumour)
    now = mapped(intraop_from_preop, before)
    found = [_distances(now, weights, hole, wall) for hole in (wall.fluid, wall.with_clot)]
    if any(one is None for one in found):
        return no_margin("no cavity was found", based_on)
    (least, counted), (most, _) = (one for one in found if one is not None)
    seen = _percent(counted, weights)
    if seen < LEAST_SEEN:
        return no_margin(f"only {seen:.0f} % of the tumour's border lies in brain or cavity", based_on)
    margin, clot = (least + most) / 2.0, np.abs(most - least) / 2.0
    error = np.hypot(_radius(uncertainty_mm, now), wall.error_mm) + clot
    before, now, weights, margin, error = (a[counted] for a in (before, now, weights, margin, error))
    worst = int(np.argmin(margin))
    sides = _sides(before - before.mean(axis=0))
    covered = "; where clot lies on it, its middle is taken and its thickness is open" if clot.any() else ""
    closest = Measurement(
        "Closest margin",
        float(margin[worst]),
        "mm",
        "Least distance from the tumour's border before surgery, carried over, to the wall of the cavity: + where the "
        "border lies inside the cavity, - where it lies outside and is left, by geometry, each the mean over a voxel "
        f"around; interval: 95 % radius of the registration and {wall.error_mm:.1f} mm of the wall{covered}. "
        f"Closest {sides[worst]}",
        SOURCE,
        (float((margin - error).min()), float((margin + error).min())),
        based_on=based_on,
    )
    outside = Measurement(
        "Tumour border outside the cavity",
        _percent(margin < 0, weights),
        "%",
        "Part of the carried-over border that lies outside the cavity: left, by geometry; interval: "
        f"{wall.common:.0%} of the margin's at each point, as much as goes the same way on all sides",
        SOURCE,
        (_percent(margin + wall.common * error < 0, weights), _percent(margin - wall.common * error < 0, weights)),
        based_on=based_on,
    )
    return Margin(closest, outside, sides[worst], now[worst], _not_reached(sides, margin + error < 0, weights))


def _distances(
    now: Points, weights: npt.NDArray[np.float64], cavity: Image, wall: Wall
) -> tuple[npt.NDArray[np.float64], Mask] | None:
    """Signed distance (n,) of the points to the wall of ``cavity``, and which of them count; None without a wall."""
    hole = cavity.array != 0
    tissue = (wall.brain.array != 0) & ~hole
    surface = _border(hole, cavity, tissue)[0]
    if not len(surface):
        return None
    index = apply(invert(cavity.ras_from_ijk), now)[:, ::-1].T
    inside = ndimage.map_coordinates(hole.astype(np.float32), index, order=1, mode="constant") >= 0.5
    left = ndimage.map_coordinates(tissue.astype(np.uint8), index, order=0, mode="constant") != 0
    distance = KDTree(surface).query(now)[0] * np.where(inside, 1.0, -1.0)
    # What lies neither in the cavity nor in brain, as at the surface, has no wall to be near to.
    return _within(distance, now, weights, float(cavity.spacing_mm.max())), inside | left


def _radius(uncertainty_mm: Callable[[Points], npt.NDArray[np.float64]], points: Points) -> npt.NDArray[np.float64]:
    radius = np.asarray(uncertainty_mm(points), dtype=np.float64)
    if radius.shape != (len(points),) or not (np.isfinite(radius) & (radius >= 0)).all():
        raise AssessmentError(
            f"the uncertainty of the registration must be {len(points)} distances in mm of zero or more, got shape "
            f"{radius.shape}: register again"
        )
    return radius


def no_margin(why: str, based_on: tuple[str, ...]) -> Margin:
    """In the place of a margin, with the reason ``why`` there is none."""

    def one(name: str, unit: str) -> Measurement:
        return Measurement(
            name, None, unit, "Of the tumour's border to the wall of the cavity", SOURCE, None, why, based_on
        )

    return Margin(one("Closest margin", "mm"), one("Tumour border outside the cavity", "%"))


def _border(mask: Mask, image: Image, beyond: Mask | None = None) -> tuple[Points, npt.NDArray[np.float64]]:
    """Points (n, 3), RAS mm, where edges of the voxel grid cross the border of ``mask``, and the area of each (n,).

    ``beyond``: only where the border looks onto these voxels.
    """
    start = np.array([s.start for s in ndimage.find_objects(mask.astype(np.uint8))[0]]) - 3
    stop = np.array([s.stop for s in ndimage.find_objects(mask.astype(np.uint8))[0]]) + 3
    cropped = _cropped(mask, start, stop)
    smooth = _smoothed(cropped)
    if smooth.max() <= 0.5:
        # A sheet of single voxels has no inside left after smoothing.
        smooth = cropped.astype(np.float32)
    open_to = None if beyond is None else _cropped(beyond, start, stop)
    gradient = np.stack(np.gradient(ndimage.gaussian_filter(smooth, SMOOTH_VOXELS)))
    faces = image.voxel_volume_ml * 1000.0 / image.spacing_mm[::-1]
    points, areas = [], []
    for axis in range(3):
        low, high = (np.take(smooth, range(first, smooth.shape[axis] - 1 + first), axis) for first in (0, 1))
        at = np.argwhere((low > 0.5) != (high > 0.5))
        first, second = low[tuple(at.T)], high[tuple(at.T)]
        step = np.eye(3, dtype=int)[axis]
        if open_to is not None:
            outer = np.where((first > 0.5)[:, None], at + step, at)
            seen = open_to[tuple(outer.T)]
            at, first, second = at[seen], first[seen], second[seen]
        place = at + ((0.5 - first) / (second - first))[:, None] * step
        normal = np.abs(np.stack([ndimage.map_coordinates(part, place.T, order=1) for part in gradient], axis=1))
        normal /= image.spacing_mm[::-1]
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        points.append(place)
        # So many edges cross a unit of a border that stands askew in the grid.
        areas.append(1.0 / np.maximum((normal / faces).sum(axis=1), 1e-12))
    found = np.concatenate(points) + start
    return apply(image.ras_from_ijk, found[:, ::-1]), np.concatenate(areas)


def _smoothed(mask: Mask) -> npt.NDArray[np.float32]:
    """``mask`` without steps, 0.5 at its border.

    Smoothing alone moves a border of radius R inward by the square of its width over R: a narrow end of a cavity on
    voxels of 2 mm lost 0.6 mm. What a second smoothing takes away is what the first one took.
    """
    once = ndimage.gaussian_filter(mask.astype(np.float32), SMOOTH_VOXELS)
    sharp = np.clip(0.5 + SMOOTH_VOXELS * np.sqrt(2.0 * np.pi) * (once - 0.5), 0.0, 1.0)
    return np.asarray(2.0 * once - ndimage.gaussian_filter(sharp, SMOOTH_VOXELS), dtype=np.float32)


def _within(
    values: npt.NDArray[np.float64], points: Points, areas: npt.NDArray[np.float64], reach_mm: float
) -> npt.NDArray[np.float64]:
    """Mean (n,) of ``values`` over the border within ``reach_mm``.

    The least of many that err by the steps of voxels would be the one that errs most.
    """
    count = round(np.pi * reach_mm**2 * len(points) / float(areas.sum()))
    nearest = KDTree(points).query(points, k=min(max(count, 1), len(points)))[1]
    return np.asarray(values[nearest].reshape(len(points), -1).mean(axis=1))


def _cropped(mask: Mask, start: npt.NDArray[np.int_], stop: npt.NDArray[np.int_]) -> Mask:
    """The box from ``start`` to ``stop`` (k, j, i) of a mask, empty where it leaves the mask's grid."""
    result = np.zeros(stop - start, dtype=bool)
    low, high = np.maximum(start, 0), np.minimum(stop, mask.shape)
    inner = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
    result[inner] = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return result


def _sides(offsets: Points) -> list[str]:
    """The side of the patient toward which each offset (n, 3), RAS, points most."""
    axes = np.argmax(np.abs(offsets), axis=1)
    return [SIDES[axis][0 if offset[axis] >= 0 else 1] for axis, offset in zip(axes, offsets, strict=True)]


def _percent(chosen: Mask, weights: npt.NDArray[np.float64]) -> float:
    return float(100.0 * weights[chosen].sum() / weights.sum())


def _not_reached(sides: list[str], outside: Mask, weights: npt.NDArray[np.float64]) -> tuple[str, ...]:
    named = np.array(sides)
    parts = {side: _percent(outside[named == side], weights[named == side]) for side in dict.fromkeys(sides)}
    worst = sorted((side for side in parts if parts[side] > LEAST_OUTSIDE), key=lambda side: -parts[side])
    return tuple(f"{side} ({parts[side]:.0f} %)" for side in worst)
