"""Whether a planned implant runs into the body: a line that was drawn from its tip to its entry looks the same.

Swapped, a screw that stands 4 mm too deep is told to end where it should.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import apply, invert, middle_of
from scipy import ndimage

from .implant import Trajectory

#: The surface is looked for on voxels of about this size, mm: enough to order two depths.
COARSE_MM = 2.0
#: Air is darker than this part of bright tissue.
AIR_SIGNAL = 0.1
#: An entry this much deeper than its tip is none, mm.
DEEPER_MM = 5.0
#: A side in the name of an implant, and how far (mm) beside the middle of its vertebra it lies there for certain.
SIDE, ASIDE_MM = re.compile(r"(?<![a-z])(left|right)(?![a-z])"), 3.0
#: In bone, a line that runs from front to back by more than this part of its length.
BACKWARD = 0.3


def approach_doubt(planned: Trajectory, preoperative: Image, vertebra: str = "") -> str:
    """Why entry and tip (preoperative RAS) seem swapped, in one sentence; empty when they do not, or nobody can say.

    ``vertebra``: name of the one that takes it; those are mostly operated from behind. Others enter from the surface.
    """
    swapped = f"entry and tip of '{planned.name}' are perhaps swapped"
    check = "check which point was placed first: deviations and depth are told for the wrong ends otherwise"
    if vertebra:
        backward = float(-planned.direction[1])
        return f"{swapped}: it runs from front to back through {vertebra}; {check}" if backward > BACKWARD else ""
    depths = depth_mm(preoperative, np.stack([planned.entry_ras_mm, planned.tip_ras_mm]))
    if depths is None or depths[0] <= depths[1] + DEEPER_MM:
        return ""
    return f"{swapped}: its entry lies {depths[0]:.0f} mm below the surface and its tip {depths[1]:.0f} mm; {check}"


def side_doubt(planned: Trajectory, vertebra: Image, name: str) -> str:
    """Why the side in an implant's name seems wrong, in one sentence; empty when it is right, or not named.

    ``vertebra``: label (its RAS frame) that takes it, ``name`` in words. Right is the patient's right.
    """
    sides = set(SIDE.findall(planned.name.lower()))
    middle = middle_of(vertebra)
    aside = float(((planned.entry_ras_mm + planned.tip_ras_mm) / 2.0 - middle)[0])
    lies = "right" if aside > 0 else "left"
    if len(sides) != 1 or lies in sides or abs(aside) < ASIDE_MM:
        return ""
    return (
        f"'{planned.name}' is planned on the patient's {lies}, {abs(aside):.0f} mm beside the middle of {name}: check "
        "its name, and that left and right are not exchanged in the preoperative volume"
    )


def depth_mm(image: Image, points_ras_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """Distance (n,) of points (n, 3) to the air around the body; None without air in the image, or for points outside
    of it."""
    step = np.maximum(1, np.rint(COARSE_MM / image.spacing_mm).astype(int))
    i, j, k = step
    coarse = ndimage.uniform_filter(np.asarray(image.array, dtype=np.float32), (k, j, i))[::k, ::j, ::i]
    body = coarse > AIR_SIGNAL * np.percentile(coarse, 95.0)
    # Dark places inside, as air in a sinus or metal, are no surface.
    body = ndimage.binary_fill_holes(body)
    index = np.rint(apply(invert(image.ras_from_ijk), points_ras_mm) / step)[:, ::-1].astype(int)
    if body.all() or not body.any() or (index < 0).any() or (index >= body.shape).any():
        return None
    depth = ndimage.distance_transform_edt(body, sampling=(image.spacing_mm * step)[::-1])
    return np.asarray(depth[tuple(index.T)])
