"""The other direction of a displacement."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage

from .sampling import Float32Array


def inverse_of(displacement: Float32Array, threads: int) -> Float32Array:
    """Inverse of a displacement in voxels (3, k, j, i) by fixed-point iteration (Chen et al., Med Phys 35:81, 2008)."""
    shape = displacement.shape[1:]
    small = np.ascontiguousarray(displacement[:, ::2, ::2, ::2])
    inverse = _fixed_points(small, -small, 6, 0.5, threads)
    at = np.indices(shape, dtype=np.float32).reshape(3, -1) * np.float32(0.5)
    start = _looked_up(inverse, at, threads).reshape(displacement.shape)
    return _fixed_points(displacement, start, 1, 1.0, threads)


def _fixed_points(
    displacement: Float32Array, inverse: Float32Array, rounds: int, per_voxel: float, threads: int
) -> Float32Array:
    grid = np.indices(displacement.shape[1:], dtype=np.float32)
    for _ in range(rounds):
        points = (grid + inverse * np.float32(per_voxel)).reshape(3, -1)
        inverse = -_looked_up(displacement, points, threads).reshape(displacement.shape)
    return inverse


def _looked_up(field: Float32Array, points: Float32Array, threads: int) -> Float32Array:
    def one(component: Float32Array) -> Float32Array:
        return np.asarray(
            ndimage.map_coordinates(component, points, order=1, mode="nearest", prefilter=False, output=np.float32)
        )

    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(one, field)))
