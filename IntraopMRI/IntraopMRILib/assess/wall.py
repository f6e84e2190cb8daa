"""The wall of the cavity at the resolution of a scan, and where clot lies over it.

The cavity of the registration lives on a grid of 2 mm and more: its recesses beside what was left are rounded off
there, half a millimetre on average. Near its border the scan itself says which voxels are fluid for the most part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import apply, invert, resample_matrix, within_mm
from scipy import ndimage

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]

#: Fluid and tissue have the grey values that they have within this distance, mm: nearer than a coil's bias changes.
LEVEL_MM = 3.0
#: White matter is what is brighter than its surroundings of this size, mm, but no more than WHITEST times.
WHITE_MM, WHITEST = 6.0, 1.3
#: Clot is brighter than white matter on T1 without agent: from this part on, half way from the darkest tissue to it.
CLOT = 1.15
#: It lies this near to the fluid, mm.
CLOT_MM = 4.0
#: A thin layer of clot that is no brighter than tissue looks like tissue: so much of it may be there anywhere, mm.
#: Set on eighteen simulated heads, held against eighteen others.
UNSEEN_MM = 1.3
#: What errs at one side errs otherwise at another: this part of each point's error goes the same way all over the
#: border. Set on six simulated heads, held against four others. Masks are rounded off on all sides alike.
COMMON = 0.5
#: What is not tissue among what was called brain is darker than this part of its median.
TISSUE = 0.5
#: Smoothing (voxels) that shows clot against noise.
SMOOTH_VOXELS = 0.5
#: Room around the cavity, mm: brain to know the grey values from.
AROUND_MM = 14.0


@dataclass(frozen=True, eq=False)
class Wall:
    """Labels (k, j, i) on one grid: ``fluid`` of the cavity, the same ``with_clot`` on its wall, ``brain`` with both.

    Where clot lies over the wall, the wall is somewhere between the surfaces of the first two. ``error_mm``: how far
    off it may be besides. ``common``: part of a point's error that goes the same way on all sides.
    """

    fluid: Image
    with_clot: Image
    brain: Image
    error_mm: float
    common: float = 1.0


def plain_wall(cavity: Image, brain: Image) -> Wall:
    """The wall as the masks themselves have it, to a voxel."""
    return Wall(cavity, cavity, brain, float(cavity.spacing_mm.max()))


def sharp_wall(cavity: Image, brain: Image, native: Image) -> Wall:
    """The wall in the ``native`` scan (T1 without agent) within a voxel of the border of ``cavity``.

    A voxel there belongs to the fluid when it is darker than half way to its brightest neighbour. The masks themselves
    come back where the scan shows no more than they: it is no finer, or does not hold the whole cavity.
    """
    step = float(cavity.spacing_mm.max())
    index = apply(invert(native.ras_from_ijk) @ cavity.ras_from_ijk, np.argwhere(cavity.array)[:, ::-1].astype(float))
    size = np.array(native.array.shape[:3])[::-1]
    held = len(index) > 0 and ((index >= 0) & (index <= size - 1)).all()
    if not held or float(native.spacing_mm.max()) > 0.75 * step:
        return plain_wall(cavity, brain)
    box = _box(index, native)
    grid = native.ras_from_ijk.copy()
    grid[:3, 3] = apply(native.ras_from_ijk, np.array([s.start for s in box[::-1]], dtype=float))
    hole, inside = (_on(mask, grid, box) for mask in (cavity, brain))
    inside |= hole
    values, spacing = np.asarray(native.array[box], dtype=np.float32), native.spacing_mm[::-1]
    close = within_mm(hole, step, spacing)
    surely = ~within_mm(~hole, step, spacing)
    beyond = ~close & inside
    if not surely.any() or not beyond.any():
        return plain_wall(cavity, brain)
    beyond &= values > TISSUE * np.median(values[beyond])
    tissue = _mean(values, beyond, LEVEL_MM / spacing)
    brightest = np.maximum(ndimage.grey_dilation(values, footprint=ndimage.generate_binary_structure(3, 1)), tissue)
    dark = values < (_mean(values, surely, LEVEL_MM / spacing) + brightest) / 2.0
    fluid = ndimage.binary_fill_holes(_joined(surely | (dark & inside & close), surely))
    near = within_mm(fluid, CLOT_MM, spacing)
    usual = _mean(values, beyond, WHITE_MM / spacing)
    white = _mean(values, beyond & (values > usual) & (values < WHITEST * usual), WHITE_MM / spacing)
    clot = near & inside & (ndimage.gaussian_filter(values, SMOOTH_VOXELS) > CLOT * white)
    covered = ndimage.binary_fill_holes(_joined(fluid | clot, surely))
    error_mm = float(np.hypot(native.spacing_mm.max(), UNSEEN_MM))
    return Wall(
        Image(fluid.astype(np.uint8), grid),
        Image(covered.astype(np.uint8), grid),
        Image(inside.astype(np.uint8), grid),
        error_mm,
        COMMON,
    )


def _box(index: npt.NDArray[np.float64], image: Image) -> Box:
    pad = AROUND_MM / image.spacing_mm
    low = np.maximum(np.floor(index.min(axis=0) - pad), 0).astype(int)
    high = np.minimum(np.ceil(index.max(axis=0) + pad) + 1, np.array(image.array.shape)[::-1]).astype(int)
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return k, j, i


def _on(mask: Image, grid: npt.NDArray[np.float64], box: Box) -> Mask:
    """``mask`` on a finer grid of the shape of ``box``."""
    matrix = resample_matrix(grid, mask.ras_from_ijk)
    share = ndimage.affine_transform(
        (mask.array != 0).astype(np.float32),
        # scipy indexes k, j, i.
        matrix[:3, :3][::-1, ::-1],
        matrix[:3, 3][::-1],
        output_shape=tuple(s.stop - s.start for s in box),
        order=1,
        mode="constant",
    )
    return np.asarray(share > 0.5)


def _mean(values: Array, where: Mask, sigma: npt.NDArray[np.float64]) -> Array:
    """Mean of ``values`` over the voxels ``where`` around each voxel."""
    weight = ndimage.gaussian_filter(where.astype(np.float32), sigma)
    return np.asarray(ndimage.gaussian_filter(np.where(where, values, 0.0), sigma) / np.maximum(weight, 1e-4))


def _joined(mask: Mask, core: Mask) -> Mask:
    """The parts of ``mask`` that hold voxels of ``core``."""
    labels, _ = ndimage.label(mask)
    return np.isin(labels, np.unique(labels[core]))
