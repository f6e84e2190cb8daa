"""Whether a dark shaft in MRI is the void of an implant: its depth, width, length, and the tissue beside it."""

from __future__ import annotations

import numpy as np
from IntraopMRIReconstructionLib.data import Level, Reason, Verdict

from .implant import Trajectory
from .implant_void import Array, Region, Void, across

#: A void must take away this part of the signal more than its surroundings; the lower one is good enough to look at.
GOOD_VOID, LEAST_VOID = 0.5, 0.3
#: The lower one counts only for a void that is at most so many voxels wide: metal leaves nothing of what lies in it, so
#: in a wider void with half of the signal left there is none.
THIN_VOXELS = 3.0
#: Void against real diameter: below, it is a vessel or cortex; above, blooming hides where the metal is.
DIAMETER_GOOD, DIAMETER_LEAST = (0.75, 1.6), (0.5, 3.0)
#: Void length against planned length. Implants keep their length; a much shorter void is something else.
LENGTH_GOOD, LENGTH_LEAST = (0.85, 1.15), (0.6, 1.5)
#: Tissue must be seen beside the void on each of so many sides, within this distance, so many voxels or the void's own
#: radius (none is round beside strong metal), along these parts of its shaft: what is dark as far as the edge of the
#: image is air, or where the scan ends.
SIDES, DEPTHS = 16, 60
BESIDE_MM, BESIDE_VOXELS = 4.0, 2.0
BESIDE_GOOD, BESIDE_LEAST = 0.6, 0.35
#: At each depth metal is darker than this part of what lies around it, so far beyond its void (mm, voxels): along these
#: parts of the shaft. A path that sulci and vessels cross is dark where they are: of 32 simulated brains without a lead
#: 11 gave one, dark along at most 0.67 of it; 20 leads were along 0.93 and more. In 32 others none was found.
DARKER, AROUND_MM, AROUND_VOXELS = 0.75, 1.5, 1.5
DARK_GOOD, DARK_LEAST = 0.9, 0.75
#: The void of something thin may be wider than it by so much (mm), however many times that is: 4 mm about a lead.
BLOOM_MM = 3.0


def verdict_of(region: Region, void: Void, near: Trajectory) -> Verdict:
    """Whether a fitted void is that of an implant like ``near``."""
    dark, beside = _darker(region, void), _beside(region, void)

    def level(value: float, good: tuple[float, float], least: tuple[float, float]) -> Level:
        if good[0] <= value <= good[1]:
            return Level.GOOD
        return Level.CHECK if least[0] <= value <= least[1] else Level.REFUSED

    least_void = LEAST_VOID if 2.0 * void.radius <= THIN_VOXELS * region.voxel_mm else GOOD_VOID
    diameter = 2.0 * void.radius / near.diameter_mm
    widest = max(DIAMETER_LEAST[1], 1.0 + BLOOM_MM / near.diameter_mm)
    length = (void.length - 2.0 * void.radius + near.diameter_mm) / near.length_mm
    return Verdict(
        (
            Reason(
                "void depth",
                void.depth,
                "",
                f"at least {GOOD_VOID}",
                level(void.depth, (GOOD_VOID, 1.0), (least_void, 1.0)),
            ),
            Reason(
                "void diameter over implant diameter",
                diameter,
                "",
                f"{DIAMETER_GOOD[0]} to {DIAMETER_GOOD[1]}",
                level(diameter, DIAMETER_GOOD, (DIAMETER_LEAST[0], widest)),
            ),
            Reason(
                "void length over planned length",
                length,
                "",
                f"{LENGTH_GOOD[0]} to {LENGTH_GOOD[1]}",
                level(length, LENGTH_GOOD, LENGTH_LEAST),
            ),
            Reason(
                "part of the shaft darker than what lies around it",
                dark,
                "",
                f"at least {DARK_GOOD}",
                level(dark, (DARK_GOOD, 1.0), (DARK_LEAST, 1.0)),
            ),
            Reason(
                "part of the shaft with tissue on every side",
                beside,
                "",
                f"at least {BESIDE_GOOD}",
                level(beside, (BESIDE_GOOD, 1.0), (BESIDE_LEAST, 1.0)),
            ),
        )
    )


def _rings(void: Void) -> Array:
    """Unit vectors (n, 3) all round the axis."""
    turn = np.linspace(0.0, 2.0 * np.pi, SIDES, endpoint=False)
    sides = across(void.axis)
    return np.asarray(np.cos(turn)[:, None] * sides[0] + np.sin(turn)[:, None] * sides[1])


def _beside(region: Region, void: Void) -> float:
    """Part of the shaft beside which there is tissue, on the side where that is least."""
    out = void.radius + np.linspace(0.0, max(BESIDE_MM, BESIDE_VOXELS * region.voxel_mm, void.radius), 9)
    shaft = void.shaft(np.linspace(0.1, 0.9, 17))
    signal = region.at(shaft[:, None, None] + _rings(void)[:, None] * out[:, None], mode="constant")
    return float((signal > 1.0 - 0.5 * void.depth).any(axis=2).mean(axis=0).min())


def _darker(region: Region, void: Void) -> float:
    """Part of the shaft that is darker than what lies around it at the same depth, from where it comes in from air."""
    shaft = void.shaft(np.linspace(0.03, 0.97, DEPTHS))
    away = void.radius + max(AROUND_MM, AROUND_VOXELS * region.voxel_mm)
    around = np.median(region.at(shaft[:, None] + away * _rings(void)), axis=1)
    darker = region.at(shaft) < DARKER * around
    return float(darker[int(np.argmax(around > 1.0 - 0.5 * void.depth)) :].mean())
