"""Positions of radial and spiral readouts in k-space, and the area of k-space that each sample stands for.

Trajectories are (shots, readout, 2) = (kx, ky) float32 in cycles per field of view, centre 0, reaching N / 2 for a
matrix of N. Densities are areas in (cycles per field of view)^2: their sum is the area that was covered, and the
weighted adjoint NUFFT over sqrt(Ny Nx) shows the object with its own brightness.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import SphericalVoronoi, Voronoi

from ..errors import ReconstructionError
from .remembered import remembered

FloatArray = npt.NDArray[np.float32]

#: Angle between successive spokes, 111.246 degrees: pi over the golden ratio (Winkelmann et al., IEEE Trans Med
#: Imaging 26:68, 2007). Any number of successive spokes then covers the plane nearly evenly.
GOLDEN_ANGLE_RAD = float(np.pi * (np.sqrt(5) - 1) / 2)
#: Places are told apart to so many decimals, in cycles per field of view: single precision at a matrix of 512.
PLACE_DECIMALS = 4
#: Spokes are straight and run through the centre to within this, in cycles per field of view: far below a sample.
STRAIGHT = 0.05
#: Fewer spokes in space do not surround the centre.
LEAST_SPOKES = 6


def radial(angles_rad: npt.ArrayLike, readout: int, matrix: int, delays: npt.NDArray[Any] | None = None) -> FloatArray:
    """Spokes through the centre, sample readout // 2 at k = 0, direction (cos, sin) of the angle.

    ``delays``: symmetric (2, 2), cycles per field of view; a gradient system that lags moves each spoke by
    ``delays @ direction`` (Moussavi et al., Magn Reson Med 71:308, 2014).
    """
    if readout < 2 or matrix < 2:
        raise ReconstructionError(f"a spoke needs at least 2 samples and a matrix of 2, got {readout} and {matrix}")
    angles = np.atleast_1d(np.asarray(angles_rad, dtype=np.float64))
    direction = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    radius = (np.arange(readout) - readout // 2) * (matrix / readout)
    k = radius[None, :, None] * direction[:, None, :]
    if delays is not None:
        k = k + (direction @ np.asarray(delays).T)[:, None, :]
    return k.astype(np.float32)


def radial_density(
    angles_rad: npt.ArrayLike, readout: int, matrix: int, spokes: int, delays: npt.NDArray[Any] | None = None
) -> FloatArray:
    """Area (angles, readout) of each sample of :func:`radial`, when ``spokes`` such spokes are evenly spread.

    The ramp |r + t . S t| for delays S and t across the spoke (the Jacobian of where samples lie); next to its kink
    corrected by the Euler-Maclaurin formula, so that sums over samples are exact to fourth order of their distance.
    Delays that differ between the axes by more than the distance of samples leave the centre covered unevenly, which
    no weight of single samples undoes: use iterative SENSE there.
    """
    angles = np.atleast_1d(np.asarray(angles_rad, dtype=np.float64))
    across = np.stack([-np.sin(angles), np.cos(angles)], axis=-1)
    step = matrix / readout
    shift = np.zeros(len(angles)) if delays is None else np.sum(across * (across @ np.asarray(delays).T), axis=-1)
    away = np.abs(np.arange(readout) - readout // 2 + shift[:, None] / step)
    kink = np.maximum(0, 1 - away) * (away**2 - away + 1 / 6)
    return np.asarray((away + kink) * (step**2 * np.pi / spokes), dtype=np.float32)


@remembered
def density(k: npt.NDArray[Any]) -> FloatArray:
    """Area of each sample of any trajectory ``k`` (..., 2), shape (...): what lies nearest to it (Voronoi cells).

    Samples at the same place share their cell; cells at the rim end half a cycle per field of view outside. Takes
    about a second for 50,000 samples, once for a trajectory; the result is read-only. Raises ReconstructionError for
    fewer than 4 places.
    Source: Rasche et al., IEEE Trans Med Imaging 18:385 (1999).
    """
    places, index, shared = np.unique(
        np.round(k.reshape(-1, 2).astype(np.float64), PLACE_DECIMALS), axis=0, return_inverse=True, return_counts=True
    )
    if len(places) < 4 or not np.isfinite(places).all():
        raise ReconstructionError(f"densities need at least 4 different finite places in k-space, got {len(places)}")
    rim = np.hypot(*places.T).max() + 1.0
    around = np.arange(int(np.ceil(2 * np.pi * rim))) / np.ceil(2 * np.pi * rim) * 2 * np.pi
    guards = rim * np.stack([np.cos(around), np.sin(around)], axis=-1)
    cells = Voronoi(np.concatenate([places, guards]))
    ridges = np.asarray(cells.ridge_vertices)
    # A cell is made of the triangles between its place and its sides; only guards have sides that never end.
    bounded = (ridges >= 0).all(axis=1)
    start, end = (cells.vertices[ridges[bounded, side]] for side in (0, 1))
    areas = np.zeros(len(cells.points))
    for side in (0, 1):
        owner = cells.ridge_points[bounded, side]
        a, b = start - cells.points[owner], end - cells.points[owner]
        areas += np.bincount(owner, np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2, minlength=len(areas))
    return (areas[index.ravel()] / shared[index.ravel()]).reshape(k.shape[:-1]).astype(np.float32)


def in_all_directions(k: npt.NDArray[Any]) -> bool:
    """Whether readouts (shots, readout, 3), in cycles per field of view, are straight spokes out of or through 0."""
    along, direction = spoke_directions(k)
    beside = k - along[..., None] * direction[:, None, :]
    return bool(np.abs(beside).max(initial=0.0) < STRAIGHT and (np.abs(along).min(axis=1) < 1.0).all())


@remembered
def sphere_density(k: npt.NDArray[Any]) -> FloatArray:
    """Volume (shots, readout) of each sample of spokes ``k`` (shots, readout, 3), in (cycles per field of view)^3.

    A sample stands for the shell from half way to the one before it to half way to the next, over the part of the
    sphere that lies nearest to its spoke. Raises ReconstructionError for fewer than ``LEAST_SPOKES`` directions.
    """
    along, direction = spoke_directions(k)
    ends = np.stack([along.max(axis=1) > STRAIGHT, along.min(axis=1) < -STRAIGHT], axis=-1)
    points = np.concatenate([direction[ends[:, 0]], -direction[ends[:, 1]]]).astype(np.float64)
    places, index, shared = np.unique(np.round(points, 5), axis=0, return_inverse=True, return_counts=True)
    if len(places) < LEAST_SPOKES:
        raise ReconstructionError(f"a volume needs spokes in {LEAST_SPOKES} directions or more, got {len(places)}")
    cells = SphericalVoronoi(places / np.linalg.norm(places, axis=1, keepdims=True)).calculate_areas()
    areas = np.zeros(ends.shape)
    areas.T[ends.T] = (cells / shared)[index.reshape(-1)]
    # Half way to the neighbours; the outermost sample reaches as far outwards as inwards.
    middle = (along[:, 1:] + along[:, :-1]) / 2
    edges = np.concatenate([2 * along[:, :1] - middle[:, :1], middle, 2 * along[:, -1:] - middle[:, -1:]], axis=1)
    low, high = np.minimum(edges[:, :-1], edges[:, 1:]), np.maximum(edges[:, :-1], edges[:, 1:])
    shells = [np.maximum(high, 0) ** 3 - np.maximum(low, 0) ** 3, np.maximum(-low, 0) ** 3 - np.maximum(-high, 0) ** 3]
    return np.asarray((areas[:, :1] * shells[0] + areas[:, 1:] * shells[1]) / 3, dtype=np.float32)


def spoke_directions(k: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(distance (shots, readout) of each sample from 0 along its spoke, unit direction (shots, 3) of each)."""
    reach = (k[:, -1] - k[:, 0]).astype(np.float64)
    direction = reach / np.maximum(np.linalg.norm(reach, axis=-1, keepdims=True), 1e-12)
    return np.einsum("sri,si->sr", k, direction), direction
