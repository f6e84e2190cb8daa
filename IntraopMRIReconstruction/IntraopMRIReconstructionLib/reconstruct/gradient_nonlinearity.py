"""Straightens pictures that gradients bent: fields of gradient coils as spherical harmonics.

Sources: Janke et al., Magn Reson Med 52:115 (2004) for the harmonics; Jovicich et al., NeuroImage 30:436 (2006) for the
correction of position and brightness. Coefficients follow the vendors' tables: Legendre functions of order m > 0 are
normalised by (-1)^m sqrt((2n + 1) (n - m)! / (2 (n + m)!)).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from math import factorial, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates
from scipy.special import assoc_legendre_p_all

from ..data import Image
from ..errors import ReconstructionError

#: Terms (degree n, order m): (coefficient of cos m phi, coefficient of sin m phi), relative to the linear gradient.
Terms = Mapping[tuple[int, int], tuple[float, float]]
Array = npt.NDArray[np.float64]

#: Tables of scanners end at degree 21 at most; a higher one is a misread file.
MAX_DEGREE = 24
#: Grid on which displacements are computed; they change over centimetres.
COARSE_MM = 8.0


@dataclass(frozen=True)
class GradientCoil:
    """Field of the three gradients in the scanner's frame, centre at the isocentre, mm.

    ``x``, ``y``, ``z``: deviations from a linear gradient, as terms without the linear one, in units in which the
    linear field is position / ``radius_mm``. ``scanner_from_ras``: (3, 3) rotation from RAS to the axes of the table.
    """

    radius_mm: float
    x: Terms
    y: Terms
    z: Terms
    scanner_from_ras: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.radius_mm > 0:
            raise ReconstructionError(f"the reference radius of a gradient coil must be above 0, got {self.radius_mm}")
        for name in "xyz":
            for (degree, order), values in getattr(self, name).items():
                if not 0 <= order <= degree <= MAX_DEGREE or not np.isfinite(values).all():
                    raise ReconstructionError(
                        f"term ({degree}, {order}) of gradient {name} with coefficients {values} is not a harmonic of "
                        f"degree up to {MAX_DEGREE}: check the coefficient file"
                    )
                if degree == 1:
                    raise ReconstructionError(
                        f"gradient {name} has the linear term ({degree}, {order}): leave it out, it is the gradient"
                    )
        if np.abs(self.scanner_from_ras @ self.scanner_from_ras.T - np.eye(3)).max() > 1e-6:
            raise ReconstructionError("scanner_from_ras must be a rotation or a change of signs (3, 3)")

    def displacement(self, ras_mm: npt.NDArray[Any]) -> Array:
        """How far (..., 3), RAS mm, the scanner shows a point at ``ras_mm`` (..., 3) from the isocentre, from there."""
        points = np.asarray(ras_mm, np.float64) @ self.scanner_from_ras.T
        radius = np.linalg.norm(points, axis=-1)
        cosine = np.divide(points[..., 2], radius, out=np.ones_like(radius), where=radius > 0)
        phi = np.arctan2(points[..., 1], points[..., 0])
        fields = [_field(terms, radius / self.radius_mm, cosine, phi) for terms in (self.x, self.y, self.z)]
        return np.asarray(np.stack(fields, axis=-1) * self.radius_mm @ self.scanner_from_ras)


def straightened(
    image: Image, coil: GradientCoil, isocentre_ras_mm: npt.NDArray[Any], within_slices: bool = False
) -> Image:
    """The image (k, j, i) with every point at its true place and its true brightness, on the same grid, float32.

    ``isocentre_ras_mm``: (3,) in the frame of the image. What lay outside the image is 0. ``within_slices``: of 2D
    scans, whose slices are bent themselves, which no later step can undo: points stay in their slice (along k).
    """
    array = np.asarray(image.array, dtype=np.float32)
    if array.ndim != 3 or not np.isfinite(array).all():
        raise ReconstructionError(f"gradient correction needs a finite image (k, j, i), got shape {array.shape}")
    direction = image.ras_from_ijk[:3, :3]
    inverse = np.linalg.inv(direction)
    axes = [_coarse_axis(n, float(size)) for n, size in zip(array.shape, image.spacing_mm[::-1], strict=True)]
    k, j, i = np.meshgrid(*axes, indexing="ij")
    ijk = np.stack([i, j, k], axis=-1)
    centre = np.asarray(isocentre_ras_mm, np.float64)
    moved = coil.displacement(ijk @ direction.T + image.ras_from_ijk[:3, 3] - centre) @ inverse.T
    coarse = [moved[..., axis] for axis in (2, 1, 0)]  # along k, j, i in voxels
    steps = [axis[1] - axis[0] if len(axis) > 1 else 1.0 for axis in axes]
    places = np.meshgrid(
        *[(np.arange(n) - axis[0]) / step for n, axis, step in zip(array.shape, axes, steps, strict=True)],
        indexing="ij",
    )
    shifts = [map_coordinates(part, places, order=1 if min(part.shape) < 4 else 3, mode="nearest") for part in coarse]
    if within_slices:
        shifts[0][:] = 0
    grid = np.meshgrid(*[np.arange(n) for n in array.shape], indexing="ij")
    seen = [g + shift for g, shift in zip(grid, shifts, strict=True)]
    straight = map_coordinates(array, seen, order=3, mode="constant", cval=0.0)
    slopes = [
        [np.gradient(shift, axis=axis) if array.shape[axis] > 1 else np.zeros(array.shape) for axis in range(3)]
        for shift in shifts
    ]
    jacobian = np.linalg.det(np.moveaxis(np.array(slopes), (0, 1), (-2, -1)) + np.eye(3))
    return image.with_array((straight * jacobian).astype(np.float32), f"{image.name} straightened".strip())


def _coarse_axis(size: int, spacing_mm: float) -> Array:
    """Indices, at least two where there are two, no further apart than ``COARSE_MM``, from first to last voxel."""
    count = 1 if size == 1 else max(2, int(np.ceil((size - 1) * spacing_mm / COARSE_MM)) + 1)
    return np.linspace(0, size - 1, count)


def _field(terms: Terms, radius: Array, cosine: Array, phi: Array) -> Array:
    """Sum of the harmonics at ``radius`` (share of the reference), polar cosine and azimuth."""
    total = np.zeros_like(radius)
    if not terms:
        return total
    degree = max(n for n, _ in terms)
    legendre = assoc_legendre_p_all(degree, degree, cosine)[0]
    for (n, m), (cosine_share, sine_share) in terms.items():
        wave = cosine_share * np.cos(m * phi) + sine_share * np.sin(m * phi)
        total += _norm(n, m) * radius**n * legendre[n, m] * wave
    return total


@functools.cache
def _norm(n: int, m: int) -> float:
    # The Legendre functions here carry (-1)^m themselves, which the vendors' factor takes away again.
    return 1.0 if m == 0 else (-1) ** m * sqrt((2 * n + 1) * factorial(n - m) / (2 * factorial(n + m)))
