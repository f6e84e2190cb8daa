"""How far the volume of a residual may be off: what its outline leaves open, part by part.

Two ranges: the interval, by which it is judged, allows a voxel all round whatever is known better; the likely range is
what simulated operations needed.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.geometry import within_mm
from scipy import ndimage

from .outline import THIN_MM, Outline

Mask = npt.NDArray[np.bool_]

#: The boundary is likely to lie elsewhere by this part of a voxel all round: noise, the level of the residual, the
#: point spread. Set, with the two below, on the simulated operations SET_ON of Testing/benchmarks/residual_scenes.py to
#: hold more than 95 % of the truths; the benchmark holds them against others.
BOUNDARY_VOXELS = 0.25
#: An edge thinner than THIN_MM goes on, too thin to be seen, for so many times what is seen of it.
EDGE_GOES_ON = 1.5
#: Where nothing was counted, what is doubtful may be larger by this part of a voxel all round.
DOUBTFUL_VOXELS = 0.5
#: A piece of which more than this part is unsure is unsure as a whole.
MOST_OUT = 0.75
#: Smoothing (voxels) that takes the steps off a mask before its surface is measured.
SMOOTH_VOXELS = 0.8


@dataclass(frozen=True)
class LeftOpen:
    """Volumes in voxels. ``layer``: one voxel deep all round the residual, or round what is doubtful where there is
    none. ``within``: what lies within a voxel of the boundary; ``around``: within a voxel outside of it. ``edge``: its
    parts thinner than THIN_MM. ``unsure``: its parts no thicker than a wall of THIN_MM looks, and what a shift by the
    registration error would take out of the margin; the whole of a piece with most of it. ``beyond``: where it goes on
    outside. ``doubtful``: pieces that were not counted.
    """

    layer: float
    within: float
    around: float
    edge: float
    unsure: float
    beyond: float
    doubtful: float

    def without(self, part: LeftOpen) -> LeftOpen:
        """What is open when a part of it is known."""
        return LeftOpen(*(max(0.0, a - b) for a, b in zip(astuple(self), astuple(part), strict=True)))


def left_open(found: Outline, sure: Mask) -> LeftOpen:
    """What ``found`` leaves open; ``sure`` (k, j, i): where the tumour was, whatever the registration error."""
    if not found.mask.any():
        return LeftOpen(_layer(found.doubtful), 0.0, 0.0, 0.0, 0.0, 0.0, float(found.doubtful.sum()))
    # A voxel along each axis, whatever its size there. A distance is one between middles of voxels: the boundary lies
    # half a voxel before.
    within = found.mask & within_mm(~found.mask, 1.5, 1.0)
    grown = found.mask | found.beyond
    around = ~grown & within_mm(grown, 1.5, 1.0)
    beyond, doubtful = (float(found.share[part].sum()) for part in (found.beyond, found.doubtful))
    edge = unsure = 0.0
    for number, volume in enumerate(found.piece_voxels, start=1):
        piece = found.pieces == number
        edge += volume * float(found.tapering[piece].mean())
        out = float(np.maximum(found.slender, ~sure)[piece].mean())
        # Such as a wall, or a vessel in the margin: it was taken for residual by so much only.
        unsure += volume * (1.0 if out > MOST_OUT else out)
    return LeftOpen(_layer(found.mask), float(within.sum()), float(around.sum()), edge, unsure, beyond, doubtful)


def interval_cm3(
    volume_cm3: float, left: LeftOpen, voxel_cm3: float, spacing_mm: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """A voxel all round at least, with what the registration error and all else that is open can do."""
    if volume_cm3 == 0.0:
        # A nodule too small to be seen may lie beside what is in doubt.
        return 0.0, sum(_hidden_cm3(left, voxel_cm3, spacing_mm))
    low, high = likely_cm3(volume_cm3, left, voxel_cm3, spacing_mm)
    less = left.within + left.unsure
    more = left.around + EDGE_GOES_ON * left.edge + left.beyond + left.doubtful
    return max(0.0, min(low, volume_cm3 - less * voxel_cm3)), max(high, volume_cm3 + more * voxel_cm3)


def likely_cm3(
    volume_cm3: float, left: LeftOpen, voxel_cm3: float, spacing_mm: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """About 95 % of the true volumes lie within; of simulated operations, see BOUNDARY_VOXELS."""
    if volume_cm3 == 0.0:
        return 0.0, max(_hidden_cm3(left, voxel_cm3, spacing_mm))
    less = BOUNDARY_VOXELS * left.layer + left.unsure
    more = BOUNDARY_VOXELS * left.layer + EDGE_GOES_ON * left.edge + left.beyond + left.doubtful
    return max(volume_cm3 - less * voxel_cm3, 0.0), volume_cm3 + more * voxel_cm3


def detection_limit_cm3(spacing_mm: npt.NDArray[np.float64]) -> float:
    """A ball that noise and the rule for thin sheets let just pass: a smaller one is not told apart from a vessel."""
    return float(4.0 / 3.0 * np.pi * (THIN_MM / 2.0 + float(spacing_mm.max())) ** 3 / 1000.0)


def _hidden_cm3(left: LeftOpen, voxel_cm3: float, spacing_mm: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Where nothing was found: (a nodule just below what noise and the rule for thin sheets let pass, what is in
    doubt)."""
    return detection_limit_cm3(spacing_mm), (left.doubtful + DOUBTFUL_VOXELS * left.layer) * voxel_cm3


def _layer(mask: Mask) -> float:
    """Volume, in voxels, of a layer along the surface of ``mask`` that is as deep as a voxel is there."""
    if not mask.any():
        return 0.0
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    smooth = ndimage.gaussian_filter(np.pad(mask[box], 4).astype(np.float32), SMOOTH_VOXELS)
    return float(np.linalg.norm(np.gradient(smooth), axis=0).sum())
