"""Sampling between grids for the lab: one place, so that every truth is built the same way."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..data import AnyArray, FloatArray, Matrix
from ..geometry import apply, invert, resample_matrix

Shape = tuple[int, int, int]

#: Indices that rounding has moved by less than this (voxels) still count as on the grid.
ON_GRID = 1e-6
#: Sampling releases the interpreter, so that two cores share it.
THREADS = 2


def stream(seed: int, what: str, stage: int = 0) -> np.random.Generator:
    """Independent random numbers for each ingredient: changing one ingredient leaves the others as they were."""
    return np.random.default_rng([seed, zlib.crc32(what.encode()), stage])


def axis_grid(lower_mm: npt.ArrayLike, spacing_mm: float) -> Matrix:
    """``ras_from_ijk`` of an axis-aligned RAS grid whose first voxel centre is ``lower_mm``."""
    matrix = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    matrix[:3, 3] = lower_mm
    return matrix


def coarser(ras_from_ijk: npt.ArrayLike, shape: Shape, spacing_mm: float) -> tuple[Matrix, Shape]:
    """A grid of the same field of view and directions at ``spacing_mm``: (``ras_from_ijk``, shape)."""
    fine = np.asarray(ras_from_ijk, dtype=np.float64)
    lengths = np.linalg.norm(fine[:3, :3], axis=0)
    matrix = fine.copy()
    matrix[:3, :3] = fine[:3, :3] / lengths * spacing_mm
    extent = (np.asarray(shape[::-1]) - 1) * lengths
    size = np.ceil(extent / spacing_mm - 1e-6).astype(int) + 1
    return matrix, (int(size[2]), int(size[1]), int(size[0]))


def points_of(ras_from_ijk: npt.ArrayLike, shape: Shape) -> FloatArray:
    """RAS position of every voxel centre, shape (k, j, i, 3), float32, mm."""
    k, j, i = (np.arange(n, dtype=np.float64) for n in shape)
    a = np.asarray(ras_from_ijk, dtype=np.float64)
    result = np.empty((*shape, 3), dtype=np.float32)
    for axis in range(3):
        along_k = a[axis, 2] * k[:, None, None]
        along_ji = a[axis, 1] * j[:, None] + a[axis, 0] * i + a[axis, 3]
        result[..., axis] = along_k + along_ji
    return result


def resampled(
    array: AnyArray,
    from_ras_from_ijk: npt.ArrayLike,
    to_ras_from_ijk: npt.ArrayLike,
    to_shape: Shape,
    from_ras_from_to_ras: npt.ArrayLike | None = None,
    outside: float | None = 0.0,
) -> FloatArray:
    """Values of ``array`` (k, j, i[, c]) on another grid, trilinear, float32. ``outside`` None repeats the edge."""
    index = resample_matrix(to_ras_from_ijk, from_ras_from_ijk, from_ras_from_to_ras)
    linear, offset = index[2::-1, 2::-1], index[2::-1, 3]
    aligned = np.allclose(linear, np.diag(np.diag(linear)), atol=1e-9)

    def one(channel: AnyArray) -> FloatArray:
        source = np.asarray(channel, dtype=np.float32)
        if aligned:
            return _along_axes(source, np.diag(linear), offset, to_shape, outside)
        mode, value = ("nearest", 0.0) if outside is None else ("constant", outside)
        return np.asarray(ndimage.affine_transform(source, linear, offset, to_shape, None, 1, mode, value))

    if array.ndim == 4:
        return np.stack([one(array[..., c]) for c in range(array.shape[3])], axis=-1)
    return one(array)


def _along_axes(
    array: FloatArray, steps: FloatArray, starts: FloatArray, shape: Shape, outside: float | None
) -> FloatArray:
    """Trilinear resampling between parallel grids, one axis after the other: several times as fast as the general."""
    beyond = []
    for axis, count in enumerate(shape):
        last = array.shape[axis] - 1
        at = steps[axis] * np.arange(count) + starts[axis]
        beyond.append((at < -ON_GRID) | (at > last + ON_GRID))
        at = np.clip(at, 0, last)
        low = np.minimum(np.floor(at + ON_GRID).astype(np.intp), max(last - 1, 0))
        weight = np.clip(at - low, 0, 1).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        lower = np.take(array, low, axis)
        array = lower + weight * (np.take(array, np.minimum(low + 1, last), axis) - lower) if weight.any() else lower
    if outside is not None:
        for axis, indices in enumerate(beyond):
            np.moveaxis(array, axis, 0)[indices] = outside
    return array


def index_coordinates(ras_from_ijk: npt.ArrayLike, points_ras: npt.ArrayLike) -> FloatArray:
    """Continuous (k, j, i) index of RAS points (..., 3), shape (3, ...), for :func:`scipy.ndimage.map_coordinates`."""
    ijk = apply(invert(ras_from_ijk), points_ras)
    return np.ascontiguousarray(np.moveaxis(ijk[..., ::-1], -1, 0))


def sampled(array: AnyArray, coordinates: FloatArray, order: int = 1, outside: float | None = None) -> FloatArray:
    """Values of ``array`` (k, j, i[, c]) at continuous indices (3, ...), float32. ``outside`` None repeats the edge."""
    where = coordinates.reshape(3, -1)
    mode, value = ("nearest", 0.0) if outside is None else ("constant", outside)

    def one(channel: AnyArray) -> FloatArray:
        source = np.asarray(channel, dtype=np.float32)
        if order > 1:
            source = ndimage.spline_filter(source, order, np.float32)
        result = np.empty(where.shape[1], dtype=np.float32)

        def part(piece: slice) -> None:
            ndimage.map_coordinates(source, where[:, piece], result[piece], order, mode, value, prefilter=False)

        middle = where.shape[1] // 2
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(part, (slice(0, middle), slice(middle, None))))
        return result.reshape(coordinates.shape[1:])

    if array.ndim == 4:
        return np.stack([one(array[..., c]) for c in range(array.shape[3])], axis=-1)
    return one(array)


def smooth_noise(shape: Shape, sigma_voxels: float, rng: np.random.Generator) -> FloatArray:
    """Gaussian-filtered white noise with standard deviation 1, float32."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma_voxels, mode="wrap")
    return np.asarray(noise / max(float(noise.std()), 1e-12))


def distance_mm(mask: npt.NDArray[np.bool_], spacing_mm: float) -> FloatArray:
    """Signed Euclidean distance to the border of ``mask`` (k, j, i): positive outside, negative inside, mm, float32."""
    if not mask.any():
        return np.full(mask.shape, np.float32(np.inf))
    outside = ndimage.distance_transform_edt(~mask)
    inside = ndimage.distance_transform_edt(mask)
    return np.asarray((outside - inside + np.where(mask, 0.5, -0.5)) * spacing_mm, dtype=np.float32)


def smoothstep(value: FloatArray) -> FloatArray:
    """0 below 0, 1 above 1, twice differentiable in between (Perlin's quintic)."""
    t = np.clip(value, 0.0, 1.0)
    return np.asarray(t * t * t * (t * (t * 6.0 - 15.0) + 10.0))
