"""The resection cavity: dark now, tissue in the preoperative image that is carried over."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .sampling import BoolArray, Float32Array

#: Dark: below this part of the brain's typical grey value around it (fluid, air and clot-free saline lie lower).
DARK = 0.55
#: Tissue: above this part of it in the preoperative image.
TISSUE = 0.70
#: Smaller ones are sulci that opened, not resections.
SMALLEST_ML = 0.4
#: Dark voxels between parts of the cavity that lie nearer than twice this belong to it, mm.
CLOSED_MM = 8.0
#: The cavity's wall and blood rim are as thick as this, mm.
RIM_MM = 2.5


def find_cavity(
    fixed: Float32Array,
    carried: Float32Array,
    brain: BoolArray,
    carried_brain: BoolArray,
    carried_tumour: BoolArray,
    voxel_mm: npt.ArrayLike,
) -> BoolArray:
    """Cavity (k, j, i) in the intraoperative image ``fixed``, seen against the ``carried`` over preoperative image.

    ``brain``, ``carried_brain``: their brain masks on the same grid; ``carried_tumour``: the preoperative tumour, whose
    necrosis was dark before (all False when unknown). Both images are divided by the median grey value
    of the brain around each voxel, so that neither bias field nor scaling matters. All False where there is none.
    """
    voxel = np.asarray(voxel_mm, dtype=float)
    wide = tuple((2 * np.round(20.0 / voxel / 2).astype(int) + 1).tolist())
    both = brain & carried_brain

    def relative(values: Float32Array) -> Float32Array:
        typical = float(np.median(values[both])) if both.any() else 1.0
        counted = (both & (values > 0.6 * typical)).astype(np.float32)
        share = ndimage.uniform_filter(counted, size=wide, mode="nearest")
        mean = ndimage.uniform_filter(values * counted, size=wide, mode="nearest") / np.maximum(share, 1e-3)
        return np.asarray(values / np.where(share > 0.02, mean, typical), dtype=np.float32)

    dark = (relative(fixed) < DARK) & carried_brain
    candidate = dark & ((relative(carried) > TISSUE) | carried_tumour)
    # One voxel of opening removes what half a voxel of misfit leaves along every sulcus.
    candidate = np.asarray(ndimage.binary_opening(candidate, iterations=max(1, round(2.0 / float(voxel.max())))))
    labels, count = ndimage.label(candidate)
    if count == 0:
        return np.zeros_like(brain)
    sizes = np.bincount(labels.ravel()) * float(np.prod(voxel)) / 1000.0
    sizes[0] = 0.0
    kept = np.flatnonzero(sizes >= max(SMALLEST_ML, 0.15 * float(sizes.max())))
    # Sulci that the resection opened and the necrosis of a tumour were dark before: what the found parts embrace
    # within CLOSED_MM and is dark now belongs to the cavity too.
    found = np.isin(labels, kept)
    away = ndimage.distance_transform_edt(~found, sampling=voxel)
    closed = ndimage.distance_transform_edt(away <= CLOSED_MM, sampling=voxel) > CLOSED_MM
    grown = ndimage.binary_dilation(found | (closed & dark), mask=dark)
    return np.asarray(ndimage.binary_fill_holes(ndimage.binary_closing(grown) | grown), dtype=bool)


def with_rim(cavity: BoolArray, voxel_mm: npt.ArrayLike, rim_mm: float = RIM_MM) -> BoolArray:
    """Cavity and its wall: where the grey values are those of surgery."""
    if not cavity.any():
        return cavity
    return np.asarray(ndimage.distance_transform_edt(~cavity, sampling=np.asarray(voxel_mm)) <= rim_mm, dtype=bool)
