"""Gertzbein-Robbins grade of a pedicle screw: how far its surface leaves the bone.

The pedicle is outlined by a person, or cut from the outline of its vertebra where that is narrowest about the plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Measurement
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply, invert
from scipy import ndimage

from .implant import Spread, Trajectory
from .labels import checked_label

Array = npt.NDArray[np.float64]

SOURCE = "Gertzbein and Robbins 1990; defined on CT, an estimate on MRI"
#: Lower limits of the breach in mm; A is no breach at all.
GRADES = (("E", 6.0), ("D", 4.0), ("C", 2.0), ("B", 0.0))
#: A breach below this cannot be told from a screw that touches the cortex on a voxel mask.
LEAST_BREACH_MM = 0.25
#: Steps along and around the screw: finer than a tenth of a millimetre on the surface of a 6 mm screw is noise.
STEP_MM = 0.5
AROUND = 36
#: Distances are taken on voxels of about this size, so that those of thick slices have their surface half way too.
FINE_MM = 1.0
#: A pedicle lies between a lamina and a body: sections across the plan, this wide, are at least so many times as large
#: on both sides of it, and those of the pedicle itself at most so many times as large as the narrowest one.
SECTION_MM, LEAST_NARROWING, MOST_WIDENING = 60.0, 1.5, 1.5


@dataclass(frozen=True)
class Breach:
    """``grade`` A..E and the best and worst that the interval allows, the breach in mm as a measurement, and where the
    surface leaves: medial, lateral, cranial ...
    """

    grade: str
    best: str
    worst: str
    direction: str
    measurement: Measurement

    @property
    def text(self) -> str:
        """The grade, or the range of grades and what cannot be told; where the surface leaves, if it does."""
        side = "" if self.grade == "A" else f", {self.direction}"
        if self.best == self.worst:
            return self.grade + side
        inside = "; inside the pedicle wall: cannot be told" if self.best == "A" else ""
        return f"{self.best} to {self.worst}{side}{inside}"


def pedicle_breach(
    screw: Trajectory,
    pedicle: Image,
    midline_r_mm: float | None = None,
    spread: Spread | None = None,
) -> Breach:
    """Farthest distance of the screw's surface outside ``pedicle`` (label, its RAS frame) along the pedicle's length.

    ``midline_r_mm``: R coordinate of the midline, for medial and lateral; without it left and right are named.
    ``spread``: where the screw may lie instead, and the pedicle's place with it; the interval and the range of grades
    come from it.
    Raises AssessmentError when the mask is empty or the screw does not pass it.
    """
    inside = checked_label(pedicle, "pedicle mask") != 0
    if not inside.any():
        raise AssessmentError("the pedicle mask is empty: outline the pedicle, or leave the grade out")
    voxels = apply(pedicle.ras_from_ijk, np.argwhere(inside)[:, ::-1])
    along = (voxels - screw.entry_ras_mm) @ screw.direction
    # The ends of the mask are open: there the screw enters and goes on into the body.
    low, high = np.percentile(along, [5.0, 95.0])
    low, high = max(0.0, float(low)), min(screw.length_mm, float(high))
    if high - low < 2 * STEP_MM:
        raise AssessmentError(
            f"'{screw.name}' does not pass through the pedicle mask: check the mask and the registration"
        )
    points, outward = _surface(screw, low, high)
    # Beyond the mask the distance to its border grows at the ends too; only the part across the axis is a breach.
    distance = _signed_distance(inside, pedicle, points)
    worst = int(np.argmax(distance))
    may = np.full(len(points), 0.5 * float(pedicle.spacing_mm.max()))
    if spread is not None:
        may = np.hypot(may, [spread.of(direction) for direction in outward])
    breach, least, most = (_breach(float(d.max())) for d in (distance, distance - may, distance + may))
    grade = _grade(breach)
    measurement = Measurement(
        f"{screw.name}: pedicle breach",
        breach,
        "mm",
        f"Farthest distance of the screw's surface outside the {pedicle.name or 'pedicle'}; A 0, B < 2, C < 4, D < 6, "
        "E >= 6 mm",
        SOURCE,
        (min(least, breach), max(most, breach)),
        based_on=(pedicle.uid,),
    )
    place = "none" if grade == "A" else _named(outward[worst], points[worst], midline_r_mm)
    return Breach(grade, _grade(least), _grade(most), place, measurement)


def pedicle_of(planned: Trajectory, vertebra: Image) -> Image:
    """The pedicle that a screw is planned through, cut from the outline of its vertebra (label, the plan's frame).

    It lies where sections of the bone across the plan are smallest, between larger ones before and behind. Raises
    AssessmentError when there is no such place.
    """
    inside = checked_label(vertebra, "vertebra") != 0
    back = invert(vertebra.ras_from_ijk)
    across = np.linalg.svd(planned.direction[None])[2][1:]
    wide = np.arange(-SECTION_MM / 2, SECTION_MM / 2 + STEP_MM, 2 * STEP_MM)
    a, b = np.meshgrid(wide, wide, indexing="ij")
    plane = a[..., None] * across[0] + b[..., None] * across[1]
    along = np.arange(0.0, planned.length_mm, STEP_MM)
    sections = planned.entry_ras_mm + along[:, None, None, None] * planned.direction + plane
    index = apply(back, sections.reshape(-1, 3))[:, ::-1]
    bone = ndimage.map_coordinates(inside.astype(np.float32), index.T, order=1).reshape(sections.shape[:3]) > 0.5
    middle = len(wide) // 2
    areas = np.zeros(len(along))
    for number, section in enumerate(bone):
        parts, _ = ndimage.label(section)
        if parts[middle, middle]:
            areas[number] = (parts == parts[middle, middle]).sum()
    widest = np.minimum(_largest_before(areas), _largest_before(areas[::-1])[::-1])
    narrowing = np.where(areas > 0, widest / np.maximum(areas, 1.0), 0.0)
    # Where the plan has just come into the bone a section is small too, with nothing larger before it.
    narrowest = int(np.argmax(narrowing))
    if narrowing[narrowest] < LEAST_NARROWING:
        raise AssessmentError(
            f"'{planned.name}' passes no narrow part of '{vertebra.name}' that could be its pedicle: outline the "
            f"pedicle as a segment of its own, called '{vertebra.name} pedicle'"
        )
    runs, _ = ndimage.label((areas > 0) & (areas <= MOST_WIDENING * areas[narrowest]))
    low, high = along[runs == runs[narrowest]][[0, -1]]
    voxels = np.argwhere(inside)
    offsets = apply(vertebra.ras_from_ijk, voxels[:, ::-1]) - planned.entry_ras_mm
    depth = offsets @ planned.direction
    slab = np.zeros_like(inside)
    slab[tuple(voxels[(depth >= low) & (depth <= high)].T)] = True
    # Of the slab only what the plan passes: the other pedicle and the processes lie in it too.
    parts, count = ndimage.label(slab)
    axis = planned.entry_ras_mm + np.linspace(low, high, AROUND)[:, None] * planned.direction
    passed = parts[tuple(np.clip(np.rint(apply(back, axis))[:, ::-1].astype(int), 0, np.array(inside.shape) - 1).T)]
    pedicle = parts == np.argmax(np.bincount(passed[passed > 0], minlength=count + 1))
    return Image(pedicle.astype(np.uint8), vertebra.ras_from_ijk, f"pedicle cut from the outline of {vertebra.name}")


def _largest_before(areas: Array) -> Array:
    """Largest section up to each one, since the plan came into the bone: through a gap there is no pedicle."""
    result = np.zeros_like(areas)
    for number, area in enumerate(areas):
        result[number] = 0.0 if area == 0 else max(area, result[number - 1] if number else 0.0)
    return result


def _breach(distance_mm: float) -> float:
    return distance_mm if distance_mm >= LEAST_BREACH_MM else 0.0


def _grade(breach_mm: float) -> str:
    return "A" if breach_mm == 0.0 else next(name for name, limit in GRADES if breach_mm >= limit)


def _surface(screw: Trajectory, low: float, high: float) -> tuple[Array, Array]:
    axis = screw.direction
    across = np.linalg.svd(axis[None])[2][1:]
    turn = np.linspace(0.0, 2.0 * np.pi, AROUND, endpoint=False)
    around = np.cos(turn)[:, None] * across[0] + np.sin(turn)[:, None] * across[1]
    steps = np.linspace(low, high, max(2, int((high - low) / STEP_MM)))
    ring = screw.entry_ras_mm + steps[:, None, None] * axis + screw.diameter_mm / 2.0 * around
    return ring.reshape(-1, 3), np.broadcast_to(around, ring.shape).reshape(-1, 3)


def _signed_distance(
    inside: npt.NDArray[np.bool_], image: Image, points: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Distance (n,) of points (n, 3) to the surface half way between voxels in and outside, mm, negative inside."""
    index = apply(invert(image.ras_from_ijk), points)[:, ::-1]
    voxels = np.argwhere(inside)
    # A segment is often cut to its own size: what lies beyond is as far outside as it is.
    low = np.floor(np.minimum(index.min(axis=0), voxels.min(axis=0))).astype(int) - 1
    high = np.ceil(np.maximum(index.max(axis=0), voxels.max(axis=0))).astype(int) + 1
    spacing = image.spacing_mm[::-1]
    # An odd number: half way between two voxels is no voxel then.
    finer = 2.0 * np.ceil((spacing / FINE_MM - 1.0) / 2.0).clip(0.0) + 1.0
    steps = [np.arange(a, b + 0.5 / n, 1.0 / n) for a, b, n in zip(low, high, finer, strict=True)]
    places = np.stack(np.meshgrid(*steps, indexing="ij"))
    level = ndimage.map_coordinates(inside.astype(np.float32), places, order=1, mode="grid-constant")
    fine, grown = spacing / finer, level > 0.5
    outer = ndimage.distance_transform_edt(~grown, sampling=fine)
    inner = ndimage.distance_transform_edt(grown, sampling=fine)
    # Distances run to voxel centres; the surface lies half a voxel before them.
    half = 0.5 * float(fine.min())
    signed = np.where(grown, half - inner, outer - half)
    return np.asarray(ndimage.map_coordinates(signed, ((index - low) * finer).T, order=1, mode="nearest"))


def _named(outward: Array, point: Array, midline_r_mm: float | None) -> str:
    right, _, up = outward
    if abs(up) >= abs(right):
        return "cranial" if up > 0 else "caudal"
    if midline_r_mm is None:
        return "right" if right > 0 else "left"
    return "medial" if right * (midline_r_mm - point[0]) > 0 else "lateral"
