"""Complex sensitivities of a ring of circular receive coils, from the Biot-Savart law."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.interpolate import make_interp_spline

from ..errors import DataError
from .grids import Shape, points_of

ComplexArray = npt.NDArray[np.complexfloating[Any]]

#: Maps vary over centimetres: they are computed on this grid (mm) and splined.
COARSE_MM = 12.0
SEGMENTS = 32
#: Coils lie this much outside the field of view's inscribed ellipse, and have this part of its radius.
CLEARANCE, LOOP_RADIUS = 1.35, 0.65


def coil_maps(ras_from_ijk: npt.ArrayLike, shape: Shape, coils: int = 8) -> npt.NDArray[np.complex64]:
    """Sensitivities, shape (coils, k, j, i) complex64, root sum of squares 1 at the centre of the field of view.

    Loops stand in rings about the S axis (B0), half of them higher than the others; the map is B_R - i B_A
    (principle of reciprocity; Roemer et al., MRM 1990). Raises DataError when ``coils`` is not 1..64.
    """
    if not 1 <= coils <= 64:
        raise DataError(f"coils must be 1 to 64, got {coils}")
    matrix = np.asarray(ras_from_ijk, dtype=np.float64)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0) * (np.array(shape[::-1]) - 1)
    counts = np.maximum(6, (lengths / COARSE_MM).astype(int) + 1)
    nodes = [np.linspace(0, n - 1, count) for n, count in zip(shape[::-1], counts, strict=True)]
    steps = np.array([n[1] - n[0] for n in nodes])
    coarse = matrix @ np.diag([*steps, 1.0])
    small: Shape = (len(nodes[2]), len(nodes[1]), len(nodes[0]))
    points = points_of(coarse, small).astype(np.float64)
    centre = points.reshape(-1, 3).mean(axis=0)
    half = np.abs(points.reshape(-1, 3) - centre).max(axis=0)

    maps = np.stack([_loop(points - centre, half, c, coils) for c in range(coils)])
    maps /= np.linalg.norm(maps[:, small[0] // 2, small[1] // 2, small[2] // 2])
    result = maps.astype(np.complex64)
    for axis, (node, n) in enumerate(zip(nodes[::-1], shape, strict=True), start=1):
        spline = make_interp_spline(node, np.eye(len(node)), k=3)(np.arange(n)).astype(np.float32)
        result = np.moveaxis(np.tensordot(result, spline, axes=(axis, 1)), -1, axis)
    return np.ascontiguousarray(result)


def _loop(points: npt.NDArray[np.float64], half_mm: npt.NDArray[np.float64], coil: int, coils: int) -> ComplexArray:
    """B_R - i B_A of one loop at RAS offsets (..., 3) from the centre of the field of view."""
    angle = 2 * np.pi * coil / coils + 0.2
    outward = np.array([np.cos(angle), np.sin(angle), 0.0])
    aside, up = np.array([-np.sin(angle), np.cos(angle), 0.0]), np.array([0.0, 0.0, 1.0])
    lift = (0.35 if coil % 2 else -0.35) * half_mm[2] if coils > 3 else 0.0
    middle = CLEARANCE * half_mm * outward + np.array([0, 0, lift])
    radius = LOOP_RADIUS * float(half_mm[:2].mean())
    turn = 2 * np.pi * (np.arange(SEGMENTS) + 0.5) / SEGMENTS
    places = middle + radius * (np.cos(turn)[:, None] * aside + np.sin(turn)[:, None] * up)
    currents = np.cos(turn)[:, None] * up - np.sin(turn)[:, None] * aside
    field = np.zeros(points.shape)
    for place, current in zip(places, currents, strict=True):
        away = points - place
        # The wire is not thinner than this: no infinite field where a coil meets the corner of the box.
        distance = np.maximum(np.linalg.norm(away, axis=-1), 0.3 * radius)
        field += np.cross(current, away) / distance[..., None] ** 3
    return np.asarray(field[..., 0] - 1j * field[..., 1])
