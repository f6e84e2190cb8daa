"""The other direction of a displacement."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from IntraopMRIReconstructionLib.geometry import bounding_box
from scipy import ndimage

from .sampling import BoolArray, Float32Array, sample

#: Fixed-point steps; each takes the error to the part that the displacement changes over a voxel.
ROUNDS = 6


def inverse_of(displacement: Float32Array, threads: int) -> Float32Array:
    """Inverse of a displacement in voxels (3, k, j, i) by fixed-point iteration (Chen et al., Med Phys 35:81, 2008).

    Found at every second voxel and carried to the others by cubics: the displacement is smooth over several voxels.
    """
    grid = np.stack(np.meshgrid(*(np.arange(0, n, 2, dtype=np.float32) for n in displacement.shape[1:]), indexing="ij"))
    inverse = -displacement[:, ::2, ::2, ::2]
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(ROUNDS):
            points = grid + inverse

            def looked_up(component: Float32Array, at: Float32Array = points) -> Float32Array:
                return np.asarray(
                    ndimage.map_coordinates(component, at, order=1, mode="nearest", prefilter=False, output=np.float32)
                )

            inverse = -np.stack(list(pool.map(looked_up, displacement)))
    for axis, count in enumerate(displacement.shape[1:], start=1):
        inverse = _doubled(inverse, axis, count)
    return inverse


def before_moving(mask: BoolArray, displacement: Float32Array, threads: int) -> BoolArray:
    """Where the tissue at the voxels y of ``mask`` (k, j, i) was: y + ``displacement``(y), (3, k, j, i) in voxels."""
    result = np.zeros_like(mask)
    if mask.any():
        box = bounding_box(mask, int(np.ceil(np.abs(displacement).max())) + 2)
        back = inverse_of(displacement[(slice(None), *box)], threads)
        points = (np.indices(back.shape[1:], dtype=np.float32) + back).reshape(3, -1)
        shown = sample(mask[box].astype(np.float32), points, threads, slopes=False).values
        result[box] = shown.reshape(back.shape[1:]) > 0.5
    return result


def _doubled(values: Float32Array, axis: int, count: int) -> Float32Array:
    """``count`` values along ``axis`` from every second one: those between by the cubic through four neighbours."""
    near = np.moveaxis(values, axis, 0)
    result = np.empty((count, *near.shape[1:]), dtype=np.float32)
    result[::2] = near
    padded = np.concatenate([near[:1], near, near[-1:], near[-1:]])[: count // 2 + 3]
    between = np.float32(9 / 16) * (padded[1:-2] + padded[2:-1]) - np.float32(1 / 16) * (padded[:-3] + padded[3:])
    result[1::2] = between
    return np.ascontiguousarray(np.moveaxis(result, 0, axis))
