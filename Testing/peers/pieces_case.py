"""A residual of known pieces, as an assessment makes it of an outline, without scans."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image
from scipy import ndimage


def assessed(scan: Image, pieces: Sequence[npt.NDArray[np.bool_]], tumour: npt.NDArray[np.bool_]) -> Any:
    """What is left of ``tumour`` are these ``pieces``, masks (k, j, i) on the grid of ``scan``; all is sure.

    The modules are looked up when called: tests of panels load the product anew.
    """
    outlined, between, parts, residual = (
        import_module(f"IntraopMRILib.assess.{name}") for name in ("outline", "interval", "pieces", "residual")
    )
    mask: npt.NDArray[np.bool_] = np.any(pieces, axis=0)
    nothing, flat = np.zeros_like(mask), np.zeros(mask.shape, np.float32)
    labels, count = ndimage.label(mask)
    volumes = tuple(float((labels == number).sum()) for number in range(1, count + 1))
    found = outlined.Outline(mask, nothing, nothing, nothing, labels, flat, flat, flat, volumes)
    everywhere, box = np.ones_like(mask), tuple(slice(0, n) for n in mask.shape)
    left, spacing = between.left_open(found, everywhere), np.asarray(scan.spacing_mm)[::-1]
    places = (scan.ras_from_ijk @ np.c_[np.argwhere(tumour)[:, ::-1], np.ones(int(tumour.sum()))].T).T[:, :3]
    whole = parts.pieces_of(found, everywhere, box, scan, parts.bed_of(places, None, None))
    before = float(tumour.sum()) * scan.voxel_volume_ml
    numbers, shown = residual._numbers(
        sum(volumes) * scan.voxel_volume_ml, left, scan.voxel_volume_ml, spacing, before, None, "", (scan.uid,)
    )
    return residual.ResidualAssessment(
        residual=scan.with_array(mask.astype(np.uint8)),
        resected=scan.with_array((tumour & ~mask).astype(np.uint8)),
        residual_centroid_ras_mm=whole[0].at_ras_mm,
        pieces=whole,
        left=left,
        measurements=shown,
        **numbers,
    )
