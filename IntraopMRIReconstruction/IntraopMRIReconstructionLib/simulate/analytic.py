"""k-space of ellipses and ellipsoids seen by smooth coils, in closed form: a truth that shares nothing with an FFT.

Sources: Van de Walle et al., IEEE Trans Med Imaging 19:1177 (2000) for ellipses; Koay et al., Magn Reson Med 58:430
(2007) for ellipsoids; Guerquin-Kern et al., IEEE Trans Med Imaging 31:626 (2012) for coils as sums of sinusoids, which
shift the spectrum of the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt
from scipy.special import j1

#: Below this argument the closed forms are 0 / 0 and their limits are used (the error is of its square).
SMALL = 1e-4


@dataclass(frozen=True)
class Ellipsoid:
    """A filled ellipsoid (or, with two numbers, ellipse) of one brightness. Millimetres from the centre of the field
    of view along (x, y[, z]); ``angle_deg`` turns it in the x-y plane."""

    centre_mm: tuple[float, ...]
    half_axes_mm: tuple[float, ...]
    value: complex = 1.0
    angle_deg: float = 0.0


#: A head-like plane: skull, brain, two ventricles, a lesion, and small structures; (x, y) for a field of 240 mm.
HEAD_2D: tuple[Ellipsoid, ...] = (
    Ellipsoid((0.0, 0.0), (78.0, 100.0), 1.0),
    Ellipsoid((0.0, -1.0), (71.0, 92.0), -0.45),
    Ellipsoid((22.0, 4.0), (12.0, 33.0), -0.25, -18.0),
    Ellipsoid((-22.0, 4.0), (14.0, 40.0), -0.25, 18.0),
    Ellipsoid((5.0, 40.0), (22.0, 20.0), 0.3),
    Ellipsoid((-30.0, -45.0), (13.0, 10.0), 0.4, 30.0),
    Ellipsoid((2.0, -30.0), (5.0, 5.0), 0.2),
)
#: The same head in three dimensions, (x, y, z).
HEAD_3D: tuple[Ellipsoid, ...] = tuple(
    Ellipsoid((*part.centre_mm, 0.0), (*part.half_axes_mm, depth), part.value, part.angle_deg)
    for part, depth in zip(HEAD_2D, (80.0, 73.0, 30.0, 32.0, 25.0, 12.0, 6.0), strict=True)
)


@dataclass(frozen=True)
class Coil:
    """Sensitivity ``sum_m weights[m] exp(2 pi i waves[m] . r)``; ``waves`` (m, dimensions) in cycles per mm."""

    weights: tuple[complex, ...]
    waves_per_mm: tuple[tuple[float, ...], ...]

    def at(self, points_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
        """Sensitivity at points (..., dimensions), mm from the centre of the field of view."""
        total = np.zeros(points_mm.shape[:-1], dtype=np.complex128)
        for weight, wave in zip(self.weights, self.waves_per_mm, strict=True):
            total += weight * np.exp(2j * np.pi * (points_mm @ np.asarray(wave)))
        return total


def ring_of_coils(number: int, field_mm: float, dimensions: int = 2) -> tuple[Coil, ...]:
    """Coils around the head: each a product of raised cosines that peaks on its side, with a phase of its own.

    Every other coil of a 3D ring looks up, the others down.
    """
    coils = []
    for index in range(number):
        angle = 2 * np.pi * index / number
        towards, side = np.zeros(dimensions), np.zeros(dimensions)
        towards[:2] = np.cos(angle), np.sin(angle)
        side[:2] = -np.sin(angle), np.cos(angle)
        bumps = [(towards, 0.65, 0.45, 2 if dimensions == 2 else 1), (side, 0.5, 0.0, 1)]
        if dimensions == 3:
            bumps.append((np.array([0.0, 0.0, 1.0]), 0.5, 0.3 if index % 2 else -0.3, 1))
        terms = [(complex(np.exp(0.7j * index)), 0.15 / field_mm * side)]
        for direction, cycles, peak, power in bumps:
            wave = cycles / field_mm * direction
            terms = [
                (weight * share * np.exp(-2j * np.pi * order * cycles * peak), base + order * wave)
                for weight, base in terms
                for order, share in _raised_cosine(power)
            ]
        coils.append(
            Coil(tuple(complex(weight) for weight, _ in terms), tuple(tuple(map(float, wave)) for _, wave in terms))
        )
    return tuple(coils)


def _raised_cosine(power: int) -> list[tuple[int, float]]:
    """(order, share) of the exponentials that make up (1/2 + 1/2 cos) ** power."""
    return [(order, comb(2 * power, power + order) / 4**power) for order in range(-power, power + 1)]


def kspace_at(
    k_per_mm: npt.NDArray[np.float64], parts: Sequence[Ellipsoid], coils: Sequence[Coil] = ()
) -> npt.NDArray[np.complex128]:
    """Fourier integral of the object at ``k_per_mm`` (..., 2 or 3), in mm^2 or mm^3 times brightness.

    Shape (coils, ...), or (...) without coils. Sign: signal(k) = integral of object(r) exp(-2 pi i k . r).
    """
    if not coils:
        return np.asarray(sum(_spectrum(k_per_mm, part) for part in parts))
    signals = np.zeros((len(coils), *k_per_mm.shape[:-1]), dtype=np.complex128)
    for signal, coil in zip(signals, coils, strict=True):
        for weight, wave in zip(coil.weights, coil.waves_per_mm, strict=True):
            shifted = k_per_mm - np.asarray(wave)
            for part in parts:
                signal += weight * _spectrum(shifted, part)
    return signals


def cartesian_kspace(
    matrix: tuple[int, ...], field_mm: tuple[float, ...], parts: Sequence[Ellipsoid], coils: Sequence[Coil]
) -> npt.NDArray[np.complex64]:
    """k-space (coils, [z,] y, x) on the grid ``matrix`` ([z,] y, x), centre at N // 2.

    Scaled so that the centred orthonormal inverse FFT shows each part with its own brightness.
    """
    axes = [(np.arange(n) - n // 2) / f for n, f in zip(matrix, field_mm, strict=True)]
    k = np.stack(np.meshgrid(*axes, indexing="ij")[::-1], axis=-1)
    scale = np.sqrt(np.prod(matrix)) / np.prod(field_mm)
    return (kspace_at(k, parts, coils) * scale).astype(np.complex64)


def grid_points_mm(matrix: tuple[int, ...], field_mm: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Voxel centres ([z,] y, x, dimensions) in mm (x, y[, z]) from the voxel N // 2."""
    axes = [(np.arange(n) - n // 2) * (f / n) for n, f in zip(matrix, field_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij")[::-1], axis=-1)


def object_at(points_mm: npt.NDArray[np.float64], parts: Sequence[Ellipsoid]) -> npt.NDArray[np.complex128]:
    """Brightness of the object at points (..., 2 or 3) in mm."""
    total = np.zeros(points_mm.shape[:-1], dtype=np.complex128)
    for part in parts:
        turned = (points_mm - np.asarray(part.centre_mm)) @ _turn(part)
        total += part.value * (np.square(turned / np.asarray(part.half_axes_mm)).sum(axis=-1) <= 1.0)
    return total


def voxel_means(
    matrix: tuple[int, ...], field_mm: tuple[float, ...], parts: Sequence[Ellipsoid], fine: int = 4
) -> npt.NDArray[np.complex128]:
    """Brightness ([z,] y, x) of the object averaged over each voxel (``fine`` points along each axis)."""
    spacing = np.array([f / n for n, f in zip(matrix, field_mm, strict=True)])[::-1]
    centres = grid_points_mm(matrix, field_mm)
    steps = (np.arange(fine) + 0.5) / fine - 0.5
    offsets = np.stack(np.meshgrid(*[steps] * len(matrix)), axis=-1).reshape(-1, len(matrix))
    return np.asarray(sum(object_at(centres + offset * spacing, parts) for offset in offsets) / len(offsets))


def _spectrum(k_per_mm: npt.NDArray[np.float64], part: Ellipsoid) -> npt.NDArray[np.complex128]:
    half_axes = np.asarray(part.half_axes_mm)
    scaled = k_per_mm @ (_turn(part) * (2 * np.pi * half_axes))
    argument = np.sqrt(np.einsum("...d,...d->...", scaled, scaled))
    safe = np.where(argument < SMALL, 1.0, argument)
    if len(half_axes) == 2:
        shape = np.where(argument < SMALL, np.pi, 2 * np.pi * j1(safe) / safe)
    else:
        shape = np.where(argument < SMALL, 4 / 3 * np.pi, 4 * np.pi * (np.sin(safe) - safe * np.cos(safe)) / safe**3)
    spectrum = part.value * np.prod(half_axes) * shape
    if any(part.centre_mm):
        spectrum = spectrum * np.exp(-2j * np.pi * (k_per_mm @ np.asarray(part.centre_mm)))
    return np.asarray(spectrum, dtype=np.complex128)


def _turn(part: Ellipsoid) -> npt.NDArray[np.float64]:
    """Columns are the ellipsoid's own axes."""
    angle = np.deg2rad(part.angle_deg)
    turn = np.eye(len(part.half_axes_mm))
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn
