"""How near an implant that was found lies to what is outlined around it: canal, facet, vessel, tract."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from IntraopMRIReconstructionLib.data import Image, Matrix, Measurement

from ..assess.implant import Spread, Trajectory
from ..navigate.distance import SurfaceDistance

#: Steps along the implant, mm: nothing that can be outlined is passed by unseen.
STEP_MM = 0.5
SOURCE = "Signed distance of a round rod with a round tip to the surface half way between voxels"


def clearances(
    actual: Trajectory,
    may: Spread,
    structures: Mapping[str, Image],
    intraop_from_preop: Matrix,
    basis: str,
    based_on: tuple[str, ...] = (),
) -> tuple[Measurement, ...]:
    """Least distance of the implant's surface to each structure (label, preoperative RAS), negative inside of it, mm.

    ``actual``: intraoperative RAS. ``may``: where it may lie instead, against the structures. ``intraop_from_preop``:
    of what carries the structures, ``basis`` in words.
    """
    radius = actual.diameter_mm / 2.0
    shaft = np.arange(0.0, max(actual.length_mm - radius, 0.0) + STEP_MM / 2, STEP_MM)
    points = np.vstack([actual.entry_ras_mm + shaft[:, None] * actual.direction, actual.tip_ras_mm])
    radii = np.append(np.full(len(shaft), radius), 0.0)
    found = []
    for name, label in structures.items():
        surface = SurfaceDistance(Image(label.array, intraop_from_preop @ label.ras_from_ijk, name), name)
        nearest = [surface.at(point) for point in points]
        distances = np.array([each.distance_mm for each in nearest]) - radii
        least = int(np.argmin(distances))
        direction = nearest[least].direction_ras
        reach = may.of(direction) if direction.any() else may.reach_mm
        value, error = float(distances[least]), float(np.hypot(surface.uncertainty_mm, reach))
        found.append(
            Measurement(
                f"{actual.name}: clearance to {name}",
                value,
                "mm",
                f"Least distance of the implant's surface to the outlined {name}, carried by the {basis}; negative: it "
                "lies so deep in it",
                SOURCE,
                (value - error, value + error),
                based_on=based_on,
            )
        )
    return tuple(found)
