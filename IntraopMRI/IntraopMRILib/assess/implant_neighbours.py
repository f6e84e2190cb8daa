"""Voids of planned neighbours that touch: fitted together, each given to its own plan, or refused as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from IntraopMRIReconstructionLib.data import Level, MetalShift
from IntraopMRIReconstructionLib.errors import AssessmentError
from scipy import optimize

from .implant import Trajectory, apart_mm
from .implant_verdict import BESIDE_MM, verdict_of
from .implant_void import Array, Region, Void, fit_voids, search

#: Neighbours are planned so near, from axis to axis: their voids can touch within the search radius of both.
NEAR_MM = 25.0
#: An implant lies at most so many times as far from its own plan as from that of another.
SURELY_OWN = 0.6
#: Axes of two round implants are at least this part of their mean diameter apart: metal does not pass through metal.
LEAST_APART = 0.8
#: Fits whose cost is at most so many times the least are as likely: the interval holds the voids of all of them.
AS_LIKELY = 1.05
#: Beyond its cylinder a void fades within so many voxels.
FADING_VOXELS = 1.5
#: Places along a shaft at which the distance to another one is taken.
DEPTHS = np.linspace(0.05, 0.95, 40)


@dataclass(frozen=True, eq=False)
class Separated:
    """``void``: of the implant alone. ``region``: the same tissue with the voids of its neighbours filled.

    ``names``: planned neighbours whose own voids were found beside it. ``touching``: whether one of them was fitted
    with it. ``open_mm``: how far an end lies in another fit that is as likely. ``field``: how many times as strong
    the field at its surface may be as that of the implant alone.
    """

    void: Void
    region: Region
    names: tuple[str, ...] = ()
    touching: bool = False
    open_mm: float = 0.0
    field: float = 1.0

    def widened(self, shift: MetalShift) -> MetalShift:
        """How far signal may be displaced in the fields of all of them."""
        names = ("across_mm", "along_mm", "readout_mm", "slice_mm")
        return replace(shift, **{name: self.field * getattr(shift, name) for name in names})


def separated(
    region: Region, near: Trajectory, void: Void, others: Sequence[Trajectory], radius_mm: float
) -> Separated:
    """The void of ``near`` beside those of ``others`` (planned, same frame), which may be there or not.

    ``void``: as it was fitted alone, the result where no neighbour's void touches it. Raises AssessmentError when two
    voids are there and it cannot be told whose they are.
    """
    alone = {
        other.name: (other, fit_voids(region, (search(region, other, radius_mm),), (other.diameter_mm,))[0][0])
        for other in others
        if _between(near.entry_ras_mm, near.tip_ras_mm, other.entry_ras_mm, other.tip_ras_mm) < NEAR_MM
    }
    clear, touching = [], []
    for other, its in alone.values():
        gap = _between(void.entry, void.tip, its.entry, its.tip) - void.radius - its.radius
        if gap < max(BESIDE_MM, 2.0 * region.voxel_mm):
            touching.append((other, its))
        elif verdict_of(region, its, other).level is not Level.REFUSED:
            clear.append((other, its))
    result = _together(region, [(near, void), *touching], radius_mm) if touching else None
    result = result or Separated(void, region)
    names = (*result.names, *(other.name for other, its in clear if _owns(near, result.void, other, its)))
    return replace(result, names=names)


def _together(region: Region, alone: list[tuple[Trajectory, Void]], radius_mm: float) -> Separated | None:
    """All of these in one fit; None where the first of them needs no other to be there."""
    plans = [plan for plan, _ in alone]
    diameters = [plan.diameter_mm for plan in plans]
    starts = [[(plan.entry_ras_mm, plan.tip_ras_mm) for plan in plans]]
    for number, (_, void) in enumerate(alone):
        rest, places = _filled(region, [void]), {number: (void.entry, void.tip)}
        for n, plan in enumerate(plans):
            if n != number:
                places[n] = search(rest, plan, radius_mm)
        starts.append([places[n] for n in range(len(plans))])
    fits = [fit_voids(region, start, diameters) for start in starts]
    least = min(cost for _, cost in fits)
    fits = [(_by_plan(plans, voids), cost) for voids, cost in fits if cost <= AS_LIKELY * least]
    voids = min(fits, key=lambda fit: fit[1])[0]
    there = [_is_there(region, plans[n], voids, n) for n in range(len(plans))]
    if not all(there):
        left = [each for each, found in zip(alone, there, strict=True) if found]
        # One of them explains what is dark: the first is what it was found to be alone.
        return _together(region, left, radius_mm) if there[0] and len(left) > 1 else None
    _require_own(plans, voids)
    near, near_void = plans[0], voids[0]
    apart = [_between(near_void.entry, near_void.tip, other.entry, other.tip) for other in voids[1:]]
    ends = [
        np.concatenate([fit[0].entry - near_void.entry, fit[0].tip - near_void.tip]).reshape(2, 3) for fit, _ in fits
    ]
    return Separated(
        near_void,
        _filled(region, voids[1:]),
        tuple(plan.name for plan in plans[1:]),
        True,
        float(max(np.linalg.norm(off, axis=1).max() for off in ends)),
        1.0 + sum((near.diameter_mm / 2.0 / max(mm, near.diameter_mm)) ** 2 for mm in apart),
    )


def _is_there(region: Region, plan: Trajectory, voids: Sequence[Void], number: int) -> bool:
    """Whether one of the ``voids`` is that of an implant like its plan, and not a part of another one."""
    void, others = voids[number], [*voids[:number], *voids[number + 1 :]]
    if void.length < plan.diameter_mm or void.radius <= 0:
        return False
    if any(_between(void.entry, void.tip, o.entry, o.tip) < LEAST_APART * plan.diameter_mm for o in others):
        return False
    return verdict_of(_filled(region, others), void, plan).level is not Level.REFUSED


def _filled(region: Region, voids: Sequence[Void]) -> Region:
    """The region with tissue in place of these voids."""
    signal, points = region.remaining, region.points
    for void in voids:
        aside, along = void.cylindrical(points)
        fading = FADING_VOXELS * region.voxel_mm
        inside = (aside < void.radius + fading) & (along > -fading) & (along < void.length + fading)
        signal = np.where(inside, np.maximum(signal, 1.0), signal)
    return replace(region, remaining=signal)


def _by_plan(plans: Sequence[Trajectory], voids: Sequence[Void]) -> list[Void]:
    """The voids in the order of the plans, so that all together lie nearest to them."""
    _, order = optimize.linear_sum_assignment(_distances(plans, voids))
    return [voids[n] for n in order]


def _distances(plans: Sequence[Trajectory], voids: Sequence[Void]) -> Array:
    """(plans, voids) mean distance of each void's axis from each plan, mm."""
    return np.array([[apart_mm((void.entry, void.tip), plan) for void in voids] for plan in plans])


def _owns(near: Trajectory, void: Void, other: Trajectory, its: Void) -> bool:
    """Whether two voids surely are those of their own plans, and not exchanged."""
    distance = _distances((near, other), (void, its))
    return bool(np.trace(distance) <= SURELY_OWN * np.trace(distance[::-1]))


def _require_own(plans: Sequence[Trajectory], voids: Sequence[Void]) -> None:
    near, void = plans[0], voids[0]
    for other, its in zip(plans[1:], voids[1:], strict=True):
        if not _owns(near, void, other, its):
            raise AssessmentError(
                f"two voids lie beside one another, and it cannot be told which is that of "
                f"'{near.name}' and which that of '{other.name}': no number is shown; check which one is placed"
            )


def _between(entry: Array, tip: Array, other_entry: Array, other_tip: Array) -> float:
    """Least distance of two shafts, mm."""
    one, other = (a + DEPTHS[:, None] * (b - a) for a, b in ((entry, tip), (other_entry, other_tip)))
    return float(np.linalg.norm(one[:, None] - other[None], axis=-1).min())
