"""Smooth displacement fields for the lab's brain shift, and their inverses.

Sums of analytic bumps and Gaussian-filtered noise, on purpose not the B-spline lattice that a registration fits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..data import FloatArray, Matrix
from ..errors import DataError
from .grids import Shape, points_of, smooth_noise, smoothstep

#: Largest change in the last fixed-point step of an inversion that still counts as converged (mm).
INVERSION_TOLERANCE_MM = 0.005
#: Displacement fades to nothing within this depth under the closed skull (mm).
SKULL_TAPER_MM = 16.0

#: Below its highest point by this much (mm) a brain that sinks under air does not move.
SAG_REACH_MM = 80.0
#: Inside this part of the cavity's radius its collapse shrinks what is there; the wall beyond hardly changes volume.
COLLAPSE_CORE = 0.75


@dataclass(frozen=True)
class Opening:
    """A craniotomy: ``centre_ras_mm`` on the inner skull, unit vector ``outward``, radius of the bone flap."""

    centre_ras_mm: npt.NDArray[np.float64]
    outward: npt.NDArray[np.float64]
    radius_mm: float

    def along_and_aside(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Height over the opening (mm, positive outward) and distance from its axis of points (..., 3)."""
        offset = points - self.centre_ras_mm.astype(np.float32)
        height = offset @ self.outward.astype(np.float32)
        aside = np.sqrt(np.maximum(np.einsum("...c,...c", offset, offset) - height**2, 0))
        return height, aside

    def over(self, points: FloatArray, up: npt.NDArray[np.float64]) -> FloatArray:
        """Height (mm) of points (..., 3) over the opening's centre along the unit vector ``up``."""
        return (points - self.centre_ras_mm.astype(np.float32)) @ up.astype(np.float32)


@dataclass(frozen=True)
class Shift:
    """How the brain moves (mm): at the surface under the opening (positive sinks inward, negative bulges outward),

    collapse of the cavity's wall, swelling about the cavity, and the largest of the random field; how far the brain
    sinks away from the dura at its highest point, under air (``sag_mm``). ``up``: against gravity, RAS; the opening
    when None.
    """

    surface_mm: float = 9.0
    collapse_mm: float = 2.5
    swelling_mm: float = 0.0
    random_mm: float = 1.5
    sag_mm: float = 0.0
    up: tuple[float, float, float] | None = None

    def upward(self, opening: Opening) -> npt.NDArray[np.float64]:
        """Unit vector against gravity."""
        up = opening.outward if self.up is None else np.array(self.up, dtype=np.float64)
        return np.asarray(up / np.linalg.norm(up))


def brain_shift(
    ras_from_ijk: Matrix,
    hull_mm: FloatArray,
    opening: Opening,
    cavity_centre_ras_mm: npt.NDArray[np.float64],
    cavity_radius_mm: float,
    shift: Shift,
    rng: np.random.Generator,
) -> FloatArray:
    """Where the brain moves to: displacement (k, j, i, 3) in mm RAS at every point before surgery.

    ``hull_mm`` (k, j, i): signed distance to the inner skull, negative inside. Zero at the closed skull and at its
    base, but for what sinks under air. Folds nowhere: raises DataError when the wanted motion would.
    """
    shape: Shape = hull_mm.shape
    spacing = float(np.linalg.norm(ras_from_ijk[:3, 0]))
    points = points_of(ras_from_ijk, shape)
    height, aside = opening.along_and_aside(points)
    depth = np.maximum(-height, 0)
    reach = _depth_of_base(hull_mm, height, aside)
    tilt = rng.normal(0, 0.12, 3)
    direction = opening.outward + tilt - opening.outward * (tilt @ opening.outward)
    direction /= np.linalg.norm(direction)

    fading = np.cos(0.5 * np.pi * np.clip(depth / reach, 0, 1)) ** 2
    sink = fading * np.exp(-((aside / 44.0) ** 2))
    window = np.exp(-((aside / (opening.radius_mm + 6.0)) ** 4)) * (1 - smoothstep((depth - 12.0) / 40.0))
    taper = smoothstep(-hull_mm / SKULL_TAPER_MM)
    free = (1 - (1 - taper) * (1 - window)).astype(np.float32)

    sink = sink * free
    field = (-shift.surface_mm * sink / max(float(sink[hull_mm < 0].max()), 1e-6))[..., None] * direction
    for amount, radius in ((-shift.collapse_mm, cavity_radius_mm), (shift.swelling_mm, 1.5 * cavity_radius_mm)):
        field = field + free[..., None] * _radial(points - cavity_centre_ras_mm.astype(np.float32), radius, amount)
    field = field + random_field(shape, spacing, 12.0, shift.random_mm, rng, weight=taper)
    if shift.sag_mm:
        up = shift.upward(opening)
        over = opening.over(points, up)
        below = np.clip((over[hull_mm < 0].max() - over) / SAG_REACH_MM, 0, 1)
        field = field - (shift.sag_mm * np.cos(0.5 * np.pi * below) ** 2)[..., None] * up
    result = np.asarray(field, dtype=np.float32)
    smallest = float(jacobian_determinant(result, ras_from_ijk).min())
    if smallest <= 0.05:
        raise DataError(f"{shift} would fold the brain (Jacobian determinant {smallest:.2f}); choose smaller amounts")
    return result


