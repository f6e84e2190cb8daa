"""A brain mask without any atlas: threshold, erode until the brain lets go of the scalp, grow back."""

from __future__ import annotations

import numpy as np
from IntraopMRIReconstructionLib.errors import RegistrationError
from IntraopMRIReconstructionLib.geometry import closed_mm, within_mm
from scipy import ndimage

from .sampling import BoolArray, Volume, foreground

#: A brain has about 1200 ml; half a head and children have less, neck and scalp taken along make more.
PLAUSIBLE_ML = (350.0, 2200.0)
#: Bridges from brain to scalp (nerves, veins, dura) are thinner than twice this, mm.
EROSIONS_MM = (4.0, 6.0, 8.0)
#: What was eroded grows back by so much more, mm, within the tissue; sulci up to twice this wide are closed.
GROWN_MM, CLOSED_MM = 1.5, 6.0


def brain_of(volume: Volume) -> BoolArray:
    """Brain (k, j, i) of a T1-weighted head, or of an already stripped one, on a volume of about 2 mm.

    Raises RegistrationError when nothing of a brain's size comes loose from the rest of the head; the message gives
    the volume found.
    """
    head = foreground(volume)
    inner = ndimage.distance_transform_edt(np.pad(head, 1), sampling=volume.spacing_kji_mm)[1:-1, 1:-1, 1:-1]
    # Grey values of the depth of the head: mostly white matter, never fat or air.
    deep = volume.values[inner > min(30.0, 0.6 * float(inner.max()))]
    white = float(np.percentile(deep, 75))
    tissue = (volume.values > 0.42 * white) & (volume.values < 1.9 * white) & head
    # The border of the volume is one of the tissue.
    outside = np.pad(~tissue, 1, constant_values=True)
    found = 0.0
    for erosion_mm in EROSIONS_MM:
        core = _largest(~within_mm(outside, erosion_mm, volume.spacing_kji_mm)[1:-1, 1:-1, 1:-1])
        if core is None:
            continue
        brain = tissue & within_mm(core, erosion_mm + GROWN_MM, volume.spacing_kji_mm)
        brain = closed_mm(brain, CLOSED_MM, volume.spacing_kji_mm)
        brain = np.asarray(ndimage.binary_fill_holes(brain), dtype=bool)
        found = float(brain.sum() * np.prod(volume.spacing_kji_mm) / 1000.0)
        if PLAUSIBLE_ML[0] <= found <= PLAUSIBLE_ML[1] and not _reaches_scalp(brain, inner, head):
            return brain
    raise RegistrationError(
        f"no brain could be separated from the head (last part found has {found:.0f} ml, "
        f"expected {PLAUSIBLE_ML[0]:.0f} to {PLAUSIBLE_ML[1]:.0f}): give a brain mask"
    )


def _largest(mask: BoolArray) -> BoolArray | None:
    labels, count = ndimage.label(mask)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == int(np.argmax(sizes)), dtype=bool)


def _reaches_scalp(brain: BoolArray, depth_mm: np.ndarray, head: BoolArray) -> bool:
    """Whether the mask took the scalp along: a bare head (stripped image) may reach its own border everywhere."""
    shell = head & (depth_mm < 3.0)
    part = float((brain & shell).sum()) / max(1, int(shell.sum()))
    return 0.15 < part < 0.6
