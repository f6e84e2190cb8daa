"""Volumes at reduced resolution and their values between voxels: what every registration here stands on.

Points and matrices inside this file are in index order k, j, i (as arrays are), so that no axis is ever swapped
twice; :func:`kji_matrix` turns a matrix in i j k order into this one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import SimpleITK
from IntraopMRIReconstructionLib.data import AnyArray, Image, Matrix
from IntraopMRIReconstructionLib.errors import DataError
from IntraopMRIReconstructionLib.geometry import apply, bounding_box, resample_matrix, rotation_about
from scipy import ndimage

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

#: Fewer voxels along an axis than this is a slice or a slab, not a volume.
MIN_VOXELS = 6
#: A field of view thinner than this cannot fix a rotation.
MIN_EXTENT_MM = 30.0

_SWAP = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)


def kji_matrix(ijk_matrix: npt.ArrayLike) -> Matrix:
    """Turn an affine (4, 4) between i j k indices into the same one between k j i indices."""
    return np.asarray(_SWAP @ np.asarray(ijk_matrix, dtype=np.float64) @ _SWAP)


def checked_volume(image: Image, what: str) -> Float32Array:
    """Array of ``image`` as float32 (k, j, i), fit to be registered.

    Raises DataError for several components, a slice, a slab thinner than MIN_EXTENT_MM, values that are not finite,
    and volumes without contrast.
    """
    array = image.array
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise DataError(
            f"the {what} image must have one component a voxel, got shape {array.shape}: choose one channel"
        )
    if min(array.shape) < MIN_VOXELS:
        raise DataError(
            f"the {what} image must be a volume of at least {MIN_VOXELS} voxels along each axis, "
            f"got (k, j, i) = {array.shape}: choose the whole series, not a slice"
        )
    extent = image.spacing_mm * np.array(array.shape[::-1])
    if extent.min() < MIN_EXTENT_MM:
        raise DataError(
            f"the {what} image must reach over at least {MIN_EXTENT_MM:g} mm along each axis, "
            f"got {np.round(extent, 1).tolist()} mm along i, j, k"
        )
    result = np.ascontiguousarray(array, dtype=np.float32)
    bad = result.size - int(np.count_nonzero(np.isfinite(result)))
    if bad:
        raise DataError(
            f"the {what} image has {bad} voxels that are not finite numbers (NaN or infinite) out of {result.size}: "
            "repair or reconstruct it again before registering"
        )
    low, high = float(result.min()), float(result.max())
    if low == high:
        raise DataError(f"the {what} image has the value {low:g} in every voxel: there is nothing to register")
    return result


@dataclass(frozen=True, eq=False)
class Volume:
    """``values``: float32 (k, j, i). ``ras_from_ijk``: (4, 4), mm."""

    values: Float32Array
    ras_from_ijk: Matrix

    @property
    def spacing_kji_mm(self) -> npt.NDArray[np.float64]:
        """Voxel size along k, j, i in mm, shape (3,)."""
        return np.asarray(np.linalg.norm(self.ras_from_ijk[:3, :3], axis=0)[::-1])

    def shrunk(self, spacing_mm: float) -> Volume:
        """Average whole blocks of voxels so that the spacing comes near ``spacing_mm``; never finer than it is."""
        factors = np.maximum(1, np.round(spacing_mm / self.spacing_kji_mm)).astype(int)
        factors = np.minimum(factors, self.values.shape)
        if (factors == 1).all():
            return self
        values = self.values
        for axis, factor in enumerate(factors.tolist()):
            if factor > 1:
                end, before = values.shape[axis] // factor * factor, (slice(None),) * axis
                parts = [values[(*before, slice(o, end, factor))] for o in range(factor)]
                values = sum(parts[1:], parts[0]) / np.float32(factor)
        scale = np.diag([*factors[::-1].astype(float), 1.0])
        scale[:3, 3] = (factors[::-1] - 1) / 2.0
        return Volume(np.ascontiguousarray(values, np.float32), np.asarray(self.ras_from_ijk @ scale))

    def cropped(self, inside: BoolArray, margin_mm: float) -> Volume:
        """Cut to the box around ``inside`` (same grid) with a margin."""
        return self.cut(bounding_box(inside, np.ceil(margin_mm / self.spacing_kji_mm).astype(int)))

    def cut(self, box: tuple[slice, slice, slice]) -> Volume:
        """The voxels of ``box`` (k, j, i)."""
        shift = np.eye(4)
        shift[:3, 3] = [s.start for s in box][::-1]
        return Volume(np.ascontiguousarray(self.values[box]), np.asarray(self.ras_from_ijk @ shift))


def foreground(volume: Volume) -> BoolArray:
    """Head or body against air: Otsu's threshold (IEEE SMC 9:62, 1979) on clipped intensities, closed and filled.

    Half of Otsu's threshold is used, since the first class boundary of a head often lies between grey matter and fat.
    """
    values = volume.values
    top = float(np.percentile(values, 99.0))
    bottom = float(np.percentile(values, 1.0))
    if top <= bottom:
        top, bottom = float(values.max()), float(values.min())
    counts, edges = np.histogram(np.clip(values, bottom, top), bins=128)
    centres = (edges[1:] + edges[:-1]) / 2
    weight = np.cumsum(counts)[:-1].astype(float)
    rest = counts.sum() - weight
    mean = np.cumsum(counts * centres)[:-1] / np.maximum(weight, 1)
    mean_rest = (np.sum(counts * centres) - np.cumsum(counts * centres)[:-1]) / np.maximum(rest, 1)
    threshold = centres[int(np.argmax(weight * rest * (mean - mean_rest) ** 2))]
    inside = values > bottom + 0.5 * (threshold - bottom)
    inside = ndimage.binary_opening(inside)
    labels, found = ndimage.label(inside)
    if found > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        inside = labels == int(np.argmax(sizes))
    return np.asarray(ndimage.binary_fill_holes(ndimage.binary_closing(inside, iterations=2) | inside), dtype=bool)


def mask_on(mask: Image, volume: Volume, what: str) -> BoolArray:
    """``mask`` (nonzero is inside) at the voxels of ``volume``, nearest neighbour, whatever grid it came on.

    Raises DataError when nothing of the mask lies inside the volume.
    """
    if mask.array.ndim != 3:
        raise DataError(f"the {what} mask must have shape (k, j, i), got {mask.array.shape}")
    values = np.asarray(mask.array != 0, dtype=np.uint8)
    inside = resampled(values, volume.values.shape, resample_matrix(volume.ras_from_ijk, mask.ras_from_ijk), 0) != 0
    if not inside.any():
        raise DataError(f"the {what} mask has no voxel inside its image: it belongs to another image or frame")
    return np.asarray(inside, dtype=bool)


def resampled(
    values: AnyArray, shape: tuple[int, ...], from_ijk_to_ijk: npt.ArrayLike, order: int = 1, threads: int = 2
) -> AnyArray:
    """``values`` (k, j, i) on a grid of ``shape``, trilinear (``order`` 1) or nearest (0), 0 outside; dtype is kept.

    ``from_ijk_to_ijk``: (4, 4), index i j k of ``values`` for an index of the grid.
    """
    matrix = np.asarray(from_ijk_to_ijk, dtype=np.float64)
    transform = SimpleITK.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    resample = SimpleITK.ResampleImageFilter()
    resample.SetNumberOfThreads(threads)
    resample.SetSize([int(n) for n in shape[::-1]])
    resample.SetTransform(transform)
    resample.SetInterpolator(SimpleITK.sitkLinear if order else SimpleITK.sitkNearestNeighbor)
    return np.asarray(SimpleITK.GetArrayFromImage(resample.Execute(SimpleITK.GetImageFromArray(values))))


def points_of(volume: Volume, flat_indices: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """RAS (n, 3) in mm of the voxels with these flat indices."""
    k, j, i = np.unravel_index(flat_indices, volume.values.shape)
    return apply(volume.ras_from_ijk, np.stack([i, j, k], axis=1))


def motion(step: npt.NDArray[np.float64], centre: npt.NDArray[np.float64]) -> Matrix:
    """Rigid (4, 4): translation ``step[:3]`` (mm) and rotation vector ``step[3:]`` (radians) about ``centre``."""
    result = np.eye(4)
    angle = float(np.linalg.norm(step[3:]))
    if angle > 1e-12:
        result[:3, :3] = rotation_about(step[3:] / angle, float(np.rad2deg(angle)))
    result[:3, 3] = centre + step[:3] - result[:3, :3] @ centre
    return result


@dataclass(frozen=True, eq=False)
class Samples:
    """Trilinear values at points: ``values`` (n,), ``gradient`` (3, n) along k, j, i a voxel, ``inside`` (n,)."""

    values: Float32Array
    gradient: Float32Array
    inside: BoolArray


def sample(values: Float32Array, points_kji: Float32Array, threads: int = 1, *, slopes: bool = True) -> Samples:
    """Trilinear interpolation with its exact gradient at ``points_kji`` (3, n). Outside points read 0.

    Without ``slopes`` the gradient is left out, shape (3, 0).
    """
    count = points_kji.shape[1]
    if threads <= 1 or count < 20000:
        return _sample(values, points_kji, slopes)
    cuts = np.linspace(0, count, threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda c: _sample(values, points_kji[:, c[0] : c[1]], slopes), pairwise(cuts)))
    return Samples(
        np.concatenate([p.values for p in parts]),
        np.concatenate([p.gradient for p in parts], axis=1),
        np.concatenate([p.inside for p in parts]),
    )


def _sample(values: Float32Array, points: Float32Array, slopes: bool) -> Samples:
    shape = values.shape
    inside = np.ones(points.shape[1], dtype=bool)
    base = np.zeros(points.shape[1], dtype=np.int32)
    fractions = []
    for axis, size in enumerate(shape):
        inside &= (points[axis] >= 0) & (points[axis] <= size - 1)
        whole = np.clip(points[axis], 0, size - 1.001)
        lower = whole.astype(np.int32)
        fractions.append(whole - lower)
        base = base * size + lower
    z, y, x = fractions
    flat = values.ravel()
    row, plane = shape[2], shape[1] * shape[2]

    def along_i(offset: int) -> tuple[Float32Array, Float32Array]:
        first = flat.take(base + offset)
        step = flat.take(base + (offset + 1)) - first
        return first + x * step, step

    v00, g00 = along_i(0)
    v01, g01 = along_i(row)
    v10, g10 = along_i(plane)
    v11, g11 = along_i(plane + row)
    dj0, dj1 = v01 - v00, v11 - v10
    low, high = v00 + y * dj0, v10 + y * dj1
    dk = high - low
    result = low + z * dk
    result *= inside
    if not slopes:
        return Samples(result.astype(np.float32, copy=False), np.empty((3, 0), np.float32), inside)
    gi0, gi1 = g00 + y * (g01 - g00), g10 + y * (g11 - g10)
    gradient = np.stack([dk, dj0 + z * (dj1 - dj0), gi0 + z * (gi1 - gi0)])
    gradient *= inside
    return Samples(result.astype(np.float32, copy=False), gradient.astype(np.float32, copy=False), inside)
