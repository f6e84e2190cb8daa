"""What a brain case plans before surgery beside its tumour: a biopsy of the deep margin, and a tract to spare.

Both lie in tissue that surgery leaves, so that the truth of the shift says where they are in the scan. Nothing here is
drawn at random, and nothing of a case depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..data import FloatArray, Image, Matrix
from ..errors import DataError
from ..geometry import apply
from .fields import Opening
from .grids import index_coordinates, points_of, sampled
from .lesion import SPACING_MM
from .phantom import BrainCase

BIOPSY, ENTRY, TRACT = "Biopsy", "Entry", "Motor tract"
#: The biopsy and the axis of the tract are this far from the tumour's rim and from all that was taken out (mm).
BIOPSY_MARGIN_MM, TRACT_MARGIN_MM = 4.0, 9.0
#: A needle keeps this clear of what is taken out, is at most this long (mm), and enters within this part of the bone
#: flap's radius.
NEEDLE_CLEAR_MM, NEEDLE_MM, WITHIN_FLAP = 2.0, 50.0, 0.95
#: The tract passes the tumour this far below its middle, in radii of the tumour.
TRACT_DEPTH = 0.7
TRACT_RADIUS_MM, TRACT_REACH_MM = 3.0, 24.0
#: Fibres curve around the ventricles: radius of that curve (mm).
TRACT_CURVE_MM = 60.0
#: Depth of tissue below the brain's surface in which things are planned (mm).
BELOW_SURFACE_MM = 3.0
#: T1 above fluid and below enhancing tissue and vessels.
TISSUE = (430.0, 1000.0)


@dataclass(frozen=True, eq=False)
class PlannedThings:
    """Points (3,) and labels by name, preoperative RAS, mm. The first point is the target."""

    points: Mapping[str, npt.NDArray[np.float64]]
    at_risk: Mapping[str, Image]


def plan_things(case: BrainCase) -> PlannedThings:
    """Plan a biopsy, its entry beside the way to the tumour, and a tract that passes the tumour's deep side.

    Raises DataError when the brain has no place for one of them.
    """
    box = case.grown.box
    corner = case.preop.ras_from_ijk.copy()
    corner[:3, 3] = apply(corner, np.array([side.start for side in box[::-1]], dtype=np.float64))
    label = case.tumour.array[box]
    points = points_of(corner, label.shape)
    taken = case.resection.cavity[box] | (np.isin(label, (1, 2)))
    clear = SPACING_MM * ndimage.distance_transform_edt(~taken).astype(np.float32)
    tissue = _lasting_tissue(case, box, points)
    opening = case.grown.opening
    height, aside = opening.along_and_aside(points)
    depth = height - float(opening.along_and_aside(case.grown.centre_ras_mm.astype(np.float32))[0])

    beside = tissue & (aside < WITHIN_FLAP * opening.radius_mm) & _shell(clear, BIOPSY_MARGIN_MM)
    target, entry = _needle(
        points[beside][np.argsort(np.abs(depth[beside]), kind="stable")], opening, tissue, clear, corner
    )
    deep = tissue & _shell(clear, TRACT_MARGIN_MM)
    if not deep.any():
        raise DataError(f"the brain has no place for '{TRACT}' beside this tumour: choose another seed")
    # Deep beside the tumour, on the other side than the needle.
    wanted = np.abs(depth[deep] + TRACT_DEPTH * case.grown.radius_mm) - np.linalg.norm(points[deep] - target, axis=-1)
    middle = points[deep][np.argmin(wanted)].astype(np.float64)
    tract = _tube(points, middle, opening.outward) & tissue & (clear > TRACT_RADIUS_MM)
    parts, _ = ndimage.label(tract)
    k, j, i = (int(n) for n in np.round(index_coordinates(corner, middle)))
    whole = np.zeros(case.preop.array.shape, np.uint8)
    whole[box] = parts == parts[k, j, i]
    return PlannedThings({BIOPSY: target, ENTRY: entry}, {TRACT: case.preop.with_array(whole, name=TRACT)})


def _lasting_tissue(case: BrainCase, box: tuple[slice, slice, slice], points: FloatArray) -> npt.NDArray[np.bool_]:
    """Grey and white matter well inside the brain that is still there in the scan."""
    truth = case.truth
    now = truth.intraop_from_preop_points(points)
    there = sampled(truth.brain.array, index_coordinates(truth.brain.ras_from_ijk, now), outside=0.0) > 0.5
    smooth = ndimage.gaussian_filter(case.preop.array[box].astype(np.float32), 1.0)
    solid = ndimage.binary_closing(there | case.resection.cavity[box], iterations=2)
    inner = ndimage.distance_transform_edt(solid) * SPACING_MM > BELOW_SURFACE_MM
    return np.asarray(there & inner & (smooth > TISSUE[0]) & (smooth < TISSUE[1]))


def _shell(clear: FloatArray, margin_mm: float) -> npt.NDArray[np.bool_]:
    """What lies hardly farther from the tumour than it must."""
    return np.asarray((clear >= margin_mm) & (clear < margin_mm + 1.5 * SPACING_MM))


def _needle(
    targets: FloatArray, opening: Opening, tissue: npt.NDArray[np.bool_], clear: FloatArray, corner: Matrix
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The first target that a needle straight through the craniotomy reaches clear of what is taken out; its entry."""
    steps = np.arange(0.0, NEEDLE_MM, SPACING_MM)[:, None]
    for target in targets[::7].astype(np.float64):
        at = index_coordinates(corner, target + steps * opening.outward)
        solid = np.flatnonzero(sampled(tissue, at, outside=0.0) > 0.5)
        if len(solid) and sampled(clear, at[:, : solid[-1] + 1]).min() >= NEEDLE_CLEAR_MM:
            return target, np.asarray(target + steps[solid[-1]] * opening.outward)
    raise DataError(f"no straight way from the craniotomy to '{BIOPSY}' avoids the tumour: choose another seed")


def _tube(
    points: FloatArray, middle: npt.NDArray[np.float64], outward: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """A curved tube through ``middle``, from above to below as far as that runs along the tumour's deep side."""
    up = np.array([0.0, 0.0, 1.0]) if abs(outward[2]) < 0.8 else np.array([0.0, 1.0, 0.0])
    along = up - (up @ outward) * outward
    along /= np.linalg.norm(along)
    offset = points - middle.astype(np.float32)
    far = offset @ along.astype(np.float32)
    # Both ends come towards the surface, as fibres do that fan out from the internal capsule.
    axis = far[..., None] * along.astype(np.float32)
    axis += (far**2 / (2 * TRACT_CURVE_MM))[..., None] * outward.astype(np.float32)
    beside = np.linalg.norm(offset - axis, axis=-1)
    return np.asarray((beside < TRACT_RADIUS_MM) & (np.abs(far) < TRACT_REACH_MM))
