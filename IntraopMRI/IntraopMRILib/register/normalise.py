"""Grey values relative to their neighbourhood: what is left of them when bias field and contrast are taken away."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .sampling import Float32Array

#: Neighbourhood, mm to each side (never less than 1.5 voxels): wide enough to hold grey and white matter, narrow enough
#: that the faint structure of white matter near a cavity is not measured against the cortex.
NEIGHBOURHOOD_MM = 6.0
#: Normalised values beyond this are vessels, blood and noise, not anatomy.
LARGEST = 2.0
#: Contrast below this part of the whole image's is noise and is not blown up.
NOISE_FLOOR = 0.15


def locally_normalised(values: Float32Array, inside: Float32Array, voxel_mm: npt.ArrayLike) -> Float32Array:
    """(value - mean) / deviation over the neighbourhood's part inside the mask; 0 where that holds no mask.

    ``values``, ``inside`` (0..1): (k, j, i). Masked statistics keep skull, air and cavity out of the brain's.
    """
    voxel = np.asarray(voxel_mm, dtype=float)
    wide = float(max(NEIGHBOURHOOD_MM, 1.5 * voxel.max()))
    size = tuple((2 * np.maximum(1, np.round(wide / voxel)).astype(int) + 1).tolist())
    centre = np.float32(np.average(values, weights=inside)) if inside.any() else np.float32(0)
    shifted = values - centre
    weighted = shifted * inside

    def around(what: Float32Array) -> Float32Array:
        return np.asarray(ndimage.uniform_filter(what, size=size, mode="constant"))

    share = around(inside)
    known = share > 0.02
    safe = np.maximum(share, np.float32(0.02))
    mean = around(weighted) / safe
    variance = np.maximum(around(weighted * shifted) / safe - mean * mean, 0)
    floor = np.float32(NOISE_FLOOR) * np.sqrt(np.average(shifted * shifted, weights=inside)) if inside.any() else 1.0
    result = (shifted - mean) / np.sqrt(variance + floor * floor + np.float32(1e-12))
    return np.asarray(np.clip(result, -LARGEST, LARGEST) * known, dtype=np.float32)