def random_field(
    shape: Shape,
    spacing_mm: float,
    smooth_mm: float,
    largest_mm: float,
    rng: np.random.Generator,
    weight: FloatArray | None = None,
) -> FloatArray:
    """Smooth random displacement (k, j, i, 3) whose longest vector has ``largest_mm``."""
    noise = np.stack([smooth_noise(shape, smooth_mm / spacing_mm, rng) for _ in range(3)], axis=-1)
    if weight is not None:
        noise = noise * weight[..., None]
    longest = float(np.linalg.norm(noise, axis=-1).max())
    return np.asarray(noise * (largest_mm / max(longest, 1e-9)), dtype=np.float32)


def invert_field(field: FloatArray, ras_from_ijk: Matrix, steps: int = 60) -> FloatArray:
    """Inverse displacement on the same grid: x + field(x) = y  <=>  y + inverse(y) = x. (k, j, i, 3), mm RAS.

    Fixed-point iteration (Chen et al., Medical Physics 2008) with linear interpolation. Raises DataError when it
    does not converge, which a field that folds causes.
    """
    per_index = np.linalg.inv(np.asarray(ras_from_ijk)[:3, :3]).astype(np.float32)
    moving = np.argwhere(ndimage.binary_dilation(np.abs(field).max(axis=-1) > 1e-4, iterations=6))
    result = np.zeros_like(field)
    if moving.size == 0:
        return result
    start = moving.T.astype(np.float32)
    inverse = np.zeros((moving.shape[0], 3), dtype=np.float32)
    active = np.arange(moving.shape[0])
    for _ in range(steps):
        at = start[:, active] + (inverse[active] @ per_index.T)[:, ::-1].T
        new = np.stack(
            [-ndimage.map_coordinates(field[..., c], at, np.float32, 1, "nearest") for c in range(3)], axis=-1
        )
        change = np.abs(new - inverse[active]).max(axis=-1)
        inverse[active] = new
        active = active[change > INVERSION_TOLERANCE_MM / 10]
        if active.size == 0:
            break
    else:
        if float(change.max()) > INVERSION_TOLERANCE_MM:
            raise DataError(f"the field cannot be inverted (last step {change.max():.3f} mm): does it fold?")
    result[tuple(moving.T)] = inverse
    return result


def jacobian_determinant(field: FloatArray, ras_from_ijk: Matrix) -> FloatArray:
    """Determinant of the derivative of x -> x + field(x), (k, j, i); field (k, j, i, 3) in mm, any orientation."""
    # d(field)/d(RAS) = d(field)/d(ijk) . d(ijk)/d(RAS)
    gradients = [np.stack(list(np.gradient(field[..., c])), axis=-1)[..., ::-1] for c in range(3)]
    by_index = np.stack(gradients, axis=-2)
    derivative = by_index @ np.linalg.inv(np.asarray(ras_from_ijk)[:3, :3]).astype(np.float32)
    a = derivative + np.eye(3, dtype=np.float32)
    return np.asarray(
        a[..., 0, 0] * (a[..., 1, 1] * a[..., 2, 2] - a[..., 1, 2] * a[..., 2, 1])
        - a[..., 0, 1] * (a[..., 1, 0] * a[..., 2, 2] - a[..., 1, 2] * a[..., 2, 0])
        + a[..., 0, 2] * (a[..., 1, 0] * a[..., 2, 1] - a[..., 1, 1] * a[..., 2, 0])
    )


def _radial(offset: FloatArray, radius_mm: float, amount_mm: float) -> FloatArray:
    """Outward motion of ``amount_mm`` at ``radius_mm``; keeps volumes outside (1 / r^2) and scales the inside."""
    inner = COLLAPSE_CORE * radius_mm
    t = np.linalg.norm(offset, axis=-1) / inner
    at_radius = 1 / np.sqrt(1 + COLLAPSE_CORE**-6) / COLLAPSE_CORE
    return np.asarray((amount_mm / at_radius / inner / np.sqrt(1 + t**6))[..., None] * offset)


def _depth_of_base(hull_mm: FloatArray, height: FloatArray, aside: FloatArray) -> float:
    """Depth under the opening at which the axis meets the far skull, at most 85 mm."""
    inside = (aside < 6.0) & (hull_mm < -4.0) & (height < 0)
    return float(np.clip(-height[inside].min() if inside.any() else 60.0, 40.0, 85.0))
